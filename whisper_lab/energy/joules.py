"""From readings to joules: the difference of a counter, the integral of power.

    counter     E = sum of (reading i - reading i-1), a reading below the one before it having wrapped
    power       E = sum of (W i + W i-1) / 2 x (t i - t i-1): the trapezoids under the curve, between real time stamps

Readings are [(s, (value per part, ...)), ...] in order of time, as trace.Log gives them. Never `mean power x readings x
wished-for interval`: readings come when they can, and their number times 50 ms is not the time that has passed.
"""

from collections.abc import Sequence

Readings = Sequence[tuple[float, tuple[float, ...]]]


def from_counter(readings: Readings, wraps_at: tuple[float, ...] | None = None) -> float:
    """Joules between the first and the last reading of a counter in joules.

    wraps_at: where the counter of each part starts again from 0. It must be read at least once a wrap: two wraps
    between readings look like none.
    """
    return sum(risen(before, after, wraps_at)
               for (_, before), (_, after) in zip(readings, readings[1:], strict=False))


def risen(before: tuple[float, ...], after: tuple[float, ...], wraps_at: tuple[float, ...] | None) -> float:
    """Joules between two readings of a counter, summed over its parts; each wraps on its own."""
    total = 0.0
    for part, (first, second) in enumerate(zip(before, after, strict=True)):
        difference = second - first
        if difference < 0 and wraps_at:
            difference += wraps_at[part]
        total += difference
    return total


def from_power(readings: Readings, start: float, end: float) -> float:
    """Joules from `start` to `end` (s) under readings in watts.

    The window's ends usually lie between two readings: the power there is interpolated; before the first reading and
    after the last one it is taken to stay as it is.
    """
    times = [at for at, _ in readings]
    watts = [sum(parts) for _, parts in readings]
    inside = [i for i, at in enumerate(times) if start < at < end]
    t = [start, *(times[i] for i in inside), end]
    w = [_at(start, times, watts), *(watts[i] for i in inside), _at(end, times, watts)]
    return sum((w[i] + w[i - 1]) / 2 * (t[i] - t[i - 1]) for i in range(1, len(t)))


def _at(moment: float, times: list[float], watts: list[float]) -> float:
    """Power at a moment, on the line between the readings beside it."""
    import numpy as np

    return float(np.interp(moment, times, watts))
