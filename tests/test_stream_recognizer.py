"""The last hypothesis of an utterance: what is tried where the text looks wrong, and what is said about it."""

import numpy as np
import pytest

from whisper_lab import console, decoding
from whisper_lab.decoding import FALLBACK_TEMPERATURES, Result
from whisper_lab.features import FeatureSpec
from whisper_lab.stream import hypothesis
from whisper_lab.stream.hypothesis import Recognizer, Unit
from whisper_lab.tokens import TokenRules

BEAMS = "beams"


class Words:
    """A tokenizer of words: token n is ` wn`."""

    def decode(self, tokens):
        return "".join(f" w{token}" for token in tokens)


class Runtime:
    """Hears nothing: the tests say what a search finds."""

    has_attention = takes_short_windows = False
    tokenizer = Words()

    def __init__(self, folder):
        self.rules, self.spec = TokenRules.from_folder(folder), FeatureSpec.from_folder(folder)
        self.shapes = []

    def encode(self, features):
        self.shapes.append(features.shape)
        return features

    def select(self, cross, audios):
        return cross[audios]


@pytest.fixture
def runtime(nano):
    return Runtime(nano)


def listening(runtime, monkeypatch, results, language="nl", heard=("en", 0.97), **settings):
    """A Recognizer that finds results[temperature]: (tokens, logprob, compression ratio); the searches: temperatures,
    and BEAMS."""
    tried, warnings = [], []

    def search(runtime, cross, prompts, options, given, leave):
        (temperature,) = options.temperatures
        tried.append(temperature if options.beams == 1 else BEAMS)
        tokens, logprob, ratio = results[temperature]
        tokens = [*given, *tokens]
        return [Result(tokens, "", logprob, 0.1, temperature, ratio, None, None, [], None, [-0.1] * len(tokens))]

    monkeypatch.setattr(decoding, "_search", search)
    monkeypatch.setattr(hypothesis, "detect_language", lambda *_: [{"nl": 1 - heard[1], heard[0]: heard[1]}])
    monkeypatch.setattr(console, "warn", warnings.append)
    return Recognizer(runtime, language, **settings), tried, warnings


FEATURES = np.zeros((64, 1000), np.float32)
GOOD, UNSURE, CIRCLES = ([1, 2], -0.2, 1.0), ([3], -1.6, 1.0), ([4] * 9, -0.1, 5.0)


def heard(recognizer, final, given=()):
    found = recognizer.recognize(FEATURES, 4.0, given, final=final)
    return [unit.text for unit in found.units], found.doubtful


def test_the_last_hypothesis_is_tried_again_where_it_looks_wrong(runtime, monkeypatch):
    recognizer, tried, warnings = listening(runtime, monkeypatch, {0.0: CIRCLES, 0.2: UNSURE, 0.4: GOOD})
    assert heard(recognizer, final=True) == ([" w1", " w2"], False) and not warnings
    assert tried == [0.0, BEAMS, 0.2, 0.4]
    assert recognizer.encoder_runs == 1  # the sound is heard once
    tried.clear()
    assert heard(recognizer, final=False)[1] is True and tried == [0.0]  # a later one will come


def test_a_language_that_is_not_spoken_is_written_all_the_same_and_named(runtime, monkeypatch):
    results = dict.fromkeys(FALLBACK_TEMPERATURES, UNSURE) | {0.6: ([5], -1.2, 1.0), 0.8: CIRCLES}
    recognizer, tried, warnings = listening(runtime, monkeypatch, results)
    assert heard(recognizer, final=True) == ([" w5"], False)  # the likeliest of those that do not repeat themselves
    assert tried == [0.0, BEAMS, *FALLBACK_TEMPERATURES[1:]]
    assert heard(recognizer, final=True)[0] == [" w5"] and len(warnings) == 1  # said once
    assert "unlikely in Dutch" in warnings[0] and "--language en" in warnings[0]


@pytest.mark.parametrize("settings", [{"heard": ("en", 0.4)}, {"language": None}])
def test_no_language_is_named_where_none_is_surer(runtime, monkeypatch, settings):
    recognizer, _, warnings = listening(runtime, monkeypatch, dict.fromkeys(FALLBACK_TEMPERATURES, UNSURE), **settings)
    assert heard(recognizer, final=True) == ([" w3"], False) and not warnings


def test_what_goes_in_circles_at_every_temperature_is_left_out_and_said(runtime, monkeypatch):
    results = dict.fromkeys(FALLBACK_TEMPERATURES, CIRCLES)
    recognizer, _, warnings = listening(runtime, monkeypatch, results, heard=("nl", 1.0))
    assert heard(recognizer, final=True)[1] is True
    assert len(warnings) == 1 and "4.0 s are left out" in warnings[0]


def test_without_fallback_no_higher_temperature_is_tried(runtime, monkeypatch):
    recognizer, tried, _ = listening(runtime, monkeypatch, {0.0: UNSURE}, fallback=False)
    assert heard(recognizer, final=True) == ([" w3"], False) and tried == [0.0, BEAMS]


def test_a_text_that_is_sure_is_not_searched_by_beams(runtime, monkeypatch):
    recognizer, tried, _ = listening(runtime, monkeypatch, {0.0: GOOD})
    assert heard(recognizer, final=True) == ([" w1", " w2"], False) and tried == [0.0]


@pytest.mark.parametrize("unsure, given, final, searched", [
    (1, 0, False, True),  # the second of five words, which the others wait for
    (1, 2, False, False),  # it stands already
    (2, 0, False, False),  # the last three are held back anyway
    (1, 0, True, False),  # the last hypothesis has limits of its own
    (None, 0, False, False)])
def test_a_text_that_waits_for_a_word_is_searched_by_beams(runtime, monkeypatch, unsure, given, final, searched):
    def search(runtime, cross, prompts, options, prefix, leave):
        tokens, likely = [*prefix, *[1, 2, 3, 4, 6][len(prefix):]], [-0.1] * 5
        if options.beams > 1:
            tokens[1] = 5
        elif unsure is not None:
            likely[unsure] = -1.0
        return [Result(tokens, "", -0.1, 0.1, 0.0, 1.0, None, None, [], -0.1, likely, options.beams)]

    monkeypatch.setattr(decoding, "_search", search)
    recognizer, stands = Recognizer(runtime, "nl"), [Unit(f" w{i}", [i]) for i in (1, 2)][:given]
    words = [unit.text for unit in recognizer.recognize(FEATURES, 4.0, stands, final=final).units]
    assert words == [" w1", " w5" if searched else " w2", " w3", " w4", " w6"]
    assert (recognizer.searched_again, recognizer.encoder_runs) == (searched, 1)


@pytest.mark.parametrize("final", [False, True])
def test_a_text_that_goes_round_while_speech_goes_on_is_not_written_to_its_end(runtime, monkeypatch, final):
    left = []

    def search(runtime, cross, prompts, options, given, leave):
        left.append(leave)
        return [Result([1, 2, 3, 4, 5], "", -0.1, 0.1, 0.0, 1.0, None, None, [], -0.1, [-0.1, -1.0, -0.1, -0.1, -0.1])]

    monkeypatch.setattr(decoding, "_search", search)
    Recognizer(runtime, "nl", fallback=False).recognize(FEATURES, 4.0, final=final)
    assert left == ([True] if final else [True, True])  # greedy, where beams follow; greedy and beams


def test_an_encoder_that_takes_short_windows_is_not_given_the_padding(runtime, monkeypatch):
    recognizer, _, _ = listening(runtime, monkeypatch, {0.0: GOOD})
    runtime.silence_s = 6.0
    heard(recognizer, final=False)
    runtime.takes_short_windows = True
    for seconds in (1.115, 4.0, 4.1):
        recognizer.recognize(FEATURES, seconds)
    assert [shape[2] for shape in runtime.shapes] == [1000, 720, 1000, 1000]  # 6 s behind it, in tenths of a second
    assert recognizer.shortened == 1 and recognizer.heard_again == 0


def test_the_last_hypothesis_is_heard_again_as_a_whole_before_other_searches_are_tried(runtime, monkeypatch):
    recognizer, tried, _ = listening(runtime, monkeypatch, {0.0: CIRCLES, 0.2: GOOD})
    runtime.takes_short_windows, runtime.silence_s = True, 2.0
    assert heard(recognizer, final=False)[1] is True  # doubtful, and a later one will come
    assert [shape[2] for shape in runtime.shapes] == [600] and tried == [0.0]
    assert heard(recognizer, final=True) == ([" w1", " w2"], False)
    assert [shape[2] for shape in runtime.shapes] == [600, 600, 1000] and tried == [0.0, 0.0, 0.0, BEAMS, 0.2]
    assert recognizer.shortened == 2 and recognizer.heard_again == 1


def test_the_checkpoints_own_language_is_used(runtime):
    from dataclasses import replace

    runtime.rules = replace(runtime.rules, language="nl")
    given = [Recognizer(runtime, language).language.code for language in (None, "English")]
    assert given == ["nl", "en"]


def test_sound_without_words_is_no_witness_to_the_language(runtime):
    recognizer = Recognizer(runtime, None)
    for said in (False, True):
        recognizer.language.hear({"en": 0.1, "nl": 0.9})
        recognizer.end_utterance(9.0, said)
        assert bool(recognizer.language._before) is said
