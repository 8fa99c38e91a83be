"""Is there anything in this sound that could be speech? For silence a Whisper invents words: it must not be asked.

The one rule of the lab. Sound holds no speech

- where it is near silent: no sample reaches NEAR_SILENT_DBFS; or
- where it is steady: the level of its frames hardly changes. Speech is syllables and pauses, and its level rises and
  falls by 10 dB and more; the hiss of a microphone, a fan or a hum stays where it is, however loud. Measured on 20
  minutes of human speech, clips with noise only 5 dB softer included: the loudest frames of three seconds are at least
  10 dB above the softest ones, and for white, pink or brown noise it is less than 2 dB.

It says no only where there is nothing to lose: music, a slamming door or a cough passes, and the model's own no-speech
rule (decoding.is_silence) has the last word.
"""

import numpy as np

from whisper_lab.audio import NEAR_SILENT_DBFS, SAMPLE_RATE

FRAME = 0.02  # s
STEADY_DB = 4.0  # between the softest and the loudest frames; noise 2, speech 10 and more
SOFTEST, LOUDEST = 10, 98  # percentiles of the frames; a click is shorter than 2 % of them
SHORTEST_STEADY = 2.0  # s; a vowel may be as steady as a fan, but not for as long


def is_silent(samples: np.ndarray, rate: int = SAMPLE_RATE) -> bool:
    """Whether float32 [n] in -1..1 holds nothing that could be speech; no samples are silent."""
    if not len(samples) or np.abs(samples).max() < 10 ** (NEAR_SILENT_DBFS / 20):
        return True
    return len(samples) >= SHORTEST_STEADY * rate and spread_db(samples, rate) < STEADY_DB


def spread_db(samples: np.ndarray, rate: int = SAMPLE_RATE) -> float:
    """How far the level of 20 ms rises and falls: between two percentiles of the frames, in dB.

    Of the differences from sample to sample: a rumble below speech would hide that all above it is steady.
    """
    size = round(FRAME * rate)
    differences = np.diff(samples)
    frames = differences[:len(differences) // size * size].reshape(-1, size)
    levels = 10 * np.log10(np.maximum(np.einsum("ij,ij->i", frames, frames) / size, 1e-12))
    softest, loudest = np.percentile(levels, [SOFTEST, LOUDEST])
    return float(loudest - softest)
