"""An exam's sheet and key as Markdown, and as a page that prints in black and white on A4; what both of them say."""

import html as escaping
import itertools

from workbook.blocks import Block, blocks, spans
from workbook.exam import Exam
from workbook.markdown import asked
from workbook.view import View
from workbook.wording import WORDS

LINES_A_POINT = 2  # to write on in an open question
BOX = "☐ "  # before an item that is to be ticked
CSS = """
@page { size: A4; margin: 18mm }
body { font: 11pt/1.35 Georgia, 'DejaVu Serif', serif; color: #000; background: #fff; max-width: 174mm; margin: auto;
       padding: 4mm }
h1 { font-size: 18pt; margin: 0 0 3mm } h2 { font-size: 12pt; margin: 6mm 0 1mm; break-after: avoid }
h2 span { float: right; font-weight: normal } h3 { font-size: 11pt; margin: 2mm 0 0; break-after: avoid }
section { break-inside: avoid } .key section { break-inside: auto }
code, pre { font: 9.5pt 'DejaVu Sans Mono', monospace }
pre { border: 0.3mm solid #000; padding: 2mm; white-space: pre-wrap }
.line { border-bottom: 0.2mm solid #777; height: 8mm } .box { display: flex; gap: 2mm; margin: 1.2mm 0 }
.box::before { content: ''; flex: none; width: 3.4mm; height: 3.4mm; margin-top: 0.7mm; border: 0.3mm solid #000 }
table { border-collapse: collapse } td, th { border: 0.2mm solid #777; padding: 0.5mm 2mm; text-align: left }
p { margin: 1mm 0 } ul, ol { margin: 1mm 0 }
"""


# What the sheet and the key say, whatever they are printed as ---------------------------------------------------------

def facts(exam: Exam) -> str:
    """How many questions and points, and which series: what ties a sheet to its key."""
    words = WORDS[exam.language]
    counted = words["exam_facts"].format(questions=len(exam.views), points=exam.points)
    return f"{counted} · {words['drawn'].format(seed=exam.seed)}"


def worth(shown: View) -> str:
    """'1 point', '3 points'."""
    words, count = WORDS[shown.language], shown.question.worth
    return f"{count} {words['point' if count == 1 else 'point_many']}"


def room(shown: View) -> int:
    """Lines to write on."""
    return LINES_A_POINT * shown.question.worth if shown.question.open else 0


def rubric(shown: View) -> str:
    """What earns which points, as Markdown."""
    words = WORDS[shown.language]
    if shown.question.open:
        return words["rubric_open"] + "\n\n" + "\n".join(f"- ☐ {point}" for point in shown.points)
    return words["rubric_several" if shown.question.several else "rubric_choice"].format(letters=shown.answer)


def judged(shown: View) -> list[tuple[str | None, str]]:
    """A question's part of the key: (heading, Markdown)."""
    words = WORDS[shown.language]
    letters = f"**{shown.answer}.** " if shown.answer else ""
    wrong = [f"- **{option.letter}** {option.why}" for option in shown.options if not option.right]
    found = [(None, letters + shown.short), (words["rubric"], rubric(shown)), (words["wrong"], "\n".join(wrong)),
             (words["explained"], shown.long)]
    return [(heading, text) for heading, text in found if text]


# Markdown -------------------------------------------------------------------------------------------------------------

def markdown(exam: Exam, part: str) -> str:
    """The sheet or the key."""
    words = WORDS[exam.language]
    if part == "key":
        lines = [f"# {words['exam_key']}: {exam.title}", f"*{facts(exam)}. {words['not_for']}*",
                 words["again"].format(command=exam.command)]
    else:
        lines = [f"# {words['exam']}: {exam.title}", f"*{facts(exam)}*",
                 f"{words['name']}: {'.' * 50} {words['date']}: {'.' * 20}", words["exam_rules"]]
    for number, shown in enumerate(exam.views, 1):
        lines += _key_entry(number, shown) if part == "key" else _question(number, shown)
    return "\n\n".join(lines) + "\n"


def _question(number: int, shown: View) -> list[str]:
    lines = [f"## {number}. {shown.title} ({worth(shown)})", shown.ask, *asked(shown, "- ☐")]
    return lines + ["&nbsp;\n\n---"] * room(shown)


def _key_entry(number: int, shown: View) -> list[str]:
    lines = [f"## {number}. {shown.question.id} {shown.title} ({worth(shown)})"]
    for heading, text in judged(shown):
        lines += [f"**{heading}**", text] if heading else [text]
    return lines


# A page ---------------------------------------------------------------------------------------------------------------

def html(exam: Exam, part: str) -> str:
    """The sheet or the key; nothing in it is loaded from elsewhere."""
    words = WORDS[exam.language]
    title = f"{words['exam_key' if part == 'key' else 'exam']}: {exam.title}"
    if part == "key":
        head = [f"{facts(exam)}. {words['not_for']}", words["again"].format(command=exam.command)]
    else:
        head = [facts(exam), f"{words['name']}: {'.' * 60} {words['date']}: {'.' * 24}", words["exam_rules"]]
    body = [f"<h1>{inline(title)}</h1>", *(f"<p>{inline(line)}</p>" for line in head)]
    for number, shown in enumerate(exam.views, 1):
        body.append(f"<section>{_key_section(number, shown) if part == 'key' else _section(number, shown)}</section>")
    return (f'<!doctype html>\n<html lang="{exam.language}"><meta charset="utf-8"><title>{inline(title)}</title>\n'
            f'<style>{CSS}</style>\n<body class="{part}">\n' + "\n".join(body) + "\n</body></html>\n")


def _section(number: int, shown: View) -> str:
    question = shown.question
    parts = [f"<h2>{number}. {inline(shown.title)} <span>{worth(shown)}</span></h2>", block_html(shown.ask)]
    if question.code:
        parts.append(f"<pre>{escaping.escape(question.code.rstrip())}</pre>")
    if question.several:
        parts.append(f"<p><i>{inline(WORDS[shown.language]['several'])}</i></p>")
    parts += [f'<div class="box"><span><b>{option.letter}</b> {inline(option.text)}</span></div>'
              for option in shown.options]
    return "\n".join(parts + ['<div class="line"></div>'] * room(shown))


def _key_section(number: int, shown: View) -> str:
    parts = [f"<h2>{number}. {shown.question.id} {inline(shown.title)} <span>{worth(shown)}</span></h2>"]
    for heading, text in judged(shown):
        parts += [f"<h3>{inline(heading)}</h3>"] if heading else []
        parts.append(block_html(text))
    return "\n".join(parts)


def block_html(text: str) -> str:
    """Markdown as the workbook uses it; an item of a list is a paragraph that begins with its mark."""
    parts = []
    for kind, group in itertools.groupby(blocks(text), key=lambda block: block.kind):
        if kind == "row":
            rows = [(block.cells, "th" if block.head else "td") for block in group]
            parts.append("<table>" + "".join("<tr>" + "".join(f"<{tag}>{inline(cell)}</{tag}>" for cell in cells)
                                             + "</tr>" for cells, tag in rows) + "</table>")
        else:
            parts += [f"<p>{inline(f'{mark(block)} {block.text.removeprefix(BOX)}'.strip())}</p>" for block in group]
    return "\n".join(parts)


def mark(block: Block) -> str:
    """What is printed before an item: a number, a box to tick or a bullet, never two of them; nothing before a text."""
    if block.mark == "-":
        return BOX.strip() if block.text.startswith(BOX) else "•"
    return block.mark


def inline(text: str) -> str:
    """One line: code, bold and italic; all else as it is written."""
    tags = {"code": "code", "bold": "b", "italic": "i"}
    return "".join(f"<{tags[kind]}>{escaping.escape(piece)}</{tags[kind]}>" if kind in tags else escaping.escape(piece)
                   for kind, piece in spans(text))
