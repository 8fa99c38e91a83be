"""Metrics: worked examples by hand, and the edges where a rate has no value."""

import dataclasses
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from whisper_lab.console import LabError
from whisper_lab.decoding import compression_ratio
from whisper_lab.metrics import (
    NORMALIZER,
    aligned_rows,
    normalize,
    pooled,
    real_time_factor,
    share_interval,
    sqnr_db,
    word_errors,
)

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("text, expected", [
    ("Turn ON, the  light!", "turn on the light"),
    ("Don\u2019t - it's", "dont its"),
    ("twenty-one", "twenty one"),
    ("Café, naïve; één", "café naïve één"),
    ("cafe\u0301", "café"),  # one letter or letter and accent: the same
    ("\ufeffhello\n\tworld\u00a0!", "hello world"),
    ("co\u00adoperate", "cooperate"),  # a soft hyphen is invisible
    ("５ ﬁsh", "5 fish"),
    ("50 % of $3.20", "50 of 3 20"),
    ("नमस्ते", "नमस्ते"),  # vowel signs are part of the word
    ("... !", ""),
])
def test_normalize(text, expected):
    assert normalize(text) == normalize(expected) == expected


def counts(errors):
    return errors.substitutions, errors.insertions, errors.deletions, errors.hits


def test_word_errors_by_hand():
    errors = word_errors("Turn on the light, please, today.", "turn the lights please now today")
    assert counts(errors) == (1, 1, 1, 4)
    assert (errors.reference_words, errors.hypothesis_words) == (6, 6)
    assert errors.wer == 3 / 6
    # of 30 characters "on " is missing (3), "s" and "now " are too many (1 + 4)
    assert errors.cer == pytest.approx(8 / 30)
    assert errors.alignment == [
        ("=", "turn", "turn"), ("D", "on", None), ("=", "the", "the"), ("S", "light", "lights"),
        ("=", "please", "please"), ("I", None, "now"), ("=", "today", "today"),
    ]
    assert errors.normalizer == "basic (lower case, no punctuation)" and errors.reason is None
    json.dumps(dataclasses.asdict(errors), allow_nan=False)


def test_alignment_rebuilds_both_texts():
    reference, hypothesis = "one two three four five six", "zero one too three three five six seven"
    errors = word_errors(reference, hypothesis)
    assert " ".join(left for _, left, _ in errors.alignment if left) == reference
    assert " ".join(right for _, _, right in errors.alignment if right) == hypothesis
    marks = [mark for mark, _, _ in errors.alignment]
    assert tuple(map(marks.count, "SID=")) == counts(errors)


@pytest.mark.parametrize("reference, hypothesis, wer, cer, expected", [
    ("", "", 0.0, 0.0, (0, 0, 0, 0)),
    ("...", "!", 0.0, 0.0, (0, 0, 0, 0)),
    ("", "thank you", None, None, (0, 2, 0, 0)),
    ("one two", "", 1.0, 1.0, (0, 0, 2, 0)),
    ("one", "one one one", 2.0, 8 / 3, (0, 2, 0, 1)),
])
def test_edges(reference, hypothesis, wer, cer, expected):
    errors = word_errors(reference, hypothesis)
    assert (errors.wer, errors.cer) == (wer, cer if cer is None else pytest.approx(cer))
    assert counts(errors) == expected
    assert (errors.reason is None) == (wer is not None)
    json.dumps(dataclasses.asdict(errors), allow_nan=False)


def test_numbers_in_english_are_the_same_in_words_and_figures(monkeypatch):
    errors = word_errors("Turn thirty lights on, don't wait", "turn 30 lights on do not wait", "en")
    assert errors.wer == 0.0 and "English" in errors.normalizer
    assert word_errors("thirty", "30", "nl").wer == word_errors("thirty", "30").wer == 1.0
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no transformers, as on a small device
    errors = word_errors("thirty", "30", "en")
    assert errors.wer == 1.0 and errors.normalizer == NORMALIZER


def test_languages_without_spaces_count_characters():
    errors = word_errors("今天天气很好。", "今天天氣很好", language="zh")
    assert counts(errors) == (1, 0, 0, 5) and errors.wer == errors.cer == pytest.approx(1 / 6)
    assert "each character a word" in errors.normalizer
    assert word_errors("今天天气很好。", "今天天氣很好").wer == 1.0


def test_several_texts_are_pooled_over_their_words():
    """One wrong word of one and none of nine: a tenth, not the half that the mean of both rates is."""
    found = pooled([word_errors("one", "two", "de"), word_errors("a b c d e f g h i", "a b c d e f g h i", "nl")])
    assert (found.wer, found.substitutions, found.reference_words) == (0.1, 1, 10)
    assert found.normalizer == NORMALIZER
    found = pooled([word_errors("four seven", "47.", "en"), word_errors("", "made up", "nl")])
    assert (found.wer, found.insertions, found.reference_words) == (2.0, 2, 1)  # of "47" and nothing
    assert found.normalizer.count(";") == 1 and pooled([word_errors("", "a")]).wer is None


def test_aligned_rows():
    rows = aligned_rows(word_errors("turn on the light please today", "turn the lights please now today"))
    assert rows == [
        "REF: turn on the light  please *** today",
        "HYP: turn ** the lights please now today",
        "          D      S             I",
    ]


def test_aligned_rows_fold_and_line_up():
    errors = word_errors("今天 one two three four", "今天 ones two three for", None)
    rows = aligned_rows(errors, width=16)
    assert rows == [
        "REF: 今天 one", "HYP: 今天 ones", "          S",
        "REF: two three", "HYP: two three", "",
        "REF: four", "HYP: for", "     S",
    ]
    assert max(map(len, aligned_rows(word_errors("on the light " * 20, "on a light " * 20)))) <= 80  # any terminal
    assert aligned_rows(word_errors("今天 one", "a one")) == ["REF: 今天 one", "HYP: a    one", "     S"]
    assert aligned_rows(word_errors("", "")) == ["REF:", "HYP:", ""]
    assert aligned_rows(word_errors("extraordinarily long", ""), width=10)[0] == "REF: extraordinarily"


def test_real_time_factor():
    assert real_time_factor(2.0, 8.0) == 0.25
    assert real_time_factor(2.0, 0.0) is None


def test_sqnr():
    assert sqnr_db([3.0, 4.0], [3.0, 4.5]) == pytest.approx(20.0)  # 5 / 0.5
    signal = np.random.default_rng(0).uniform(-1, 1, 100_000)
    bits = [sqnr_db(signal, np.round(signal * 2**n) / 2**n) for n in (7, 8)]
    assert bits[1] - bits[0] == pytest.approx(6.02, abs=0.05)
    assert sqnr_db(np.float16([[60000.0]]), np.float16([[30000.0]])) == pytest.approx(6.02, abs=0.01)


def test_sqnr_without_a_value():
    assert sqnr_db([1.0, 2.0], [1.0, 2.0]) is None
    assert sqnr_db([0.0, 0.0], [1.0, 2.0]) is None
    with pytest.raises(ValueError, match="shapes differ"):
        sqnr_db([1.0], [1.0, 2.0])
    for broken in ([np.nan, 1.0], [np.inf, 1.0]):
        with pytest.raises(LabError, match="NaN or infinity"):
            sqnr_db([1.0, 1.0], broken)


def test_compression_ratio_tells_loops_from_speech():
    assert compression_ratio("the quick brown fox jumps over the lazy dog while it rains in the old town") < 1.5
    assert compression_ratio("thank you. " * 30) > 2.4
    assert compression_ratio("") == 0.0


RIGHT = {
    "ru": "Чтобы прослушать следующее сообщение, нажмите 6. Чтобы прослушать это сообщение ещё раз, нажмите 5. "
          "Чтобы прослушать предыдущее сообщение, нажмите 4. Чтобы удалить это сообщение, нажмите 7.",
    "el": "Για να ακούσετε το επόμενο μήνυμα, πατήστε 6. Για να ακούσετε ξανά το μήνυμα, πατήστε 5. "
          "Για να ακούσετε το προηγούμενο μήνυμα, πατήστε 4. Για να διαγράψετε το μήνυμα, πατήστε 7.",
    "hi": "अगला संदेश सुनने के लिए 6 दबाएँ। संदेश फिर से सुनने के लिए 5 दबाएँ। पिछला संदेश सुनने के लिए 4 दबाएँ।",
    "en": "To hear the next message, press 6. To hear the message again, press 5. To hear the previous message, "
          "press 4. To delete this message, press 7."}


@pytest.mark.parametrize("language", RIGHT)
def test_a_right_text_is_no_loop_in_any_script(language):
    """UTF-8 has several bytes for these letters, alike in part."""
    text = RIGHT[language]
    assert compression_ratio(text) < 2.4 < compression_ratio(f"{text[:20]} " * 12)
    if language == "en":
        assert compression_ratio(text) == len(text) / len(zlib.compress(text.encode()))


def test_many_different_characters_are_packed_too():
    text = "".join(map(chr, range(0x4e00, 0x4e00 + 300)))
    assert 0 < compression_ratio(text) < 2.4


def test_needs_neither_torch_nor_transformers():
    code = ("import sys; from whisper_lab.metrics import aligned_rows, word_errors;"
            "aligned_rows(word_errors('a', 'b'));"
            "assert not {'torch', 'transformers', 'torchaudio'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


# Shares --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("hits, n, low, high", [
    (10, 10, 0.6915, 1), (0, 10, 0, 0.3085), (1, 10, 0.0025, 0.4450), (5, 10, 0.1871, 0.8129),
    (299, 300, 0.9816, 0.9999),
])  # Clopper and Pearson's own charts; the first two are 0.025 ** (1 / 10)
def test_the_interval_of_a_share(hits, n, low, high):
    assert share_interval(hits, n) == pytest.approx((low, high), abs=6e-5)


def test_the_interval_of_a_share_holds_the_share_and_shrinks_with_n():
    widths = []
    for n in (8, 80, 800):
        low, high = share_interval(7 * n // 8, n)
        assert low < 7 / 8 < high
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert share_interval(3, 9, 0.99)[0] < share_interval(3, 9)[0]


@pytest.mark.parametrize("hits, n", [(-1, 3), (4, 3), (0, 0)])
def test_what_is_no_share_has_no_interval(hits, n):
    with pytest.raises(ValueError, match="no share"):
        share_interval(hits, n)
