"""Task: the log-mel spectrogram by hand (question 1.01).

Fill the gap, then: python -m workbook.check mel
"""

import numpy as np


def mel(samples: np.ndarray, window: np.ndarray, filters: np.ndarray, hop: int) -> np.ndarray:
    """float32 [n] -> [bands, n // hop], as Whisper's feature extractor computes it for sound that fills its window.

    window: the Hann window, [size]; filters: [bands, 1 + size // 2].

    1. Half a frame of mirror image on both sides: np.pad(samples, size // 2, mode="reflect").
    2. Frames of `size` samples, the next one `hop` further on, n // hop of them; each times the window.
    3. np.fft.rfft of each frame, and its power: the square of the magnitude.
    4. filters @ power: the power in each band.
    5. log10, of 1e-10 at least.
    6. What is more than 8 (80 dB) below the largest value of all is raised to that floor; then (x + 4) / 4.
    """
    raise NotImplementedError("the gap: about ten lines")
