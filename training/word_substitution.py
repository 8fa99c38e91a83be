"""Sentences that cannot be guessed: a decoder that knows every sentence of a small grammar stops listening."""

import functools
import random

from whisper_lab.spoken import grammar

CHANGED = 0.2  # of the words of an altered sentence
LONGEST = 12  # words in a row without a sentence


@functools.cache
def words(language: str) -> list[str]:
    """The words of the grammar."""
    draw = random.Random(0)
    return sorted({word for _ in range(4000) for word in grammar.sentence(draw, language).text.split()})


def change(draw: random.Random, text: str, language: str) -> str:
    """The text with some words replaced by any other of the grammar."""
    return " ".join(word if draw.random() > CHANGED else draw.choice(words(language)) for word in text.split())


def jumble(draw: random.Random, language: str) -> str:
    """Words in any order."""
    return " ".join(draw.choice(words(language)) for _ in range(draw.randint(1, LONGEST)))
