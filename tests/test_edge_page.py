"""The page of edge/web in a real Chromium: a file, the microphone, no network, and things that are not sound.

How it loads, and what it loads, is in test_edge_loading.py.
"""

import os
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.helpers import browser, edge_page
from tests.helpers.edge_page import graph as graph  # the fixture
from whisper_lab import audio, confidence
from whisper_lab.metrics import word_errors
from whisper_lab.single import graph as single_graph

pytestmark = pytest.mark.browser
MEDIA = Path(__file__).resolve().parent.parent / "media"
MICROPHONE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
              f"--use-file-for-fake-audio-capture={MEDIA / 'kitchen.wav'}")


@pytest.fixture(scope="module")
def python(graph):
    """samples -> text, by the same graph in Python."""
    session = single_graph.open_graph(graph, 1)
    return lambda samples: session.run(["text"], {"samples": np.asarray(samples, np.float32)[None]})[0][0]


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium(*MICROPHONE) as made:
        yield made


@pytest.fixture(scope="module")
def page(chromium, graph):
    with browser.served(edge_page.built(graph)) as address:
        opened = browser.page(chromium, 1000, 900)
        opened.goto(address)
        edge_page.wait_until_loaded(opened)
        yield opened


def test_a_file_gives_pythons_text(page, python):
    for count, clip in enumerate(("kitchen", "nederlands", "digits"), start=1):
        page.set_input_files("#file", MEDIA / f"{clip}.wav")
        result = edge_page.wait_for_result(page, count)
        samples = audio.load(MEDIA / f"{clip}.wav").samples
        assert len(result["samples"]) == len(samples) and np.abs(result["samples"] - samples).max() < 1e-4
        assert result["text"] == python(samples) and result["text"]
        assert page.locator("#results li p").first.inner_text() == result["text"]
        assert result["real_time_factor"] == pytest.approx(result["seconds"] / (len(samples) / 16000))
    shown = page.locator("#results li small").first.inner_text()
    assert shown.startswith("digits.wav: ") and f"real-time factor {result['real_time_factor']:.2f}" in shown
    assert "real-time factor" in page.locator("#facts").inner_text() and page.trouble == []


def test_what_loading_took_is_shown(page):
    load = page.evaluate("() => lab.load")
    assert 0 < load["open_s"] < load["total_s"] and load["threads"] == 1 and not load["from_cache"]
    shown = re.search(r"loaded in\n([\d.]+) s", page.locator("#facts").inner_text())
    assert float(shown[1]) == pytest.approx(load["total_s"], abs=0.06)
    assert not page.locator("#loading").is_visible()


def test_what_nano_knows_is_said_before_anybody_speaks(page):
    known = confidence.knowledge_of("whisper-nano")
    assert page.locator("#knows").is_visible() and known.what in page.locator("#what").inner_text()
    shown = page.locator("#sentences li").all_inner_texts()
    assert shown == [text for texts in known.sentences.values() for text in texts] and len(shown) > 3


def test_what_was_heard_is_in_sight_on_a_telephone(page):
    """Above the sentences to read aloud, which came first until something was heard."""
    before = page.evaluate("() => lab.results.length")
    page.set_viewport_size({"width": 390, "height": 844})
    page.set_input_files("#file", MEDIA / "time.wav")
    edge_page.wait_for_result(page, before + 1)
    heard, known = page.locator("#results li").first.bounding_box(), page.locator("#knows").bounding_box()
    assert heard["y"] + heard["height"] < min(844, known["y"])
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1000, "height": 900})


def test_the_microphone(page, python, references):
    """Chromium's fake microphone says the kitchen clip over and over; Python hears what the page has recorded."""
    before = page.evaluate("() => lab.results.length")
    page.locator("#record").click()
    page.wait_for_function("() => document.querySelector('#record.on')")
    page.wait_for_timeout(4000)
    assert page.locator("#recordlabel").inner_text() == "Stop"
    page.locator("#record").click()
    result = edge_page.wait_for_result(page, before + 1)
    assert 3 < len(result["samples"]) / 16000 < 8 and max(result["samples"]) > 0.05
    right = word_errors(python(result["samples"]), result["text"], "en")
    assert right.hits >= 4  # the recording may end inside a word: that one is a guess, and may be a near tie
    assert right.substitutions + right.insertions + right.deletions <= 1
    assert set(result["text"].split()) & set(references["kitchen.wav"]["text"].lower().split()), result["text"]


def test_a_long_clip_is_cut_into_windows(page, python):
    before = page.evaluate("() => lab.results.length")
    page.set_input_files("#file", MEDIA / "long.flac")
    result = edge_page.wait_for_result(page, before + 1)
    assert len(result["tokens"]) >= 4 and result["sound_s"] == pytest.approx(36.4, abs=0.1)
    pieces = page.evaluate("""async () => (await import('./windows.js'))
        .windows(lab.results.at(-1).samples, 160000, 16000).map((piece) => piece.length)""")
    assert sum(pieces) == len(result["samples"]) and max(pieces) <= 160000
    parts = np.split(np.array(result["samples"], np.float32), np.cumsum(pieces)[:-1])
    assert result["text"] == " ".join(map(python, parts)).strip()


def test_no_sound_is_an_error_that_helps(page, tmp_path):
    (tmp_path / "notes.txt").write_text("no sound")
    page.set_input_files("#file", tmp_path / "notes.txt")
    page.locator("#status.error", has_text="notes.txt is not sound this browser can read").wait_for(timeout=10_000)
    audio.write_wav(tmp_path / "after.wav", audio.load(MEDIA / "kitchen.wav").samples[:16000])
    before = page.evaluate("() => lab.results.length")
    page.set_input_files("#file", tmp_path / "after.wav")
    edge_page.wait_for_result(page, before + 1)
    assert page.locator("#status").inner_text() == "" and page.trouble == []


def test_it_works_without_the_server_after_the_first_load(chromium, graph, python):
    context = chromium.new_context()
    with browser.served(edge_page.built(graph)) as address:
        opened = context.new_page()
        opened.goto(address)
        phases = set()
        while not opened.evaluate("() => Boolean(lab?.offline)"):
            phases.add(opened.locator("#phase").inner_text().split(":")[0])
            time.sleep(0.02)
        assert phases & {"Loading", "Opening the graph"}
        assert opened.evaluate("() => lab.offline") == "yes"
    opened.reload()  # nobody answers at that address any more
    load = edge_page.wait_until_loaded(opened)
    assert load["from_cache"]
    opened.set_input_files("#file", MEDIA / "kitchen.wav")
    assert edge_page.wait_for_result(opened, 1)["text"] == python(audio.load(MEDIA / "kitchen.wav").samples)
    context.close()


def test_a_graph_that_does_not_open_is_told(chromium, graph, tmp_path):
    strange = onnx.load(graph)
    strange.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(strange, tmp_path / "strange.onnx")
    with browser.served(edge_page.built(tmp_path / "strange.onnx")) as address:
        opened = browser.page(chromium)
        opened.goto(address)
        opened.locator("#trouble", has_text="The graph cannot be used here").wait_for(timeout=60_000)
        assert "NoSuchOperator" in opened.locator("#trouble").inner_text()
        assert opened.locator("#load").inner_text() == "Retry" and opened.locator("#record").is_disabled()


def test_a_page_takes_no_place_but_that_of_another_page(graph, tmp_path):
    """It used to delete whatever --out named."""
    thesis, file = tmp_path / "own" / "thesis.txt", tmp_path / "file"
    thesis.parent.mkdir()
    thesis.write_text("years of work")
    file.write_text("mine")
    done = edge_page.build("--model", graph, "--out", thesis.parent)
    assert done.returncode == 1 and "has thesis.txt in it, which is no part of a page" in done.stderr
    assert "\n  try: name a folder" in done.stderr
    assert thesis.read_text() == "years of work" and edge_page.build("--model", graph, "--out", file).returncode == 1
    assert file.read_text() == "mine"
    page, link = tmp_path / "page", tmp_path / "link"
    page.mkdir(mode=0o750)
    link.symlink_to(page)
    assert edge_page.build("--model", graph, "--out", link).returncode == 0
    assert link.is_symlink() and (page / "manifest.json").is_file() and page.stat().st_mode & 0o777 == 0o750
    done = edge_page.build("--model", page / graph.name, "--out", page)
    assert done.returncode == 1 and "which the page replaces" in done.stderr and (page / graph.name).is_file()
    (page / "note.txt").write_text("mine")
    done = edge_page.build("--model", graph, "--out", page)
    assert done.returncode == 1 and "has note.txt in it" in done.stderr and (page / "note.txt").is_file()
    for place in (file / "below", "/proc/nowhere"):
        done = edge_page.build("--model", graph, "--out", place)
        assert done.returncode == 1 and done.stderr.startswith("error: cannot write ") and done.stderr.count("\n") == 2


def test_others_may_read_a_new_page(graph, tmp_path):
    assert edge_page.build("--model", graph, "--out", tmp_path / "page").returncode == 0
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "page").stat().st_mode & 0o777 == 0o777 & ~umask


def test_two_builds_of_one_page_at_once(graph, tmp_path):
    page = tmp_path / "page"
    for _ in range(3):
        builds = [subprocess.Popen(["node", "build.mjs", "--model", graph, "--out", page], cwd=edge_page.WEB,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        assert [(build.communicate()[1], build.returncode) for build in builds] == [("", 0)] * 3
        assert (page / "manifest.json").is_file() and (page / graph.name).stat().st_size == graph.stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_the_build_says_what_is_missing(graph, tmp_path):
    done = edge_page.build("--model", tmp_path / "none.onnx", "--out", tmp_path / "dist")
    assert done.returncode == 1 and "python 08-single-onnx-model.py" in done.stderr and not (tmp_path / "dist").exists()
    encoder = graph.with_name("whisper-nano_encoder_int8.onnx")
    done = edge_page.build("--model", encoder, "--out", tmp_path / "dist")
    assert done.returncode == 1 and "is not a single graph" in done.stderr
    fed_with_files = onnx.load(graph)
    recipe = next(entry for entry in fed_with_files.metadata_props if entry.key == "recipe")
    recipe.value = recipe.value.replace('"input": "samples"', '"input": "wav"')
    onnx.save(fed_with_files, tmp_path / "wav.onnx")
    done = edge_page.build("--model", tmp_path / "wav.onnx", "--out", tmp_path / "dist")
    assert done.returncode == 1 and "is not a single graph from samples" in done.stderr
    (tmp_path / "cut.onnx").write_bytes(graph.read_bytes()[:5000])
    done = edge_page.build("--model", tmp_path / "cut.onnx", "--out", tmp_path / "dist")
    assert done.returncode == 1 and "is not an ONNX graph" in done.stderr
    done = edge_page.build("--model", tmp_path, "--out", tmp_path / "dist")
    assert done.returncode == 1 and "is a folder, not a graph" in done.stderr and "--model GRAPH.onnx" in done.stderr
    done = edge_page.build("--help")
    assert done.returncode == 0 and all(f"  {name} " in done.stdout for name in ("--model", "--out", "--ask-above"))
    assert edge_page.build("--weights", "x").returncode == 2 and edge_page.build("--ask-above", "ten").returncode == 2
