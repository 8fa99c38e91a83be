"""Pictures of every page as a person sees it: those that media/ shows, or each in both themes on laptop and telephone.

    python -m tools.screenshots                       # media/*.png again
    python -m tools.screenshots recorder netron       # some of them
    python -m tools.screenshots --every FOLDER        # FOLDER/NAME-THEME-WIDTH.png, and the whole page beside it

Needs Chromium, whisper-nano's graphs (03 --model nano --precision all; for web 08 --model nano --precision int8), and
for who whisper-base and the two models of 10. A page that complains, or that is wider than its window, is named.
"""

import argparse
import contextlib
import functools
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
THEMES = ("light", "dark")
SIZES = ((1280, 720), (390, 844))  # a laptop and a telephone
TALLEST = 6000  # pixels of a whole page


# The pages: each yields its address and what is done on it before it is looked at ------------------------------------

@contextlib.contextmanager
def recorder(folder: Path):
    """01 after an example was transcribed."""
    with browser.recorder("--model-dir", str(ROOT / "whisper_model_dir"), cwd=folder) as (_, address, _):
        yield address, functools.partial(_transcribe, take=_take_example)


@contextlib.contextmanager
def recorder_before(folder: Path):
    """01 as it is opened."""
    with browser.recorder("--model-dir", str(ROOT / "whisper_model_dir"), cwd=folder) as (_, address, _):
        yield address, lambda page: page.locator("#transcribe").wait_for()


@contextlib.contextmanager
def netron(folder: Path, arguments: list[str], stop: int):
    """05 at a stop of the tour."""
    with browser.explorer("--model", "nano", *arguments) as (_, address):
        yield address, functools.partial(_stop_at, stop=stop)


@contextlib.contextmanager
def comparison(folder: Path):
    """04's page."""
    _run("04-compare-precisions.py", "--model", "nano", "--audio", ROOT / "media", "--output-dir", folder)
    yield (folder / "compare-whisper-nano.html").as_uri(), lambda page: None


@contextlib.contextmanager
def comparison_open(folder: Path):
    """04's page with all that is folded away."""
    with comparison(folder) as (address, _):
        yield address, lambda page: page.evaluate(
            "() => document.querySelectorAll('details.part').forEach(one => one.open = true)")


@contextlib.contextmanager
def web_page(folder: Path):
    """edge/web after three clips."""
    with browser.served(edge_page.built(ROOT / "whisper_model_dir" / "whisper-nano_end_to_end_int8.onnx")) as address:
        yield address, _give_clips


@contextlib.contextmanager
def who_spoke(folder: Path):
    """10's page while a word is spoken; whisper-base hears long.flac."""
    _run("10-who-spoke.py", ROOT / "media" / "long.flac", "--model", "base", "--names", "Thomas,Anna", "--page",
         "--output-dir", folder)
    yield (folder / "who-long.html").as_uri(), _speak


@contextlib.contextmanager
def journey(folder: Path):
    """07's page of a clip, a second into it."""
    _run("07-explore-architecture.py", "--preset", "nano", "--trace", ROOT / "media" / "kitchen.wav", "--output-dir",
         folder)
    yield (folder / "trace-kitchen.html").as_uri(), lambda page: page.evaluate(
        "() => { document.querySelector('audio').currentTime = 1; }")


PAGES = {"before": recorder_before, "recorder": recorder,
         "netron": functools.partial(netron, arguments=[], stop=3),  # the first DynamicQuantizeLinear
         "parts": functools.partial(netron, arguments=["--parts"], stop=8),  # the decoder's embedding
         "compare": comparison, "compare-open": comparison_open, "web": web_page, "who": who_spoke,
         "journey": journey}


# What is done on them ------------------------------------------------------------------------------------------------

def _transcribe(page, take) -> None:
    take(page)
    page.locator("#recorder button[aria-label='Play']").first.wait_for(timeout=30_000)
    page.locator("#transcribe").click()
    page.wait_for_function("() => document.querySelector('#text textarea').value", timeout=90_000)
    page.wait_for_timeout(2000)  # until player and picture are drawn


def _take_example(page) -> None:
    page.get_by_role("button", name="a command").click()


def _record(page) -> None:
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(3300)
    page.get_by_role("button", name="Stop", exact=True).click()


def _stop_at(page, stop: int) -> None:
    for side in ("left", "right"):
        page.frame_locator(f"#{side}").locator("g.node").first.wait_for(timeout=60_000, state="attached")
    page.locator(f"#tour li:nth-child({stop}) button").click()
    page.frame_locator("#right").locator("g.node.select").first.wait_for(timeout=60_000)
    page.wait_for_timeout(1500)  # until the panes have scrolled there


def _give_clips(page) -> None:
    edge_page.wait_until_loaded(page)
    for count, clip in enumerate(("time", "nederlands", "hello"), start=1):
        page.set_input_files("#file", ROOT / "media" / f"{clip}.wav")
        edge_page.wait_for_result(page, count)


def _speak(page) -> None:
    page.evaluate("() => { document.querySelector('audio').currentTime = 8.4; }")
    page.locator(".word.now").wait_for()


def _run(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, str(ROOT / script), *map(str, arguments), "--threads", "1", "--quiet"], cwd=ROOT,
                   check=True, stdout=subprocess.DEVNULL)


# Pictures ------------------------------------------------------------------------------------------------------------

def look(chromium, address: str, act, width: int, height: int, theme: str = "light", **context):
    """A page after `act`; whatever it complains about is said."""
    page = browser.page(chromium, width, height, color_scheme=theme, **context)
    page.route("**/view.js", _common_brackets)
    page.goto(address)
    act(page)
    wide = page.evaluate("() => document.documentElement.scrollWidth")
    for trouble in [*page.trouble, *([f"{wide} pixels wide"] if wide > width else [])]:
        console.warn(f"{address} at {width}, {theme}: {trouble}")
    return page


def _common_brackets(route) -> None:
    """Netron writes shapes between Chinese brackets, for which a machine without Chinese fonts draws boxes."""
    answer = route.fetch()
    route.fulfill(response=answer, body=answer.text().replace("\\u3008", "\\u27e8").replace("\\u3009", "\\u27e9"))


def shot(page, **options) -> Image.Image:
    """What the page shows now."""
    return Image.open(io.BytesIO(page.screenshot(**SHOT, **options))).convert("RGB")


def every(folder: Path, names: list[str]) -> None:
    """Each page in each theme and size: what its window shows, and all of it."""
    for name in names:
        with tempfile.TemporaryDirectory() as work, PAGES[name](Path(work)) as (address, act), \
                browser.chromium() as chromium:
            for theme in THEMES:
                for width, height in SIZES:
                    page = look(chromium, address, act, width, height, theme)
                    save(shot(page), folder / f"{name}-{theme}-{width}.png")
                    whole = shot(page, full_page=True)
                    if whole.height > height:
                        save(whole.crop((0, 0, width, min(whole.height, TALLEST))),
                             folder / f"{name}-{theme}-{width}-whole.png")
                    page.close()


def for_media(name: str, work: Path) -> Image.Image:
    """The picture of one page in media/."""
    if name == "recorder":
        return spoken_recorder(work)
    with PAGES[name](work) as (address, act), browser.chromium() as chromium:
        if name == "who":  # both themes side by side
            halves = [shot(look(chromium, address, act, 640, 700, theme)) for theme in THEMES]
            joined = Image.new("RGB", (1280, 700))
            for i, half in enumerate(halves):
                joined.paste(half, (i * 640, 0))
            return joined
        return shot(look(chromium, address, act, 1280, 940 if name == "web" else 800), full_page=name == "compare")


def spoken_recorder(work: Path) -> Image.Image:
    """01 after a sentence was recorded, not uploaded: the fake microphone plays kitchen.wav."""
    spoken = audio.load(ROOT / "media" / "kitchen.wav").samples
    said = work / "said.wav"
    audio.write_wav(said, np.concatenate([spoken, np.zeros(30 * audio.SAMPLE_RATE, np.float32)]))
    with recorder(work) as (address, _), browser.chromium(*browser.fake_microphone(said)) as chromium:
        act = functools.partial(_transcribe, take=_record)
        return shot(look(chromium, address, act, 1280, 1000, permissions=["microphone"]))


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG with as few colours as will do."""
    with files.atomic(path) as temporary:
        image = image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        image.save(temporary, optimize=True)
    console.result(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*PAGES, []], help="which pages (default: all)")
    parser.add_argument("--every", type=Path, metavar="FOLDER", help="both themes and sizes, into FOLDER")
    args = parser.parse_args()
    if args.every:
        return every(args.every, args.names or list(PAGES))
    for name in args.names or ["recorder", "netron", "compare", "web", "who"]:
        with tempfile.TemporaryDirectory() as work:
            image = for_media(name, Path(work))
        save(image, ROOT / "media" / f"{name}.png")


if __name__ == "__main__":
    main()
