"""10-who-spoke.py with the real models: two voices of media/, bad sound, every output; people where a corpus is named.

WHISPER_LAB_CORPUS names a folder with a references.json (rows with `file` and `speaker`, or `rttm`).
"""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from whisper_lab import audio, console, metrics
from whisper_lab.console import LabError
from whisper_lab.speakers import turns
from whisper_lab.speakers.turns import Turn

ROOT = Path(__file__).resolve().parent.parent
SCRIPT, LONG = "10-who-spoke.py", ROOT / "media" / "long.flac"


@pytest.fixture(scope="module")
def store(published) -> Path:
    """The folder with both models."""
    published("silero-vad")
    return published("campplus").parent


@pytest.fixture
def who(store, call_script, monkeypatch, tmp_path):
    """A function *arguments -> (exit status, stdout, stderr) of the script."""
    monkeypatch.setenv("WHISPER_LAB_WEIGHTS", str(store))

    def call(*arguments):
        return call_script(SCRIPT, *arguments, "--threads", "1", "--output-dir", tmp_path)

    return call


@pytest.fixture(scope="module")
def truth(references) -> list[Turn]:
    """Two voices speak in turn in long.flac."""
    return [Turn(("rms", "slt")[i % 2], row["start_s"], row["end_s"])
            for i, row in enumerate(references["long.flac"]["segments"])]


@pytest.fixture(scope="module")
def dialogue(store, nano_export, truth, tmp_path_factory):
    """What the script makes of long.flac with whisper-nano's graphs: its folder, and its JSON document."""
    folder = tmp_path_factory.mktemp("dialogue")
    (folder / "truth.rttm").write_text(turns.rttm(truth, "long", []))
    script = importlib.import_module(SCRIPT.removesuffix(".py"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHISPER_LAB_WEIGHTS", str(store))
        status = script.main([str(LONG), "--model", "nano", "--model-dir", str(nano_export / "graphs"), "--precision",
                              "fp32", "--language", "en", "--names", "Thomas,Anna", "--reference",
                              str(folder / "truth.rttm"), "--page", "--explain", "--threads", "1", "--output-dir",
                              str(folder), "--json", str(folder / "said.json")])
    assert status == 0
    return folder, json.loads((folder / "said.json").read_text())


def test_both_voices_are_found_and_told_apart(dialogue):
    _, said = dialogue
    assert [speaker["name"] for speaker in said["speakers"]] == ["Thomas", "Anna"]
    assert said["errors"]["der"] <= 0.1 and said["errors"]["confused_s"] == 0


def test_words_go_to_those_who_said_them(dialogue, references):
    _, said = dialogue
    rows = references["long.flac"]["segments"]
    for i, name in enumerate(("Thomas", "Anna")):
        spoken = " ".join(row["text"] for row in rows[i::2])
        heard = " ".join(line["text"] for line in said["lines"] if line["speaker"] == name)
        other = " ".join(row["text"] for row in rows[1 - i::2])
        assert metrics.word_errors(spoken, heard, "en").wer < 0.4 < metrics.word_errors(other, heard, "en").wer
    starts = [word["start_s"] for line in said["lines"] for word in line["words"]]
    assert starts == sorted(starts) and starts[-1] < said["duration_s"]


def test_the_document_names_models_licences_and_times(dialogue):
    _, said = dialogue
    assert [card["name"] for card in said["models"]] == ["silero-vad", "campplus"]
    assert said["whisper"]["name"] == "whisper-nano" and said["whisper"]["precision"] == "fp32"
    assert min(said[key] for key in ("voice_activity_s", "fingerprints_s", "clustering_s", "words_s")) > 0


def test_the_page_and_the_picture_are_there(dialogue):
    folder, _ = dialogue
    text = (folder / "who-long.html").read_text()
    assert '"name": "Thomas"' in text and "data:audio/wav;base64," in text and "//" not in text.split("<script>")[0]
    assert (folder / "who-long.png").read_bytes().startswith(b"\x89PNG")


def test_without_words_there_are_turns(who, truth, tmp_path):
    status, out, err = who(LONG, "--no-words", "--format", "rttm")
    (tmp_path / "found.rttm").write_text(out)
    assert status == 0 and "speakers: 2 (found; --speakers sets the number)" in err
    assert turns.errors(truth, turns.read_rttm(tmp_path / "found.rttm")).rate <= 0.1


def test_explain_shows_the_shapes_and_draws(who, tmp_path):
    asked = who(LONG, "--no-words", "--explain", "--speakers", "2", "--output-dir", tmp_path)[1]
    assert "as many as --speakers asks for" in asked and "apart (1 - cosine)" not in asked
    status, out, _ = who(LONG, "--no-words", "--explain")
    pieces, vectors = re.search(r"2 pieces of .*\[(\d+), 148, 80\]", out)[1], re.search(r"\[(\d+), 192\]", out)[1]
    assert status == 0 and pieces == vectors and re.search(r"3 clustering: .*\[2\]", out)
    assert (tmp_path / "who-long.png").is_file()


# Unusual sound -------------------------------------------------------------------------------------------------------

def sounds() -> dict[str, np.ndarray]:
    generator, time = np.random.default_rng(0), np.arange(4 * 16000) / 16000
    melody = np.sin(2 * np.pi * np.repeat([262, 330, 392, 523, 440, 349, 294, 262], 8000) * time)
    return {"silence": np.zeros(32000), "hiss": 0.02 * generator.standard_normal(64000), "music": 0.2 * melody,
            "a sample": np.array([0.1])}


@pytest.mark.parametrize("name", sounds())
def test_where_no_one_speaks_it_says_so(who, tmp_path, name):
    audio.write_wav(tmp_path / "x.wav", sounds()[name].astype(np.float32))
    status, out, err = who(tmp_path / "x.wav", "--model", "nano", "--json", tmp_path / "said.json")
    assert status == 0 and out.strip() == "No one speaks in it." and "Traceback" not in err
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["speakers"] == said["turns"] == said["lines"] == []
    for kind, expected in (("srt", ""), ("vtt", "WEBVTT"), ("rttm", "")):
        assert who(tmp_path / "x.wav", "--model", "nano", "--format", kind)[1].strip() == expected


def test_words_that_rttm_has_no_place_for_are_not_looked_for(who):
    status, out, err = who(ROOT / "media" / "long.flac", "--model", "nosuch", "--format", "rttm")
    assert status == 0 and out.startswith("SPEAKER") and "words: left out" in err


def test_fewer_names_than_speakers_is_said(who):
    status, out, err = who(ROOT / "media" / "long.flac", "--no-words", "--speakers", "2", "--names", "Ann")
    assert status == 0 and "Ann" in out and "Speaker 2" in out
    assert "names: 1 for 2 speakers (the others are called by their number)" in err


def test_a_second_of_one_voice_is_one_speaker(who, tmp_path):
    spoken = audio.load(ROOT / "media" / "kitchen.wav").samples[8000:24000]
    audio.write_wav(tmp_path / "second.wav", spoken)
    status, out, err = who(tmp_path / "second.wav", "--no-words", "--speakers", "4", "--names", "Ann,Bob")
    assert status == 0 and "Ann" in out and "Bob" not in out.replace("Bob left out", "")
    assert "there is not enough speech to tell as many apart" in err and "2 names for 1 speaker: Bob left out" in err


def test_two_at_once_are_no_third_voice(who, tmp_path):
    """Where both speak, one of them is given the turn."""
    both = [audio.load(ROOT / "media" / "long.flac").samples[round(a * 16000):round(b * 16000)]
            for a, b in ((19.3, 22.7), (23.6, 26.1))]
    over = both[0].copy()
    over[-16000:] += both[1][:16000]
    audio.write_wav(tmp_path / "over.wav", 0.5 * np.concatenate([over, both[1][16000:]]))
    status, _, err = who(tmp_path / "over.wav", "--no-words")
    assert status == 0 and "speakers: 3" not in err


# 09's ears ------------------------------------------------------------------------------------------------------------

def test_it_works_in_a_process_whose_sessions_share_a_pool_of_threads(store):
    """As in 09: onnxruntime refuses sessions with threads of their own there."""
    program = ("import numpy as np; from whisper_lab.sessions import session_options; "
               "from whisper_lab.speakers import models, voice, encoder; session_options('encoder', 1, True); "
               "detector = voice.SpeechDetector(models.obtain('silero-vad')); "
               "encoder.SpeakerEncoder(models.obtain('campplus')); "
               "print(detector.probabilities(np.zeros(1024, np.float32)).shape)")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"WHISPER_LAB_WEIGHTS": str(store)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "(2,)\n", "")


def test_09_hears_speech_in_noise_that_the_level_misses(store, monkeypatch):
    from whisper_lab.speakers import models, voice
    from whisper_lab.stream.voice import Voice

    monkeypatch.setenv("WHISPER_LAB_WEIGHTS", str(store))
    clean = audio.load(LONG).samples
    noise = np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
    noisy = clean + noise * np.sqrt(np.mean(clean**2) / 4)  # 6 dB below the speech
    heard = {}
    for name, detector in (("level", None), ("silero", voice.SpeechDetector(models.obtain("silero-vad")))):
        one = Voice(16000, 0.6, 30 * 16000, detector)
        for first in range(0, len(noisy), 1600):  # as it comes from a microphone
            one.append(noisy[first:first + 1600])
        one.finish()
        heard[name] = sum(span.voiced - span.onset for span in one.spans if span.onset > 5 * 16000) / 16000
    assert heard["silero"] > 20 and heard["level"] < 10  # about 21 s are spoken after the first five


def test_a_recording_does_not_hear_the_one_before_it(store, monkeypatch):
    from whisper_lab.speakers import models, voice
    from whisper_lab.stream.voice import Voice

    monkeypatch.setenv("WHISPER_LAB_WEIGHTS", str(store))
    detector = voice.SpeechDetector(models.obtain("silero-vad"))
    clip = audio.load(ROOT / "media" / "kitchen.wav").samples
    first = detector.probabilities(clip)
    Voice(16000, 0.6, 30 * 16000, detector)  # 09 makes one for each file
    np.testing.assert_array_equal([detector.hear(clip[i:i + 512]) for i in range(0, 16384, 512)], first[:32])


# Without the index, and wrong usage ----------------------------------------------------------------------------------

@pytest.fixture
def nothing_here(monkeypatch, tmp_path):
    monkeypatch.setenv("WHISPER_LAB_WEIGHTS", str(tmp_path / "empty"))
    monkeypatch.setenv("WHISPER_LAB_PACKAGE_INDEX", "never")


def test_without_the_encoder_it_ends_in_two_lines(nothing_here, call_script):
    status, out, err = call_script(SCRIPT, LONG, "--no-words")
    assert (status, out) == (1, "")
    assert "voice activity: by level (silero-vad is not in" in err
    assert err.splitlines()[-2].startswith("error: campplus is not in") and "try: python -m whisper_lab.weights" in err


def test_one_speaker_needs_no_encoder(nothing_here, call_script):
    status, out, _ = call_script(SCRIPT, LONG, "--no-words", "--speakers", "1", "--format", "rttm")
    assert status == 0 and "Speaker_1" in out and "Speaker_2" not in out


@pytest.mark.parametrize("wrong, words", [
    (("--speakers", "0"), "starts at 1"), (("--names", "Ann,Ann"), "the same name"),
    (("--speakers", "1", "--names", "Ann,Bob"), "2 names for 1 speakers"),
    (("--explain", "--format", "srt"), "--format text only"), (("--no-words", "--format", "vtt"), "made of words")])
def test_wrong_usage_is_told_before_anything_is_computed(call_script, wrong, words):
    status, out, err = call_script(SCRIPT, "none.wav", *wrong)
    assert (status, out) == (2, "") and words in err


def test_a_missing_sound_and_a_missing_reference(call_script):
    status, _, err = call_script(SCRIPT, "none.wav")
    assert status == 1 and err.startswith("error: no such file: none.wav\n  try: ")
    status, _, err = call_script(SCRIPT, LONG, "--reference", "none.rttm")
    assert status == 1 and err.startswith("error: cannot read none.rttm")


# Which Whisper -------------------------------------------------------------------------------------------------------

class Graphs:
    """In the place of OnnxWhisper: int8 graphs cannot tell when a word was said, fp32 graphs can."""

    def __init__(self, folder, name, precision, threads, keep=False):
        self.has_attention, self.command = precision == "fp32", f"python 03 --precision {precision}"
        self.facts = {"random_weights": False}


@pytest.fixture
def open_with(monkeypatch, tmp_path):
    """A function (precisions that are there, --precision) -> what open_runtime finds for nano."""
    from whisper_lab import names
    from whisper_lab.speakers import words

    monkeypatch.setattr(words, "OnnxWhisper", Graphs)
    monkeypatch.setattr(names, "MODEL_DIR", str(tmp_path))

    def call(present, asked=None):
        for precision in present:
            for path in names.pair(tmp_path, "whisper-nano", precision).values():
                path.touch()
        return words.open_runtime("nano", str(tmp_path), asked, 1)

    return call


def test_the_fastest_graphs_that_know_word_times_are_taken(open_with):
    runtime, facts = open_with(["int8", "fp32"])
    assert facts == {"name": "whisper-nano", "precision": "fp32", "random_weights": False} and runtime.has_attention


def test_without_such_graphs_the_words_come_from_pytorch(open_with, nano):
    runtime, facts = open_with(["int8"])
    assert facts["precision"] == "PyTorch, float32" and runtime.rules.vocab_size


def test_a_folder_that_was_named_and_has_no_graphs_is_an_error(open_with, monkeypatch):
    monkeypatch.setattr("whisper_lab.names.MODEL_DIR", "elsewhere")
    with pytest.raises(LabError, match="there are no graphs of whisper-nano in ") as caught:
        open_with([])
    remedy = caught.value.remedy
    assert remedy.startswith("leave out --model-dir, for PyTorch; or write them: python 03-")
    assert "--precision int8 --output-dir " in remedy and remedy.endswith(" --alignment-heads")


def test_half_a_pair_in_a_named_folder_is_told(open_with, monkeypatch, tmp_path):
    from whisper_lab import names

    monkeypatch.setattr(names, "MODEL_DIR", "elsewhere")
    names.pair(tmp_path, "whisper-nano", "int8")["encoder"].touch()
    with pytest.raises(LabError, match="half of whisper-nano's int8 pair is missing"):
        open_with([])


def test_missing_graphs_are_told_before_anything_is_computed(call_script, tmp_path, monkeypatch):
    import importlib

    monkeypatch.setattr(importlib.import_module("10-who-spoke"), "find_speech", lambda samples: pytest.fail("too late"))
    status, out, err = call_script("10-who-spoke.py", LONG, "--model", "nano", "--model-dir", tmp_path)
    assert status == 1 and not out and f"there are no graphs of whisper-nano in {tmp_path}" in err


def test_without_any_graphs_in_the_usual_folder_pytorch_is_taken(open_with):
    assert open_with([])[1]["precision"] == "PyTorch, float32"


def test_the_fastest_are_named_and_the_command_is_the_last_word(open_with, capsys):
    console.set_up_notes(20)
    open_with(["fp16", "int4", "int8"])
    assert "; to write some that can: python 03 --precision int8 --alignment-heads\n" in capsys.readouterr().err


def test_graphs_that_were_asked_for_and_do_not_know_are_an_error(open_with):
    with pytest.raises(LabError, match="int8 graphs of whisper-nano cannot tell when a word was said") as caught:
        open_with(["int8", "fp32"], "int8")
    assert caught.value.remedy == "write graphs that can: python 03 --precision int8 --alignment-heads"


# People --------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def people():
    """(benchmarks/speakers.py, the corpus, its rows)"""
    if not (corpus := os.environ.get("WHISPER_LAB_CORPUS")):
        pytest.skip("WHISPER_LAB_CORPUS names no folder with recordings of people")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    measure = importlib.import_module("speakers")
    return measure, Path(corpus), measure.read(Path(corpus))


@pytest.fixture(scope="module")
def lab(store, people):
    from whisper_lab.speakers import encoder, models, voice

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHISPER_LAB_WEIGHTS", str(store))
        return voice.SpeechDetector(models.obtain("silero-vad")), encoder.SpeakerEncoder(models.obtain("campplus"), 1)


def test_two_or_three_readers_are_told_apart(people, lab):
    measure, corpus, rows = people
    readers, _ = measure.groups(rows)
    found = [measure.judge(lab, str(seed), *measure.join(corpus, readers, 100 + seed)) for seed in range(4)]
    wrong = sum(row["missed_s"] + row["false_alarm_s"] + row["confused_s"] for row in found)
    assert wrong / sum(row["judged_s"] for row in found) <= 0.10, found
    assert sum(row["found"] == row["speakers"] for row in found) >= 3, found


def test_meetings(people, lab):
    measure, corpus, rows = people
    meetings = [row for row in rows if "rttm" in row]
    if not meetings:
        pytest.skip("the corpus has no recording with turns")
    for row in meetings:
        said = measure.judge(lab, row["file"], audio.load(corpus / row["file"]).samples,
                             turns.read_rttm(corpus / row["rttm"]))
        assert said["der"] <= 0.35, said
