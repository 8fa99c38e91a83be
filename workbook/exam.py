"""An exam to print: questions drawn by topic and difficulty, and an answer key that says what earns which points.

    python -m workbook.exam                                             # ten questions, Markdown, in Dutch -> reports/
    python -m workbook.exam --questions 8 --topics export quantization --difficulty 2 3 --seed 7 --format pdf
    python -m workbook.exam --lang en --format html

The sheet has room for answers, the points of each question, and no hint: no topic, no command, no number. The same
seed and the same options make the same exam; the letters are the same in both languages, so that one key marks a mixed
class.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from whisper_lab import console, files, flags
from whisper_lab.console import LabError
from workbook import questions
from workbook.questions import LANGUAGES, LEVELS, Book, Question
from workbook.values import Results
from workbook.view import View, view
from workbook.wording import WORDS

HOW_MANY = 10
FORMATS = ("md", "html", "pdf")


@dataclass(frozen=True)
class Exam:
    """What the sheet and its key are made from."""

    title: str
    language: str
    seed: int
    command: str  # draws it again
    views: list[View]
    book: Book

    @property
    def points(self) -> int:
        """Of the whole exam."""
        return sum(shown.question.worth for shown in self.views)


def draw(book: Book, count: int, topics: list[str], levels: list[int], seed: int) -> list[Question]:
    """`count` questions, spread over the topics as evenly as they allow; easy ones first.

    topics, levels: what to draw from; empty: all. Raises LabError where there are too few.
    """
    pool = [one for one in book.questions.values() if (not topics or one.topic in topics)
            and (not levels or one.level in levels)]
    if len(pool) < count:
        raise LabError(f"there are only {len(pool)} such questions, not {count}",
                       f"ask for {len(pool)} with --questions, or for more --topics and --difficulty" if pool else
                       "leave out --topics or --difficulty")
    chance, left = random.Random(seed), {one.topic: [] for one in pool}
    chance.shuffle(pool)
    for one in pool:
        left[one.topic].append(one)
    order = chance.sample(sorted(left), len(left))
    drawn: list[Question] = []
    while len(drawn) < count:  # a question of each topic in turn
        drawn += [left[topic].pop() for topic in order if left[topic]]
    return sorted(drawn[:count], key=lambda one: (one.level, one.id))


def make(book: Book, results: Results, args) -> Exam:
    """The exam that the command line asks for, its choices in an order of its own."""
    drawn = draw(book, args.questions, args.topics, args.difficulty, args.seed)
    views = [view(one, args.lang, results, f"exam {args.seed} {one.id}") for one in drawn]
    return Exam(WORDS[args.lang]["lab"], args.lang, args.seed, again(args), views, book)


def again(args) -> str:
    """The command that draws the same exam."""
    chosen = [f"--questions {args.questions}", *[f"--topics {' '.join(args.topics)}"] * bool(args.topics),
              *[f"--difficulty {' '.join(map(str, args.difficulty))}"] * bool(args.difficulty), f"--seed {args.seed}",
              f"--lang {args.lang}", f"--format {args.format}"]
    return " ".join(["python -m workbook.exam", *chosen])


def pages(exam: Exam, form: str) -> dict[str, bytes]:
    """File name -> contents: the sheet and the key. Raises LabError where PDFs cannot be made here."""
    from workbook import exam_text

    if form == "pdf":
        try:
            import fpdf  # noqa: F401  (of requirements-dev.txt)
        except ImportError as error:
            raise LabError("PDFs need the package fpdf2, which is not installed",
                           "take --format html and print that, or pip install -r requirements-dev.txt") from error
        from workbook import exam_pdf

        sheet, key = exam_pdf.sheet(exam), exam_pdf.key(exam)
    else:
        writer = exam_text.html if form == "html" else exam_text.markdown
        sheet, key = (writer(exam, part).encode() for part in ("sheet", "key"))
    stem = f"exam-{exam.language}-{exam.seed}"
    return {f"{stem}.{form}": sheet, f"{stem}-key.{form}": key}


def arguments(argv: list[str] | None):
    """The command line; topics come from questions.yaml."""
    parser = flags.parser(__doc__, "output_dir", "seed", "quiet", "log_level")
    parser.add_argument("--questions", type=int, default=HOW_MANY, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--topics", nargs="+", default=[], metavar="NAME",
                        help="only these; an unknown name lists them (default: all)")
    parser.add_argument("--difficulty", nargs="+", type=int, default=[], choices=LEVELS, metavar="LEVEL",
                        help="only these levels: 1 know, 2 explain, 3 judge (default: all)")
    parser.add_argument("--lang", choices=LANGUAGES, default="nl", help="(default: %(default)s)")
    parser.add_argument("--format", choices=FORMATS, default="md", help="of both files (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="DIR",
                        help="where the evidence was written (default: workbook/results)")
    args, book = flags.parse(parser, argv), questions.load()
    if args.questions < 1:
        parser.error("--questions starts at 1")
    if unknown := [name for name in args.topics if name not in book.topics]:
        parser.error(f"--topics: no topic {unknown[0]}; there are {', '.join(book.topics)}")
    return args, book


def main(argv: list[str] | None = None) -> int:
    """Draw, then write the sheet and its key."""
    args, book = arguments(argv)
    exam = make(book, Results(args.results), args)
    for name, contents in pages(exam, args.format).items():
        path = Path(args.output_dir) / name
        with files.atomic(path) as temporary:
            temporary.write_bytes(contents)
        console.result(str(path))
    console.note("exam", f"{len(exam.views)} questions, {exam.points} points", "the key is for the instructor alone")
    return 0


if __name__ == "__main__":
    console.run(main)
