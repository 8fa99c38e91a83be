"""speech.wav appears whole or not at all, and the one before it is kept.

A program that is killed half way leaves the old recording or the new one under its name, never half of one: the new
one is written beside it, the old one gets a second name in recordings/, and one rename puts the new in place. On a
machine that a class shares a voice is its owner's alone: speech.wav is 0600, recordings/ 0700.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from whisper_lab import files, locks
from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.console import LabError
from whisper_lab.loudness import Level

KEPT = "recordings"  # the folder beside speech.wav
SCHEMA = "whisper-onnx-lab/recording/1"
_one_at_a_time = threading.Lock()  # two people may press Save in the same second, also where the disk has no locks


@dataclass(frozen=True)
class Saved:
    """What stands in the file, and where it came from."""

    path: Path
    duration: float  # s
    level: Level
    source_rate: int  # Hz, as it arrived
    source_channels: int
    source_format: str
    notes: list[str]  # what was converted, in order
    previous: Path | None  # where the recording of before is kept now
    dropouts: int | None = None  # None: not known, the browser does not tell

    def document(self) -> dict:
        """For --json; keys carry their unit."""
        return {
            "schema": SCHEMA, "file": self.path.name, "duration_s": round(self.duration, 3),
            "sampling_rate_hz": SAMPLE_RATE, "level": asdict(self.level),
            "source": {"sampling_rate_hz": self.source_rate, "channels": self.source_channels,
                       "format": self.source_format},
            "converted": self.notes, "previous": self.previous and f"{KEPT}/{self.previous.name}",
            "dropouts": self.dropouts,
            **({"dropouts_reason": "a browser does not tell"} if self.dropouts is None else {}),
        }


@dataclass
class Place:
    """Where to write now, and, once that is done, where the recording of before is kept."""

    temporary: Path
    previous: Path | None = None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Place]:
    """Yield a place beside `path`. On success what stood at `path` is kept and the new file takes its name.

    Raises LabError where the folder cannot be written or the disk is full.
    """
    with contextlib.ExitStack() as after:
        with files.atomic(path, private=True) as temporary:
            place = Place(temporary)
            yield place
            after.enter_context(_one_at_a_time)  # until the new file has its name
            locked = after.enter_context(locks.alone(path.with_name(f".{path.name}.lock")))
            place.previous = keep(path)
            if not locked:  # another program may replace the new file before it has seen it: kept first, none is lost
                keep(temporary, path)


def keep(path: Path, named: Path | None = None) -> Path | None:
    """Give the recording at `path` a second name: recordings/speech-2026-11-21-091530.wav, after when it was made.

    named: where it is going to be, if it is not there yet. None where there is no recording yet. Raises LabError where
    recordings/ cannot be written.
    """
    named = named or path
    if not path.exists():
        return None
    folder = named.parent / KEPT
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        _only_mine(folder, 0o700)
        _only_mine(path, 0o600)  # of a version of before, or of another program; its second name with it
        return files.keep(path, folder / named.name, private=True)
    except OSError as error:
        raise LabError(f"cannot keep the previous recording in {folder}: {error.strerror or error}",
                       "make room, or choose another place with --output") from error


def _only_mine(path: Path, mode: int) -> None:
    """No one else may look; on a file system without such rights it stays as it is."""
    with contextlib.suppress(OSError):
        path.chmod(mode)
