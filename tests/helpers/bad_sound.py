"""Files that claim to be recordings, for every reader of sound."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
KINDS = ("missing", "folder", "empty", "text", "no_samples", "nan", "bits33", "cut_m4a", "one_hertz", "loud")


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
    elif kind == "bits33":  # as damage makes it: no codec has samples of 33 bits
        soundfile.write(path, np.full(9999, 0.1), RATE)
        path.write_bytes(patched(path.read_bytes(), 34, b"\x21\x00"))
    elif kind == "cut_m4a":  # the index is at the end
        write_m4a(path)
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    elif kind == "one_hertz":
        soundfile.write(path, np.full(9999, 0.1), RATE)
        path.write_bytes(patched(path.read_bytes(), 24, b"\x01\x00\x00\x00"))
    elif kind == "loud":
        soundfile.write(path, np.array([0.1, 3e38, 0.1] * 99), RATE, subtype="FLOAT")
    elif kind == "hour":
        soundfile.write(path, np.zeros(3600 * 8000, np.int16), 8000)
    return path


def patched(data: bytes, at: int, new: bytes) -> bytes:
    """data with `new` in place of the bytes from `at` on."""
    return data[:at] + new + data[at + len(new):]


def write_m4a(path: Path, seconds: float = 2.0) -> None:
    """Noise as AAC in an MP4, whatever the name."""
    import av

    noise = 0.1 * np.random.default_rng(0).standard_normal((1, round(seconds * RATE))).astype(np.float32)
    with av.open(str(path), "w", format="mp4") as container:
        track = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        frame.sample_rate = RATE
        container.mux(track.encode(frame))
        container.mux(track.encode())
