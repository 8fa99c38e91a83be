"""The workbook as a quiz: asks, explains wrong answers, keeps the score and what to repeat.

    python -m workbook.quiz                              # ten that are due; at first the easy ones of the first steps
    python -m workbook.quiz --lang en --topic export
    python -m workbook.quiz --question 2.04
    python -m workbook.quiz --page                       # the same as a page for the class, in a browser

A choice is graded here (scoring.py says how); after an open question you see the model answer and what each point is
for, and grade yourself. Ctrl-C or Ctrl-D ends at any moment; what was answered is kept.
"""

import datetime
import random
import re
import shutil
import textwrap
from pathlib import Path

from whisper_lab import console, flags
from whisper_lab.console import LabError
from workbook import progress, questions, scoring
from workbook.progress import PARTLY, RIGHT, WRONG, Progress
from workbook.questions import LANGUAGES, Book, Question
from workbook.values import Results
from workbook.view import Option, View, view
from workbook.wording import WORDS

HOW_MANY = 10
CHOSEN = ("topic", "level", "question", "count", "all", "state")  # flags of the terminal alone
LAST = "99"  # questions that belong to no script
ITEM = re.compile(r"^(?=(?:- |\d\. ))", re.MULTILINE)  # where an item of a list begins
SAY = {
    "nl": {"choose": "Jouw antwoord ({letters}; Enter slaat over, q stopt): ", "again": "Kies {letters}, Enter of q.",
           "ticks": "Jouw antwoorden, zoals AC ({letters}; Enter slaat over, q stopt): ",
           "right": "Juist.", "wrong": "Niet juist: het is {letter}.", "partly": "Deels juist, {points} van {worth}: "
           "het zijn {letter}.", "none_right": "Niet juist: het zijn {letter}.", "why": "Waarom {letter} niet: {why}",
           "think": "Bedenk je antwoord, en druk dan op Enter (q stopt): ", "model": "Modelantwoord",
           "points": "Eén punt per onderdeel", "yourself": "Had je het juist? j(a), d(eels), n(ee), q: ",
           "marks": {"j": RIGHT, "d": PARTLY, "n": WRONG}, "mark": "Typ j, d, n of q.",
           "score": "Score: {points} op {asked}.", "none": "Er is niets gevraagd.",
           "repeat": "Te herhalen: {numbers}", "shows": "Ga het zelf na: {command}", "long": "Uitleg",
           "nothing": "Vandaag is er niets te herhalen in deze selectie. Met --all krijg je alles."},
    "en": {"choose": "Your answer ({letters}; Enter skips, q ends): ", "again": "Choose {letters}, Enter or q.",
           "ticks": "Your answers, such as AC ({letters}; Enter skips, q ends): ",
           "right": "Right.", "wrong": "Not right: it is {letter}.", "partly": "Partly right, {points} of {worth}: "
           "they are {letter}.", "none_right": "Not right: they are {letter}.", "why": "Why not {letter}: {why}",
           "think": "Think of your answer, then press Enter (q ends): ", "model": "Model answer",
           "points": "One point for each", "yourself": "Did you have it? y(es), p(artly), n(o), q: ",
           "marks": {"y": RIGHT, "p": PARTLY, "n": WRONG}, "mark": "Type y, p, n or q.",
           "score": "Score: {points} out of {asked}.", "none": "Nothing was asked.",
           "repeat": "To repeat: {numbers}", "shows": "Show it yourself: {command}", "long": "Explanation",
           "nothing": "Nothing to repeat in this selection today. With --all you get everything."},
}


class Ended(Exception):
    """The student wants to stop."""


def select(book: Book, known: Progress, args, today: datetime.date) -> list[str]:
    """The ids to ask, in order: due ones, what went wrong first, then new ones, easy first; ties shuffled by --seed."""
    if args.question:
        return list(args.question)
    wanted = [number for number, question in book.questions.items()
              if (args.topic is None or question.topic == args.topic) and args.level in (None, question.level)]
    if not wanted:
        raise LabError(f"there is no question of level {args.level} on {args.topic}",
                       "leave out --level or --topic")
    wanted = [number for number in wanted if args.all or known.due(number, today)]
    random.Random(args.seed).shuffle(wanted)
    wanted.sort(key=lambda number: turn(book.questions[number], known.box(number)))
    return wanted[: args.count]


def turn(question: Question, box: int) -> tuple:
    """What sorts before what: the boxes in their order; then what was never asked, easy before hard, 01 before 09."""
    if box:
        return (box,)
    return max(progress.DAYS) + 1, question.level, question.script or LAST


def ask(shown: View) -> float | None:
    """One question in the terminal: its score, None where it was skipped. Raises Ended."""
    console.result(f"\n{shown.question.id}  {shown.title}\n\n{wrap(shown.ask)}")
    if shown.question.code:
        console.result("\n" + textwrap.indent(shown.question.code.rstrip(), "    "))
    score = ask_open(shown) if shown.question.open else ask_choice(shown)
    if score is not None:
        console.result(f"\n{SAY[shown.language]['long']}\n{wrap(shown.long)}")
        if shown.question.command:
            console.result("\n" + SAY[shown.language]["shows"].format(command=shown.question.command))
    return score


def ask_choice(shown: View) -> float | None:
    """Graded here; a wrong choice is explained."""
    say, letters = SAY[shown.language], ", ".join(option.letter for option in shown.options)
    console.result("\n" + "\n".join(wrap(f"{option.letter}. {option.text}", "   ") for option in shown.options) + "\n")
    if shown.question.several:
        console.result(wrap(WORDS[shown.language]["several"]) + "\n")
    prompt = say["ticks" if shown.question.several else "choose"].format(letters=letters)
    while (ticked := picked(shown, answer := reply(prompt))) is None:
        if not answer:
            return None
        console.result(say["again"].format(letters=letters))
    score, text = verdict(shown, ticked)
    console.result("\n" + wrap(f"{text} {shown.short}"))
    for option in ticked:
        if not option.right:
            console.result(wrap(say["why"].format(letter=option.letter, why=option.why)))
    return score


def picked(shown: View, answer: str) -> list[Option] | None:
    """The choices whose letters were typed (b, or A, C where several are right); None for anything else."""
    letters = set(re.sub(r"[\s,;+]|\b(en|and)\b", "", answer, flags=re.I).upper())
    found = [option for option in shown.options if option.letter in letters]
    fits = len(found) == len(letters) and (len(found) == 1 or shown.question.several and found)
    return found if fits else None


def verdict(shown: View, ticked: list[Option]) -> tuple[float, str]:
    """What the ticked choices are worth, 0..1, and the sentence that says so."""
    say, score = SAY[shown.language], scoring.share(shown.options, ticked)
    if score == RIGHT:
        return score, say["right"]
    kind = "wrong" if not shown.question.several else "partly" if score else "none_right"
    return score, say[kind].format(letter=shown.answer, points=scoring.points(ticked), worth=shown.question.worth)


def ask_open(shown: View) -> float | None:
    """The model answer, then the student's own judgement."""
    say = SAY[shown.language]
    reply("\n" + say["think"])
    console.result(f"\n{say['model']}\n{wrap(shown.short)}\n\n{say['points']}")
    console.result("\n".join(wrap(f"- {point}", "  ") for point in shown.points) + "\n")
    while (answer := reply(say["yourself"]).lower()[:1]) not in say["marks"]:
        if not answer:
            return None
        console.result(say["mark"])
    return say["marks"][answer]


def reply(prompt: str) -> str:
    """A line from the student. Raises Ended for q, Ctrl-D and Ctrl-C."""
    try:
        answer = input(prompt).strip()
    except (EOFError, KeyboardInterrupt):
        console.result()
        raise Ended from None
    if answer.lower() == "q":
        raise Ended
    return answer


def wrap(text: str, hang: str = "") -> str:
    """Markdown at the terminal's width: paragraphs and list items are filled again, tables keep their lines."""
    width = min(shutil.get_terminal_size().columns, 100)
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        if paragraph.lstrip().startswith("|"):
            lines.append(paragraph)
            continue
        items = ITEM.split(paragraph)  # "", or what comes before the first item; then the items
        lines.append("\n".join(textwrap.fill(" ".join(item.split()), width,
                                             subsequent_indent=hang or ("   " if ITEM.match(item) else ""))
                               for item in items if item))
    return "\n\n".join(lines).replace("**", "").replace("`", "")


def run(book: Book, numbers: list[str], args, known: Progress, state: Path, today: datetime.date) -> dict[str, float]:
    """Ask them all, saving after each; returns the scores."""
    results, scores = Results(args.results), {}
    # Everything is filled in before the first question: a missing number is no surprise halfway.
    views = [view(book.questions[number], args.lang, results, f"{args.seed} {number} {known.asked_times(number)}")
             for number in numbers]
    try:
        for shown in views:
            score = ask(shown)
            if score is None:
                continue
            scores[shown.question.id] = score
            known.answered(shown.question.id, score, today)
            progress.save(state, known)
    except Ended:
        pass
    return scores


def arguments(argv: list[str] | None):
    """The command line; topics and ids come from questions.yaml."""
    from whisper_lab.record import serve

    parser = flags.parser(__doc__, "seed", "quiet", "log_level")
    parser.add_argument("--lang", choices=LANGUAGES, default="nl", help="(default: %(default)s)")
    parser.add_argument("--topic", metavar="NAME", help="only this topic; an unknown name lists them (default: all)")
    parser.add_argument("--level", type=int, choices=questions.LEVELS, help="1 know, 2 explain, 3 judge (default: all)")
    parser.add_argument("--question", nargs="+", metavar="ID", help="only these, such as 2.04")
    parser.add_argument("--count", type=int, default=HOW_MANY, metavar="N", help="at most (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="also what is not due for repetition yet")
    parser.add_argument("--state", type=Path, metavar="FILE",
                        help="where scores are kept (default: $XDG_STATE_HOME/whisper-onnx-lab/quiz.json)")
    parser.add_argument("--results", type=Path, metavar="DIR",
                        help="where the evidence was written (default: workbook/results)")
    page = parser.add_argument_group("the page")
    page.add_argument("--page", action="store_true", help="serve a page in the browser instead of the terminal")
    page.add_argument("--port", type=int, metavar="N",
                      help="of the page; 0 takes any free one (default: 7860, or the next free one)")
    page.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
                      help="0.0.0.0 serves the whole network, with a password (default: %(default)s, this machine)")
    serve.add_flags(page)
    args = flags.parse(parser, argv)
    _refuse_what_does_nothing(parser, page, args)
    args.share = False  # nothing here needs a public address
    if args.count < 1 or not (args.port is None or 0 <= args.port <= 65535):
        parser.error("--count starts at 1, --port is a number from 0 to 65535")
    book = questions.load()
    if args.topic is not None and args.topic not in book.topics:
        parser.error(f"--topic: no topic {args.topic}; there are {', '.join(book.topics)}")
    for number in args.question or []:
        if number not in book.questions:
            parser.error(f"--question: no question {number}; there are {', '.join(book.questions)}")
    return args, book


def _refuse_what_does_nothing(parser, page, args) -> None:
    """A flag of the page without one, or of the terminal with it: on the page each visitor chooses, and scores are kept
    in that visitor's browser."""
    others = [action.dest for action in page._group_actions if action.dest != "page"]
    names, reason = (CHOSEN, "not with --page, where each visitor chooses") if args.page else (others, "only of --page")
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) != parser.get_default(name)]
    if given:
        parser.error(f"{', '.join(given)}: {reason}")


def main(argv: list[str] | None = None) -> int:
    """Ask, then say how it went."""
    args, book = arguments(argv)
    if args.page:
        from workbook import quiz_page

        return quiz_page.serve(book, args)
    state, today, say = args.state or progress.place(), datetime.date.today(), SAY[args.lang]
    known = progress.load(state)
    numbers = select(book, known, args, today)
    if not numbers:
        console.result(say["nothing"])
        return 0
    scores = run(book, numbers, args, known, state, today)
    points = f"{sum(scores.values()):g}".replace(".", "," if args.lang == "nl" else ".")
    console.result("\n" + (say["score"].format(points=points, asked=len(scores)) if scores else say["none"]))
    if again := known.repeat(list(book.questions)):
        console.result(say["repeat"].format(numbers=", ".join(again)))
    if scores:
        console.note("scores", state, "kept between runs")
    return 0


if __name__ == "__main__":
    console.run(main)
