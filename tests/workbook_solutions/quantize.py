"""Reference solution."""

import numpy as np


def quantize(row: np.ndarray) -> tuple[np.ndarray, float]:
    largest = float(np.abs(row).max())
    scale = largest / 127 if largest else 1.0
    return np.rint(row / scale).astype(np.int8), scale
