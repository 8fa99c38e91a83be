"""Files that claim to be recordings, for every reader of sound."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
KINDS = ("missing", "folder", "empty", "text", "no_samples", "nan")


def bad_file(kind: str, folder: Path) -> Path:
    """`folder`/<kind>.wav of one of KINDS, or "hour": an hour of silence, which is only too long for some."""
    path = folder / f"{kind}.wav"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is not sound\n" * 20)
    elif kind == "no_samples":
        soundfile.write(path, np.zeros(0), RATE)
    elif kind == "nan":
        soundfile.write(path, np.array([0.1, np.nan, 0.1] * 99), RATE, subtype="FLOAT")
    elif kind == "folder":
        path.mkdir()
    elif kind == "hour":
        soundfile.write(path, np.zeros(3600 * 8000, np.int16), 8000)
    return path
