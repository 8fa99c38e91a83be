"""What ticked choices earn: the one rule of the quiz, the workbook and the exam.

A right choice that is ticked earns a point, a wrong one that is ticked costs one, and no question costs more than it
earned. At most half of the choices are right (questions.py), so ticking all of them earns nothing, as ticking none.
With one right choice and one tick that is the usual: a point or none.
"""

from collections.abc import Collection
from typing import Protocol


class Judged(Protocol):
    """A Choice of questions.py or an Option of view.py."""

    @property
    def right(self) -> bool: ...


def points(ticked: Collection[Judged]) -> int:
    """Points, 0 or more, for the choices that were ticked."""
    right = sum(one.right for one in ticked)
    return max(0, right - (len(ticked) - right))


def share(choices: Collection[Judged], ticked: Collection[Judged]) -> float:
    """The same as a part of what the question is worth, 0..1: how the quiz counts."""
    return points(ticked) / sum(one.right for one in choices)
