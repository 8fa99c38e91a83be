"""Files appear whole or not at all: written beside their place under another name, then renamed."""

import contextlib
import errno
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from whisper_lab.console import LabError


def _umask() -> int:
    mask = os.umask(0)  # the only way to read it is to set it
    os.umask(mask)
    return mask


PREFIX = ".write-"
LARGEST_TEXT = 64 << 20  # bytes; the largest tokenizer.json in use has 17 MB
NO_FOLDER = "a part of that path is a file, not a folder: choose another"
ELSEWHERE = "choose another folder, one that you may write to"
NO_ROOM = "free some disk space, or choose a folder on another disk"
REMEDIES = {errno.EISDIR: "that is a folder: name a file in it, or another", errno.EEXIST: NO_FOLDER,
            errno.ENOTDIR: NO_FOLDER, errno.ENOSPC: NO_ROOM, getattr(errno, "EDQUOT", errno.ENOSPC): NO_ROOM,
            errno.ENAMETOOLONG: "choose a shorter name"}
UMASK = _umask()  # read here, once, before there are threads: it belongs to the whole process


def cache_folder(kind: str, variable: str) -> Path:
    """Where this lab keeps what every clone of the project shares: `$variable`, else ~/.cache/whisper-onnx-lab/<kind>.

    Whether or not it exists. Raises RuntimeError, as pathlib does, where this user has no home.
    """
    if named := os.environ.get(variable):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "whisper-onnx-lab" / kind


@contextlib.contextmanager
def atomic(path: str | Path, private: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is renamed to `path`, on any error removed.

    What a killed program left half written in that folder is removed first.

    private: only you may read it, as somebody's voice; otherwise the umask says who may. A private file stays private.
    A link stays, and what it leads to is replaced. A device or a pipe, as /dev/stdout, cannot be replaced: it is given
    the whole when that is there. Raises LabError where the folder cannot be written or the disk is full.
    """
    from whisper_lab import locks

    path = Path(path)
    if _is_stream(path):
        with _into_stream(path) as temporary:
            yield temporary
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    named = path.parent.parent / path.name if path.parent.name.startswith(PREFIX) else path  # within another such block
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In a folder of its own, under its own name: soundfile and matplotlib choose the format from the suffix.
        with locks.folder(path.parent, PREFIX) as folder:
            temporary = folder / path.name
            temporary.touch(0o600)
            yield temporary
            if not private and not _is_private(path):
                temporary.chmod(0o666 & ~UMASK)  # a report is not private
            os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(named, error) from error


def _is_stream(path: Path) -> bool:
    """Something to write into that is no file in a folder: a device, a pipe, what a program has open (/dev/stdout)."""
    opened = path.is_symlink() and path.absolute().parts[1:2] in (("dev",), ("proc",))
    return path.exists() and (opened or not path.is_file())


@contextlib.contextmanager
def _into_stream(path: Path) -> Iterator[Path]:
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        yield (temporary := Path(folder) / path.name)
        try:
            sys.stdout.flush()  # what was printed before comes first, where this is the same place
            with temporary.open("rb") as whole, path.open("ab") as out:
                shutil.copyfileobj(whole, out)
        except OSError as error:
            raise _unwritable(path, error) from error


def require_place(path: str | Path) -> None:
    """Raises LabError where a file at `path` could not be written, and makes nothing: to be told before any work.

    Folders that are not there yet are made when the file is.
    """
    if os.path.isdir(path):
        raise _unwritable(Path(path), IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    if not _is_stream(Path(path)):
        _require_folder(str(path), Path(os.path.realpath(path)).parent)


def require_folder(folder: str | Path) -> None:
    """The same for files in a folder, which need not be there yet."""
    _require_folder(f"into {folder}", Path(folder).absolute())


def _require_folder(what: str, folder: Path) -> None:
    nearest = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    if not os.path.isdir(nearest):
        raise LabError(f"cannot write {what}: {nearest} is a file, not a folder", "choose another folder")
    import tempfile  # here: with random, which it needs, a part of every program's time to start

    try:
        tempfile.TemporaryFile(dir=nearest).close()  # has no name, so that nobody sees it
    except OSError as error:
        raise LabError(f"cannot write {what}: {nearest}: {error.strerror or error}",
                       REMEDIES.get(error.errno, ELSEWHERE)) from error


def _unwritable(path: Path, error: OSError) -> LabError:
    return LabError(f"cannot write {path}: {error.strerror or error}", REMEDIES.get(error.errno, ELSEWHERE))


def _is_private(path: Path) -> bool:
    try:
        return not path.stat().st_mode & 0o077
    except OSError:
        return False


def keep(path: Path, named: Path, private: bool = False) -> Path:
    """Give a file a second name: speech-2026-11-21-091530.wav for speech.wav, after when it was written.

    named: the folder of that name, and what it begins with. Raises LabError where all such names are taken, and OSError
    where there is no file or it cannot be kept.
    """
    from datetime import datetime

    made = datetime.fromtimestamp(path.stat().st_mtime)
    for number in range(1, 10_000):  # two within a second
        more = "" if number == 1 else f"-{number}"
        kept = named.with_name(f"{named.stem}-{made:%Y-%m-%d-%H%M%S}{more}{named.suffix}")
        if kept.exists() and kept.samefile(path):  # killed between keeping and renaming: kept already
            return kept
        with contextlib.suppress(FileExistsError):
            _second_name(path, kept, private)
            return kept
    raise LabError(f"{named.parent} is full of files of that second", "move some of them elsewhere")


def _second_name(path: Path, kept: Path, private: bool) -> None:
    """A hard link; a copy where the file system has none. Raises FileExistsError where the name is taken."""
    import shutil

    try:
        os.link(path, kept)
    except FileExistsError:
        raise
    except OSError:  # FAT, some network drives
        if kept.exists():
            raise FileExistsError(kept) from None
        with atomic(kept, private) as temporary:
            shutil.copy2(path, temporary)


def inside(folder: Path, name: object) -> Path:
    """The file that a list in `folder` names: in that folder or below it, by its name. Raises ValueError otherwise."""
    parts = str(name).replace("\\", "/").split("/")
    drive = parts[0][1:2] == ":"  # of Windows
    if not isinstance(name, str) or "\x00" in name or ".." in parts or not parts[0] or drive:
        raise ValueError(f"it names {str(name)[:100]!r}, which is not a place inside its folder")
    return folder / name


def read_bytes(path: str | Path, most: int = LARGEST_TEXT) -> bytes:
    """What is in a plain file of at most `most` bytes.

    Raises OSError where it cannot be read, and ValueError for a pipe or a device, which may have no end and may make
    us wait for one, and for a larger file, which may be a hole that takes no room on the disk.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not a regular file")
        if found.st_size > most:
            raise ValueError(f"it has {found.st_size} bytes, and {most} are the most that are read")
        return file.read(most)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_text(path: str | Path, errors: str = "strict", most: int = LARGEST_TEXT) -> str:
    """A UTF-8 text, its lines ending in \\n. Raises as read_bytes does, and ValueError for what is not UTF-8."""
    return read_bytes(path, most).decode("utf-8", errors).replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path) -> object:
    """A JSON document. Raises OSError where it cannot be read, ValueError for anything that is not JSON."""
    try:
        return json.loads(read_text(path))
    except RecursionError as error:
        raise ValueError("too many brackets within brackets") from error


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically; returns the path.

    Half characters, as in a file's name that is not UTF-8, are written out as `\\udcff`, which JSON reads as the same.
    """
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return Path(path)


def write_json(path: str | Path, document: object) -> Path:
    """Write a JSON document atomically; NaN and infinity are refused (ValueError): unknown is null."""
    return write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
