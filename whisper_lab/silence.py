"""Is there anything in this sound that could be speech? For silence a Whisper invents words: it must not be asked.

The one rule of the lab. Sound holds no speech

- where it is near silent: no sample reaches NEAR_SILENT_DBFS; or
- where it is steady: in no band of frequencies does the level rise above what the noise there does by itself. Speech is
  syllables and pauses; the hiss of a microphone, a fan or a hum stays where it is, however loud. Measured on 20 minutes
  of human speech: with white noise 5 dB louder than the speech every clip still passes, by 2.7 dB or more, and without
  added noise by 18; what fails of pieces of 2 s are pauses. White, pink and brown noise fail by 1 dB or more.

It says no only where there is nothing to lose: music, a slamming door or a cough passes, and the model's own no-speech
rule (decoding.is_silence) has the last word.
"""

import numpy as np

from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.loudness import NEAR_SILENT_DBFS

FRAME = 0.064  # s; half a syllable
# Hz from, to: dB that the loudest frames of noise reach above its softest ones. The narrower, the more it fluctuates.
BANDS = {(80, 500): 7.5, (500, 1500): 5.0, (1500, 4000): 4.0}
SOFTEST = 10  # percentile of the frames
LOUDEST = 3  # frames, 0.2 s: the shortest word lasts longer, a click does not
SHORTEST_STEADY = 2.0  # s; a vowel may be as steady as a fan, but not for as long


def is_silent(samples: np.ndarray, rate: int = SAMPLE_RATE) -> bool:
    """Whether float32 [n] in -1..1 at `rate` Hz holds nothing that could be speech; no samples are silent."""
    if not len(samples) or np.abs(samples).max() < 10 ** (NEAR_SILENT_DBFS / 20):
        return True
    return len(samples) >= SHORTEST_STEADY * rate and is_steady(samples, rate)


def is_steady(samples: np.ndarray, rate: int = SAMPLE_RATE) -> bool:
    """Whether the level of float32 [n], at least LOUDEST frames long, hardly changes in any of BANDS."""
    size = round(FRAME * rate)
    frames = samples[:len(samples) // size * size].reshape(-1, size) * np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2 / size ** 2  # [frames, size / 2 + 1]
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    for (low, high), noise_db in BANDS.items():
        inside = (frequencies >= low) & (frequencies < high)
        levels = np.sort(10 * np.log10(power[:, inside].sum(axis=1) + 1e-12))
        # As np.percentile, which loads numpy.ma for it: a part of the time to the first text.
        softest = np.interp(SOFTEST / 100 * (len(levels) - 1), np.arange(len(levels)), levels)
        if levels[-LOUDEST] - softest > noise_db:
            return False
    return True
