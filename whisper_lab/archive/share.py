"""A folder on a share (NFS, SMB, Lustre), which may disappear for a moment: what fails then is tried again.

What a share says on its way out differs: a stale handle, an input/output error, no such file; or its folder is there
and empty, because nothing is mounted on it. So an error counts as the share's where its number says so, and where the
folder itself cannot be listed or has nothing in it at that moment.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from whisper_lab import console
from whisper_lab.console import LabError

# What the kernel says of a server that does not answer, of a handle from before it was started again, of a lost path.
PASSING = {getattr(errno, name) for name in (
    "ESTALE", "EIO", "ENOTCONN", "ECONNRESET", "ECONNABORTED", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH",
    "ETIMEDOUT", "ENODEV", "ENXIO", "EREMOTEIO", "ESHUTDOWN", "EAGAIN", "EINTR", "ENOLINK") if hasattr(errno, name)}
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # s; each pause is twice the one before
T = TypeVar("T")


class Gone(LabError):
    """The share has been away for as long as we were to wait."""


class Share:
    """The folder `root` and how long to wait for it."""

    def __init__(self, root: Path, patience_s: float, again: str):
        """patience_s: the most that one call waits; again: the command that goes on when the share is back."""
        self.root, self.patience_s, self.again = root, patience_s, again

    def patiently(self, call: Callable[[], T], path: Path) -> T:
        """What `call`, which reads `path`, returns; tried again while the share may be the reason that it fails.

        Raises what `call` raised last (OSError or LabError), and Gone where the whole share does not come back.
        """
        pause, waited = FIRST_PAUSE, 0.0
        while True:
            try:
                return call()
            except (OSError, LabError) as error:
                if not self.is_to_blame(error, path):
                    raise
                if waited >= self.patience_s:
                    if self.is_away():
                        raise self._gone() from error
                    raise
                if not waited:
                    console.warn(f"{path}: {_reason(error)}; trying again for {self.patience_s:g} s")
            pause = min(pause, self.patience_s - waited)
            time.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, LONGEST_PAUSE)

    def is_to_blame(self, error: BaseException, path: Path) -> bool:
        """Whether the share, and not the file, may be why reading `path` failed."""
        return is_passing(error) or self.is_away() or _answers_badly(path)

    def is_away(self) -> bool:
        """Whether the folder cannot be listed, or nothing is in it any more."""
        try:
            with os.scandir(self.root) as entries:
                return next(entries, None) is None
        except OSError:
            return True

    def _gone(self) -> Gone:
        return Gone(f"{self.root} has been out of reach for {self.patience_s:g} s",
                    f"when it is back, go on, what is finished stays: {self.again}")


def is_passing(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, may be over in a moment."""
    return any(isinstance(one, OSError) and one.errno in PASSING for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _answers_badly(path: Path) -> bool:
    """libsndfile and FFmpeg call a disk's error damaged sound: does reading the file itself say more?"""
    try:
        if path.is_file():
            with open(path, "rb") as opened:
                opened.read(1)
    except OSError as error:
        return is_passing(error)
    return False


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or getattr(error, "problem", None) or str(error)
