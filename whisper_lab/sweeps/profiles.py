"""Power over time, read from whoever wrote it: this lab's trace, nvidia-smi's CSV, dcgmi's table.

Energy is the integral of power over the recorded times (trapezoids), never samples x interval: a sampler that is asked
for 25 ms delivers what it can, and a fixed 50 ms would double its joules. A counter of the device comes before both.
"""

import csv
import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from whisper_lab import files

# The fields that the original launcher asks dcgmi for, after the name (which may hold blanks), in its order.
DCGM = ["power", "limit", "energy_mj", "temperature", "memory_temperature", "utilization", "memory_utilization",
        "memory_total", "memory_free", "memory_used", "sm_clock", "memory_clock", "app_sm", "app_memory", "pstate",
        *(f"profiling_{i}" for i in range(1001, 1009))]
LARGEST = 1 << 30  # bytes: months of power at 40 samples a second
SMI = {"power": "power.draw", "sm_clock": "clocks.sm", "memory_clock": "clocks.mem", "temperature": "temperature.gpu",
       "utilization": "utilization.gpu", "memory_used": "memory.used"}
OURS = {"time": "timestamp_s", "power": "power_w", "sm_clock": "sm_clock_mhz", "memory_clock": "memory_clock_mhz",
        "temperature": "temperature_c", "utilization": "gpu_utilization_percent", "cpu_clock": "cpu_clock_mhz",
        "cpu_utilization": "cpu_utilization_percent", "memory_used": "memory_used_bytes", "energy": "energy_j"}


@dataclass
class Profile:
    """One device's samples: `columns` name -> float64 [samples], NaN for what was not recorded; `time` in seconds."""

    form: str  # lab, nvidia-smi, dcgm
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    def known(self, name: str) -> bool:
        """Whether a column holds at least one number."""
        return name in self.columns and bool(np.isfinite(self.columns[name]).any())

    def mean(self, name: str, under_load: bool = False) -> float | None:
        """Mean of a column; `under_load` keeps the samples in which the device was busy, where that is known."""
        if not self.known(name):
            return None
        values = self.columns[name]
        busy = self.columns.get("cpu_utilization" if name.startswith("cpu_") else "utilization")
        if under_load and busy is not None and (chosen := (busy >= 10) & np.isfinite(values)).any():
            values = values[chosen]
        return float(np.nanmean(values))


def energy(devices: list[Profile]) -> dict:
    """Joules of all devices in a file: `energy_j`, `energy_method`, `window_s`, and `reason` where unknown."""
    parts = [_energy(device) for device in devices]
    missing = next((part for part in parts if part["energy_j"] is None), None)
    if missing or not parts:
        return missing or {"energy_j": None, "energy_method": "none", "window_s": None, "reason": "no sample"}
    return {"energy_j": sum(part["energy_j"] for part in parts), "energy_method": parts[0]["energy_method"],
            "window_s": max((part["window_s"] for part in parts if part["window_s"]), default=None), "reason": None}


def _energy(profile: Profile) -> dict:
    times = profile.columns.get("time")
    window = float(times[-1] - times[0]) if times is not None and len(times) > 1 else None
    made = {"energy_j": None, "energy_method": "none", "window_s": window, "reason": None}
    if profile.known("energy"):
        counter = profile.columns["energy"][np.isfinite(profile.columns["energy"])]
        if len(counter) > 1 and counter[-1] > counter[0]:
            return made | {"energy_j": float(counter[-1] - counter[0]), "energy_method": "counter"}
    if times is None:
        return made | {"reason": "its samples carry no time and no energy counter"}
    if not profile.known("power"):
        return made | {"reason": "no power was recorded"}
    good = np.isfinite(profile.columns["power"])
    if good.sum() < 2:
        return made | {"reason": "fewer than two power samples"}
    joules = np.trapezoid(profile.columns["power"][good], times[good])
    return made | {"energy_j": float(joules), "energy_method": "integrated-power"}


def read(path: Path) -> list[Profile]:
    """The samples of each device in a file. Raises ValueError where no known writer made it."""
    text = files.read_text(path, "replace", LARGEST)
    csv.field_size_limit(files.LARGEST_TEXT)  # a damaged file may have one cell, and csv.Error is not a ValueError
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("# ")]
    if not lines:
        raise ValueError("it is empty")
    if lines[0].startswith("timestamp_s"):
        return [_ours(lines)]
    if "power.draw" in lines[0]:
        return _smi(lines)
    if lines[0].startswith("#Entity") or any(line.startswith("GPU ") for line in lines):
        return _dcgm(lines)
    raise ValueError("neither this lab's, nvidia-smi's nor dcgmi's columns")


def _number(cell: str | None) -> float:
    """A cell as float; units, `[N/A]` and what a kill broke off become NaN where no number leads."""
    try:
        return float((cell or "").split()[0])
    except (ValueError, IndexError):
        return float("nan")


def _columns(rows: list[dict], names: dict[str, str]) -> dict[str, np.ndarray]:
    return {name: np.array([_number(row.get(theirs)) for row in rows]) for name, theirs in names.items()}


def _ours(lines: list[str]) -> Profile:
    columns = _columns(list(csv.DictReader(lines)), OURS)
    good = np.isfinite(columns["time"])
    return Profile("lab", {name: values[good] for name, values in columns.items()})


def _smi(lines: list[str]) -> list[Profile]:
    """One Profile a GPU index; header cells may carry units (`power.draw [W]`)."""
    reader = csv.reader(lines, skipinitialspace=True)
    header = [cell.split("[")[0].strip().replace("clocks.current.", "clocks.") for cell in next(reader)]
    rows = [dict(zip(header, row, strict=False)) for row in reader]
    groups: dict[str, list[dict]] = {}
    for row in rows:
        if _smi_time(row.get("timestamp", "")) is not None:
            groups.setdefault(row.get("index", "0"), []).append(row)
    return [Profile("nvidia-smi", {"time": np.array([_smi_time(row["timestamp"]) for row in group]),
                                   **_columns(group, SMI)}) for group in groups.values()]


def _smi_time(text: str) -> float | None:
    for form in ("%Y/%m/%d %H:%M:%S.%f", "%Y/%m/%d %H:%M:%S"):
        try:
            moment = datetime.datetime.strptime(text.strip(), form)
        except ValueError:
            continue
        return moment.replace(tzinfo=datetime.UTC).timestamp()  # only differences count
    return None


def _dcgm(lines: list[str]) -> list[Profile]:
    groups: dict[str, list[dict]] = {}
    for entity, values in _dcgm_rows(lines):
        groups.setdefault(entity, []).append(dict(zip(DCGM, values, strict=True)))
    made = []
    for rows in groups.values():
        columns = _columns(rows, {name: name for name in DCGM})
        made.append(Profile("dcgm", columns | {"energy": columns.pop("energy_mj") / 1e3}))
    return made


def _dcgm_rows(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    for line in lines:
        cells = line.split()
        if cells[0] == "GPU" and len(cells) >= 2 + len(DCGM):
            yield cells[1], cells[-len(DCGM):]
