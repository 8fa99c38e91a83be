"""Where a long recording is cut, so that its chunks can be heard side by side: in real pauses, or not at all.

A decoder that writes a token of four windows at once takes less than twice as long as for one, but in a recording each
window begins where the one before it ended. So the recording is cut into as many chunks as windows are heard at
once, and each goes on by itself, window after window. A cut through a word would cost that word, and one between two
words of a phrase may cost both. So around each place that divides the recording evenly the longest pause is looked
for, by Silero's voice activity detector where it is here, else by the level; where there is none, nothing is cut.

Not every pause of the whole recording is looked for (faster-whisper's batched pipeline does, and joins what lies
between them into windows): that would take a fifth of the transcript's time, and the more cuts, the more can be lost.
"""

from collections.abc import Callable

import numpy as np

from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.console import LabError

SHORTEST = 3.0  # windows; in a shorter chunk the last window, which is not full, outweighs what is gained
NEAR = 6.0  # s on both sides of the even place: someone who reads aloud pauses every three to five
PAUSE = 0.3  # s; between phrases. Shorter ones are found within words
Pauses = Callable[[np.ndarray], list[tuple[float, float]]]  # float32 [n] -> (start, end) of each, s


def cuts(samples: np.ndarray, rate: int, window: int, most: int, pauses: Pauses | None = None) -> list[int]:
    """Where float32 [n] at `rate` Hz is cut into at most `most` chunks: positions in samples, in order; [] nowhere.

    window: samples in the model's window. pauses: what finds them in a piece of the recording; None: `finder`.
    """
    parts = min(most, int(len(samples) / (SHORTEST * window)))
    if parts < 2 or (pauses is None and rate != SAMPLE_RATE):  # the detectors hear 16 kHz
        return []
    pauses, found = pauses or finder(), []
    for even in np.linspace(0, len(samples), parts + 1)[1:-1]:
        first = max(0, round(even - NEAR * rate))
        piece = samples[first:round(even + NEAR * rate)]
        middle = (even - first) / rate
        inside = [(end - start, -abs((start + end) / 2 - middle), start, end) for start, end in pauses(piece)
                  if end - start >= PAUSE]
        if inside:  # the longest; of equals the nearest
            start, end = max(inside)[2:]
            found.append(first + quietest(piece, round(start * rate), round(end * rate), round(PAUSE * rate)))
    return found


def quietest(samples: np.ndarray, first: int, last: int, size: int) -> int:
    """The middle of the quietest `size` samples of float32 [n] from `first` to `last`; of equals that in the middle.

    What is no speech to a detector may still be song, or a voice that it does not know: then this is between its tones.
    """
    step = max(1, size // 10)
    power = np.square(samples[first:last]).cumsum(dtype=np.float64)
    starts = np.arange(0, max(1, last - first - size), step)
    sums = power[np.minimum(starts + size, len(power) - 1)] - power[starts]
    least = np.flatnonzero(sums <= sums.min() + 1e-9)
    return first + int(starts[least[len(least) // 2]]) + min(size, last - first) // 2


def finder() -> Pauses:
    """What finds pauses: Silero's detector where it was fetched before, else the level."""
    from whisper_lab.speakers import models, voice
    from whisper_lab.stream.voice import by_level

    try:
        graph = models.here("silero-vad")
        detector = voice.SpeechDetector(graph) if graph else None
    except LabError:  # damaged: who cuts a recording needs it less than 10 does, and 10 says what to do
        detector = None

    def pauses(samples: np.ndarray) -> list[tuple[float, float]]:
        duration = len(samples) / SAMPLE_RATE
        speech = voice.stretches(detector.probabilities(samples), duration) if detector else by_level(samples)
        ends = [0.0, *(one.end for one in speech)]
        starts = [*(one.start for one in speech), duration]
        return [(end, start) for end, start in zip(ends, starts, strict=True) if start > end]

    return pauses
