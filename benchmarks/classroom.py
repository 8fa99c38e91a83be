"""A class on one machine: how long each student waits for a first text, and how much memory all of them take.

    python 03-export-encoder-decoder.py --model base --precision int8
    python benchmarks/classroom.py                                   # classroom.json here; minutes, on an idle machine
    python benchmarks/classroom.py --students 1 3 --output-dir /tmp/trial --anyway                           # a trial

Three ways to get a text, each with so many students at the same moment:

    02        a process of 02-whisper-huggingface.py for each student: PyTorch
    runtime   a process of `python -m whisper_lab` for each student: the graphs of 03
    page      one process of 01-record-audio-app.py, which all visit: upload, then Transcribe, as a program does it

The smallest class runs first. It warms the system's file cache, as any class but the first of the day finds it, and
says how much a student takes: of a larger one only as many are started as leave RESERVE of memory, and the result says
so. A process that still runs when less is left is ended.

Memory is the proportional set size (PSS): a page that n processes share counts as 1/n in each. The resident set size
(RSS) counts it in full in each, so its sum is too large. Both are Linux's; what the system calls available is beside
them. classroom_report.py makes the table and the advice of workbook/instructors.md from the result.
"""

import argparse
import contextlib
import functools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import classroom_report  # noqa: E402
import idle  # noqa: E402
from classroom_report import RESERVE, WAYS  # noqa: E402

from whisper_lab import audio, checkpoints, console, files, flags, machine, names, sessions  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

SCHEMA = "whisper-onnx-lab/classroom/1"
TITLE = "Transcription:"  # what 02 prints above its text
TIMEOUT = 300  # s for one class
# Between two looks at the memory: SPARE times what one costs, so that looking takes little from the students, and no
# longer than a peak lasts.
LEAST_S, MOST_S, SPARE = 0.05, 0.5, 20
TEXT = 6  # where the transcript is in what the button Transcribe gives back: `build` in record/app.py
CHOICE = "ONNX graphs, {}"
TOO_LITTLE = f"ended: less than {RESERVE / 1e9:g} GB of memory were left"


def main(argv: list[str] | None = None) -> int:
    """Measure class after class, show, write."""
    args = arguments(argv)
    if not Path("/proc/self/smaps_rollup").exists():
        raise LabError("this system does not say what processes share", "measure on Linux, 4.14 or newer")
    sessions.find_pair(args.model_dir, names.name_for(args.model), args.precision)
    checkpoints.resolve(args.model)  # fetched now, not by twenty at once
    load = idle.settled_load(args.anyway)
    others = idle.refuse_busy(load, "python benchmarks/classroom.py", args.anyway)
    started, rows, host = time.monotonic(), [], idle.Host()
    for students in args.students:
        for way in args.only:
            rows.append(row := host.quiet(functools.partial(measure, way, students, args, rows)))
            console.note(way, console.count(row["started"], "student"), f"the last text after {row['all_s']} s")
    document = {"schema": SCHEMA, "machine": machine.card(args.threads), "load_before": round(load, 2),
                "others_cores": others, **host.facts(), "duration_s": round(time.monotonic() - started),
                "model": names.name_for(args.model), "precision": args.precision, "page_threads": args.page_threads,
                "clip": {"file": Path(args.clip).name, "seconds": round(audio.load(args.clip).duration, 2)},
                "reserve_bytes": RESERVE, "rows": rows}
    path = files.write_json(Path(args.output_dir) / "classroom.json", document)
    console.result(classroom_report.table(document))
    console.result(f"{path} after {document['duration_s']} s")
    return 0


# Memory --------------------------------------------------------------------------------------------------------------

@dataclass
class Memory:
    """What some processes hold together, looked at again and again: the peaks."""

    before: int = field(default_factory=lambda: available_bytes())  # bytes that the system had to give away
    pss: int = 0  # bytes
    rss: int = 0
    least: int = sys.maxsize  # bytes available
    pause: float = LEAST_S  # s before the next look

    def look(self, pids: list[int]) -> int:
        """Look once; returns the bytes that are available."""
        before, found = time.thread_time(), [held(pid) for pid in pids]
        self.pss, self.rss = (max(old, sum(now)) for old, now in
                              zip((self.pss, self.rss), zip(*found, strict=True) if found else ((), ()), strict=True))
        self.least = min(self.least, available := available_bytes())
        self.pause = min(MOST_S, max(LEAST_S, SPARE * (time.thread_time() - before)))
        return available

    def facts(self) -> dict[str, int]:
        return {"pss_bytes": self.pss, "rss_bytes": self.rss, "available_before_bytes": self.before,
                "available_drop_bytes": max(0, self.before - self.least)}


def available_bytes(groups: Path = Path("/sys/fs/cgroup"), own: str | None = None) -> int:
    """Memory that programs can still have without swapping: Linux's estimate, MemAvailable, or less in a cgroup (v2).

    A cgroup counts the files that it has in the cache as its own; the system takes those back where memory is needed.
    own: as /proc/self/cgroup has it.
    """
    left = [1024 * int(re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)[1])]
    match = re.search(r"^0::/(.*)$", own if own is not None else Path("/proc/self/cgroup").read_text(), re.M)
    group = groups / match[1] if match else groups
    for folder in (group, *group.parents):
        if (folder / "memory.max").is_file() and (limit := (folder / "memory.max").read_text().strip()) != "max":
            cached = re.search(r"^file (\d+)$", (folder / "memory.stat").read_text(), re.M)
            used = int((folder / "memory.current").read_text()) - (int(cached[1]) if cached else 0)
            left.append(max(0, int(limit) - used))
    return min(left)


def held(pid: int) -> tuple[int, int]:
    """(PSS, RSS) of a process in bytes; zeros where it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0, 0
    found = [re.search(rf"^{kind}:\s+(\d+) kB", text, re.M) for kind in ("Pss", "Rss")]
    return tuple(1024 * int(match[1]) if match else 0 for match in found)


def may_start(students: int, a_student: int, available: int) -> int:
    """How many of them leave RESERVE; a_student: bytes that one takes, 0: not known yet. At least one starts."""
    return max(1, min(students, (available - RESERVE) // a_student)) if a_student else students


# A process for each student ------------------------------------------------------------------------------------------

class Student:
    """A process that prints a text, and when it did."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: str):
        self.started, self.text, self.problem, self.processor_s = time.perf_counter(), "", "", 0.0
        self.first_s = self.ended_s = None  # s after the start
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._said, text=True, cwd=folder,
                                        env=environment)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            if not self.text and (said := line.strip()) and said != TITLE:
                self.text, self.first_s = said, time.perf_counter() - self.started

    def has_ended(self) -> bool:
        """Ask the system; what the process took and why it failed is known afterwards."""
        found, status, used = os.wait4(self.process.pid, os.WNOHANG)
        if not found:
            return False
        self.process.returncode = code = os.waitstatus_to_exitcode(status)
        self._reader.join()
        self.process.stdout.close()
        self.ended_s = time.perf_counter() - self.started
        self.processor_s = used.ru_utime + used.ru_stime
        self._said.seek(0)
        last = (self._said.read().strip().splitlines() or [""])[-1]
        self._said.close()
        if code == -9 and not self.problem:
            self.problem = "killed, as the system does where memory runs out"
        elif code or not self.text:
            self.problem = self.problem or (f"exit status {code}: {last}" if code else "no text")
        return True

    def end(self, problem: str) -> None:
        """Have it end; `has_ended` will be true soon."""
        self.problem = self.problem or problem
        self.process.kill()


def processes(command: list[str], students: int, args: argparse.Namespace) -> tuple[list[Student], Memory]:
    """So many processes of this command at once, until all have ended."""
    environment = surroundings(args)
    with tempfile.TemporaryDirectory() as folder:
        memory = Memory()
        group = [Student(command, environment, folder) for _ in range(students)]
        running, limit = list(group), time.monotonic() + TIMEOUT
        try:
            while running := [student for student in running if not student.has_ended()]:
                if memory.look([student.process.pid for student in running]) < RESERVE:
                    running[-1].end(TOO_LITTLE)
                if time.monotonic() > limit:
                    for student in running:
                        student.end(f"not done after {TIMEOUT} s")
                time.sleep(memory.pause)
        finally:
            for student in running:
                student.end("stopped")
    return group, memory


def surroundings(args: argparse.Namespace) -> dict[str, str]:
    """The environment of a student's process; nothing asks a network."""
    return {**machine.child_environment(), "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1",
            "WHISPER_LAB_PACKAGE_INDEX": "never"}


# One page for all ----------------------------------------------------------------------------------------------------

@dataclass
class Visit:
    """What one visitor of the page got."""

    text: str = ""
    first_s: float | None = None
    problem: str = ""
    processor_s: float = 0.0  # a share of the page's own


@contextlib.contextmanager
def page(args: argparse.Namespace):
    """01 on a port of its own, with a new speech.wav: (process, address)."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "01-record-audio-app.py"), "--port", "0", "--model", args.model,
             "--model-dir", str(Path(args.model_dir).resolve()), "--threads", str(args.page_threads), "--quiet"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
            env=surroundings(args) | {"OMP_NUM_THREADS": str(args.page_threads)})
        try:
            said = ""
            for line in process.stdout:
                said = line.strip() or said
                if match := re.search(r"https?://[\w.]+:\d+", line):
                    break
            else:
                raise LabError(f"the page did not start: {said}", "python 01-record-audio-app.py")
            yield process, match[0]
        finally:
            process.terminate()
            process.stdout.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def visits(students: int, args: argparse.Namespace) -> tuple[list[Visit], Memory]:
    """So many visitors at once; the memory is the page's own, from before it starts."""
    import psutil

    memory, group, begin = Memory(), [Visit() for _ in range(students)], threading.Event()
    choice = CHOICE.format(args.precision)
    with page(args) as (process, address):
        used = psutil.Process(process.pid)
        before = sum(used.cpu_times()[:2])
        threads = [threading.Thread(target=attempt, args=(one, begin, lambda: visit(address, args.clip, choice)),
                                    daemon=True) for one in group]
        for thread in threads:
            thread.start()
        begin.set()
        limit = time.monotonic() + TIMEOUT
        while any(thread.is_alive() for thread in threads) and time.monotonic() < limit:
            if memory.look([process.pid]) < RESERVE:
                process.kill()  # every visitor that still waits has failed
            time.sleep(memory.pause)
        processor_s = sum(used.cpu_times()[:2]) - before if process.poll() is None else 0.0
    for one, thread in zip(group, threads, strict=True):
        one.processor_s = processor_s / students
        if thread.is_alive():
            one.problem = f"not done after {TIMEOUT} s"
    return group, memory


def attempt(one: Visit, begin: threading.Event, work: Callable[[], str]) -> None:
    """A visitor's thread: waits for the others, then visits; what goes wrong is noted."""
    begin.wait()
    started = time.perf_counter()
    try:
        one.text = work()
        one.first_s = time.perf_counter() - started
        one.problem = "" if one.text else "no text"
    except Exception as error:  # whatever it is, this visitor has no text
        one.problem = f"{type(error).__name__}: {error}".splitlines()[0][:200]


def visit(address: str, clip: str, choice: str) -> str:
    """Open the page, upload the clip, press Transcribe; returns the text. Raises httpx's errors, and ValueError."""
    import httpx

    with httpx.Client(base_url=address, timeout=TIMEOUT, trust_env=False) as web:  # no proxy for what stays here
        web.get("/").raise_for_status()
        with open(clip, "rb") as sound:
            sent = web.post("/gradio_api/upload", files={"files": (Path(clip).name, sound)}).raise_for_status().json()
        asked = {"data": [{"path": sent[0], "meta": {"_type": "gradio.FileData"}}, choice, "", 1280]}
        event = web.post("/gradio_api/call/transcribe", json=asked).raise_for_status().json()["event_id"]
        answer = web.get(f"/gradio_api/call/transcribe/{event}").raise_for_status().text
    found = re.search(r"^event: complete\ndata: (.*)$", answer, re.M)
    if not found:
        raise ValueError(f"the page answered {answer.strip()[-100:]}")
    return json.loads(found[1])[TEXT].strip()


# One class -----------------------------------------------------------------------------------------------------------

def measure(way: str, students: int, args: argparse.Namespace, before: list[dict]) -> dict:
    """One class: times to the first text in s, bytes, processor seconds a student, failures by reason.

    before: the rows that are known, for what a student takes and which text is right.
    """
    known = [row for row in before if row["way"] == way]
    a_student = max((row["pss_bytes"] // row["started"] for row in known), default=0) if way != "page" else 0
    count = may_start(students, a_student, available_bytes())
    if count < students:
        console.warn(f"{way}: {count} of {students} students start; with more, less than {RESERVE / 1e9:g} GB of "
                     "memory would be left")
    started = time.perf_counter()
    group, memory = visits(count, args) if way == "page" else processes(command(way, args), count, args)
    return summary(way, students, group, next((row["text"] for row in known), None)) \
        | {"seconds": round(time.perf_counter() - started, 1)} | memory.facts()


def summary(way: str, students: int, group: list, text: str | None) -> dict:
    """What a class got. text: the right one, None: the first of this class is."""
    times = sorted(one.first_s for one in group if one.first_s is not None and not one.problem)
    problems = [one.problem for one in group if one.problem]
    text = next((one.text for one in group if not one.problem), "") if text is None else text
    return {"way": way, "students": students, "started": len(group), "text": text,
            "half_s": round(statistics.median(times), 2) if times else None,
            "all_s": round(times[-1], 2) if times else None,
            "first_text_s": [round(one, 2) for one in times],
            "processor_s": round(sum(one.processor_s for one in group) / len(group), 2),
            "failed": {problem: problems.count(problem) for problem in sorted(set(problems))},
            "other_texts": sum(one.text != text for one in group if not one.problem)}


def command(way: str, args: argparse.Namespace) -> list[str]:
    """What a student types."""
    common = [str(Path(args.clip).resolve()), "--model", args.model, "--threads", str(args.threads), "--quiet"]
    if way == "02":
        return [sys.executable, str(ROOT / "02-whisper-huggingface.py"), *common]
    return [sys.executable, "-m", "whisper_lab", *common, "--precision", args.precision, "--model-dir",
            str(Path(args.model_dir).resolve())]


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line; wrong usage ends here with exit status 2."""
    parser = flags.parser(__doc__, "model", "model_dir", "output_dir", "quiet", "log_level", output_dir=str(HERE),
                          model=names.DEFAULT)
    parser.add_argument("--students", type=flags.whole(1), nargs="+", default=[1, 5, 20], metavar="N",
                        help="at the same moment (default: 1 5 20)")
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS), help="(default: all three)")
    parser.add_argument("--precision", choices=names.PRECISIONS, default="int8",
                        help="of the graphs (default: %(default)s)")
    parser.add_argument("--clip", default=str(ROOT / "media" / "hello.wav"), metavar="FILE",
                        help="what all transcribe (default: media/hello.wav)")
    parser.add_argument("--threads", type=flags.whole(1), default=1, metavar="N",
                        help="of each student's process, as OMP_NUM_THREADS sets it for a class (default: %(default)s)")
    parser.add_argument("--page-threads", type=flags.whole(1), default=machine.usable_cores(), metavar="N",
                        help="of the page, which transcribes one after the other (default: all cores)")
    parser.add_argument("--anyway", action="store_true", help="measure on a busy machine: the times will be too long")
    args = flags.parse(parser, argv)
    args.students = sorted(set(args.students))
    return args


if __name__ == "__main__":
    console.run(main)
