"""Where a long recording is cut, so that its chunks can be heard side by side: in real pauses, or not at all.

A decoder that writes a token of four windows at once takes less than twice as long as for one, but in a recording each
window begins where the one before it ended. So the recording is cut into chunks, and each goes on by itself. A cut
through a word would cost that word, and one between two words of a phrase may cost both: of the pauses that leave a
chunk of the length that is asked for the longest is taken, and where there is none the next one behind them, unless it
is far: what is longer than a window is cut at the window's end, wherever that is.

An encoder that hears short windows takes less time for two halves of a window than for the whole (its attention grows
with the square of the length), so its chunks are as long as half a window: `lengths`.

Pauses are found by the level. Silero's detector, asked about each that is cut in, saved no words, in noise neither, and
took time.
"""

import bisect
import functools
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from whisper_lab.audio import SAMPLE_RATE

SHORT = (1 / 3, 8 / 15)  # windows, shortest and longest chunk where the encoder hears no more than there is
SHORTEST = 3.0  # windows, where it hears nothing but whole ones: the last of a chunk, which is not full, costs as much
NEAR = 6.0  # s on both sides of the even place, in that case: someone who reads aloud pauses every three to five
PAUSE = 0.3  # s; between phrases. Shorter ones are found within words
SHORT_PAUSE = 0.2  # s; better than the end of a window, which is anywhere
FAR = 1.5  # times the longest chunk
LONG = 1.0  # s; of pauses that last longer none is better than another
Pause = tuple[float, float]  # s, its start and its end


def lengths(duration: float, window: float, most: int, hears_short: bool) -> tuple[float, float] | None:
    """How long the chunks of a recording of `duration` s are to be, s: at least, at most; None: it is not to be cut.

    window: s; most: windows that are decoded at once; hears_short: whether a window may be shorter for the encoder.
    """
    parts = min(most, int(duration / (SHORTEST * window)))
    if most < 2 or duration <= window or (parts < 2 and not hears_short):
        return None
    if hears_short:
        return SHORT[0] * window, SHORT[1] * window
    return duration / parts - NEAR, duration / parts + NEAR


def cuts(samples: np.ndarray, rate: int, least: float, most: float,
         pauses: Callable[[np.ndarray], list[Pause]] | None = None) -> list[int]:
    """Where float32 [n] at `rate` Hz is cut into chunks of `least` to `most` s: positions in samples, in order.

    A chunk is longer where there is no pause, and the last one may be shorter. pauses: what finds them in the
    recording; None: `by_level`, which hears 16 kHz.
    """
    if pauses is None and rate != SAMPLE_RATE:
        return []
    found, at, total = [], 0.0, len(samples) / rate
    heard = (pauses or by_level)(samples)
    while total - at > most:
        heard = heard[bisect.bisect(heard, at, key=lambda pause: pause[1]):]
        if (pause := chosen(heard, at, least, most, total - least / 2)) is None:
            break
        start, end = (round(moment * rate) for moment in pause)
        found.append(quietest(samples, start, end, round(PAUSE * rate)))
        at = found[-1] / rate
    return found


def chosen(pauses: Sequence[Pause], at: float, least: float, most: float, end: float) -> Pause | None:
    """The part of a pause in which to end a chunk that begins at `at` s, no later than at `end` s.

    Of the pauses that leave a chunk of `least` to `most` s the longest; else the next one, unless the chunk would be
    FAR times as long; else the longest of those that leave half of `least`; else a short one; else whichever comes.
    """
    def leaving(first: float, last: float, size: float = PAUSE) -> list[Pause]:
        near = itertools.takewhile(lambda pause: pause[0] < at + last, pauses)
        parts = ((max(start, at + first), min(stop, at + last, end)) for start, stop in near)
        return [(start, stop) for start, stop in parts if stop - start >= size]

    longest, far = functools.partial(max, key=lambda pause: min(pause[1] - pause[0], LONG)), FAR * most
    for choice, found in ((longest, leaving(least, most)), (min, leaving(most, far)),
                          (longest, leaving(least / 2, least)), (longest, leaving(least / 2, far, SHORT_PAUSE)),
                          (min, leaving(far, math.inf))):
        if found:
            return choice(found)
    return None


def quietest(samples: np.ndarray, first: int, last: int, size: int) -> int:
    """The middle of the quietest `size` samples of float32 [n] from `first` to `last`; of equals that in the middle."""
    step = max(1, size // 10)
    power = np.square(samples[first:last]).cumsum(dtype=np.float64)
    starts = np.arange(0, max(1, last - first - size), step)
    sums = power[np.minimum(starts + size, len(power) - 1)] - power[starts]
    least = np.flatnonzero(sums <= sums.min() + 1e-9)
    return first + int(starts[least[len(least) // 2]]) + min(size, last - first) // 2


def by_level(samples: np.ndarray) -> list[Pause]:
    """The pauses of float32 [n] at 16 kHz, judged by the level alone."""
    from whisper_lab.stream import voice

    speech = [(one.start, one.end) for one in voice.by_level(samples)]
    edges = [0.0, *itertools.chain(*speech), len(samples) / SAMPLE_RATE]
    return [(end, start) for end, start in zip(edges[::2], edges[1::2], strict=True) if start > end]
