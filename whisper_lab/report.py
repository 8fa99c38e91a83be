"""A report: sections of blocks, shown as Markdown and as one self-contained HTML page.

No script, no font, no picture from elsewhere.
"""

import base64
from dataclasses import dataclass, field

from whisper_lab import web
from whisper_lab.console import plain
from whisper_lab.metrics import Errors, aligned_rows
from whisper_lab.pictures import Picture


@dataclass(frozen=True)
class Table:
    """Rows of cells; `summary` is shown on the terminal at once, the others with --details, collapsed ones never."""

    title: str
    columns: list[str]
    rows: list[list]
    collapsed: bool = False
    summary: bool = False


@dataclass(frozen=True)
class Aligned:
    """A text against the right one, word by word: ("=", "S", "I" or "D"; right word; other word)."""

    title: str
    words: list


@dataclass
class Section:
    """A heading and what is under it."""

    title: str
    intro: str
    notes: list[str] = field(default_factory=list)
    figure: str | None = None  # name of the picture: pareto, sizes, operators, layers
    tables: list[Table] = field(default_factory=list)
    aligned: list[Aligned] = field(default_factory=list)


STYLE = """
:root { color-scheme: light dark; --ink: #1b2733; --soft: #52606d; --paper: #fff; --line: #d9e0e7; --head: #eef3f8;
        --accent: #1f4e79; --S: #ffe2b8; --I: #d3e8ff; --D: #ffd1d1; --was: #7a4a00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e2e6ea; --soft: #9aa5b1; --paper: #141414; --line: #363d46; --head: #23282e; --accent: #8ec1f0;
          --S: #59400f; --I: #1d3f61; --D: #632a2a; --was: #f0c27b; }
  img { filter: invert(.92) hue-rotate(180deg); } /* white paper becomes this page's, colours stay what they are */
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink); background: var(--paper);
       max-width: 1180px; margin: 1.5rem auto; padding: 0 clamp(.8rem, 3vw, 1.5rem); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .2rem; } h2 { font-size: 1.2rem; margin: 1.2rem 0 .2rem; }
.under { color: var(--soft); font-size: .85rem; margin: 0 0 1rem; }
ul { padding-left: 1.2rem; } li { margin: .25rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0 1.2rem; font-size: .88rem; font-variant-numeric: tabular-nums;
        overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th { background: var(--head); } th:first-child, td:first-child { text-align: left; }
img { width: 100%; max-width: 60rem; height: auto; display: block; margin: .8rem 0; }
details { margin: .4rem 0; } summary { cursor: pointer; color: var(--accent); }
.n { white-space: nowrap; }
@media (max-width: 40rem) { th, td { padding: .25rem .35rem; } table { font-size: .82rem; } }
.part { border-top: 1px solid var(--line); margin: 0; padding: .5rem 0; }
.part > summary h2 { display: inline; margin: 0; }
.aligned { margin: .2rem 0 1rem; line-height: 1.9; } .aligned b { font-weight: 600; }
.S, .I, .D { border-radius: .25rem; padding: .05rem .3rem; }
.S { background: var(--S); } .I { background: var(--I); } .D { background: var(--D); text-decoration: line-through; }
.S i { color: var(--was); font-style: normal; text-decoration: line-through; margin-right: .3rem; }
sub { font-size: .65rem; margin-left: .15rem; }
"""
NARROW = "40rem"  # of a window; up to here tables are denser, and pictures are those of a telephone
ONE_LINE = 20  # characters of a cell that does not break
SHOWN_OPEN = 12  # alignments; the rest is folded away


def markdown(title: str, under: str, sections: list[Section], pictures: dict[str, Picture]) -> str:
    """The report as Markdown; pictures stand beside it."""
    lines = [f"# {web.markdown(title)}", "", f"Measured on {web.markdown(under)}.", ""]
    for section in sections:
        lines += [f"## {web.markdown(section.title)}", "", section.intro, ""]
        lines += [f"- {web.markdown(note)}" for note in section.notes] + [""] * bool(section.notes)
        if section.figure in pictures:
            picture = web.address(pictures[section.figure].path.name)
            lines += [f"![{web.markdown(section.title)}]({picture})", ""]
        for table in section.tables:
            if not table.collapsed:
                lines += [*_markdown_table(table), ""]
        for block in section.aligned:
            rows = map(plain, aligned_rows(_as_errors(block)))
            lines += [web.markdown(block.title), "", "```text", *rows, "```", ""]
    return "\n".join(lines)


def _markdown_table(table: Table) -> list[str]:
    rows = [table.columns, ["---"] + ["---:"] * (len(table.columns) - 1), *table.rows]
    cells = [map(web.markdown, rows[0]), rows[1], *(map(web.markdown, row) for row in rows[2:])]
    return [f"**{web.markdown(table.title)}**", "", *(f"| {' | '.join(row)} |" for row in cells)]


def _as_errors(block: Aligned) -> Errors:
    return Errors(None, None, 0, 0, 0, 0, 0, 0, 0, "", [tuple(row) for row in block.words])


def html(title: str, under: str, sections: list[Section], pictures: dict[str, Picture], opened: int = 1) -> str:
    """The report as a page that needs nothing but itself; all but the first `opened` sections are folded."""
    body = "\n".join(_part(section, pictures, i < opened) for i, section in enumerate(sections))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<link rel="icon" href="data:,">\n'
            f"<style>{STYLE}</style></head><body>\n<h1>{_text(title)}</h1>\n"
            f'<p class="under">Measured on {_text(under)}.</p>\n{body}\n</body></html>\n')


def _part(section: Section, pictures: dict[str, Picture], opened: bool) -> str:
    """A section under its heading, which opens and folds it."""
    return (f'<details class="part"{" open" * opened}><summary><h2>{_text(section.title)}</h2></summary>\n'
            f"{_section(section, pictures)}</details>")


def _section(section: Section, pictures: dict[str, Picture]) -> str:
    """What stands below a section's heading."""
    parts = [f"<p>{_text(section.intro)}</p>", *(_table(table) for table in section.tables if table.summary)]
    if section.notes:
        parts.append("<ul>" + "".join(f"<li>{_text(note)}</li>" for note in section.notes) + "</ul>")
    parts += [_table(table) for table in section.tables if not (table.summary or table.collapsed)]
    if section.figure in pictures:
        parts.append(_picture(pictures[section.figure], f"{section.title}: {section.figure}"))
    parts += [_table(table) for table in section.tables if table.collapsed]
    wrong = [block for block in section.aligned if any(mark != "=" for mark, *_ in block.words)]
    right = [block for block in section.aligned if block not in wrong]
    parts += map(_aligned, wrong[:SHOWN_OPEN])
    for what, rest in (("more", wrong[SHOWN_OPEN:]), ("without an error", right)):
        if rest:
            parts.append(f"<details><summary>{len(rest)} {what}</summary>{''.join(map(_aligned, rest))}</details>")
    return "\n".join(parts)


def _picture(picture: Picture, name: str) -> str:
    """Drawn twice: letters that are large enough on a slide would be dots on a telephone."""
    wide, narrow = (f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
                    for data in (picture.path.read_bytes(), picture.narrow))
    return (f'<picture><source media="(max-width: {NARROW})" srcset="{narrow}">'
            f'<img alt="{_text(name)}" src="{wide}"></picture>')


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(column)}</th>" for column in table.columns)
    rows = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in table.rows)
    made = (f'<div class="wide"><table><caption>{_text(table.title)}</caption><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>")
    return f"<details><summary>{_text(table.title)}</summary>{made}</details>" if table.collapsed else made


def _cell(value: object) -> str:
    """A number with its unit or its interval stays on one line; sentences may break."""
    text = _text(value)
    return f'<td class="n">{text}</td>' if len(text) <= ONE_LINE and " " in text else f"<td>{text}</td>"


def _aligned(block: Aligned) -> str:
    """Words as they were written; where they differ from the right ones, coloured and marked S, I or D."""
    words = []
    for mark, right, other in block.words:
        if mark == "=":
            words.append(_text(other))
        else:
            shown = f"<i>{_text(right)}</i>{_text(other)}" if mark == "S" else _text(other or right)
            words.append(f'<span class="{mark}">{shown}<sub>{mark}</sub></span>')
    return f'<p class="aligned"><b>{_text(block.title)}</b><br>{" ".join(words) or "(no words)"}</p>'


def _text(value: object) -> str:
    return web.html(value)
