"""Recordings for whoever has no microphone at hand: clips of media/, put in place of a recording."""

import shutil
from pathlib import Path

MEDIA = Path(__file__).resolve().parents[2] / "media"
CLIPS = {"six digits": "digits.wav", "a command": "kitchen.wav", "a time": "time.wav", "a greeting": "hello.wav",
         "Dutch": "nederlands.wav", "half a minute": "long.flac"}


def labels() -> list[str]:
    """What the buttons say: the clips that are here. A copy of the package alone has none."""
    return [label for label, name in CLIPS.items() if (MEDIA / name).is_file()]


def size(label: str) -> int:
    """Bytes of a clip."""
    return (MEDIA / CLIPS[label]).stat().st_size


def copy(label: str, folder: Path) -> Path:
    """The clip as a file of its own in `folder`: what a visitor hears and saves goes after an hour, the clip stays."""
    return Path(shutil.copyfile(MEDIA / CLIPS[label], folder / CLIPS[label]))
