"""Where somebody speaks: Silero's voice activity detector, a small recurrent network, in onnxruntime.

Every 32 ms it says how likely it is that there is speech in them; its state carries what it heard before. Two
thresholds (hysteresis) and shortest lengths turn that into stretches. Source of the network, of the length of its
chunks and of its context: Silero VAD 6.2 (MIT), its documentation and the inputs of its graph. The thresholds are lower
than its 0.5 and 0.35, by which whoever speaks softly is missed: 4.8 s of 22 in one meeting, with these 3.6.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.console import LabError

CHUNK = 512  # samples, 32 ms
CONTEXT = 64  # samples of the chunk before, which the network hears again
STATE = (2, 1, 128)  # [layers, batch, width] of its memory
ON, OFF = 0.35, 0.2  # probabilities at which speech begins, and below which it ends
SHORTEST_SPEECH, SHORTEST_PAUSE = 0.25, 0.1  # s; a shorter stretch is dropped, a shorter pause is spoken over
MARGIN = 0.1  # s, kept before and after each stretch: soft beginnings and ends lie there


@dataclass(frozen=True)
class Stretch:
    """Speech, or a piece of it; times in s from the start of the recording."""

    start: float
    end: float

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2

    @property
    def length(self) -> float:
        return self.end - self.start


class SpeechDetector:
    """Hears chunk after chunk of one recording."""

    def __init__(self, graph: Path):
        """graph: silero_vad_16k_op15.onnx. Raises LabError where it cannot be opened."""
        import onnxruntime

        from whisper_lab.sessions import session_options

        options = session_options("voice activity", None, shared_pool=False)
        # Not in a process whose sessions share a pool, as in 09. onnxruntime before 1.23 has no such pool.
        if getattr(options, "use_per_session_threads", True):
            options.intra_op_num_threads = 1  # as fast as several: a chunk is little work
        try:
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's have no common base
            raise LabError(f"{graph} cannot be opened as a graph: {str(error).strip().splitlines()[0][:200]}",
                           f"remove {graph.parent} and run the same command again: it is fetched again") from error
        self.reset()

    def reset(self) -> None:
        """Another recording begins."""
        self._state = np.zeros(STATE, np.float32)
        self._before = np.zeros(CONTEXT, np.float32)

    def hear(self, chunk: np.ndarray) -> float:
        """float32 [CHUNK] in -1..1 -> the probability, 0..1, that somebody speaks in it."""
        heard = np.concatenate([self._before, chunk])
        probability, self._state = self._session.run(None, {"input": heard[None], "state": self._state,
                                                            "sr": np.array(SAMPLE_RATE, np.int64)})
        self._before = heard[-CONTEXT:]
        return float(probability[0, 0])

    def probabilities(self, samples: np.ndarray) -> np.ndarray:
        """float32 [n] at 16 kHz -> float32 [chunks]; the last chunk is filled up with silence."""
        self.reset()
        found = []
        for first in range(0, len(samples), CHUNK):
            chunk = samples[first:first + CHUNK]
            found.append(self.hear(np.pad(chunk, (0, CHUNK - len(chunk))) if len(chunk) < CHUNK else chunk))
        return np.array(found, np.float32)


def stretches(probabilities: Iterable[float], duration: float) -> list[Stretch]:
    """The stretches of speech in a recording of `duration` s, in order; they do not overlap."""
    step, found, start, last = CHUNK / SAMPLE_RATE, [], None, 0.0
    for i, probability in enumerate(probabilities):
        if probability >= (ON if start is None else OFF):
            start = i * step if start is None else start
            last = (i + 1) * step
        elif start is not None and (i + 1) * step - last >= SHORTEST_PAUSE:
            found.append(Stretch(start, last))
            start = None
    if start is not None:  # until the end of the sound
        found.append(Stretch(start, min(last, duration)))
    return with_margins([one for one in found if one.length >= SHORTEST_SPEECH], duration)


def with_margins(found: list[Stretch], duration: float) -> list[Stretch]:
    """Each a little longer on both sides; where two would meet, the pause between them is shared."""
    made = []
    for i, one in enumerate(found):
        before = (found[i - 1].end + one.start) / 2 if i else 0.0
        after = (one.end + found[i + 1].start) / 2 if i + 1 < len(found) else duration
        made.append(Stretch(max(one.start - MARGIN, before), min(one.end + MARGIN, after)))
    return made


def bridged(found: list[Stretch], pause: float) -> list[Stretch]:
    """Stretches with less than `pause` s between them, joined."""
    made: list[Stretch] = []
    for one in found:
        if made and one.start - made[-1].end < pause:
            made[-1] = Stretch(made[-1].start, one.end)
        else:
            made.append(one)
    return made
