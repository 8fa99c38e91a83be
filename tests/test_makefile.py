"""The Makefile's own promises: help is complete, a failed install stops, leaves no stamp, and says what to do."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str, cwd: Path = ROOT, **environment) -> subprocess.CompletedProcess:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], capture_output=True, text=True, cwd=cwd, timeout=120,
                          env=inherited | environment)


@pytest.fixture
def project(tmp_path) -> Path:
    """The Makefile over a project whose one requirement exists nowhere."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("tools", "locks"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "whisper_lab").symlink_to(ROOT / "whisper_lab")
    for path in ROOT.glob("requirements*.txt"):
        (tmp_path / path.name).write_text("")
    (tmp_path / "requirements.txt").write_text("no-such-package-anywhere==1.0\n")
    (tmp_path / "locks" / "lab.txt").write_text(f"no-such-package-anywhere==1.0 --hash=sha256:{'0' * 64}\n")
    return tmp_path


def test_help_lists_every_target():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert re.findall(r"^make ([\w-]+)", make("help").stdout, re.MULTILINE) == phony


def test_a_python_that_is_too_old_is_named(project):
    done = make(f"PYTHON={shutil.which('false')}", cwd=project)
    assert done.returncode != 0 and "error: no Python 3.11 found\n  try: " in done.stdout
    assert not (project / ".venv").exists()


def test_a_failed_install_stops_and_is_tried_again(project):
    for _ in range(2):
        done = make(f"PYTHON={sys.executable}", cwd=project, PIP_NO_INDEX="1", PIP_FIND_LINKS="")
        assert done.returncode != 0 and "no-such-package-anywhere" in done.stderr
        assert not (project / ".venv" / ".lab").exists() and (project / ".venv" / ".python").exists()
        assert "ready" not in done.stdout


def installed(project, *stamps):
    """As after these steps."""
    (project / ".venv" / "bin").mkdir(parents=True)
    for stamp in stamps:
        (project / ".venv" / stamp).touch()
    for needed in (project / "requirements.txt", *(project / "locks").iterdir()):
        os.utime(needed, (0, 0))


@pytest.mark.parametrize("target", ["install", "doctor", "demo"])
def test_the_doctor_says_nothing_of_a_setting_that_make_made(project, target, monkeypatch):
    """Else a student reads that HF_HUB_OFFLINE is set, and looks for it in vain."""
    installed(project, ".python", ".lab")
    python = project / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$* sees ${HF_HUB_OFFLINE:-nothing}"\n')
    python.chmod(0o755)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    done = make(target, cwd=project)
    assert re.findall("whisper_lab.doctor.* sees .*", done.stdout)[0].endswith(" sees nothing"), done.stderr


def test_demo_without_a_clip_says_so(project):
    installed(project, ".python", ".lab", ".doctor")
    done = make("demo", cwd=project)
    assert done.returncode != 0 and "error: there is no sound file media/kitchen.wav\n  try: " in done.stdout


def test_clean_keeps_what_a_user_made(project):
    keep = [project / "speech.wav", project / "whisper_model_dir" / "whisper-nano" / "config.json"]
    away = [project / "reports" / "a.json", *(project / "whisper_model_dir" / name for name in (
        "whisper-nano_encoder.onnx", "whisper-nano_runtime/tokenizer.json", "whisper-nano_int8_genai/encoder.onnx",
        "whisper-nano_int8_optimum/onnx/encoder.onnx", "whisper-nano_int8_sherpa/encoder.onnx"))]
    for path in keep + away:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert make("clean", cwd=project).returncode == 0
    assert all(path.exists() for path in keep) and not any(path.exists() for path in away)


def test_ci_script_is_runnable_bash():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    assert [line for line in script.read_text().splitlines() if line.startswith("step ")] == [
        "step make lint", "step make test", "step make demo"]


def test_the_demo_takes_base_where_it_can_and_names_one_model_for_the_graphs():
    plan = make("--dry-run", "demo", "DEMO_MODEL=tiny.en").stdout
    assert "whisper_lab.weights --default > .venv/.demo-model" in plan
    assert "02-whisper-huggingface.py --model $(cat .venv/.demo-model) media/kitchen.wav" in plan
    for step in ("03-export-encoder-decoder.py", "04-compare-precisions.py", "08-single-onnx-model.py"):
        assert f"{step} --model tiny.en" in plan
    assert "03-export-encoder-decoder.py --model $(cat .venv/.demo-model)" in \
        make("--dry-run", "demo", "DEMO_MODEL=found").stdout
