"""What a person sees, in a real Chromium: both panes with different graphs, the tour, the comparison's page."""

import shutil
import time

import pytest

from tests.helpers import browser
from whisper_lab.sweeps import cli

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pairs():
    from tests.helpers import export_tiny

    return export_tiny.exported().pairs


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as made:
        yield made


@pytest.fixture(scope="module")
def explored(chromium, pairs):
    """The encoder in fp32 and int8, both panes loaded."""
    with browser.explorer("--graphs", pairs["fp32"]["encoder"], pairs["int8"]["encoder"]) as (_, address):
        page = browser.page(chromium)
        page.goto(address)
        for side in ("left", "right"):
            page.frame_locator(f"#{side}").locator("g.node").first.wait_for(timeout=60_000)
        yield page


def nodes(page, side):
    """Names of the nodes drawn in a pane: Netron puts them into the elements' ids."""
    drawn = page.frame_locator(f"#{side}").locator("g.node[id^='node-name-']").all()
    return [one.get_attribute("id").removeprefix("node-name-") for one in drawn]


def test_both_panes_load_and_show_different_graphs(explored, pairs):
    from whisper_lab.compare.graph_facts import read

    for side, precision in (("left", "fp32"), ("right", "int8")):
        expected = [node.name for node in read(pairs[precision]["encoder"]).graph.node]
        assert sorted(nodes(explored, side)) == sorted(expected)
    texts = [explored.frame_locator(f"#{side}").locator("#target").text_content() for side in ("left", "right")]
    assert "DynamicQuantizeLinear" in texts[1] and "DynamicQuantizeLinear" not in texts[0]


def test_the_tour_opens_its_nodes_in_both_panes(explored):
    stops = explored.locator("#tour button")
    assert stops.count() >= 8
    for i in range(stops.count()):
        stops.nth(i).click()
        codes = stops.nth(i).locator("code").all_inner_texts()
        sides = [text.split(":")[0] for text in stops.nth(i).locator("small").all_inner_texts()[1:]]
        for side, name in zip(sides, codes, strict=True):
            chosen = explored.frame_locator(f"#{side}").locator("g.node.select")
            chosen.first.wait_for(timeout=10_000)
            assert [one.get_attribute("id") for one in chosen.all()] == [f"node-name-{name}"]
            assert explored.locator("#status").inner_text() == ""
            assert in_sight(explored, chosen.first), f"{name} was not scrolled into view"


def in_sight(page, element, seconds=5.0):
    """Does the element come to stand within the window? The panes scroll there in half a second."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        box, window = element.bounding_box(), page.viewport_size
        if 0 < box["y"] < window["height"] and 0 < box["x"] < window["width"]:
            return True
        page.wait_for_timeout(100)
    return False


def test_an_operator_row_leads_to_its_first_node(explored):
    explored.locator("#counts button", has_text="MatMulInteger").click()
    chosen = explored.frame_locator("#right").locator("g.node.select")
    chosen.first.wait_for(timeout=5000)
    assert "MatMulInteger" in chosen.first.text_content()


def test_nothing_reaches_out_and_nothing_is_asked(explored):
    assert explored.trouble == []
    for side in ("left", "right"):
        frame = explored.frame_locator(f"#{side}")
        assert not frame.locator("#message-text", has_text="update").is_visible()
        assert not frame.locator("#message-text", has_text="cookies").is_visible()


@pytest.fixture(scope="module")
def compared(references):
    """The address of 04's page of a tiny model."""
    from tests.helpers import compare_tiny

    _, _, _, folder, name = compare_tiny.comparison()
    return (folder / f"compare-{name}.html").as_uri()


def test_the_comparison_renders_without_errors_or_requests(chromium, compared):
    page = browser.page(chromium, 1280, 900)
    page.goto(compared)
    assert page.trouble == []
    loaded = page.evaluate("() => [...document.images].map((one) => one.complete && one.naturalWidth)")
    assert loaded == [1280] * 5
    assert page.locator("h2").all_inner_texts()[:3] == ["Verdict", "Size", "Text"]
    page.locator("h2", has_text="Text").click()
    assert page.locator(".aligned").count() == 3  # pytorch, fp32 and int8
    assert page.locator(".aligned .S, .aligned .I, .aligned .D").first.is_visible()
    page.locator("h2", has_text="Size").click()
    page.locator("details details summary").first.click()
    assert page.locator("details details[open] table").first.is_visible()


@pytest.mark.parametrize(("width", "theme"), [(1280, "dark"), (390, "light")])
def test_the_comparison_is_short_and_fits_its_window(chromium, compared, width, theme):
    """The verdict is what one sees; all else is folded. Also unfolded, tables scroll and the page does not."""
    page = browser.page(chromium, width, 800, color_scheme=theme)
    page.goto(compared)
    table = page.locator("table", has_text="speed, fp32 = 1").first
    assert table.is_visible() and table.bounding_box()["y"] < 500
    opened = page.locator("details.part[open] h2").all_inner_texts()
    assert opened == ["Verdict"] and page.evaluate("() => document.documentElement.scrollHeight") < 3000
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    legible(page, width)
    assert is_dark(page) == (theme == "dark")
    filtered = page.evaluate("() => getComputedStyle(document.querySelector('img')).filter")
    assert ("invert" in filtered) == (theme == "dark")


def legible(page, width):
    """Every picture is seen whole, and its letters are 12 pixels high or more.

    They have 15 points of 100 dots an inch, 21 pixels, on a slide of 1280; on the narrow one 8.5 of 200, 24 pixels.
    """
    letters = {1280: 15 / 72 * 100, 728: 8.5 / 72 * 200}
    for one in page.locator("img").all():
        one.scroll_into_view_if_needed()
        natural, left, shown, scrolls = one.evaluate(
            "one => one.decode().then(() => [one.naturalWidth, one.getBoundingClientRect().left,"
            " one.getBoundingClientRect().width, one.parentElement.scrollWidth > one.parentElement.clientWidth + 1])")
        assert left >= 0 and left + shown <= width and not scrolls
        assert letters[natural] * shown / natural >= 11.5


@pytest.mark.parametrize("width", [1280, 390])
def test_the_analysis_of_a_sweep_fits_its_window(chromium, tmp_path, width):
    folder = tmp_path / "results_a100_whisper"
    folder.mkdir()
    for freq, seconds in ((510, 8), (960, 5), (1410, 4)):
        (folder / f"A100_freq_{freq}_run_01_log.txt").write_text(f"Total Inference Time: {seconds}.00s\n")
        (folder / f"A100_freq_{freq}_run_01_profile.csv").write_text(
            "timestamp,power.draw [W]\n" + "".join(f"2025/08/28 12:00:0{second}.000,{freq / 4}\n"
                                                   for second in range(seconds + 1)))
    assert cli.main(["analyze", str(folder)]) == 0
    page = browser.page(chromium, width, 800)
    page.goto((folder / "energy_analysis.html").as_uri())
    assert page.trouble == [] and page.locator("img").count() >= 1
    page.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    legible(page, width)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def is_dark(page):
    background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    return sum(int(one) for one in background[4:-1].split(",")[:3]) < 200


@pytest.fixture(scope="module")
def journey(nano, run_script, tmp_path_factory):
    """07's page of a clip whose name is markup: its address, and the name."""
    folder = tmp_path_factory.mktemp("journey")
    clip = folder / "a<!--<script>b.wav"
    shutil.copy(nano.parent.parent / "media" / "kitchen.wav", clip)
    run = run_script("07-explore-architecture.py", "--preset", "nano", "--trace", clip, "--threads", "1",
                     "--output-dir", folder)
    assert run.returncode == 0, run.stderr
    return (folder / "trace-a<!--<script>b.html").as_uri(), clip.name


def test_the_journey_plays_under_its_own_policy(chromium, journey):
    """07's page: its script runs, its pictures and its sound are there, and no other script would run."""
    page = browser.page(chromium, 1280, 900)
    page.goto(journey[0])
    assert page.evaluate("() => document.images.length") >= 5
    assert page.evaluate("() => Promise.all([...document.images].map((one) => one.decode())).then(() => true)")
    page.wait_for_function("() => document.querySelector('audio').duration > 1", timeout=10_000)
    assert page.trouble == [] and journey[1] in page.content().replace("&lt;", "<").replace("&gt;", ">")
    page.evaluate("""() => { const more = document.createElement('script'); more.textContent = 'window.ran = 1';
                             document.body.append(more); }""")
    assert page.evaluate("() => window.ran") is None and "Content Security Policy" in page.trouble[0]


@pytest.mark.parametrize("width, theme", [(1280, "light"), (390, "dark")])
def test_the_journeys_moment_is_seen_in_every_picture(chromium, journey, width, theme):
    """Each picture has its axis, the line is drawn over all of them, and what is said of it covers none."""
    page = browser.page(chromium, width, 900, color_scheme=theme)
    page.goto(journey[0])
    pictures = page.locator(".panel")
    assert pictures.count() == 5 and page.locator(".axis").count() == 5
    for i in range(5):
        pictures.nth(i).evaluate("one => one.scrollIntoView({block: 'center'})")
        box = pictures.nth(i).bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        line = page.evaluate("() => { const line = document.getElementById('line').getBoundingClientRect(); "
                             "document.getElementById('line').style.pointerEvents = 'auto'; return line.x + 1; }")
        assert line == pytest.approx(box["x"] + box["width"] / 2, abs=2)
        over = "([x, y]) => document.elementFromPoint(x, y).id"
        assert page.evaluate(over, [line, box["y"] + box["height"] / 2]) == "line"
        said = page.locator("#here").bounding_box()
        assert "audio vector" in page.locator("#here").inner_text() and said["y"] + said["height"] <= box["y"]
        page.evaluate("() => { document.getElementById('line').style.pointerEvents = 'none'; }")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert is_dark(page) == (theme == "dark") and page.trouble == []


@pytest.mark.parametrize("width, theme", [(1280, "light"), (390, "dark")])
def test_who_spoke_plays_what_is_clicked_on(chromium, tmp_path, width, theme):
    """10's page: a lane for each speaker; a word plays from where it was said; it fits a telephone in both themes."""
    import numpy as np

    from whisper_lab.alignment import Word
    from whisper_lab.speakers import report
    from whisper_lab.speakers.turns import Turn
    from whisper_lab.speakers.words import Line

    evil = "<b>Eve</b>" + 30 * "x"
    lines = [Line(0, 0.5, 1.5, "good", [Word("good", 0.5, 1.5, [])]), Line(1, 2.0, 3.0, "bye", [Word("bye", 2, 3, [])])]
    report.write_page(tmp_path / "who.html", "a<!--<script>.wav", np.zeros(64000, np.float32),
                [Turn(0, 0.4, 1.6), Turn(1, 1.9, 3.1)], lines, ["Ann", evil], "2 speakers")
    page = browser.page(chromium, width, 900, color_scheme=theme)
    page.goto((tmp_path / "who.html").as_uri())
    page.wait_for_function("() => document.querySelector('audio').duration > 3.9", timeout=10_000)
    assert page.locator(".lane b").all_inner_texts()[1].startswith("<b>Eve</b>")
    page.locator(".word", has_text="bye").click()
    page.wait_for_function("() => document.querySelector('audio').currentTime >= 2", timeout=10_000)
    page.evaluate("() => document.querySelector('audio').pause()")
    page.locator(".turn").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => Math.abs(document.querySelector('audio').currentTime - 0.4) < 0.3", timeout=10_000)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.locator("#axis").bounding_box()["x"] == pytest.approx(page.locator(".track").first.bounding_box()["x"],
                                                                      abs=2)
    assert page.trouble == []


def test_the_front_page_runs_no_script_but_its_own(explored):
    explored.evaluate("""() => { const more = document.createElement('script'); more.textContent = 'window.ran = 1';
                                 document.body.append(more); }""")
    assert explored.evaluate("() => window.ran") is None and "Content Security Policy" in explored.trouble.pop()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_graphs_of_a_telephone_are_as_wide_as_it_is(chromium, pairs, theme):
    """One thing at a time: the tour, then the graph in which the chosen stop is; the page is as dark as Netron's."""
    fp32 = pairs["fp32"]
    with browser.explorer("--graphs", fp32["encoder"], fp32["decoder"], "--slim") as (_, address):
        page = browser.page(chromium, 390, 844, color_scheme=theme)
        page.goto(address)
        for side in ("left", "right"):
            page.frame_locator(f"#{side}").locator("g.node").first.wait_for(timeout=60_000, state="attached")
        assert page.locator("aside").is_visible() and not page.locator("#left").is_visible()
        page.locator("#tour button", has_text="Sound comes in").click()
        assert page.locator("#left").is_visible() and page.locator("#left").bounding_box()["width"] == 390
        chosen = page.frame_locator("#left").locator("g.node.select")
        assert in_sight(page, chosen.first)
        page.locator("#switch button", has_text="Tour").click()
        page.locator("#tour button", has_text="The logits").click()
        assert page.locator("#right").is_visible() and not page.locator("#left").is_visible()
        assert in_sight(page, page.frame_locator("#right").locator("g.node.select").first)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        assert is_dark(page) == (theme == "dark") and page.trouble == []


def test_encoder_beside_decoder_on_a_laptop(chromium, pairs, tmp_path):
    """--parts: three columns in 1280 pixels, named after the parts; no difference is counted where there is none."""
    for part, path in pairs["fp32"].items():
        shutil.copy(path, tmp_path / f"whisper-mine_{part}.onnx")
    with browser.explorer("--model", "whisper-mine", "--model-dir", tmp_path, "--parts") as (_, address):
        page = browser.page(chromium, 1280, 720)
        page.goto(address)
        for side in ("left", "right"):
            page.frame_locator(f"#{side}").locator("g.node").first.wait_for(timeout=60_000)
            assert page.locator(f"#{side}").bounding_box()["width"] > 450
        assert page.locator("aside").evaluate("one => one.scrollWidth <= one.clientWidth")
        assert page.locator("thead th:visible").all_inner_texts() == ["operator", "encoder", "decoder"]
        assert "decoder: " in page.locator("#tour button", has_text="The logits").inner_text()
        assert not page.locator("#switch").is_visible() and page.trouble == []
