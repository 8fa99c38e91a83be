"""Reference solution."""

import numpy as np
import soundfile
import soxr

RATE = 16000


def load(path: str) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    return soxr.resample(mono, rate, RATE) if rate != RATE else mono
