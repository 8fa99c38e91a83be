"""A mean and how far to trust it: Student's t interval, without SciPy.

    interval([1.02, 0.98, 1.01])    # {"mean": 1.0033, "sd": 0.0208, "low": 0.9516, "high": 1.055, "n": 3}
"""

import math
import statistics
from collections.abc import Sequence


def interval(values: Sequence[float], confidence: float = 0.95) -> dict:
    """Mean, standard deviation and confidence interval of independent repeats; from one value only the mean is known.

    mean -+ t(n - 1) x sd / sqrt(n), t being wider than the normal distribution's 1.96 where repeats are few (Student
    1908). All None where there is no value at all.
    """
    n = len(values)
    if n < 2:
        return {"mean": values[0] if n else None, "sd": None, "low": None, "high": None, "n": n}
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    half = t_quantile(n - 1, confidence) * deviation / math.sqrt(n)
    return {"mean": mean, "sd": deviation, "low": mean - half, "high": mean + half, "n": n}


def t_quantile(freedom: int, confidence: float = 0.95) -> float:
    """The t that Student's distribution with `freedom` degrees stays within (two-sided) with this confidence.

    With t = sqrt(freedom) tan(angle), the density becomes cos(angle) ** (freedom - 1): smooth and finite, so that
    Simpson's rule and halving find the quantile to nine digits.
    """
    whole, low, high = _area(freedom, math.pi / 2), 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _area(freedom, middle) < confidence * whole:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _area(freedom: int, angle: float, steps: int = 400) -> float:
    """Integral of cos(x) ** (freedom - 1) from 0 to `angle`, by Simpson's rule."""
    width = angle / steps
    heights = [max(math.cos(i * width), 0.0) ** (freedom - 1) for i in range(steps + 1)]
    return width / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]))
