"""Who is at work on what: locks between processes, and temporary folders that can be told from abandoned ones.

A process that is killed leaves its temporary folder behind, and the next one has to know whether somebody still writes
there. A process id does not tell: on another machine, or in another container, it is another process. So the writer
holds a lock (flock) on a file in the folder, which the kernel gives back however the process ends, and the folder's
name says on which machine:

    .export-3fa91c07-x1y2z3ab.partial/.lock

What this machine made, and no one holds, is removed. What another one made is removed when it is a day old, because the
locks of a shared disk may reach no further than one machine; so is everything where the disk has no locks.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from whisper_lab import console

try:
    import fcntl
except ImportError:  # not POSIX: age alone tells
    fcntl = None

DAY_S = 24 * 3600  # nobody needs longer for one file or one folder
LOCK, SUFFIX = ".lock", ".partial"
# What follows a prefix: the machine (a process id, or nothing, in the first versions) and what tempfile drew.
NAME = rf"(?:(?P<machine>[0-9a-f]{{8}})-|\d+-)?[a-z0-9_]{{8}}{re.escape(SUFFIX)}"
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, 524}  # 524: Linux's ENOTSUPP
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


def machine() -> str:
    """Eight hexadecimal digits for this machine since it was started: where a lock can be trusted."""
    try:  # machines of a class are copies of one disk, with one name: what the kernel drew at its start differs
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        boot = ""
    return hashlib.sha256(f"{socket.gethostname()} {boot}".encode()).hexdigest()[:8]


# Locks ---------------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def alone(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path`, which is gone afterwards. Yields True; False where the disk has no locks.

    Raises BlockingIOError where another process holds it and `wait` is False, OSError where it cannot be made.
    """
    with _noted(_files, path):
        held = _take(path, wait)
        try:
            yield held is not None
        finally:
            path.unlink(missing_ok=True)  # while it is held: nobody can have it yet
            _close(held)


def _take(path: Path, wait: bool) -> int | None:
    """A locked handle of the file under this name, which is made; None where the disk has no locks.

    Whoever held it before may have removed it meanwhile: a lock on a file without a name keeps no one out.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | NOFOLLOW, 0o600)
        _handles.add(handle)
        held = _locked(handle, wait)
        if held is None or _is_named(held, path):
            return held
        _close(held)


def _locked(handle: int, wait: bool) -> int | None:
    """Lock an open file; closed and None where there are no locks. Raises BlockingIOError where another one has it."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return handle
    except OSError as error:
        if error.errno not in NO_LOCKS:
            _close(handle)
            raise
    except BaseException:  # Ctrl-C while it waits
        _close(handle)
        raise
    _close(handle)
    return None


def _is_named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _close(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)
        _handles.discard(handle)


# What a signal breaks off --------------------------------------------------------------------------------------------

# Python raises what a signal's handler raises between any two instructions: also after a file was made and before the
# block that removes it, or within that block.
_handles: set[int] = set()  # of lock files, locked or about to be
_files: list[Path] = []  # lock files that are held or about to be made
_folders: list[tuple[Path, str]] = []  # where temporary folders are, and what their names begin with


@contextlib.contextmanager
def _noted(notes: list, one: object) -> Iterator[None]:
    notes.append(one)
    try:
        yield
    except Exception:  # not what a signal raises: then it stays noted, until nothing can break off any more
        notes.remove(one)
        raise
    notes.remove(one)


def _tidy() -> None:
    """Remove what no `finally` block got to. The program ends right after: nothing that it holds is needed any more."""
    for handle in list(_handles):
        with contextlib.suppress(OSError):
            _close(handle)
    for path in list(_files):
        with contextlib.suppress(OSError):  # another process waited for it, and has it
            held = _take(path, wait=False)
            path.unlink(missing_ok=True)
            _close(held)
    for parent, prefix in list(_folders):
        with contextlib.suppress(OSError):
            remove_abandoned(parent, prefix)


console.at_stop.append(_tidy)


# Temporary folders ---------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A hidden folder in `parent`, only its owner's, gone after the block; raises OSError.

    prefix: what the folders of one kind share; abandoned ones of that kind are removed first.
    """
    with _noted(_folders, (parent, prefix)):
        remove_abandoned(parent, prefix)
        path, held = _new_folder(parent, prefix)
        try:
            yield path
        finally:
            _remove(path, held)


def _new_folder(parent: Path, prefix: str) -> tuple[Path, int | None]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"{prefix}{machine()}-", suffix=SUFFIX, dir=parent))
        try:
            return path, _take(path / LOCK, wait=True)
        except FileNotFoundError:  # taken for abandoned between its making and its locking
            continue
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise


def remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove the folders of one kind in `parent` that no one is at work in."""
    shape = re.compile(re.escape(prefix) + NAME)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in list(os.scandir(parent)):
            if (match := shape.fullmatch(entry.name)) and entry.is_dir(follow_symlinks=False):
                _remove_abandoned_folder(Path(entry.path), match["machine"] == machine())


def _remove_abandoned_folder(path: Path, ours: bool) -> None:
    with contextlib.suppress(OSError):  # another user's, gone already, or in use
        held = _take(path / LOCK, wait=False) if ours else None
        if held is not None or time.time() - max(one.lstat().st_mtime for one in [path, *path.rglob("*")]) > DAY_S:
            _remove(path, held)


def _remove(path: Path, held: int | None) -> None:
    """Remove a folder, its lock last: NFS keeps a file that is open, under a name of its own."""
    shutil.rmtree(path, ignore_errors=True)
    _close(held)
    shutil.rmtree(path, ignore_errors=True)
