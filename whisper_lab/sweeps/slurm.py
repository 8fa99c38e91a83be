"""Sweeps on a cluster: one job array whose index picks the run from the plan; only missing runs are submitted."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from whisper_lab import console
from whisper_lab.console import LabError
from whisper_lab.sweeps.plan import SCRIPT

ARRAY_SCRIPT = SCRIPT.parent / "slurm" / "array.sh"


@dataclass(frozen=True)
class Submission:
    """What a sweep asks of SLURM."""

    walltime: str  # of one run, as sbatch's --time
    parallel: int = 1  # runs at once
    partition: str | None = None  # None: the cluster's default
    wait: bool = False  # until the last task has ended
    more: tuple[str, ...] = ()  # further options of sbatch


def array_spec(indices: list[int], parallel: int) -> str:
    """[0, 1, 2, 5], 1 -> `0-2,5%1`: SLURM's own notation; %N is how many may run at once."""
    parts: list[list[int]] = []
    for index in sorted(indices):
        if parts and index == parts[-1][-1] + 1:
            parts[-1].append(index)
        else:
            parts.append([index])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts) + f"%{parallel}"


def sbatch_options(plan: dict, indices: list[int], folder: Path, wanted: Submission) -> list[str]:
    """The options of sbatch for these runs of the plan."""
    made = [f"--array={array_spec(indices, wanted.parallel)}", f"--job-name={plan['app']['name']}-{plan['device']}",
            f"--output={folder.absolute()}/slurm_%A_%a.out", f"--time={wanted.walltime}"]
    if wanted.partition:
        made.append(f"--partition={wanted.partition}")
    if plan["device"] != "CPU":
        made.append("--gpus-per-node=1")
    return [*made, *wanted.more]


def submit(plan: dict, indices: list[int], folder: Path, wanted: Submission) -> str:
    """Submit the array; returns its job id, at once or with wanted.wait when its last task has ended.

    Raises LabError where there is no sbatch or it refuses; a task that fails is no error here: its record says so.
    """
    if shutil.which("sbatch") is None:
        raise LabError("--slurm: there is no sbatch on this machine",
                       "call it on the cluster's login node, or leave out --slurm to run here")
    command = ["sbatch", "--parsable", *(["--wait"] if wanted.wait else []),
               *sbatch_options(plan, indices, folder, wanted),
               str(ARRAY_SCRIPT), "--output-dir", str(folder.absolute())]
    console.note("sbatch", " ".join(command[1:]), f"{len(indices)} of {len(plan['order'])} runs are missing")
    environment = os.environ | {"LAB_ROOT": str(SCRIPT.parent), "LAB_PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    job = re.match(r"\d+", done.stdout)
    if job is None:
        said = done.stderr.strip().splitlines()
        raise LabError(f"sbatch refused: {said[-1] if said else f'exit {done.returncode}'}",
                       "see its options above; --partition and --slurm-args pass others")
    return job[0]
