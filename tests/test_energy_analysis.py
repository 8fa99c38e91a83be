"""analyze and collect: numbers against hand calculation, results of other programs, and what is missing."""

import collections
import itertools
import json

import pytest

from tests.helpers import energy_fakes
from whisper_lab.console import LabError
from whisper_lab.sweeps import analysis, cli, layout, profiles, report, results

SMI = ("timestamp, index, name, power.draw [W], power.limit [W], temperature.gpu, utilization.gpu [%], "
       "utilization.memory [%], memory.total [MiB], memory.free [MiB], memory.used [MiB], clocks.current.sm [MHz], "
       "clocks.mem, clocks.gr, clocks.applications.graphics, clocks.applications.memory, pstate")
SMI_PLAIN = ("timestamp,index,name,power.draw,power.limit,temperature.gpu,utilization.gpu,utilization.memory,"
             "memory.total,memory.free,memory.used,clocks.sm,clocks.mem,clocks.gr,clocks.applications.graphics,"
             "clocks.applications.memory,pstate")


def smi_row(second: float, watts: object, clock: int = 960) -> str:
    return (f"2025/08/28 12:00:{second:06.3f}, 0, NVIDIA A100-PCIE-40GB, {watts}, 250.00, 41, 90, 30, 40960, 30000, "
            f"10960, {clock}, 1215, {clock}, {clock}, 1215, P0")


def smi_profile(path, watts: float, seconds: float, clock: int) -> None:
    """Constant power with uneven steps: what counts is the time, not the number of rows."""
    times = [0, 0.1, 0.2, seconds / 2, seconds]
    path.write_text("\n".join([SMI_PLAIN, *(smi_row(at, watts, clock) for at in times)]) + "\n")


def dcgm_profile(path, first_mj: int, last_mj: int) -> None:
    lines = ["#Entity   NVIDX  DVNAM  POWER  PWLMT  TOTEC  TMPTR", "ID"]
    for energy in (first_mj, last_mj):
        numbers = ["200.5", "250.0", str(energy), "41", "40", "90", "30", "40960", "30000", "10960", "960", "1215",
                   "960", "1215", "0", *["0.5"] * 8]
        lines.append(f"GPU 0   0  NVIDIA A100-PCIE-40GB  {'  '.join(numbers)}")
    path.write_text("\n".join(lines) + "\n")


def run(**known) -> dict:
    """A normalized run of which only this is known."""
    record = {"run_id": "x", "status": "success", "freq_requested_mhz": None, "run": 1, "result": {}}
    return results.normalized(record, "folder", "A100", "Whisper") | known


def experiment(runs: list[dict]) -> dict:
    return {"name": "folder", "machine": "A100", "expected": None, "missing": [], "problems": [], "runs": runs}


# Energy from profiles ------------------------------------------------------------------------------------------------

def test_energy_is_the_integral_over_real_times(tmp_path):
    path = tmp_path / "a.csv"
    rows = [smi_row(0, 100), smi_row(1, 200), smi_row(1.025, 200), smi_row(3.025, 400), smi_row(5.025, "[N/A]")]
    path.write_text("\n".join([SMI_PLAIN, *rows, "2025/08/28 12:0"]))
    device, = profiles.read(path)
    found = profiles.energy([device])
    assert found["energy_j"] == pytest.approx(150 + 5 + 600) and found["energy_method"] == "integrated-power"
    assert device.form == "nvidia-smi" and device.mean("sm_clock") == 960


def test_units_in_the_header_and_no_power_at_all(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\n".join([SMI, *(smi_row(at, "[Not Supported]") for at in range(3))]))
    found = profiles.energy(profiles.read(path))
    assert found["energy_j"] is None and found["reason"] == "no power was recorded"
    assert profiles.read(path)[0].mean("sm_clock") == 960


def test_dcgm_counter_comes_before_power(tmp_path):
    dcgm_profile(tmp_path / "a.csv", 5_000_000, 5_985_000)
    found = profiles.energy(profiles.read(tmp_path / "a.csv"))
    assert found["energy_j"] == pytest.approx(985) and found["energy_method"] == "counter"
    assert profiles.read(tmp_path / "a.csv")[0].mean("power") == pytest.approx(200.5)


@pytest.mark.parametrize("text, says", [("", "empty"), ("hello\n", "neither")])
def test_unknown_profiles_are_refused(tmp_path, text, says):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=says):
        profiles.read(tmp_path / "a.csv")


# The best clock ------------------------------------------------------------------------------------------------------

def test_edp_and_ed2p_by_hand():
    rows = [(510, 500.0, 3.0), (960, 300.0, 2.0), (1410, 420.0, 1.8)]  # EDP 1500, 600, 756; ED2P 4500, 1200, 1360.8
    runs = [run(freq=freq, energy_j=joules, time_s=seconds, run=i) for freq, joules, seconds in rows for i in (1, 2)]
    group, = analysis.analyze([experiment(runs)], 15.0, None)["groups"]
    best = group["optimum"]
    assert best["fastest_mhz"] == 1410 and best["least_energy"]["freq_mhz"] == 960
    assert best["limit_s"] == pytest.approx(1.8 * 1.15)
    assert best["edp"]["freq_mhz"] == 960 and best["edp"]["value"] == pytest.approx(600)
    assert best["ed2p"]["value"] == pytest.approx(1200)
    assert best["edp"]["energy_saving_percent"] == pytest.approx(100 * 120 / 420)
    assert best["edp"]["slower_than_highest_percent"] == pytest.approx(100 * (2 / 1.8 - 1))
    tight, = analysis.analyze([experiment(runs)], 5.0, None)["groups"]
    assert tight["optimum"]["edp"]["freq_mhz"] == 1410 and tight["optimum"]["edp"]["without_limit_mhz"] == 960
    never, = analysis.analyze([experiment(runs)], 5.0, 1.0)["groups"]
    assert never["optimum"]["edp"] is None and "within 1 s" in never["optimum"]["reason"]


def test_a_lower_clock_that_is_faster_is_called_implausible():
    runs = [run(freq=freq, energy_j=100.0, time_s=seconds + i / 100, run=i) for freq, seconds in
            ((870, 12.0), (1410, 15.0)) for i in (1, 2, 3)]
    group, = analysis.analyze([experiment(runs)], 5.0, None)["groups"]
    assert "870 MHz was faster than 1410 MHz beyond chance" in group["warnings"][0]


def test_drop_first_leaves_the_cold_runs_out():
    runs = [run(freq=960, energy_j=joules, time_s=1.0, run=i) for i, joules in enumerate((500.0, 100.0, 102.0), 1)]
    group, = analysis.analyze([experiment(runs)], 5.0, None, drop_first=True)["groups"]
    assert group["clocks"][0]["energy_j"]["mean"] == 101 and group["clocks"][0]["runs"] == 2


def test_factors_are_compared_where_all_else_is_equal():
    base = {"energy_j": 100.0, "time_s": 2.0, "audio_s": 20.0, "rtf": 0.1, "model": "base", "parameters": 74_000_000,
            "precision": "float32", "batch": 1}
    runs = [run(**base), run(**base | {"precision": "float16", "energy_j": 60.0}), run(**base | {
        "batch": 4, "energy_j": 50.0}), run(**base | {"model": "small", "parameters": 244_000_000, "energy_j": 300.0}),
        run(**base | {"machine": "H100", "energy_j": 80.0}), run(**base | {"app": "Llama", "model": "llama"})]
    found = analysis.analyze([experiment(runs)], 5.0, None)["comparisons"]

    def ratios(factor: str) -> list[tuple]:
        cluster, = found[factor]
        return [(entry["value"], entry["j_per_audio_s_ratio"]) for entry in cluster]

    assert ratios("model") == [("base", 1.0), ("small", 3.0)]
    assert ratios("precision") == [("float32", 1.0), ("float16", 0.6)]
    assert ratios("batch") == [(1, 1.0), (4, 0.5)] and ratios("machine") == [("A100", 1.0), ("H100", 0.8)]
    assert {entry["value"] for cluster in found["app"] for entry in cluster} == {"Whisper", "Llama"}


def test_energy_is_of_one_pass_and_batches_are_runs_of_their_own():
    def row(size: int, joules: float) -> dict:
        return {"batch_size": size, "average_rtf": 0.1, "inference_time_s": {"mean": 2.0}, "peak_rss_bytes": 9,
                "peak_gpu_bytes": None, "energy": {"energy_j": joules, "net_energy_j": None, "reason": None,
                                                   "duration_s": 10.0, "average_power_w": joules / 10}}
    record = {"run_id": "x", "run": 1, "status": "success", "freq_requested_mhz": None, "energy_j": 500.0,
              "energy_window_s": 10.0, "result": {"repeats": 5, "total_audio_duration": 20.0,
                                                  "batches": [row(1, 500.0), row(4, 250.0)]}}
    one, four = results.by_batch(record, "folder", "A100", "Whisper")
    assert (one["batch"], one["energy_j"], one["time_s"]) == (1, 100.0, 2.0)
    assert (four["batch"], four["energy_j"], four["memory_bytes"]) == (4, 50.0, 9)


# Folders of others ---------------------------------------------------------------------------------------------------

def foreign(folder, runs: list[tuple[str, int, float, float]]) -> None:
    """The launcher's own layout: run_<id>_freq_<MHz>_..., timing_summary.log."""
    folder.mkdir()
    timing = ["# Format: run_id,frequency_mhz,duration_seconds,exit_code,status"]
    for run_id, freq, watts, seconds in runs:
        smi_profile(folder / f"run_{run_id}_freq_{freq}_profile.csv", watts, seconds, freq)
        (folder / f"run_{run_id}_freq_{freq}_app.out").write_text(
            f"Total Inference Time: {seconds}s\nModel: base\nDevice: cuda\nTotal Audio Duration: 40.00s\n"
            f"Average RTF: {seconds / 40:.3f}\nModel Parameters: 72,593,920\n")
        timing.append(f"{run_id},{freq},{seconds:.0f},0,success")
    (folder / "timing_summary.log").write_text("\n".join(timing) + "\n")


def test_the_launchers_own_layout_custom_and_baseline(tmp_path):
    folder = tmp_path / "results_a100_whisper_job_5"
    foreign(folder, [("01", 510, 100, 8), ("02", 510, 100, 8), ("01", 960, 120, 5), ("02", 960, 120, 5)])
    found = results.read_folder(folder)
    assert found["machine"] == "A100" and found["missing"] == [] and len(found["runs"]) == 4
    first = found["runs"][0]
    assert first["energy_j"] == pytest.approx(800) and first["time_s"] == pytest.approx(8)
    assert first["model"] == "base" and first["parameters"] == 72_593_920
    foreign(tmp_path / "results_h100_x", [("baseline_01", 1785, 300, 4)])
    assert results.read_folder(tmp_path / "results_h100_x")["runs"][0]["freq"] is None


def test_gaps_and_failures_are_named(tmp_path):
    folder = tmp_path / "results_a100_whisper"
    foreign(folder, [("1_01", 510, 100, 8), ("2_02", 510, 100, 8), ("3_01", 960, 120, 5)])
    timing = folder / "timing_summary.log"
    timing.write_text(timing.read_text().replace("1_01,510,8,0,success", "1_01,510,8,1,failed"))
    (folder / "run_2_02_freq_510_app.out").unlink()
    found = results.read_folder(folder)
    assert found["missing"] == ["1_01@510", "960 MHz run 02"]
    assert found["problems"] == ["2_02@510 has no log"]


def test_the_documents_layout_whoever_wrote_it(tmp_path, capsys):
    folder = tmp_path / "results_a100_whisper"
    folder.mkdir()
    for freq, watts, seconds in ((510, 100, 8), (960, 120, 5), (1410, 250, 4)):
        smi_profile(folder / f"A100_freq_{freq}_run_01_profile.csv", watts, seconds, freq)
        (folder / f"A100_freq_{freq}_run_01_log.txt").write_text(f"Total Inference Time: {seconds}.00s\n")
    (folder / "experiment_summary.json").write_text('{"gpu": "A100", "runs": "three"}')
    assert cli.main(["analyze", str(folder), "--performance-threshold", "30"]) == 0
    out = capsys.readouterr().out
    assert "Best balance by EDP within 5.2 s: 960 MHz, 40.0 % of the energy saved for +25.0 % time" in out
    made = json.loads((folder / "energy_analysis.json").read_text())
    assert made["groups"][0]["optimum"]["edp"]["value"] == pytest.approx(120 * 5 * 5)
    assert (folder / "figures" / "clocks-1.png").stat().st_size > 10_000
    page = (folder / "energy_analysis.html").read_text()
    assert "data:image/png" in page and "http" not in page.split("<body>")[1]
    opened = page.split('<details class="part" open>')
    assert len(opened) == 3 and "Best balance by EDP" in opened[2]  # completeness, and what was asked


def test_several_machines_and_precisions_in_one_report(tmp_path):
    energy_fakes.install(tmp_path)
    for precision, watts, gpu in (("fp32", 250, "A100"), ("fp16", 150, "A100"), ("fp32", 400, "H100")):
        done = energy_fakes.call(tmp_path, "sweep", "--num-runs", 2, "--app-executable", tmp_path / "app.py",
                                 "--app-params", f"--watts {watts} --precision {precision}", "--sleep-interval", 0,
                                 "--output-dir", f"{gpu}-{precision}", FAKE_NVML_NAME=f"NVIDIA {gpu} 80GB")
        assert done.returncode == 0, done.stderr
    done = energy_fakes.call(tmp_path, "analyze", "A100-fp32", "A100-fp16", "H100-fp32", "--json", "all.json")
    assert done.returncode == 0, done.stderr
    assert "Precision against energy" in done.stdout and "Machine against energy" in done.stdout
    assert "RTF, first = 1" in done.stdout and "J, first = 1" in done.stdout
    tables = [line for line in done.stdout.splitlines() if "  " in line.strip()]  # the rest is sentences
    assert max(map(len, tables)) <= 140
    made = json.loads((tmp_path / "all.json").read_text())
    assert {name: [entry["value"] for entry in clusters[0]] for name, clusters in made["comparisons"].items()} == {
        "precision": ["fp32", "fp16"], "machine": ["NVIDIA A100 80GB", "NVIDIA H100 80GB"]}
    for name in ("precision-against-energy", "machine-against-energy", "rtf-against-energy", "runs-1"):
        assert (tmp_path / "reports" / "figures" / f"{name}.png").stat().st_size > 10_000


def test_without_energy_time_is_analyzed_and_the_reason_is_given(tmp_path):
    energy_fakes.install(tmp_path)
    done = energy_fakes.call(tmp_path, "sweep", "--num-runs", 3, "--app-executable", tmp_path / "app.py",
                             "--app-params", "", "--sleep-interval", 0, gpu=False)
    assert done.returncode == 0, done.stderr
    assert "No best clock by EDP or ED2P" in done.stdout and "no counter on this machine" in done.stdout
    made = json.loads((tmp_path / "results_cpu_whisper" / "energy_analysis.json").read_text())
    group, = made["groups"]
    assert group["optimum"]["edp"] is None and group["clocks"][0]["edp_js"]["mean"] is None
    assert group["clocks"][0]["rtf"]["mean"] == pytest.approx(0.1) and group["clocks"][0]["rtf"]["n"] == 3


def test_collect_and_analyze_say_what_is_wrong(tmp_path, call):
    status, err = call("collect", tmp_path)
    assert status == 1 and "contains no sweep_plan.json" in err and "analyze" in err
    status, err = call("analyze", tmp_path / "nowhere")
    assert status == 1 and "there is no results folder" in err
    (tmp_path / "empty").mkdir()
    status, err = call("analyze", tmp_path / "empty")
    assert status == 1 and "contains no run" in err


@pytest.fixture
def call(call_script):
    return lambda *arguments: (lambda done: (done[0], done[2]))(call_script("06-profile-energy.py", *arguments))


def test_names_both_ways():
    key = layout.RunKey("A100", 510, 1)
    assert key.files() == {"profile": "A100_freq_510_run_01_profile.csv", "log": "A100_freq_510_run_01_log.txt",
                           "result": "A100_freq_510_run_01.json", "status": "A100_freq_510_run_01_status.json"}
    assert layout.default_folder("A100", "Whisper") == "results_a100_whisper"
    assert layout.OURS.match("A100_freq_baseline_run_12_log.txt") and not layout.OURS.match("A100_freq_x_run_1.json")


def test_an_estimate_is_called_one():
    runs = [run(energy_j=150.0, time_s=10.0, method="estimate", run=i) for i in (1, 2)]
    group, = analysis.analyze([experiment(runs)], 5.0, None)["groups"]
    said = report.answers(group)
    assert said[0] == "Energy by: estimate." and "assumed power" in said[1]


# Results of strangers ------------------------------------------------------------------------------------------------

RECORD = {"run_id": "CPU_freq_baseline_run_01", "run": 1, "freq_requested_mhz": None, "status": "success",
          "duration_s": 3.0, "energy_j": 9.0, "energy_method": "counter", "average_rtf": 0.1,
          "result": {"model": "whisper-nano", "total_inference_time": 2.0, "total_audio_duration": 5.0, "tokens": 7,
                     "phases_s": {"encode": 1.0}, "batches": [{}]}}
ODD = [None, [], {}, [1], "x", "\x1b[31m", True, -1, 0, 1e400, float("nan"), 10**400, {"a": [None]}, [[{}]]]


def distorted():
    """The record with each value of it, and of its results, replaced by each odd one; and records that are none."""
    for key, odd in itertools.product(RECORD, ODD):
        yield RECORD | {key: odd}
    for key, odd in itertools.product(RECORD["result"], ODD):
        yield RECORD | {"result": RECORD["result"] | {key: odd}}
    for key in RECORD:
        yield {name: value for name, value in RECORD.items() if name != key}


def test_records_of_strangers_are_understood_or_one_error(tmp_path):
    path, ends = tmp_path / "CPU_freq_baseline_run_01_status.json", collections.Counter()
    for record in distorted():
        path.write_text(json.dumps(record))
        try:
            made = analysis.analyze([results.read_folder(tmp_path)], 5.0, None)
            report.sections({**made, "groups": [{**one, "number": 1} for one in made["groups"]]})
            ends["read"] += 1
        except LabError as error:
            assert "records that cannot be understood" in error.problem
            ends["refused"] += 1
    assert ends["read"] > 50 and ends["refused"] > 50


@pytest.mark.parametrize("text", ["Total Audio Duration: 1.2.3 s", "Model Parameters: ,", "Average RTF: .",
                                  "Model Parameters: " + "9" * 5000])
def test_what_a_program_printed_may_be_no_number(tmp_path, text):
    (tmp_path / "a_log.txt").write_text(text)
    assert all(isinstance(value, int | float) for value in layout.read_log(tmp_path / "a_log.txt").values())


def test_a_profile_of_one_endless_cell_and_a_run_without_a_number(tmp_path):
    (tmp_path / "run_first_freq_960_profile.csv").write_text("timestamp_s,power_w\n" + "9" * 200_000)
    run, = results.read_folder(tmp_path)["runs"]
    assert run["freq"] == 960 and run["energy_j"] is None
