"""Names, texts and metadata of strangers in reports: they show as they are, and do nothing."""

import html
import json
import re

import pytest

from whisper_lab import report, web
from whisper_lab.console import plain
from whisper_lab.pictures import Picture
from whisper_lab.report import Aligned, Section, Table

TEXTS = ["*bold* __under__ _x_ ~~gone~~ `code`", "[link](http://evil.example)", "![i](http://evil.example/x.png)",
         "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a|b|c", "# heading", "- item", "+ item",
         "> quote", "1. one", "12) twelve", "---", "===", "a\n\n# b", "a\r\n| x |", "back\\slash\\", "&lt;b&gt;", "$x$",
         "snake_case_x", "a_b*c*d", "</td></tr></table>", "\x1b[31m", "  # h", "```", "[x]: http://evil.example",
         "[^1]", "\u202etxt"]


def rendered(text):
    """What a reader of Markdown shows: (HTML, its text alone)."""
    markdown_it = pytest.importorskip("markdown_it")
    made = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    return made, html.unescape(re.sub(r"<[^>]+>", "", made)).strip("\n")


@pytest.mark.parametrize("text", TEXTS)
def test_in_markdown_it_shows_as_it_is(text):
    made, shown = rendered(web.markdown(text))
    assert set(re.findall(r"<(\w+)", made)) == {"p"} and shown.strip() == plain(text, one_line=True).strip()


def document(text):
    table = Table(text, ["what", text], [[text, 1]])
    section = Section(text, "intro", [text], tables=[table, Table(text, ["a"], [[text]], collapsed=True)],
                      aligned=[Aligned(text, [("S", text, text), ("=", text, text), ("D", text, "")])])
    return [section]


@pytest.mark.parametrize("text", TEXTS)
def test_in_a_report_it_does_nothing(text, tmp_path):
    made, _ = rendered(report.markdown(text, text, document(text), {}))
    harmless, _ = rendered(report.markdown("x", "x", document("x"), {}))
    assert re.findall(r"<\w+", made) == re.findall(r"<\w+", harmless)
    page, same = (report.html(one, one, document(one), {}) for one in (text, "x"))
    assert re.findall(r"</?\w+", page) == re.findall(r"</?\w+", same) and not re.search("[\x00-\x09\x0b-\x1f]", page)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<!--<script>", "]]>", "\u2028"])
def test_json_in_a_script_stays_in_it(text):
    made = web.script(json.dumps({"a": text}, ensure_ascii=False))
    assert "<" not in made and ">" not in made and "\u2028" not in made and json.loads(made) == {"a": text}


def test_a_picture_of_any_name_is_a_link_to_it(tmp_path):
    picture = tmp_path / "a (b) [c].png"
    section = Section("t", "i", figure="sizes")
    shown = {"sizes": Picture(picture, b"")}
    assert "(a%20%28b%29%20%5Bc%5D.png)" in report.markdown("t", "u", [section], shown)


@pytest.mark.parametrize("text", ["$^{$", "a$b$c", r"\$$x_$", "$$", "plain"])
def test_in_a_figure_a_dollar_is_a_dollar(text):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib.text import Text

    shown, is_math = Text(0, 0, "")._preprocess_math(web.drawn(text))
    assert not is_math and (shown == text or "\\" in text)


def test_a_graph_named_like_a_formula_is_drawn(tmp_path):
    from tests.helpers.export_tiny import exported
    from whisper_lab.compare.graph_facts import read
    from whisper_lab.netron import blocks

    pair = exported().pairs["fp32"]
    assert all(path.stat().st_size for path in blocks.draw(read(pair["encoder"]), "a$^{$b", tmp_path / "a"))
