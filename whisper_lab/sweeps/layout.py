"""The files of a sweep: what they are called here, and what others call theirs.

    results_a100_whisper/A100_freq_510_run_01_profile.csv      power and clock over time
                         A100_freq_510_run_01_log.txt          what the program printed
                         A100_freq_510_run_01.json             what the program measured
                         A100_freq_510_run_01_status.json      how the run went: its record in the summary
                         sweep_plan.json, experiment_summary.json

Elsewhere: `run_<id>_freq_<MHz>_profile.csv`, `..._app.out`, `timing_summary.log`, without a summary in JSON.
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from whisper_lab import files
from whisper_lab.console import LabError

PLAN, SUMMARY = "sweep_plan.json", "experiment_summary.json"
TIMING = "timing_summary.log"
KINDS = {"profile": "_profile.csv", "log": "_log.txt", "result": ".json", "status": "_status.json"}
OURS = re.compile(r"^(?P<gpu>[A-Za-z0-9-]+)_freq_(?P<freq>\d+|baseline)_run_(?P<run>\d+)"
                  r"(?P<end>_profile\.csv|_log\.txt|\.json|_status\.json)$")
THEIRS = re.compile(r"^run_(?P<id>[A-Za-z0-9_]+?)_freq_(?P<freq>\d+)(?P<end>_profile\.csv|_app\.out|_app\.err)$")
ENDS = {end: kind for kind, end in KINDS.items()} | {"_app.out": "log", "_app.err": "errors"}


@dataclass(frozen=True)
class RunKey:
    """One run of a sweep: device, requested clock in MHz (None: default clocks), repetition from 1."""

    gpu: str
    freq: int | None
    run: int

    @property
    def stem(self) -> str:
        """The first part of its files' names."""
        return f"{self.gpu}_freq_{'baseline' if self.freq is None else self.freq}_run_{self.run:02d}"

    def files(self) -> dict[str, str]:
        """Its four file names."""
        return {kind: self.stem + end for kind, end in KINDS.items()}


def default_folder(gpu: str, app: str) -> str:
    """results_a100_whisper"""
    plain = re.sub(r"[^a-z0-9.]+", "_", app.lower()).strip("_")
    return f"results_{gpu.lower()}_{plain}"


def find_runs(folder: Path) -> dict[str, dict]:
    """run_id -> {"key": RunKey, "files": {kind: Path}} for every file that either convention names."""
    found: dict[str, dict] = {}
    for path in sorted(folder.iterdir()):
        if match := OURS.match(path.name):
            freq = None if match["freq"] == "baseline" else int(match["freq"])
            key = RunKey(match["gpu"], freq, int(match["run"]))
            name = key.stem
        elif match := THEIRS.match(path.name):
            freq = None if match["id"].startswith("baseline") else int(match["freq"])
            key = RunKey(folder_gpu(folder), freq, int((re.search(r"\d+$", match["id"]) or ["1"])[0]))
            name = f"{match['id']}@{match['freq']}"
        else:
            continue
        found.setdefault(name, {"key": key, "files": {}})["files"][ENDS[match["end"]]] = path
    return found


def folder_gpu(folder: Path) -> str:
    """The GPU that a folder's own name tells: results_a100_whisper -> A100; else unknown."""
    match = re.match(r"results_([a-z0-9]+)", folder.name)
    return match[1].upper() if match else "unknown"


def read_timing(folder: Path) -> dict[tuple[str, int], dict]:
    """timing_summary.log of the original launcher: (run id, MHz) -> duration_s (whole seconds), exit_code, status."""
    path = folder / TIMING
    if not path.is_file():
        return {}
    rows: dict[tuple[str, int], dict] = {}
    csv.field_size_limit(files.LARGEST_TEXT)  # csv.Error is not a ValueError
    for row in csv.reader(files.read_text(path, errors="replace").splitlines()):
        cells = [cell.strip() for cell in row]
        if len(cells) < 5 or cells[0].startswith("#") or not cells[1].isdigit():
            continue
        try:
            rows[cells[0], int(cells[1])] = {"duration_s": float(cells[2]), "exit_code": int(cells[3]),
                                             "status": cells[4]}
        except ValueError:
            continue
    return rows


LARGEST_LOG = 1 << 30  # bytes
DECIMAL = r"\d{1,99}(?:\.\d+)?"
LOG_VALUES = {"model": (r"^Model:\s*(\S+)", str), "device": (r"^Device:\s*(\S+)", str),
              "total_audio_duration": (rf"^Total Audio Duration:\s*({DECIMAL})", float),
              "total_inference_time": (rf"^Total Inference Time:\s*({DECIMAL})", float),
              "average_rtf": (rf"^Average RTF:\s*({DECIMAL})", float),
              "model_parameters": (r"^Model Parameters:\s*(\d[\d,]{0,99})", lambda text: int(text.replace(",", "")))}


def read_log(path: Path) -> dict:
    """What a program printed in the document's form, for runs that left no JSON; only the keys it printed."""
    try:
        text = files.read_text(path, "replace", LARGEST_LOG)
    except (OSError, ValueError):  # a pipe, or more than a program prints
        return {}
    found = {name: re.search(pattern, text, re.MULTILINE) for name, (pattern, _) in LOG_VALUES.items()}
    return {name: LOG_VALUES[name][1](match[1]) for name, match in found.items() if match}


def read_json(path: Path) -> dict | None:
    """A JSON object, or None where the file is missing, broken off or no object: a killed run leaves such."""
    try:
        document = files.read_json(path)
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def check_folder(path: str | Path) -> Path:
    """A results folder that exists. Raises LabError."""
    folder = Path(path)
    if not folder.is_dir():
        raise LabError(f"there is no results folder {folder}",
                       "make one: python 06-profile-energy.py sweep --profiling-mode baseline --num-runs 3")
    return folder
