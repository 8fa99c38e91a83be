"""When was each word said? From the decoder's cross-attention, by dynamic time warping. NumPy only.

Some heads of the decoder's cross-attention look at the piece of sound that they are writing down. Their weights, one
row per token and one column per encoder position, are sharpened and averaged; the cheapest monotone path through them
says at which position each token begins. The idea is that of openai-whisper's `timing.py`; path: Sakoe and Chiba
1978.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from whisper_lab.languages import WITHOUT_SPACES
from whisper_lab.loudness import levels_dbfs
from whisper_lab.tokens import TokenRules

OPENING = "\"'“‘¿([{-"  # punctuation that belongs to the word after it
CLOSING = "\"'.。,，!！?？:：;”’)]}、…"  # punctuation that belongs to the word before it

FRAME = 0.01  # s
SHORTEST_PAUSE = 0.12  # s; longer than the silence before a plosive
DEEP, NEAR_FLOOR = 35.0, 6.0  # dB below the loudest frames, above the softest
REACH = 0.3  # s; by how much the attention may miss the edge of a word


@dataclass
class Word:
    """A word with its times in the recording, s."""

    text: str
    start: float
    end: float
    tokens: list[int]


def word_times(attention: np.ndarray, prompt_length: int, segments: Sequence[Sequence[int]], tokenizer,
               rules: TokenRules, duration: float, language: str | None = None) -> list[list[Word]]:
    """Words of each segment of one window with their times, s from the window's start.

    attention: float32 [heads, sequence, positions], the alignment heads' weights for the sequence prompt + text +
    end; segments: their text tokens (no timestamps); duration: s of sound in the window, the rest being padding.
    """
    if not any(len(tokens) for tokens in segments):
        return [[] for _ in segments]
    positions = max(1, min(attention.shape[-1], round(duration / rules.timestamp_step)))
    # The row that read token k - 1 is the one that wrote token k: rows from the prompt's last to the text's last.
    rows = sharpen(attention[:, :, :positions], rules.median_filter_width)[prompt_length - 1:-1]
    times = token_starts(rows) * rules.timestamp_step  # [tokens + 1]: the last is the end token's
    found, position = [], 0
    for tokens in segments:  # a word never reaches from one segment into the next
        words = []
        for text, group in words_of(tokens, tokenizer, language):
            start, end = times[position], times[position + len(group)]
            words.append(Word(text, float(start), float(max(start, min(end, duration))), group))
            position += len(group)
        found.append(attach_punctuation(words))
    return found


def pauses(samples: np.ndarray, rate: int) -> np.ndarray:
    """The stretches of float32 [n] in which no one speaks, at least SHORTEST_PAUSE long: s from its start, [m, 2].

    A frame is soft where it lies DEEP below the loudest frames, or hardly above the softest.
    """
    size = round(FRAME * rate)
    frames = samples[:len(samples) // size * size].reshape(-1, size)
    if not len(frames):
        return np.zeros((0, 2))
    levels = levels_dbfs(frames)
    softest, loudest = np.percentile(levels, [5, 95])
    soft = levels < max(loudest - DEEP, min(softest + NEAR_FLOOR, (softest + loudest) / 2))
    edges = np.flatnonzero(np.diff(np.pad(soft, 1).astype(np.int8))).reshape(-1, 2)
    return edges[np.diff(edges, axis=1)[:, 0] * FRAME >= SHORTEST_PAUSE - 1e-9] * FRAME


def snap(words: list[Word], quiet: np.ndarray) -> list[Word]:
    """The words of a window with their edges at the pauses: the attention says in which pause a word ends, or near
    which, and the sound says where that pause begins and ends. quiet: [m, 2] as of `pauses`, on the words' clock."""
    starts, ends = [word.start for word in words], [word.end for word in words]
    for i in range(len(words)):
        if (pause := _pause_at(starts[i], starts[i - 1] if i else -np.inf, ends[i], quiet)) is not None:
            starts[i] = pause[1]
            if i:
                ends[i - 1] = pause[0]
    if words and (pause := _pause_at(ends[-1], starts[-1], np.inf, quiet)) is not None:
        ends[-1] = pause[0]
    return [Word(word.text, float(start), float(max(start, end)), word.tokens)
            for word, start, end in zip(words, starts, ends, strict=True)]


def _pause_at(edge: float, low: float, high: float, quiet: np.ndarray) -> np.ndarray | None:
    """The pause nearest to an edge, within REACH, of those that leave something of the words on both sides of it: one
    begins at `low`, the other ends at `high`."""
    away = np.maximum(quiet[:, 0] - edge, edge - quiet[:, 1])
    near = quiet[(away <= REACH) & (quiet[:, 0] > low) & (quiet[:, 1] < high)]
    return near[np.maximum(near[:, 0] - edge, edge - near[:, 1]).argmin()] if len(near) else None


def sharpen(attention: np.ndarray, width: int) -> np.ndarray:
    """[heads, tokens, positions] -> [tokens, positions]: standardised over tokens, filtered over time, averaged."""
    mean, deviation = attention.mean(axis=1, keepdims=True), attention.std(axis=1, keepdims=True)
    standard = (attention - mean) / np.maximum(deviation, 1e-6)
    return median_filter(standard, width).mean(axis=0)


def median_filter(values: np.ndarray, width: int) -> np.ndarray:
    """Median over `width` (odd) neighbours along the last axis, the ends reflected; unchanged where too short."""
    half = width // 2
    if half == 0 or values.shape[-1] <= half:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1)
    return np.partition(windows, half, axis=-1)[..., half]


def token_starts(weights: np.ndarray) -> np.ndarray:
    """The position at which each row (token) of weights [tokens, positions] begins; int [tokens]."""
    rows, columns = warp(-weights)
    first = np.diff(rows, prepend=-1) > 0  # where the path steps on to the next token
    return columns[first]


def warp(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dynamic time warping: the cheapest path of steps right, down or diagonal through cost [rows, columns].

    Returns the row and the column of each point of the path, from (0, 0) to the opposite corner. The table is filled
    one anti-diagonal at a time: its cells do not depend on each other, so NumPy does them at once.
    """
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    step = np.zeros((n + 1, m + 1), np.int8)  # 0 diagonal, 1 down (next row), 2 right (next column)
    total[0, 0], step[0, :], step[:, 0] = 0, 2, 1
    for diagonal in range(2, n + m + 1):
        i = np.arange(max(1, diagonal - m), min(n, diagonal - 1) + 1)
        j = diagonal - i
        both, down, right = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        step[i, j] = np.where((both < down) & (both < right), 0, np.where((down < both) & (down < right), 1, 2))
        total[i, j] = cost[i - 1, j - 1] + np.choose(step[i, j], [both, down, right])
    path, i, j = [], n, m
    while i > 0 or j > 0:
        path.append((i - 1, j - 1))
        i, j = i - (step[i, j] != 2), j - (step[i, j] != 1)
    rows, columns = np.array(path[::-1]).T
    return rows, columns


def words_of(tokens: Sequence[int], tokenizer, language: str | None = None) -> list[tuple[str, list[int]]]:
    """Split text tokens into words: at spaces, or at every complete character in languages written without them."""
    words: list[tuple[str, list[int]]] = []
    for text, group in characters_of(tokens, tokenizer):
        inside = language not in WITHOUT_SPACES and not text[:1].isspace() and not _is_punctuation(text)
        if words and (words[-1][0].isspace() or (inside and not _is_punctuation(words[-1][0]))):
            words[-1] = (words[-1][0] + text, words[-1][1] + group)
        else:
            words.append((text, group))
    return words


def characters_of(tokens: Sequence[int], tokenizer) -> list[tuple[str, list[int]]]:
    """Group tokens until they decode to whole characters: a byte-level token may hold a part of one only."""
    groups: list[tuple[str, list[int]]] = []
    group: list[int] = []
    for token in tokens:
        group.append(int(token))
        text = tokenizer.decode(group)
        if "\ufffd" not in text:
            groups.append((text, group))
            group = []
    if group:  # the sound, or the token limit, ended in the middle of a character
        groups.append((tokenizer.decode(group), group))
    return groups


def attach_punctuation(words: list[Word]) -> list[Word]:
    """Give punctuation to the word it belongs to; strip the spaces around words; drop what is left empty."""
    merged: list[Word] = []
    opening: Word | None = None
    for word in words:
        bare = word.text.strip()
        if opening is not None:
            word = Word(opening.text + word.text.lstrip(), opening.start, word.end, opening.tokens + word.tokens)
            bare, opening = word.text.strip(), None
        if merged and bare and all(char in CLOSING for char in bare) and not _opens(word.text):
            last = merged[-1]
            merged[-1] = Word(last.text + bare, last.start, last.end, last.tokens + word.tokens)
        elif bare and all(char in OPENING for char in bare):
            opening = Word(bare, word.start, word.end, word.tokens)
        else:
            merged.append(Word(bare, word.start, word.end, word.tokens))
    return [word for word in [*merged, *([opening] if opening else [])] if word.text]


def _opens(text: str) -> bool:
    """A quotation mark after a space opens what follows."""
    return text[:1].isspace() and text.strip() in OPENING


def _is_punctuation(text: str) -> bool:
    bare = text.strip()
    # An apostrophe or a hyphen inside a word (don't, twenty-one) is not punctuation of its own.
    return bool(bare) and all(char in (OPENING + CLOSING) and char not in "'’-" for char in bare)
