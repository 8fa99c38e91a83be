"""One run after the other: cool down, lock the clock, start a fresh process, watch it, write down how it went."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from whisper_lab import console, files, locks
from whisper_lab.console import LabError
from whisper_lab.sweeps import leash, profiles
from whisper_lab.sweeps.clocks import Clocks, locked
from whisper_lab.sweeps.layout import RunKey, read_json
from whisper_lab.sweeps.leash import MARK
from whisper_lab.sweeps.plan import command_of_run, run_key

STATUS_SCHEMA = "whisper-onnx-lab/sweep-run/1"
COOL_C = 5.0  # a run starts when the device is at most this much warmer than before the first one
WATCH_S = 0.5
CLOCK_TOLERANCE = 0.02  # a mean clock this far below the one asked for was not reached


def done(folder: Path, key: RunKey) -> dict | None:
    """The record of a run that succeeded and whose files are there, else None: then it is to be run (again)."""
    record = read_json(folder / key.files()["status"])
    whole = record and record.get("status") == "success" and all(
        (folder / name).is_file() for name in record["files"].values() if name)
    return record if whole else None


def missing(plan: dict, folder: Path) -> list[dict]:
    """The entries of the plan that are not done."""
    return [entry for entry in plan["order"] if not done(folder, run_key(plan, entry))]


def run_all(plan: dict, entries: list[dict], folder: Path, clocks: Clocks) -> list[dict]:
    """Run these entries in order; returns their records. A run that fails is recorded and the sweep goes on."""
    end_left_running()
    start_c, records = clocks.temperature_c(), []
    for number, entry in enumerate(entries, 1):
        key = run_key(plan, entry)
        if (record := done(folder, key)) is not None:
            console.note(key.stem, "not run again", "it is done")
        else:
            cooled = cool_down(clocks, start_c, plan["profiling"]) if records else 0.0
            console.note(f"run {number} of {len(entries)}", key.stem, clock_text(key.freq))
            record = run_one(plan, key, folder, clocks, cooled)
        records.append(record)
    return records


def clock_text(freq: int | None) -> str:
    return "default clocks" if freq is None else f"clock locked at {freq} MHz"


def cool_down(clocks: Clocks, start_c: float | None, profiling: dict) -> float:
    """Wait --sleep-interval seconds, then until the device is about as cool as at the start; seconds waited."""
    begin = time.monotonic()
    time.sleep(profiling["sleep_s"])
    while start_c is not None and time.monotonic() - begin < profiling["cooldown_max_s"]:
        now = clocks.temperature_c()
        if now is None or now <= start_c + COOL_C:
            break
        time.sleep(0.5)
    return round(time.monotonic() - begin, 3)


@contextlib.contextmanager
def alone(folder: Path, key: RunKey) -> Iterator[None]:
    """Only one process makes a run. Raises LabError."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locks.alone(folder / f".{key.stem}.lock", wait=False))
        except BlockingIOError as error:
            raise LabError(f"{key.stem} is being run by another process", "wait for it, then call again") from error
        except OSError as error:
            raise LabError(f"cannot write into {folder}: {error.strerror or error}",
                           "free some disk space, or choose another --output-dir") from error
        yield


def run_one(plan: dict, key: RunKey, folder: Path, clocks: Clocks, cooled: float = 0.0) -> dict:
    """Make one run and write its record, last of all: a run without a record was killed and counts as missing."""
    names = key.files()
    with alone(folder, key):
        for name in names.values():  # what a killed or failed attempt left
            (folder / name).unlink(missing_ok=True)
        command = [*command_of_run(plan, sys.executable), "--output-file", str(folder / names["result"]),
                   "--trace", str(folder / names["profile"]), "--interval-ms", str(plan["profiling"]["interval_ms"])]
        before = clocks.temperature_c()
        with locked(clocks, key.freq), Watch(clocks) as watch:
            begin = time.time()
            status, text = execute(command, folder / names["log"], plan["profiling"]["timeout_s"], clocks.environment())
            duration = time.time() - begin
        record = {"schema": STATUS_SCHEMA, "run_id": key.stem, "run": key.run, "freq_requested_mhz": key.freq,
                  "gpu": clocks.card(),
                  "started_epoch_s": round(begin, 3), "duration_s": round(duration, 3), "exit_status": status,
                  "status": text, "cooldown_s": cooled, "temperature_before_c": before, **watch.facts(),
                  **measured(folder, names, key, status)}
        if record["status"] == "success" and record["reason"]:
            record["status"] = "failed"
        files.write_json(folder / names["status"], record)
    if record["status"] != "success":
        console.warn(f"{key.stem} {record['status']} ({record['reason'] or f'exit {status}'}): {folder / names['log']}")
    return record


def execute(command: list[str], log: Path, timeout_s: float,
            variables: dict[str, str] | None = None) -> tuple[int | None, str]:
    """Run a command in a process group of its own, its output in `log`; (exit status, success|failed|timeout)."""
    reader, writer = os.pipe()  # closes with this process, however it ends, and the leash ends the program
    leashed = [sys.executable, "-I", "-S", leash.__file__, str(reader), *command]
    with log.open("wb") as output, open(reader, "rb"), open(writer, "wb"):
        process = subprocess.Popen(leashed, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   start_new_session=True, pass_fds=[reader],
                                   env=os.environ | (variables or {}) | mark())
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None, "timeout"
        finally:  # also on Ctrl-C and SIGTERM: no run outlives its sweep
            if process.poll() is None:
                stop(process)
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left, or zombies (macOS)
                os.killpg(process.pid, signal.SIGKILL)  # what the program left would be measured with the next run
    return status, "success" if status == 0 else "failed"


def stop(process: subprocess.Popen, patience_s: float = 5.0) -> None:
    """End a process and its children, gently first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(patience_s)
            return
        except subprocess.TimeoutExpired:
            continue


class Watch:
    """Asks the device every half second, while a run goes on, whether something holds its clock down."""

    def __init__(self, clocks: Clocks):
        self.clocks, self.reasons, self.asked = clocks, set(), 0
        self.end, self.thread = threading.Event(), threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self.end.wait(WATCH_S):
            self.look()

    def look(self) -> None:
        found = self.clocks.throttling()
        if found is not None:
            self.asked += 1
            self.reasons.update(found)

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.end.set()
        self.thread.join()

    def facts(self) -> dict:
        """`throttled`: true, false, or None with its reason."""
        if not self.asked:
            return {"throttled": None, "throttled_reason": "this device does not tell why its clock is lowered"}
        return {"throttled": bool(self.reasons), "throttle_reasons": sorted(self.reasons)}


def measured(folder: Path, names: dict[str, str], key: RunKey, status: int | None) -> dict:
    """What the run's files say: energy, clock, and the results; `reason` for a run that left none."""
    result = read_json(folder / names["result"])
    present = {kind: name if (folder / name).is_file() else None for kind, name in names.items() if kind != "status"}
    profile = None
    with contextlib.suppress(OSError, ValueError):
        profile = profiles.read(folder / names["profile"])
    reason = None if result is not None else "it wrote no result file" if status == 0 else f"exit status {status}"
    return {"reason": reason, **clock_facts(profile, key), **energy_facts(result, profile),
            "average_rtf": (result or {}).get("average_rtf"), "result": without_transcripts(result),
            "machine": (result or {}).get("machine"), "files": present}


def clock_facts(devices: list[profiles.Profile] | None, key: RunKey) -> dict:
    """Actual against requested clock, over the samples under load."""
    column = "cpu_clock" if key.gpu == "CPU" else "sm_clock"
    actual = devices[0].mean(column, under_load=True) if devices else None
    made: dict = {"freq_actual_mean_mhz": None if actual is None else round(actual, 1)}
    if actual is None:
        made["freq_actual_reason"] = "no profile" if not devices else "the profile holds no clock"
    if key.freq is not None and actual is not None:
        made["freq_reached"] = actual >= key.freq * (1 - CLOCK_TOLERANCE)
    return made


def energy_facts(result: dict | None, devices: list[profiles.Profile] | None) -> dict:
    """The program's own joules; where it kept no account, those of the profile."""
    own = (result or {}).get("energy") or {}
    if own or not devices:
        return {"energy_j": own.get("energy_j"), "net_energy_j": own.get("net_energy_j"),
                "energy_method": own.get("method") or "none", "energy_window_s": own.get("duration_s"),
                "energy_reason": own.get("reason") or (None if own.get("energy_j") is not None else
                                                       "the run left neither energy nor profile"),
                "average_power_w": own.get("average_power_w"), "idle_power_w": own.get("idle_power_w")}
    found = profiles.energy(devices)
    power = found["energy_j"] / found["window_s"] if found["energy_j"] and found["window_s"] else None
    return {"energy_j": found["energy_j"], "net_energy_j": None, "energy_method": found["energy_method"],
            "energy_window_s": found["window_s"], "energy_reason": found["reason"],
            "average_power_w": power, "idle_power_w": None}


def without_transcripts(result: dict | None) -> dict | None:
    """A run's results for the summary: all but the transcripts, the machine and the joules already told."""
    left_out = {"transcriptions", "machine", "energy"}
    return None if result is None else {name: value for name, value in result.items() if name not in left_out}


# Programs left running ------------------------------------------------------------------------------------------------

# Programs that a sweep started and that are still running after the sweep was killed: the next one ends them.
#
# leash.py ends them at once; but it can be killed too (`killall -9 python`), or stopped. So every program carries in
# its environment which process swept: its id, when it was started (ids are used again), and in which container.

PATIENCE_S = 5.0


def mark() -> dict[str, str]:
    """The variable for a program that this process is about to start."""
    return {MARK: f"{os.getpid()} {_started(os.getpid())} {_container()}"}


def end_left_running() -> None:
    """End what killed sweeps of this user left running here, and say so: it would be measured with the next run."""
    import psutil

    found = [process for process in psutil.process_iter() if _is_orphan(process)]
    for process in found:
        with contextlib.suppress(psutil.Error):
            words = " ".join(process.cmdline())
            process.kill()
            console.warn(f"a sweep that was killed had left process {process.pid} running: it is ended ({words})")
    psutil.wait_procs(found, timeout=PATIENCE_S)


def _is_orphan(process) -> bool:
    """Does it belong to the process group of a sweep's program, and is that sweep gone?

    What the program has put into a group of its own, as a server that is meant to stay, is left alone.
    """
    import psutil

    try:
        sweep, started, container, *group = process.environ()[MARK].split()
        ours = container == _container() and os.getpgid(process.pid) == int(group[0] if group else process.pid)
        return ours and _started(int(sweep)) != started
    except (psutil.Error, OSError, KeyError, ValueError):  # another user's, gone meanwhile, or no sweep's
        return False


def _started(pid: int) -> str | None:
    """When a process was started, in clock ticks since the machine was (no /proc: in s); None where it is gone."""
    import psutil

    try:
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return None
        if psutil.LINUX:  # not from the clock, which may be set meanwhile
            facts = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            return facts.rpartition(")")[2].split()[19]  # behind the name, which may be anything
        return str(psutil.Process(pid).create_time())
    except (psutil.Error, OSError):
        return None


def _container() -> str:
    """Where process ids mean the same as here."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "-"
