"""Text as a projector will present it: stretched, with pauses, in pieces of any size, blurred and with slips.

The text decoder of the miniature never hears a sound. It learns to read this, and the projector then learns to put what
it hears in the same form. A large language model needs no such lesson: it has seen enough garbled text.
"""

import json
import random
from dataclasses import dataclass

import torch

from training import word_substitution
from training.examples import SENTENCES
from whisper_lab.spoken import grammar

DIGITS = 0.35  # of the jumbled texts are digits
ALTERED = 0.5  # of the sentences have some words changed
CHARACTERS_PER_VECTOR = 1.1  # of fluent speech, at the ten vectors a second of a projector of rate 5


@dataclass
class Output:
    """One text, simulated: for each vector the token it stands for, one it is blurred with, and by how much."""

    tokens: list[int]
    blurred: list[int]
    amount: list[float]

    def put(self, token: int, other: int, amount: float) -> None:
        """Append one vector."""
        self.tokens.append(token)
        self.blurred.append(other)
        self.amount.append(amount)

    def pause(self, silence: int, vectors: int = 1) -> None:
        """Append vectors of silence."""
        for _ in range(vectors):
            self.put(silence, silence, 0.0)


def text(draw: random.Random, dutch: float = 0.0, held_out: bool = False, jumbled: float = 0.0) -> str:
    """What could be said in one clip: one to four sentences of the grammar, or nothing.

    With probability `jumbled` any words or digits in any order instead, and in half of the rest some words are others:
    what cannot be guessed has to be read. A decoder that knows every sentence of a small grammar knows as well which
    combinations it never saw, and hears something else in those.
    """
    if draw.random() < 0.04:
        return ""
    language = "nl" if draw.random() < dutch else "en"
    if draw.random() < jumbled:
        if draw.random() < DIGITS:
            return _digits(draw)
        return word_substitution.random_words(draw, language)
    said: list[str] = []
    for _ in range(draw.choices((1, 2, 3, 4), SENTENCES[-1])[0]):
        while (made := grammar.sentence(draw, language)).held_out != held_out:
            pass
        said.append(made.text)
    if not held_out and jumbled and draw.random() < ALTERED:
        return word_substitution.substitute(draw, " ".join(said), language)
    return " ".join(said)


def _digits(draw: random.Random) -> str:
    """One to eight digits, many said twice: a stretched one and a doubled one are easily taken for each other."""
    names = grammar.ENGLISH_UNITS[:10]
    said = [draw.choice(names)]
    while len(said) < 8 and draw.random() < 0.85:
        said.append(said[-1] if draw.random() < 0.25 else draw.choice(names))
    return " ".join(said)


class BpeDropout:
    """Cuts words into tokens of the vocabulary: as the tokenizer does, or with merges left out (arXiv 1910.13267)."""

    def __init__(self, tokenizer):
        from tokenizers import pre_tokenizers

        self.split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        self.vocabulary = model["vocab"]
        self.ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}

    def cut(self, draw: random.Random, words: str, left_out: float) -> list[int]:
        """Token ids of ` word word`; each merge is left out with probability `left_out` (1: single characters)."""
        found = []
        for word, _ in self.split(f" {words}" if words else ""):  # each byte of a word as one character
            parts = list(word)
            while True:
                pairs = [(self.ranks[pair], i) for i, pair in enumerate(zip(parts, parts[1:], strict=False))
                         if pair in self.ranks and draw.random() >= left_out]
                if not pairs:
                    break
                _, i = min(pairs)
                parts[i : i + 2] = [parts[i] + parts[i + 1]]
            found += [self.vocabulary[part] for part in parts]
        return found


def simulate(draw: random.Random, pieces: list[int], lengths: list[int], silence: int, slips: float,
             stretch: float = 1.0) -> Output:
    """Present `pieces` (token ids of `lengths` characters) as a row of vectors; `silence` is the token of a pause.

    stretch: 1 as a voice would, 0 one vector for each token and no pause, for beginners.
    """
    made, pace = Output([], [], []), draw.uniform(0.6, 1.6) / CHARACTERS_PER_VECTOR
    held = draw.random()  # 0: every token flashes up once, 1: it sounds as long as it lasts
    blur = draw.random() * 0.5
    made.pause(silence, round(stretch * draw.choice((0, 1, 2, 4, 8))))
    debt = 0.0
    for i, length in enumerate(lengths):
        if (token := _heard(draw, pieces, i, silence, slips)) is None:
            continue
        debt += stretch * length * pace * draw.uniform(0.6, 1.4)
        lasts = max(1, int(debt))
        debt -= lasts
        neighbour = pieces[min(i + 1, len(pieces) - 1)] if draw.random() < 0.5 else pieces[max(i - 1, 0)]
        if made.tokens and made.tokens[-1] == token:
            made.pause(silence)  # said twice, not held for long: as in CTC a pause tells them apart
        _sound(draw, made, token, neighbour, lasts, held, blur, silence)
        if draw.random() < 0.04 * stretch:
            made.pause(silence, draw.randrange(1, 8))
    made.pause(silence, round(stretch * draw.choice((0, 1, 2, 4))))
    if not made.tokens:
        made.pause(silence)
    return made


def _heard(draw: random.Random, pieces: list[int], i: int, silence: int, slips: float) -> int | None:
    """Token `i` of the text as it is heard: right, another one, or not at all (None)."""
    slip = draw.random()
    if slip < slips / 3:
        return None
    if slip < slips:
        return draw.choice(pieces) if slip < 2 * slips / 3 else draw.randrange(silence)
    return pieces[i]


def _sound(draw: random.Random, made: Output, token: int, neighbour: int, lasts: int, held: float, blur: float,
           silence: int) -> None:
    """Append `lasts` vectors of a token, blurred with its neighbour; it may fall silent before they end."""
    sounding = True
    for k in range(lasts):
        sounding = sounding and (k == 0 or draw.random() < held)
        made.put(token if sounding else silence, neighbour, draw.random() * blur)


def vectors(told: list[Output], table: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of simulated output as a padded batch of vectors, each as long as the table's are on average.

    table: token embeddings [vocabulary, width]; noise: loudness of the noise for each row, 1 as loud as the token.
    Returns float [rows, longest, width] and how many vectors of each row count [rows].
    """
    counts = torch.tensor([len(row.tokens) for row in told])
    pad = torch.nn.utils.rnn.pad_sequence
    tokens, others = (pad([torch.tensor(getattr(row, name)) for row in told], True) for name in ("tokens", "blurred"))
    amount = pad([torch.tensor(row.amount) for row in told], True)[..., None]
    scale = table.detach().pow(2).mean().sqrt()
    mixed = (1 - amount) * table[tokens] + amount * table[others]
    mixed = mixed + torch.randn(mixed.shape) * scale * noise[:, None, None]
    return scale * mixed * torch.rsqrt(mixed.pow(2).mean(-1, keepdim=True) + 1e-12), counts
