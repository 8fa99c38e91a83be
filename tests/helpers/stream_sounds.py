"""Sounds and a clock for the tests of streaming: nothing in them depends on a model, or on how fast this machine is."""

import numpy as np

from whisper_lab.audio import SAMPLE_RATE


def speech(seconds: float, dbfs: float = -20.0) -> np.ndarray:
    """Noise in syllables of 0.2 s with gaps of 0.1 s: to an energy detector, somebody speaks."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(0).standard_normal(len(time)) * 10 ** (dbfs / 20)
    return (noise * np.where(time % 0.3 < 0.2, 1.0, 0.01)).astype(np.float32)


def drone(seconds: float) -> np.ndarray:
    """Somebody who never draws breath: dips of 40 ms, too short for a pause, long enough for the noise floor."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(0).standard_normal(len(time)) * 0.1
    return (noise * np.where(time % 0.3 < 0.26, 1.0, 0.01)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


class Clock:
    """Time that passes only when somebody sleeps or works."""

    def __init__(self):
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
