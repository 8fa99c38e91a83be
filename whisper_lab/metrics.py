"""How good, how fast, how exact: word errors with their alignment, real-time factor, error in decibels, repetition.

    from whisper_lab.metrics import aligned_rows, word_errors
    errors = word_errors("turn on the light", "turn the lights")
    errors.wer                                  # 0.5: one deletion and one substitution in four words
    print("\n".join(aligned_rows(errors)))
"""

import functools
import importlib.util
import math
import statistics
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whisper_lab.console import WIDTH, LabError
from whisper_lab.languages import WITHOUT_SPACES

NORMALIZER = "basic (lower case, no punctuation)"
NORMALIZER_ENGLISH = "Whisper's English normalizer (numerals as figures, no contractions, no titles)"
NORMALIZER_CHARACTERS = "basic (lower case, no punctuation, each character a word)"
APOSTROPHES = frozenset("'\u2019\u02bc")  # inside words these vanish: don't = dont; other punctuation is a space


@dataclass(frozen=True)
class Errors:
    """A hypothesis compared with its reference, word by word, after normalization. All fields can be written as JSON.

    `wer` = (substitutions + insertions + deletions) / reference_words; above 1 where much was made up. With an empty
    reference it is 0 for an empty hypothesis; for any other it has no value: it is None, `reason` says so, and
    `insertions` counts the words made up. (jiwer returns the number of insertions there, which is not a rate.)
    `cer` is the same for characters, spaces between words included.
    """

    wer: float | None
    cer: float | None
    substitutions: int
    insertions: int
    deletions: int
    hits: int
    reference_words: int
    hypothesis_words: int
    reference_characters: int
    normalizer: str
    alignment: list[tuple[str, str | None, str | None]]  # ("=", "S", "I" or "D"; word of reference; of hypothesis)
    reason: str | None = None  # why wer and cer are None


def normalize(text: str) -> str:
    """Text as it is compared: NFKC, lower case, no punctuation or symbols, single spaces; letters keep their accents.

    Numbers stay as they are written: "two" and "2" differ. The same for every language, so that no rule of one
    language flatters a model in it. Not Whisper's own for languages other than English (BasicTextNormalizer): that one
    leaves out what is in brackets and makes two words of "don't".
    """
    kept = []
    for character in unicodedata.normalize("NFKC", text).lower():
        kind = unicodedata.category(character)
        if character in APOSTROPHES or kind == "Cf":  # Cf: invisible marks such as a byte-order mark
            continue
        kept.append(" " if kind[0] in "PSZC" else character)
    return " ".join("".join(kept).split())


@functools.cache
def english_normalizer() -> Callable[[str], str]:
    """Whisper's own for English (Radford et al. 2022, appendix C), as transformers ships it: "thirty" and "30" are one.

    Without the checkpoint's list of British spellings: "colour" and "color" stay two words. Its file is read by itself:
    it needs nothing of its package, which would bring in PyTorch, 300 MB and seconds.
    """
    package = importlib.util.find_spec("transformers")
    file = Path(package.submodule_search_locations[0]) / "models" / "whisper" / "english_normalizer.py"
    spec = importlib.util.spec_from_file_location("whisper_english_normalizer", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EnglishTextNormalizer({})


def word_errors(reference: str, hypothesis: str, language: str | None = None) -> Errors:
    """Compare two texts with jiwer (Levenshtein distance).

    language: en compares after Whisper's English normalizer, to which a number is the same in words and in figures,
    where transformers is installed; languages without spaces are compared character by character. `normalizer` of the
    result says how it was.
    """
    import jiwer

    english = language == "en" and importlib.util.find_spec("transformers") is not None
    clean = english_normalizer() if english else normalize
    reference, hypothesis = clean(reference), clean(hypothesis)
    unspaced = language in WITHOUT_SPACES
    spaced = [" ".join(text.replace(" ", "")) if unspaced else text for text in (reference, hypothesis)]
    words = jiwer.process_words(*spaced)
    counts = {"substitutions": words.substitutions, "insertions": words.insertions, "deletions": words.deletions,
              "hits": words.hits, "reference_words": len(words.references[0]),
              "hypothesis_words": len(words.hypotheses[0]), "reference_characters": len(reference)}
    wer, cer, reason = float(words.wer), float(jiwer.process_characters(reference, hypothesis).cer), None
    if hypothesis and not reference:
        wer, cer, reason = None, None, "the reference has no words: a rate of nothing is undefined, see insertions"
    name = NORMALIZER_ENGLISH if english else NORMALIZER_CHARACTERS if unspaced else NORMALIZER
    return Errors(wer, cer, **counts, normalizer=name, alignment=_alignment(words), reason=reason)


def pooled(every: Sequence[Errors]) -> Errors:
    """Errors of several texts together: sums over sums, not the mean of rates."""
    counts = {key: sum(getattr(one, key) for one in every) for key in (
        "substitutions", "insertions", "deletions", "hits", "reference_words", "hypothesis_words",
        "reference_characters")}
    wrong, words = counts["substitutions"] + counts["insertions"] + counts["deletions"], counts["reference_words"]
    characters = counts["reference_characters"]
    cer = sum((one.cer or 0) * one.reference_characters for one in every)
    return Errors(wrong / words if words else None, cer / characters if characters else None, **counts,
                  normalizer="; ".join(dict.fromkeys(one.normalizer for one in every)),
                  alignment=[row for one in every for row in one.alignment],
                  reason=None if words else "the references have no words")


def _alignment(words) -> list[tuple[str, str | None, str | None]]:
    """jiwer's chunks, one tuple for each word."""
    reference, hypothesis = words.references[0], words.hypotheses[0]
    marks = {"equal": "=", "substitute": "S", "insert": "I", "delete": "D"}
    rows: list[tuple[str, str | None, str | None]] = []
    for chunk in words.alignments[0]:
        left = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        right = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        for i in range(max(len(left), len(right))):
            rows.append((marks[chunk.type], left[i] if left else None, right[i] if right else None))
    return rows


def aligned_rows(errors: Errors, width: int = WIDTH) -> list[str]:
    """Reference above hypothesis above marks (S, I, D under the words concerned), folded at `width` columns.

        REF: turn on the light
        HYP: turn ** the lights
                  D      S
    """
    from rich.cells import cell_len, set_cell_size  # knows that some characters are two columns wide

    lines, row = [], ["REF:", "HYP:", "    "]
    for mark, left, right in errors.alignment:
        columns = max(cell_len(left or ""), cell_len(right or ""))
        if cell_len(row[0]) + 1 + columns > width and len(row[0]) > len("REF:"):
            lines, row = lines + row, ["REF:", "HYP:", "    "]
        cells = (left or "*" * columns, right or "*" * columns, "" if mark == "=" else mark)
        row = [f"{line} {set_cell_size(cell, columns)}" for line, cell in zip(row, cells, strict=True)]
    return [line.rstrip() for line in lines + row]


def real_time_factor(inference_s: float, audio_s: float) -> float | None:
    """Seconds of computing for one second of sound; below 1 keeps up with a speaker. None where there is no sound."""
    return inference_s / audio_s if audio_s > 0 else None


def sqnr_db(reference: np.ndarray, test: np.ndarray) -> float | None:
    """Signal to quantization noise: 20 log10(|x| / |x - y|) in dB over all elements; 6 dB more is one bit better.

    None where the ratio has no value: both are identical (no noise), or the reference is zero everywhere (no signal).
    A gate must tell these apart with np.array_equal. Raises ValueError for different shapes, LabError for NaN or
    infinity: a broken graph must not pass for a perfect one.
    """
    x, y = np.asarray(reference, np.float64), np.asarray(test, np.float64)
    if x.shape != y.shape:
        raise ValueError(f"shapes differ: {list(x.shape)} and {list(y.shape)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise LabError("values to compare hold NaN or infinity",
                       "look for an overflow in half precision (above 65504) or a quantization scale of zero")
    signal, noise = np.linalg.norm(x.ravel()), np.linalg.norm((x - y).ravel())
    return float(20 * np.log10(signal / noise)) if signal > 0 and noise > 0 else None


# How far to trust a mean ----------------------------------------------------------------------------------------------

# A mean and how far to trust it: Student's t interval, without SciPy.
#
# interval([1.02, 0.98, 1.01])    # {"mean": 1.0033, "sd": 0.0208, "low": 0.9516, "high": 1.055, "n": 3}

FEWEST_FOR_INTERVAL = 3  # values


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> dict:
    """Mean, standard deviation and confidence interval of independent repeats; what is not known is None.

    mean -+ t(n - 1) x sd / sqrt(n), t being wider than the normal distribution's 1.96 where repeats are few (Student
    1908). Two values have no interval: t is 12.7 there, and two times of a second that differ by a tenth would lie
    "between 0.4 and 1.6". Of values that are all 0 or more, as times and joules are, no mean is below 0.
    """
    n = len(values)
    mean = statistics.fmean(values) if n else None
    deviation = statistics.stdev(values) if n > 1 else None
    if n < FEWEST_FOR_INTERVAL:
        return {"mean": mean, "sd": deviation, "low": None, "high": None, "n": n}
    half = t_quantile(n - 1, confidence) * deviation / math.sqrt(n)
    low = mean - half if min(values) < 0 else max(0.0, mean - half)
    return {"mean": mean, "sd": deviation, "low": low, "high": mean + half, "n": n}


def share_interval(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Between what the true share lies, 0..1, where `hits` out of `n` were counted: Clopper and Pearson's interval.

    The lower bound is the share at which so many hits or more have a chance of (1 - confidence) / 2; at the upper bound
    so many or fewer have it. Never narrower than it says, and right at 0 and at n, where the normal distribution gives
    no width. Raises ValueError where hits out of n cannot be. Source: C. Clopper and E. Pearson, Biometrika 26 (1934).
    """
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"{hits} out of {n} is no share")
    tail = (1 - confidence) / 2
    return _lowest_share(hits, n, tail), 1 - _lowest_share(n - hits, n, tail)


def _lowest_share(hits: int, n: int, tail: float) -> float:
    """The share at which `hits` or more out of n have the probability `tail`, by halving; 0 where there are none."""
    low, high = 0.0, 1.0
    for _ in range(50 if hits else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_least(hits, n, middle) < tail else (low, middle)
    return low


def _at_least(hits: int, n: int, share: float) -> float:
    """The probability of `hits` or more out of n, each of them with the probability `share`, between 0 and 1."""
    ways = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(hits, n + 1)]
    return sum(math.exp(way + k * math.log(share) + (n - k) * math.log1p(-share))
               for k, way in enumerate(ways, start=hits))


def t_quantile(freedom: int, confidence: float = 0.95) -> float:
    """The t that Student's distribution with `freedom` degrees stays within (two-sided) with this confidence.

    With t = sqrt(freedom) tan(angle), the density becomes cos(angle) ** (freedom - 1): smooth and finite, so that
    Simpson's rule and halving find the quantile to nine digits.
    """
    whole, low, high = _area(freedom, math.pi / 2), 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _area(freedom, middle) < confidence * whole:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _area(freedom: int, angle: float, steps: int = 400) -> float:
    """Integral of cos(x) ** (freedom - 1) from 0 to `angle`, by Simpson's rule."""
    width = angle / steps
    heights = [max(math.cos(i * width), 0.0) ** (freedom - 1) for i in range(steps + 1)]
    return width / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]))
