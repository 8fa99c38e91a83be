"""Text that the model itself finds unlikely gets a warning; text that it knows gets none, wherever it is shown."""

import importlib
import io
import json
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.benchmark_files import module
from whisper_lab import audio, checkpoints, confidence, decoding, flags, transcribe
from whisper_lab.console import LabError
from whisper_lab.decoding import Options
from whisper_lab.metrics import word_errors
from whisper_lab.spoken import grammar
from whisper_lab.stream.hypothesis import Unit
from whisper_lab.stream.screen import Screen
from whisper_lab.transcribe import Segment

ROOT = Path(__file__).resolve().parent.parent
NANO, MEDIA = "whisper-nano", ROOT / "media"
# "scientists have measured how quickly the glacier melts", synthesized with flite's voice rms
FREE_SPEECH = ROOT / "tests" / "fixtures" / "free-speech.ogg"
ESPEAK = shutil.which("espeak-ng")


@pytest.fixture(scope="module")
def runtime(nano):
    from whisper_lab.torch_whisper import TorchWhisper

    return TorchWhisper(checkpoints.load_model(checkpoints.resolve("nano")), nano)


def spoken(text: str, folder: Path, voice: str = "en-us") -> Path:
    """The text by espeak-ng; skips where it is not installed."""
    if not ESPEAK:
        pytest.skip("no espeak-ng here: apt-get install espeak-ng")
    path = folder / "spoken.wav"
    subprocess.run([ESPEAK, "-v", voice, "-w", path, text], check=True, capture_output=True)
    return path


def segment(likely: float | None, start: float = 0.0) -> Segment:
    return Segment(start, start + 1, "text", [1], text_logprob=likely)


# What is known and what is not ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("timestamps", [False, True])
def test_no_warning_for_what_nano_knows(runtime, references, timestamps):
    for name, reference in references.items():
        options = Options(language=reference["language"], timestamps=timestamps)
        found = transcribe.transcribe(runtime, audio.load(MEDIA / name).samples, options)
        assert found.segments and confidence.warning(found.segments, NANO) is None, name


@pytest.mark.parametrize("options", [Options(), Options(timestamps=True), Options(beams=3, timestamps=True),
                                     Options(temperatures=(0.4,))])
def test_a_warning_for_free_speech(runtime, options):
    found = transcribe.transcribe(runtime, audio.load(FREE_SPEECH).samples, options)
    assert found.text and "unlikely" in confidence.warning(found.segments, NANO)


@pytest.mark.parametrize("voice, text", [("en-us", "the museum keeps letters that sailors wrote to their families"),
                                         ("de", "das wetter war gestern besonders schlecht")])
def test_a_warning_for_another_synthesizer_and_another_language(runtime, tmp_path, voice, text):
    found = transcribe.transcribe(runtime, audio.load(spoken(text, tmp_path, voice)).samples)
    assert found.text and confidence.warning(found.segments, NANO)


# The number ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("timestamps", [False, True])
def test_the_search_and_a_pass_over_its_text_agree(random_runtimes, noise_features, timestamps):
    runtime = random_runtimes[0]
    cross = runtime.encode(noise_features)
    options = Options(language="en", timestamps=timestamps, max_tokens=40)
    for beams in (1, 3):
        for i, result in enumerate(decoding.decode_encoded(runtime, cross, 3, replace(options, beams=beams))):
            if len(result.tokens) == options.max_tokens:
                continue  # cut off: the pass would count an end that was never written
            one = runtime.select(cross, np.array([i]))
            each = confidence.logprobs(runtime, one, result.prompt, result.tokens, timestamps)
            assert result.text_logprob == pytest.approx(
                confidence.mean_of_text(runtime.rules, each, result.tokens), abs=1e-4)
            assert result.logprobs == pytest.approx(each.tolist(), abs=1e-4)
            if beams == 1:  # a score of beams is in the same unit, but of the sum over all tokens
                assert result.avg_logprob == pytest.approx(each.mean(), abs=1e-4)


def test_timestamps_take_no_part_and_the_end_does(runtime):
    rules = runtime.rules
    tokens = [rules.timestamp_begin, 5, 6, rules.timestamp_begin + 9]
    assert confidence.mean_of_text(rules, [-9.0, -1.0, -2.0, -9.0, -3.0], tokens) == pytest.approx(-2.0)
    assert confidence.mean_of_text(rules, [-9.0, -1.0, -2.0, -9.0], tokens) == pytest.approx(-1.5)  # no end


def test_a_live_hypothesis_is_judged_as_a_whole(runtime, monkeypatch):
    """What was committed before counts with the rest: with and without it the number is the same."""
    from whisper_lab.features import log_mel
    from whisper_lab.stream.hypothesis import Recognizer

    monkeypatch.setattr(type(runtime), "has_attention", False, raising=False)
    samples = audio.load(FREE_SPEECH).samples
    features, recognizer = log_mel(samples, runtime.spec), Recognizer(runtime, "en")
    whole = recognizer.recognize(features, len(samples) / audio.SAMPLE_RATE)
    again = recognizer.recognize(features, len(samples) / audio.SAMPLE_RATE, given=whole.units[:3])
    assert [unit.text for unit in again.units] == [unit.text for unit in whole.units]
    assert again.text_logprob == pytest.approx(whole.text_logprob, abs=1e-4)
    assert confidence.is_doubtful(whole.text_logprob, NANO)


# Limits and words ----------------------------------------------------------------------------------------------------

def test_limits_are_those_that_were_measured():
    measured = json.loads((ROOT / "benchmarks" / "doubt.json").read_text(encoding="utf-8"))["models"]
    assert {NANO, confidence.OTHERS} <= set(measured)
    for name, found in measured.items():
        assert confidence.limit_of(name) == found["limit"]
        assert found["rates"]["both"]["caught"]["share"] > 0.5 > 5 * found["rates"]["both"]["false_alarms"]["share"]


def test_a_checkpoint_that_was_not_measured_gets_the_limit_of_base():
    assert confidence.limit_of("whisper-large-v3") == confidence.limit_of("whisper-base") != confidence.limit_of(NANO)


def test_the_warning_says_how_much_of_the_text_it_means():
    low, high = confidence.limit_of(NANO) - 0.1, confidence.limit_of(NANO) + 0.1
    assert confidence.warning([segment(high), segment(None)], NANO) is None and confidence.warning([], NANO) is None
    assert "this text unlikely" in confidence.warning([segment(low)], NANO)
    some = confidence.warning([segment(high), segment(low, 31.04), segment(low, 40)], NANO)
    assert "2 of the 3 segments, the first at 31.0 s" in some


def test_a_loop_is_doubtful_however_likely():
    loop = replace(segment(0.0, 3.0), compression_ratio=confidence.LOOPS + 1)
    assert "repeats itself from 3.0 s on" in confidence.warning([segment(0.0), loop], NANO)
    assert confidence.warning([replace(segment(0.0), compression_ratio=confidence.LOOPS)], NANO) is None


# Where it is shown ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("more", [[], ["--timestamps", "word"], ["--api", "pipeline", "--beams", "2"]])
def test_02_warns_below_the_text_and_says_what_nano_knows(call_script, nano, tmp_path, more):
    out = tmp_path / "out.json"
    status, _, err = call_script("02-whisper-huggingface.py", "--model", "nano", "--threads", 1, "--language", "en",
                                 FREE_SPEECH, MEDIA / "kitchen.wav", "--json", out, *more)
    assert status == 0 and "free-speech.ogg: whisper-nano itself finds" in err and "kitchen.wav: whisper" not in err
    assert "whisper-nano knows: digits" in err and 'read aloud: "four seven' in err
    assert err.count("; check --language, speak closer to the microphone, or take a larger checkpoint with") == 1
    clips = {clip["file"]: clip["segments"] for clip in json.loads(out.read_text(encoding="utf-8"))["clips"]}
    assert all(entry["doubtful"] for entry in clips["free-speech.ogg"])
    assert not any(entry["doubtful"] for entry in clips["kitchen.wav"])


def test_the_graphs_say_the_same_as_02(nano_export, tmp_path, capsys, monkeypatch):
    from whisper_lab import __main__

    assert __main__.main([str(FREE_SPEECH), "--model", "nano", "--model-dir", str(nano_export / "graphs"),
                          "--threads", "1", "--json", str(tmp_path / "out.json")]) == 0
    err = capsys.readouterr().err
    assert "itself finds this text unlikely" in err and "whisper-nano knows: digits" in err
    assert "; name the language with --language, speak closer to the microphone, or take a larger checkpoint" in err
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["clips"][0]["segments"][0]["doubtful"]


def test_01_page_warns_and_offers_sentences(nano, tmp_path):
    from whisper_lab.record.listener import PYTORCH, Listener

    listener = Listener("nano", str(tmp_path), "en", 1)
    assert "four seven two nine one eight" in listener.introduction()
    samples = audio.load(FREE_SPEECH).samples
    heard = listener.transcribe(samples, PYTORCH)
    assert heard.text and heard.warning.startswith("whisper-nano itself finds") and "Read aloud:" in heard.warning
    assert ". What may help: check the language, speak closer to the microphone, or start this page with a larger " \
           "--model. whisper-nano knows" in heard.warning
    assert "probability" not in listener.transcribe(samples, PYTORCH, "").how  # that of the language vouches for none
    heard = listener.transcribe(audio.load(MEDIA / "kitchen.wav").samples, PYTORCH, "")
    assert heard.warning is None and "detected with probability" in heard.how


def test_what_may_help_is_said_once_a_run_and_fits_the_checkpoint(caplog):
    from whisper_lab import transcripts
    from whisper_lab.transcribe import Transcript

    low = confidence.limit_of("whisper-base") - 0.1
    results = transcripts.Results([], transcripts.Output("json"), {"name": "whisper-base"}, {"language": None})
    for name in "ab":
        results.add(MEDIA / f"{name}.wav", Transcript([segment(low)]), 1.0)
    told = [record.getMessage() for record in caplog.records if "unlikely" in record.getMessage()]
    assert len(told) == 2 and [text.count("larger checkpoint") for text in told] == [1, 0]
    assert confidence.remedy("tiny.en").startswith("speak closer")  # it knows one language


def test_a_page_of_another_model_has_no_such_introduction(tmp_path):
    from whisper_lab.record.listener import Listener

    assert Listener("base", str(tmp_path), None, 1).introduction() == ""


def test_live_text_is_explained_once_and_a_pipe_gets_text_only(capsys):
    out, low = io.StringIO(), confidence.limit_of(NANO) - 0.1
    flags.parse(flags.parser(""), [])
    screen = Screen(out, model=NANO)
    for text, likely in ((" nonsense", low), (" sense", low + 0.2), (" more", low), ("", low)):
        screen.close([Unit(text, [1])] if text else [], likely)
    assert out.getvalue() == "nonsense\nsense\nmore\n"
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2 and "it may be invented" in err[0] and "; name the language with --language, " in err[0]
    assert err[1] == 'warning: "more": unlikely as well'


def test_09_reports_which_utterances_are_doubtful(nano_export, tmp_path, capsys):
    script = importlib.import_module("09-stream-microphone")
    assert script.main(["--model", "nano", "--model-dir", str(nano_export / "graphs"), "--threads", "1", "--language",
                        "en", "--no-batch", "--output-dir", str(tmp_path), str(FREE_SPEECH),
                        str(MEDIA / "kitchen.wav")]) == 0
    err = capsys.readouterr().err
    assert "it may be invented" in err and "whisper-nano knows: digits" in err
    clips = json.loads((tmp_path / "stream-whisper-nano.json").read_text(encoding="utf-8"))["clips"]
    assert clips[0]["doubtful"] and all(clips[0]["doubtful"]) and clips[1]["doubtful"] == [False]


# What nano knows -----------------------------------------------------------------------------------------------------

def test_the_sentences_to_read_are_sentences_of_the_grammar():
    for language, sentences in confidence.knowledge_of(NANO).sentences.items():
        draw = random.Random(0)
        words = {word for _ in range(20_000) for word in grammar.sentence(draw, language).text.split()}
        assert sentences and all(set(sentence.split()) <= words for sentence in sentences)
    assert confidence.knowledge_of("whisper-base") is None and confidence.knowledge_in_words("whisper-base") == ""


def test_read_by_a_synthesizer_they_are_understood(runtime, tmp_path):
    for language, sentences in confidence.knowledge_of(NANO).sentences.items():
        for text in sentences:
            sound = audio.load(spoken(text, tmp_path, {"en": "en-us", "nl": "nl"}[language])).samples
            found = transcribe.transcribe(runtime, sound, Options(language=language))
            assert word_errors(text, found.text).wer == 0, found.text


def test_the_limit_is_counted_on_texts_of_another_search(tmp_path, capsys):
    """`check` sets no limit: right and invented texts against the one that stands in doubt.json."""
    doubt = module("doubt")
    rows = [{"clip": i, "wer": wer, "-text_logprob": unlikely, "compression_ratio": 1.0, "beams": beams}
            for i, (wer, unlikely, beams) in enumerate([(0.0, 0.1, 1), (0.2, 0.6, 5), (0.5, 0.9, 5), (0.9, 0.7, 5),
                                                        (1.0, 0.2, 1), (None, 0.1, 1)])]
    heard, kept = tmp_path / "auto.json", tmp_path / "doubt.json"
    heard.write_text(json.dumps({"model": {"name": "whisper-base", "beams": "auto"}, "rows": rows}))
    kept.write_text(json.dumps({"models": {"whisper-base": {"limit": -0.5}}}))
    assert doubt.main(["check", str(heard), "--output", str(kept)]) == 0
    found = json.loads(kept.read_text())["models"]["whisper-base"]
    assert found["limit"] == -0.5
    auto = found["beams_auto"]
    assert (auto["clips"], auto["right"], auto["invented"], auto["searched_again"]) == (5, 2, 2, 3)
    assert auto["false_alarms"]["share"] == auto["caught"]["share"] == 0.5
    heard.write_text(json.dumps({"model": {"name": "whisper-tiny", "beams": "auto"}, "rows": rows}))
    with pytest.raises(LabError, match="has no limit of whisper-tiny"):
        doubt.main(["check", str(heard), "--output", str(kept)])


def test_a_number_and_its_limit_never_look_the_same(monkeypatch):
    monkeypatch.setattr(confidence, "limit_of", lambda model: -0.2204)
    assert confidence.figures(-0.5, "x") == "mean log-probability -0.50, doubtful below -0.22"
    assert confidence.figures(-0.2235, "x") == "mean log-probability -0.224, doubtful below -0.220"
    assert confidence.figures(-0.2206, "x") == "mean log-probability -0.221, doubtful below -0.220"
