"""A process that saves recordings through 01's lesson, each with a pitch of its own: python saver.py FIRST COUNT.

Prints a line when it is ready, waits for one, and prints one for every recording that is saved; in the current folder.
$LAB_NO_LOCKS: the disk answers as one that has no locks does.
"""

import errno
import importlib
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from whisper_lab import audio, console, locks  # noqa: E402


def sound(number: int) -> np.ndarray:
    """0.1 s, float32 [1600], whose first sample says which recording it is."""
    made = np.full(1600, 0.25, np.float32)
    made[0] = number / 32768
    return made


def no_locks(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def main() -> None:
    first, count = map(int, sys.argv[1:])
    if os.environ.get("LAB_NO_LOCKS"):
        locks.fcntl.flock = no_locks
    lesson = importlib.import_module("01-record-audio-app")
    own = Path(f"in-{first}")
    own.mkdir(exist_ok=True)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(first, first + count):
        audio.write_wav(own / "in.wav", sound(number))
        lesson.convert(own / "in.wav", Path("speech.wav"), 300)
        print(number, flush=True)


if __name__ == "__main__":
    console.run(main)
