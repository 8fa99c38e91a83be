"""Which precision's graphs a program takes: that of --precision, else the fastest that is there."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from whisper_lab import console, names, openvino, sessions
from whisper_lab.console import LabError


def choose(folder: str | Path, name: str, asked: str | None, optimized: bool | None = None,
           provider: str = "cpu") -> str:
    """The precision of the pair to open, with a note where none was asked for. optimized: as of OnnxWhisper, None where
    the program has no --optimized; provider: as of OnnxWhisper.

    Raises LabError, with the command that writes them, where the one that was asked for is not there (and names one
    that is), or none was asked for and no whole pair is there.
    """
    if asked:
        require(folder, name, asked, bool(optimized), provider)
        return asked
    if optimized:
        console.note("precision", "int8", "03 --optimize makes no other pair")
        return "int8"
    found = [*written(folder, name, provider), *written(folder, name)]
    if not found:
        flag = "--optimized" if optimized is False and provider == "cpu" else None
        raise none_whole(Path(folder), name, provider, flag)
    tell(found[0], folder)
    return found[0]


def require(folder: str | Path, name: str, asked: str, optimized: bool, provider: str) -> None:
    """Raises LabError where a pair is not there. asked: also int8_optimized, as 06 has it."""
    plain = asked.removesuffix("_optimized")
    optimized = optimized or plain != asked
    try:
        sessions.find_pair(folder, name, plain, optimized, provider)
    except LabError as error:
        there = [] if optimized or provider != "cpu" else written(folder, name)
        if not there:
            raise
        raise LabError(error.problem, f"take --precision {there[0]}, which is there; or {error.remedy}") from error


def written(folder: str | Path, name: str, provider: str = "cpu") -> list[str]:
    """The precisions whose pair is there, the fastest first; empty: none is."""
    pair = openvino.pair if provider == "openvino" else names.pair
    return list(whole(lambda one: pair(folder, name, one).values()))


def whole(files: Callable[[str], Iterable[Path]]) -> Iterator[str]:
    """The precisions whose files are all there, the fastest first."""
    return (one for one in sessions.FASTEST_FIRST if all(path.is_file() for path in files(one)))


def none_whole(folder: Path, name: str, provider: str = "cpu", flag: str | None = None) -> LabError:
    """The error where no pair is whole: what there is instead, half a pair or the optimized one, which `flag` opens."""
    if folder.is_file():
        return LabError(f"{folder} is a file, not the folder where 03 wrote the graphs", "name the folder")
    for precision in sessions.FASTEST_FIRST:
        lost = [path.name for path in names.pair(folder, name, precision).values() if not path.is_file()]
        if len(lost) == 1:
            command = sessions.export_command(folder, name, precision, provider=provider)
            return LabError(f"half of {name}'s {precision} pair is missing: {folder / lost[0]}", f"write it: {command}")
    command = sessions.export_command(folder, name, "int8", provider=provider)
    if all(path.is_file() for path in names.pair(folder, name, "int8", optimized=True).values()):
        return LabError(f"of {name} there is nothing but the optimized int8 pair in {folder}",
                        (f"add {flag}; or " if flag else "") + f"write the plain pair: {command}")
    return no_checkpoint(name) or LabError(f"there are no graphs of {name} in {folder}", f"write them: {command}")


def no_checkpoint(name: str) -> LabError | None:
    """What keeps the path that --model named from being a checkpoint, of which graphs could be made. None: nothing, or
    it is no path."""
    try:
        from whisper_lab import checkpoints
    except ImportError:  # a small device has graphs alone
        return None
    try:
        if names.is_path(names.given(name)):
            checkpoints.require(names.given(name))
        return None
    except LabError as error:
        return error


def tell(precision: str, folder: str | Path) -> None:
    """The note about a precision that no one asked for."""
    best = sessions.FASTEST_FIRST[0]
    console.note("precision", precision, f"the fastest in {folder}" if precision == best else
                 f"no {best} graphs in {folder}, which would be faster")
