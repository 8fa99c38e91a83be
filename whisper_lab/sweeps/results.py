"""Results folders of any writer -> experiments with normalized runs; and experiment_summary.json."""

import time
from pathlib import Path

from whisper_lab import files, machine
from whisper_lab.console import LabError
from whisper_lab.metrics import mean_interval
from whisper_lab.sweeps import layout, profiles
from whisper_lab.sweeps.layout import SUMMARY, read_json
from whisper_lab.sweeps.plan import load_plan, run_key
from whisper_lab.sweeps.run import clock_facts, energy_facts, without_transcripts


def read_folder(folder: Path) -> dict:
    """One folder: `name`, `machine` (GPU or CPU as one line), `runs` (see `normalized`), `missing`, `problems`.

    Reads this lab's records where they are, else its summary, else the files alone. Raises LabError for records that
    no program of this lab writes: such a folder comes from someone else, or is damaged.
    """
    try:
        return _read(folder)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, ArithmeticError) as error:
        raise LabError(f"{folder} has records that cannot be understood: {type(error).__name__}: {str(error)[:200]}",
                       "analyze folders of results as 06 sweep writes them, or leave this one out") from error


def _read(folder: Path) -> dict:
    plan, written = load_plan(folder), layout.read_json(folder / layout.SUMMARY) or {}
    ours = written.get("schema") == SCHEMA
    if plan:
        records = run_records(plan, folder)
    elif ours and not layout.find_runs(folder):
        records = written["runs"]
    else:
        records = from_files(folder)
    app = (plan or written).get("app")
    app_name = app.get("name") if isinstance(app, dict) else None
    device = next((record["gpu"] for record in records if isinstance(record.get("gpu"), dict)),
                  written.get("gpu") if isinstance(written.get("gpu"), dict) else {})
    cpu = next((card.get("cpu") for record in records if (card := record.get("machine"))),
               (written.get("machine") or {}).get("cpu") if isinstance(written.get("machine"), dict) else None)
    keys = [found["key"].gpu for found in layout.find_runs(folder).values()]
    machine = device.get("name") or (cpu if device.get("type") == "CPU" else None) or (keys[0] if keys else None)
    runs = [run for record in records for run in by_batch(record, folder.name, machine, app_name)]
    return {"name": folder.name, "machine": machine or "unknown machine", "runs": runs,
            "expected": len(plan["order"]) if plan else None,
            "missing": missing(runs, plan is not None, written if ours else {}), "problems": problems(records)}


def from_files(folder: Path) -> list[dict]:
    """A record for each run that only files tell about."""
    timing = layout.read_timing(folder)
    return [_from_files(found, run_id, timing) for run_id, found in layout.find_runs(folder).items()]


def _from_files(found: dict, run_id: str, timing: dict) -> dict:
    key, paths = found["key"], found["files"]
    record = layout.read_json(paths["status"]) if "status" in paths else None
    if record:
        return record
    result = (layout.read_json(paths["result"]) if "result" in paths else None) or (
        layout.read_log(paths["log"]) if "log" in paths else {})
    devices, trouble = None, None
    try:
        devices = profiles.read(paths["profile"]) if "profile" in paths else None
    except ValueError as error:
        trouble = f"{paths['profile'].name}: {error}"
    name, _, freq = run_id.partition("@")
    timed = timing.get((name, int(freq)), {}) if freq else {}
    lacking = [kind for kind in ("profile", "log") if kind not in paths]
    status = "failed" if timed.get("status", "success") != "success" or timed.get("exit_code") else "success"
    made = {"run_id": run_id, "run": key.run, "freq_requested_mhz": key.freq, "status": status,
            "duration_s": timed.get("duration_s"), **clock_facts(devices, key),
            **energy_facts(result if "energy" in result else None, devices),
            "average_rtf": result.get("average_rtf"), "result": without_transcripts(result),
            "machine": result.get("machine"),
            "trouble": trouble or (f"{run_id} has no {' and no '.join(lacking)}" if lacking else None)}
    if trouble or "profile" not in paths:
        made["energy_reason"] = made["energy_reason"] or trouble or "no profile"
    return made


def by_batch(record: dict, folder: str, machine: str | None, app: str | None) -> list[dict]:
    """One normalized run a batch size: a process may have measured several one after the other."""
    result = record.get("result") or {}
    rows = result.get("batches") or [{}]
    if len(rows) == 1:
        return [normalized(record, folder, machine, app)]
    made = []
    for row in rows:
        own = row["energy"]
        inside = {"energy_j": own["energy_j"], "net_energy_j": own["net_energy_j"], "energy_reason": own["reason"],
                  "energy_window_s": own["duration_s"], "average_power_w": own["average_power_w"],
                  "average_rtf": row["average_rtf"]}
        of_row = {name: value for name, value in row.items() if name not in ("energy", "average_rtf")} | {
            "total_inference_time": row["inference_time_s"]["mean"],
            "peak_memory_bytes": row["peak_gpu_bytes"] or row["peak_rss_bytes"]}
        made.append(normalized(record | inside | {"result": result | of_row}, folder, machine, app))
    return made


def normalized(record: dict, folder: str, machine: str | None, app: str | None) -> dict:
    """The same keys for every run, None for unknown. `energy_j`, `time_s`: of one pass over the samples.

    The time is the one that the energy was counted over; the profiler repeats the pass and counts all repeats.
    """
    result = record.get("result") or {}
    passes = result.get("repeats") or 1
    _check_kinds(record, result)
    energy, net, window = (_per(record.get(name), passes) for name in ("energy_j", "net_energy_j", "energy_window_s"))
    inference = result.get("total_inference_time")
    return {"folder": folder, "machine": machine, "app": app or "unknown program", "run_id": record["run_id"],
            "status": record["status"], "freq": record["freq_requested_mhz"], "run": record["run"],
            "energy_j": energy, "net_energy_j": net, "method": record.get("energy_method"),
            "reason": record.get("energy_reason") or record.get("reason"),
            "time_s": window or inference or record.get("duration_s"),
            "inference_s": inference, "power_w": record.get("average_power_w"),
            "idle_w": record.get("idle_power_w"), "rtf": record.get("average_rtf"),
            "clock_mhz": record.get("freq_actual_mean_mhz"), "clock_reached": record.get("freq_reached"),
            "throttled": record.get("throttled"), "model": result.get("model"),
            "parameters": result.get("model_parameters"), "device": result.get("device"),
            "precision": result.get("precision") or _dtype(result.get("torch_dtype")),
            "backend": result.get("backend"), "batch": result.get("batch_size"),
            "audio_s": result.get("total_audio_duration"),
            "tokens": result.get("tokens"), "wer": result.get("wer"), "phases": result.get("phases_s") or {},
            "memory_bytes": result.get("peak_memory_bytes"), "gpu_memory_gb": result.get("gpu_memory_used")}


def _check_kinds(record: dict, result: dict) -> None:
    """What will be computed with is a finite number or unknown, what will be shown is text. Raises ValueError."""
    numbers = [(record, ("energy_j", "net_energy_j", "energy_window_s", "duration_s", "average_power_w", "idle_power_w",
                         "average_rtf", "freq_actual_mean_mhz", "freq_requested_mhz", "run")),
               (result, ("repeats", "total_inference_time", "model_parameters", "batch_size", "total_audio_duration",
                         "tokens", "wer", "peak_memory_bytes", "gpu_memory_used"))]
    texts = [(record, ("run_id", "status", "energy_method", "energy_reason", "reason")),
             (result, ("model", "device", "precision", "torch_dtype", "backend"))]
    for rows, is_kind in ((numbers, _is_number), (texts, lambda value: isinstance(value, str))):
        for row, names in rows:
            for name in names:
                if row.get(name) is not None and not is_kind(row[name]):
                    raise ValueError(f"{name} is {str(row[name])[:50]!r}")
    if not all(_is_number(value) for value in (result.get("phases_s") or {}).values() if value is not None):
        raise ValueError("phases_s holds something that is not a number")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _per(value: float | None, passes: int) -> float | None:
    return None if value is None else value / passes


def _dtype(name: str | None) -> str | None:
    return name.removeprefix("torch.") if name else None


def missing(runs: list[dict], planned: bool, written: dict) -> list[str]:
    """Run ids that should be there and are not (or did not succeed): by the plan, else by the grid of what is."""
    bad = list(dict.fromkeys(run["run_id"] for run in runs if run["status"] != "success"))
    if planned or not runs:
        return bad
    asked = (written.get("profiling") or {}).get("frequencies_mhz")
    freqs = sorted({run["freq"] for run in runs} | set(asked or []), key=lambda freq: freq or 0)
    most = max([run["run"] for run in runs] + [(written.get("profiling") or {}).get("runs") or 0])
    there = {(run["freq"], run["run"]) for run in runs}
    gaps = [f"{'default clock' if freq is None else f'{freq} MHz'} run {number:02d}" for freq in freqs
            for number in range(1, most + 1) if (freq, number) not in there]
    return bad + gaps


def problems(records: list[dict]) -> list[str]:
    """What a reader must know about single runs."""
    found = [record["trouble"] for record in records if record.get("trouble")]
    for record in records:
        if record.get("throttled"):
            found.append(f"{record['run_id']} was throttled: {', '.join(record.get('throttle_reasons') or ['?'])}")
        if record.get("freq_reached") is False:
            found.append(f"{record['run_id']} ran at {record['freq_actual_mean_mhz']:.0f} MHz instead of "
                         f"{record['freq_requested_mhz']}")
    return found


# experiment_summary.json ----------------------------------------------------------------------------------------------

SCHEMA = "whisper-onnx-lab/experiment-summary/1"
FRAMEWORK_VERSION = "1.0"
STATISTICS = ["energy_j", "energy_window_s", "duration_s", "average_power_w", "average_rtf", "freq_actual_mean_mhz"]


def spread(values: list[float | None]) -> dict:
    """metrics.mean_interval of the known values: mean, sd, 95 % interval (low, high), n."""
    return mean_interval([value for value in values if value is not None])


def run_records(plan: dict, folder: Path) -> list[dict]:
    """The record of every planned run, in the plan's order; `missing` for those that left none."""
    found = []
    for entry in plan["order"]:
        key = run_key(plan, entry)
        record = read_json(folder / key.files()["status"])
        found.append(record or {"run_id": key.stem, "run": key.run, "freq_requested_mhz": key.freq,
                                "status": "missing", "reason": "not run yet, or killed while it ran"})
    return found


def by_frequency(runs: list[dict]) -> list[dict]:
    """Statistics of the successful runs at each requested clock, ascending (default clocks first)."""
    freqs = sorted({run["freq_requested_mhz"] for run in runs}, key=lambda freq: freq or 0)
    made = []
    for freq in freqs:
        chosen = [run for run in runs if run["freq_requested_mhz"] == freq]
        good = [run for run in chosen if run["status"] == "success"]
        made.append({"freq_requested_mhz": freq, "runs": len(chosen), "succeeded": len(good),
                     "throttled": sum(bool(run.get("throttled")) for run in good),
                     **{name: spread([run.get(name) for run in good]) for name in STATISTICS}})
    return made


def write_summary(plan: dict, folder: Path, gpu: dict, notes: list[str]) -> dict:
    """Make and write the summary from the records in the folder; returns it."""
    runs = run_records(plan, folder)
    there = read_json(folder / SUMMARY) or {}
    card = next((card for run in runs if (card := run.get("machine"))), None)
    document = {
        "schema": SCHEMA, "framework_version": FRAMEWORK_VERSION,
        "created_epoch_s": there.get("created_epoch_s") or round(time.time()), "updated_epoch_s": round(time.time()),
        "mode": plan["mode"], "complete": all(run["status"] == "success" for run in runs),
        "gpu": next((run["gpu"] for run in runs if run.get("gpu")), gpu),
        "profiling": {**plan["profiling"], "runs": plan["num_runs"], "frequencies_mhz": plan["frequencies_mhz"]},
        "app": plan["app"], "machine": card or machine.card(),
        "plan": {"seed": plan["seed"], "order": [entry["run_id"] for entry in plan["order"]]},
        "notes": notes or there.get("notes") or [],
        "runs": [{name: value for name, value in run.items() if name not in {"schema", "machine", "gpu"}}
                 for run in runs],
        "statistics": by_frequency(runs)}
    files.write_json(folder / SUMMARY, document)
    return document
