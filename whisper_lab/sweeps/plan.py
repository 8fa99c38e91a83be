"""What a sweep will do, decided before the first run: which clocks, how often, in which order.

The plan is a file, so that a job array's task, a requeued job and a second call all mean the same run by the same
index. The order is random but drawn from the seed: block after block each clock once, so that whatever drifts while
the sweep goes on (temperature, a neighbour's job) strikes all clocks alike.
"""

import hashlib
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from whisper_lab import console, files
from whisper_lab.console import LabError
from whisper_lab.sweeps.clocks import GPU_TYPES, Clocks
from whisper_lab.sweeps.layout import PLAN, RunKey, read_json

SCHEMA = "whisper-onnx-lab/sweep-plan/1"
SCRIPT = Path(__file__).resolve().parents[2] / "06-profile-energy.py"


def make(device: str, frequencies: list[int | None], args) -> dict:
    """The plan of a sweep; `frequencies` in MHz, [None] for the default clocks."""
    generator, order = random.Random(args.seed), []
    for run in range(1, args.num_runs + 1):
        block = list(frequencies)
        generator.shuffle(block)
        order += [RunKey(device, freq, run) for freq in block]
    return {"schema": SCHEMA, "mode": args.profiling_mode, "device": device, "frequencies_mhz": frequencies,
            "num_runs": args.num_runs, "seed": args.seed, "app": application(args),
            "profiling": {"tool": "lab", "interval_ms": args.sampling_interval, "sleep_s": args.sleep_interval,
                          "cooldown_max_s": args.cooldown_timeout, "timeout_s": args.app_timeout,
                          "gpu_index": args.gpu_index},
            "order": [{"index": i, "run_id": key.stem, "freq_requested_mhz": key.freq, "run": key.run}
                      for i, key in enumerate(order)]}


def application(args) -> dict:
    """The program under test: name, file, arguments as a list (quotes kept, no shell) and the file's SHA-256."""
    path = executable(args.app_executable)
    try:
        params = shlex.split(args.app_params)
    except ValueError as error:
        raise LabError(f"--app-params cannot be read: {error}", "close every quote, as in a shell") from error
    modes = {"--benchmark", "--audio-file", "--generate-audio"}
    if path.resolve() == SCRIPT and not any(word.partition("=")[0] in modes for word in params):
        params = ["--benchmark", *params]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"name": args.app_name, "executable": "06-profile-energy.py" if path.resolve() == SCRIPT else str(path),
            "params": params, "sha256": digest}


def executable(name: str) -> Path:
    """The file to run. The document's WhisperViaHF.py is called 06-profile-energy.py here. Raises LabError."""
    path = Path(name)
    if path.is_file():
        return path.absolute()
    if path.name == SCRIPT.name:
        return SCRIPT
    if path.name == "WhisperViaHF.py":
        console.note("application", SCRIPT.name, f"there is no {name}; this is the same program here")
        return SCRIPT
    raise LabError(f"there is no program {name}", "leave --app-executable away to profile 06-profile-energy.py itself")


def frequencies(mode: str, custom: list[int], clocks: Clocks, device: str) -> list[int | None]:
    """The clocks of a mode in MHz, ascending; [None] for baseline. Raises LabError for a clock that cannot be had."""
    if mode == "baseline":
        return [None]
    listed = clocks.frequencies() if clocks.device == device else None
    known = listed or (GPU_TYPES[device].frequencies() if device in GPU_TYPES else None)
    if mode == "dvfs":
        if not known:
            raise LabError(f"the clocks of {device} are unknown", "name them: --profiling-mode custom "
                           "--custom-frequencies 510,960,1410")
        return list(known)
    for mhz in custom:
        if known and not known[0] <= mhz <= known[-1]:
            raise LabError(f"{mhz} MHz is outside the range of {device}, {known[0]} to {known[-1]} MHz",
                           "choose --custom-frequencies within it")
        if listed and clocks.kind == "nvml" and mhz not in listed:
            nearest = min(listed, key=lambda other: abs(other - mhz))
            raise LabError(f"this {device} has no clock of {mhz} MHz", f"the nearest is {nearest}")
    return sorted(set(custom))


def save(plan: dict, folder: Path) -> dict:
    """Write the plan, or find the same one there (then the sweep goes on); another one is an error."""
    there = read_json(folder / PLAN)
    if there is None:
        if (folder / PLAN).exists():
            raise LabError(f"{folder / PLAN} cannot be read", "remove it, or choose another --output-dir")
        files.write_json(folder / PLAN, plan)
        return plan
    changed = [name for name in plan if there.get(name) != plan[name]]
    if changed:
        raise LabError(f"{folder} holds another sweep: its {', '.join(changed)} differ{'s' * (len(changed) == 1)}",
                       "choose another --output-dir, or the same options to go on with that one")
    return there


def load(folder: Path) -> dict | None:
    """The plan in a folder of results, or None where another program made them."""
    plan = read_json(folder / PLAN)
    return plan if plan and plan.get("schema") == SCHEMA else None


def key(plan: dict, entry: dict) -> RunKey:
    """The run that an entry of plan["order"] means."""
    return RunKey(plan["device"], entry["freq_requested_mhz"], entry["run"])


def command(plan: dict, python: str) -> list[str]:
    """The command of every run, without the files it is to write."""
    name = plan["app"]["executable"]
    path = SCRIPT if name == SCRIPT.name else Path(name)
    return [*([python] if path.suffix == ".py" else []), str(path), *plan["app"]["params"]]


# SLURM ----------------------------------------------------------------------------------------------------------------

# Sweeps on a cluster: one job array whose index picks the run from the plan; only missing runs are submitted.

ARRAY_SCRIPT = SCRIPT.parent / "slurm" / "array.sh"


def array_spec(indices: list[int], parallel: int) -> str:
    """[0, 1, 2, 5], 1 -> `0-2,5%1`: SLURM's own notation; %N is how many may run at once."""
    parts: list[list[int]] = []
    for index in sorted(indices):
        if parts and index == parts[-1][-1] + 1:
            parts[-1].append(index)
        else:
            parts.append([index])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts) + f"%{parallel}"


def options(plan: dict, indices: list[int], folder: Path, args) -> list[str]:
    """The options of sbatch for this sweep."""
    made = [f"--array={array_spec(indices, args.parallel)}", f"--job-name={plan['app']['name']}-{plan['device']}",
            f"--output={folder.absolute()}/slurm_%A_%a.out", f"--time={args.walltime}"]
    if args.partition:
        made.append(f"--partition={args.partition}")
    if plan["device"] != "CPU":
        made.append("--gpus-per-node=1")
    return [*made, *args.slurm_args]


def submit(plan: dict, indices: list[int], folder: Path, args) -> str:
    """Submit the array; returns its job id. With --wait, returns when its last task has ended.

    Raises LabError where there is no sbatch or it refuses; a task that fails is no error here: its record says so.
    """
    if shutil.which("sbatch") is None:
        raise LabError("--slurm: there is no sbatch on this machine",
                       "call it on the cluster's login node, or leave --slurm away to run here")
    command = ["sbatch", "--parsable", *(["--wait"] if args.wait else []), *options(plan, indices, folder, args),
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
