"""A SLURM cluster of one node on this machine: munged, slurmctld and slurmd with ports and folders of their own."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

CONFIGURATION = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
JobRequeue=1
KillWait=2
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,sched_interval=2,bf_interval=1
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=lab Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")


def why_not() -> str | None:
    """Why no cluster can be started here, or None; as root on Debian the packages are installed first."""
    search = os.environ["PATH"] + ":/usr/sbin:/sbin"
    os.environ["PATH"] = search  # daemons live where an ordinary user does not look
    if os.name == "nt" or os.geteuid() != 0:
        return "starting slurmctld and slurmd takes root"
    if not all(shutil.which(name) for name in PROGRAMS) and shutil.which("apt-get"):
        for command in (["apt-get", "update", "-qq"],
                        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "slurm-wlm", "munge"]):
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(command, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, timeout=200,
                               capture_output=True)
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    return f"{', '.join(missing)} not installed (Debian: apt-get install slurm-wlm munge)" if missing else None


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def for_tests(folder: Path) -> Iterator[dict[str, str]]:
    """`cluster` for a fixture: skips where there is no SLURM, and sees at the end that no job outlived it."""
    if reason := why_not():
        pytest.skip(reason)
    with cluster(folder) as environment:
        yield environment
    assert not steps(folder), "a job outlived its cluster"


@contextlib.contextmanager
def cluster(folder: Path):
    """Start the three daemons; yields the environment in which sbatch and the like find them. Always stops them."""
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    conf = folder / "slurm.conf"
    conf.write_text(CONFIGURATION.format(folder=folder, host=host, user=getpass.getuser(), cpus=os.cpu_count(),
                                         controller=free_port(), daemon=free_port()), encoding="ascii")
    environment = os.environ | {"SLURM_CONF": str(conf)}
    commands = [["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket",
                 f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
                 f"--seed-file={folder}/munged.seed"],
                ["slurmctld", "-D", "-f", str(conf)], ["slurmd", "-D", "-f", str(conf), "-N", host]]
    daemons: list[subprocess.Popen] = []
    try:
        for command in commands:
            daemons.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL,
                                            stderr=(folder / f"{command[0]}.err").open("wb")))
            if command[0] == "munged":
                wait_for(lambda: (folder / "munge.socket").exists(), 10, "munged made no socket")
        wait_for(lambda: "idle" in said(environment, "sinfo", "-h", "-o", "%T"), 30, "the node did not become idle")
        yield environment
    finally:
        with contextlib.suppress(Exception):
            subprocess.run(["scancel", f"--user={getpass.getuser()}"], env=environment, timeout=10,
                           capture_output=True)
        # A job's own process tells slurmctld that the job has ended, and asks munged to sign that. Where these are gone
        # it tries for ever: so it comes first, and one daemon after the other.
        with contextlib.suppress(TimeoutError):
            wait_for(lambda: not steps(folder), 20, "a job did not end")
        for process in [*steps(folder), *reversed(daemons)]:
            end(process)


def steps(folder: Path) -> list[psutil.Process]:
    """The processes (slurmstepd) of this cluster's jobs: no child of ours, but they have its log open."""
    found = []
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error):
            if process.info["name"] == "slurmstepd" and any(
                    Path(file.path).is_relative_to(folder) for file in process.open_files()):
                found.append(process)
    return found


def end(process: subprocess.Popen | psutil.Process) -> None:
    """Ask it to end, and make it after a while."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
        try:
            process.wait(10)
        except (subprocess.TimeoutExpired, psutil.TimeoutExpired):
            process.kill()
            process.wait(10)


def said(environment: dict, *command: str) -> str:
    """What a command prints, errors too."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr


def wait_for(condition, seconds: float, otherwise: str) -> None:
    """Ask ten times a second until it holds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(otherwise)
        time.sleep(0.1)
