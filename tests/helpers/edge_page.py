"""edge/web built for the tests, or a skip with the reason."""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.helpers import single_nano

ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "edge" / "web"


def build(*arguments: object) -> subprocess.CompletedProcess:
    """`npm run build` with arguments."""
    return subprocess.run(["npm", "run", "--silent", "build", "--", *map(str, arguments)], cwd=WEB, capture_output=True,
                          text=True, timeout=240)


@pytest.fixture(scope="module")
def graph(nano_export) -> Path:
    """nano's single graph, for a page; skips where no page can be built."""
    needs_npm()
    return single_nano.written(nano_export).path


def needs_npm() -> None:
    """Skip where Node is missing, or where onnxruntime-web is neither installed nor to be had."""
    if not shutil.which("npm"):
        pytest.skip("no npm here: apt-get install nodejs npm")
    done = subprocess.run(["node", "install.mjs"], cwd=WEB, capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.skip(f"npm ci cannot install onnxruntime-web: {done.stderr.strip().splitlines()[-1]}")


@functools.cache
def built(graph: Path, *options: object) -> Path:
    """The page with this graph: its folder. Nobody writes into it."""
    needs_npm()
    folder = Path(tempfile.mkdtemp(prefix="web-")) / "dist"
    done = build("--model", graph, "--out", folder, *options)
    assert done.returncode == 0, done.stderr
    return folder


def wait_for_result(page, count: int) -> dict:
    """The newest of `count` results, samples as a list."""
    page.wait_for_function(f"() => lab.results.length >= {count}", timeout=120_000)
    return page.evaluate("() => { const r = lab.results.at(-1); return {...r, samples: [...r.samples]}; }")


def wait_until_loaded(page) -> dict:
    """What loading took."""
    page.wait_for_function("() => lab.load && lab.offline", timeout=120_000)
    return page.evaluate("() => lab.load")
