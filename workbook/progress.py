"""What a student still has to repeat: Leitner's boxes, kept in a file between runs.

A right answer moves a question one box up, a wrong one back to the first. A question in box 1 comes back at once, in a
higher box after some days. The file survives a crash (written whole or not at all) and a damaged one is put aside.
"""

import datetime
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from whisper_lab import console, files

SCHEMA = "whisper-onnx-lab/quiz/1"
DAYS = {1: 0, 2: 1, 3: 3, 4: 7, 5: 21}  # box -> days until the question comes back
RIGHT, PARTLY, WRONG = 1.0, 0.5, 0.0


def place() -> Path:
    """Where the state of this user is kept, as the XDG base directory specification says."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "whisper-onnx-lab" / "quiz.json"


@dataclass
class Progress:
    """Per question: its box, the day it was last asked, how often it was right and wrong."""

    cards: dict[str, dict] = field(default_factory=dict)

    def box(self, number: str) -> int:
        """The box a question lies in; 0 for one that was never asked."""
        return self.cards.get(number, {}).get("box", 0)

    def due(self, number: str, today: datetime.date) -> bool:
        """Is it time for this question?"""
        if not self.box(number):
            return True
        asked = datetime.date.fromisoformat(self.cards[number]["asked"])
        return (today - asked).days >= DAYS[self.box(number)]

    def answered(self, number: str, score: float, today: datetime.date) -> None:
        """Move the question: up after a right answer, to box 1 after a wrong one; a partly right one stays."""
        card = self.cards.setdefault(number, {"box": 1, "right": 0, "wrong": 0})
        if score >= RIGHT:
            card["box"] = min(card["box"] + 1, max(DAYS))
        elif score < PARTLY:
            card["box"] = 1
        card["right"] += score >= RIGHT
        card["wrong"] += score < RIGHT
        card["asked"] = today.isoformat()

    def asked_times(self, number: str) -> int:
        """How often a question was asked."""
        card = self.cards.get(number, {"right": 0, "wrong": 0})
        return card["right"] + card["wrong"]

    def repeat(self, numbers: list[str]) -> list[str]:
        """Those of `numbers` that were asked and lie in the first box."""
        return [number for number in numbers if self.box(number) == 1]

    def as_json(self) -> dict:
        return {"schema": SCHEMA, "questions": self.cards}

    @classmethod
    def from_json(cls, document: object) -> "Progress":
        """Read what `as_json` made. Raises ValueError for anything else."""
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise ValueError(f"not a {SCHEMA} document")
        cards = document.get("questions")
        if not isinstance(cards, dict):
            raise ValueError("no questions")
        for number, card in cards.items():
            _check(number, card)
        return cls(cards)


def _check(number: str, card: object) -> None:
    """Raise ValueError unless this is a card as `Progress.answered` leaves it."""
    if not isinstance(card, dict) or type(card.get("box")) is not int or card["box"] not in DAYS:
        raise ValueError(f"question {number} lies in no box")
    if not all(type(card.get(key)) is int and card[key] >= 0 for key in ("right", "wrong")):
        raise ValueError(f"question {number} has no counts")
    if not isinstance(card.get("asked"), str):
        raise ValueError(f"question {number} has no day")
    datetime.date.fromisoformat(card["asked"])


def load(path: Path) -> Progress:
    """The progress in a file; empty where there is none. A damaged file is renamed, with a warning."""
    try:
        return Progress.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Progress()
    except OSError as error:
        console.warn(f"cannot read {path} ({error.strerror}): starting without earlier scores")
    except ValueError as error:
        aside = path.with_suffix(".damaged.json")
        try:
            os.replace(path, aside)
            console.warn(f"{path} is damaged ({error}): put aside as {aside.name}, starting again from nothing")
        except OSError:
            console.warn(f"{path} is damaged ({error}): starting again from nothing")
    return Progress()


def save(path: Path, progress: Progress) -> None:
    """Write the file, whole or not at all."""
    files.write_json(path, progress.as_json())
