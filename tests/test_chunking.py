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

def test_cuts_fall_in_the_longest_pauses_near_the_even_places():
    """Found by the level: no detector is here."""
    samples, _ = speech(150)
    found = chunking.cuts(samples, RATE, WINDOW, 4)
    assert len(found) == 3 and found == sorted(found)
    for i, cut in enumerate(found, 1):
        assert abs(cut / len(samples) - i / 4) * len(samples) <= chunking.NEAR * RATE
        assert np.abs(samples[cut - RATE // 5:cut + RATE // 5]).max() < 0.01


def test_of_several_pauses_the_longest_is_taken_and_of_equals_the_nearest():
    def pauses(piece):  # of 16 s, whose middle is the even place
        return [(1.0, 1.9), (5.0, 5.9), (12.0, 12.2)]

    (cut,) = chunking.cuts(np.zeros(60 * RATE, np.float32), RATE, WINDOW, 2, pauses)
    assert cut / RATE == pytest.approx(30 - chunking.NEAR + 5.45, abs=0.03)


def test_what_is_no_speech_to_the_detector_is_cut_where_it_is_quiet():
    """Singing, for one: tones that it calls one long pause."""
    spans = [(start, start + 1.2) for start in np.arange(0, 60, 1.7)]
    (cut,) = chunking.cuts(tones(*spans, duration=61), RATE, WINDOW, 2, lambda piece: [(0.0, len(piece) / RATE)])
    assert all(not start < cut / RATE < end for start, end in spans)


@pytest.mark.parametrize("found", [[], [(3.0, 3.1)]])
def test_without_a_pause_there_is_no_cut(found):
    assert chunking.cuts(np.zeros(90 * RATE, np.float32), RATE, WINDOW, 3, lambda piece: found) == []


@pytest.mark.parametrize(("seconds", "most", "parts"), [(59, 4, 1), (61, 4, 2), (91, 4, 3), (900, 4, 4), (900, 1, 1)])
def test_a_chunk_is_several_windows_long(seconds, most, parts):
    samples = np.zeros(seconds * RATE, np.float32)
    assert len(chunking.cuts(samples, RATE, WINDOW, most, lambda piece: [(1.0, 2.0)])) == parts - 1


def test_only_sound_near_the_cuts_is_looked_at():
    heard = []
    chunking.cuts(np.zeros(900 * RATE, np.float32), RATE, WINDOW, 4, lambda piece: heard.append(len(piece)) or [])
    assert len(heard) == 3 and sum(heard) <= 3 * 2 * chunking.NEAR * RATE


def test_silero_is_asked_where_it_is_here_and_never_fetched(monkeypatch):
    from whisper_lab.speakers import models, voice
    from whisper_lab.weights import store

    monkeypatch.setattr(store, "obtain", lambda *_: pytest.fail("fetched"))
    samples, _ = speech(12)
    level = chunking.finder()(samples)
    monkeypatch.setattr(models, "here", lambda name: MEDIA / "kitchen.wav")  # no graph: the level serves
    assert chunking.finder()(samples) == level

    class Detector:
        def __init__(self, graph):
            pass

        def probabilities(self, samples):
            likely = np.ones(-(-len(samples) // voice.CHUNK))
            likely[100:150] = 0
            return likely

    monkeypatch.setattr(voice, "SpeechDetector", Detector)
    ((start, end),) = chunking.finder()(samples)
    assert start == pytest.approx(100 * 0.032 + voice.MARGIN) and end == pytest.approx(150 * 0.032 - voice.MARGIN)


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
    """A later chunk sounds Welsh by itself: it is decoded again, in the language of the first."""
    original, asked, languages = listener.step, [], listener.rules.languages
    spans, duration = regular_spans(70)

    def step(ids, cross, cache):
        logits, cache_now = original(ids, cross, cache)
        if cache is None and ids.shape[1] == 1:  # which language?
            logits[1:, -1, languages["en"]] = 25
        elif cache is None:
            asked.append([row[1] for row in ids.tolist()])
        return logits, cache_now

    listener.step = step
    transcript = transcribe(listener, tones(*spans, duration=duration), Options(logprob_threshold=None))
    assert transcript.language == "nl" and transcript.language_probability > 0.9
    assert asked[0] == [languages["nl"], *[languages["en"]] * 3]
    assert {code for rows in asked[1:] for code in rows} == {languages["nl"]}
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
        errors = word_errors(said, found.text, "en")
        assert errors.reference_words > 100 and errors.wer < 0.1
    assert all(a.end <= b.start + 0.05 for a, b in zip(beside.segments, beside.segments[1:], strict=False))
