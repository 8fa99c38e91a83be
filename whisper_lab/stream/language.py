"""Which language is spoken: what several windows tell, taken together.

Two seconds of English may be Arabic to a Whisper, with a probability of 0.7, and a stream that believes its first
window stays wrong to its end. So each utterance is a witness: the probabilities of their last, longest windows are
multiplied.
"""

import math

LEAST = 0.01  # an utterance may be misheard altogether: none alone makes a language impossible
STANDS = 0.99  # probability from which on nothing more is asked,
STANDS_AFTER_S = 8.0  # s; of utterances at least


class SpokenLanguage:
    """A language that was given, or what the utterances so far and the present window make the likeliest."""

    def __init__(self, given: str | None):
        """given: a language's code; None: it is to be detected."""
        self.code, self.stands = given, given is not None
        self.probability: float | None = None  # None: none was detected
        self._before: dict[str, float] = {}  # code -> log-probability by the utterances that are over
        self._now: dict[str, float] = {}  # the same with the present window
        self._seconds = 0.0

    def hear(self, probabilities: dict[str, float]) -> None:
        """One window's probability of each language; it replaces the window before of the same utterance."""
        self._now = {code: self._before.get(code, 0.0) + math.log(max(p, LEAST)) for code, p in probabilities.items()}
        highest = max(self._now.values())
        total = sum(math.exp(value - highest) for value in self._now.values())
        self.code, self.probability = max(self._now, key=self._now.__getitem__), 1 / total

    def end_utterance(self, seconds: float) -> bool:
        """An utterance of so many s is over. Returns whether the language is another one than at the end before."""
        if self.stands or not self._now:
            return False
        before = max(self._before, key=self._before.__getitem__, default=None)
        self._before, self._now = self._now, {}
        self._seconds += seconds
        self.stands = self.probability >= STANDS and self._seconds >= STANDS_AFTER_S
        return self.code != before
