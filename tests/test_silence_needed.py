"""How much silence a checkpoint needs: the rule, on a model that loops where it is given too little."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from whisper_lab import external_data
from whisper_lab.decoding import Result
from whisper_lab.export import run, silence
from whisper_lab.features import FeatureSpec

SPEC = FeatureSpec(80, 400, 160, 16_000, 480_000)
LONG, SHORT_WINDOW = SPEC, FeatureSpec(80, 400, 160, 16_000, 48_000)


def result(text="a few words", ended=True):
    tokens = [1, 2, 3]
    return Result(tokens, text, -0.1, 0.0, 0.0, 1.0, "en", None, [9], -0.1, [-0.1] * (len(tokens) + ended))


def heard(count, spec=LONG, understood=True, whole=None):
    """`count` sounds of 2 s."""
    return [silence.Sound(f"sound {i}", np.zeros(32_000, np.float32), "en", whole or result(), understood)
            for i in range(count)]


@pytest.fixture
def graph(monkeypatch):
    """A function (loops_below s, less likely by nats) -> a model of which `silence` is told so."""
    def make(loops_below=0.0, nats=lambda silence_s: 0.0, spec=LONG):
        asked = []
        model = SimpleNamespace(spec=spec, takes_short_windows=True, asked=asked,
                                rules=SimpleNamespace(max_positions=448))
        model.encode = lambda features: asked.append(features.shape[2] / 100 - 2) or asked[-1]  # s of silence
        model.select = lambda cross, rows: cross
        monkeypatch.setattr(silence, "decode_encoded",
                            lambda graph, cross, count, *_: [result(ended=cross >= loops_below)] * count)
        monkeypatch.setattr(silence.confidence, "logprobs", lambda graph, cross, *_: np.full(4, -0.1 - nats(cross)))
        return model
    return make


@pytest.mark.parametrize("needed, taken", [(0, 1), (1, 1.5), (1.1, 2), (2, 3), (2.1, 4), (3.9, 6), (6.1, 12)])
def test_the_first_that_does_not_loop_and_a_margin(graph, needed, taken):
    found = silence.choose(graph(loops_below=needed), heard(8))
    assert found.silence_s == taken and f"a margin: {taken} s" in found.reason


@pytest.mark.parametrize("needed", [8.1, 100])
def test_one_that_needs_more_than_was_tried_hears_whole_windows_and_says_why(graph, needed):
    found = silence.choose(graph(loops_below=needed), heard(8))
    assert found.silence_s is None and "none passed" in found.reason and "loops ('sound 0'" in found.reason


def test_a_text_that_is_much_less_likely_does_not_pass(graph):
    found = silence.choose(graph(nats=lambda silence_s: 0.06 if silence_s < 3 else 0.04), heard(8))
    assert found.silence_s == 4  # 3 passes


def test_a_text_that_loops_in_the_whole_window_is_not_held_against_a_shorter_one(graph):
    sounds = heard(8) + heard(1, understood=False, whole=result(ended=False))
    never = graph()
    silence.decode_encoded = lambda graph, cross, count, *_: [result()] * count
    assert silence.choose(never, sounds).silence_s == 1


def test_nothing_is_shortened_where_nothing_is_understood(graph):
    asked = graph()
    found = silence.choose(asked, heard(5) + heard(20, understood=False))
    assert found.silence_s is None and "5 of 25" in found.reason and not asked.asked


def test_nothing_is_tried_that_is_no_shorter_than_the_window(graph):
    asked = graph(spec=SHORT_WINDOW)
    found = silence.choose(asked, heard(8))
    assert found.silence_s is None and not asked.asked


def test_sounds_of_one_length_are_decoded_together_a_few_at_a_time():
    lengths = [3] * (silence.TOGETHER + 1) + [4, 5, 5]
    made = [silence.Sound(str(i), np.zeros(length, np.float32), "en") for i, length in enumerate(lengths)]
    groups = silence.together(made)
    assert [len(group) for group in groups] == [silence.TOGETHER, 1, 1, 2] and sum(groups, []) == made


def test_random_weights_are_not_asked(graph, capsys):
    assert silence.find({}, None, "whisper-x", trained=False).silence_s is None


def test_the_sounds_are_short_and_of_known_languages():
    spec, rules = FeatureSpec(80, 400, 160, 16_000, 480_000), SimpleNamespace(languages={"en": 1})
    made = list(silence.sounds(spec, rules, 0))
    lengths = [len(sound.samples) / 16_000 for sound in made]
    assert min(lengths) == 1.5 and max(lengths) <= 10 and {sound.language for sound in made} == {"en"}
    assert all(sound.samples.dtype == np.float32 and np.isfinite(sound.samples).all() for sound in made)
    assert len({sound.name for sound in made}) == len(made) > 30
    again = list(silence.sounds(spec, rules, 0))
    assert all(np.array_equal(one.samples, other.samples) for one, other in zip(made, again, strict=True))


def test_what_was_tried_is_said_without_a_negative_zero():
    said = str(silence.Trial(6.0, [], None, -0.0001, -0.001))
    assert said == "6 s: text less likely by 0.000 nats a token, its end by 0.00, 0 loops"


# What an earlier export found -----------------------------------------------------------------------------------------

@pytest.fixture
def earlier(nano_export, tmp_path) -> Path:
    """A folder with a decoder that an earlier export wrote."""
    shutil.copy(nano_export / "graphs" / "whisper-nano_decoder_int8.onnx", tmp_path)
    return tmp_path


def test_graphs_of_the_same_weights_are_believed(earlier, monkeypatch):
    facts = external_data.metadata(earlier / "whisper-nano_decoder_int8.onnx")
    monkeypatch.setattr(silence, "find", lambda *_: pytest.fail("the sounds were heard again"))
    export = SimpleNamespace(settings=SimpleNamespace(output_dir=earlier, seed=0), facts=dict(facts))
    run.Export.find_silence(export, {})
    assert export.facts == facts and "as whisper-nano_decoder_int8.onnx says" in export.silence.reason


@pytest.mark.parametrize("other", ["weights", "seed", "name", "damage", "no seal", "no graph"])
def test_other_graphs_are_not(earlier, other):
    path = earlier / "whisper-nano_decoder_int8.onnx"
    facts, content = external_data.metadata(path), bytearray(path.read_bytes())
    if other == "damage":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[:-1] if other == "no seal" else b"nothing" if other == "no graph" else content)
    facts |= {"weights_sha256": "0" * 64} if other == "weights" else {"model": "whisper-x"} if other == "name" else {}
    assert silence.known(earlier, facts, silence.method(1 if other == "seed" else 0)) is None
