"""The identity card: complete, JSON, right about this process's cores, and silent about whose machine it is."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from whisper_lab import machine

ROOT = Path(__file__).resolve().parent.parent


def test_card_is_complete_json():
    card = json.loads(json.dumps(machine.card(), allow_nan=False))
    required = {"cpu", "instruction_sets", "cores", "threads", "memory_bytes", "os", "python", "versions", "gpu"}
    assert required <= set(card)
    assert card["python"] == platform.python_version()
    assert 1 <= card["cores"] <= card["cores_logical"]
    assert 2**28 < card["memory_bytes"] < 2**45
    for name in ("cpu", "instruction_sets", "gpu"):
        assert card[name] is not None or card[f"{name}_reason"], f"{name} is unknown without a reason"


def test_versions_come_from_the_metadata():
    import numpy

    versions = machine.card()["versions"]
    assert versions["numpy"] == numpy.__version__
    assert machine.version("no-such-package") is None
    assert all(version is None or version[0].isdigit() for version in versions.values())


def test_card_names_no_person_and_no_place():
    text = json.dumps(machine.card()) + machine.one_line(machine.card())
    assert platform.node() not in text and str(ROOT) not in text and "/" + "home" not in text
    if (user := os.environ.get("USER", "root")) != "root":
        assert user not in text
    build = platform.release().partition("-")[2]  # "-azure", "-site42"
    assert not build or build not in text


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_cores_follow_the_affinity_mask():
    first = min(os.sched_getaffinity(0))
    code = (f"import os; os.sched_setaffinity(0, {{{first}}}); from whisper_lab import machine; c = machine.card(); "
            "print(c['cores'], c['threads'])")
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.stdout.split() == ["1", "1"], done.stderr


def test_threads_as_told(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    assert machine.card()["threads"] == 3
    assert machine.card(threads=5)["threads"] == 5


def test_container_limits_count_in_every_group_above(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "a" / "b" / "cpu.max").write_text("max 100000\n")
    values = machine._cgroup_values("cpu.max", root=tmp_path, own="4:memory:/x\n0::/a/b\n")
    assert values == ["max 100000", "150000 100000"]


def test_quota_rounds_up_to_whole_cores(monkeypatch):
    monkeypatch.setattr(machine, "_cgroup_values", lambda name: ["max 100000", "50000 100000"])
    monkeypatch.setattr(machine, "_first", lambda path, whole=False: None)
    assert machine.cpu_quota() == 0.5 and machine.usable_cores() == 1


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="no /proc/cpuinfo on this system")
def test_instruction_sets_agree_with_the_kernel():
    words = set(Path("/proc/cpuinfo").read_text().split())
    found = machine.instruction_sets()
    known = machine.X86_FLAGS | machine.ARM_FLAGS
    assert found and all(any(flag in words and name == made for flag, made in known.items()) for name in found)
    assert ("AVX2" in found) == ("avx2" in words)


def test_one_line_survives_unknowns():
    card = machine.card() | {"cpu": None, "instruction_sets": None, "gpu": None}
    line = machine.one_line(card)
    assert "unknown processor" in line and "instruction sets unknown" in line and "no GPU" in line
    assert "\n" not in line and "None" not in line


def test_the_line_in_dutch_has_no_english():
    card = machine.card(threads=1) | {"cpu": None, "instruction_sets": None, "gpu": None, "cores": 2}
    line = machine.one_line(card, "nl")
    assert line.startswith("onbekende processor (instructiesets onbekend); 2 kernen, 1 thread; ")
    assert "geen GPU" in line and "no GPU" not in line


def test_one_thread_is_not_one_threads():
    line = machine.one_line(machine.card(threads=1) | {"cores": 4})
    assert "; 4 cores, 1 thread;" in line


@pytest.mark.parametrize("module", ["whisper_lab.machine", "harness"])
def test_peak_memory_is_this_programs_own(module):
    """ru_maxrss keeps the mark of the process that started this one: here one with 300 MB."""
    held = b"x" * 300_000_000
    paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks" / "peers")])
    done = subprocess.run([sys.executable, "-c", f"import {module} as one; print(one.peak_rss_bytes())"],
                          env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=60)
    assert 5e6 < int(done.stdout) < len(held) / 2, done.stderr
