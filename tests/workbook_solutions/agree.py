"""Reference solution."""

import numpy as np


def agree(right: np.ndarray, test: np.ndarray, limit: float) -> bool:
    if right.shape != test.shape or not np.isfinite(test).all():
        return False
    error, size = np.linalg.norm(test - right, axis=-1), np.linalg.norm(right, axis=-1)
    return bool((error <= limit * size).all())
