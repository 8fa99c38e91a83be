"""The workbook's Markdown taken apart into blocks, for pages and paper that are not Markdown themselves.

Paragraphs, lists, tables and pieces of code: what questions.yaml uses.
"""

import re
from dataclasses import dataclass

ITEM = re.compile(r"^(?=(?:- |\d\. ))", re.MULTILINE)  # where an item of a list begins
MARK = re.compile(r"(- |\d\. )(.*)", re.S)
INLINE = re.compile(r"(`[^`]+`|\*\*[^*]+\*\*|(?<!\w)\*[^*\s][^*]*\*(?!\w))")
KINDS = {"`": "code", "**": "bold", "*": "italic"}  # the mark on both sides


@dataclass(frozen=True)
class Block:
    """kind: text, item (mark: "-" or "1."), row (cells; head: of a table's first row)."""

    kind: str
    text: str = ""
    mark: str = ""
    cells: tuple[str, ...] = ()
    head: bool = False


def blocks(markdown: str) -> list[Block]:
    """Paragraphs, items of lists and rows of tables, in their order, each on one line."""
    found: list[Block] = []
    for paragraph in markdown.strip().split("\n\n"):
        if paragraph.lstrip().startswith("|"):
            found += _rows(paragraph)
            continue
        for piece in filter(str.strip, ITEM.split(paragraph)):
            item = MARK.match(piece)
            text = " ".join((item[2] if item else piece).split())
            found.append(Block("item", text, item[1].strip()) if item else Block("text", text))
    return found


def _rows(table: str) -> list[Block]:
    """The rows of a table; the line of dashes is none."""
    rows = [tuple(cell.strip() for cell in line.strip().strip("|").split("|")) for line in table.strip().splitlines()]
    rows = [row for row in rows if not all(set(cell) <= set("-: ") and cell for cell in row)]
    return [Block("row", cells=row, head=i == 0) for i, row in enumerate(rows)]


def spans(text: str) -> list[tuple[str, str]]:
    """One line of Markdown as (kind, text): code, bold, italic or plain."""
    found = []
    for piece in filter(None, INLINE.split(text)):
        mark = next((mark for mark in KINDS if INLINE.fullmatch(piece) and piece.startswith(mark)), "")
        found.append((KINDS.get(mark, "plain"), piece[len(mark):len(piece) - len(mark)]))
    return found
