"""A real headless Chromium for the tests of pages, or a skip with the reason."""

import contextlib
import functools
import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def executable() -> str | None:
    """Chromium's path: the system's own, as Debian's package installs it."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def chromium(*more: str):
    """A browser; only one at a time, as playwright wants it. more: arguments. Skips where there is none."""
    path = executable()
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS, *more])
        try:
            yield made
        finally:
            made.close()


def fake_microphone(wav: Path) -> list[str]:
    """Chromium's arguments for a microphone that plays `wav` over and over, and is never asked about."""
    return ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
            f"--use-file-for-fake-audio-capture={wav.resolve()}"]


def page(browser, width: int = 1600, height: int = 900, **context):
    """A fresh page with `trouble`: console errors and warnings, and every request that leaves this machine."""
    made = browser.new_page(viewport={"width": width, "height": height}, **context)
    made.trouble = []
    made.on("console", lambda message: message.type in ("error", "warning") and made.trouble.append(message.text))
    made.on("pageerror", lambda error: made.trouble.append(str(error)))
    made.on("request", lambda request: _is_outside(request.url) and made.trouble.append(request.url))
    return made


def _is_outside(url: str) -> bool:
    return not url.startswith(("data:", "blob:", "file://", "http://127.0.0.1:", "http://localhost:",
                               "https://127.0.0.1:"))


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Python's own server of a folder, without a line per request."""

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def served(folder: Path, handler: type[Quiet] = Quiet):
    """A folder on a free port, as any web server hands it out; yields the address."""
    handler = functools.partial(handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def explorer(*arguments: object):
    """05 on a free port: yields the process and its address; ends it as Ctrl-C does."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "05-explore-in-netron.py"), "--port", "0", *map(str, arguments)], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        process.stdout.readline()
        address = process.stdout.readline().split()[-1:]
        assert address, process.stderr.read()
        yield process, address[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


@contextlib.contextmanager
def recorder(*arguments: object, cwd: Path, **environment: str):
    """01's page on a free port, with nano: yields the process, its address, and the file that its notes go to."""
    notes = cwd / "notes.txt"
    with open(notes, "w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "01-record-audio-app.py"), "--port", "0", "--model", "nano", "--threads", "1",
             *map(str, arguments)], cwd=cwd, stdout=subprocess.PIPE, stderr=stderr, text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment})
    try:
        line = process.stdout.readline()
        assert line.startswith("* Running on local URL:  http"), notes.read_text()
        yield process, line.split()[-1], notes
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
