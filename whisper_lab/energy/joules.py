"""From readings to joules: the difference of a counter, the integral of power, and the entry `energy` of a document.

    counter     E = sum of (reading i - reading i-1), a reading below the one before it having wrapped
    power       E = sum of (W i + W i-1) / 2 x (t i - t i-1): the trapezoids under the curve, between real time stamps

Readings are [(s, (value per part, ...)), ...] in order of time, as readings.Log gives them. Never `mean power x
readings x wished-for interval`: readings come when they can, and their number times 50 ms is not the time that passed.
"""

from collections.abc import Sequence

from whisper_lab.energy.meters import Meter, OpenMeters

Readings = Sequence[tuple[float, tuple[float, ...]]]
GAP_S = 2.5  # an external meter's log may begin and end this far inside the window: many write a line a second or two


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


# What readings cannot carry -------------------------------------------------------------------------------------------

class Refused(Exception):
    """The readings of a window cannot carry a number; the message says why."""


def check_window(meter: Meter, readings: Readings, start: float, end: float, errors: dict[str, str]) -> None:
    """Raise Refused where a window's readings say nothing: too short or too few, or a counter that does not move."""
    duration = end - start
    if len(readings) < (1 if meter.method == "estimate" else 2):
        raise Refused(f"{meter.name} gave {len(readings)} readings in a window of {duration:.2f} s"
                      + (f": {errors[meter.name]}" if meter.name in errors else ""))
    if meter.method == "estimate":
        return
    if readings[0][0] > start + GAP_S or readings[-1][0] < end - GAP_S:
        raise Refused(f"the readings of {meter.name} cover {readings[0][0]:.1f} to {readings[-1][0]:.1f} s of the log, "
                      f"not the window from {start:.1f} to {end:.1f} s"
                      + (f": {errors[meter.name]}" if meter.name in errors else ""))
    steps = sum(a != b for (_, a), (_, b) in zip(readings, readings[1:], strict=False))
    if meter.kind == "counter" and not steps:
        raise Refused(f"the counter of {meter.name} did not move in {duration:.1f} s: it is not a real one, as in many "
                      "virtual machines")
    if duration < meter.shortest_s and steps < meter.fewest_steps:
        raise Refused(f"a window of {duration:.2f} s with {steps} steps is too short for {meter.name}, which needs "
                      f"{meter.shortest_s:g} s or {meter.fewest_steps} steps: more --repeats or --num-samples, or "
                      f"--min-seconds {2 * meter.shortest_s:g}")


# The entry of a document ----------------------------------------------------------------------------------------------

def entry(found: OpenMeters, gross: float | None, reason: str | None, seconds: float, idle: dict,
          shares: dict[str, float | None]) -> dict:
    """The entry `energy` of a run's JSON. A number that cannot be had is None with a reason, never 0.

    gross: J in a window of `seconds`, or None with a reason; idle: W `before`, `after` and `mean`, each or None, and
    the `reason`; shares: what the script computed from them, net and per unit.
    """
    meter = found.primary
    if meter is None:
        reason = "no energy counter on this machine; " + "; ".join(f"{k}: {v}" for k, v in found.reasons.items())
    estimate = meter is not None and meter.method == "estimate"
    made = {"energy_j": gross, **shares, "method": "none" if gross is None else meter.method,
            "source": meter.source if meter else "none", "reason": reason, "reasons": found.reasons,
            "idle_power_w": idle["mean"], "idle_power_before_w": idle["before"], "idle_power_after_w": idle["after"],
            "duration_s": seconds, "is_estimate": estimate,
            "scope": "everything the meter sees, not this program alone"}
    if gross is not None and shares["net_energy_j"] is None:
        made["net_reason"] = idle["reason"]
    if estimate:
        made |= {"energy_low_j": meter.low * seconds, "energy_high_j": meter.high * seconds}
    return made
