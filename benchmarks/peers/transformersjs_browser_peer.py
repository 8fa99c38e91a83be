"""transformers.js in Chromium, on onnxruntime-web's WebAssembly: opens transformersjs/page.html and asks it.

As harness.py has it for jobs with `clips`; it runs in the lab's own environment, where playwright is. Setting: dtype
and subfolder, as of `pipeline`. Processor seconds are those of all of Chromium's processes. A page that asks another
machine for anything is an error.
"""

import base64
import contextlib
import functools
import http.server
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import wave
from collections.abc import Iterator
from pathlib import Path

import transformersjs_peer

PAGE = transformersjs_peer.PROGRAM.with_name("page.html")
PACKAGES = PAGE.parent / "node_modules"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
PATIENCE_MS = 300_000  # for one clip
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """A line of JSON with the versions, then one for each clip: text, seconds, processor seconds (medians)."""
    job = json.loads(sys.argv[1])
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        sys.exit("there is no Chromium here: apt-get install chromium")
    transformersjs_peer.install()
    clips = json.loads(Path(job["clips"]).read_text(encoding="utf-8"))
    with opened(path, Path(job["artefact"])) as (page, browser):
        page.evaluate("given => open_model(...given)", [Path(job["artefact"]).name, job["threads"], job["setting"]])
        print(json.dumps({"versions": versions() | {"Chromium": browser.version}}), flush=True)
        hear(page, clips[0])  # what is made at first use
        for clip in clips:
            runs = [hear(page, clip) for _ in range(job["repeats"])]
            print(json.dumps({"clip": clip["id"], "text": runs[0]["text"],
                              "steady": len({run["text"] for run in runs}) == 1,
                              "seconds": statistics.median(run["seconds"] for run in runs),
                              "cpu_s": statistics.median(run["cpu_s"] for run in runs)}), flush=True)


@contextlib.contextmanager
def opened(path: str, artefact: Path) -> Iterator[tuple]:
    """The page with the model's folder beside it, in a browser: (page, browser)."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, served(folder) as address, sync_playwright() as playwright:
        for name, place in (("models", artefact.resolve().parent), ("onnxruntime-web", PACKAGES / "onnxruntime-web"),
                            ("transformers", PACKAGES / "@huggingface" / "transformers"), ("index.html", PAGE)):
            (Path(folder) / name).symlink_to(place)
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_function("() => window.hear")
        yield page, browser
        browser.close()
    if outside := [url for url in asked if not url.startswith((address, "blob:", "data:"))]:
        sys.exit(f"the page asked for {outside[0]}")


class Isolated(http.server.SimpleHTTPRequestHandler):
    """A folder, handed out so that a page may use several threads."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *arguments) -> None:
        pass


@contextlib.contextmanager
def served(folder: str) -> Iterator[str]:
    """A folder on a free port of this machine; yields the address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Isolated, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def hear(page, clip: dict) -> dict:
    """text, seconds in the page, and processor seconds of what this process has started."""
    with wave.open(clip["wav"]) as file:
        samples = base64.b64encode(file.readframes(file.getnframes())).decode()
    before = used_s(os.getpid())
    found = page.evaluate("given => hear(...given)", [samples, clip["language"]])
    return found | {"cpu_s": used_s(os.getpid()) - before}


def used_s(parent: int) -> float:
    """Processor seconds of all processes that descend from one, by /proc; one that ends meanwhile is left out."""
    children: dict[int, list[tuple[int, int]]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append((int(path.parent.name), int(fields[11]) + int(fields[12])))
    found, left = 0, [parent]
    while left:
        for process, ticks in children.get(left.pop(), []):
            found += ticks
            left.append(process)
    return found / TICKS


def versions() -> dict[str, str]:
    """Of the packages that the page loads."""
    return {name: json.loads((PACKAGES / name / "package.json").read_text(encoding="utf-8"))["version"]
            for name in ("@huggingface/transformers", "onnxruntime-web")}


if __name__ == "__main__":
    main()
