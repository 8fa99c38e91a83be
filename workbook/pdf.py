"""The questions alone as a PDF to print: a box for each choice, lines for an open answer. The same bytes every time."""

import datetime
from pathlib import Path

from whisper_lab.console import LabError
from workbook.blocks import spans
from workbook.questions import Book
from workbook.view import View
from workbook.wording import WORDS

MARGIN = 18  # mm, all round
LINES = {1: 3, 2: 5, 3: 7}  # to write on, by level
LINE_MM = 8
GREY = 110


def questions(book: Book, views: list[View]) -> bytes:
    """The PDF of all questions in one language."""
    language = views[0].language
    words, made = WORDS[language], sheet(book.title[language], language)
    made.add_page()
    made.set_font("text", "B", 18)
    made.multi_cell(0, 9, book.title[language], new_x="LMARGIN", new_y="NEXT")
    made.set_font("text", size=11)
    made.multi_cell(0, 12, f"{words['name']}: {'.' * 60}   {words['date']}: {'.' * 24}", new_x="LMARGIN", new_y="NEXT")
    part, trial = None, sheet("", language)
    for view in views:
        heading = None
        if view.question.id[0] != part:
            part = view.question.id[0]
            heading = book.parts[part][language]
        trial.add_page()  # a question is never torn apart: its height shows on a page of its own
        _question(trial, book, view, heading)
        if made.get_y() + trial.get_y() - MARGIN > made.page_break_trigger:
            made.add_page()
        _question(made, book, view, heading)
    return bytes(made.output())


def sheet(title: str, language: str):
    """An empty document: A4, DejaVu (which matplotlib brings), page numbers, no time stamp."""
    import matplotlib

    try:
        import fpdf
    except ImportError as error:
        raise LabError("printed questions need the package fpdf2, which is not among the lab's own",
                       "pip install -r requirements-dev.txt") from error

    class Sheet(fpdf.FPDF):
        """With a footer."""

        def footer(self) -> None:
            self.set_y(-12)
            self.set_font("text", size=8)
            self.set_text_color(GREY)
            self.cell(0, 5, f"{title} · {WORDS[language]['page']} {self.page_no()}/{{nb}}", align="C")
            self.set_text_color(0)

    made = Sheet(format="A4")
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for family, style, name in (("text", "", "DejaVuSans"), ("text", "B", "DejaVuSans-Bold"),
                                ("text", "I", "DejaVuSans-Oblique"), ("mono", "", "DejaVuSansMono")):
        made.add_font(family, style, folder / f"{name}.ttf")
    made.set_margins(MARGIN, MARGIN, MARGIN)
    made.set_auto_page_break(True, MARGIN)
    made.set_title(title)
    made.set_lang(language)
    made.set_creation_date(datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC))
    made.set_producer("workbook.generate")
    return made


def _question(sheet, book: Book, view: View, heading: str | None) -> None:
    words, question = WORDS[view.language], view.question
    if heading:
        sheet.ln(4)
        sheet.set_font("text", "B", 14)
        sheet.multi_cell(0, 8, heading, new_x="LMARGIN", new_y="NEXT")
    sheet.ln(3)
    sheet.set_font("text", "B", 11)
    sheet.write(6, f"{question.id}  {view.title}")
    sheet.set_font("text", size=8)
    sheet.set_text_color(GREY)
    sheet.write(6, f"    {book.topics[question.topic][view.language]} · {words['levels'][question.level]}")
    sheet.set_text_color(0)
    sheet.ln(7)
    paragraph(sheet, " ".join(view.ask.split()))
    if question.code:
        code(sheet, question.code)
    if question.several:
        paragraph(sheet, f"*{words['several']}*", 9)
    for one in view.options:
        option(sheet, one)
    lines(sheet, LINES[question.level] if question.open else 0)
    sheet.ln(3)


def lines(sheet, count: int) -> None:
    """Lines to write on."""
    for _ in range(count):
        sheet.ln(LINE_MM)
        sheet.set_draw_color(180)
        sheet.line(MARGIN, sheet.get_y(), sheet.w - MARGIN, sheet.get_y())


def paragraph(sheet, text: str, size: float = 10) -> None:
    """Text with `code`, **bold** and *italic*, wrapped at the right margin; ends on a new line."""
    for kind, piece in spans(text):
        family, style, smaller = {"code": ("mono", "", 0.5), "bold": ("text", "B", 0),
                                  "italic": ("text", "I", 0)}.get(kind, ("text", "", 0))
        sheet.set_font(family, style, size - smaller)
        sheet.write(5.2, piece)
    sheet.ln(6)


def code(sheet, text: str) -> None:
    sheet.set_font("mono", size=9)
    sheet.set_fill_color(242)
    sheet.multi_cell(0, 5, text.rstrip(), fill=True, new_x="LMARGIN", new_y="NEXT")
    sheet.ln(2)


def option(sheet, option) -> None:
    """A box to tick, the letter, the text with a hanging indent."""
    sheet.set_draw_color(60)
    sheet.rect(MARGIN + 1, sheet.get_y() + 1, 3.2, 3.2)
    sheet.set_left_margin(MARGIN + 12)
    sheet.set_x(MARGIN + 6)
    sheet.set_font("text", "B", 10)
    sheet.write(5.2, f"{option.letter} ")
    sheet.set_x(MARGIN + 12)
    paragraph(sheet, option.text)
    sheet.set_left_margin(MARGIN)
    sheet.set_x(MARGIN)
