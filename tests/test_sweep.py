"""Sweeps on this machine: the document's files, random order, clocks that are always given back, failure, resuming."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.helpers import energy_fakes
from whisper_lab.sweeps import cli, clocks, slurm

ROOT = Path(__file__).resolve().parent.parent
CUSTOM = ["sweep", "--gpu-type", "A100", "--profiling-mode", "custom", "--custom-frequencies", "510,960,1410",
          "--sleep-interval", 0]


@pytest.fixture
def folder(tmp_path):
    energy_fakes.install(tmp_path)
    return tmp_path


def options(folder, params: str = "--watts 250", runs: int = 1) -> list:
    return [*CUSTOM, "--num-runs", runs, "--app-executable", folder / "app.py", "--app-params", params]


def released(folder) -> bool:
    """Whether the clock was locked at all, and not at the end."""
    log = energy_fakes.nvml_log(folder)
    return log[-1] == "reset" and any(line.startswith("lock") for line in log)


def test_custom_sweep_writes_the_documents_layout(folder):
    done = energy_fakes.call(folder, *options(folder, "--watts 250 --note 'two words'", runs=2))
    assert done.returncode == 0, done.stderr
    results = folder / "results_a100_whisper"
    for freq in (510, 960, 1410):
        assert "note two words" in (results / f"A100_freq_{freq}_run_01_log.txt").read_text()
        assert (results / f"A100_freq_{freq}_run_02_profile.csv").is_file()
    summary = energy_fakes.summary(results)
    assert summary["complete"] and summary["mode"] == "custom" and summary["gpu"]["name"] == "NVIDIA A100-PCIE-40GB"
    order = summary["plan"]["order"]
    assert sorted(order[:3]) == sorted(f"A100_freq_{freq}_run_01" for freq in (510, 960, 1410))
    for run in summary["runs"]:
        assert run["freq_actual_mean_mhz"] == run["freq_requested_mhz"] and run["energy_method"] == "counter"
    statistics = {row["freq_requested_mhz"]: row for row in summary["statistics"]}
    assert statistics[510]["energy_j"]["n"] == 2
    assert statistics[510]["energy_window_s"]["mean"] == pytest.approx(2 * 1410 / 510)
    log = energy_fakes.nvml_log(folder)
    assert log.count("reset") == 7 and all(b == "reset" for a, b in zip(log, log[1:], strict=False) if "lock" in a)


def test_order_is_random_but_drawn_from_the_seed(folder):
    def order(seed: int) -> list[str]:
        out = energy_fakes.call(folder, *options(folder, runs=4), "--seed", seed, "--dry-run").stdout
        return re.findall(r"A100_freq_\d+_run_\d+", out)

    assert order(1) == order(1) != order(2)
    assert len(set(order(1))) == 12 and order(1) != sorted(order(1))
    assert not (folder / "results_a100_whisper").exists()


def test_a_failed_run_is_recorded_as_failed_and_the_sweep_goes_on(folder):
    done = energy_fakes.call(folder, *options(folder, "--fail"))
    assert done.returncode == 1 and "A100_freq_510_run_01 failed" in done.stderr
    summary = energy_fakes.summary(folder / "results_a100_whisper")
    assert {run["status"] for run in summary["runs"]} == {"failed"} and {run["exit_status"] for run in
                                                                        summary["runs"]} == {1}
    assert summary["statistics"][0]["energy_j"] == {"mean": None, "sd": None, "low": None, "high": None, "n": 0}
    assert released(folder)


def test_timeout_ends_the_program_and_is_recorded(folder):
    done = energy_fakes.call(folder, *options(folder, "--seconds 60"), "--app-timeout", 0.5, "--custom-frequencies",
                             "960")
    run, = energy_fakes.summary(folder / "results_a100_whisper")["runs"]
    assert done.returncode == 1 and run["status"] == "timeout" and run["energy_j"] is None
    assert run["duration_s"] < 10 and released(folder)


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_clock_is_released_however_the_sweep_is_stopped(folder, number, status):
    process = energy_fakes.start(folder, *options(folder, f"--seconds 60 --note {folder.name}"))
    end = time.monotonic() + 30
    while not list(folder.glob("results*/*_log.txt")) or "started" not in next(
            folder.glob("results*/*_log.txt")).read_text():
        assert time.monotonic() < end, "the run did not start"
        time.sleep(0.05)
    assert energy_fakes.nvml_log(folder)[-1].startswith("lock")
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == status and released(folder)
    assert not subprocess.run(["pgrep", "-f", f"--note {folder.name}"], capture_output=True).stdout
    assert not list(folder.glob("results*/*_status.json"))


def test_clock_is_released_when_the_run_raises():
    class Recorder(clocks.Clocks):
        calls = []

        def lock(self, mhz):
            self.calls.append(mhz)

        def release(self):
            self.calls.append("released")

    recorder = Recorder("A100", None)
    with pytest.raises(ValueError), clocks.locked(recorder, 960):
        raise ValueError
    with clocks.locked(recorder, None):
        pass
    assert recorder.calls == [960, "released"]


def test_without_the_right_it_is_a_dry_run(folder):
    done = energy_fakes.call(folder, *options(folder), FAKE_NVML_DENY="1")
    assert done.returncode == 0 and "Dry run: 3 runs" in done.stdout and "Insufficient Permissions" in done.stdout
    assert not (folder / "results_a100_whisper").exists() and not energy_fakes.nvml_log(folder)


def test_looking_at_the_plan_leaves_the_clock_alone(folder):
    """Another sweep may hold it."""
    done = energy_fakes.call(folder, *options(folder), "--dry-run")
    assert done.returncode == 0 and "nothing was run: --dry-run" in done.stdout
    assert not energy_fakes.nvml_log(folder)


def test_without_the_gpu_custom_is_a_dry_run_and_baseline_names_what_it_measured(folder):
    dry = energy_fakes.call(folder, *options(folder), gpu=False)
    assert dry.returncode == 0 and "there is no A100 here but CPU" in dry.stdout
    baseline = energy_fakes.call(folder, "sweep", "--gpu-type", "H100", "--num-runs", 1, "--app-executable",
                                 folder / "app.py", "--app-params", "", gpu=False)
    assert baseline.returncode == 0, baseline.stderr
    assert "device: CPU (there is no H100 here" in baseline.stderr
    summary = energy_fakes.summary(folder / "results_cpu_whisper")
    run, = summary["runs"]
    assert run["run_id"] == "CPU_freq_baseline_run_01" and summary["gpu"]["name"] is None
    assert run["energy_j"] is None and run["energy_reason"] == "no counter on this machine"
    assert "no energy was measured (no counter on this machine)" in baseline.stdout


def test_throttling_and_a_clock_that_was_not_reached_are_told(folder):
    done = energy_fakes.call(folder, *options(folder, "--watts 250 --seconds 1.2"), "--custom-frequencies", "960",
                             FAKE_NVML_THROTTLE=str(0x4 | 0x20))
    assert done.returncode == 0
    run, = energy_fakes.summary(folder / "results_a100_whisper")["runs"]
    assert run["throttled"] and run["throttle_reasons"] == ["power cap", "temperature (software)"]
    assert "was throttled: power cap" in done.stderr


def test_called_again_it_does_only_what_is_missing(folder):
    energy_fakes.call(folder, *options(folder))
    results = folder / "results_a100_whisper"
    (results / "A100_freq_960_run_01_status.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in results.glob("A100_freq_*") if "_960_" not in path.name}
    again = energy_fakes.call(folder, *options(folder))
    assert again.returncode == 0 and again.stderr.count("not run again") == 2
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    other = energy_fakes.call(folder, *options(folder, runs=2))
    assert other.returncode == 1 and "contains another sweep" in other.stderr


def test_one_process_makes_a_run(folder):
    import fcntl

    from whisper_lab.console import LabError
    from whisper_lab.sweeps import run
    from whisper_lab.sweeps.layout import RunKey

    key = RunKey("CPU", None, 1)
    with (folder / f".{key.stem}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LabError, match="another process"), run.alone(folder, key):
            pass


def cpufreq(root: Path, available: str | None) -> Path:
    for cpu in ("cpu0", "cpu1"):
        place = root / cpu / "cpufreq"
        place.mkdir(parents=True)
        for name, value in (("scaling_min_freq", 800000), ("scaling_max_freq", 3000000), ("cpuinfo_min_freq", 800000),
                            ("cpuinfo_max_freq", 3000000)):
            (place / name).write_text(str(value))
        if available:
            (place / "scaling_available_frequencies").write_text(available)
    return root


def test_cpufreq_is_set_on_every_core_and_restored(tmp_path):
    found = clocks.find_cpu("no GPU", cpufreq(tmp_path, "3000000 1600000 800000"))
    limits = sorted(tmp_path.glob("*/cpufreq/scaling_m*_freq"))
    assert found.kind == "cpufreq" and found.frequencies() == [800, 1600, 3000] and len(limits) == 4
    with clocks.locked(found, 1600):
        assert {path.read_text() for path in limits} == {"1600000"}
        with clocks.locked(found, 3000):
            assert {path.read_text() for path in limits} == {"3000000"}
    assert [path.read_text() for path in limits] == ["3000000", "800000"] * 2
    assert clocks.find_cpu("no GPU", tmp_path / "nothing").reason.startswith("no GPU; Linux offers no cpufreq")


def test_tables_of_clocks_match_the_data_sheets():
    counts = {name: len(gpu.frequencies()) for name, gpu in clocks.GPU_TYPES.items()}
    assert counts == {"A100": 61, "V100": 59, "H100": 86}
    assert clocks.gpu_type("NVIDIA H100 80GB HBM3") == "H100" and clocks.gpu_type("Tesla V100-SXM2-16GB") == "V100"
    assert clocks.gpu_type("NVIDIA GeForce RTX 4090") == "RTX-4090"


@pytest.mark.parametrize("wrong, says", [
    (["--custom-frequencies", "510"], "need each other"), (["--profiling-mode", "custom"], "need each other"),
    (["--profiling-mode", "custom", "--custom-frequencies", "fast"], "whole MHz"),
    (["--sampling-interval", "5"], "10 to 1000"), (["--num-runs", "0"], "starts at 1")])
def test_wrong_usage_ends_with_2(wrong, says, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["sweep", *wrong])
    assert end.value.code == 2 and says in capsys.readouterr().err


@pytest.mark.parametrize("arguments, says", [
    (["--custom-frequencies", "300,960"], "300 MHz is outside the range of A100, 510 to 1410"),
    (["--custom-frequencies", "961"], "the nearest is 960"),
    (["--app-params", "--note 'open"], "--app-params cannot be read"),
    (["--app-executable", "nowhere.py"], "there is no program nowhere.py")])
def test_errors_say_what_to_do(folder, arguments, says):
    done = energy_fakes.call(folder, *options(folder), *arguments)
    assert done.returncode == 1 and says in done.stderr and "try:" in done.stderr


def test_array_notation():
    assert slurm.array_spec([0, 1, 2, 5, 7, 8], 1) == "0-2,5,7-8%1"


SWEEPS = sorted(set((ROOT / "slurm").glob("*-*.sh")) - {ROOT / "slurm" / "transcribe-array.sh"})


@pytest.mark.parametrize("script", SWEEPS, ids=lambda path: path.stem)
def test_job_scripts_ask_for_as_many_tasks_as_the_plan_has(script, tmp_path):
    """Run a script with a Python that only tells its arguments, and plan with those."""
    teller = tmp_path / "python"
    teller.write_text('#!/bin/bash\nprintf "%s\\0" "$@"\n')
    teller.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "LAB_PYTHON": str(teller), "LAB_ROOT": str(ROOT),
                   "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_JOB_ID": "77"}
    said = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=True).stdout
    program, command, *rest = said.split("\0")[:-1]
    assert program == str(ROOT / "06-profile-energy.py") and command == "sweep"
    args = cli.sweep_arguments(rest)
    gpu = clocks.GPU_TYPES.get(args.gpu_type)
    each = {"baseline": 1, "custom": len(args.custom_frequencies), "dvfs": len(gpu.frequencies()) if gpu else 0}
    last = int(re.search(r"#SBATCH --array=0-(\d+)%1", script.read_text())[1])
    assert args.run_index == 1 and last + 1 == args.num_runs * each[args.profiling_mode]
    assert args.output_dir == f"results_{args.gpu_type.lower()}_whisper_job_77"


def test_foreign_program_name_of_the_document_means_ours(folder):
    done = energy_fakes.call(folder, "sweep", "--app-executable", "../app-whisper/WhisperViaHF.py", "--app-params",
                             "--num-samples 3 --model base --quiet", "--dry-run", gpu=False)
    assert "06-profile-energy.py --benchmark --num-samples 3 --model base --quiet" in done.stdout


@pytest.mark.parametrize("params, command", [
    ("--task diarize --model nano", "06-profile-energy.py --task diarize --model nano"),
    ("--repeats 2 meeting.wav", "06-profile-energy.py --repeats 2 meeting.wav"),
    ("--power-file wall.csv", "06-profile-energy.py --benchmark --power-file wall.csv")])
def test_a_benchmark_is_asked_for_where_nothing_else_is(folder, params, command):
    done = energy_fakes.call(folder, "sweep", "--app-params", params, "--dry-run", gpu=False)
    assert f"{command}\n" in done.stdout


def test_summary_is_valid_json_without_nan(folder):
    energy_fakes.call(folder, *options(folder, "", runs=1))
    constants = []  # NaN, Infinity: Python writes them, JSON has no word for them
    text = (folder / "results_a100_whisper" / "experiment_summary.json").read_text()
    summary = json.loads(text, parse_constant=constants.append)
    assert constants == [] and summary["runs"]
