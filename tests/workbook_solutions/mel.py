"""Reference solution."""

import numpy as np


def mel(samples: np.ndarray, window: np.ndarray, filters: np.ndarray, hop: int) -> np.ndarray:
    size, count = len(window), len(samples) // hop
    padded = np.pad(samples, size // 2, mode="reflect")
    frames = np.stack([padded[i * hop:i * hop + size] * window for i in range(count)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    bands = filters @ power.T
    logs = np.log10(np.maximum(bands, 1e-10))
    logs = np.maximum(logs, logs.max() - 8)
    return (logs + 4) / 4
