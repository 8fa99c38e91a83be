"""Measuring on an idle machine: refusing a busy one, and noticing what the host of a virtual machine takes.

    load = idle.settled_load(anyway=False)
    others = idle.refuse_busy(load, "python benchmarks/run.py", anyway=False)
    host = idle.Host()
    seconds = host.quiet(measure)        # once more where the host gave too much of the time to others
    document |= host.facts()

A host that has more virtual machines than cores gives each a part of the time. Inside nothing shows it while there is
no work; then the kernel counts as `steal` what it wanted and did not get.
"""

import contextlib
import os
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

from whisper_lab import console
from whisper_lab.console import LabError

BUSY_LOAD, BUSY_CORES = 1.0, 0.25  # more than that before the start is not idle
WARNED_LOAD = 0.5  # above it times are too long, where a program only warns
WATCHED = 3  # s
SETTLING = 180  # s that a load may take to come down, which is a mean of the last minutes
STOLEN = 0.05  # of the processor time; from there on a time means little
TRIES = 3  # for one measurement
Found = TypeVar("Found")


class Host:
    """What the host took while something was measured; `again`: how many measurements were made once more."""

    def __init__(self):
        self.taken, self.had, self.again = 0.0, 0.0, 0

    def quiet(self, measure: Callable[[], Found]) -> Found:
        """What measure() returns: of several tries the one that the host disturbed least; a quiet one is the last."""
        made: list[tuple[float, float, float, Found]] = []
        while len(made) < TRIES and (not made or made[-1][0] > STOLEN):
            before, found = times(), measure()
            taken, had = (now - then for now, then in zip(times(), before, strict=True))
            made.append((part_of(taken, had), taken, had, found))
        _, taken, had, found = min(made, key=lambda one: one[0])
        self.again += len(made) - 1
        self.taken, self.had = self.taken + taken, self.had + had
        return found

    def facts(self) -> dict[str, float]:
        """For a report: `stolen`, its part of the processor time that all that counts wanted, and `measured_again`;
        with a warning where that part is large."""
        if (stolen := part_of(self.taken, self.had)) > STOLEN:
            console.warn(f"this machine's host gave {100 * stolen:.0f} % of the processor time to others: the times "
                         "are too long, and uneven; measure again when it is quieter")
        return {"stolen": round(stolen, 3), "measured_again": self.again}


def part_of(taken: float, had: float) -> float:
    """What the host took, over what was wanted; 0 where nothing was."""
    return taken / (taken + had) if taken + had else 0.0


def times() -> tuple[float, float]:
    """Seconds of all cores since the system's start: taken by the host (0 where nobody counts it), and used here."""
    now = psutil.cpu_times()
    return getattr(now, "steal", 0.0), now.user + getattr(now, "nice", 0.0) + now.system


def in_words(document: dict) -> str:
    """What a report says of the host, to go on after the load; nothing where it was not looked at, or took nothing."""
    stolen, again = document.get("stolen"), document.get("measured_again")
    return (f", the host of the virtual machine {100 * stolen:.1f} % of the time" if stolen else "") \
        + (f" ({again} measured again, which it had disturbed)" if again else "")


def load_before() -> float:
    """The machine's load, with a warning where it is not idle."""
    if (load := os.getloadavg()[0]) > WARNED_LOAD:
        console.warn(f"the machine is not idle (load {load:.1f}): times will be too long, and uneven")
    return load


def settled_load(anyway: bool) -> float:
    """The load, waited for while it comes down: where no process is at work it only tells what was done before."""
    load = os.getloadavg()[0]
    for turn in range(SETTLING // WATCHED):
        if anyway or load <= BUSY_LOAD or busy_cores()[0] > BUSY_CORES:
            break
        if not turn:
            console.note("waiting", f"until the load of {load:.1f} is down", "nothing else is at work now")
        load = os.getloadavg()[0]
    return load


def refuse_busy(load: float | None, command: str, anyway: bool) -> float:
    """Processor cores that other processes take now. Raises LabError where that, or the load, is no idle machine.

    load: None where this program's own preparations were the load of the last minute; command: what is being run, for
    the remedy; anyway: a warning in place of the error.
    """
    others, busiest = busy_cores()
    if (load or 0) <= BUSY_LOAD and others <= BUSY_CORES:
        return others
    found = [f"load {load:.1f}"] if load is not None else []
    found.append(f"other processes take {others:.1f} of {console.count(os.cpu_count(), 'core')}{busiest}")
    problem = f"the machine is busy ({', '.join(found)}): times would be too long, and uneven"
    if not anyway:
        raise LabError(problem, f"wait until it is idle; or measure all the same: {command} --anyway")
    console.warn(problem)
    return others


def busy_cores() -> tuple[float, str]:
    """Cores that other processes take for WATCHED s, and the busiest of them, in words."""
    known = {one.pid: one for one in psutil.process_iter()}
    for one in known.values():
        with contextlib.suppress(psutil.Error):
            one.cpu_percent()
    psutil.cpu_percent()
    time.sleep(WATCHED)
    cores = psutil.cpu_percent() / 100 * os.cpu_count()
    shares: dict[str, float] = {}
    for one in known.values():
        with contextlib.suppress(psutil.Error):
            shares[one.name()] = shares.get(one.name(), 0) + one.cpu_percent()
    name = max(shares, key=shares.get, default="")
    return round(cores, 2), f", {console.plain(name, one_line=True)} most" if shares.get(name) else ""
