"""Recordings longer than the model's window: window after window, joined by the timestamps that the model writes.

The sequential algorithm of the Whisper paper, section 3.8 (and openai-whisper's `transcribe.py`): decode a window with
timestamps, keep its complete segments, move on to where the last of them ended, and decode from there. A window that
ends in a single timestamp said all there was, so the next one begins at its end. Times are counted in samples: exact,
however long the recording is. Features are made a window at a time, so memory does not grow with the recording beyond
its samples.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from whisper_lab.alignment import Word, word_times
from whisper_lab.decoding import Options, Result, decode_encoded, is_silence
from whisper_lab.features import log_mel
from whisper_lab.tokens import TokenRules

SHORTEST = 0.1  # s; a rest shorter than this holds no word, and a window that is nearly all padding invites inventions


@dataclass
class Segment:
    """A stretch of speech; times in s from the start of the recording."""

    start: float
    end: float
    text: str
    tokens: list[int]  # as decoded, timestamps included
    words: list[Word] | None = None
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    temperature: float | None = None
    text_logprob: float | None = None  # of the text of its window, timestamps left out: see doubt.py
    compression_ratio: float | None = None  # of the text of its window


@dataclass(frozen=True)
class Window:
    """A view of the recording: at most one window of samples (shorter at the end), beginning at `start` s."""

    samples: np.ndarray
    start: float
    duration: float


@dataclass
class Transcript:
    """What was said in a recording."""

    segments: list[Segment] = field(default_factory=list)
    language: str | None = None
    language_probability: float | None = None  # None: the language was given
    duration: float = 0.0  # s

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments)


class Windows:
    """A cursor over a recording: yields windows, and is told by each window's tokens where to go on.

    ::

        windows = Windows(samples, spec.n_samples, spec.sampling_rate, rules, tokenizer)
        for window in windows:
            segments += windows.advance(tokens_decoded_from(window))      # or windows.skip() for silence
    """

    def __init__(self, samples: np.ndarray, n_samples: int, sampling_rate: int, rules: TokenRules, tokenizer):
        """samples: float32 [n] at sampling_rate Hz; n_samples: samples in the model's window."""
        self.samples, self.n_samples, self.rate = samples, n_samples, sampling_rate
        self.rules, self.tokenizer = rules, tokenizer
        self.position = 0  # samples

    @property
    def done(self) -> bool:
        """Nothing is left to decode; a recording of no samples is done at once."""
        rest = len(self.samples) - self.position
        return rest <= 0 or (self.position > 0 and rest < SHORTEST * self.rate)

    @property
    def current(self) -> Window:
        """The window at the cursor."""
        samples = self.samples[self.position:self.position + self.n_samples]
        return Window(samples, self.position / self.rate, len(samples) / self.rate)

    def __iter__(self) -> Iterator[Window]:
        while not self.done:
            before = self.position
            yield self.current
            if self.position == before:
                raise RuntimeError("a window was neither advanced nor skipped")

    def skip(self) -> None:
        """Move past the window: nothing was said in it."""
        self.position += self.n_samples

    def advance(self, tokens: Sequence[int]) -> list[Segment]:
        """Cut one window's tokens (without prompt and end) into segments and move to where the next window begins.

        Tokens without any timestamp make one segment as long as the window.
        """
        window = self.current
        pieces, end = split(list(tokens), self.rules.timestamp_begin)
        segments, previous_end = [], 0.0
        for piece in pieces:
            start, stop = self._times(piece, previous_end, window.duration)
            previous_end = stop
            if text := self.rules.text(self.tokenizer, piece):
                segments.append(Segment(window.start + start, window.start + stop, text, piece))
        moved = self.n_samples if end is None else round(end * self.rules.timestamp_step * self.rate)
        self.position += moved if 0 < moved <= self.n_samples else self.n_samples
        return segments

    def _times(self, piece: list[int], previous_end: float, duration: float) -> tuple[float, float]:
        """Start and end of a piece in s from the window's start; no later than the sound's end."""
        begin, step = self.rules.timestamp_begin, self.rules.timestamp_step
        start = (piece[0] - begin) * step if piece[0] >= begin else previous_end
        end = (piece[-1] - begin) * step if len(piece) > 1 and piece[-1] >= begin else duration
        start = min(start, duration)
        return start, max(start, min(end, duration))


def split(tokens: list[int], begin: int) -> tuple[list[list[int]], int | None]:
    """Cut tokens at pairs of timestamps (ids from `begin` on).

    Returns the complete pieces and the timestamp, in steps, at which the next window has to begin, or None where the
    window was used up: it ended in a single timestamp, or has no pair at which to cut.
    """
    is_time = [token >= begin for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]
    if not cuts:
        return ([tokens] if tokens else []), None
    used_up = is_time[-2:] == [False, True]
    if used_up:
        cuts.append(len(tokens))
    pieces = [tokens[first:last] for first, last in zip([0, *cuts], cuts, strict=False)]
    # What follows the last pair was cut off by the window's end: it is decoded again, from its beginning.
    return pieces, None if used_up else tokens[cuts[-1] - 1] - begin


class _Recording:
    """One recording on its way through `transcribe_many`."""

    def __init__(self, samples: np.ndarray, runtime, options: Options, prompt: Sequence[int]):
        spec = runtime.spec
        self.windows = Windows(samples, spec.n_samples, spec.sampling_rate, runtime.rules, runtime.tokenizer)
        self.timestamps = options.timestamps or len(samples) > spec.n_samples
        self.prompt, self.said = list(prompt), []
        self.transcript = Transcript(language=options.language, duration=len(samples) / spec.sampling_rate)

    def take(self, result: Result, options: Options, condition: bool) -> list[Segment]:
        """Note a window's result and move on; returns the new segments."""
        transcript = self.transcript
        if transcript.language is None:  # the first window decides for the recording
            transcript.language, transcript.language_probability = result.language, result.language_probability
        if is_silence(result, options):
            self.windows.skip()
            return []
        segments = self.windows.advance(result.tokens)
        for segment in segments:
            segment.avg_logprob, segment.no_speech_prob = result.avg_logprob, result.no_speech_prob
            segment.temperature, segment.text_logprob = result.temperature, result.text_logprob
            segment.compression_ratio = result.compression_ratio
            if condition:
                self.said += segment.tokens
        if result.temperature > 0.5:
            self.said = []  # a hot result may be nonsense: it must not be continued
        transcript.segments += segments
        return segments


def transcribe(runtime, samples: np.ndarray, options: Options | None = None, **settings) -> Transcript:
    """Transcribe one recording of any length: `transcribe_many` for a single one."""
    return transcribe_many(runtime, [samples], options, **settings)[0]


def transcribe_many(runtime, recordings: Sequence[np.ndarray], options: Options | None = None, *, words: bool = False,
                    condition_on_previous: bool = False, prompt: Sequence[int] = (), batch_size: int = 8,
                    progress: Callable[[float], None] | None = None) -> list[Transcript]:
    """Transcribe recordings (float32 [n] at runtime.spec.sampling_rate), up to `batch_size` windows at once.

    A recording longer than the window is decoded with timestamps whatever options.timestamps says: they join its
    windows. prompt: tokens put before every window; condition_on_previous: also what was said before. words: each
    segment gets its words with times. progress is called with the s of sound that each window moved on. Raises
    LabError for a language or task that the checkpoint does not have.
    """
    options = options or Options()
    all_recordings = [_Recording(samples, runtime, options, prompt) for samples in recordings]
    for timestamps in (False, True):
        waiting = [recording for recording in all_recordings if recording.timestamps == timestamps]
        while waiting := [recording for recording in waiting if not recording.windows.done]:
            _decode_windows(runtime, waiting[:batch_size], replace(options, timestamps=timestamps), words,
                            condition_on_previous, progress)
    return [recording.transcript for recording in all_recordings]


def _decode_windows(runtime, recordings: list[_Recording], options: Options, words: bool, condition: bool,
                    progress: Callable[[float], None] | None) -> None:
    """Decode the current window of each recording together."""
    windows = [recording.windows.current for recording in recordings]
    features = np.stack([log_mel(window.samples, runtime.spec) for window in windows])
    cross = runtime.encode(features)
    results = decode_encoded(runtime, cross, len(windows), options, [r.transcript.language for r in recordings],
                             [r.prompt + r.said for r in recordings])
    for i, (recording, window, result) in enumerate(zip(recordings, windows, results, strict=True)):
        before = recording.windows.position
        segments = recording.take(result, options, condition)
        if words and segments:
            add_words(runtime, runtime.select(cross, np.array([i])), window, segments, result.language, options.task)
        if progress:
            moved = min(recording.windows.position, len(recording.windows.samples)) - before
            progress(moved / runtime.spec.sampling_rate)


def add_words(runtime, cross, window: Window, segments: list[Segment], language: str | None,
              task: str = "transcribe") -> None:
    """Give each segment of one window its words; cross: the window's cross cache.

    Raises LabError where the runtime has no cross-attention to offer.
    """
    rules = runtime.rules
    prompt = rules.prompt(language, task)
    room = rules.max_positions - len(prompt) - 1
    pieces, tokens = [], []
    for segment in segments:
        pieces.append(rules.text_tokens(segment.tokens)[:room - len(tokens)])
        tokens += pieces[-1]
    attention = runtime.attention(np.array([[*prompt, *tokens, rules.end]], np.int64), cross)
    found = word_times(attention, len(prompt), pieces, runtime.tokenizer, rules, window.duration, language)
    for segment, words in zip(segments, found, strict=True):
        # In a pause the alignment may put a word's edge anywhere; the segment's own times are better there.
        times = [np.clip((window.start + word.start, window.start + word.end), segment.start, segment.end)
                 for word in words]
        segment.words = [Word(word.text, float(start), float(end), word.tokens)
                         for word, (start, end) in zip(words, times, strict=True)]
