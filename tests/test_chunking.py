"""A long recording cut at pauses and decoded side by side, and several clips at once: nothing lost, nothing moved."""

import itertools
import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.test_transcribe import RATE, ToneListener, hiss, regular_spans, tones
from whisper_lab import audio, chunking
from whisper_lab.batching import Batcher
from whisper_lab.console import LabError
from whisper_lab.decoding import Options
from whisper_lab.metrics import word_errors
from whisper_lab.transcribe import Transcript, side_by_side, transcribe, transcribe_many

MEDIA = Path(__file__).resolve().parent.parent / "media"
CLIPS = ("kitchen", "digits", "time")
WINDOW = 10 * RATE  # samples; nano's


@pytest.fixture
def listener(nano):
    return ToneListener(nano)


def speech(seconds: float, pause: float = 0.7) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Three short clips of the project in turn with `pause` s of faint hiss between them, and where each one is, s."""
    clips = [audio.load(MEDIA / f"{name}.wav").samples for name in CLIPS]
    parts, spans, now = [], [], 0.0
    while now < seconds:
        clip = clips[len(spans) % len(clips)]
        spans.append((now, now + len(clip) / RATE))
        parts += [clip, hiss(pause, -70)]
        now = sum(map(len, parts)) / RATE
    return np.concatenate(parts), spans


# Where to cut

def test_cuts_fall_into_pauses_and_leave_chunks_of_the_length_that_is_asked_for():
    samples, _ = speech(150)
    found = chunking.cuts(samples, RATE, 10, 16)
    edges = [0, *found, len(samples)]
    assert all(10 <= (last - first) / RATE <= 16 for first, last in itertools.pairwise(edges[:-1]))
    assert 5 <= (edges[-1] - edges[-2]) / RATE <= 16
    assert all(np.abs(samples[cut - RATE // 8:cut + RATE // 8]).max() < 0.01 for cut in found)


@pytest.mark.parametrize(("pauses", "at"), [
    ([(11.0, 11.4), (12.0, 12.9), (14.0, 14.5)], 12.45),  # the longest
    ([(5.0, 9.0), (11.0, 11.4), (17.0, 19.0)], 11.2),  # of those that are near
    ([(2.0, 10.5), (13.0, 13.4)], 10.25),  # only the part of a pause that is near
    ([(11.0, 12.0), (13.0, 18.0)], 11.5),  # beyond a second no pause is better than another: the first of them
    ([(11.0, 11.2), (17.0, 17.4), (21.0, 22.0)], 17.2),  # none there that is long enough: the next one behind
    ([(7.0, 7.6), (11.0, 11.25), (25.0, 26.0)], 7.3),  # that one is far: one before
    ([(4.0, 4.6), (11.0, 11.25), (25.0, 26.0)], 11.12),  # or a short one
    ([(11.0, 11.1), (25.0, 26.0)], 25.5),
])
def test_which_pause_is_cut_in(pauses, at):
    cut = chunking.cuts(np.zeros(60 * RATE, np.float32), RATE, 10, 16, lambda samples: pauses)[0]
    assert cut / RATE == pytest.approx(at, abs=0.03)


def test_a_cut_is_where_a_pause_is_quietest():
    """What is no speech may still be song: tones that are called one long pause."""
    spans = [(start, start + 1.2) for start in np.arange(0, 60, 1.7)]
    found = chunking.cuts(tones(*spans, duration=61), RATE, 10, 16, lambda samples: [(0.0, 61.0)])
    assert len(found) > 2 and all(not start < cut / RATE < end for cut in found for start, end in spans)


@pytest.mark.parametrize("pauses", [[], [(13.0, 13.1)], [(89.9, 90.0)]])
def test_without_a_pause_there_is_no_cut(pauses):
    assert chunking.cuts(np.zeros(90 * RATE, np.float32), RATE, 10, 16, lambda samples: pauses) == []


def test_a_recording_that_ends_soon_is_not_cut_for_it():
    """The rest would be heard by itself, with silence behind it."""
    assert chunking.cuts(np.zeros(17 * RATE, np.float32), RATE, 10, 16, lambda samples: [(15.0, 15.5)]) == []


@pytest.mark.parametrize(("seconds", "most", "hears_short", "expected"), [
    (29, 4, True, None), (31, 1, True, None), (31, 4, True, (10, 16)), (900, 4, True, (10, 16)),
    (179, 4, False, None), (900, 1, False, None), (200, 4, False, (94, 106)), (900, 4, False, (219, 231)),
])
def test_how_long_chunks_are(seconds, most, hears_short, expected):
    """Half a window where that saves the encoder's time; else several windows, as many chunks as are heard at once."""
    found = chunking.lengths(seconds, 30, most, hears_short)
    assert found is None if expected is None else found == pytest.approx(expected)


# What is heard

def test_side_by_side_is_heard_what_is_heard_one_after_the_other(listener):
    """Seventy tones with pauses, some of which a window's end would cut: same tones, same places, in order."""
    spans, duration = regular_spans(70)
    samples, moves = tones(*spans, duration=duration), []
    alone = transcribe(listener, samples, Options("en"), batch_size=1, words=True)
    assert listener.largest_batch == 1
    beside = transcribe(listener, samples, Options("en"), batch_size=4, words=True, progress=moves.append)
    assert listener.largest_batch == 4
    assert [segment.text for segment in beside.segments] == [segment.text for segment in alone.segments]
    words = [[word for segment in found.segments for word in segment.words] for found in (alone, beside)]
    assert [word.text for word in words[0]] == [word.text for word in words[1]]
    np.testing.assert_allclose([word.start for word in words[1]], [word.start for word in words[0]], atol=0.06)
    beside = transcribe(listener, samples, Options("en"), batch_size=4)
    np.testing.assert_allclose([(one.start, one.end) for one in beside.segments], spans, atol=0.04)
    assert sum(moves) == pytest.approx(duration, abs=0.1) and min(moves) > 0
    assert (beside.duration, beside.language) == (alone.duration, "en")


def test_where_the_encoder_hears_short_windows_it_hears_halves(listener):
    """Half a window takes it less than half of the time; the tones and their places are the same."""
    frames, original = [], listener.encode
    listener.encode = lambda features: frames.append(features.shape[2]) or original(features)
    listener.takes_short_windows, listener.silence_s = True, 1.0
    spans, duration = regular_spans(70)
    found = transcribe(listener, tones(*spans, duration=duration), Options("en"), batch_size=4)
    assert np.median(frames) <= 700 and listener.largest_batch == 4
    np.testing.assert_allclose([(one.start, one.end) for one in found.segments], spans, atol=0.04)


def test_how_a_recording_is_cut_does_not_depend_on_the_others(listener):
    recordings = [tones(*spans, duration=duration) for spans, duration in (regular_spans(n, n) for n in (70, 3, 50))]
    together = transcribe_many(listener, recordings, Options("en"))
    assert together == [transcribe(listener, samples, Options("en")) for samples in recordings]


def test_text_before_each_window_needs_one_after_the_other(listener):
    """It is carried where it is asked for; where the checkpoint merely likes it, a recording is cut instead."""
    listener.rules = replace(listener.rules, condition_on_previous=True)
    spans, duration = regular_spans(70)
    samples = tones(*spans, duration=duration)
    transcribe(listener, samples, Options("en"), condition_on_previous=True)
    assert listener.largest_batch == 1
    assert len(side_by_side(samples, listener, Options("en"), (), True, 4)) == 1
    parts = side_by_side(samples, listener, Options("en"), (), None, 4)
    assert len(parts) == 4 and not any(part.condition for part in parts)
    (short,) = side_by_side(samples[:RATE * 20], listener, Options("en"), (), None, 4)
    assert short.condition


def test_all_chunks_have_the_language_of_the_first(listener):
    """Later chunks sound Welsh by themselves: nobody asks them."""
    original, asked, languages = listener.step, [], listener.rules.languages
    spans, duration = regular_spans(70)

    def step(ids, cross, cache):
        logits, cache_now = original(ids, cross, cache)
        if cache is None and ids.shape[1] == 1:  # which language?
            logits[:, -1, languages["en"]] = 0 if listener.windows == 1 else 25
        elif cache is None:
            asked.append([row[1] for row in ids.tolist()])
        return logits, cache_now

    listener.step = step
    transcript = transcribe(listener, tones(*spans, duration=duration), Options(logprob_threshold=None))
    assert transcript.language == "nl" and transcript.language_probability > 0.9
    assert len(asked[0]) == 1 and listener.largest_batch == 4
    assert {code for rows in asked for code in rows} == {languages["nl"]}
    np.testing.assert_allclose([segment.start for segment in transcript.segments], [at for at, _ in spans], atol=0.04)


def test_memory_grows_with_the_batch_and_not_with_the_recording(listener):
    def peak(minutes, batch_size):
        samples = np.tile(tones((1, 2), (4, 6), duration=10), minutes * 6)
        tracemalloc.start()
        transcribe(listener, samples, Options("en"), batch_size=batch_size)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(1, 1)  # what is imported and cached
    one = peak(4, 4)
    assert peak(12, 4) < one + 8e6 and one < peak(4, 1) + 40e6


def test_short_windows_are_decoded_with_their_like(listener):
    """Where the encoder hears no more than there is, 2 s do not wait for 10."""
    batches, original = [], listener.encode
    listener.takes_short_windows = True
    listener.encode = lambda features: batches.append(len(features)) or original(features)
    recordings = [tones((0.5, 1), duration=duration) for duration in (2, 9.5, 2.5, 9, 3)]
    transcripts = transcribe_many(listener, recordings, Options("en"), batch_size=4)
    assert batches == [2, 3] and [len(one.segments) for one in transcripts] == [1] * 5


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("long_s, expected", [
    (120.0, {(750, 700, 400, 350, 300), (1000,), (200,)}), (5.0, {(750, 700, 400), (1000,), (350, 300), (200,)})])
def test_where_lengths_may_be_mixed_each_window_has_its_own(listener, monkeypatch, lanes, long_s, expected):
    """Then nobody waits for windows of one length, and of what lasts long the rest is shared as two lanes would, also
    where there is one."""
    monkeypatch.setattr("whisper_lab.transcribe.EACH_S", long_s)
    heard, original = [], listener.encode

    def encode(features):
        heard.append(tuple(one.shape[1] for one in features))
        return original(np.stack([np.pad(one, [(0, 0), (0, listener.spec.n_frames - one.shape[1])])
                                  for one in features]))

    listener.encode, listener.lanes, listener.silence_s = encode, lanes, 1.0
    listener.takes_short_windows = listener.mixes_lengths = True
    recordings = [tones((0.2, 0.7), duration=duration) for duration in (2, 6.5, 2.5, 6, 3, 8.95, 1)]
    found = transcribe_many(listener, recordings, Options("en", logprob_threshold=None))
    assert set(heard) == expected and len(heard) == len(expected)
    assert [(len(one.segments), one.windows, one.shortened) for one in found] == [(1, 1, duration != 8.95) for duration
                                                                                  in (2, 6.5, 2.5, 6, 3, 8.95, 1)]


# Several clips of a command line

def clips(folder: Path, *seconds: float) -> list[Path]:
    made = [folder / f"{i}.wav" for i in range(len(seconds))]
    for path, duration in zip(made, seconds, strict=True):
        audio.write_wav(path, tones((0.1, duration - 0.1), duration=duration))
    return made


def test_clips_are_heard_in_batches_and_handed_out_in_order(tmp_path):
    heard = []

    def hear(recordings, done):
        heard.append([len(samples) // RATE for samples in recordings])
        return [Transcript(language=f"{len(samples) // RATE}", duration=len(samples) / RATE) for samples in recordings]

    paths = clips(tmp_path, 1, 2, 3, 4, 70, 5, 6)
    (tmp_path / "1.wav").write_text("no sound")
    batcher, languages = Batcher(paths, hear, 3, 10.0, lambda clip: clip == paths[2]), []
    for path in paths:
        if path == paths[1]:
            with pytest.raises(LabError, match="1.wav"):
                batcher(path)
        elif path != paths[2]:
            found = batcher(path)
            languages.append(found.language)
            assert found.seconds > 0
    assert languages == ["1", "4", "70", "5", "6"] and heard == [[1, 4, 70], [5, 6]]
    assert batcher(paths[0]).language == "1" and heard[2:] == [[1]]  # named twice


def test_clips_that_cannot_be_heard_together_are_heard_one_by_one(tmp_path):
    def hear(recordings, done):
        if any(len(samples) == 2 * RATE for samples in recordings):
            raise LabError("not a number", "export again")
        return [Transcript(duration=1.0) for _ in recordings]

    paths = clips(tmp_path, 1, 2, 3)
    batcher = Batcher(paths, hear, 4, 10.0)
    batcher(paths[0])
    with pytest.raises(LabError, match="not a number"):
        batcher(paths[1])
    batcher(paths[2])


def test_the_command_line_prints_what_it_prints_one_by_one(call_script, nano, nano_export, tmp_path):
    """Texts, order, JSON; one broken file costs itself alone."""
    names = ("digits", "hello", "kitchen", "nederlands", "time")
    for name in names:
        shutil.copy(MEDIA / f"{name}.wav", tmp_path)
    (tmp_path / "j.wav").write_text("no sound")  # in the middle
    outputs, documents = [], []
    for size in (1, 4):
        status, out, err = call_script("whisper_lab.__main__", tmp_path, "--model", "nano", "--model-dir",
                                       nano_export / "graphs", "--threads", 1, "--batch-size", size,
                                       "--json", tmp_path / "o.json")
        assert status == 1 and err.count("error: ") == 1 and "j.wav" in err
        outputs.append(out)
        documents.append(json.loads((tmp_path / "o.json").read_text(encoding="utf-8")))
    assert "heard at once" in err and outputs[0] == outputs[1] and outputs[0].count("\n") > 2 * len(names)
    for one, other in zip(*(document["clips"] for document in documents), strict=True):
        assert one["text"] == other["text"] and one["segments"][0]["tokens"] == other["segments"][0]["tokens"]
        assert min(one["transcribe_s"], other["transcribe_s"]) > 0
    assert documents[1]["settings"]["batch_size"] == 4


@pytest.mark.parametrize("graphs", [("fp32", False), ("int8", True)])
def test_whisper_nano_hears_the_same_side_by_side(nano_export, references, graphs):
    """80 s of speech with clear pauses: the words are those of one window after the other, each where it was said."""
    from whisper_lab.onnx_whisper import OnnxWhisper

    runtime = OnnxWhisper(nano_export / "graphs", "whisper-nano", graphs[0], 1, graphs[1])
    samples, spans = speech(80)
    alone, beside = (transcribe(runtime, samples, Options("en"), batch_size=size) for size in (1, 3))
    said = " ".join(references[f"{name}.wav"]["text"] for name, _ in zip(itertools.cycle(CLIPS), spans, strict=False))
    for found in (alone, beside):  # nano is not without errors where a window's end cuts a word
        errors = word_errors(said, found.text)
        assert errors.reference_words > 100 and errors.wer < 0.1
    assert all(a.end <= b.start + 0.05 for a, b in zip(beside.segments, beside.segments[1:], strict=False))
