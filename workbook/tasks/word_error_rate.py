"""Task: the word error rate, from scratch (questions 1.07 and 3.14).

Fill the gap, then: python -m workbook.check word_error_rate
"""


def word_error_rate(reference: str, hypothesis: str) -> float:
    """(substitutions + deletions + insertions) / words of the reference, for the cheapest way from one to the other.

    Words are separated by spaces and compared as they are. The reference has at least one word. No library.

    Hint: cost[i][j] is the cheapest way to turn the first i words of the reference into the first j of the hypothesis.
    cost[i][0] and cost[0][j] are easy; any other is one of its three neighbours, plus 0 or 1.
    """
    raise NotImplementedError("the gap: about ten lines")
