"""Which precision's graphs a program takes: that of --precision, else the fastest that is there."""

from collections.abc import Callable, Iterable
from pathlib import Path

from whisper_lab import console, names, openvino, sessions
from whisper_lab.console import LabError


def choose(folder: str | Path, name: str, asked: str | None, optimized: bool = False, provider: str = "cpu") -> str:
    """The precision of the pair to open, with a note where none was asked for. optimized, provider: as of OnnxWhisper.

    Raises LabError, with the command that writes them, where none was asked for and no graphs are there. Whether those
    that were asked for are there is said where they are opened.
    """
    if asked:
        return asked
    if optimized:
        console.note("precision", "int8", "03 --optimize makes no other pair")
        return "int8"
    found = fastest(lambda one: _pair(folder, name, one, provider)) or fastest(lambda one: _pair(folder, name, one))
    if found is None:
        command = sessions.export_command(folder, name, "int8", provider=provider)
        if Path(folder).is_file():
            raise LabError(f"{folder} is a file, not the folder where 03 wrote the graphs", "name the folder")
        raise LabError(f"there are no graphs of {name} in {folder}", f"write them: {command}")
    tell(found, folder)
    return found


def fastest(files: Callable[[str], Iterable[Path]]) -> str | None:
    """The fastest precision whose files are all there; None: none is."""
    for precision in sessions.FASTEST_FIRST:
        if all(path.is_file() for path in files(precision)):
            return precision
    return None


def tell(precision: str, folder: str | Path) -> None:
    """The note about a precision that no one asked for."""
    best = sessions.FASTEST_FIRST[0]
    console.note("precision", precision, f"the fastest in {folder}" if precision == best else
                 f"no {best} graphs in {folder}, which would be faster")


def _pair(folder: str | Path, name: str, precision: str, provider: str = "cpu") -> Iterable[Path]:
    pair = openvino.pair if provider == "openvino" else names.pair
    return pair(folder, name, precision).values()
