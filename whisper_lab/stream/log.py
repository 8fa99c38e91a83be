"""What happened, and when: the diary of one stream, from which the report is made."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from whisper_lab import console
from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.stream.ear import Unit
from whisper_lab.stream.sources import Clock

KEPT_S = 1800.0  # s of sound kept for the comparison, 115 MB; a longer stream is not compared


@dataclass
class Commit:
    """A unit of text that stands from now on."""

    unit: Unit
    at: float  # s by the clock
    heard: int  # samples that the model had heard
    reason: str  # agreement, pause (the utterance is over) or full window


@dataclass
class Log:
    """Counts, times and commits."""

    clock: Clock
    hop_s: float
    hypotheses: int = 0
    hypothesis_s: list[float] = field(default_factory=list)  # how long each took
    skipped: int = 0  # hypotheses left out because an earlier one took longer than a hop
    busy_s: float = 0.0
    utterances: list[list[Commit]] = field(default_factory=lambda: [[]])
    samples: list[np.ndarray] = field(default_factory=list)  # all the sound, for the comparison; none after KEPT_S
    count: int = 0  # samples heard
    spans: list[tuple[int, int]] = field(default_factory=list)  # the utterances, samples
    likely: list[float | None] = field(default_factory=list)  # mean log-probability of each line's tokens
    _goes_on: bool = False

    @contextlib.contextmanager
    def work(self, block: np.ndarray | None = None) -> Iterator[None]:
        """Around what is done when a block has come; waiting for it does not count."""
        if block is not None:
            self.count += len(block)
            self.samples.append(block)
            if self.count > KEPT_S * SAMPLE_RATE:
                self.samples.clear()
        started = self.clock.now()
        yield
        self.busy_s += self.clock.now() - started

    @contextlib.contextmanager
    def hypothesis(self, new_from: int, end: int) -> Iterator[None]:
        """Around one hypothesis; new_from..end: the samples of speech that it is the first to hear."""
        started = self.clock.now()
        yield
        self.hypotheses += 1
        self.hypothesis_s.append(self.clock.now() - started)
        late = max(0, int((end - new_from) / SAMPLE_RATE / self.hop_s) - 1)
        if late and not self.skipped:
            console.warn(f"falling behind: {(end - new_from) / SAMPLE_RATE:.1f} s of new speech had come before the "
                         f"model was ready for it (it took {self.hypothesis_s[-1]:.2f} s); fewer hypotheses will be "
                         "made, and all of the sound is heard")
        self.skipped += late

    def commit(self, units: Sequence[Unit], heard: int, reason: str) -> None:
        """These units stand."""
        now = self.clock.now()
        self.utterances[-1] += [Commit(unit, now, heard, reason) for unit in units]

    def close(self, start: int, end: int, goes_on: bool, likely: float | None = None) -> None:
        """These samples are done with; goes_on: only the window was full, the utterance is not over.

        likely: mean log-probability of the tokens of its text.
        """
        if self._goes_on:
            start = self.spans.pop()[0]
        self.spans.append((start, end))
        self._goes_on = goes_on
        if self.utterances[-1]:
            if joined([commit.unit for commit in self.utterances[-1]]):
                self.likely.append(likely)
            self.utterances.append([])

    @property
    def commits(self) -> list[Commit]:
        """All of them in order."""
        return [commit for utterance in self.utterances for commit in utterance]

    @property
    def lines(self) -> list[str]:
        """The text, a line an utterance."""
        return [text for utterance in self.utterances if (text := joined([commit.unit for commit in utterance]))]

    @property
    def heard(self) -> np.ndarray:
        """All the sound, float32 [n]; nothing where it lasted longer than KEPT_S."""
        return np.concatenate([*self.samples, np.zeros(0, np.float32)])


def joined(units: Sequence[Unit]) -> str:
    """The text of units."""
    return "".join(unit.text for unit in units).strip()
