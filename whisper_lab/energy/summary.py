"""experiment_summary.json: what was planned, what was run, and the statistics of each clock. Unknown is null."""

import time
from pathlib import Path

from whisper_lab import files, machine
from whisper_lab.energy import plan as plans
from whisper_lab.energy.intervals import interval
from whisper_lab.energy.layout import SUMMARY, read_json

SCHEMA = "whisper-onnx-lab/experiment-summary/1"
FRAMEWORK_VERSION = "1.0"
STATISTICS = ["energy_j", "energy_window_s", "duration_s", "average_power_w", "average_rtf", "freq_actual_mean_mhz"]


def spread(values: list[float | None]) -> dict:
    """`intervals.interval` of the known values: mean, sd, 95 % interval (low, high), n."""
    return interval([value for value in values if value is not None])


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
