"""No room for what a program writes: two lines, exit status 1, the old file as it was, nothing half made.

A limit on the size of files stands for the full disk: writing fails in the middle, as there.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import energy_fakes, export_tiny, nano_pair
from whisper_lab import console

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "media" / "kitchen.wav"
SAVE = """import importlib, sys; from pathlib import Path; from whisper_lab import console
console.run(lambda: importlib.import_module("01-record-audio-app").convert(Path(sys.argv[1]), Path("speech.wav"), 60))
"""


def no_room(folder: Path, limit: int, *command: object) -> str:
    """Run Python with files of at most `limit` bytes; the last two lines of stderr, after the looks all share."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=folder, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most)))
    *_, problem, remedy = done.stderr.splitlines()
    assert done.returncode == 1 and problem.startswith("error: cannot write ") and remedy.startswith("  try: "), done
    assert "Traceback" not in done.stderr and "DEBUG" not in remedy and ".partial" not in problem
    left = [path for path in folder.rglob("*") if path.name.startswith(".") or ".partial" in path.name]
    assert left == [], left
    return f"{problem}\n{remedy}"


def old_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("old", encoding="utf-8")
    return path


def test_01(tmp_path):
    old = old_file(tmp_path / "speech.wav")
    assert "error: cannot write speech.wav: File too large" in no_room(tmp_path, 20_000, "-c", SAVE, CLIP)
    assert old.read_text() == "old" and list(tmp_path.iterdir()) == [old]


def test_03(tmp_path):
    (tmp_path / "whisper-small-random").mkdir()
    checkpoint = export_tiny.write_checkpoint(tmp_path / "whisper-small-random")
    old = old_file(tmp_path / "graphs" / "whisper-small-random_encoder.onnx")
    said = no_room(tmp_path, 200_000, ROOT / "03-export-encoder-decoder.py", "--model", checkpoint, "--threads", 1,
                   "--no-verify", "--output-dir", "graphs")
    assert "cannot write graphs to graphs" in said and "--output-dir" in said
    assert old.read_text() == "old" and list((tmp_path / "graphs").glob("*.onnx*")) == [old]


def test_06(tmp_path, nano_export):
    graphs, old = nano_pair.take(nano_export, tmp_path / "graphs", "_int8"), old_file(tmp_path / "run.json")
    said = no_room(tmp_path, 1000, ROOT / "06-profile-energy.py", "--audio-file", CLIP, "--model", "nano", "--backend",
                   "onnx", "--precision", "int8", "--model-dir", graphs, "--threads", 1, "--repeats", 1, "--warm-up", 0,
                   "--output-file", "run.json")
    assert "run.json" in said and old.read_text() == "old"


def test_06_sweep(tmp_path):
    energy_fakes.install(tmp_path)
    old = old_file(tmp_path / "results" / "experiment_summary.json")
    said = no_room(tmp_path, 1000, ROOT / "06-profile-energy.py", "sweep", "--gpu-type", "CPU", "--num-runs", 1,
                   "--sleep-interval", 0, "--app-executable", "app.py", "--output-dir", "results", "--app-params", "")
    assert "cannot write results/" in said and old.read_text() == "old"


def test_08(tmp_path, nano_export):
    graphs = nano_pair.take(nano_export, tmp_path / "graphs", "_int8")
    old = old_file(graphs / "whisper-nano_end_to_end_int8.onnx")
    said = no_room(tmp_path, 1_000_000, ROOT / "08-single-onnx-model.py", "--model", "nano", "--precision", "int8",
                   "--threads", 1, "--no-verify", "--model-dir", graphs)
    assert "--model-dir" in said and "--output-dir" not in said and old.read_text() == "old"


def test_09(tmp_path, nano_export):
    graphs = nano_pair.take(nano_export, tmp_path / "graphs", "_int8")
    old = old_file(tmp_path / "reports" / "stream-whisper-nano.txt")
    said = no_room(tmp_path, 20, ROOT / "09-stream-microphone.py", "--model", "nano", "--model-dir", graphs,
                   "--threads", 1, "--file", CLIP, "--output-dir", "reports")
    assert "cannot write reports/stream-whisper-nano.txt" in said and old.read_text() == "old"


@pytest.mark.parametrize("fault, problem", [
    (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), "cannot write temporary files: "),
    (OSError(28, "No space left on device", "results/log.txt"), "cannot write results/log.txt: No space left")])
def test_what_no_one_writes_through_files_atomic(fault, problem, capsys):
    def fails():
        raise fault

    with pytest.raises(SystemExit, match="1"):
        console.run(fails)
    err = capsys.readouterr().err
    assert err.startswith(f"error: {problem}") and "  try: free some disk space" in err and err.count("\n") == 2
