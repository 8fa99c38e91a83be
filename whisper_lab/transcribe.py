"""Recordings longer than the model's window: window after window, joined by the timestamps that the model writes.

The sequential algorithm of the Whisper paper, section 3.8 (and openai-whisper's `transcribe.py`): decode a window with
timestamps, keep its complete segments, move on to where the last of them ended, and decode from there. A window that
ends in a single timestamp said all there was, so the next one begins at its end. Times are counted in samples: exact,
however long the recording is. Where speech lies between two segments that nobody wrote down, the next window begins
there: a Whisper passes over a sentence now and then. Features are made a window at a time, so memory does not grow with
the recording beyond its samples.

Several windows are decoded at once: of several recordings, or of the chunks into which a long one is cut
(chunking.py), and several such batches where the runtime has lanes (lanes.py). Within a chunk everything is as in a
recording.

For silence a Whisper invents words, so silence.py is asked before the model is: a silent window is passed over, and a
segment whose whole time is silent is left out. Where a window's text repeats itself or is unlikely, it is decoded
again at higher temperatures (decoding.FALLBACK_TEMPERATURES). The language is that of the first window that is kept.

Most recordings are shorter than the window, and so is the end of any other: of those the encoder hears only the
beginning, as long as nothing speaks against it (short_windows.py).
"""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from whisper_lab import chunking
from whisper_lab.decoding import AUTO, FALLBACK_TEMPERATURES, Options, Result, is_silence, looks_wrong
from whisper_lab.lanes import AHEAD, EACH_S, Lanes
from whisper_lab.short_windows import Heard, hear, hears_short
from whisper_lab.silence import is_silent
from whisper_lab.tokens import TokenRules

SHORTEST = 0.1  # s; a rest shorter than this holds no word, and a window that is nearly all padding invites inventions
LAST_SOUND = 1.0  # s; a shorter rest behind the end of a segment is its last sound
SHORTEST_REST = 2.0  # s; behind a window's last timestamp, where speech may have gone on without being written down
HOT = 0.5  # a result of a higher temperature may be nonsense (openai-whisper's transcribe.py)
MARGIN = 0.5  # s; by how much the times that a model writes may be wrong
BATCH = 4  # windows at once; 2 save two thirds of what 4 save, 8 no more
MIXED = 6  # where each may have a length of its own: there caches are small too
ALIKE = 4.0  # s; by how much the windows of a batch may differ in length, where that costs something


@dataclass
class Segment:
    """A stretch of speech; times in s from the start of the recording."""

    start: float
    end: float
    text: str
    tokens: list[int]  # as decoded, timestamps included
    words: list | None = None  # alignment.Word
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    temperature: float | None = None
    text_logprob: float | None = None  # of the text of its window, timestamps left out: see confidence.py
    compression_ratio: float | None = None  # of the text of its window
    speaker: str | None = None  # a name, where it is known who spoke


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
    seconds: float | None = field(default=None, compare=False)  # that it took, where whoever asked for it counted them
    duration: float = 0.0  # s
    windows: int = 0  # that the model was asked about
    shortened: int = 0  # of these: only the beginning was heard
    heard_again: int = 0  # of these: then the whole window, because the beginning's text was not safe
    searched_again: int = 0  # of the windows: with more beams, because the greedy text was doubtful

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments)


class Windows:
    """A cursor over a recording: yields windows, and is told by each window's tokens where to go on.

    ::

        windows = Windows(samples, spec.n_samples, spec.sampling_rate, rules, tokenizer)
        for window in windows:
            segments += windows.advance(tokens_decoded_from(window))      # or windows.skip(): no speech in it

    Silent windows are passed over: `current` is one in which there may be speech, unless the cursor is `done`.
    """

    def __init__(self, samples: np.ndarray, n_samples: int, sampling_rate: int, rules: TokenRules, tokenizer,
                 first: int = 0):
        """samples: float32 [n] at sampling_rate Hz; n_samples: samples in the model's window; first: where to begin."""
        self.samples, self.n_samples, self.rate = samples, n_samples, sampling_rate
        self.rules, self.tokenizer = rules, tokenizer
        self.first = self.position = first  # samples
        self._pass_silence()

    @property
    def done(self) -> bool:
        """Nothing is left to decode; a recording of no samples is done at once."""
        rest = len(self.samples) - self.position
        return rest <= 0 or (self.position > self.first and rest < SHORTEST * self.rate)

    @property
    def current(self) -> Window:
        """The window at the cursor."""
        samples = self.samples[self.position:self.position + self.n_samples]
        return Window(samples, self.position / self.rate, len(samples) / self.rate)

    @property
    def next_start(self) -> float:
        """s from the start of the recording to the cursor, or to the recording's end."""
        return min(self.position, len(self.samples)) / self.rate

    def __iter__(self) -> Iterator[Window]:
        while not self.done:
            before = self.position
            yield self.current
            if self.position == before:
                raise RuntimeError("a window was neither advanced nor skipped")

    def skip(self) -> None:
        """Move past the window: nothing was said in it."""
        self.position += self.n_samples
        self._pass_silence()

    def _pass_silence(self) -> None:
        while not self.done and is_silent(self.current.samples, self.rate):
            self.position += self.n_samples

    def advance(self, tokens: Sequence[int]) -> list[Segment]:
        """Cut one window's tokens (without prompt and end) into segments and move to where the next window begins.

        That is before speech that they left out, if there is any. Tokens without any timestamp make one segment as long
        as the window.
        """
        window = self.current
        pieces, end = split(list(tokens), self.rules)
        segments, previous_end = [], 0.0
        for piece in pieces:
            start, stop = self._times(piece, previous_end, window.duration)
            if previous_end and self._goes_on(window, previous_end, start - MARGIN):
                end = round(previous_end / self.rules.timestamp_step)
                break
            previous_end = stop
            text = self.rules.text(self.tokenizer, piece)
            if text and not self._invented(window, start, stop):
                segments.append(Segment(window.start + start, window.start + stop, text, piece))
        moved = self._used(list(tokens), window) if end is None else round(end * self.rules.timestamp_step * self.rate)
        self.position += moved if 0 < moved <= self.n_samples else self.n_samples
        if end is not None and len(self.samples) - self.position < LAST_SOUND * self.rate:
            self.position = len(self.samples)
        self._pass_silence()
        return segments

    def _used(self, tokens: list[int], window: Window) -> int:
        """Samples up to where a window was used up whose tokens name no place to go on: all of them, as a rule.

        But a Whisper may stop in the middle of a window that is full of speech: its last timestamp says where.
        """
        if not tokens or not self.rules.is_timestamp(tokens[-1]):
            return self.n_samples
        heard = (tokens[-1] - self.rules.timestamp_begin) * self.rules.timestamp_step
        return round(heard * self.rate) if self._goes_on(window, heard, window.duration) else self.n_samples

    def _goes_on(self, window: Window, heard: float, until: float) -> bool:
        """Speech may have gone on behind `heard` without being written down: long enough, and not silent."""
        rest = window.samples[round((heard + MARGIN) * self.rate):round(until * self.rate)]
        return len(rest) >= SHORTEST_REST * self.rate and not is_silent(rest, self.rate)

    def _invented(self, window: Window, start: float, stop: float) -> bool:
        """Nothing could be heard while this is said to have been spoken. Moments may be wrong: MARGIN on both sides."""
        first, last = round((start - MARGIN) * self.rate), round((stop + MARGIN) * self.rate)
        return is_silent(window.samples[max(0, first):last], self.rate)

    def _times(self, piece: list[int], previous_end: float, duration: float) -> tuple[float, float]:
        """Start and end of a piece in s from the window's start; no later than the sound's end."""
        begin, step, is_time = self.rules.timestamp_begin, self.rules.timestamp_step, self.rules.is_timestamp
        start = (piece[0] - begin) * step if is_time(piece[0]) else previous_end
        end = (piece[-1] - begin) * step if len(piece) > 1 and is_time(piece[-1]) else duration
        start = min(start, duration)
        return start, max(start, min(end, duration))


def split(tokens: list[int], rules: TokenRules) -> tuple[list[list[int]], int | None]:
    """Cut tokens at pairs of timestamps.

    Returns the complete pieces and the timestamp, in steps, at which the next window has to begin, or None where the
    window was used up: it ended in a single timestamp, or has no pair at which to cut.
    """
    is_time = [rules.is_timestamp(token) for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]
    if not cuts:
        return ([tokens] if tokens else []), None
    used_up = is_time[-2:] == [False, True]
    if used_up:
        cuts.append(len(tokens))
    pieces = [tokens[first:last] for first, last in zip([0, *cuts], cuts, strict=False)]
    # What follows the last pair was cut off by the window's end: it is decoded again, from its beginning.
    return pieces, None if used_up else tokens[cuts[-1] - 1] - rules.timestamp_begin


def to_continue(said: list[int], segments: Sequence[Segment], result: Result, options: Options) -> list[int]:
    """The tokens that the next window is to continue: those so far and a window's; none where it may be nonsense."""
    if result.temperature > HOT or looks_wrong(result, options):
        return []
    return said + [token for segment in segments for token in segment.tokens]


class Recording:
    """One recording on its way to a Transcript: its windows, and what is kept of each window's result.

    ::

        recording = Recording(samples, runtime, options)
        for window in recording.windows:
            recording.take(decode(window, recording.language, recording.before))      # a decoding.Result
        recording.transcript

    It may be one chunk of a longer one, decoded beside the others (`side_by_side`).
    """

    def __init__(self, samples: np.ndarray, runtime, options: Options, prompt: Sequence[int] = (),
                 condition_on_previous: bool | None = None, first: int = 0, last: int | None = None,
                 leader: "Recording | None" = None):
        """Arguments as of `transcribe_many`; a chunk is that from sample `first` to `last`, and has the language of
        its leader, the recording's first chunk. Raises LabError for a language that the checkpoint does not have."""
        spec, rules = runtime.spec, runtime.rules
        self.windows = Windows(samples[:last], spec.n_samples, spec.sampling_rate, rules, runtime.tokenizer, first)
        # A recording longer than the window needs timestamps: they say where the next window begins.
        self.options = replace(options, timestamps=options.timestamps or len(samples) > spec.n_samples)
        self.prompt, self.said = list(prompt), []
        wanted = rules.condition_on_previous if condition_on_previous is None else condition_on_previous
        self.condition = wanted and rules.previous is not None
        self._reported = first  # samples
        self.leader = leader or self
        language = rules.wanted_language(options.language) or (None if rules.languages else "en")
        self.transcript = Transcript(language=language, duration=len(samples) / spec.sampling_rate)

    @property
    def language(self) -> str | None:
        """That of the recording; None: no window decided it yet, so each is asked for its own."""
        return self.leader.transcript.language

    @property
    def seconds(self) -> float:
        """How long it is, s; of a chunk, that chunk alone."""
        return (len(self.windows.samples) - self.windows.first) / self.windows.rate

    @property
    def before(self) -> list[int]:
        """The tokens that the current window's text goes on from."""
        return self.prompt + self.said

    def take(self, result: Result) -> list[Segment]:
        """Note the current window's result and move on; returns the new segments."""
        leading = self.leader.transcript
        if is_silence(result, self.options):  # likely no speech, and unlikely text
            self.windows.skip()
            return []
        segments = self.windows.advance(result.tokens)
        if segments and leading.language is None:  # the first window that is kept decides for the recording
            leading.language, leading.language_probability = result.language, result.language_probability
        for segment in segments:
            segment.avg_logprob, segment.no_speech_prob = result.avg_logprob, result.no_speech_prob
            segment.temperature, segment.text_logprob = result.temperature, result.text_logprob
            segment.compression_ratio = result.compression_ratio
        self.said = to_continue(self.said, segments, result, self.options) if self.condition else []
        self.transcript.segments += segments
        return segments

    def count(self, heard: Heard) -> None:
        """That the model was asked about a window, and how."""
        self.transcript.windows += 1
        self.transcript.shortened += heard.shortened
        self.transcript.heard_again += heard.again
        self.transcript.searched_again += self.options.beams == AUTO and heard.result.beams > 1

    def moved(self) -> float:
        """s of sound that were done with since this was last asked."""
        before, self._reported = self._reported, min(self.windows.position, len(self.windows.samples))
        return (self._reported - before) / self.windows.rate


def transcribe(runtime, samples: np.ndarray, options: Options | None = None, **settings) -> Transcript:
    """Transcribe one recording of any length: `transcribe_many` for a single one."""
    return transcribe_many(runtime, [samples], options, **settings)[0]


def transcribe_many(runtime, recordings: Sequence[np.ndarray], options: Options | None = None, *, words: bool = False,
                    condition_on_previous: bool | None = None, prompt: Sequence[int] = (),
                    batch_size: int | None = None, progress: Callable[[float], None] | None = None
                    ) -> list[Transcript]:
    """Transcribe recordings (float32 [n] at runtime.spec.sampling_rate), up to `batch_size` windows at once
    (None: `windows_at_once`); where the runtime has several `lanes` (lanes.py), as many on each.

    Where that is more than 1, a long recording is cut at pauses into chunks (chunking.py), which are decoded side by
    side and joined again: see `side_by_side`. A recording longer than the window is decoded with
    timestamps whatever options.timestamps says: they join its windows. options.temperatures None:
    FALLBACK_TEMPERATURES. prompt: tokens put before every window; condition_on_previous: also what was said before;
    None: as the checkpoint says (TokenRules), where the recording is not cut. words: each segment gets its words with
    times. progress is called with the s of sound that each window moved on, by one lane at a time. Raises LabError for
    a language or task that the checkpoint does not have.
    """
    options = options or Options()
    options = replace(options, temperatures=options.temperatures or FALLBACK_TEMPERATURES)
    batch_size = batch_size or windows_at_once(runtime)
    at_once = batch_size * (getattr(runtime, "lanes", 1) if batch_size > 1 else 1)
    groups = [side_by_side(samples, runtime, options, prompt, condition_on_previous, at_once)
              for samples in recordings]
    chunks = list(itertools.chain(*groups))
    for chunk in chunks:
        if progress and (silence := chunk.moved()):
            progress(silence)  # before the first window
    for timestamps in (False, True):
        _decode_all(runtime, [chunk for chunk in chunks if chunk.options.timestamps == timestamps], batch_size, words,
                    progress)
    return [joined(group) for group in groups]


def windows_at_once(runtime) -> int:
    """How many windows are decoded at once where nobody says."""
    return MIXED if getattr(runtime, "mixes_lengths", False) else BATCH


def _decode_all(runtime, chunks: list[Recording], batch_size: int, words: bool,
                progress: Callable[[float], None] | None) -> None:
    """Decode all windows of chunks that have the same options, on the runtime's lanes.

    What is in a batch does not depend on which lane was faster, because in int8 a window's numbers depend on its
    neighbors: what came of a batch is looked at when AHEAD are begun, or when nothing else is left. Nor does it depend
    on the number of lanes, where the encoder hears short windows: `_share`.
    """
    long = sum(chunk.seconds for chunk in chunks) >= 2 * EACH_S
    begun: deque[tuple[list[Recording], set[Recording], Callable]] = deque()  # batch, leaders it decides for, its end
    with Lanes(getattr(runtime, "lanes", 1)) as lanes:
        decode = functools.partial(_decode_windows, lanes.watched(runtime), words=words,
                                   progress=lanes.in_turn(progress))
        while True:
            busy = {chunk for batch, _, _ in begun for chunk in batch}
            deciding = {leader for _, leaders, _ in begun for leader in leaders}
            chunks = [chunk for chunk in chunks if chunk in busy or not chunk.windows.done]
            free = [chunk for chunk in chunks if chunk not in busy and chunk.leader not in deciding]
            if free and len(begun) < AHEAD:
                share = _share(runtime, len(free), len(chunks), lanes.number, long, free[0].options)
                batch = _alike(runtime, free)[:min(share, batch_size)]
                leaders = {chunk.leader for chunk in batch if not chunk.language}
                begun.append((batch, leaders, lanes.begin(decode, batch)))
            elif begun:
                begun.popleft()[2]()
            else:
                return


def _share(runtime, free: int, left: int, lanes: int, long: bool, options: Options) -> int:
    """How many of the windows that can be decoded now a batch should have at most, lest a lane be left without any.

    free: those windows; left: recordings that are not at their end; long: whether they last as long as two lanes need.
    """
    if getattr(runtime, "mixes_lengths", False):
        return -(-free // 2) if long else free  # whatever lanes there are: the text is to be the same
    return free if hears_short(runtime, options) else -(-left // lanes)


def side_by_side(samples: np.ndarray, runtime, options: Options, prompt: Sequence[int],
                 condition_on_previous: bool | None, at_once: int) -> list[Recording]:
    """A recording in chunks, each from one cut to the next; arguments as of `transcribe_many`; at_once: windows that
    are decoded at once, on all lanes.

    How it is cut does not depend on other recordings. Where each window is to be given the text before it, it is not
    cut: texts of different lengths cannot be decoded together. In chunks no window has one. What that
    does to words and seconds: benchmarks/throughput.py.
    """
    rate, window = runtime.spec.sampling_rate, runtime.spec.n_samples / runtime.spec.sampling_rate
    size = chunking.lengths(len(samples) / rate, window, at_once, hears_short(runtime, options))
    places = [] if condition_on_previous or size is None else chunking.cuts(samples, rate, *size)
    made: list[Recording] = []
    for first, last in itertools.pairwise([0, *places, len(samples)]):
        made.append(Recording(samples, runtime, options, prompt, False if places else condition_on_previous, first,
                              last, made[0] if made else None))
    return made


def joined(chunks: Sequence[Recording]) -> Transcript:
    """The transcript of a recording, of those of its chunks."""
    parts = [chunk.transcript for chunk in chunks]
    counts = {count: sum(getattr(part, count) for part in parts)
              for count in ("windows", "shortened", "heard_again", "searched_again")}
    return replace(parts[0], segments=[segment for part in parts for segment in part.segments], **counts)


def _alike(runtime, waiting: list[Recording]) -> list[Recording]:
    """The longest first, and of those the ones that are about as long. What hears short windows hears all of a batch
    for as long as its longest, so that a rest of 3 s had better wait for others like it than be heard with 30 s; but
    not where each may have a length of its own.

    Of a recording whose language is not known nothing is decoded beside the window that may decide it.
    """
    known = [chunk for i, chunk in enumerate(waiting)
             if chunk.language or not any(before.leader is chunk.leader for before in waiting[:i])]
    if not getattr(runtime, "takes_short_windows", False):
        return known
    known.sort(key=lambda chunk: -chunk.windows.current.duration)
    if getattr(runtime, "mixes_lengths", False):
        return known
    return [chunk for chunk in known if chunk.windows.current.duration > known[0].windows.current.duration - ALIKE]


def _decode_windows(runtime, recordings: list[Recording], words: bool,
                    progress: Callable[[float], None] | None) -> None:
    """Decode the current window of each recording together; they have the same options."""
    windows = [recording.windows.current for recording in recordings]
    found = hear(runtime, [window.samples for window in windows], recordings[0].options,
                 [recording.language for recording in recordings], [recording.before for recording in recordings])
    for recording, window, heard in zip(recordings, windows, found, strict=True):
        recording.count(heard)
        segments = recording.take(heard.result)
        if words and segments:
            add_words(runtime, runtime.select(heard.cross, np.array([heard.row])), window, segments,
                      heard.result.language, recording.options.task, recording.windows.next_start)
        if progress:
            progress(recording.moved())


def add_words(runtime, cross, window: Window, segments: list[Segment], language: str | None,
              task: str = "transcribe", until: float | None = None) -> None:
    """Give each segment of one window its words; cross: the window's cross cache; until: where the next one begins, s.

    A word that the alignment puts into the next window ends where that begins: times only ever grow. Raises LabError
    where the runtime has no cross-attention to offer.
    """
    from whisper_lab.alignment import Word, pauses, snap, word_times

    rules = runtime.rules
    prompt = rules.prompt(language, task)
    room = rules.max_positions - len(prompt) - 1
    pieces, tokens = [], []
    for segment in segments:
        pieces.append(rules.text_tokens(segment.tokens)[:room - len(tokens)])
        tokens += pieces[-1]
    attention = runtime.attention(np.array([[*prompt, *tokens, rules.end]], np.int64), cross)
    last = window.start + window.duration if until is None else until
    found = word_times(attention, len(prompt), pieces, runtime.tokenizer, rules, window.duration, language)
    placed = iter(snap([word for words in found for word in words], pauses(window.samples, runtime.spec.sampling_rate)))
    for segment, words in zip(segments, found, strict=True):
        times = [(word, *(min(window.start + at, last) for at in (word.start, word.end)))
                 for word in itertools.islice(placed, len(words))]
        segment.words = [Word(word.text, start, end, word.tokens) for word, start, end in times]
        if segment.words:  # the words are found in the sound, the segment's times were written by ear
            segment.start, segment.end = segment.words[0].start, segment.words[-1].end
