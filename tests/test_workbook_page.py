"""The quiz as a page, in a real Chromium: asked, answered, explained, remembered by the browser."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.helpers import browser, workbook_tiny
from workbook import questions, quiz_page
from workbook.questions import HERE
from workbook.values import Results
from workbook.view import view

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as made:
        yield made


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The page on a free port, over evidence made for this test; ended as Ctrl-C does."""
    results = workbook_tiny.write(tmp_path_factory.mktemp("results"), questions.load())
    process = subprocess.Popen([sys.executable, "-m", "workbook.quiz", "--page", "--port", "0", "--lang", "en",
                                "--results", str(results)], cwd=HERE.parent, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        line = process.stdout.readline()
        assert "Running on local URL:  http://127.0.0.1:" in line, process.stderr.read()
        yield line.split()[-1]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


@pytest.fixture
def page(chromium, address):
    made = browser.page(chromium, 1100, 900)
    made.goto(address)
    made.locator("#start").wait_for(timeout=60_000)
    yield made
    made.close()


def choose(page, where, option):
    page.locator(f"{where} input").click()
    page.locator("[role=option]", has_text=option).first.click()


def started(page, topic, level=None):
    """A round on a topic that the page does not begin with; returns the id of the first question."""
    choose(page, "#topic", topic)
    if level:
        choose(page, "#level", level)
    page.locator("#start").click()
    page.locator("#question em", has_text=f"{topic} ·").first.wait_for(timeout=20_000)
    return heading(page)


def heading(page):
    """The id of the question on show."""
    return page.locator("#question h3").inner_text().split("·")[1].split()[0]


def answer(page, number, right):
    """Tick the right choice, or a wrong one, and have it judged."""
    texts = {choice.text.en.replace("`", ""): choice.right for choice in questions.load().questions[number].choices}
    page.locator("#options label").first.wait_for(timeout=10_000)
    tick(page, next(text for text, is_right in texts.items() if is_right == right))
    page.locator("#check").click()
    page.locator("#next").wait_for(timeout=20_000)


def said(label):
    """The text of a choice, without its letter."""
    return label.inner_text().strip().split(". ", 1)[1].replace(quiz_page.JOINER, "")


def tick(page, text):
    """Choose, and see that it stays chosen: a page that still draws its question forgets or moves what was ticked."""
    for _ in range(10):
        box = next(label for label in page.locator("#options label").all()
                   if said(label) == text).locator("input")
        if box.is_checked():
            return
        box.click(force=True)
        page.wait_for_timeout(300)
    raise AssertionError("the choice does not stay")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_is_asked_an_easy_question_at_once_and_nothing_is_wider_than_it(chromium, address, scheme):
    phone = browser.page(chromium, 390, 844, color_scheme=scheme)
    phone.goto(address)
    phone.locator("#question h3").wait_for(timeout=60_000)  # without a click
    first = questions.load().questions[heading(phone)]
    assert (first.level, first.script) == (1, "01")
    phone.locator("#check").wait_for(timeout=20_000)
    shown = phone.locator("#boxes" if first.several else "#options")
    shown.locator("label").first.click()
    phone.locator("#check").click()
    phone.locator("#next").wait_for(timeout=20_000)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    if first.evidence:
        figure = phone.locator("#figure img").first
        figure.wait_for(timeout=20_000)
        assert figure.bounding_box()["y"] < phone.locator("#next").bounding_box()["y"], "the way on is below it"
    phone.locator("#next").scroll_into_view_if_needed()
    phone.locator("#next").click()
    phone.locator("#question h3", has_text="2/10").wait_for(timeout=20_000)
    phone.wait_for_function("document.querySelector('#question').getBoundingClientRect().top >= 0")
    assert phone.locator("#question h3").bounding_box()["y"] < 844, "the next question is on the screen"
    red, green, blue = (int(part) for part in re.findall(r"\d+", phone.evaluate(
        "getComputedStyle(document.body).backgroundColor"))[:3])
    assert (red + green + blue < 150) == (scheme == "dark")
    assert phone.trouble == []
    phone.close()


CUT = """([text, words]) => {  // which of the words a line end cuts, where the choice on show says this text
  const node = document.querySelector('#options label span, #boxes label span').firstChild, before = node.data
  node.data = text
  const cut = words.filter((word) => {
    const range = document.createRange(), start = text.indexOf(word)
    range.setStart(node, start)
    range.setEnd(node, start + word.length)
    return new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1
  })
  node.data = before
  return cut
}"""


def test_on_a_phone_no_line_ends_within_an_option_of_a_command(chromium, address, tmp_path):
    """Every choice that names one, in both languages, on screens of several widths, in the place of the one on show."""
    results = Results(workbook_tiny.write(tmp_path, questions.load()))
    phone, tried = browser.page(chromium, 390, 844), 0
    phone.goto(address)
    phone.locator("#options label, #boxes label").first.wait_for(timeout=60_000)
    for width in range(390, 350, -10):
        phone.set_viewport_size({"width": width, "height": 844})
        for option in (option for one in questions.load().questions.values() for language in ("nl", "en")
                       for option in view(one, language, results).options):
            words = [word.replace("-", f"-{quiz_page.JOINER}") for code in re.findall("`([^`]+)`", option.text)
                     for word in code.split() if word.startswith("-")]
            if words:
                tried += 1
                assert phone.evaluate(CUT, [quiz_page.label(option), words]) == [], (width, option.text)
    assert tried > 10
    phone.close()


def test_lines_are_not_as_wide_as_the_screen(chromium, address):
    wide = browser.page(chromium, 1600, 900)
    wide.goto(address)
    wide.locator("#question h3").wait_for(timeout=60_000)
    assert wide.locator("#question").bounding_box()["width"] <= 900
    wide.close()


def test_a_level_says_what_it_asks_and_where_there_is_no_question_the_page_says_so(page):
    choose(page, "#topic", "Netron")
    choose(page, "#level", "3 judge")
    page.locator("#start").click()
    page.locator("#question", has_text="no question of this level on this topic").wait_for(timeout=20_000)
    assert not page.locator("#check").is_visible() and page.trouble == []


def test_several_right_choices_are_boxes(page):
    """One of them ticked earns its point; what the others cost is in test_workbook_exam.py."""
    known = questions.load().questions
    number = started(page, "deployment", "1")
    assert known[number].several
    texts = {choice.text.en.replace("`", ""): choice.right for choice in known[number].choices}
    page.locator("#boxes label").first.wait_for(timeout=20_000)
    assert "More than one answer is right" in page.locator("#question").inner_text()
    labels = page.locator("#boxes label").all()
    rights = [label for label in labels if texts[said(label)]]
    rights[0].click()
    page.locator("#check").click()
    page.locator("#next").wait_for(timeout=20_000)
    assert f"Partly right, 1 of {len(rights)}" in page.locator("#feedback").inner_text()
    assert page.trouble == []


def test_a_wrong_choice_is_explained_and_kept_by_the_browser(page, address):
    number = started(page, "Netron", "1")
    answer(page, number, right=False)
    feedback = page.locator("#feedback").inner_text()
    assert "Not right: it is" in feedback and "Why not" in feedback
    page.locator("#figure img").first.wait_for(timeout=20_000)
    assert f"To repeat: {number}" in page.locator("#score").inner_text()
    if shots := os.environ.get("WORKBOOK_SHOTS"):
        page.screenshot(path=shots)
    page.reload()  # another visit of the same browser: it still knows, and asks at once what went wrong
    page.locator("#question em", has_text="Netron ·").first.wait_for(timeout=60_000)
    assert heading(page) == number
    answer(page, number, right=True)
    assert page.locator("#feedback").inner_text().startswith("Right.")
    score = page.locator("#score").inner_text()
    assert "Score: 1 out of 1" in score and "To repeat" not in score
    assert page.trouble == []


def test_an_open_question_shows_the_model_answer_and_is_graded_by_oneself(page):
    number = started(page, "energy", "3")
    page.locator("#thought textarea").fill("wheels")
    assert not page.locator("#next").is_visible()
    page.locator("#reveal").click()
    page.locator("#partly").wait_for(timeout=20_000)
    feedback = page.locator("#feedback").inner_text()
    assert "Model answer" in feedback and questions.load().questions[number].points[0].en in feedback
    page.locator("#partly").click()
    page.locator("#next").wait_for(timeout=20_000)
    assert "Score: 0.5 out of 1" in page.locator("#score").inner_text()
    page.locator("#next").click()
    page.locator("#question", has_text="Done!").wait_for(timeout=20_000)
    assert page.trouble == []


def test_two_visitors_have_their_own_scores_and_the_page_speaks_dutch(chromium, address, page):
    answer(page, started(page, "Netron", "1"), right=True)
    other = browser.page(chromium, 1100, 900)  # a context of its own
    other.goto(address)
    other.locator("#language label", has_text="Nederlands").click()
    other.locator("#title", has_text="Quiz bij het").wait_for(timeout=20_000)
    started(other, "uitrol", "1")
    other.locator("#question h3", has_text="Wat meegaat naar het toestel").wait_for(timeout=20_000)
    assert other.locator("#next").is_visible() is False and "Score" not in other.locator("#score").inner_text()
    assert other.trouble == []
