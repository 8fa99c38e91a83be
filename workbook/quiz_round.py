"""The quiz on the page without any widget: what to ask next, what an answer is worth, what to say about it."""

import datetime
import random
from argparse import Namespace
from dataclasses import dataclass, field

from workbook import quiz
from workbook.progress import Progress
from workbook.questions import Book, Text
from workbook.values import Results
from workbook.view import View, view
from workbook.wording import WORDS


@dataclass
class Round:
    """One visitor's round: what is asked in which language, and the scores so far."""

    language: str = "nl"
    numbers: list[str] = field(default_factory=list)
    at: int = 0
    seed: int = 0
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def number(self) -> str | None:
        """The question on show, None before the first and after the last."""
        return self.numbers[self.at] if self.at < len(self.numbers) else None


def known(stored: object) -> Progress:
    """What the browser kept, or nothing where it is damaged or not there."""
    try:
        return Progress.from_json(stored)
    except ValueError:
        return Progress()


class Quiz:
    """The rules."""

    def __init__(self, book: Book, results: Results):
        self.book, self.results = book, results

    def start(self, language: str, topic: str | None, level: int | None, stored: object) -> Round:
        """A round of questions that are due; where none is, all of the selection."""
        progress, today, seed = known(stored), datetime.date.today(), random.randrange(2**31)
        wanted = Namespace(question=None, topic=topic, level=level, all=False, seed=seed, count=quiz.HOW_MANY)
        if not any(topic in (None, one.topic) and level in (None, one.level) for one in self.book.questions.values()):
            return Round(language)
        numbers = quiz.select(self.book, progress, wanted, today)
        return Round(language, numbers or quiz.select(self.book, progress, Namespace(**vars(wanted) | {"all": True}),
                                                      today), seed=seed)

    def shown(self, one: Round) -> View | None:
        """The question on show; its choices stay in place for the whole round."""
        return one.number and view(self.book.questions[one.number], one.language, self.results,
                                   f"{one.seed} {one.number}")

    def note(self, one: Round, score: float, stored: object) -> dict:
        """Count an answer, once; returns what the browser is to keep."""
        progress = known(stored)
        if one.number not in one.scores:
            one.scores[one.number] = score
            progress.answered(one.number, score, datetime.date.today())
        return progress.as_json()

    def score(self, one: Round, stored: object) -> str:
        """The score of the round, and what to repeat."""
        say = quiz.SAY[one.language]
        points = f"{sum(one.scores.values()):g}".replace(".", "," if one.language == "nl" else ".")
        text = say["score"].format(points=points, asked=len(one.scores)) if one.scores else ""
        again = known(stored).repeat(list(self.book.questions))
        return text + ("  \n" + say["repeat"].format(numbers=", ".join(again)) if again else "")


def question_text(shown: View, one: Round, topics: dict[str, Text]) -> str:
    """The question as Markdown, with its topic and level."""
    words, question = WORDS[shown.language], shown.question
    facts = f"*{topics[question.topic][shown.language]} · {words['levels'][question.level]}*"
    code = f"\n\n```python\n{question.code.rstrip()}\n```" if question.code else ""
    several = f"\n\n*{words['several']}*" if question.several else ""
    return (f"### {one.at + 1}/{len(one.numbers)} · {question.id} {shown.title}\n\n{facts}\n\n{shown.ask}{code}"
            f"{several}")


def verdict(shown: View, letters: list[str]) -> tuple[float, str]:
    """What the ticked choices are worth, and why."""
    ticked = [one for one in shown.options if one.letter in letters]
    score, text = quiz.verdict(shown, ticked)
    why = quiz.SAY[shown.language]["why"]
    wrong = [why.format(letter=one.letter, why=one.why) for one in ticked if not one.right]
    return score, "\n\n".join([f"**{text}** {shown.short}", *wrong])


def explanation(shown: View) -> str:
    """What follows every answer."""
    command = shown.question.command
    say = quiz.SAY[shown.language]
    return shown.long + (f"\n\n{say['shows'].format(command=f'`{command}`')}" if command else "")


def model_answer(shown: View) -> str:
    """What an open question's answer holds."""
    say = quiz.SAY[shown.language]
    return (f"**{say['model']}.** {shown.short}\n\n**{say['points']}**\n\n"
            + "\n".join(f"- {point}" for point in shown.points) + f"\n\n{explanation(shown)}")
