"""Two processes on one folder: neither loses what the other saves, nor removes what the other is writing."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from whisper_lab import console, files, locks
from whisper_lab.export import publish
from whisper_lab.record import save
from whisper_lab.weights import huggingface

ROOT = Path(__file__).resolve().parent.parent
SAVER = str(ROOT / "tests" / "helpers" / "saver.py")
OLD = time.time() - locks.DAY_S - 60


def start_saver(folder: Path, first: int, count: int, **variables: str) -> subprocess.Popen:
    """A process that is ready to save recordings, and starts when it gets a line."""
    process = subprocess.Popen([sys.executable, SAVER, str(first), str(count)], cwd=folder,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, **variables})
    assert process.stdout.readline() == "ready\n", process.communicate()[1]
    return process


def savers(folder: Path, count: int, **variables: str) -> list[Path]:
    """Two processes that save `count` recordings each at the same time; every file that is there afterwards."""
    processes = [start_saver(folder, first, count, **variables) for first in (0, 1000)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        err = process.communicate(timeout=120)[1]
        assert process.returncode == 0, err
    return [folder / "speech.wav", *(folder / save.KEPT).iterdir()]


def heard(path: Path) -> int:
    """Which recording it is; a file that is not whole is an error."""
    samples, rate = soundfile.read(path, dtype="int16")
    assert (len(samples), rate, set(samples[1:])) == (1600, 16000, {8192}), path
    return int(samples[0])


def test_two_programs_that_save_at_once_lose_no_recording(tmp_path):
    count = int(os.environ.get("SAVES", 40))
    found = savers(tmp_path, count)
    assert sorted(map(heard, found)) == [*range(count), *range(1000, 1000 + count)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in-0", "in-1000", save.KEPT, "speech.wav"]


def test_nobody_saves_between_keeping_the_old_recording_and_replacing_it(tmp_path, monkeypatch):
    """Another process tries to in that very moment; it has a second for it."""
    other, keep = start_saver(tmp_path, 1, 1), save.keep

    def keep_and_wait(*paths):
        kept = keep(*paths)
        other.stdin.write("\n")
        other.stdin.flush()
        with contextlib.suppress(subprocess.TimeoutExpired):
            other.wait(1)
        return kept

    monkeypatch.setattr(save, "keep", keep_and_wait)
    (tmp_path / "speech.wav").write_bytes(b"old")
    with save.replacing(tmp_path / "speech.wav") as place:
        place.temporary.write_bytes(b"new")
    assert other.communicate(timeout=30)[1] == "" and other.returncode == 0
    kept = {path.read_bytes() for path in (tmp_path / save.KEPT).iterdir()}
    assert kept == {b"old", b"new"} and heard(tmp_path / "speech.wav") == 1


def test_where_the_disk_has_no_locks_the_new_one_is_kept_first(tmp_path):
    count = int(os.environ.get("SAVES", 40))
    found = savers(tmp_path, count, LAB_NO_LOCKS="1")
    kept = {heard(path) for path in found if path.name != "speech.wav"}  # one may be kept twice, none is lost
    assert kept == {*range(count), *range(1000, 1000 + count)} and heard(tmp_path / "speech.wav") in kept


# Temporary folders ---------------------------------------------------------------------------------------------------

def start(code: str, folder: Path) -> subprocess.Popen:
    """Run Python code in a process; returns when it has printed `here`."""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdin=subprocess.PIPE, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout.readline() == "here\n", process.communicate()[1]
    return process


BLOCKS = {"file": "files.atomic('report.json')", "graphs": "publish.stage('.')",
          "checkpoint": "huggingface.replacing(Path('whisper-x'), lambda _: True, 'x', 'y')"}
HERE = {"file": lambda folder: files.atomic(folder / "other.txt"), "graphs": publish.stage,
        "checkpoint": lambda folder: huggingface.replacing(folder / "whisper-x", lambda _: True, "x", "y")}


def killed_in(kind: str, folder: Path) -> Path:
    """What is left where a program is killed in the middle of writing."""
    process = start("import time; from pathlib import Path; from whisper_lab import files\n"
                    "from whisper_lab.export import publish; from whisper_lab.weights import huggingface\n"
                    f"with {BLOCKS[kind]} as place:\n    print('here', flush=True); time.sleep(60)", folder)
    process.kill()
    process.communicate()
    left, = folder.iterdir()
    assert left.name.startswith(".") and ".partial" in left.name
    return left


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_next_one_removes_what_a_killed_program_left(tmp_path, kind):
    left = killed_in(kind, tmp_path)
    with HERE[kind](tmp_path) as place:
        assert not left.exists()
        place.is_dir() or place.write_text("new")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("number, status, name", [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C"),
                                                  (signal.SIGHUP, 129, "SIGHUP")])
@pytest.mark.parametrize("kind", BLOCKS)
def test_who_is_asked_to_stop_leaves_nothing(tmp_path, kind, number, status, name):
    code = ("import time; from pathlib import Path; from whisper_lab import console, files\n"
            "from whisper_lab.export import publish; from whisper_lab.weights import huggingface\n"
            f"def main():\n    with {BLOCKS[kind]} as place:\n        print('here', flush=True); time.sleep(60)\n"
            "console.run(main)")
    process = start(code, tmp_path)
    process.send_signal(number)
    err = process.communicate(timeout=20)[1]
    assert process.returncode == status and err == (
        f"\nstopped by {name}; files are either complete or as they were before\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", BLOCKS)
def test_what_somebody_is_writing_stays(tmp_path, kind):
    """Another process as well as another thread: a lock is an open file's."""
    with HERE[kind](tmp_path) as one:
        one.is_dir() or one.write_text("one")
        one.with_name("more").write_text("")  # a writer may make other files beside it, or write it anew
        with HERE[kind](tmp_path) as two:
            assert one.exists() and two.exists() and one != two
            two.is_dir() or two.write_text("two")
        assert one.exists()


@pytest.mark.parametrize("kind", BLOCKS)
def test_what_another_machine_writes_stays_for_a_day(tmp_path, monkeypatch, kind):
    """On a shared disk a lock may end at the machine, so one that can be had there says nothing."""
    left = killed_in(kind, tmp_path)
    monkeypatch.setattr(locks, "machine", lambda: "0" * 8)
    with HERE[kind](tmp_path) as place:
        assert left.exists()
        place.is_dir() or place.write_text("new")
    for path in [*left.rglob("*"), left]:
        os.utime(path, (OLD, OLD))
    with HERE[kind](tmp_path) as place:
        assert not left.exists()
        place.is_dir() or place.write_text("new")


@pytest.mark.parametrize("kind", BLOCKS)
def test_without_locks_age_alone_tells(tmp_path, monkeypatch, kind):
    left = killed_in(kind, tmp_path)

    def flock(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with HERE[kind](tmp_path) as place:
        assert left.exists()
        place.is_dir() or place.write_text("new")
    assert left.exists()


def test_files_of_others_are_no_litter(tmp_path):
    """Only names that this lab gives are removed, whatever their age."""
    names = [".write-abcdefgh.partial", ".export-abcdefghi.partial", ".export-plan.txt", ".gitignore"]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".write-ijklmnop.partial").symlink_to(tmp_path / "elsewhere")
    for name in names:
        (tmp_path / name).write_text("mine")
    for path in [*tmp_path.iterdir()]:
        os.utime(path, (OLD, OLD))
    files.write_text(tmp_path / "new", "x")
    with publish.stage(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {*names, ".write-ijklmnop.partial", "elsewhere", "new"}


def test_what_the_first_versions_left_is_removed_when_it_is_old(tmp_path):
    for name in (".export-4711-ab12cd_9.partial", ".export-1-xy12cd_9.partial"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / ".export-4711-ab12cd_9.partial", (OLD, OLD))
    with publish.stage(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".export-1-xy12cd_9.partial"]


def test_a_lock_is_one_processes_and_leaves_no_file(tmp_path):
    path = tmp_path / "a.lock"
    with locks.alone(path) as locked:
        assert locked
        with pytest.raises(BlockingIOError), locks.alone(path, wait=False):
            pass
    assert not list(tmp_path.iterdir())


def test_a_lock_whose_file_was_removed_keeps_nobody_out(tmp_path):
    """Whoever waited for it gets one on the file that has the name now, or two would hold it."""
    path, order = tmp_path / "a.lock", []
    code = ("import sys; from pathlib import Path; from whisper_lab import locks\n"
            "with locks.alone(Path('a.lock')):\n"
            "    print('here', flush=True); sys.stdin.readline()")
    with locks.alone(path):
        waits = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        time.sleep(0.3)
        order.append("first")
    assert waits.stdout.readline() == "here\n"
    with pytest.raises(BlockingIOError), locks.alone(path, wait=False):
        order.append("third")
    waits.communicate("\n")
    assert order == ["first"] and not path.exists()


@pytest.mark.parametrize("work", [lambda place: locks.alone(place / "a.lock"), lambda place: locks.folder(place, ".a-"),
                                  lambda place: files.atomic(place / "a.txt")], ids=["lock", "folder", "file"])
def test_a_signal_between_any_two_instructions_leaves_nothing(tmp_path, work):
    """Python raises what a signal leads to wherever it is: also behind what makes a file, before what removes it."""
    number, ended = 0, False
    while not ended:
        ended = stopped_at(number := number + 7, work, tmp_path)
        for tidy in console.at_stop:
            tidy()
        left = [path.name for path in tmp_path.rglob("*") if path.name != "a.txt"]
        assert left == [], f"instruction {number} left {left}"
        with work(tmp_path):  # nothing is held either
            pass
        (tmp_path / "a.txt").unlink(missing_ok=True)
    assert number > 100


def stopped_at(number: int, work, place: Path) -> bool:
    """A with block of `work` in which a signal comes at that instruction of the lab's own; True if it ended before."""
    seen = 0

    def trace(frame, event, _):
        nonlocal seen
        if not frame.f_code.co_filename.endswith(("whisper_lab/locks.py", "whisper_lab/files.py", "contextlib.py")):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and (seen := seen + 1) == number:
            raise console.Stopped(signal.SIGTERM)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with work(place):
            pass
    except console.Stopped:
        return False
    finally:
        sys.settrace(before)
    return True
