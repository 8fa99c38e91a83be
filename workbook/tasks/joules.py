"""Task: from watts to joules (question 3.15).

Fill the gap, then: python -m workbook.check joules
"""


def joules(readings: list[tuple[float, float]]) -> float:
    """The energy between the first and the last reading.

    readings: (seconds, watts), in order of time. The seconds are those of a clock: they need not begin at 0, and the
    readings come when they can, not at equal distances. Between two readings the power is taken to go in a straight
    line from one to the other. A single reading holds no energy.
    """
    raise NotImplementedError("the gap: about five lines")
