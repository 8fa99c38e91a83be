"""The doctor: run for real, on what it judges, and through break -> fix -> unfix of a copy of torchaudio."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import broken_torchaudio
from whisper_lab import doctor, torchaudio_repair
from whisper_lab.console import LabError
from whisper_lab.doctor import FAIL, OK, WARN, Check

ROOT = Path(__file__).resolve().parent.parent


def python(*arguments: str, env: dict | None = None, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=180,
                          env=env or {**os.environ, "HF_HUB_OFFLINE": "1"}, **options)


def test_the_real_thing(tmp_path):
    done = python("-m", "whisper_lab.doctor", "--json", str(tmp_path / "doctor.json"))
    document = json.loads((tmp_path / "doctor.json").read_text())
    checks = {check["name"]: check for check in document["checks"]}
    failed = [name for name, check in checks.items() if check["status"] == FAIL]
    assert done.returncode == (1 if failed else 0), done.stderr
    assert set(failed) <= {"whisper-nano"}, done.stdout  # the packages of this very test run are installed
    assert set(doctor.pins()) <= set(checks)
    for name in ("Python", "torch with torchaudio", "PyAV / ffmpeg", "PortAudio", "whisper-nano", "Hub",
                 "cached checkpoints", "fetched checkpoints", "package index",
                 "instruction sets", "energy: NVML", "energy: RAPL", "free disk"):
        assert f"{name} " in done.stdout and (checks[name]["fix"] or checks[name]["status"] == OK)
    assert checks["Hub"]["status"] == WARN and checks["Hub"]["found"] == "not asked: HF_HUB_OFFLINE=1 is set"
    assert checks["Hub"]["fix"].startswith("unset HF_HUB_OFFLINE; or use --model nano")
    assert checks["numpy"] == {"status": OK, "name": "numpy", "found": doctor.pins()["numpy"], "fix": None}
    assert str(ROOT) not in json.dumps(document)


def test_a_python_with_nothing_installed_gets_a_table_not_a_traceback():
    done = python("-S", "-m", "whisper_lab.doctor")  # -S: no site-packages
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "[FAIL] torch " in done.stdout and "[FAIL] rich " in done.stdout and "fix: pip install" in done.stdout


def test_help_is_quick_and_light():
    done = python("-X", "importtime", "-m", "whisper_lab.doctor", "--help")
    assert done.returncode == 0 and "--unfix" in done.stdout
    assert not any(f" {name}\n" in done.stderr for name in ("torch", "numpy", "huggingface_hub", "transformers"))


def test_fix_and_unfix_exclude_each_other():
    assert python("-m", "whisper_lab.doctor", "--fix", "--unfix").returncode == 2


@pytest.mark.parametrize("status, code", [(OK, 0), (WARN, 0), (FAIL, 1)])
def test_only_a_fail_is_an_error(monkeypatch, capsys, status, code):
    def check_something():
        """something: to look at"""
        yield Check(status, "something", "found", "mend it" if status != OK else None)

    monkeypatch.setattr(doctor, "GROUPS", [check_something])
    assert doctor.main(["--quiet"]) == code
    out = capsys.readouterr().out
    assert ("fix: mend it" in out) == (status != OK)


def test_a_check_that_breaks_is_a_fail(monkeypatch, capsys):
    def check_something():
        """something: to look at"""
        yield Check(OK, "part", "fine")
        raise RuntimeError("oh")

    monkeypatch.setattr(doctor, "GROUPS", [check_something])
    assert doctor.main([]) == 1
    assert "[FAIL] something  the check itself failed: RuntimeError: oh" in capsys.readouterr().out


@pytest.mark.parametrize("name, installed, failure, status", [
    ("numpy", "2.4.6", None, OK), ("torch", "2.4.6+cpu", None, OK), ("numpy", "2.5.0", None, WARN),
    ("numpy", None, "not installed", FAIL), ("numpy", "2.4.6", "OSError: x", FAIL),
    ("torchaudio", "2.4.6", "OSError: x", WARN), ("sounddevice", None, "not installed", WARN),
])
def test_judging_a_package(name, installed, failure, status):
    check = doctor.judge_package(name, "2.4.6", installed, failure)
    assert check.status == status and bool(check.fix) == (status != OK)


@pytest.mark.parametrize("obstacle, here, status, said", [
    (None, False, OK, "within reach"), ("X=never is set", True, OK, "whisper-base is here"),
    ("X=never is set", False, WARN, "X=never is set"), ("no answer", False, WARN, "no answer"),
])
def test_judging_the_package_index(obstacle, here, status, said):
    check = doctor.judge_index(obstacle, here)
    assert check.status == status and said in check.found and bool(check.fix) == (status != OK)


@pytest.mark.parametrize("version, status", [((3, 10), FAIL), ((3, 11), OK), ((3, 13), WARN)])
def test_judging_python(version, status):
    assert doctor.judge_python(version, "x").status == status


def test_energy_counters(tmp_path):
    assert "no counters" in doctor.rapl(tmp_path).found
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "energy_uj").write_text("1")
    assert doctor.rapl(tmp_path) == Check(OK, "energy: RAPL", "1 counters, readable")
    (zone / "energy_uj").unlink()
    (zone / "energy_uj").mkdir()  # unreadable also for root, who ignores permission bits
    assert doctor.rapl(tmp_path).status == WARN and "not readable" in doctor.rapl(tmp_path).found
    assert doctor.battery(tmp_path).status == WARN
    (tmp_path / "BAT0").mkdir()
    (tmp_path / "BAT0" / "power_now").write_text("1")
    assert doctor.battery(tmp_path).status == OK


def test_writing_is_tried(tmp_path):
    assert doctor.writable(tmp_path / "later", "later").status == OK
    assert doctor.writable(tmp_path / "no" / "where", "there").status == FAIL


def test_failure_of_a_process_that_dies():
    assert torchaudio_repair.failure_of("pass") is None
    assert torchaudio_repair.failure_of("import no_such") == "ModuleNotFoundError: No module named 'no_such'"
    assert "status -6" in torchaudio_repair.failure_of("import os; os.abort()")
    assert torchaudio_repair.failure_of("import time; time.sleep(9)", timeout=0.3) == "not done after 0.3 s"


RESAMPLE_AND_MEL = """
import torch, torchaudio
assert torchaudio.__file__.startswith({folder!r}), torchaudio.__file__
half = torchaudio.functional.resample(torch.ones(1, 3200), 32000, 16000)
assert half.shape == (1, 1600) and abs(half[0, 800] - 1) < 1e-3, half
bank = torchaudio.functional.melscale_fbanks(201, 0.0, 8000.0, 80, 16000, norm="slaney", mel_scale="slaney")
assert bank.shape == (201, 80) and bank.min() >= 0 and bank.sum() > 0
"""


def test_broken_then_fixed_then_broken_again(tmp_path):
    env = broken_torchaudio.environment(tmp_path)
    lib = tmp_path / "torchaudio" / "lib"
    before = {path.name: path.stat().st_mtime_ns for path in lib.iterdir() if path.is_file()}
    repair = "from whisper_lab import torchaudio_repair as r; print(r.{}())"
    use = RESAMPLE_AND_MEL.format(folder=str(tmp_path))

    assert python("-c", use, env=env).returncode != 0
    assert python("-c", repair.format("unfix"), env=env).stdout.startswith("nothing to do")
    assert python("-c", repair.format("fix"), env=env).stdout.startswith("moved ")
    works = python("-c", use, env=env)
    assert works.returncode == 0, works.stderr
    assert python("-c", repair.format("fix"), env=env).stdout.startswith("nothing to do")
    assert python("-c", repair.format("unfix"), env=env).stdout.startswith("put ")
    assert {path.name: path.stat().st_mtime_ns for path in lib.iterdir() if path.is_file()} == before
    assert python("-c", use, env=env).returncode != 0


def test_transformers_beside_the_broken_wheel(tmp_path):
    env = broken_torchaudio.environment(tmp_path)
    plain = python("-c", "from transformers import WhisperForConditionalGeneration", env=env)
    assert plain.returncode != 0 and "torchaudio" in plain.stderr  # the trap is there
    code = """
import sys
from whisper_lab import checkpoints, flags
flags.parse(flags.parser("", "log_level"), [])
assert checkpoints.import_transformers() is checkpoints.import_transformers()
from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline
print(WhisperForConditionalGeneration.__name__, WhisperProcessor.__name__, sys.modules["torchaudio"])
"""
    done = python("-c", code, env=env)
    assert done.stdout.split() == ["WhisperForConditionalGeneration", "WhisperProcessor", "None"], done.stderr
    assert done.stderr.count("torchaudio: left out") == 1


def test_the_folder_is_found_where_torchaudio_is_hidden(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio", None)  # as import_transformers() leaves it
    assert (torchaudio_repair.folder() / "lib").is_dir()


def test_a_rename_that_fails_undoes_the_others(tmp_path):
    (tmp_path / "a.so").write_text("a")
    with pytest.raises(LabError, match="cannot rename .*b.so"):
        torchaudio_repair._move([(tmp_path / name, tmp_path / f"{name}.aside") for name in ("a.so", "b.so")])
    assert [path.name for path in tmp_path.iterdir()] == ["a.so"]


def test_fix_leaves_alone_what_it_cannot_mend(monkeypatch, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "_torchaudio.so").write_text("not a library")
    monkeypatch.setattr(torchaudio_repair, "folder", lambda: tmp_path)
    monkeypatch.setattr(torchaudio_repair, "failure_of", lambda *a, **k: "OSError: broken")
    with pytest.raises(LabError, match="without its native files either"):
        torchaudio_repair.fix()
    assert [path.name for path in (tmp_path / "lib").iterdir()] == ["_torchaudio.so"]
