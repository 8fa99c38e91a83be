"""An archive through a real SLURM: a task is killed midway, a clock is off; nothing is lost, nothing done twice."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.helpers import nano_pair, slurm_cluster
from whisper_lab.archive import find, store

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "slurm" / "transcribe-array.sh"
TASKS, FILES = 3, 90

# What the Python of task 2 begins with: to it, it is four years ago, and so is what it writes.
CLOCK = """
import os, time
OFF, now, now_ns, replace = -4 * 365 * 86400, time.time, time.time_ns, os.replace
time.time, time.time_ns = lambda: now() + OFF, lambda: now_ns() + OFF * 10 ** 9
def replaced(source, target, **more):
    replace(source, target, **more)
    os.utime(target, (now() + OFF,) * 2)
os.replace = replaced
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment of a cluster of one node that is ours."""
    with slurm_cluster.for_tests(tmp_path_factory.mktemp("slurm")) as environment:
        yield {**environment, "LAB_ROOT": str(ROOT)}


@pytest.fixture
def place(tmp_path, nano_export) -> Path:
    """A folder with graphs, an archive of FILES recordings, and the Python of a cluster one of whose clocks is off."""
    nano_pair.take(nano_export, tmp_path / "graphs", "_int8")
    clips = [ROOT / "media" / name for name in ("digits.wav", "time.wav", "kitchen.wav")]
    for i in range(FILES):
        target = tmp_path / "recordings" / str(i % 5) / f"{i}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips[i % 3], target)
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK, encoding="utf-8")
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\n[ "$SLURM_ARRAY_TASK_ID" != 2 ] || '
                      f'export PYTHONPATH="{tmp_path}/clock:$PYTHONPATH"\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return tmp_path


def submit(slurm: dict, place: Path, array: str, *options: str, **more: str) -> str:
    """Submit the array; returns its job id."""
    done = subprocess.run(
        ["sbatch", "--parsable", f"--array={array}", f"--output={place}/%A_%a.out", *options, str(SCRIPT),
         str(place / "recordings"), "--output-dir", str(place / "out"), "--model", "nano", "--precision", "int8",
         "--model-dir", str(place / "graphs"), "--batch-size", "1"],
        cwd=place, capture_output=True, text=True, env={**slurm, "LAB_PYTHON": str(place / "python"), **more})
    assert done.returncode == 0, done.stderr
    return done.stdout.split(";")[0].strip()


def wait(slurm: dict, job: str) -> None:
    slurm_cluster.wait_for(lambda: not slurm_cluster.said(slurm, "squeue", "-h", "-j", job, "-t", "PD,R,CG"), 120,
                           "the job did not end")


def kill(place: Path, task: str) -> None:
    """kill -9, from outside: scancel would ask first."""
    process, = (one for one in psutil.process_iter(["cmdline"])
                if str(place / "out") in (one.info["cmdline"] or []) and f"{task}/{TASKS}" in one.info["cmdline"])
    process.kill()


def documents(place: Path) -> dict[str, tuple]:
    """Place -> (recording, when it was written, which file it is); all are whole."""
    found = [path for path in (place / "out").rglob("*.json") if store.STATE not in path.parts]
    return {str(path): (json.loads(path.read_text(encoding="utf-8"))["clips"][0]["file"], path.stat().st_mtime_ns,
                        path.stat().st_ino) for path in found}


def of_shard(place: Path, shard: int) -> int:
    """Documents of recordings in this shard."""
    return sum(find.Recording(name, place).is_in(shard, TASKS) for name, *_ in documents(place).values())


def transcribed(place: Path, job: str) -> dict[int, int]:
    """Task -> recordings that it says to have transcribed; tasks that did not end are not in it."""
    found = {}
    for path in place.glob(f"{job}_*.out"):
        if match := re.search(r"^(\d+) recordings? transcribed", path.read_text(encoding="utf-8"), re.M):
            found[int(path.stem.rpartition("_")[2])] = int(match[1])
    return found


@pytest.mark.slurm
def test_a_task_killed_midway_and_a_clock_that_is_off_lose_nothing_and_do_nothing_twice(slurm, place):
    job = submit(slurm, place, f"1-{TASKS}%2", "--no-requeue")
    log = place / f"{job}_1.out"
    slurm_cluster.wait_for(lambda: of_shard(place, 1) > 1, 120, "task 1 wrote nothing")
    kill(place, "1")
    wait(slurm, job)
    first, before = transcribed(place, job), documents(place)
    assert set(first) == {2, 3} and "stopped by" not in log.read_text(), log.read_text()
    assert sum(first.values()) < len(before) < FILES  # task 1 had done some, and not all
    years_ago = [when for _, when, _ in before.values() if when < 1e9 * (os.stat(place).st_mtime - 3 * 365 * 86400)]
    assert len(years_ago) == first[2] > 0

    again = submit(slurm, place, f"1-{TASKS}")
    wait(slurm, again)
    second, after = transcribed(place, again), documents(place)
    assert second == {1: FILES - len(before), 2: 0, 3: 0}
    assert {key: after[key] for key in before} == before
    assert sorted(name for name, *_ in after.values()) == sorted(f"{i % 5}/{i}.wav" for i in range(FILES))
    assert list((place / "out" / store.STATE / store.CLAIMS).iterdir()) == []


@pytest.mark.slurm
def test_an_array_that_is_not_whole_says_how_many_shards_there_are(slurm, place):
    job = submit(slurm, place, "2-3")
    wait(slurm, job)
    said = (place / f"{job}_2.out").read_text()
    assert "error: this array is not 1-N" in said and "SHARDS=N sbatch" in said and not (place / "out").exists()
    job = submit(slurm, place, "2-3", SHARDS="3")
    wait(slurm, job)
    assert set(transcribed(place, job)) == {2, 3} and 0 < len(documents(place)) < FILES
