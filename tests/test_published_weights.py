"""Real published weights, fetched through the package index: 02 and the graphs' runtime hear what was said.

On clips of media/, which synthesizers spoke, and on people: WHISPER_LAB_CORPUS names a folder with a references.json,
a list of rows with file, text and language (LibriSpeech, FLEURS or recordings of your own).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from whisper_lab import checkpoints, metrics

ROOT = Path(__file__).resolve().parent.parent
CLIPS = ("kitchen.wav", "hello.wav")
WORST = 0.20  # word error rate; base and tiny.en have 0.14 and 0.05 on CLIPS, an untrained model about 1


@pytest.fixture(scope="module")
def base(published) -> Path:
    return published("base")


@pytest.fixture(scope="module")
def tiny_en(published) -> Path:
    return published("tiny.en")


@pytest.fixture(params=["media", "people"])
def speech(request, references) -> dict[Path, str]:
    """Clip -> what is said in it: English, at most 15 s each."""
    if request.param == "media":
        return {ROOT / "media" / name: references[name]["text"] for name in CLIPS}
    if not (corpus := os.environ.get("WHISPER_LAB_CORPUS")):
        pytest.skip("WHISPER_LAB_CORPUS names no folder with recordings of people")
    rows = json.loads((Path(corpus) / "references.json").read_text(encoding="utf-8"))
    english = [row for row in rows if row["language"] == "en" and row.get("kind", "short") == "short"
               and row.get("seconds", 0) <= 15]
    step = max(1, len(english) // 8)  # eight clips, from all over the corpus
    return {Path(corpus) / row["file"]: row["text"] for row in english[::step][:8]}


def error_rate(document: Path, speech: dict[Path, str]) -> float:
    """Pooled word error rate of the transcripts in a JSON document."""
    heard = {Path(clip["file"]).name: clip["text"] for clip in json.loads(document.read_text())["clips"]}
    errors = [metrics.word_errors(text, heard[path.name], "en") for path, text in speech.items()]
    wrong = sum(each.substitutions + each.insertions + each.deletions for each in errors)
    return wrong / sum(each.reference_words for each in errors)


def test_a_fetched_checkpoint_is_whole_and_says_where_it_came_from(base, tiny_en):
    for folder, multilingual in ((base, True), (tiny_en, False)):
        assert checkpoints.problem_with(folder) is None
        assert json.loads((folder / "fetched.json").read_text())["licence"] == "MIT (OpenAI)"
        assert json.loads((folder / "generation_config.json").read_text())["is_multilingual"] is multilingual


def test_02_hears_it_with_base(base, speech, run_script, tmp_path):
    done = run_script("02-whisper-huggingface.py", "--model", "base", *speech, "--language", "en",
                      "--json", tmp_path / "said.json", WHISPER_LAB_WEIGHTS=str(base.parent))
    assert done.returncode == 0, done.stderr
    assert "checkpoint: whisper-base (asked for; this lab fetched it before" in done.stderr
    assert error_rate(tmp_path / "said.json", speech) <= WORST, done.stdout


TWO_WINDOWS = """
import sys
import numpy as np
from whisper_lab import machine
from whisper_lab.onnx_whisper import OnnxWhisper
runtime = OnnxWhisper(sys.argv[1], "whisper-tiny.en", "fp32", 1)
features = np.zeros((1, 80, 3000), np.float32)
runtime.encode(features)
first = machine.peak_rss_bytes()
runtime.encode(features)
print(machine.peak_rss_bytes() - first)
"""


def test_a_second_window_takes_no_more_memory_than_the_first(tiny_en_export):
    """onnxruntime laid out a block for all values of a known shape, beside the first run's: 95 MB more, now 24."""
    done = subprocess.run([sys.executable, "-c", TWO_WINDOWS, str(tiny_en_export)], cwd=ROOT, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40e6


def test_the_graphs_of_tiny_en_hear_it_without_pytorch(tiny_en_export, speech, tmp_path):
    from whisper_lab import __main__

    status = __main__.main(["--model", "tiny.en", "--model-dir", str(tiny_en_export), "--quiet",
                            "--json", str(tmp_path / "said.json"), *map(str, speech)])
    assert status == 0 and error_rate(tmp_path / "said.json", speech) <= WORST
