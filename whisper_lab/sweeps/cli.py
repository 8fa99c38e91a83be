"""The three commands of 06 beside its benchmark: sweep, collect, analyze."""

import argparse
import shlex
from pathlib import Path

from whisper_lab import console, flags
from whisper_lab.console import LabError

SWEEP = """Run a program again and again, at one clock or at many, and keep account of each run's energy.

    python 06-profile-energy.py sweep --profiling-mode baseline --num-runs 3
    python 06-profile-energy.py sweep --gpu-type A100 --profiling-mode custom --custom-frequencies 510,960,1410 \\
        --num-runs 3 --app-params '--benchmark --model medium --num-samples 5'
    python 06-profile-energy.py sweep --slurm --gpu-type H100 --partition NAME --num-runs 3

Writes results_<gpu>_<app>/ with a profile, a log and a result for each run, experiment_summary.json and figures.
Called again with the same options it goes on where it was stopped. Clocks are locked for a run and always released.
"""
COLLECT = """Write experiment_summary.json and figures from the runs in a folder, such as those of a job array.

    python 06-profile-energy.py collect results_a100_whisper

Exits 1 and names the missing runs where some are not there.
"""
ANALYZE = """Energy, time and their product over clocks, models, precisions, batch sizes and machines.

    python 06-profile-energy.py analyze results_a100_whisper
    python 06-profile-energy.py analyze results_a100_whisper results_h100_whisper --performance-threshold 10

Reads this lab's folders and those of others in the same layout or in nvidia-smi's and dcgmi's.
"""


def main(argv: list[str]) -> int:
    """Run `sweep`, `collect` or `analyze`; argv[0] says which. Returns the exit status."""
    return {"sweep": sweep, "collect": collect, "analyze": analyze}[argv[0]](argv[1:])


# sweep ---------------------------------------------------------------------------------------------------------------

def sweep_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line of sweep; the original launcher's options keep their names and defaults."""
    parser = flags.parser(SWEEP, "seed", "quiet", "log_level", prog="python 06-profile-energy.py sweep")
    _plan_options(parser)
    _application_options(parser)
    _limit_options(parser)
    _slurm_options(parser)
    args = flags.parse(parser, _joined(argv, "--app-params", "--slurm-args"))
    args.custom_frequencies = _frequencies(parser, args)
    if not 10 <= args.sampling_interval <= 1000:
        parser.error("--sampling-interval is 10 to 1000 ms")
    for name in ("num_runs", "parallel"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} starts at 1")
    if args.slurm and args.run_index is not None:
        parser.error("--run-index is what --slurm's own tasks get; give one of them")
    try:
        args.slurm_args = shlex.split(args.slurm_args)
    except ValueError as error:
        parser.error(f"--slurm-args: {error}")
    if args.assume_watts is not None:
        args.app_params += f" --assume-watts {shlex.quote(args.assume_watts)}"
    return args


def _joined(argv: list[str], *names: str) -> list[str]:
    """`--app-params --benchmark` -> `--app-params=--benchmark`: argparse takes the value for an option otherwise."""
    made: list[str] = []
    for word in argv:
        if made and made[-1] in names:
            made[-1] += f"={word}"
        else:
            made.append(word)
    return made


def _plan_options(parser) -> None:
    group = parser.add_argument_group("what to sweep")
    more = flags.rare(parser)
    group.add_argument("--gpu-type", default="auto", metavar="TYPE", type=_gpu_type,
                       help="A100, V100, H100, CPU, or auto: what this machine has (default: %(default)s)")
    group.add_argument("--profiling-mode", default="baseline", choices=["baseline", "custom", "dvfs"],
                       help="default clocks, the named ones, or all the device has (default: %(default)s)")
    group.add_argument("--custom-frequencies", default="", metavar="MHZ,MHZ", help="clocks of --profiling-mode custom")
    group.add_argument("--num-runs", type=int, default=3, metavar="N", help="runs at each clock (default: %(default)s)")
    more.add_argument("--sleep-interval", type=float, default=1.0, metavar="S",
                       help="least pause between two runs, seconds (default: %(default)s)")
    more.add_argument("--cooldown-timeout", type=float, default=60.0, metavar="S",
                       help="longest wait for the device to cool down between two runs (default: %(default)s)")
    more.add_argument("--profiling-tool", default="lab", choices=["lab", "nvidia-smi", "dcgmi"],
                       help="accepted for the original launcher's sake: 06 always measures with its own meters")
    more.add_argument("--sampling-interval", type=int, default=50, metavar="MS",
                       help="of the profile, 10 to 1000 ms (default: %(default)s)")
    more.add_argument("--gpu-index", type=int, default=0, metavar="N", help="which GPU (default: %(default)s)")


def _application_options(parser) -> None:
    group = parser.add_argument_group("the program under test")
    more = flags.rare(parser)
    more.add_argument("--app-name", default="Whisper", metavar="NAME", help="for the folder (default: %(default)s)")
    more.add_argument("--app-executable", default="06-profile-energy.py", metavar="FILE",
                       help="takes --output-file, --trace and --interval-ms (default: %(default)s)")
    group.add_argument("--app-params", default="--benchmark --num-samples 3", metavar="TEXT",
                       help="its arguments, quoted as in a shell (default: '%(default)s')")
    more.add_argument("--app-timeout", type=float, default=1800.0, metavar="S",
                       help="longest time of one run (default: %(default)s)")
    group.add_argument("--assume-watts", metavar="W", help="passed on to the program, for a machine "
                       "without energy counter: an estimate, labelled as one (default: none)")


def _limit_options(parser) -> None:
    group = parser.add_argument_group("results")
    more = flags.rare(parser)
    group.add_argument("--output-dir", metavar="DIR", help="where they are written (default: results_<gpu>_<app>)")
    more.add_argument("--performance-threshold", type=float, default=5.0, metavar="PERCENT",
                       help="how much slower than the fastest clock the best one may be (default: %(default)s)")
    more.add_argument("--time-limit", type=float, metavar="S", help="the same as seconds (default: none)")
    group.add_argument("--dry-run", action="store_true", help="show the plan and run nothing")


def _slurm_options(parser) -> None:
    group = parser.add_argument_group("SLURM")
    more = flags.rare(parser)
    group.add_argument("--slurm", action="store_true", help="submit the missing runs as one job array")
    group.add_argument("--wait", action="store_true", help="until the runs have ended, then collect")
    group.add_argument("--partition", metavar="NAME", help="of the cluster (default: its own)")
    more.add_argument("--walltime", default="01:00:00", metavar="TIME", help="of one run (default: %(default)s)")
    more.add_argument("--parallel", type=int, default=1, metavar="N", help="runs at once, each on a node of its own; "
                       "1 keeps the plan's order and one node's silicon (default: %(default)s)")
    more.add_argument("--slurm-args", default="", metavar="TEXT", help="more options for sbatch (default: none)")
    more.add_argument("--run-index", type=int, metavar="I", help="make only this run of the plan, as an array's task")


def _gpu_type(text: str) -> str:
    return "auto" if text.lower() == "auto" else text.upper()


def _frequencies(parser, args) -> list[int]:
    try:
        found = [int(part) for part in args.custom_frequencies.split(",") if part.strip()]
    except ValueError:
        parser.error("--custom-frequencies are whole MHz with commas between, such as 510,960,1410")
    if (args.profiling_mode == "custom") != bool(found):
        parser.error("--profiling-mode custom and --custom-frequencies need each other")
    return found


def sweep(argv: list[str]) -> int:
    """Plan, then run here, submit, or make one run of an array."""
    args = sweep_arguments(argv)
    from whisper_lab.sweeps import clocks, plan

    if args.run_index is not None:
        return _one_of_array(args)
    chosen = clocks.elsewhere(args.gpu_type, args.profiling_mode) if args.slurm and args.gpu_type != "auto" else \
        clocks.choose_device(args.gpu_type, args.gpu_index, args.profiling_mode, args.dry_run)
    made = _plan(args, chosen)
    folder = _folder(args, chosen.device)
    if args.dry_run or chosen.dry_run:
        return show_plan(made, folder, chosen.dry_run or "--dry-run")
    made = plan.save_plan(made, folder)
    return _submit(args, made, folder) if args.slurm else _here(args, made, folder, chosen)


def _plan(args, chosen) -> dict:
    from whisper_lab.sweeps import plan

    app = plan.application(args.app_name, args.app_executable, args.app_params)
    rules = plan.Rules(args.sampling_interval, args.sleep_interval, args.cooldown_timeout, args.app_timeout,
                       args.gpu_index)
    frequencies = plan.choose_frequencies(chosen.mode, args.custom_frequencies, chosen.clocks, chosen.device)
    return plan.make(chosen.mode, chosen.device, frequencies, args.num_runs, args.seed, app, rules)


def _folder(args, device: str) -> Path:
    """--output-dir, or the original's name for it."""
    from whisper_lab.sweeps import layout

    return Path(args.output_dir or layout.default_folder(device, args.app_name))


def show_plan(plan: dict, folder: Path, reason: str) -> int:
    """The plan as a table, for a dry run; always status 0."""
    from whisper_lab.sweeps.plan import command_of_run

    rows = [[entry["index"], entry["freq_requested_mhz"] or "default", folder / f"{entry['run_id']}_profile.csv"]
            for entry in plan["order"]]
    console.table(f"Dry run: {console.count(len(rows), 'run')}, in this order", ["run", "clock MHz", "profile"], rows)
    console.result("command of each: " + shlex.join(command_of_run(plan, "python")))
    console.result(f"nothing was run: {reason}")
    if reason != "--dry-run":
        console.result("  try: --profiling-mode baseline, which needs neither the right nor the device; or --slurm")
    return 0


def _submit(args, plan: dict, folder: Path) -> int:
    from whisper_lab.sweeps import run, slurm

    if not (indices := [entry["index"] for entry in run.missing(plan, folder)]):
        console.note("sbatch", "nothing to submit", "all runs are done")
        return _finish(plan, folder, args)
    wanted = slurm.Submission(args.walltime, args.parallel, args.partition, args.wait, tuple(args.slurm_args))
    job = slurm.submit(plan, indices, folder, wanted)
    if args.wait:
        return _finish(plan, folder, args)
    console.result(f"submitted job array {job}: {console.count(len(indices), 'run')} into {folder}")
    console.note("afterwards", f"python 06-profile-energy.py collect {folder}", "the last task also does it itself")
    return 0


def _here(args, plan: dict, folder: Path, chosen) -> int:
    from whisper_lab.sweeps import run

    run.run_all(plan, plan["order"], folder, chosen.clocks)
    return _finish(plan, folder, args, chosen.notes)


def _one_of_array(args) -> int:
    """Make run --run-index of the plan, which the first task to come writes."""
    from whisper_lab.sweeps import clocks, plan, run

    folder = _folder(args, args.gpu_type)
    made = plan.load_plan(folder) if folder.is_dir() else None
    if made is None:
        chosen = clocks.device_of_task(args.gpu_type, args.gpu_index, args.profiling_mode)
        made = plan.save_plan(_plan(args, chosen), folder)
    else:
        chosen = clocks.device_of_task(made["device"], made["profiling"]["gpu_index"], made["mode"])
    if not 0 <= args.run_index < len(made["order"]):
        raise LabError(f"there is no run {args.run_index}: the plan has {len(made['order'])}",
                       f"submit with --array=0-{len(made['order']) - 1}")
    records = run.run_all(made, [made["order"][args.run_index]], folder, chosen.clocks)
    if not run.missing(made, folder):
        _finish(made, folder, args)  # the last one to end
    return int(records[0]["status"] != "success")


def _finish(plan: dict, folder: Path, args, notes: list[str] | None = None) -> int:
    """Summary, analysis and figures; 1 where a run failed or is missing."""
    from whisper_lab.sweeps import report, results
    from whisper_lab.sweeps.clocks import Clocks

    written = results.write_summary(plan, folder, Clocks(plan["device"], None).card(), notes or [])
    report.publish([folder], folder, args.performance_threshold, args.time_limit)
    return int(not written["complete"])


# collect, analyze ----------------------------------------------------------------------------------------------------

def _limits(parser) -> None:
    parser.add_argument("--performance-threshold", type=float, default=5.0, metavar="PERCENT",
                        help="how much slower than the fastest clock the best one may be (default: %(default)s)")
    parser.add_argument("--time-limit", type=float, metavar="S", help="the same as seconds (default: none)")


def collect(argv: list[str]) -> int:
    """Summary and figures of a folder that this lab's plan lies in."""
    parser = flags.parser(COLLECT, "quiet", "log_level", prog="python 06-profile-energy.py collect")
    parser.add_argument("folder", metavar="DIR", help="a folder of results")
    _limits(parser)
    args = flags.parse(parser, argv)
    from whisper_lab.sweeps import layout, plan

    folder = layout.check_folder(args.folder)
    if (made := plan.load_plan(folder)) is None:
        raise LabError(f"{folder} contains no {layout.PLAN}: this lab's sweep did not make it",
                       f"python 06-profile-energy.py analyze {shlex.quote(str(folder))}")
    return _finish(made, folder, args)


def analyze(argv: list[str]) -> int:
    """Tables, JSON and figures of one or more folders."""
    parser = flags.parser(ANALYZE, "output_json", "quiet", "log_level", prog="python 06-profile-energy.py analyze")
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folders of results")
    parser.add_argument("--output-dir", metavar="DIR", help="(default: the folder itself if it is one, else reports)")
    parser.add_argument("--drop-first", action="store_true",
                        help="leave out the first run at each clock, for programs that do not warm up")
    _limits(parser)
    args = flags.parse(parser, argv)
    from whisper_lab.sweeps import layout, report

    folders = [layout.check_folder(folder) for folder in args.folders]
    target = Path(args.output_dir or (folders[0] if len(folders) == 1 else "reports"))
    report.publish(folders, target, args.performance_threshold, args.time_limit, args.drop_first, args.output_json)
    return 0
