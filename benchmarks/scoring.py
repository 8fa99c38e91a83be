"""Word errors as the field counts them, pooled over clips, and whether a difference is more than chance.

    score = Scorer(checkpoint_folder)
    counts = score(clip, "what a system wrote")              # words, substitutions, insertions, deletions, stretches
    difference([a, b], [c, d], draws=2000, seed=0)           # of two systems on the same clips, with its interval

Sources: Radford et al. 2022, appendix C (the normalizers); Bisani and Ney 2004, "Bootstrap estimates for confidence
intervals in ASR performance evaluation" (resample what was said, and compare both systems on the same draw).
"""

import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whisper_lab.decoding import compression_ratio
from whisper_lab.languages import WITHOUT_SPACES

LOOP = 2.4  # compression ratio; the threshold of openai-whisper (transcribe.py)
WINDOW_WORDS = 80  # what is said in 30 s: whatever was not a loop compresses better, too, the longer it is
STRETCH = 50  # words; a long recording is drawn in stretches of so many: three clips make no distribution
FEWEST = 10  # units; of fewer a bootstrap draws the same few sums again and again, and its interval is too narrow
DRAWS = 2000
LEVEL = 0.95  # of an interval
DIGITS = {word: str(digit) for digit, word in enumerate("zero one two three four five six seven eight nine".split())}
DIGITS |= {"oh": "0", "o": "0"}


@dataclass(frozen=True)
class Counts:
    """One clip of one system. `stretches`: (words, errors) of each stretch of the reference."""

    words: int
    substitutions: int
    insertions: int
    deletions: int
    loops: int
    stretches: tuple[tuple[int, int], ...]

    @property
    def errors(self) -> int:
        return self.substitutions + self.insertions + self.deletions


class Scorer:
    """Whisper's English normalizer for English, its basic one for other languages, both as transformers ships them."""

    def __init__(self, folder: Path):
        """folder: the checkpoint's, for its list of British and American spellings (normalizer.json)."""
        from whisper_lab.checkpoints import import_transformers

        import_transformers()
        from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

        spellings, source = read_spellings(folder)
        self.english, self.basic = EnglishTextNormalizer(spellings), BasicTextNormalizer()
        self.letters = BasicTextNormalizer(split_letters=True)
        self.description = (
            f"Whisper's EnglishTextNormalizer for English (spellings: {source}), its BasicTextNormalizer for other "
            "languages, both from transformers; languages without spaces letter by letter; strings of digits digit by "
            "digit, whichever way they are written")

    def words(self, text: str, language: str, digits: bool = False) -> list[str]:
        """The words that are compared."""
        if digits:
            return [digit for word in self.basic(text).split() for digit in as_digits(word)]
        if language == "en":
            return self.english(text).split()
        return (self.letters if language in WITHOUT_SPACES else self.basic)(text).split()

    def __call__(self, clip, text: str) -> Counts:
        """The errors of `text` on a corpora.Clip."""
        reference = self.words(clip.digits or clip.text, clip.language, bool(clip.digits))
        errors = align(reference, self.words(text, clip.language, bool(clip.digits)))
        kinds = [sum(row) for row in zip(*errors, strict=True)] if errors else [0, 0, 0]
        return Counts(len(reference), *kinds, loops=loops(text), stretches=stretches(len(reference), errors))


def read_spellings(folder: Path) -> tuple[dict[str, str], str]:
    """British -> American spelling, and where it was found: the checkpoint, else the package openai-whisper, else none.

    The package is read, not imported.
    """
    if (path := folder / "normalizer.json").is_file():
        return json.loads(path.read_text(encoding="utf-8")), "the checkpoint's normalizer.json"
    try:
        files = importlib.metadata.files("openai-whisper") or []
        path = next(Path(file.locate()) for file in files if file.name == "english.json")
        return json.loads(path.read_text(encoding="utf-8")), "openai-whisper's english.json"
    except (importlib.metadata.PackageNotFoundError, StopIteration, OSError):
        return {}, "none found: British and American spelling differ"


def as_digits(word: str) -> list[str]:
    """A number as its digits, an English digit as a figure; any other word as it is.

    Whisper's English normalizer does not serve here: to it, digits in a row are one number, whose zeros it may drop.
    """
    return list(word) if word.isdigit() else [DIGITS.get(word, word)]


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[int, int, int]]:
    """Substitutions, insertions and deletions at each word of the reference, by the shortest edit (jiwer).

    An insertion counts at the word before it, at the first word where there is none before. An empty reference has one
    place, so that words made up there are counted.
    """
    import jiwer

    rows = np.zeros((max(len(reference), 1), 3), int)
    if not reference:
        rows[0, 1] = len(hypothesis)
        return [tuple(row) for row in rows.tolist()]
    found = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    for chunk in found.alignments[0]:
        if chunk.type == "insert":
            rows[max(chunk.ref_start_idx - 1, 0), 1] += chunk.hyp_end_idx - chunk.hyp_start_idx
        elif chunk.type != "equal":
            rows[chunk.ref_start_idx:chunk.ref_end_idx, 0 if chunk.type == "substitute" else 2] += 1
    return [tuple(row) for row in rows.tolist()]


def stretches(words: int, errors: list[tuple[int, int, int]]) -> tuple[tuple[int, int], ...]:
    """(words, errors) of parts of about STRETCH words each; a short clip is one part."""
    parts = np.array_split(np.array([sum(row) for row in errors]), max(1, round(words / STRETCH)))
    return tuple((min(len(part), words), int(part.sum())) for part in parts)


def loops(text: str) -> int:
    """Stretches of text, a window's worth each, that go round in circles."""
    words = text.split()
    pieces = [" ".join(words[i:i + WINDOW_WORDS]) for i in range(0, len(words), WINDOW_WORDS)]
    return sum(compression_ratio(piece) > LOOP for piece in pieces)


def wer(counts: Sequence[Counts]) -> float | None:
    """Errors over words, pooled; None where there are no words."""
    words = sum(count.words for count in counts)
    return sum(count.errors for count in counts) / words if words else None


def difference(system: Sequence[Counts], reference: Sequence[Counts], draws: int = DRAWS, seed: int = 0) -> dict | None:
    """WER of a system minus that of the reference on the same clips, in points, with the interval of a bootstrap.

    Both are drawn together: a hard clip is hard for both, so that what varies is what differs. `low` and `high` are
    None where there are fewer than FEWEST clips and stretches of clips to draw from. None without words.
    """
    pairs = [(words, errors, others) for one, other in zip(system, reference, strict=True)
             for (words, errors), (_, others) in zip(one.stretches, other.stretches, strict=True)]
    words, errors, others = np.array(pairs, float).reshape(-1, 3).T
    if not words.sum():
        return None
    unequal = sum(one != other for one, other in zip(system, reference, strict=True))
    found = {"points": float(100 * (errors - others).sum() / words.sum()), "low": None, "high": None,
             "units": len(words), "unequal_clips": unequal}
    if len(words) < FEWEST:
        return found
    low, high = interval(100 * (errors - others), words, draws, seed)
    return found | {"low": low, "high": high}


def interval(sums: np.ndarray, counts: np.ndarray, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """Between what the pooled mean sum(sums) / sum(counts) lies at LEVEL, by a bootstrap over their rows."""
    drawn = np.random.default_rng(seed).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=draws)
    heard = drawn @ counts
    heard = np.where(heard > 0, heard, np.nan)  # a draw of clips without words says nothing
    low, high = np.nanquantile((drawn @ sums) / heard, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def beyond_chance(found: dict | None) -> bool:
    """The interval is there and does not hold zero."""
    return found is not None and found["low"] is not None and (found["low"] > 0 or found["high"] < 0)


def judgement(found: dict) -> str:
    """What an interval says, in words."""
    if not found["unequal_clips"]:
        return "no error differs"
    if found["low"] is None:
        return "too little speech to tell"
    if beyond_chance(found):
        return f"{'worse' if found['points'] > 0 else 'better'} by more than chance"
    return "chance explains it"
