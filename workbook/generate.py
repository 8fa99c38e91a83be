"""Everything that is made from questions.yaml and the evidence; nothing of it is edited by hand.

    python -m workbook.generate            # nl.md, en.md, questions-*.pdf, answer-key-*.md, cards.csv
    python -m workbook.generate --check    # exit 1 where one of them has drifted from its sources

`python -m workbook.evidence` measures; this fills the texts with what was measured. `make workbook` does both.
"""

import re
import zlib
from pathlib import Path

from whisper_lab import console, files, flags
from whisper_lab.console import LabError
from workbook import questions
from workbook.questions import HERE, LANGUAGES
from workbook.values import Results
from workbook.view import view

INSTRUCTORS = HERE / "instructors.md"
BLOCK = re.compile(r"(<!-- begin memory -->\n).*?(<!-- end memory -->)", re.S)


def generate(book: questions.Book, results: Results) -> dict[str, bytes]:
    """File name -> contents. Raises LabError for a number or a figure that no one measured."""
    from workbook import cards, markdown, pdf

    table = markdown.memory(results)
    text = BLOCK.sub(lambda match: f"{match[1]}{table}\n{match[2]}", INSTRUCTORS.read_text(encoding="utf-8"))
    made: dict[str, bytes] = {INSTRUCTORS.name: text.encode()}
    rows = []
    for language in LANGUAGES:
        views = [view(question, language, results) for question in book.questions.values()]
        rows += views
        made[f"{language}.md"] = markdown.workbook(book, views, results).encode()
        made[f"answer-key-{language}.md"] = markdown.key(book, views, results).encode()
        made[f"questions-{language}.pdf"] = pdf.questions(book, views)
    return made | {"cards.csv": cards.cards(book, rows).encode()}


def same(name: str, old: bytes, new: bytes) -> bool:
    """Equal contents; of a PDF what is inside its compressed streams, which another zlib may pack differently."""
    return inflated(old) == inflated(new) if name.endswith(".pdf") else old == new


def inflated(data: bytes) -> list[bytes]:
    """A PDF's text and unpacked streams, without the lengths and offsets that follow from the packing."""
    parts = re.split(rb"stream\n(.*?)\nendstream", data, flags=re.S)
    for i in range(1, len(parts), 2):
        try:
            parts[i] = zlib.decompress(parts[i])
        except zlib.error:
            pass  # a stream that is not compressed
    parts[0::2] = [re.sub(rb"\d{10} \d{5} n|/Length\d? \d+|startxref\n\d+|/ID \[.*?\]", b"", part)
                   for part in parts[0::2]]
    return parts


def main(argv: list[str] | None = None) -> int:
    parser = flags.parser(__doc__, "quiet", "log_level")
    parser.add_argument("--check", action="store_true", help="change nothing, only compare")
    parser.add_argument("--results", type=Path, metavar="DIR",
                        help="where the evidence was written (default: workbook/results)")
    parser.add_argument("--output-dir", type=Path, default=HERE, metavar="DIR",
                        help="where the files go (default: workbook)")
    args = flags.parse(parser, argv)
    made = generate(questions.load(), Results(args.results))
    for name, contents in made.items():
        path = args.output_dir / name
        old = path.read_bytes() if path.is_file() else None
        if old is not None and same(name, old, contents):
            continue
        if args.check:
            raise LabError(f"{path.name} no longer says what its sources say", "run python -m workbook.generate")
        with files.atomic(path) as temporary:
            temporary.write_bytes(contents)
        console.note("written", path.name, "new" if old is None else "its sources have changed")
    console.note("workbook", f"{len(questions.load().questions)} questions", "every number from a file in results/")
    return 0


if __name__ == "__main__":
    console.run(main)
