"""How every script talks: notes on stderr, results on stdout, errors of two lines.

A script looks like this::

    def main(argv=None) -> int:
        args = arguments(argv)          # flags.py
        console.note("device", "cpu", "no CUDA device found")
        console.result("text")
        return 0

    if __name__ == "__main__":
        console.run(main)
"""

import contextlib
import errno
import logging
import os
import re
import signal
import sys
import textwrap
import threading
import time
import traceback
import unicodedata
from collections.abc import Callable, Collection, Iterator
from typing import NoReturn

log = logging.getLogger("whisper_lab")

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}
STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")  # signals that ask a program to end; not all are everywhere

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


# Notes, errors and results -------------------------------------------------------------------------------------------

def set_up_notes(level: int) -> None:
    """From now on notes of at least this level (of logging) go to stderr."""
    handler = _Notes(sys.stderr)
    handler.setFormatter(_Plain("%(message)s"))
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(level)


class _Notes(logging.StreamHandler):
    """Writes above a progress bar, never into it; a terminal's lines are as long as the terminal is wide."""

    def format(self, record: logging.LogRecord) -> str:
        return folded(super().format(record), columns_of(self.stream))

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


def note(what: str, choice: object, reason: str, then: str = "") -> None:
    """A choice the program made, with its reason, on stderr: `device: cpu (no CUDA device found)`.

    then: what the user may do about it, a command last; it stands behind the bracket, so that it can be copied.
    """
    log.info("%s: %s (%s)%s", *(plain(part, one_line=True) for part in (what, choice, reason, then and f"; {then}")))


def warn(message: str) -> None:
    """Something the user should know but that stops nothing."""
    log.warning("warning: %s", plain(message, one_line=True))


def error(problem: LabError) -> None:
    """The two lines of an error on stderr, whatever --quiet says."""
    wrong, remedy = (plain(line, one_line=True) for line in (problem.problem, problem.remedy))
    width = columns_of(sys.stderr)
    with _above_bars():
        print(folded(f"error: {wrong}", width), folded(f"  try: {remedy}", width), sep="\n", file=sys.stderr)


def result(text: str = "") -> None:
    """A result, on stdout. A foreign name in it goes through plain(name, one_line=True) first."""
    with _above_bars():
        print(plain(text), flush=True)


def sentence(text: str) -> None:
    """A result that is a sentence, not data: one line in a pipe, folded in a terminal."""
    result(folded(plain(text, one_line=True), columns_of(sys.stdout)))


# A command inside a sentence: a program with what only a command has behind it, and all to the end of the clause. What
# stands in quotes belongs to it, whatever it is.
TYPED = re.compile(r"""(?<![\w./-]) (?:[A-Z_]+=\S+\ )* (?:sudo\ )? (?:[\w./-]*/)?
    (?: python[\d.]*\ (?:-[a-z]\ |\S+\.py\b) | pip\ install\b | make\ [a-z-]+(?=\ [A-Z_]+=|$) | export\ [A-Z_]+= |
        source\ \S+/activate | (?:ls|ffmpeg|arecord|ssh|sbatch)\ (?:-|\S+\.sh\b) | cp\ (?=[-'"/.~]) |
        (?:cd|kill)\ [\w.-]*[/\d] | chmod\ [ugoa\d]*[+\d] |
        apt-get\ install\b | git\ checkout\b | npm\ (?:run|ci)\b )
    (?: '[^']*' | "[^"]*" | (?! [;,)]+(?:\s|$) | \ (?:or|as|and)\ | \ \( ) [^'"] )*""", re.VERBOSE)
GLUE = "\0"  # for a space at which no line may end


WIDTH = 80  # columns, where nothing says how wide it is: rows that are read below each other fit into any terminal


def columns_of(stream) -> int | None:
    """How wide the terminal is that a stream writes to; None: it writes to none."""
    try:
        return max(0, int(os.environ.get("COLUMNS", 0))) or os.get_terminal_size(stream.fileno()).columns or None \
            if stream.isatty() else None
    except (AttributeError, OSError, ValueError):
        return None


def folded(line: str, width: int | None) -> str:
    """A line that is too long for a terminal, in several: those after the first are indented two more.

    Only between words; a command stays in one piece, so that it can be copied.
    """
    if width is None or len(line) <= width or "\n" in line:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    whole = TYPED.sub(lambda found: found[0].replace(" ", GLUE), line)
    lines = textwrap.wrap(whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(GLUE, " ")


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
    width = columns_of(sys.stdout)
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


EVERY_S = 15.0  # between two notes about long work, where there is no bar


def counted(items: Collection, description: str, unit: str) -> Iterator:
    """The items one by one, and how many are done: a bar in a terminal; elsewhere a note now and then, if it takes
    long."""
    bar, last = progress(items, description=description, unit=unit), time.monotonic()
    for done, item in enumerate(bar):
        if columns_of(sys.stderr) is None and done and time.monotonic() - last >= EVERY_S:
            note(description, f"{done} of {count(len(items), unit)} done", "still at work")
            last = time.monotonic()
        yield item


ONE_STEP = 30  # s of sound that a Whisper hears at once


@contextlib.contextmanager
def sound_bar(name: str, seconds: float) -> Iterator[Callable[[float], object]]:
    """A bar over the seconds of a recording, with the time that is left; yields what is called with the s done.

    Nothing is shown for what fits into a window, where it would stand at 0 until all is done; where nobody looks; and
    where tqdm, which the runtime can do without, is not installed. Loading it is a part of the time to the first text.
    """
    bar = None
    if seconds > ONE_STEP and sys.stderr.isatty():
        with contextlib.suppress(ImportError):
            bar = progress(description=name, total=seconds, unit="s", bar_format=
                           "{desc}: {percentage:3.0f} % {bar} {n:.0f} of {total:.0f} s of sound, {remaining} left")
    if bar is None:
        yield lambda done: None
        return
    with bar:
        yield bar.update


# How a program ends --------------------------------------------------------------------------------------------------

_asked: list[int] = []  # the signal that has asked this program to end
at_stop: list[Callable[[], None]] = []  # called once a signal has ended all work and no other can come


def stop(number: int, _frame=None) -> None:
    """A signal's handler: raises what ends the program, so that `finally` blocks run and temporary files go."""
    _asked[:] = [number]
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)


def stop_if_asked() -> None:
    """Ends the program where a signal has asked for it, and a library has swallowed what `stop` raised."""
    if _asked:
        stop(*_asked)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP (kill, scancel, a closed terminal) end the block as Ctrl-C does.

    One that is ignored stays so: after nohup a closed terminal stops nothing. What a library makes of a signal in its
    midst is its own affair: an ImportError from a module in C, any other error from code that catches everything and
    goes on with the half of a module. Whatever it is, the program was asked to stop, and is stopped.
    """
    before = {number: signal.getsignal(number) for name in STOPPING
              if (number := getattr(signal, name, None))}
    numbers = [number for number, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    for number in numbers:
        signal.signal(number, stop)
    _asked.clear()
    try:
        yield
    except Exception:
        if _asked:
            log.debug("what the signal led to", exc_info=True)
        stop_if_asked()
        raise
    finally:
        for number in numbers:
            signal.signal(number, before[number])


def go_on() -> None:
    """Ctrl-C was an answer, not the end: errors after it are errors again."""
    _asked.clear()


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
        _leave(end)


def _leave(end: KeyboardInterrupt | Stopped) -> NoReturn:
    """The end of a program that is stopped: its line on stderr, its exit status.

    At once, though threads may still compute (lanes.py). Python would wait for them, and a second signal would break
    that wait and end in an abort.
    """
    for name in STOPPING:
        if (number := getattr(signal, name, None)) and threading.current_thread() is threading.main_thread():
            signal.signal(number, signal.SIG_IGN)
    sys.unraisablehook = lambda _: None  # an object that the signal left half made, and that complains of it as it goes
    for tidy in at_stop:
        tidy()
    name, status = (end.name, end.code) if isinstance(end, Stopped) else ("Ctrl-C", 128 + signal.SIGINT)
    with contextlib.suppress(OSError):  # the terminal that was closed
        print(f"\nstopped by {name}; files are either complete or as they were before", file=sys.stderr)
    if all(thread.daemon or thread is threading.main_thread() for thread in threading.enumerate()):
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


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
        _leave(end)
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
