"""Does the model believe what it wrote? Text that it finds unlikely itself is shown with a warning.

A Whisper always answers in its own words: whisper-nano, which knows little more than digits and household commands,
makes a command out of any sentence. The mean log-probability of the text's tokens, its end counted and timestamps left
out, gives that away, and needs no further computing; but not a text that goes round in a loop, which its compression
ratio tells. benchmarks/doubt.py compared it with twelve other numbers on
clips with known text and wrote the limits in doubt_limits.json; how well they tell right from invented text is in
benchmarks/doubt.json. A limit holds for its checkpoint: a small vocabulary makes small doubts.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whisper_lab import console
from whisper_lab.tokens import TokenRules, logsumexp

LIMITS = Path(__file__).with_name("doubt_limits.json")
LOOPS = 2.4  # compression ratio; openai-whisper's limit; no right text of the benchmark reached it
OTHERS = "whisper-base"  # whose limit any checkpoint gets that has not been measured


@functools.cache
def limits() -> dict[str, float]:
    """Mean log-probability a token below which a text is doubtful, by checkpoint name."""
    return {name: row["limit"] for name, row in json.loads(LIMITS.read_text(encoding="utf-8"))["models"].items()}


def limit_of(model: str) -> float:
    """The limit of a checkpoint, by the name that the lab gives it (`whisper-nano`)."""
    return limits().get(model, limits()[OTHERS])


def is_doubtful(text_logprob: float | None, model: str, compression_ratio: float | None = None) -> bool:
    """Is a text of this mean log-probability to be shown with a warning? None: nothing is known, so no.

    compression_ratio: of the same text (decoding.py). One that goes round in a loop is likely, each round more so.
    """
    loops = compression_ratio is not None and compression_ratio > LOOPS
    return loops or (text_logprob is not None and text_logprob < limit_of(model))


def warning(segments: Sequence, model: str) -> str | None:
    """One line about the segments of a transcript that the model finds unlikely; None: it does not.

    The segments of one window share what is said of it.
    """
    doubtful = [segment for segment in segments if
                is_doubtful(segment.text_logprob, model, segment.compression_ratio)]
    if not doubtful:
        return None
    unlikely = [segment for segment in doubtful if is_doubtful(segment.text_logprob, model)]
    if not unlikely:
        ratio = max(segment.compression_ratio for segment in doubtful)
        return f"{model} repeats itself from {doubtful[0].start:.1f} s on: the text may be invented (compression " \
               f"ratio {ratio:.1f}, doubtful above {LOOPS})"
    lowest = min(segment.text_logprob for segment in unlikely)
    if len(doubtful) == len(segments):
        return of_text(lowest, model)
    which = f"{len(doubtful)} of the {len(segments)} segments, the first at {doubtful[0].start:.1f} s,"
    return f"{model} itself finds {which} unlikely: they may be invented ({figures(lowest, model)})"


def of_text(text_logprob: float, model: str) -> str:
    """The same about one text that is doubtful."""
    return f"{model} itself finds this text unlikely: it may be invented ({figures(text_logprob, model)})"


def remedy(model: str, language: str | None = None) -> str:
    """What may help against an unlikely text, for a command line; language: --language."""
    return ", ".join([*_of_language(model, language, "name the language with --language", "check --language"),
                      "speak closer to the microphone", "or take a larger checkpoint with --model"])


def remedy_on_page(model: str, language: str | None = None) -> str:
    """The same as a sentence for 01's page; language: as chosen there."""
    of_language = _of_language(model, language, "choose the language", "check the language")
    made = ", ".join([*of_language, "speak closer to the microphone", "or start this page with a larger --model"])
    return f"What may help: {made}."


def _of_language(model: str, language: str | None, unknown: str, known: str) -> list[str]:
    """Nothing for a checkpoint that knows one language only."""
    return [] if model.endswith(".en") else [known if language else unknown]


def figures(text_logprob: float, model: str) -> str:
    """`mean log-probability -0.52, doubtful below -0.15`, with as many digits as tell the two apart, up to four."""
    both = text_logprob, limit_of(model)
    digits = next((count for count in (2, 3) if f"{both[0]:.{count}f}" != f"{both[1]:.{count}f}"), 4)
    return f"mean log-probability {both[0]:.{digits}f}, doubtful below {both[1]:.{digits}f}"


# From log-probabilities to one number --------------------------------------------------------------------------------

def mean_of_text(rules: TokenRules, likely: Sequence[float], tokens: Sequence[int]) -> float:
    """The mean of `likely`, one for each token and for the end where there was room, over what is not a timestamp.

    When something was said a model may not know to the hundredth of a second, and yet know what.
    """
    kept = [value for value, token in zip(likely, [*tokens, rules.end], strict=False) if not rules.is_timestamp(token)]
    return float(np.mean(kept)) if kept else 0.0


def logprobs(runtime, cross, prompt: list[int], tokens: list[int], timestamps: bool) -> np.ndarray:
    """Log-probability of each token of a finished text and of its end, float32 [tokens + 1]."""
    rules = runtime.rules
    written = [*tokens, rules.end][:rules.max_positions - len(prompt)]
    sequence = np.array([[*prompt, *written]], np.int64)
    logits = runtime.step(sequence, cross, None)[0][0, len(prompt) - 1:-1]
    return of_rows(rules, logits, written, timestamps)


def of_rows(rules: TokenRules, logits: np.ndarray, written: Sequence[int], timestamps: bool) -> np.ndarray:
    """Log-probability of written[i] by logits[i], float32 [len(written), vocab].

    Tokens that the rules forbid take no part in it, as in the search.
    """
    scores = np.array(logits, np.float32)
    for step in range(len(written)):
        rules.apply(scores[step:step + 1], np.array([written[:step]], np.int64), timestamps)
    return scores[np.arange(len(written)), np.array(written, np.int64)] - logsumexp(scores)


# What a narrow checkpoint knows ---------------------------------------------------------------------------------------

# What a narrow checkpoint knows, for whoever is about to speak to it: one line, and sentences to read aloud.

FILE = Path(__file__).with_name("knows.json")  # also read by edge/web/build.mjs


@dataclass(frozen=True)
class Known:
    """`what` follows "it knows"; `sentences`: by language code."""

    what: str
    sentences: dict[str, list[str]]

    def read_aloud(self, language: str | None = None, most: int = 3) -> str:
        """`"four seven two", "good morning thomas"`: sentences in a language, English where none is named."""
        return ", ".join(f'"{sentence}"' for sentence in self.sentences.get(language or "en", [])[:most])


@functools.cache
def _all() -> dict[str, Known]:
    return {name: Known(**row) for name, row in json.loads(FILE.read_text(encoding="utf-8")).items()}


def knowledge_of(model: str) -> Known | None:
    """What the checkpoint of this name knows; None: any speech, as far as this lab can say."""
    return _all().get(model)


def knowledge_in_words(model: str, language: str | None = None) -> str:
    """For a page: what it knows and what to read aloud, a sentence each; empty where nothing is to be said."""
    if not (known := knowledge_of(model)):
        return ""
    return f"{model} knows {known.what}. Read aloud: {known.read_aloud(language) or known.read_aloud()}."


def tell_what_it_knows(model: str, language: str | None = None) -> None:
    """Two notes about a narrow checkpoint, before it listens; about any other nothing."""
    if known := knowledge_of(model):
        console.note(f"{model} knows", known.what, "--model base understands free speech")
        console.note("read aloud", known.read_aloud(language) or known.read_aloud(), "of others it makes these")
