"""Flash cards as CSV: id, language, topic, level, front, back. Anki and its like import it as it is."""

import csv
import io

from workbook.questions import Book
from workbook.view import View
from workbook.wording import WORDS

COLUMNS = ("id", "language", "topic", "level", "front", "back")


def cards(book: Book, views: list[View]) -> str:
    """One row for each question and language; fields with line breaks are quoted."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for view in views:
        question = view.question
        several = WORDS[view.language]["several"] if question.several else ""
        front = [view.ask, question.code or "", several,
                 *(f"{option.letter}. {option.text}" for option in view.options)]
        back = f"{view.answer}. {view.short}" if view.answer else view.short
        writer.writerow([question.id, view.language, book.topics[question.topic][view.language], question.level,
                         "\n".join(filter(None, map(str.strip, front))), back])
    return out.getvalue()
