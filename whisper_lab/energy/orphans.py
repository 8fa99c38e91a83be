"""Programs that a sweep started and that are still running after the sweep was killed: the next one ends them.

leash.py ends them at once; but it can be killed too (`killall -9 python`), or stopped. So every program carries in its
environment which process swept: its id, when it was started (ids are used again), and in which container.
"""

import contextlib
import os
from pathlib import Path

from whisper_lab import console
from whisper_lab.energy.leash import MARK

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
