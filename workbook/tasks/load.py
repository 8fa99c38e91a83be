"""Task: a sound file as Whisper wants it (questions 1.01, 2.01 and 3.02).

Fill the gap, then: python -m workbook.check load
"""

import numpy as np

RATE = 16000  # Hz


def load(path: str) -> np.ndarray:
    """A WAV file of any rate, number of channels and number of bits -> float32 [n] in -1..1, mono, at RATE.

    Channels are averaged. Use soundfile to read (it can scale to -1..1) and soxr to resample (it filters).
    """
    raise NotImplementedError("the gap: about five lines")
