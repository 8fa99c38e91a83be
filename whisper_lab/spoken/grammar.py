"""The small language that whisper-nano knows: every sentence in English and in Dutch.

`sentence(random, language)` draws one. The pairs share their slots, so that a Dutch sentence always has its
English translation: the checkpoint learns `--task translate` from them. All text is lower case without
punctuation; what a voice says is what is written.

    python -m whisper_lab.spoken.grammar --count 20 --language nl
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from whisper_lab import console
from whisper_lab.spoken import number_words
from whisper_lab.spoken.phrases import NAMES, SLOTS, TEMPLATES, Pair

# How often each kind of sentence is drawn.
WEIGHTS = {"digits": 26, "number": 16, "command": 28, "time": 10, "greeting": 14, "filler": 6}


@dataclass(frozen=True)
class Sentence:
    """What a voice says, in which language, and what it means in English."""

    kind: str
    language: str
    text: str
    translation: str

    @property
    def held_out(self) -> bool:
        """One sentence in twenty, by its words, is kept from training (the same ones for ever)."""
        return len(self.text.split()) > 2 and hashlib.sha256(self.text.encode()).digest()[0] % 20 == 0


def sentence(draw: random.Random, language: str = "en") -> Sentence:
    """One random sentence of the grammar in `language` ("en" or "nl")."""
    kind = draw.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if kind == "digits":
        pair = digits(draw, draw.randint(1, 8))
    elif kind == "number":
        pair = number(draw, draw.choice((99, 999, 9999)))
    else:
        pair = _fill(draw, draw.choice(TEMPLATES[kind]))
    english, dutch = pair
    return Sentence(kind, language, english if language == "en" else dutch, english)


def digits(draw: random.Random, count: int) -> Pair:
    """A string of `count` random digits, spoken one by one."""
    values = [draw.randrange(10) for _ in range(count)]
    return " ".join(map(number_words.english, values)), " ".join(map(number_words.dutch, values))


def number(draw: random.Random, largest: int) -> Pair:
    """A number up to `largest`; English with or without "and"."""
    n = draw.randint(0, largest)
    return number_words.english(n, conjunction=draw.random() < 0.4), number_words.dutch(n)


def _fill(draw: random.Random, template: Pair) -> Pair:
    values: dict[str, Pair] = {slot: draw.choice(pairs) for slot, pairs in SLOTS.items()}
    values["item2"], values["colour2"] = draw.choice(SLOTS["item"]), draw.choice(SLOTS["colour"])
    for slot in ("name", "name2"):
        values[slot] = (draw.choice(NAMES),) * 2
    numeric: dict[str, Callable[[], Pair]] = {
        "two": lambda: number(draw, 99), "two2": lambda: number(draw, 20), "any": lambda: number(draw, 999),
    }
    values |= {slot: make() for slot, make in numeric.items()}
    hour, minute = draw.randint(1, 12), draw.choice((5, 10, 15, 20, 25, 30, 40, 45, 50, 55))
    values["hour"] = number_words.english(hour), number_words.dutch(hour)
    values["minute"] = number_words.english(minute), number_words.dutch(minute)
    values["next"] = ("", number_words.dutch(hour % 12 + 1))  # "half past six" is "half zeven" in Dutch
    english, dutch = (
        side.format(**{slot: pair[i] for slot, pair in values.items()}) for i, side in enumerate(template)
    )
    return english, dutch


def main(argv: list[str] | None = None) -> int:
    parser = console.parser(__doc__, "seed", "quiet", "log_level")
    parser.add_argument("--count", type=console.whole(1), default=10, metavar="N",
                        help="how many sentences (default: %(default)s)")
    parser.add_argument("--language", choices=["en", "nl"], default="en", help="default: %(default)s")
    args = console.parse(parser, argv)
    draw = random.Random(args.seed)
    for _ in range(args.count):
        made = sentence(draw, args.language)
        console.result(made.text if args.language == "en" else f"{made.text}  =  {made.translation}")
    return 0


if __name__ == "__main__":
    console.run(main)
