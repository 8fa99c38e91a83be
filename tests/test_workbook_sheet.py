"""python -m workbook.exam: what it draws, what the sheet shows and hides, what the key says,
and that it can be drawn again."""

import re

import pytest

from tests.helpers import workbook_tiny
from whisper_lab.console import LabError
from workbook import exam, questions
from workbook.exam import draw


@pytest.fixture(scope="module")
def book():
    return questions.load()


@pytest.fixture(scope="module")
def results(book, tmp_path_factory):
    return workbook_tiny.write(tmp_path_factory.mktemp("results"), book)


@pytest.fixture
def written(results, tmp_path):
    """A function (*arguments) -> (sheet, key) as they were written."""
    def run(*arguments, form="md", seed="3", lang="en"):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        assert exam.main(["--results", str(results), "--output-dir", str(folder), "--seed", seed, "--lang", lang,
                          "--format", form, "--quiet", *arguments]) == 0
        return tuple((folder / f"exam-{lang}-{seed}{end}.{form}").read_bytes() for end in ("", "-key"))

    return run


def test_questions_are_spread_over_topics_and_begin_with_the_easy_ones(book):
    drawn = draw(book, len(book.topics), [], [], 0)
    assert {one.topic for one in drawn} == set(book.topics), "one of each topic"
    assert [one.level for one in drawn] == sorted(one.level for one in drawn)
    chosen = draw(book, 6, ["export", "quantization"], [2, 3], 7)
    assert {one.topic for one in chosen} == {"export", "quantization"} and {one.level for one in chosen} <= {2, 3}
    assert sum(one.topic == "export" for one in chosen) == 3
    assert draw(book, 10, [], [], 1) == draw(book, 10, [], [], 1) != draw(book, 10, [], [], 2)
    assert len({one.id for one in draw(book, len(book.questions), [], [], 0)}) == len(book.questions)


def test_too_few_questions_are_an_error_that_says_how_many_there_are(book):
    with pytest.raises(LabError, match="only 0 such questions, not 1"):
        draw(book, 1, ["netron"], [3], 0)
    with pytest.raises(LabError) as raised:
        draw(book, 500, [], [], 0)
    assert f"ask for {len(book.questions)} with --questions" in raised.value.remedy


@pytest.mark.parametrize("form", exam.FORMATS)
def test_the_same_seed_is_the_same_exam(written, form):
    assert written("--questions", "4", form=form) == written("--questions", "4", form=form)
    assert written("--questions", "4", form=form)[0] != written("--questions", "4", form=form, seed="4")[0]


@pytest.mark.parametrize("form", ["md", "html"])
def test_the_sheet_has_points_and_room_and_no_hint(book, written, form):
    sheet, key = (page.decode() for page in written("--questions", str(len(book.questions)), form=form))
    points = sum(one.worth for one in book.questions.values())
    assert f"{len(book.questions)} questions, {points} points" in sheet
    lines = sheet.count('<div class="line">') if form == "html" else sheet.count("&nbsp;\n\n---")
    assert lines == 2 * sum(one.worth for one in book.questions.values() if one.open)
    for one in book.questions.values():
        assert not re.search(rf"\b{re.escape(one.id)}\b", sheet.replace(one.ask.en, "")), "it leads to the answer"
        assert not one.command or one.command not in sheet
        assert one.id in key
    for text in ("Misconception", "Explanation", "python -m"):
        assert text not in sheet and text in key
    assert "More than one answer is right" in sheet and "☐" in key


def test_what_is_to_be_ticked_has_a_box_and_no_bullet(written):
    from workbook.blocks import blocks
    from workbook.exam_text import mark

    _, key = (page.decode() for page in written("--questions", "6", "--difficulty", "3", form="html"))
    assert "<p>☐ " in key and "• ☐" not in key and "<p>• <b>" in key
    assert [mark(one) for one in blocks("text\n\n- ☐ a point\n- a reason\n\n1. a step")] == ["", "☐", "•", "1."]


def test_the_title_is_that_of_an_exam_not_of_the_workbook(written):
    sheet, key = (page.decode() for page in written("--questions", "2", lang="nl"))
    assert sheet.startswith("# Examen: Whisper ONNX Lab\n")
    assert key.startswith("# Correctiesleutel bij het examen: Whisper ONNX Lab\n")


def test_the_key_says_what_earns_which_points(book, written):
    sheet, key = (page.decode() for page in written("--questions", str(len(book.questions))))
    for number, shown in enumerate(re.split(r"^## ", key, flags=re.M)[1:], 1):
        question = book.questions[re.match(r"\d+\. (\d\.\d\d)", shown)[1]]
        assert f"({question.worth} point" in shown.splitlines()[0]
        if question.open:
            assert shown.count("- ☐ ") == question.worth and "½ where it is only named" in shown
            continue
        letters = re.search(r"\*\*([A-F](, [A-F])*)\.\*\* ", shown)[1].split(", ")
        asked = re.split(r"^## ", sheet, flags=re.M)[number]
        options = dict(re.findall(r"- ☐ \*\*([A-F])\*\* (.*)", asked))
        right = {" ".join(one.text.en.split()) for one in question.choices if one.right}
        assert {" ".join(options[letter].split()) for letter in letters} == right, "the key's letters are the sheet's"


def test_both_languages_have_the_same_letters(written):
    english, dutch = (re.findall(r"\*\*([A-F, ]+)\.\*\*", written("--questions", "20", lang=lang)[1].decode())
                      for lang in ("en", "nl"))
    assert english == dutch and len(english) > 8


def test_a_page_loads_nothing_and_says_what_is_code(written):
    sheet, key = (page.decode() for page in written("--topics", "export", "--questions", "5", form="html"))
    assert "<code>" in key and "`" not in key and "**" not in key
    assert not re.search(r"(src|href)=", sheet + key) and "@page { size: A4" in sheet


def test_pdfs_are_a4_and_dated_by_no_clock(written):
    for page in written("--questions", "6", form="pdf"):
        assert page.startswith(b"%PDF-") and b"/MediaBox [0 0 595.28 841.89]" in page
        assert b"/CreationDate (D:20000101000000Z)" in page


@pytest.mark.parametrize("arguments, named", [(["--topics", "cooking"], "there are recording, "),
                                              (["--questions", "0"], "--questions starts at 1"),
                                              (["--difficulty", "4"], "invalid choice: '4'")])
def test_wrong_usage_names_what_there_is(arguments, named, capsys):
    with pytest.raises(SystemExit) as ended:
        exam.main(arguments)
    assert ended.value.code == 2 and named in capsys.readouterr().err


def test_without_fpdf_the_remedy_is_a_page(monkeypatch, results, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "fpdf", None)
    with pytest.raises(LabError) as raised:
        exam.main(["--format", "pdf", "--results", str(results), "--output-dir", str(tmp_path), "--quiet"])
    assert "--format html" in raised.value.remedy and not list(tmp_path.iterdir())
