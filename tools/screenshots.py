"""Make the screenshots in media/ again: recorder, comparison, graphs in Netron, web page, as a person sees them.

    python -m tools.screenshots            # needs Chromium, and whisper-nano's graphs: 03 --model nano --precision all
    python -m tools.screenshots recorder   # or netron, compare, web (after 08, int8), who (whisper-base): one of them
"""

import io
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402  (matplotlib brings it)

from tests.helpers import browser, edge_page  # noqa: E402
from whisper_lab import audio, console, files  # noqa: E402

COLOURS = 256  # a palette, chosen for coverage: small colours of a chart must stay what they are
SHOT = {"type": "png", "scale": "css"}
STOP = 3  # the first DynamicQuantizeLinear
WIDTH, HEIGHT = 1280, 800


def comparison(chromium, folder: Path) -> None:
    """The page of 04 from its top."""
    command = [sys.executable, str(ROOT / "04-compare-precisions.py"), "--model", "nano", "--audio",
               str(ROOT / "media"), "--output-dir", str(folder), "--threads", "1", "--quiet"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    page = browser.page(chromium, WIDTH, HEIGHT + 460)
    page.goto((folder / "compare-whisper-nano.html").as_uri())
    save(page, "compare.png")


def netron(chromium) -> None:
    """The encoder in fp32 and int8 at a stop of the tour."""
    with browser.explorer("--model", "nano") as (_, address):
        page = browser.page(chromium, WIDTH, HEIGHT)
        page.goto(address)
        for side in ("left", "right"):
            page.frame_locator(f"#{side}").locator("g.node").first.wait_for(timeout=60_000)
        page.locator(f"#tour li:nth-child({STOP}) button").click()
        for side in ("left", "right"):
            page.frame_locator(f"#{side}").locator("g.node.select").first.wait_for(timeout=60_000)
        page.wait_for_timeout(1500)  # until the panes have scrolled there
        save(page, "netron.png")


def recorder(folder: Path) -> None:
    """The page of 01 after a recorded sentence was transcribed."""
    spoken = audio.load(ROOT / "media" / "kitchen.wav").samples
    said = folder / "said.wav"
    audio.write_wav(said, np.concatenate([spoken, np.zeros(30 * audio.SAMPLE_RATE, np.float32)]))
    graphs = str(ROOT / "whisper_model_dir")
    with browser.recorder("--model-dir", graphs, cwd=folder) as (_, address, _), \
            browser.chromium(*browser.fake_microphone(said)) as chromium:
        page = browser.page(chromium, WIDTH, HEIGHT + 260, permissions=["microphone"])
        page.goto(address)
        page.get_by_role("button", name="Record", exact=True).click()
        page.wait_for_timeout(3300)
        page.get_by_role("button", name="Stop", exact=True).click()
        page.locator("#recorder button[aria-label='Play']").first.wait_for()
        page.locator("#transcribe").click()
        page.wait_for_function("() => document.querySelector('#text textarea').value", timeout=90_000)
        page.wait_for_timeout(1500)  # until player and picture are drawn
        save(page, "recorder.png")


def web_page(chromium) -> None:
    """The page of edge/web after three clips; needs nano's single graph: 08 --model nano --precision int8."""
    graph = ROOT / "whisper_model_dir" / "whisper-nano_end_to_end_int8.onnx"
    with browser.served(edge_page.built(graph)) as address:
        page = browser.page(chromium, WIDTH, HEIGHT + 140)
        page.goto(address)
        edge_page.wait_until_loaded(page)
        for count, clip in enumerate(("time", "nederlands", "hello"), start=1):
            page.set_input_files("#file", ROOT / "media" / f"{clip}.wav")
            edge_page.wait_for_result(page, count)
        save(page, "web.png")


def who_spoke(chromium, folder: Path) -> None:
    """The page of 10 in both themes, side by side, while a word is spoken; whisper-base hears long.flac."""
    command = [sys.executable, str(ROOT / "10-who-spoke.py"), str(ROOT / "media" / "long.flac"), "--model", "base",
               "--names", "Thomas,Anna", "--page", "--output-dir", str(folder), "--threads", "1", "--quiet"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    halves = []
    for theme in ("light", "dark"):
        page = browser.page(chromium, WIDTH // 2, HEIGHT - 100, color_scheme=theme)
        page.goto((folder / "who-long.html").as_uri())
        page.evaluate("() => { document.querySelector('audio').currentTime = 8.4; }")
        page.locator(".word.now").wait_for()
        halves.append(Image.open(io.BytesIO(page.screenshot(**SHOT))).convert("RGB"))
        refuse_trouble(page, "who.png")
    joined = Image.new("RGB", (WIDTH, HEIGHT - 100))
    for i, half in enumerate(halves):
        joined.paste(half, (i * WIDTH // 2, 0))
    save_image(joined, "who.png")


def save(page, name: str) -> None:
    """Write media/<name>; a screenshot with errors on the page is none."""
    refuse_trouble(page, name)
    save_image(Image.open(io.BytesIO(page.screenshot(**SHOT))).convert("RGB"), name)


def refuse_trouble(page, name: str) -> None:
    if page.trouble:
        raise SystemExit(f"{name}: {page.trouble}")


def save_image(image: Image.Image, name: str) -> None:
    """Write media/<name> with as few colours as will do."""
    with files.atomic(ROOT / "media" / name) as temporary:
        image = image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        image.save(temporary, optimize=True)
    console.result(f"media/{name}: {(ROOT / 'media' / name).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["recorder", "netron", "compare", "web", "who"]
    with tempfile.TemporaryDirectory() as work:
        if "recorder" in wanted:
            recorder(Path(work))
        with browser.chromium() as made:
            if "netron" in wanted:
                netron(made)
            if "compare" in wanted:
                comparison(made, Path(work))
            if "web" in wanted:
                web_page(made)
            if "who" in wanted:
                who_spoke(made, Path(work))
