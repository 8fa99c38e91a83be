"""Sweeps through a real SLURM: a task is killed midway, a done one is requeued; nothing is lost, nothing done twice."""

import re
import subprocess

import pytest

from tests.helpers import energy_fakes, slurm_cluster

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment of a cluster of one node that is ours."""
    with slurm_cluster.for_tests(tmp_path_factory.mktemp("slurm")) as environment:
        yield {name: environment[name] for name in ("SLURM_CONF", "PATH")}


def bytes_and_times(folder) -> dict:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("CPU_freq_baseline_run_*")}


def test_a_killed_task_loses_nothing_and_nothing_runs_twice(slurm, tmp_path):
    app = energy_fakes.install(tmp_path)
    variables = {"SLURM_CONF": slurm["SLURM_CONF"], "PATH": slurm["PATH"]}
    environment = energy_fakes.environment(tmp_path, gpu=False, **variables)
    options = ["sweep", "--slurm", "--gpu-type", "CPU", "--num-runs", 3, "--sleep-interval", 0, "--app-executable", app,
               "--app-params", "--watts 30 --seconds 2"]
    results = tmp_path / "results_cpu_whisper"

    def file(run: int, end: str):
        return results / f"CPU_freq_baseline_run_{run:02d}{end}"

    submitted = energy_fakes.call(tmp_path, *options, gpu=False, **variables)
    assert submitted.returncode == 0, submitted.stderr
    job = re.search(r"job array (\d+): 3 runs", submitted.stdout)[1]
    slurm_cluster.wait_for(lambda: file(1, "_status.json").exists() and file(2, "_log.txt").exists()
                           and "started" in file(2, "_log.txt").read_text(), 60, "run 2 did not start")
    slurm_cluster.said(environment, "scancel", "--signal=KILL", "--full", f"{job}_1")
    slurm_cluster.wait_for(lambda: file(3, "_status.json").exists(), 60, "run 3 did not go on after the kill")
    assert not file(2, "_status.json").exists() and not (results / "experiment_summary.json").exists()

    collected = energy_fakes.call(tmp_path, "collect", results, gpu=False)
    assert collected.returncode == 1
    assert "CPU_freq_baseline_run_02" in collected.stderr
    assert [run["status"] for run in energy_fakes.summary(results)["runs"]] == ["success", "missing", "success"]

    before = bytes_and_times(results)
    again = energy_fakes.call(tmp_path, *options, "--wait", gpu=False, **variables)
    assert again.returncode == 0, again.stderr
    assert "--array=1%1" in again.stderr and "1 of 3 runs are missing" in again.stderr
    after = bytes_and_times(results)
    kept = [name for name in before if "_run_02" not in name]
    assert len(kept) == 8 and all(after[name] == before[name] for name in kept)
    summary = energy_fakes.summary(results)
    assert summary["complete"] and summary["statistics"][0]["energy_j"]["n"] == 3
    assert (results / "figures" / "runs-1.png").stat().st_size > 10_000

    # A requeued task that is done looks, and leaves.
    slurm_cluster.said(environment, "scontrol", "requeue", f"{job}_0")
    slurm_cluster.said(environment, "scontrol", "update", f"JobId={job}_0", "StartTime=now")
    output = results / f"slurm_{job}_0.out"
    slurm_cluster.wait_for(lambda: "not run again" in output.read_text(), 60, "the requeued task did not start")
    slurm_cluster.wait_for(lambda: not slurm_cluster.said(environment, "squeue", "-h", "-j", job, "-t", "PD,R,CG"), 60,
                           "the requeued task did not end")
    assert bytes_and_times(results) == after

    nothing = energy_fakes.call(tmp_path, *options, gpu=False, **variables)
    assert nothing.returncode == 0 and "nothing to submit" in nothing.stderr


def test_scancel_stops_the_program_too(slurm, tmp_path):
    """scancel's SIGTERM reaches Python, which ends the program under test before it leaves."""
    app = energy_fakes.install(tmp_path)
    variables = {"SLURM_CONF": slurm["SLURM_CONF"], "PATH": slurm["PATH"]}
    energy_fakes.call(tmp_path, "sweep", "--slurm", "--gpu-type", "CPU", "--num-runs", 1, "--app-executable", app,
                      "--app-params", f"--seconds 60 --note {tmp_path.name}", gpu=False, **variables)
    log = tmp_path / "results_cpu_whisper" / "CPU_freq_baseline_run_01_log.txt"
    slurm_cluster.wait_for(lambda: log.exists() and "started" in log.read_text(), 60, "the run did not start")
    environment = energy_fakes.environment(tmp_path, gpu=False, **variables)
    slurm_cluster.said(environment, "scancel", "--name=Whisper-CPU", "--state=RUNNING", "--full", "--signal=TERM")

    def running() -> bool:
        return bool(subprocess.run(["pgrep", "-f", f"--note {tmp_path.name}"], capture_output=True).stdout)

    slurm_cluster.wait_for(lambda: not running(), 20, "the program outlived its job")
    assert not log.with_name(log.name.replace("_log.txt", "_status.json")).exists()
