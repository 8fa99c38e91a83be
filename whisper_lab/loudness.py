"""How loud a recording is, in decibels relative to full scale, with advice for whoever records."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

FULL_SCALE = 32767 / 32768  # the largest 16-bit sample
NEAR_SILENT_DBFS = -60.0  # peak; 33 of 32768 steps: the hum of a microphone that hears nobody
QUIET_DBFS = -30.0  # peak; speech at arm's length peaks at -20 to -3
CLIPPED_TOO_MUCH = 1e-3  # fraction of samples at full scale that can be heard as distortion
PIECE = 16_384  # samples looked at at once


@dataclass(frozen=True)
class Level:
    """How loud a recording is. dBFS: decibels relative to full scale, 0 at most; None where all is zero."""

    rms_dbfs: float | None
    peak_dbfs: float | None
    clipped_fraction: float  # of the samples, 0..1, that lie at full scale
    silent: bool  # nothing that could be speech
    all_zero: bool  # not even noise: a muted or blocked microphone rather than a quiet room
    advice: str | None  # one sentence, or None where the level is good


def level(samples: np.ndarray) -> Level:
    """Loudness of float samples [n], with advice for whoever records. All fields can be written as JSON."""
    meter = Meter()
    for block in blocks(np.asarray(samples, np.float32)):
        meter.add(block)
    return meter.level()


class Meter:
    """Loudness of a recording that comes in blocks."""

    def __init__(self) -> None:
        self.samples, self.energy, self.peak, self.clipped = 0, 0.0, 0.0, 0

    def add(self, block: np.ndarray) -> None:
        """float32 [n] in -1..1"""
        if len(block):
            loudness = np.abs(block)
            self.samples += len(block)
            self.energy += float(np.dot(block, block))
            self.peak = max(self.peak, float(loudness.max()))
            self.clipped += int(np.count_nonzero(loudness >= FULL_SCALE))

    def level(self) -> Level:
        """Of everything so far."""
        samples = max(self.samples, 1)
        return _judge(dbfs((self.energy / samples) ** 0.5), dbfs(self.peak), self.clipped / samples)


def _judge(rms_dbfs: float | None, peak_dbfs: float | None, clipped: float) -> Level:
    silent = peak_dbfs is None or peak_dbfs < NEAR_SILENT_DBFS
    advice = None
    if peak_dbfs is None:
        advice = "pure silence, every sample is zero: is the microphone muted, or blocked by the browser?"
    elif silent:
        advice = f"near silence (peak {peak_dbfs:.0f} dBFS): is this the right microphone, and is its gain up?"
    elif peak_dbfs < QUIET_DBFS:
        advice = f"very quiet (peak {peak_dbfs:.0f} dBFS): move closer to the microphone"
    elif clipped > CLIPPED_TOO_MUCH:
        advice = f"clipped ({100 * clipped:.1f} % of the samples at full scale): lower the gain or move away"
    return Level(rms_dbfs, peak_dbfs, clipped, silent, peak_dbfs is None, advice)


def dbfs(amplitude: float) -> float | None:
    """Amplitude (1 is full scale) in decibels; None for 0."""
    return round(20 * float(np.log10(amplitude)), 2) if amplitude > 0 else None


def levels_dbfs(frames: np.ndarray) -> np.ndarray:
    """The level of each frame, float32 [frames, samples]: that of its mean power, at least -120 dBFS; [frames]."""
    wide = frames.astype(np.float64)
    return 10 * np.log10(np.maximum(np.einsum("ij,ij->i", wide, wide) / frames.shape[1], 1e-12))


def blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Pieces of samples [n], so that looking through an hour takes no second hour of memory."""
    return (samples[start : start + PIECE] for start in range(0, len(samples), PIECE))
