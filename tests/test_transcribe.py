"""Long recordings: the cursor on scripted tokens, and a model that hears tones, so that the truth is known."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from whisper_lab import decoding, short_windows, subtitles
from whisper_lab.console import LabError
from whisper_lab.decoding import AUTO, FALLBACK_TEMPERATURES, WIDE, Options
from whisper_lab.features import FeatureSpec
from whisper_lab.short_windows import heard_frames
from whisper_lab.tokens import TokenRules
from whisper_lab.transcribe import Segment, Windows, split, transcribe, transcribe_many

RATE = 16_000  # Hz


class Spelling:
    """A tokenizer that writes token ids."""

    def decode(self, tokens):
        return "".join(f" {token}" for token in tokens)


class ToneListener:
    """A runtime that understands one language: tones. It reads the features alone, as a model does.

    A tone in mel bin b from s to e becomes `<|s|> b <|e|>`; one that the window's end cuts off gets no end. Nothing but
    silence becomes nothing, with <|nospeech|> likely.
    """

    def __init__(self, folder):
        self.rules, self.spec = TokenRules.from_folder(folder), FeatureSpec.from_folder(folder)
        self.tokenizer = Spelling()
        self.windows, self.largest_batch, self.starts = 0, 0, 0

    def encode(self, features):
        self.windows += len(features)
        self.largest_batch = max(self.largest_batch, len(features))
        return [self._listen(window) for window in features]

    def _listen(self, features):
        loud = np.pad(features.max(axis=0) > 0.5, 1)  # per frame
        edges = np.flatnonzero(np.diff(loud.astype(int)))
        tones = [(int(features[:, (a + b) // 2].argmax()), a, b) for a, b in edges.reshape(-1, 2)]
        tokens = []
        for pitch, first, last in tones:
            begin, end = (self.rules.timestamp_begin + round(frame / 2) for frame in (first, last))
            tokens += [begin, pitch] if last == features.shape[1] else [begin, pitch, end]
        return tones, [*(tokens or [self.rules.timestamp_begin]), self.rules.end]  # a timestamp has to come first

    def step(self, input_ids, cross, cache):
        said = 0 if cache is None else cache + 1
        self.starts += cache is None
        logits = np.zeros((*input_ids.shape, self.rules.vocab_size), np.float32)
        for row, (tones, tokens) in enumerate(cross):
            logits[row, -1, tokens[min(said, len(tokens) - 1)]] = 30
            if said == 0:
                logits[row, :, self.rules.no_speech] = 0 if tones else 20
                logits[row, -1, self.rules.languages["nl"]] = 9
        return logits, said

    def reorder(self, cache, rows):
        return cache

    def select(self, cross, audios):
        return [cross[i] for i in audios]

    def attention(self, input_ids, cross):
        """While it writes a tone's token it looks at the tone."""
        ((tones, _),) = cross
        length = input_ids.shape[1]
        weights = np.full((2, length, self.spec.n_frames // 2), 1e-3, np.float32)
        written = np.flatnonzero(input_ids[0] < self.rules.end)
        for position, (_, begin, end) in zip(written, tones, strict=False):  # a tone cut off is not asked about
            weights[:, position - 1, begin // 2:end // 2] = 1
        return weights / weights.sum(axis=-1, keepdims=True)


def tones(*spans, duration, pitch=lambda i: 400 + 250 * (i % 12)):
    """A recording of `duration` s with a tone in each (start, end) span, s."""
    samples = np.zeros(round(duration * RATE), np.float32)
    for i, (start, end) in enumerate(spans):
        t = np.arange(round(start * RATE), round(end * RATE))
        samples[t] = 0.5 * np.sin(2 * np.pi * pitch(i) * t / RATE)
    return samples


def syllables(n, generator):
    """n samples of noise whose level rises and falls four times a second, as that of speech does."""
    return (generator.normal(0, 0.1, n) * np.sin(np.arange(n) * 4 * np.pi / RATE) ** 2).astype(np.float32)


def regular_spans(count, seed=0):
    """Tones of 0.5 to 2 s with pauses of 0.3 to 1 s."""
    generator, spans, now = np.random.default_rng(seed), [], 0.4
    for _ in range(count):
        length, pause = generator.uniform(0.5, 2), generator.uniform(0.3, 1)
        spans.append((round(now, 2), round(now + length, 2)))
        now += length + pause
    return spans, now


@pytest.fixture
def listener(nano):
    return ToneListener(nano)


@pytest.fixture
def prompts(listener):
    """The rows of each prompt that the listener is given, as it hears."""
    given, original = [], listener.step

    def step(ids, cross, cache):
        if cache is None:
            given.append(ids.tolist())
        return original(ids, cross, cache)

    listener.step = step
    return given


def test_times_are_right_across_windows(listener):
    """Forty tones in more than a minute: each is heard once, in order, where it was, whatever window's end cut it."""
    spans, duration = regular_spans(40)
    transcript = transcribe(listener, tones(*spans, duration=duration), Options("en"))
    assert listener.windows > duration / listener.spec.window_s  # some of them overlap
    assert len(transcript.segments) == len(spans)
    found = np.array([(segment.start, segment.end) for segment in transcript.segments])
    np.testing.assert_allclose(found, np.array(spans), atol=0.04)  # frames of 25 ms, timestamps of 20 ms
    pitches = [segment.text for segment in transcript.segments]
    assert pitches == [pitches[i % 12] for i in range(40)] and len(set(pitches)) == 12


def test_words_have_the_same_times(listener):
    spans, duration = regular_spans(16, seed=1)
    transcript = transcribe(listener, tones(*spans, duration=duration), Options("en"), words=True)
    words = [word for segment in transcript.segments for word in segment.words]
    assert [word.text for word in words] == [segment.text for segment in transcript.segments]
    np.testing.assert_allclose([word.start for word in words], [start for start, _ in spans], atol=0.04)
    np.testing.assert_allclose([word.end for word in words], [end for _, end in spans], atol=0.04)


def test_silent_windows_are_skipped(listener):
    spans = [(1, 2), (45, 46.5), (47, 48)]
    transcript = transcribe(listener, tones(*spans, duration=60), Options("en", logprob_threshold=None))
    np.testing.assert_allclose([(s.start, s.end) for s in transcript.segments], spans, atol=0.04)


@pytest.mark.parametrize("duration", [0.005, 0.3, 9.999, 10.0, 10.001, 10.05, 20.0])
def test_every_length_ends(listener, duration):
    """Shorter than a frame, exactly a window, a rest that is too short to hold a word."""
    spans = [(0.1, 0.25)] if duration > 0.2 else []
    transcript = transcribe(listener, tones(*spans, duration=duration), Options("en"))
    assert len(transcript.segments) == len(spans) and transcript.duration == pytest.approx(duration, abs=1e-4)
    assert all(segment.end <= duration for segment in transcript.segments)
    assert listener.windows == len(spans)  # silence is not asked


def test_no_samples_give_no_text(listener):
    assert transcribe(listener, np.zeros(0, np.float32), Options("en")).text == ""


def test_language_is_detected_once_and_kept(listener):
    spans, duration = regular_spans(12)
    transcript = transcribe(listener, tones(*spans, duration=duration))
    assert transcript.language == "nl" and transcript.language_probability > 0.9


def test_several_recordings_share_batches_and_keep_their_results(listener):
    recordings = [tones(*spans, duration=duration) for spans, duration in (regular_spans(n, n) for n in (2, 15, 7, 9))]
    together = transcribe_many(listener, recordings, Options("en"), batch_size=3)
    assert listener.largest_batch == 3
    for samples, transcript in zip(recordings, together, strict=True):
        assert transcribe(listener, samples, Options("en")) == transcript


def test_random_models_give_the_same_alone_and_together(random_runtimes):
    runtime = random_runtimes[0]
    generator = np.random.default_rng(5)
    recordings = [syllables(n, generator) for n in (9_000, 40_000, 23_456)]
    options = Options(beams=2, timestamps=True, max_tokens=24, logprob_threshold=None)
    for samples, expected in zip(recordings, transcribe_many(runtime, recordings, options), strict=True):
        alone = transcribe(runtime, samples, options)
        assert [(s.start, s.end, s.tokens) for s in alone.segments] == \
            [(s.start, s.end, s.tokens) for s in expected.segments]


def test_progress_adds_up_to_the_duration(listener):
    spans, duration = regular_spans(20)
    moves = []
    transcribe(listener, tones(*spans, duration=duration), Options("en"), progress=moves.append)
    assert sum(moves) == pytest.approx(duration, abs=0.1) and min(moves) > 0


def test_previous_text_is_given_to_the_next_window(listener, prompts):
    spans, duration = regular_spans(14)
    transcript = transcribe(listener, tones(*spans, duration=duration), Options("en"), condition_on_previous=True,
                            prompt=[7, 8])
    assert prompts[0][0][:3] == [listener.rules.previous, 7, 8]
    assert prompts[1][0][:3 + len(transcript.segments[0].tokens)] == \
        [listener.rules.previous, 7, 8, *transcript.segments[0].tokens]
    assert len(prompts[-1][0]) <= listener.rules.max_positions // 2 + 3


def test_the_checkpoint_says_whether_previous_text_helps(listener, prompts):
    """Published checkpoints are helped; whisper-nano, which never saw such a prompt, says no."""
    spans, duration = regular_spans(14)
    samples = tones(*spans, duration=duration)
    transcribe(listener, samples, Options("en"))
    assert not any(listener.rules.previous in rows[0] for rows in prompts)
    listener.rules = replace(listener.rules, condition_on_previous=True)
    transcribe(listener, samples, Options("en", temperatures=(0.0,)))
    assert prompts[-1][0][0] == listener.rules.previous
    prompts.clear()
    transcribe(listener, samples, Options("en", temperatures=(0.6,)))  # hot: it may be nonsense
    assert not any(listener.rules.previous in rows[0] for rows in prompts)


def test_memory_does_not_grow_with_the_recording(listener):
    """Beyond the samples themselves an hour may cost no more than a minute."""
    def peak(minutes):
        samples = np.zeros(minutes * 60 * RATE, np.float32)
        samples[:16_000] = tones((0, 1), duration=1)
        tracemalloc.start()
        transcribe(listener, samples, Options("en", logprob_threshold=None))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(12) < 1.2 * peak(1)


# What is not asked, and what is not believed

def hiss(duration, dbfs=-60.0):
    return np.random.default_rng(8).normal(0, 10 ** (dbfs / 20), round(duration * RATE)).astype(np.float32)


def test_a_quiet_start_decides_nothing(listener):
    """12 s of faint noise, in which the model hears Welsh, then speech: the language is that of the speech."""
    original = listener.step

    def step(ids, cross, cache):
        logits, cache = original(ids, cross, cache)
        for row, (heard, _) in enumerate(cross):
            logits[row, -1, listener.rules.languages["en"]] = 0 if heard else 25
        return logits, cache

    listener.step = step
    quiet = hiss(12)
    quiet[::RATE] = 0.02  # clicks: not steady, so the model is asked, and its no-speech rule is what throws it away
    for start in (quiet, hiss(12)):
        samples = np.concatenate([start, tones((1, 2), (3, 4.5), duration=8)])
        transcript = transcribe(listener, samples, Options(logprob_threshold=None))
        assert transcript.language == "nl" and transcript.language_probability > 0.9
        np.testing.assert_allclose([segment.start for segment in transcript.segments], [13, 15], atol=0.04)


def test_steady_and_silent_windows_are_never_asked(listener):
    sound = np.concatenate([hiss(25), tones((1, 2), duration=5), np.zeros(30 * RATE, np.float32), hiss(20, -30)])
    moves = []
    transcript = transcribe(listener, sound, Options("en"), progress=moves.append)
    assert listener.windows == 1 and len(transcript.segments) == 1
    assert sum(moves) == pytest.approx(80, abs=0.1)
    assert transcribe(listener, hiss(10, -30), Options("en")).text == "" and listener.windows == 1


def test_a_segment_in_silence_is_invented(nano):
    """Words, 2 s of nothing, and a polite phrase that nobody said."""
    windows = cursor(nano, 10.0)
    windows.samples[5 * RATE:] = 0
    segments = windows.advance(tokens(windows, 0.5, 1, 4.0, 7.0, 2, 9.0))
    assert [segment.text for segment in segments] == ["1"]
    windows = cursor(nano, 10.0)  # moments may be wrong by a little: this one was
    windows.samples[5 * RATE:] = 0
    assert len(windows.advance(tokens(windows, 0.5, 1, 4.0, 5.2, 2, 6.0))) == 2


def test_a_window_that_looks_wrong_is_decoded_again(listener):
    """The fallback is on unless it is switched off, and the same seed gives the same text."""
    original = listener.step

    def unsure(ids, cross, cache):
        logits, cache = original(ids, cross, cache)
        return logits / 8, cache  # the likeliest token is likely no more

    listener.step = unsure
    samples = tones((1, 2), (3, 4), duration=8)
    (once,) = transcribe_many(listener, [samples], Options("en", temperatures=(0.0,), no_speech_threshold=None))
    assert {segment.temperature for segment in once.segments} == {0.0}
    starts, windows = listener.starts, listener.windows
    found = [transcribe(listener, samples, Options("en", no_speech_threshold=None, max_tokens=5)) for _ in range(2)]
    assert found[0] == found[1]
    assert listener.starts - starts == (listener.windows - windows) * len(FALLBACK_TEMPERATURES) > 0
    hot = [transcribe(listener, samples, Options("en", no_speech_threshold=None, max_tokens=5, seed=seed,
                                                 temperatures=(1.0,))) for seed in (0, 0, 1)]
    assert hot[0] == hot[1] != hot[2]


# The cursor on its own: tokens in, segments and the next window's place out.

def cursor(nano, duration=25.0):
    rules, spec = TokenRules.from_folder(nano), FeatureSpec.from_folder(nano)
    samples = syllables(round(duration * RATE), np.random.default_rng(0))
    return Windows(samples, spec.n_samples, RATE, rules, Spelling())


def tokens(windows, *items):
    """Floats are timestamps in s, integers are text."""
    begin, step = windows.rules.timestamp_begin, windows.rules.timestamp_step
    return [begin + round(item / step) if isinstance(item, float) else item for item in items]


@pytest.mark.parametrize(("items", "spans", "moved"), [
    ((0.5, 1, 2, 8.5), [(0.5, 8.5)], 10),  # one whole segment: the window is used up
    ((0.5, 1, 3.0, 3.0, 2, 8.5), [(0.5, 3.0), (3.0, 8.5)], 10),  # ends in a single timestamp
    ((0.5, 1, 2, 3.0), [(0.5, 3.0)], 3),  # the model stopped, and speech goes on
    ((0.5, 1, 3.0, 3.0, 2, 7.5), [(0.5, 3.0), (3.0, 7.5)], 7.5),
    ((0.5, 1, 3.0, 3.2, 2, 7.5, 7.5), [(0.5, 3.0), (3.2, 7.5)], 7.5),  # ends in a pair: goes on there
    ((0.5, 1, 3.0, 3.0, 2, 7.5, 8.0, 3), [(0.5, 3.0), (3.0, 7.5)], 7.5),  # cut off: 3 is decoded again
    ((0.5, 1, 3.0, 6.5, 2, 8.5), [(0.5, 3.0)], 3),  # speech between two segments that nobody wrote: begin there
    ((0.5, 1, 3.0, 5.9, 2, 8.5), [(0.5, 3.0), (5.9, 8.5)], 10),  # moments may be wrong by half a second
    ((4.0, 1, 8.5), [(4.0, 8.5)], 10),  # the window begins there already
    ((0.5, 1, 2), [(0.5, 10.0)], 10),  # no end at all: the window is one segment
    ((1, 2), [(0.0, 10.0)], 10),  # no timestamps
    ((0.0, 5.0, 5.0), [], 5.0),  # no text: no segment
    ((0.0, 1, 0.0, 0.0), [(0.0, 0.0)], 10),  # must not stand still
    ((), [], 10),
])
def test_cursor(nano, items, spans, moved):
    windows = cursor(nano)
    segments = windows.advance(tokens(windows, *items))
    assert [(round(s.start, 6), round(s.end, 6)) for s in segments] == spans
    assert windows.position == moved * RATE


def test_silence_behind_the_last_timestamp_uses_the_window_up(nano):
    windows = cursor(nano)
    windows.samples[round(3.4 * RATE):10 * RATE] = 0
    assert len(windows.advance(tokens(windows, 0.5, 1, 2, 3.0))) == 1 and windows.position == 10 * RATE


def test_silence_between_two_segments_is_a_pause(nano):
    windows = cursor(nano)
    windows.samples[round(3.4 * RATE):round(6.2 * RATE)] = 0
    assert len(windows.advance(tokens(windows, 0.5, 1, 3.0, 6.5, 2, 8.5))) == 2 and windows.position == 10 * RATE


def test_cursor_counts_from_the_window_and_stops_at_the_end(nano):
    windows = cursor(nano, duration=12.0)
    windows.advance(tokens(windows, 0.0, 1, 7.5, 7.5))
    assert windows.current.start == 7.5 and windows.current.duration == 4.5
    (segment,) = windows.advance(tokens(windows, 1.0, 2, 9.0))  # later than the sound: its end is the sound's
    assert (segment.start, segment.end) == (8.5, 12.0) and windows.done


@pytest.mark.parametrize(("items", "duration", "moved"), [
    ((0.5, 1, 8.5, 8.5), 9.4, 9.4),  # the segment's last sound
    ((0.5, 1, 8.5, 8.5), 9.5, 8.5),  # may be a word
    ((0.5, 1, 8.5), 10.4, 10),  # where a full window ends there may be the middle of a word
])
def test_the_last_sound_of_a_segment_is_not_asked_about(nano, items, duration, moved):
    windows = cursor(nano, duration)
    assert len(windows.advance(tokens(windows, *items))) == 1
    assert windows.position == round(moved * RATE) and windows.done == (moved == duration)


def test_a_window_that_is_not_advanced_is_a_mistake(nano):
    with pytest.raises(RuntimeError, match="neither"):
        for _ in cursor(nano):
            pass


def test_split_keeps_every_token_before_the_cut(nano):
    rules = replace(TokenRules.from_folder(nano), no_timestamps=99, timestamp_end=115)
    pieces, end = split([100, 1, 105, 105, 2, 3, 110, 112, 4], rules)
    assert pieces == [[100, 1, 105], [105, 2, 3, 110]] and end == 10
    assert split([], rules) == ([], None)
    pieces, end = split([100, 1, 116, 105, 105, 2, 117, 110], rules)  # 116 and 117 were added behind the timestamps
    assert pieces == [[100, 1, 116, 105], [105, 2, 117, 110]] and end is None


# Subtitles

@pytest.mark.parametrize(("seconds", "text"), [
    (0, "00:00:00.000"), (59.9996, "00:01:00.000"), (3599.9996, "01:00:00.000"), (3661.0014, "01:01:01.001"),
    (-0.1, "00:00:00.000"), (360000, "100:00:00.000")])
def test_clock(seconds, text):
    assert subtitles.clock(seconds) == text


def test_subtitles_keep_their_structure():
    segments = [Segment(0, 1.5, "a < b & c\n\n--> d", []), Segment(1.5, 1.5, "e", [])]
    assert subtitles.srt(segments) == ("1\n00:00:00,000 --> 00:00:01,500\na < b & c -> d\n\n"
                                       "2\n00:00:01,500 --> 00:00:02,500\ne\n")
    assert subtitles.vtt(segments) == ("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\na &lt; b &amp; c --&gt; d\n\n"
                                       "00:00:01.500 --> 00:00:02.500\ne\n")


def test_subtitles_hold_nothing_that_a_terminal_obeys():
    """A vocabulary may hold anything; without its control characters the rest must not become an arrow."""
    segments = [Segment(0, 1.5, "\x1b[31mred\x07 \x00nul \x9b -\x08->", [], speaker="\x1b]0;title\x07Ann")]
    for kind in (subtitles.srt, subtitles.vtt):
        text = kind(segments)
        assert all(character.isprintable() or character == "\n" for character in text) and "red nul" in text
        assert text.count("-->") == 1


NINE = "wake me up at half past six in summer"  # 37 characters: 1.76 s to read


@pytest.mark.parametrize(("spans", "expected"), [
    ([(5.0, 5.62)], [(5.0, 6.762)]),  # silence after it
    ([(5.0, 5.62), (5.7, 9.0)], [(3.938, 5.7), (5.7, 9.0)]),  # silence before it
    ([(2.0, 5.0), (5.0, 5.62), (5.7, 9.0)], [(2.0, 5.7), (5.7, 9.0)]),  # none: joined with the nearer neighbour
    ([(0.0, 0.62)], [(0.0, 1.762)]),
    ([(2.0, 5.0), (6.0, 9.0)], [(2.0, 5.0), (6.0, 9.0)]),  # long enough: as they were
])
def test_cues_can_be_read(spans, expected):
    segments = [Segment(start, end, NINE, []) for start, end in spans]
    made = subtitles.cues(segments)
    assert [(round(cue.start, 3), round(cue.end, 3)) for cue in made] == expected
    assert " ".join(cue.text for cue in made) == " ".join([NINE] * len(spans))
    assert [(segment.start, segment.end) for segment in segments] == spans  # the transcript itself is not changed


def test_fast_speech_does_not_become_one_cue():
    segments = [Segment(2.0 * i, 2.0 * i + 2, "x" * 60, []) for i in range(20)]  # 30 characters a second
    assert len(subtitles.cues(segments)) == 20


def test_cues_of_any_segments_are_readable_and_apart():
    generator = np.random.default_rng(4)
    for _ in range(200):
        edges = np.sort(generator.uniform(0, 30, 16)).reshape(-1, 2)
        segments = [Segment(start, end, "x" * generator.integers(1, 80), []) for start, end in edges]
        made = subtitles.cues(segments)
        assert all(before.end <= after.start for before, after in zip(made, made[1:], strict=False))
        assert " ".join(cue.text for cue in made) == " ".join(segment.text for segment in segments)
        for i, cue in enumerate(made):  # too short only where nobody is near, and all the silence around is used
            room = (made[i + 1].start if i + 1 < len(made) else np.inf) - cue.end
            assert cue.end - cue.start >= subtitles._needed(cue) - 0.002 or room == pytest.approx(0, abs=1e-6)


def test_words_in_vtt_have_growing_times_inside_the_cue():
    from whisper_lab.alignment import Word

    words = [Word("one", 1.0, 1.4, []), Word("two", 1.4, 1.4, []), Word("three", 1.4, 2.0, []),
             Word("four", 2.0, 2.0, [])]
    text = subtitles.vtt([Segment(1.0, 2.0, "one two three four", [], words)])
    assert "one <00:00:01.400>two three four" in text


def test_unknown_language_is_one_clear_error(listener):
    with pytest.raises(LabError, match="xx"):
        transcribe(listener, tones((1, 2), duration=3), Options("xx"))


# How much of a window is heard ----------------------------------------------------------------------------------------

class ShortListener(ToneListener):
    """One that takes windows of any length, and says nonsense or never ends where the silence behind is too short."""

    takes_short_windows = True

    def __init__(self, folder, silence_s=2.0, needs_s=0.0, nonsense="endless"):
        super().__init__(folder)
        self.silence_s, self.needs_s, self.nonsense, self.frames = silence_s, needs_s, nonsense, []

    def encode(self, features):
        self.frames += [features.shape[2]] * len(features)
        return super().encode(features)

    def _listen(self, features):
        tones, tokens = super()._listen(features)
        loud = np.flatnonzero(features.max(axis=0) > 0.5)
        silence = features.shape[1] - 1 - (loud[-1] if len(loud) else -1)
        if features.shape[1] < self.spec.n_frames and silence < 100 * self.needs_s:
            return tones, {"endless": [100], "loop": [*[100, 101] * 30, self.rules.end],
                           "nothing": [self.rules.end]}[self.nonsense]
        return tones, [token for token in tokens if token < self.rules.timestamp_begin]


SPOKEN = tones((0.2, 0.8), (1.0, 1.5), duration=1.7)
PLAIN = Options("en", logprob_threshold=None)


@pytest.mark.parametrize("seconds, context, frames", [
    (1.7, "auto", 370), (2.0, "auto", 400), (2.01, "auto", 410), (8.5, "auto", 1000), (1.7, "full", 1000),
    (1.7, 5.0, 670), (1.7, 0.0, 190), (1.95, 0.0, 220), (0.0, 0.0, 20), (10.0, 0.0, 1000)])
def test_the_sound_and_some_silence_in_tenths_of_a_second_at_most_the_window(nano, seconds, context, frames):
    assert heard_frames(ShortListener(nano), seconds, context) == frames


@pytest.mark.parametrize("change", [{"silence_s": None}, {"takes_short_windows": False}])
def test_where_nothing_is_known_or_the_graph_is_old_the_whole_window_is_heard(nano, change):
    runtime = ShortListener(nano)
    vars(runtime).update(change)
    found = transcribe(runtime, SPOKEN, PLAIN)
    assert runtime.frames == [1000] and (found.windows, found.shortened, found.heard_again) == (1, 0, 0)


def test_a_short_sound_is_heard_in_a_short_window_and_says_the_same(nano):
    whole, short = ShortListener(nano), ShortListener(nano)
    expected = transcribe(whole, SPOKEN, replace(PLAIN, audio_context="full"))
    found = transcribe(short, SPOKEN, PLAIN)
    assert whole.frames == [1000] and short.frames == [370] and found.text == expected.text != ""
    assert (found.windows, found.shortened, found.heard_again) == (1, 1, 0)


@pytest.mark.parametrize("nonsense", ["endless", "loop", "nothing"])
def test_what_is_not_safe_is_heard_again_as_a_whole_and_counted(nano, nonsense):
    runtime = ShortListener(nano, needs_s=4.0, nonsense=nonsense)
    found = transcribe(runtime, SPOKEN, PLAIN)
    assert runtime.frames == [370, 1000] and (found.windows, found.shortened, found.heard_again) == (1, 1, 1)
    assert found.text == transcribe(ShortListener(nano), SPOKEN, replace(PLAIN, audio_context="full")).text


@pytest.mark.parametrize("nonsense", ["endless", "loop", "nothing"])
def test_what_is_not_safe_is_heard_again_before_beams_are_tried(nano, nonsense):
    runtime, rows = ShortListener(nano, needs_s=4.0, nonsense=nonsense), []
    step, runtime.step = runtime.step, lambda ids, cross, cache: rows.append((len(runtime.frames), len(ids))) or step(
        ids, cross, cache)
    found = transcribe(runtime, SPOKEN, replace(PLAIN, beams=AUTO))
    assert runtime.frames == [370, 1000] and found.heard_again == 1 and found.text
    assert {count for heard, count in rows if heard == 1} == {1}
    if nonsense == "endless":  # a text that is not kept is not written to its end
        assert [heard for heard, _ in rows].count(1) < 80


def test_what_is_doubtful_and_safe_is_searched_by_beams_in_the_short_window(nano, monkeypatch):
    rows, original = [], decoding.is_doubtful
    monkeypatch.setattr(decoding, "is_doubtful", lambda *given: original(*given) or True)
    runtime = ShortListener(nano)
    step, runtime.step = runtime.step, lambda ids, cross, cache: rows.append(len(ids)) or step(ids, cross, cache)
    found = transcribe(runtime, SPOKEN, replace(PLAIN, beams=AUTO))
    assert runtime.frames == [370] and WIDE in rows and (found.heard_again, found.searched_again) == (0, 1)


def test_what_is_unlikely_is_heard_again_before_other_temperatures(nano, monkeypatch):
    tried, original = [], short_windows.decode_encoded
    monkeypatch.setattr(short_windows, "decode_encoded", lambda runtime, cross, count, options, *more: tried.append(
        options.temperatures) or [replace(result, avg_logprob=-1.5) for result in
                                  original(runtime, cross, count, options, *more)])
    found = transcribe(ShortListener(nano), SPOKEN, Options("en"))
    assert tried == [(0.0,), FALLBACK_TEMPERATURES] and found.heard_again == 1


@pytest.mark.parametrize(("no_speech", "heard"), [(0.9, [370]), (0.5, [370, 1000])])
def test_what_is_taken_for_silence_is_not_heard_again(nano, monkeypatch, no_speech, heard):
    original = short_windows.decode_encoded
    monkeypatch.setattr(short_windows, "decode_encoded", lambda *given: [
        replace(result, avg_logprob=-1.5, text_logprob=-2.0, no_speech_prob=no_speech) for result in original(*given)])
    runtime = ShortListener(nano)
    found = transcribe(runtime, SPOKEN, Options("en"))
    assert runtime.frames == heard and found.heard_again == len(heard) - 1 and bool(found.text) == (no_speech < 0.6)


def test_a_batch_is_as_long_as_its_longest_needs_and_one_that_is_not_safe_is_heard_again_alone(nano):
    runtime = ShortListener(nano, needs_s=3.2)
    recordings = [SPOKEN, tones((0.2, 2.5), duration=2.8)]  # in windows of 4.8 s: 3.3 s and 2.3 s of silence
    found = transcribe_many(runtime, recordings, PLAIN)
    assert runtime.frames == [480, 480, 1000]
    assert [(one.shortened, one.heard_again) for one in found] == [(1, 0), (1, 1)] and all(one.text for one in found)


def test_the_last_window_of_a_long_recording_is_short(listener):
    spans, duration = [(1.0, 2.0), (8.0, 9.0), (11.0, 12.0)], 12.5
    expected = transcribe(listener, tones(*spans, duration=duration), Options("en"), words=True)
    frames, original = [], listener.encode
    listener.encode = lambda features: frames.append(features.shape[2]) or original(features)
    listener.takes_short_windows, listener.silence_s = True, 3.0
    found = transcribe(listener, tones(*spans, duration=duration), Options("en"), words=True, batch_size=1)
    assert frames[0] == 1000 and frames[-1] < 1000 and found.shortened == 1 and found.windows == len(frames)
    assert [(s.start, s.end, s.text, s.words) for s in found.segments] == \
        [(s.start, s.end, s.text, s.words) for s in expected.segments] and len(found.segments) == 3
    assert all(segment.end <= duration for segment in found.segments)
