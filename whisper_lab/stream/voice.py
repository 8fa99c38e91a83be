"""Voice activity: which stretches of the sound are worth asking the model about.

Silero's detector (speakers/voice.py) says for every 32 ms how likely there is speech in them. Where it is out of reach
the level has to do. That of every 20 ms is compared with the noise floor, the softest level of the last seconds (the
minimum statistics of Martin 2001, without its smoothing), which follows the room. Energy cannot tell speech from music
or a slamming door, and in noise it misses much of it (docs/benchmarks.md).

In both, two thresholds (hysteresis) keep what lies between them from switching on and off, and a pause has to last
before it ends a stretch (hangover). What passes goes to the model, whose no-speech rule has the last word.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from whisper_lab.loudness import levels_dbfs
from whisper_lab.speakers import voice as speech

FRAME = 0.02  # s
ON_DB, OFF_DB = 12.0, 6.0  # above the noise floor: speech begins, speech is over
ATTACK = 3  # frames in a row above ON_DB before it counts: a click is shorter
MEMORY = 4.0  # s; a noise that lasts longer without a dip becomes the floor
QUIET_ROOM_DBFS = -60.0  # the floor before anything was heard: speech may begin at once
LOWEST_DBFS = -75.0  # of the floor: below it lies digital silence, above which any hiss would be loud
SHORTEST_PAUSE = 0.12  # s; longer than the silence before a plosive
LONGEST = 1 << 40  # samples; of a stretch in a recording that is there as a whole: any
PRE_ROLL = 0.4  # s kept before speech was noticed: soft beginnings lie there


@dataclass
class Span:
    """A stretch of speech; positions in samples since the beginning of the sound."""

    start: int  # pre-roll included
    onset: int  # where the first loud frame begins
    voiced: int  # the end of the last loud frame
    end: int | None = None  # the end of the pause after it; None while it goes on

    @property
    def closed(self) -> bool:
        return self.end is not None


class Voice:
    """Takes samples, keeps `spans`: those to be transcribed, the oldest first; whoever is done with one removes it."""

    def __init__(self, rate: int, pause_s: float, longest: int, detector=None):
        """rate: Hz; pause_s: a pause this long ends a span; longest: samples that a span had better not exceed.

        The nearer it comes to that, the shorter a pause will do. detector: a speakers.voice.SpeechDetector, for 16 kHz;
        None: the level decides.
        """
        self.rate, self.pause, self.longest = rate, round(pause_s * rate), longest
        self.detector = detector
        if detector:
            detector.reset()
        self._size = speech.CHUNK if detector else round(FRAME * rate)  # samples of a frame
        self._attack = 1 if detector else ATTACK
        self.spans: deque[Span] = deque()
        self.heard = 0  # samples judged
        self._rest = np.zeros(0, np.float32)
        # Frames, by number, that nothing softer followed: the first is the softest of the last MEMORY s.
        self._softest, self._frames = deque([(0, QUIET_ROOM_DBFS)]), 0
        self._loud, self._rising, self._free_from = False, 0, 0

    @property
    def floor_dbfs(self) -> float:
        """The noise floor."""
        return max(self._softest[0][1], LOWEST_DBFS)

    @property
    def open(self) -> Span | None:
        """The span that goes on, if somebody is speaking."""
        return self.spans[-1] if self.spans and not self.spans[-1].closed else None

    def append(self, samples: np.ndarray) -> None:
        """float32 [n] in -1..1"""
        joined = np.concatenate([self._rest, samples])
        whole = len(joined) // self._size * self._size
        frames, self._rest = joined[:whole].reshape(-1, self._size), joined[whole:]
        for one in frames if self.detector else levels_dbfs(frames).tolist():
            self.heard += self._size
            self._judge(self._is_likely(one) if self.detector else self._is_loud(one))

    def _is_likely(self, frame: np.ndarray) -> bool:
        """Does Silero hear speech?"""
        return self.detector.hear(frame) >= (speech.OFF if self._loud else speech.ON)

    def _is_loud(self, level: float) -> bool:
        """Is the level of the next frame, dBFS, above the noise floor?"""
        self._frames += 1
        while self._softest and self._softest[-1][1] >= level:
            self._softest.pop()
        self._softest.append((self._frames, level))
        if self._softest[0][0] <= self._frames - round(MEMORY / FRAME):
            self._softest.popleft()
        return level - self.floor_dbfs > (OFF_DB if self._loud else ON_DB)

    def _judge(self, loud: bool) -> None:
        """One frame that ends at `heard`."""
        self._loud = loud
        self._rising = self._rising + 1 if self._loud else 0
        span = self.open
        if span is None and self._rising >= self._attack:
            onset = self.heard - self._rising * self._size
            start = max(self._free_from, onset - round(PRE_ROLL * self.rate), 0)
            self.spans.append(Span(start, onset, self.heard))
        elif span is not None and self._loud:
            span.voiced = self.heard
        elif span is not None and self.heard - span.voiced >= self._enough(span):
            self._close(span, self.heard)

    def _enough(self, span: Span) -> int:
        """The pause that ends a span of this length, samples."""
        left = 1 - (self.heard - span.start) / self.longest
        return round(max(SHORTEST_PAUSE * self.rate, self.pause * left))

    def finish(self) -> None:
        """The sound is over: so is the span."""
        self.heard += len(self._rest)
        self._rest = self._rest[:0]
        if self.open:
            self._close(self.open, self.heard)

    def _close(self, span: Span, end: int) -> None:
        span.end = self._free_from = end
        self._loud, self._rising = False, 0


def by_level(samples: np.ndarray, pause: float = speech.SHORTEST_PAUSE + speech.MARGIN) -> list[speech.Stretch]:
    """The stretches of speech in a whole recording, float32 [n] at 16 kHz, judged by the level alone.

    pause: s of silence that end a stretch.
    """
    rate = speech.SAMPLE_RATE
    heard = Voice(rate, pause, LONGEST)
    for first in range(0, len(samples), 10 * rate):
        heard.append(samples[first:first + 10 * rate])
    heard.finish()
    found = [speech.Stretch(span.onset / rate, span.voiced / rate) for span in heard.spans]
    return speech.with_margins([one for one in found if one.length >= speech.SHORTEST_SPEECH], len(samples) / rate)
