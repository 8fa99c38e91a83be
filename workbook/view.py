"""One question in one language, its numbers filled in and its choices in the order in which documents print them."""

import random
from dataclasses import dataclass

from workbook.questions import Question
from workbook.values import Results, names_in
from workbook.wording import WORDS

LETTERS = "ABCDEF"


@dataclass(frozen=True)
class Option:
    """A choice as it is shown."""

    letter: str
    text: str
    why: str | None  # and from what misconception; None for a right one

    @property
    def right(self) -> bool:
        return self.why is None


@dataclass(frozen=True)
class View:
    """What every document and both quizzes show of a question."""

    question: Question
    language: str
    title: str
    ask: str
    short: str
    long: str
    vary: str | None
    seen: str | None  # what varying it shows
    points: list[str]
    options: list[Option]
    evidence: list[str]  # every evidence that it names or takes values from

    @property
    def answer(self) -> str | None:
        """The letter of the right choice, or the letters of all: "A, C"; None for an open question."""
        return ", ".join(option.letter for option in self.options if option.right) or None


def view(question: Question, language: str, results: Results, order: str | None = None) -> View:
    """Fill a question's texts. `order` seeds the order of the choices; without it every document has the same one."""
    def text(name: str) -> str | None:
        found = question.texts.get(name)
        return found and results.fill(found[language], language, f"question {question.id}, {name}.{language}")

    def why(place: int) -> str | None:
        found = text(f"choices[{place}].why")
        return found and f"{found} {WORDS[language]['mistake']}: {text(f'choices[{place}].mistake')}."

    places = list(range(len(question.choices)))
    random.Random(order or question.id).shuffle(places)
    options = [Option(LETTERS[i], text(f"choices[{place}]"), why(place)) for i, place in enumerate(places)]
    points = [text(f"points[{i}]") for i in range(len(question.points))]
    return View(question, language, text("title"), text("ask"), text("short"), text("long"), text("vary"), text("seen"),
                points, options, evidence(question))


def evidence(question: Question) -> list[str]:
    """Names of the evidence that a question lists or takes values from."""
    taken = [name for both in question.texts.values() for text in (both.nl, both.en) for name in names_in(text)]
    return list(dict.fromkeys([*question.evidence, *taken]))
