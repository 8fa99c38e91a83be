"""Dynamic time warping, words from byte-level tokens, and the times that come of them."""

import itertools

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from whisper_lab.alignment import (
    Word,
    attach_punctuation,
    characters_of,
    median_filter,
    pauses,
    snap,
    token_starts,
    warp,
    word_times,
    words_of,
)
from whisper_lab.tokens import TokenRules


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (3, 4), (4, 3)])
def test_warp_finds_the_cheapest_path(shape):
    """Against every monotone path there is."""
    def paths(i, j):
        if (i, j) == (shape[0] - 1, shape[1] - 1):
            yield [(i, j)]
            return
        for down, right in ((1, 1), (1, 0), (0, 1)):
            if i + down < shape[0] and j + right < shape[1]:
                yield from ([(i, j), *rest] for rest in paths(i + down, j + right))

    for seed in range(5):
        cost = np.random.default_rng(seed).normal(size=shape)
        cheapest = min(sum(cost[point] for point in path) for path in paths(0, 0))
        rows, columns = warp(cost)
        assert (rows[0], columns[0], rows[-1], columns[-1]) == (0, 0, shape[0] - 1, shape[1] - 1)
        steps = set(zip(np.diff(rows).tolist(), np.diff(columns).tolist(), strict=True))
        assert steps <= {(0, 1), (1, 0), (1, 1)}
        assert cost[rows, columns].sum() == pytest.approx(cheapest)


def test_warp_equals_transformers():
    from whisper_lab.checkpoints import import_transformers

    import_transformers()
    from transformers.models.whisper.generation_whisper import _dynamic_time_warping

    for seed in range(3):
        cost = np.random.default_rng(seed).normal(size=(17, 60)).astype(np.float32).astype(np.float64)
        for found, expected in zip(warp(cost), _dynamic_time_warping(cost), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_median_filter_equals_transformers():
    import torch

    from whisper_lab.checkpoints import import_transformers

    import_transformers()
    from transformers.models.whisper.generation_whisper import _median_filter

    values = np.random.default_rng(0).normal(size=(2, 3, 40)).astype(np.float32)
    expected = _median_filter(torch.from_numpy(values)[None], 7)[0].numpy()
    np.testing.assert_allclose(median_filter(values, 7), expected)
    np.testing.assert_array_equal(median_filter(values[..., :3], 7), values[..., :3])


def test_token_starts_on_a_clear_diagonal():
    weights = np.zeros((4, 40))
    for row, (first, last) in enumerate([(0, 5), (5, 20), (20, 30), (30, 40)]):
        weights[row, first:last] = 1
    np.testing.assert_allclose(token_starts(weights), [0, 5, 20, 30], atol=1)


@pytest.fixture(scope="module")
def byte_tokenizer():
    """One token per byte: every character beyond ASCII is several tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in printable]
    vocabulary = {chr(byte) if byte in printable else chr(256 + moved.index(byte)): byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def words(text, tokenizer, language=None):
    tokens = list(text.encode("utf-8"))
    found = words_of(tokens, tokenizer, language)
    assert list(itertools.chain(*(group for _, group in found))) == tokens  # nothing is lost
    return [word.text for word in attach_punctuation([Word(text, 0, 0, group) for text, group in found])]


@pytest.mark.parametrize(("text", "expected"), [
    (" turn on the light", ["turn", "on", "the", "light"]),
    ("zet de lamp's kapje café naïef", ["zet", "de", "lamp's", "kapje", "café", "naïef"]),
    (' "Hello, world!" (he said) don\'t twenty-one.', ['"Hello,', 'world!"', "(he", "said)", "don't", "twenty-one."]),
    (" 🙂 смех", ["🙂", "смех"]),
    ("", []),
])
def test_words(byte_tokenizer, text, expected):
    assert words(text, byte_tokenizer) == expected


def test_languages_without_spaces_go_by_the_character(byte_tokenizer):
    assert words("你好。世界", byte_tokenizer, "zh") == ["你", "好。", "世", "界"]
    assert words("កខ", byte_tokenizer, "km") == ["ក", "ខ"]  # as word errors are counted


def test_a_character_cut_off_at_the_end_is_kept(byte_tokenizer):
    groups = characters_of(list("é".encode() + b"\xe4\xb8"), byte_tokenizer)
    assert [text for text, _ in groups][0] == "é" and groups[1][1] == [0xE4, 0xB8]


def test_word_times_follow_the_attention(byte_tokenizer, nano):
    rules = TokenRules.from_folder(nano)
    tokens, prompt = list(b" one two"), 4
    attention = np.full((2, prompt + len(tokens) + 1, 500), 1e-3, np.float32)
    for i in range(len(tokens)):  # the row before writes the token: " one" at 1.0 to 1.8 s, " two" at 3.0 to 3.8 s
        at = (50 if i < 4 else 150) + 10 * (i % 4)
        attention[:, prompt - 1 + i, at:at + 10] = 1
    attention[:, -2, 190:] = 0.05  # what writes the end token looks at what follows
    (found,) = word_times(attention, prompt, [tokens], byte_tokenizer, rules, duration=5.0)
    assert [word.text for word in found] == ["one", "two"]
    assert found[1].start == pytest.approx(3.0, abs=0.1) and found[0].end == found[1].start
    assert found[1].end <= 5.0
    assert word_times(attention, prompt, [[]], byte_tokenizer, rules, duration=5.0) == [[]]
    # The same tokens in two segments: the same times; a word does not reach across.
    first, second = word_times(attention, prompt, [tokens[:2], tokens[2:]], byte_tokenizer, rules, duration=5.0)
    assert [word.text for word in first + second] == ["o", "ne", "two"] and second[1].start == found[1].start


# Edges at the pauses that can be heard -------------------------------------------------------------------------------

def spoken(*spans, duration):
    """Noise in each (start, end) span, s; hiss around it."""
    generator = np.random.default_rng(2)
    samples = generator.normal(0, 1e-4, round(duration * 16_000))
    for start, end in spans:
        samples[round(start * 16_000):round(end * 16_000)] += generator.normal(0, 0.1, round(end * 16_000)
                                                                               - round(start * 16_000))
    return samples.astype(np.float32)


def test_pauses_are_where_no_one_speaks():
    found = pauses(spoken((0.5, 1.2), (1.25, 2.0), (2.6, 3.0), duration=4), 16_000)
    np.testing.assert_allclose(found, [(0, 0.5), (2.0, 2.6), (3.0, 4.0)], atol=0.011)  # 50 ms are no pause
    assert len(pauses(np.zeros(0, np.float32), 16_000)) == 0


def test_edges_near_a_pause_move_to_its_ends():
    quiet = np.array([(0.0, 0.5), (2.0, 2.6), (3.0, 4.0)])
    words = [Word("one", 0.3, 1.2, [1]), Word("two", 1.2, 2.75, [2]), Word("three", 2.75, 3.9, [3])]
    assert [(word.start, word.end) for word in snap(words, quiet)] == [(0.5, 1.2), (1.2, 2.0), (2.6, 3.0)]
    assert snap([], quiet) == [] and snap(words, np.zeros((0, 2))) == words


def test_an_edge_far_from_any_pause_stays():
    words = [Word("one", 0.0, 1.0, [1]), Word("two", 1.0, 2.0, [2])]
    assert snap(words, np.array([(1.4, 1.6)])) == words
    # A pause in which a whole word lies is not its edge.
    assert snap([Word("one", 0.5, 0.7, [1])], np.array([(0.4, 0.9)])) == [Word("one", 0.5, 0.7, [1])]
