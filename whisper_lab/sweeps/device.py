"""Which device a sweep measures, whether its clock can be set, and what happens where it cannot."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from whisper_lab import console
from whisper_lab.console import LabError
from whisper_lab.sweeps import clocks as clock
from whisper_lab.sweeps import layout
from whisper_lab.sweeps import plan as plans


@dataclass
class Chosen:
    """The device's name in file names, its clock, the mode that is possible; `dry_run`: why nothing may be run."""

    device: str
    clocks: clock.Clocks
    mode: str
    dry_run: str | None = None
    notes: list[str] = field(default_factory=list)

    def say(self, what: str, choice: str, reason: str) -> None:
        """A choice with its reason, for the reader and for the summary."""
        console.note(what, choice, reason)
        self.notes.append(f"{what}: {choice} ({reason})")


def find(gpu_type: str, index: int, only_look: bool = False) -> clock.Clocks:
    """This machine's clock; with --gpu-type CPU that of the processor, even where there is a GPU."""
    return clock.find_cpu("--gpu-type CPU") if gpu_type == "CPU" else clock.find(index, only_look)


def device(args) -> Chosen:
    """The device of a sweep that is started here. A job array's own device is the node's: only its name counts."""
    if args.slurm and args.gpu_type != "auto":
        unknown = clock.Clocks(args.gpu_type, "the node will tell")
        return Chosen(args.gpu_type, unknown, args.profiling_mode)
    found = find(args.gpu_type, args.gpu_index, only_look=args.dry_run)
    chosen = Chosen(found.device, found, args.profiling_mode)
    same = args.gpu_type in ("auto", found.device)
    if args.profiling_mode == "baseline":
        why = "what this machine has" if same else f"there is no {args.gpu_type} here: files and summary say so"
        chosen.say("device", found.device, why)
    elif not same:
        chosen.device = args.gpu_type
        chosen.dry_run = f"there is no {args.gpu_type} here but {found.device}" + (
            f" ({found.reason})" if found.reason else "")
    elif found.reason and found.device == "CPU":
        chosen.mode = "baseline"
        chosen.say("profiling mode", "baseline", f"clocks cannot be set: {found.reason}")
    elif found.reason:
        chosen.dry_run = found.reason
    return chosen


def for_task(args, plan: dict | None) -> Chosen:
    """The device of one task of an array. Raises LabError where the node is not what the plan is for."""
    wanted = plan["device"] if plan else args.gpu_type
    found = find(wanted, plan["profiling"]["gpu_index"] if plan else args.gpu_index)
    mode = plan["mode"] if plan else args.profiling_mode
    if wanted not in ("auto", found.device):
        raise LabError(f"the plan is for {wanted}, and this node has {found.device}" + (
            f" ({found.reason})" if found.reason else ""), "choose another --partition")
    if mode != "baseline" and found.reason:
        raise LabError(f"this node's clock cannot be set: {found.reason}", "--profiling-mode baseline needs no right")
    return Chosen(found.device, found, mode)


def folder(args, device: str) -> Path:
    """--output-dir, or the document's name for it."""
    return Path(args.output_dir or layout.default_folder(device, args.app_name))


def show(plan: dict, folder: Path, reason: str) -> int:
    """The plan as a table, for a dry run; always status 0."""
    rows = [[entry["index"], entry["freq_requested_mhz"] or "default", folder / f"{entry['run_id']}_profile.csv"]
            for entry in plan["order"]]
    console.table(f"Dry run: {console.count(len(rows), 'run')}, in this order", ["run", "clock MHz", "profile"], rows)
    console.result("command of each: " + shlex.join(plans.command(plan, "python")))
    console.result(f"nothing was run: {reason}")
    if reason != "--dry-run":
        console.result("  try: --profiling-mode baseline, which needs neither the right nor the device; or --slurm")
    return 0
