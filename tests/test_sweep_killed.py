"""A sweep that is killed with -9 leaves nothing running; what is left all the same, the next one ends, and says so."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers import energy_fakes
from whisper_lab.sweeps import leash, run

HELPER = """import subprocess, sys
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *sys.argv[sys.argv.index("--note"):]])
"""


def options(folder: Path, params: str) -> list:
    return ["sweep", "--gpu-type", "CPU", "--num-runs", 1, "--sleep-interval", 0, "--app-executable", folder / "app.py",
            "--app-params", params]


def running(note: str) -> list[psutil.Process]:
    """Processes other than sweeps themselves with these words on their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if note in words and "sweep" not in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def wait_for(condition, otherwise: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.02)


@pytest.fixture
def sweeping(tmp_path):
    """A sweep in the middle of its run: (process, the run's note); the program has a helper of its own."""
    app = energy_fakes.install(tmp_path)
    app.write_text(HELPER + app.read_text(encoding="utf-8"), encoding="utf-8")
    note = f"note-{tmp_path.name}-{os.getpid()}"
    process = energy_fakes.start(tmp_path, *options(tmp_path, f"--seconds 60 --note {note}"), gpu=False)
    log = tmp_path / "results_cpu_whisper" / "CPU_freq_baseline_run_01_log.txt"
    wait_for(lambda: log.exists() and "started" in log.read_text() and len(running(note)) == 3, "the run did not start")
    yield process, note
    for left in [process, *running(note)]:
        left.kill()
    process.communicate()


def kill(process) -> None:
    process.kill()
    process.wait()


def next_sweep(folder: Path) -> subprocess.CompletedProcess:
    """The same sweep, of a program that ends at once."""
    app = folder / "app.py"
    app.write_text(energy_fakes.APP, encoding="utf-8")
    return energy_fakes.call(folder, *options(folder, "--seconds 0"), "--output-dir", folder / "next", gpu=False)


def test_what_a_killed_sweep_ran_ends_at_once(sweeping, tmp_path):
    process, note = sweeping
    kill(process)
    wait_for(lambda: not running(note), f"still running: {running(note)}", 5)
    assert "was killed" not in next_sweep(tmp_path).stderr


def test_where_that_failed_the_next_sweep_ends_it_and_says_so(sweeping, tmp_path):
    """`killall -9 python`, or a machine that had no memory left, takes the leash as well."""
    process, note = sweeping
    held, = (one for one in running(note) if leash.__file__ in one.cmdline())
    process.send_signal(signal.SIGSTOP)  # it shall not see the leash's end
    held.kill()
    kill(process)
    assert len(running(note)) >= 2
    done = next_sweep(tmp_path)
    assert not running(note) and done.returncode == 0
    assert done.stderr.count("a sweep that was killed had left process") >= 2 and note in done.stderr


def test_the_program_of_a_sweep_that_lives_is_left_alone(sweeping):
    _, note = sweeping
    assert len(running(note)) == 3 and not any(map(run._is_orphan, running(note)))
    run.end_left_running()
    assert len(running(note)) == 3


@pytest.mark.parametrize("mark, group, orphan", [
    ("1 0 {here}", "own", True), ("1 0 pid:[1]", "own", False), ("{alive} {here}", "own", False),
    ("nonsense", "own", False), ("1 0 {here}", "other", False), (None, "own", False)])
def test_whose_a_process_is(mark, group, orphan):
    """Only what a sweep on this machine left, that is gone by its id and its start, and in the group it was given."""
    alive = f"{os.getpid()} {run._started(os.getpid())}"
    text = mark and mark.format(here=run._container(), alive=alive)
    environment = {**os.environ, **({leash.MARK: f"{text} 1" if group == "other" else text} if text else {})}
    process = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"],
                               start_new_session=True, env=environment, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        assert run._is_orphan(psutil.Process(process.pid)) is orphan
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("code, status, outcome", [
    ("pass", 0, "success"), ("raise SystemExit(3)", 3, "failed"),
    ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, "failed"),
    ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM, "failed")])
def test_the_leash_tells_how_the_program_ended(tmp_path, code, status, outcome):
    assert run.execute([sys.executable, "-c", code], tmp_path / "log", 30) == (status, outcome)


def test_a_program_that_cannot_be_started_is_a_failed_run(tmp_path):
    assert run.execute([str(tmp_path / "none")], tmp_path / "log", 30) == (127, "failed")
    assert "cannot start" in (tmp_path / "log").read_text()


def test_what_the_program_left_in_its_group_ends_with_the_run(tmp_path):
    note = f"left-{tmp_path.name}-{os.getpid()}"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', '{note}'])"
    assert run.execute([sys.executable, "-c", code], tmp_path / "log", 30) == (0, "success")
    wait_for(lambda: not running(note), "the helper outlived the run", 5)


def test_a_program_has_time_to_end_when_it_is_asked_to(tmp_path, monkeypatch):
    """The leash waits for it: what it wrote is whole before the sweep goes on."""
    code = ("import signal, sys, time\n"
            "def end(*_):\n    time.sleep(0.5); open('ended', 'w').write('whole'); sys.exit(0)\n"
            "signal.signal(signal.SIGTERM, end); print('ready', flush=True); time.sleep(60)")
    monkeypatch.chdir(tmp_path)
    assert run.execute([sys.executable, "-c", code], tmp_path / "log", 1.5) == (None, "timeout")
    assert (tmp_path / "ended").read_text() == "whole"
