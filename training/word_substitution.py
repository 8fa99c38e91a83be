"""Sentences that cannot be guessed: a decoder that knows every sentence of a small grammar stops listening."""

import functools
import random

from whisper_lab.spoken import grammar

SUBSTITUTED = 0.2  # share of the words of a sentence
LONGEST = 12  # words in a row without a sentence


@functools.cache
def vocabulary(language: str) -> list[str]:
    """The words of the grammar."""
    draw = random.Random(0)
    return sorted({word for _ in range(4000) for word in grammar.sentence(draw, language).text.split()})


def substitute(draw: random.Random, text: str, language: str) -> str:
    """The text with some words replaced by any other of the grammar."""
    return " ".join(word if draw.random() > SUBSTITUTED else draw.choice(vocabulary(language)) for word in text.split())


def random_words(draw: random.Random, language: str) -> str:
    """Words in any order."""
    return " ".join(draw.choice(vocabulary(language)) for _ in range(draw.randint(1, LONGEST)))
