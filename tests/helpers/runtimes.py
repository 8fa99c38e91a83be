"""Other runtimes for the tests of the layouts, each in a place of its own, kept for the next run; or a skip.

Their own packages lie in a folder before the lab's on the path, at the versions that the benchmark has for its peers;
what those need and the lab has as well, torch above all, is the lab's.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tests.helpers.benchmark_files import module

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".runtimes"
JAVASCRIPT = ROOT / "benchmarks" / "transformersjs"
OWN = {  # package -> what of its requirements is not the lab's
    "optimum": ["optimum-onnx", "optimum", "transformers", "huggingface-hub==0.36.2", "tokenizers==0.22.2"],
    "sherpa-onnx": ["sherpa-onnx", "sherpa-onnx-core==2.0.1"]}


@functools.cache
def packages(name: str) -> Path:
    """A folder with the runtime's packages. Skips where the package index is out of reach."""
    pins = {pin.partition("==")[0]: pin for pin in module("prepare").REQUIREMENTS[name]}
    wanted = [pins.get(package, package) for package in OWN[name]]
    KEPT.mkdir(exist_ok=True)
    folder = KEPT / name
    with FileLock(KEPT / f"{name}.lock"):
        stamp = folder / ".wanted"
        if not (stamp.is_file() and stamp.read_text() == " ".join(wanted)):
            shutil.rmtree(folder, ignore_errors=True)
            if reason := install(wanted, folder):
                pytest.skip(f"{name} cannot be had here: {reason[:300]}")
            stamp.write_text(" ".join(wanted))
    return folder


def install(wanted: list[str], folder: Path) -> str | None:
    """Wheels in a folder; the reason where they cannot be had, else None."""
    done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:",
                           "--disable-pip-version-check", "--no-input", "--target", str(folder), *wanted],
                          capture_output=True, text=True, timeout=280)
    return (done.stderr.strip().splitlines() or ["pip said nothing"])[-1] if done.returncode else None


@functools.cache
def transformers_js() -> Path:
    """benchmarks/transformersjs with its packages. Skips where node is missing or the registry is out of reach."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no node and npm here: apt-get install nodejs npm")
    KEPT.mkdir(exist_ok=True)
    with FileLock(KEPT / "transformersjs.lock"):
        if not (JAVASCRIPT / "node_modules" / "@huggingface" / "transformers").is_dir():
            done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=JAVASCRIPT,
                                  capture_output=True, text=True, timeout=280)
            if done.returncode:
                pytest.skip(f"npm ci cannot install transformers.js: {done.stderr.strip().splitlines()[-1][:300]}")
    return JAVASCRIPT


def texts(runtime: str, artefact: Path, clips: list[dict], dtype: str = "fp32") -> list[str]:
    """What a runtime hears in clips (id, wav, language)."""
    return [row["text"] for row in heard(runtime, artefact, clips, dtype=dtype)]


def heard(runtime: str, artefact: Path, clips: list[dict], **setting: str) -> list[dict]:
    """A row for each clip from the program that the benchmark asks the runtime with."""
    rows = artefact.parent / f"{artefact.name}-clips.json"
    rows.write_text(json.dumps([{"long": False, **clip} for clip in clips]), encoding="utf-8")
    job = json.dumps({"clips": str(rows), "artefact": str(artefact), "checkpoint": str(artefact), "threads": 1,
                      "repeats": 1, "packages": [], "setting": setting})
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if runtime == "transformers.js":
        command = ["node", str(transformers_js() / "hear.mjs")]
    elif runtime == "transformers.js in Chromium":
        command = [sys.executable, str(transformers_js().parent / "peers" / "transformersjs_browser_peer.py")]
    else:
        peer = {"optimum": "optimum_peer.py", "sherpa-onnx": "sherpa_peer.py"}[runtime]
        command = [sys.executable, str(ROOT / "benchmarks" / "peers" / peer)]
        environment["PYTHONPATH"] = str(packages(runtime))
    done = subprocess.run([*command, job], capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [row for row in found if "clip" in row]
