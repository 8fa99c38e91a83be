"""Reference solution."""


def joules(readings: list[tuple[float, float]]) -> float:
    total = 0.0
    for (before, first), (after, second) in zip(readings, readings[1:], strict=False):
        total += (first + second) / 2 * (after - before)
    return total
