"""What a sweep will do, decided before the first run: which clocks, how often, in which order.

The plan is a file, so that a job array's task, a requeued job and a second call all mean the same run by the same
index. The order is random but drawn from the seed: block after block each clock once, so that whatever drifts while
the sweep goes on (temperature, a neighbour's job) strikes all clocks alike.
"""

import hashlib
import random
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from whisper_lab import console, files
from whisper_lab.console import LabError
from whisper_lab.sweeps.clocks import GPU_TYPES, Clocks
from whisper_lab.sweeps.layout import PLAN, RunKey, read_json

SCHEMA = "whisper-onnx-lab/sweep-plan/1"
SCRIPT = Path(__file__).resolve().parents[2] / "06-profile-energy.py"


@dataclass(frozen=True)
class Rules:
    """How each run of a sweep is made and watched."""

    interval_ms: int = 50  # of the profile
    sleep_s: float = 1.0  # least pause between two runs
    cooldown_max_s: float = 60.0  # longest wait for the device to cool down
    timeout_s: float = 1800.0  # of a run
    gpu_index: int = 0
    tool: str = "lab"  # what measures: always 06 itself


def make(mode: str, device: str, frequencies: list[int | None], runs: int, seed: int, app: dict, rules: Rules) -> dict:
    """The plan of a sweep.

    mode: baseline, custom or dvfs; frequencies in MHz, [None] for the default clocks; runs: at each of them; app: of
    `application`.
    """
    generator, order = random.Random(seed), []
    for run in range(1, runs + 1):
        block = list(frequencies)
        generator.shuffle(block)
        order += [RunKey(device, freq, run) for freq in block]
    return {"schema": SCHEMA, "mode": mode, "device": device, "frequencies_mhz": frequencies, "num_runs": runs,
            "seed": seed, "app": app, "profiling": asdict(rules),
            "order": [{"index": i, "run_id": key.stem, "freq_requested_mhz": key.freq, "run": key.run}
                      for i, key in enumerate(order)]}


def application(name: str, program: str, parameters: str) -> dict:
    """The program under test: name, file, arguments as a list (quotes kept, no shell) and the file's SHA-256.

    06 without a word about what to profile takes several clips: --benchmark is put before its other arguments.
    """
    path = executable(program)
    try:
        words = shlex.split(parameters)
    except ValueError as error:
        raise LabError(f"--app-params cannot be read: {error}", "close every quote, as in a shell") from error
    ours = path.resolve() == SCRIPT
    if ours and not names_its_work(words):
        words = ["--benchmark", *words]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"name": name, "executable": SCRIPT.name if ours else str(path), "params": words, "sha256": digest}


def names_its_work(words: list[str]) -> bool:
    """Whether arguments of 06 say what it is to profile: sound, tones, a benchmark, or telling speakers apart."""
    from whisper_lab.energy import options

    given, _ = options.parser("").parse_known_args(words)
    return bool(given.audio or "former_audio" in given or given.generate_audio or given.benchmark
                or given.task == "diarize")


def executable(name: str) -> Path:
    """The file to run. The document's WhisperViaHF.py is called 06-profile-energy.py here. Raises LabError."""
    path = Path(name)
    if path.is_file():
        return path.absolute()
    if path.name == SCRIPT.name:
        return SCRIPT
    if path.name == "WhisperViaHF.py":
        console.note("application", SCRIPT.name, f"there is no {name}; it is called so here")
        return SCRIPT
    raise LabError(f"there is no program {name}", "leave out --app-executable to profile 06-profile-energy.py itself")


def choose_frequencies(mode: str, custom: list[int], clocks: Clocks, device: str) -> list[int | None]:
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


def save_plan(plan: dict, folder: Path) -> dict:
    """Write the plan, or find the same one there (then the sweep goes on); another one is an error."""
    there = read_json(folder / PLAN)
    if there is None:
        if (folder / PLAN).exists():
            raise LabError(f"{folder / PLAN} cannot be read", "remove it, or choose another --output-dir")
        files.write_json(folder / PLAN, plan)
        return plan
    changed = [name for name in plan if there.get(name) != plan[name]]
    if changed:
        raise LabError(f"{folder} contains another sweep: its {', '.join(changed)} differ{'s' * (len(changed) == 1)}",
                       "choose another --output-dir, or the same options to go on with that one")
    return there


def load_plan(folder: Path) -> dict | None:
    """The plan in a folder of results, or None where another program made them."""
    plan = read_json(folder / PLAN)
    return plan if plan and plan.get("schema") == SCHEMA else None


def run_key(plan: dict, entry: dict) -> RunKey:
    """The run that an entry of plan["order"] means."""
    return RunKey(plan["device"], entry["freq_requested_mhz"], entry["run"])


def command_of_run(plan: dict, python: str) -> list[str]:
    """The command of every run, without the files it is to write."""
    name = plan["app"]["executable"]
    path = SCRIPT if name == SCRIPT.name else Path(name)
    return [*([python] if path.suffix == ".py" else []), str(path), *plan["app"]["params"]]
