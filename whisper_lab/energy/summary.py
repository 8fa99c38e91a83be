"""experiment_summary.json: what was planned, what was run, and the statistics of each clock. Unknown is null."""

import math
import statistics
import time
from pathlib import Path

from whisper_lab import files, machine
from whisper_lab.energy import plan as plans
from whisper_lab.energy.layout import SUMMARY, read_json

SCHEMA = "whisper-onnx-lab/experiment-summary/1"
FRAMEWORK_VERSION = "1.0"
# Student's t for a two-sided 95 % interval, by degrees of freedom; beyond 30 the normal value is close enough.
T95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
       2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042]
STATISTICS = ["energy_j", "energy_window_s", "duration_s", "average_power_w", "average_rtf", "freq_actual_mean_mhz"]


def spread(values: list[float | None]) -> dict:
    """Mean, standard deviation, 95 % interval of the mean (Student) and n; null where too few values are known."""
    known = [value for value in values if value is not None]
    n = len(known)
    mean = statistics.fmean(known) if known else None
    deviation = statistics.stdev(known) if n > 1 else None
    half = (T95[n - 2] if n <= 31 else 1.96) * deviation / math.sqrt(n) if n > 1 else None
    return {"mean": mean, "sd": deviation, "ci95": [mean - half, mean + half] if n > 1 else None, "n": n}


def records(plan: dict, folder: Path) -> list[dict]:
    """The record of every planned run, in the plan's order; `missing` for those that left none."""
    found = []
    for entry in plan["order"]:
        key = plans.key(plan, entry)
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


def write(plan: dict, folder: Path, gpu: dict, notes: list[str]) -> dict:
    """Make and write the summary from the records in the folder; returns it."""
    runs = records(plan, folder)
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
