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

ROOT = Path(__file__).resolve().parent.parent
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def executable() -> str | None:
    """Chromium's path: the system's own, as Debian's package installs it."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def chromium(*more: str):
    """A browser, with more arguments for it; only one at a time, as playwright wants it. Skips where there is none."""
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


def page(browser, width: int = 1600, height: int = 900):
    """A fresh page with `trouble`: console errors and warnings, and every request that leaves this machine."""
    made = browser.new_page(viewport={"width": width, "height": height})
    made.trouble = []
    made.on("console", lambda message: message.type in ("error", "warning") and made.trouble.append(message.text))
    made.on("pageerror", lambda error: made.trouble.append(str(error)))
    made.on("request", lambda request: _is_outside(request.url) and made.trouble.append(request.url))
    return made


def _is_outside(url: str) -> bool:
    return not url.startswith(("data:", "blob:", "file://", "http://127.0.0.1:", "http://localhost:"))


@contextlib.contextmanager
def served(folder: Path):
    """A folder on a free port, as any web server hands it out; yields the address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


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
