"""benchmarks/classroom.py: two students with whisper-nano in each way, what ends a class early, table and advice."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.helpers.benchmark_files import module
from whisper_lab import machine
from whisper_lab.console import LabError

MEDIA = Path(__file__).resolve().parent.parent / "media"
SAID = "turn on the lights in the kitchen"
GB = 1_000_000_000

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux alone says what is shared")


@pytest.fixture(scope="module")
def classroom():
    return module("classroom")


@pytest.fixture(scope="module")
def report():
    return module("classroom_report")


@pytest.fixture
def args(classroom, tmp_path):
    return classroom.arguments(["--model", "nano", "--output-dir", str(tmp_path), "--quiet"])


# Measuring -----------------------------------------------------------------------------------------------------------

def test_two_students_in_each_way(classroom, nano_export, tmp_path, capsys):
    status = classroom.main(["--students", "2", "--model", "nano", "--model-dir", str(nano_export / "graphs"), "--clip",
                             str(MEDIA / "kitchen.wav"), "--output-dir", str(tmp_path), "--anyway", "--quiet"])
    found = json.loads((tmp_path / "classroom.json").read_text(encoding="utf-8"))
    assert status == 0 and [row["way"] for row in found["rows"]] == ["02", "runtime", "page"]
    for row in found["rows"]:
        assert (row["started"], row["failed"], row["text"], row["other_texts"]) == (2, {}, SAID, 0), row
        assert 0 < row["half_s"] <= row["all_s"] <= row["seconds"] and row["processor_s"] > 0
        assert 50e6 < row["pss_bytes"] < row["rss_bytes"]
    held = {row["way"]: row["pss_bytes"] for row in found["rows"]}
    assert held["runtime"] < held["page"] < held["02"]  # PyTorch twice, Gradio once
    assert "one page of 01 for all | 2 |" in capsys.readouterr().out


def test_without_graphs_it_says_how_to_make_them(classroom, tmp_path):
    with pytest.raises(LabError, match="there is no encoder .*whisper-nano_encoder_int8.onnx") as raised:
        classroom.main(["--model", "nano", "--model-dir", str(tmp_path), "--quiet"])
    command = "python 03-export-encoder-decoder.py --model nano --precision int8 --output-dir"
    assert raised.value.remedy.startswith(f"write them: {command}")


def test_a_busy_machine_is_refused_with_its_own_command(classroom, nano_export, monkeypatch):
    monkeypatch.setattr(classroom.idle, "busy_cores", lambda: (1.0, ", other most"))
    with pytest.raises(LabError, match="the machine is busy") as raised:
        classroom.main(["--model", "nano", "--model-dir", str(nano_export / "graphs"), "--quiet"])
    assert raised.value.remedy.endswith("python benchmarks/classroom.py --anyway")


@pytest.mark.parametrize("program, problem", [
    ("raise SystemExit('no room')", "exit status 1: no room"), ("print()", "no text"),
    ("import os; os.kill(os.getpid(), 9)", "killed, as the system does where memory runs out")])
def test_a_process_that_fails_is_counted_with_its_reason(classroom, args, program, problem):
    group, _ = classroom.processes([sys.executable, "-c", program], 2, args)
    made = classroom.summary("02", 2, group, None)
    assert (made["failed"], made["half_s"], made["first_text_s"]) == ({problem: 2}, None, [])


def test_the_time_is_that_of_the_text_and_not_of_the_end(classroom, args):
    program = "import time; print('\\nTranscription:\\n\\nyes', flush=True); time.sleep(0.5)"
    ((one,), memory) = classroom.processes([sys.executable, "-c", program], 1, args)
    assert one.text == "yes" and one.first_s + 0.4 < one.ended_s and not one.problem
    assert 1e6 < memory.pss <= memory.rss


def test_what_still_runs_when_memory_runs_short_is_ended(classroom, args, monkeypatch):
    monkeypatch.setattr(classroom, "available_bytes", lambda: classroom.RESERVE - 1)
    group, memory = classroom.processes([sys.executable, "-c", "import time; time.sleep(60)"], 2, args)
    assert {one.problem for one in group} == {"ended: less than 1.5 GB of memory were left"}
    assert memory.least == classroom.RESERVE - 1


def test_a_visitor_without_an_answer_is_counted(classroom):
    def fails() -> str:
        raise ValueError("the page answered event: error\nmore")

    begin = classroom.threading.Event()
    begin.set()
    one, silent = classroom.Visit(), classroom.Visit()
    classroom.attempt(one, begin, fails)
    classroom.attempt(silent, begin, str)
    assert (one.problem, silent.problem) == ("ValueError: the page answered event: error", "no text")


# Memory --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("students, a_student, available, start", [
    (20, 0, 2 * GB, 20), (20, GB, 30 * GB, 20), (20, GB, 10 * GB, 8), (20, GB, GB, 1)])
def test_no_more_start_than_leave_the_reserve(classroom, students, a_student, available, start):
    assert classroom.may_start(students, a_student, available) == start


def test_a_class_that_does_not_fit_is_smaller_and_says_so(classroom, args, monkeypatch):
    monkeypatch.setattr(classroom, "available_bytes", lambda: 4 * GB)
    monkeypatch.setattr(classroom, "processes",
                        lambda command, students, args: ([classroom.Visit("yes", 1.0)] * students, classroom.Memory()))
    known = [{"way": "runtime", "pss_bytes": GB, "started": 1, "text": "yes"}]
    row = classroom.measure("runtime", 5, args, known)
    assert (row["students"], row["started"], row["other_texts"]) == (5, 2, 0)
    assert module("classroom_report").started(row) == "2 of 5"


def test_a_cgroup_leaves_less_and_its_cached_files_do_not_count(classroom, tmp_path):
    everything = classroom.available_bytes(tmp_path, "0::/")
    (tmp_path / "job" / "step").mkdir(parents=True)
    for folder, limit in ((tmp_path / "job", "3000000"), (tmp_path / "job" / "step", "max")):
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text("2500000\n")
        (folder / "memory.stat").write_text("anon 1000000\nfile 1500000\n")
    assert classroom.available_bytes(tmp_path, "4:memory:/x\n0::/job/step\n") == 2_000_000 < everything


def test_the_memory_is_looked_at_often_enough_to_see_a_peak(classroom, monkeypatch):
    sizes = iter([(10, 20), (30, 30), (5, 5)])
    monkeypatch.setattr(classroom, "held", lambda pid: next(sizes))
    memory = classroom.Memory()
    for _ in range(3):
        memory.look([1])
    assert (memory.pss, memory.rss, memory.pause) == (30, 30, classroom.LEAST_S)
    monkeypatch.setattr(classroom.time, "thread_time", iter([0.0, 60.0]).__next__)
    memory.look([])
    assert (memory.pss, memory.pause) == (30, classroom.MOST_S)


def test_what_is_shared_counts_once(classroom):
    pss, rss = classroom.held(os.getpid())
    assert 0 < pss <= rss and rss > 20e6
    assert classroom.held(2**22 + 1) == (0, 0)  # no process has so large a number


# Table and advice ----------------------------------------------------------------------------------------------------

def row(way: str, students: int, pss: float, all_s: float, processor_s: float, **more) -> dict:
    return {"way": way, "students": students, "started": students, "half_s": all_s / 2, "all_s": all_s,
            "pss_bytes": pss, "rss_bytes": 1.2 * pss, "available_drop_bytes": pss, "processor_s": processor_s,
            "failed": {}, "other_texts": 0} | more


def document(rows: list[dict], **more) -> dict:
    return {"machine": machine.card(1) | {"memory_bytes": 8 * 2**30}, "load_before": 0.1, "others_cores": 0.0,
            "model": "whisper-base", "precision": "int8", "page_threads": 2,
            "clip": {"file": "hello.wav", "seconds": 6.31}, "reserve_bytes": 1.5 * GB, "rows": rows} | more


def test_the_server_and_its_cores_follow_from_the_measurements(report):
    rows = [row("02", 1, 0.8 * GB, 8, 7.5), row("02", 5, 3.6 * GB, 20, 7.5),  # 0.1 GB, and 0.7 GB for each
            row("runtime", 1, 0.2 * GB, 1, 0.9), row("runtime", 20, 4 * GB, 12, 0.9), row("page", 1, 0.4 * GB, 2, 1),
            row("page", 5, 0.5 * GB, 4, 1)]
    text = report.advice(document(rows))
    assert "| a process of 02 each, PyTorch | 14.1 (calculated) | 16 GiB | 5 |" in text
    assert "| a process of the runtime each | 4.0 | 8 GiB | 1 |" in text
    assert "every student adds 700 MB, so this machine, with 8 GiB, holds 9, too few for 20: let them run in 3 " in text
    assert "every student adds 200 MB, so this machine, with 8 GiB, holds 35, enough for 20." in text
    assert "0.5 s for each one before them; the last of 20 has a text after 12 s, calculated." in text


def test_the_advice_turns_with_the_numbers(report):
    slow = report.advice(document([row("page", 1, GB, 2, 1), row("page", 5, GB, 10, 1)]))
    assert "has a text after 40 s, calculated. For a whole class that presses at once give each a process." in slow
    assert "512" not in report.advice(document([row("02", 20, 900 * GB, 9, 9)]))


def test_cores_that_were_too_few_are_not_advised(report):
    """A page lets its visitors wait in a row: processor seconds alone do not say how long."""
    rows = [row("page", 1, GB, 3, 2.4), row("page", 20, GB, 34.7, 2.4), row("runtime", 20, 4 * GB, 20, 1.9)]
    two = {"machine": machine.card(1) | {"memory_bytes": 8 * 2**30, "cores": 2}}
    assert "| one page of 01 for all | 1.0 | 4 GiB | more than 2 |" in report.advice(document(rows, **two))
    assert "| a process of the runtime each | 4.0 | 8 GiB | 2 |" in report.advice(document(rows, **two))
    one = {"machine": two["machine"] | {"cores": 1}}  # where 2 were not tried, the formula says 2
    assert "| one page of 01 for all | 1.0 | 4 GiB | 2 |" in report.advice(document(rows, **one))


def test_the_table_says_what_failed_and_how_busy_it_was(report):
    rows = [row("02", 20, GB, 9, 9, started=12, failed={"killed": 2}, other_texts=1), row("page", 1, GB, 2, 1),
            row("page", 5, GB, 9, 1) | {"half_s": None, "all_s": None, "failed": {"no | text": 5}}]
    text = report.table(document(rows))
    assert "| 12 of 20 | 4.5 | 9.0 | 1000 | 1200 | 1000 | 9.0 | 2: killed; 1 other text |" in text
    assert "| 5 |  |  |" in text and "5: no / text |" in text
    assert "busy" not in report.described(document(rows))
    assert "**The machine was busy**" in report.described(document(rows, others_cores=1.5))
    assert "hello.wav (6.3 s of sound)" in report.described(document(rows))
