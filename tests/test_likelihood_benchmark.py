"""benchmarks/likelihood.py: the right text given to every pair of whisper-nano, the comparison, the table."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.benchmark_files import module
from whisper_lab import confidence, files, transcribe
from whisper_lab.decoding import Options, decode
from whisper_lab.features import log_mel

MEDIA = Path(__file__).resolve().parent.parent / "media"


@pytest.fixture(scope="module")
def likelihood():
    return module("likelihood")


@pytest.fixture(scope="module")
def fp32(likelihood, nano_export):
    return likelihood.open_graphs(nano_export / "graphs", "whisper-nano", "fp32", 1)


@pytest.fixture(scope="module")
def clips(likelihood):
    return {clip.id: clip for clip in likelihood.corpora.read(str(MEDIA))[0]}


@pytest.fixture(scope="module")
def measured(likelihood, nano_export, tmp_path_factory):
    folder = tmp_path_factory.mktemp("likelihood")
    assert likelihood.main(["--corpus", str(MEDIA), "--model", "nano", "--graphs", str(nano_export / "graphs"),
                            "--output-dir", str(folder), "--quiet"]) == 0
    return files.read_json(folder / "likelihood.json")


def judged(likelihood, runtime, text):
    return likelihood.compared({"fp32": runtime}, text)["fp32"]


def test_every_pair_is_given_every_text(likelihood, measured, clips):
    assert list(measured["parts"]) == [likelihood.ENGLISH, likelihood.OTHERS, likelihood.LONG]
    english, dutch, long = measured["parts"].values()
    assert english["windows"] + dutch["windows"] == len(clips) - 1 and long["windows"] > 1
    for part in measured["parts"].values():
        assert list(part["graphs"]) == list(likelihood.GRAPHS) and part["tokens"] > part["windows"]
        assert -8 < part["graphs"]["fp32"]["logprob"] < 0 and part["graphs"]["fp32"]["difference"] is None
        assert abs(part["graphs"]["fp16"]["difference"]["nats"]) < 0.02
        assert all(row["difference"]["nats"] != 0 for name, row in part["graphs"].items() if name != "fp32")
        apart = {name: row["divergence"]["nats"] for name, row in part["graphs"].items() if name != "fp32"}
        assert 0 < apart["fp16"] < min(apart["int8"], apart["int4"]) < 0.2


def test_another_text_is_less_likely(likelihood, fp32, clips):
    digits, kitchen = (likelihood.texts_of(fp32, clips[name])[0] for name in ("digits.wav", "kitchen.wav"))
    right, wrong = (judged(likelihood, fp32, text) for text in (digits, replace(digits, tokens=kitchen.tokens)))
    assert len(right.likely) == len(digits.tokens) + 1 and right.likely.mean() > -0.3 > wrong.likely.mean()
    assert (right.divergence == 0).all()  # from itself


def test_tokens_are_given_one_by_one_as_the_search_gives_them(likelihood, nano_export, clips):
    """Together they would share a scale in int8: each would hear of the loudest."""
    int8 = likelihood.open_graphs(nano_export / "graphs", "whisper-nano", "int8", 1)
    text = likelihood.texts_of(int8, clips["digits.wav"])[0]
    features = log_mel(text.samples, int8.spec)[None]
    (found,) = decode(int8, features, Options("en", temperatures=(0.0,)))
    cross = int8.encode(features)
    logits = likelihood.given(int8, cross, found.prompt, [*found.tokens, int8.rules.end])
    each = confidence.of_rows(int8.rules, logits, [*found.tokens, int8.rules.end], False)
    assert confidence.mean_of_text(int8.rules, each, found.tokens) == pytest.approx(found.text_logprob, abs=1e-6)


def test_of_a_long_recording_it_is_what_a_transcript_holds(likelihood, fp32, clips):
    texts = likelihood.texts_of(fp32, clips["long.flac"])
    found = transcribe.transcribe(fp32, likelihood.audio.load(clips["long.flac"].path).samples,
                                  Options("en", temperatures=(0.0,), audio_context="full"), batch_size=1,
                                  condition_on_previous=False)
    assert " ".join(fp32.rules.text(fp32.tokenizer, text.tokens) for text in texts).split() == found.text.split()
    assert all(text.timestamps and judged(likelihood, fp32, text).likely.mean() > -0.5 for text in texts)


def test_what_the_model_never_writes_is_left_out(likelihood, fp32, clips, nano_export, tmp_path, monkeypatch):
    original, odd = likelihood.texts_of, fp32.rules.suppress[0]
    monkeypatch.setattr(likelihood, "texts_of", lambda runtime, clip: [
        replace(text, tokens=[*text.tokens, odd] if clip.id == "digits.wav" else text.tokens)
        for text in original(runtime, clip)])
    assert likelihood.main(["--corpus", str(MEDIA), "--model", "nano", "--limit", "3", "--output-dir", str(tmp_path),
                            "--graphs", str(nano_export / "graphs"), "--quiet"]) == 0
    found = files.read_json(tmp_path / "likelihood.json")
    assert found["corpus"]["left_out"] == 1 and found["parts"][likelihood.ENGLISH]["windows"] == 2


def test_what_one_pair_never_writes_is_left_out_of_all(likelihood, nano_export, tmp_path, monkeypatch):
    """The rules of timestamps look at the logits: what one pair may write next another may not."""
    original = likelihood.compared

    def compared(runtimes, text):
        found = original(runtimes, text)
        found["int8"].likely[0] = -np.inf if text.samples.size == smallest else found["int8"].likely[0]
        return found

    smallest = min(likelihood.audio.load(clip.path).samples.size for clip in likelihood.corpora.read(str(MEDIA))[0][:3])
    monkeypatch.setattr(likelihood, "compared", compared)
    assert likelihood.main(["--corpus", str(MEDIA), "--model", "nano", "--limit", "3", "--output-dir", str(tmp_path),
                            "--graphs", str(nano_export / "graphs"), "--quiet"]) == 0
    found = files.read_json(tmp_path / "likelihood.json")
    assert found["corpus"]["left_out"] == 1 and found["parts"][likelihood.ENGLISH]["graphs"]["int8"]["logprob"] > -8


def test_the_interval_is_of_windows_and_the_mean_of_tokens(likelihood):
    counts = np.array([1, 3] * 10)
    found = likelihood.mean(-0.5 * counts, counts)
    assert (found["nats"], found["low"], found["high"]) == pytest.approx((-0.5, -0.5, -0.5))
    found = likelihood.mean(np.array([4.0, 0.0] * 10), counts)
    assert found["nats"] == pytest.approx(1.0) and found["low"] < 1 < found["high"]
    assert likelihood.mean(counts[:9] * 1.0, counts[:9])["low"] is None


def test_the_table_has_a_line_for_each_pair(likelihood, measured):
    lines = likelihood.table(measured).splitlines()
    count = len(likelihood.GRAPHS)
    assert len(lines) == (2 + count) + 1 + (2 + count - 1) + 2 and lines[2].startswith("| fp32 | -")
    assert lines[count + 5].startswith("| fp16 | 0.0")
    assert "0 left out" in lines[-1]
