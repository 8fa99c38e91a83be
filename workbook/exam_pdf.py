"""An exam's sheet and key as PDF: A4, black on white, the same bytes every time. The shapes are those of pdf.py."""

import itertools

from workbook import exam_text, pdf
from workbook.blocks import blocks, spans
from workbook.exam import Exam
from workbook.view import View
from workbook.wording import WORDS

INDENT = 6  # mm, of a list's text


def sheet(exam: Exam) -> bytes:
    """The exam sheet: no question is torn apart by the end of a page."""
    words = WORDS[exam.language]
    made = _open(exam, words["exam"])
    made.multi_cell(0, 12, f"{words['name']}: {'.' * 60}   {words['date']}: {'.' * 24}", new_x="LMARGIN", new_y="NEXT")
    pdf.paragraph(made, words["exam_rules"], 9)
    trial = pdf.sheet("", exam.language)
    for number, shown in enumerate(exam.views, 1):
        trial.add_page()  # its height shows on a page of its own
        _question(trial, number, shown)
        if made.get_y() + trial.get_y() - pdf.MARGIN > made.page_break_trigger:
            made.add_page()
        _question(made, number, shown)
    return bytes(made.output())


def key(exam: Exam) -> bytes:
    """The answer key."""
    words = WORDS[exam.language]
    made = _open(exam, words["exam_key"])
    pdf.paragraph(made, f"{words['not_for']} {words['again'].format(command=exam.command)}", 9)
    for number, shown in enumerate(exam.views, 1):
        if made.get_y() + 40 > made.page_break_trigger:  # a heading and some lines stay together
            made.add_page()
        _heading(made, f"{number}. {shown.question.id} {shown.title}", shown)
        for heading, text in exam_text.judged(shown):
            if heading:
                made.set_font("text", "B", 9)
                made.cell(0, 6, heading, new_x="LMARGIN", new_y="NEXT")
            _blocks(made, text, 9)
    return bytes(made.output())


def _open(exam: Exam, what: str):
    """A document with its title and the facts below it."""
    made = pdf.sheet(f"{what}: {exam.title}, {WORDS[exam.language]['drawn'].format(seed=exam.seed)}", exam.language)
    made.add_page()
    made.set_font("text", "B", 16)
    made.multi_cell(0, 9, f"{what}: {exam.title}", align="L", new_x="LMARGIN", new_y="NEXT")
    made.set_font("text", size=10)
    made.multi_cell(0, 7, exam_text.facts(exam), new_x="LMARGIN", new_y="NEXT")
    return made


def _heading(made, text: str, shown: View) -> None:
    """The question's name, its points at the right margin."""
    made.ln(3)
    made.set_font("text", "B", 11)
    made.cell(0, 7, text)
    made.set_x(made.l_margin)
    made.set_font("text", size=10)
    made.cell(0, 7, exam_text.worth(shown), align="R", new_x="LMARGIN", new_y="NEXT")


def _question(made, number: int, shown: View) -> None:
    question = shown.question
    _heading(made, f"{number}. {shown.title}", shown)
    _blocks(made, shown.ask, 10)
    if question.code:
        pdf.code(made, question.code)
    if question.several:
        pdf.paragraph(made, f"*{WORDS[shown.language]['several']}*", 9)
    for option in shown.options:
        pdf.option(made, option)
    pdf.lines(made, exam_text.room(shown))
    made.ln(2)


def _blocks(made, text: str, size: float) -> None:
    """Markdown as the workbook uses it."""
    for kind, group in itertools.groupby(blocks(text), key=lambda block: block.kind):
        if kind == "row":
            _table(made, [block.cells for block in group], size)
        else:
            for block in group:
                _text(made, block, size)


def _text(made, block, size: float) -> None:
    """A paragraph, or an item of a list with a hanging indent."""
    if block.kind == "item":
        made.set_font("text", size=size)
        made.set_x(made.l_margin + 1)
        made.write(5.2, exam_text.mark(block))
        made.set_left_margin(pdf.MARGIN + INDENT)
        made.set_x(pdf.MARGIN + INDENT)
    pdf.paragraph(made, block.text.removeprefix(exam_text.BOX), size)
    made.set_left_margin(pdf.MARGIN)
    made.set_x(pdf.MARGIN)


def _table(made, rows: list[tuple[str, ...]], size: float) -> None:
    made.set_font("text", size=size)
    rows = [tuple("".join(piece for _, piece in spans(cell)) for cell in row) for row in rows]  # without the marks
    with made.table(rows, width=min(170, 42 * len(rows[0])), align="LEFT", line_height=5.5):
        pass
    made.ln(2)
