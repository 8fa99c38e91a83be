"""Who transcribes which file: a claim that holds between machines, ends with its process, and trusts no clock.

Each process has a file of its own, which it keeps locked and in which it raises a number every few seconds. To claim a
recording it makes a hard link to that file under the recording's key: the system lets only one process make a name.

    .archive/claims/worker-5e0c9a41-86f1...          one process, here twice more:
    .archive/claims/3fa91c07....1                    the first to have claimed this recording
    .archive/claims/b07e22d1....2                    the second: the first was killed

Through the link others see whether the owner lives. On the same machine the lock says it, which the kernel takes back
however a process ends. From another machine, where a lock of a shared disk may not reach, the number has to change
within LEASE_S of the *observer's* own time. No time of day, of a file or of another machine is compared with anything:
clocks that are off do no harm.

A claim whose owner is dead is not removed, because two who find it so at once could remove each other's next one: the
next number after it is claimed instead. The number thus tells how many processes died at this recording.
"""

import contextlib
import errno
import itertools
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from whisper_lab import console, locks
from whisper_lab.locks import fcntl

BEAT_S = 5.0  # between two numbers
LEASE_S = 60.0  # without a new number: dead. A disk that hangs for a while must not be taken for a death
PREFIX = "worker-"
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EXDEV, 524}  # 524: Linux's ENOTSUPP


class Worker:
    """This process, as other processes see it, while the block lasts; what it has claimed is free afterwards."""

    def __init__(self, folder: Path, who: str = "", beat_s: float = BEAT_S, lease_s: float = LEASE_S,
                 now: Callable[[], float] = time.monotonic):
        """folder: of the claims; who: what others are told; now: s that only this process compares."""
        self.folder, self.who, self.beat_s, self.lease_s, self._now = folder, who, beat_s, lease_s, now
        self.token = f"{locks.machine()}-{secrets.token_hex(8)}"
        self.path = folder / f"{PREFIX}{self.token}"
        self.part = folder / f"{self.token}.part"  # where this process writes what it will rename
        self.held: set[Claim] = set()
        self._seen: dict[Path, tuple[bytes, float]] = {}  # a claim of another machine: its content, first seen when
        self._has_links, self._ended = True, threading.Event()

    def __enter__(self) -> "Worker":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_what_died_here()
        self._open(os.O_CREAT | os.O_EXCL)
        self._beat(0)
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # the disk is away: others find this process dead
            for claim in list(self.held):
                claim.release()
        os.close(self._file)
        with contextlib.suppress(OSError):
            for path in (self.part, self.path):
                path.unlink(missing_ok=True)

    def _live(self) -> None:
        for number in itertools.count(1):
            if self._ended.wait(self.beat_s):
                return
            with contextlib.suppress(OSError):  # the disk is away: others may think us dead, and `is_mine` says so
                try:
                    self._beat(number)
                except OSError:  # it was away, and what was open is of no use any more
                    stale = self._file
                    self._open(0)
                    os.close(stale)
                    self._beat(number)

    def _open(self, flags: int) -> None:
        self._file = os.open(self.path, os.O_RDWR | flags, 0o666)
        with contextlib.suppress(OSError):  # a disk without locks: the number alone tells
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _beat(self, number: int) -> None:
        """The same length every time, so that no one reads half of it; on the server before this returns."""
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, f"{self.token} {number:010} {self.who}\n".encode(errors="backslashreplace"))
        os.fsync(self._file)

    # Claims -----------------------------------------------------------------------------------------------------------

    def claim(self, key: str) -> "Claim | None":
        """The recording of this key, ours alone; None while another process has it that is not known to be dead."""
        for generation in itertools.count(1):
            path = self.folder / f"{key}.{generation}"
            self.held.add(made := Claim(self, key, generation))  # before it is made: a signal may come between
            while not self._link(path):
                if (state := self.state(path)) != "gone":
                    break
            else:
                return made
            self.held.discard(made)
            if state != "dead":
                return None

    def _link(self, path: Path) -> bool:
        """Make the name, or find that it is made."""
        if not self._has_links:
            return True
        try:
            os.link(self.path, path)
        except FileExistsError:  # NFS says so too where it made the link and its answer was lost
            with contextlib.suppress(FileNotFoundError):
                return os.path.samestat(os.stat(path), os.stat(self.path))
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            self._has_links = False
            console.warn(f"the disk of {self.folder.parent.parent} has no hard links: two processes on the same shard "
                         "would do their work twice; give each a shard of its own")
        return True

    def give_back(self, keys: set[str]) -> None:
        """Remove the claims of processes that died on recordings which need no more work."""
        for key in {path.name.partition(".")[0] for path in self.folder.iterdir()} & keys:
            if (claim := self.claim(key)) is not None:
                claim.release()

    def owner(self, key: str) -> str:
        """The state of the last process that has claimed this recording; gone: it is free."""
        state = "gone"
        for generation in itertools.count(1):
            if (found := self.state(self.folder / f"{key}.{generation}")) == "gone":
                return state
            state = found

    def state(self, path: Path) -> str:
        """Of the owner of a claim: gone (it was given back), dead, alive, or unsure: not seen for long enough."""
        try:
            with open(path, "rb") as opened:  # opened again each time: NFS then asks its server
                content = opened.read()
                if content.startswith(locks.machine().encode()) and (free := _is_free(opened.fileno())) is not None:
                    return "dead" if free else "alive"
        except FileNotFoundError:
            self._seen.pop(path, None)
            return "gone"
        before, since = self._seen.setdefault(path, (content, self._now()))
        if content != before:
            self._seen[path] = (content, self._now())
            return "alive"
        return "dead" if self._now() - since > self.lease_s else "unsure"

    def _remove_what_died_here(self) -> None:
        """The files of processes of this machine that were killed; their claims stay, they count."""
        for path in self.folder.glob(f"{PREFIX}{locks.machine()}-*"):
            if self.state(path) == "dead":
                (self.folder / f"{path.name.removeprefix(PREFIX)}.part").unlink(missing_ok=True)
                path.unlink(missing_ok=True)


def look_again(folder: Path) -> None:
    """Have the system ask the server what is in a folder: NFS otherwise trusts for up to a minute that a name which was
    not there is not there. Opening the folder is enough."""
    with contextlib.suppress(OSError):
        os.close(os.open(folder, os.O_RDONLY))


def _is_free(handle: int) -> bool | None:
    """Whether no process holds the lock of an open file; None where the disk has no locks.

    Tried with a shared lock: two who ask at once are not in each other's way.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in locks.NO_LOCKS:
            return None
        raise


@dataclass(frozen=True)
class Claim:
    """A recording that this process has taken."""

    worker: Worker
    key: str
    generation: int  # 1 and the number of processes that died with it

    def path(self, generation: int) -> Path:
        return self.worker.folder / f"{self.key}.{generation}"

    def is_mine(self) -> bool:
        """Whether it still is: a process that was stopped for a while may have been taken for dead.

        Raises OSError where the disk is away.
        """
        look_again(self.worker.folder)
        ours = os.stat(self.worker.path)
        if not self.worker._has_links:
            return True
        try:
            mine = os.path.samestat(os.stat(self.path(self.generation)), ours)
        except FileNotFoundError:
            return False
        return mine and not os.path.lexists(self.path(self.generation + 1))

    def release(self) -> None:
        """Give it back, with the claims of those that died, the last one first: what is left looks dead, not free.

        Raises OSError where the disk is away.
        """
        if self.is_mine():
            for generation in range(self.generation, 0, -1):
                self.path(generation).unlink(missing_ok=True)
        self.worker.held.discard(self)  # not before it is given back: a signal may come between
