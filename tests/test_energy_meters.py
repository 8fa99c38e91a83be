"""Meters, the log that reads them and the joules made of their readings, against fake machines."""

import importlib
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from whisper_lab.console import LabError
from whisper_lab.energy import joules, meters, summary
from whisper_lab.energy.readings import COLUMNS, CpuConditions, Log
from whisper_lab.metrics import mean_interval, t_quantile
from whisper_lab.sweeps import report

SCRIPT = importlib.import_module("06-profile-energy")
WRAP_UJ = 262_143_328_850  # max_energy_range_uj of many Intel servers


def powercap(root: Path, zones: dict[str, tuple[str, int]], hypervisor: bool = False) -> Path:
    """A /sys/class/powercap with zones {folder: (name, microjoules)} and a /proc/cpuinfo."""
    for folder, (name, value) in zones.items():
        zone = root / "sys/class/powercap" / folder
        zone.mkdir(parents=True)
        (zone / "name").write_text(name + "\n")
        (zone / "energy_uj").write_text(f"{value}\n")
        (zone / "max_energy_range_uj").write_text(f"{WRAP_UJ}\n")
    (root / "proc").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(f"flags : fpu avx2{' hypervisor' if hypervisor else ''}\n")
    return root


def fake_nvml(counter: bool = True, instant: bool = True) -> types.ModuleType:
    """A pynvml whose board draws 100 W: 100 mJ every ms since it was made."""
    fake = types.ModuleType("pynvml")
    started = time.perf_counter()

    class NVMLError(Exception):
        pass

    def total_energy(_handle):
        if not counter:
            raise NVMLError("Not Supported")
        return int((time.perf_counter() - started) * 100e3)

    def fields(_handle, ids):
        assert ids == [fake.NVML_FI_DEV_POWER_INSTANT]
        return [types.SimpleNamespace(nvmlReturn=0 if instant else 3, value=types.SimpleNamespace(uiVal=100_000))]

    fake.NVMLError, fake.NVML_FI_DEV_POWER_INSTANT = NVMLError, 186
    fake.NVML_CLOCK_SM, fake.NVML_CLOCK_MEM, fake.NVML_TEMPERATURE_GPU = 1, 2, 0
    fake.nvmlInit = fake.nvmlShutdown = lambda: None
    fake.nvmlDeviceGetHandleByIndex = fake.nvmlDeviceGetHandleByUUID = lambda gpu: gpu
    fake.nvmlDeviceGetName = lambda _handle: "Fake 100"
    fake.nvmlDeviceGetTotalEnergyConsumption = total_energy
    fake.nvmlDeviceGetFieldValues = fields
    fake.nvmlDeviceGetPowerUsage = lambda _handle: 90_000
    fake.nvmlDeviceGetClockInfo = lambda _handle, kind: {1: 1410, 2: 1215}[kind]
    fake.nvmlDeviceGetTemperature = lambda _handle, _sensor: 61
    fake.nvmlDeviceGetUtilizationRates = lambda _handle: types.SimpleNamespace(gpu=87)

    def memory(_handle):
        raise NVMLError("Not Supported")

    fake.nvmlDeviceGetMemoryInfo = memory
    return fake


# Joules --------------------------------------------------------------------------------------------------------------

def test_trapezoids_over_irregular_times_and_why_counting_readings_is_wrong():
    # Asked for a reading every 0.05 s; the sampler was late twice. Power rises from 10 W by 100 W a second.
    times = [0.0, 0.05, 0.10, 0.30, 0.35, 0.60]
    readings = [(t, (10 + 100 * t,)) for t in times]
    right = 10 * 0.6 + 100 * 0.6**2 / 2  # the integral of a straight line
    assert joules.from_power(readings, 0.0, 0.6) == pytest.approx(right)
    counted = sum(w for _, (w,) in readings) * 0.05
    assert counted < 0.5 * right


def test_the_ends_of_a_window_lie_between_readings():
    readings = [(0.0, (0.0,)), (1.0, (10.0,)), (2.0, (10.0,))]
    assert joules.from_power(readings, 0.5, 1.5) == pytest.approx((5 + 10) / 2 * 0.5 + 10 * 0.5)
    assert joules.from_power(readings, 1.0, 4.0) == pytest.approx(30)  # beyond the last reading it stays as it was
    assert joules.from_power([(0.7, (5.0, 7.0))], 0.0, 2.0) == pytest.approx(24)  # two parts, one reading


def test_a_counter_that_wraps():
    readings = [(0, (90.0, 5.0)), (1, (98.0, 6.0)), (2, (3.0, 9.0)), (3, (4.0, 1.0))]
    assert joules.from_counter(readings, (100.0, 10.0)) == pytest.approx((4 + 100 - 90) + (1 + 10 - 5))


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (29, 2.045), (500, 1.965)])
def test_student_t(freedom, t):
    assert t_quantile(freedom) == pytest.approx(t, abs=6e-4)


def test_interval_of_few_values():
    made = mean_interval([10.0, 12.0, 11.0, 13.0, 14.0])
    assert (made["mean"], made["n"]) == (12.0, 5)
    assert made["high"] - 12 == pytest.approx(2.776 * 1.5811 / 5**0.5, rel=1e-3)
    assert mean_interval([3.0]) == {"mean": 3.0, "sd": None, "low": None, "high": None, "n": 1}
    assert mean_interval([])["mean"] is None


def test_two_values_have_no_interval_and_no_time_is_below_zero():
    """Of 0.39 s and 1.78 s the formula says -7.8 to 9.9 s."""
    two = mean_interval([0.39, 1.784])
    assert two["mean"] == pytest.approx(1.087) and two["sd"] > 0.9 and two["low"] is two["high"] is None
    assert summary.spread(two, "s") == "1.087 s (no interval: 2 values, it takes 3)"
    assert report.with_interval(two) == "1.09"
    apart = mean_interval([0.1, 0.1, 3.0])
    assert apart["low"] == 0 and summary.spread(apart, "s").startswith("1.067 s (0.000 to 5.2")
    assert report.with_interval(apart) == "1.07 ± 4.2"  # as far as above
    assert mean_interval([-1.0, 1.0, 3.0])["low"] < -1  # a difference may be negative


# RAPL ----------------------------------------------------------------------------------------------------------------

def test_only_packages_are_summed(tmp_path):
    root = powercap(tmp_path, {"intel-rapl:0": ("package-0", 5_000_000), "intel-rapl:1": ("package-1", 7_000_000),
                               "intel-rapl:2": ("psys", 90_000_000), "intel-rapl:0:0": ("core", 3_000_000),
                               "intel-rapl:0:1": ("dram", 1_000_000), "intel-rapl-mmio:0": ("package-0", 5_000_000)})
    meter = meters.Rapl(root)
    assert meter.read() == (5.0, 7.0)
    assert meter.wraps_at == (WRAP_UJ / 1e6, WRAP_UJ / 1e6)


def test_rapl_wraps_while_it_is_read(tmp_path):
    root = powercap(tmp_path, {"intel-rapl:0": ("package-0", WRAP_UJ - 1_000_000)})
    counter = root / "sys/class/powercap/intel-rapl:0/energy_uj"
    found = meters.open_meters("cpu", root=root)
    with Log(found.meters, None) as log:
        start = log.mark()
        counter.write_text("2000000")
        end = log.mark()
    assert found.primary.method == "rapl"
    assert joules.from_counter(log.readings(found.primary, start, end), found.primary.wraps_at) == pytest.approx(3.0)
    assert log.table()[-1]["energy_j"] == pytest.approx(3.0)


def test_rapl_for_root_only_says_how_to_open_it(tmp_path, monkeypatch):
    root = powercap(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    read_text = Path.read_text

    def denied(self, *arguments, **options):
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read_text(self, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", denied)
    reason = meters.open_meters("cpu", root=root).reasons["rapl"]
    assert "sudo chmod a+r" in reason and "intel-rapl:0/energy_uj" in reason and "udev" in reason


def test_a_virtual_machine_has_no_rapl_and_says_so(tmp_path):
    found = meters.open_meters("cpu", root=powercap(tmp_path, {}, hypervisor=True))
    assert found.primary is None
    assert "missing" in found.reasons["rapl"] and "virtual machine" in found.reasons["rapl"]
    assert set(found.reasons) == set(meters.SOURCES) and all(found.reasons.values())


def test_a_counter_that_stands_still_is_refused(tmp_path):
    meter = meters.Rapl(powercap(tmp_path, {"intel-rapl:0": ("package-0", 0)}))
    readings = [(i * 0.05, (0.0,)) for i in range(100)]
    with pytest.raises(joules.Refused, match="did not move"):
        joules.check_window(meter, readings, 0.0, 4.95, {})


# NVML ----------------------------------------------------------------------------------------------------------------

def test_the_counter_of_a_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    found = meters.open_meters("cuda")
    assert [meter.name for meter in found.meters] == ["nvml", "nvml-power"]
    assert found.primary.method == "counter" and "Fake 100" in found.primary.source
    with Log(found.meters, 0.02, [meters.Conditions(0)]) as log:
        start = log.mark()
        time.sleep(1.1)
        end = log.mark()
    for meter in found.meters:
        readings = log.readings(meter, start, end)
        if meter.kind == "counter":
            joules.check_window(meter, readings, start, end, log.errors)
        seen = joules.from_counter(readings) if meter.kind == "counter" else joules.from_power(readings, start, end)
        assert seen == pytest.approx(100 * (end - start), rel=0.05)
    row = log.table()[-1]
    assert (row["sm_clock_mhz"], row["memory_clock_mhz"], row["temperature_c"]) == (1410, 1215, 61)
    assert row["power_w"] == 100 and row["gpu_utilization_percent"] == 87


@pytest.mark.parametrize(("instant", "watts"), [(True, 100), (False, 90)])
def test_without_a_counter_power_is_integrated(monkeypatch, instant, watts):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(counter=False, instant=instant))
    found = meters.open_meters("cuda")
    assert found.primary.method == "integrated-power"
    assert found.primary.read() == (watts,)
    assert ("instant" in found.primary.source) is instant
    assert "no energy counter" in found.reasons["nvml"]


def test_a_gpu_does_not_count_for_work_on_the_processor(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    root = powercap(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    assert meters.open_meters("cpu", root=root).primary.name == "rapl"
    on_gpu = meters.open_meters("cuda", root=root)
    assert on_gpu.primary.name == "nvml" and "GPU" in on_gpu.reasons["rapl"]


# Battery, file, assumption -------------------------------------------------------------------------------------------

def battery(root: Path, **values: object) -> Path:
    folder = root / "sys/class/power_supply/BAT0"
    folder.mkdir(parents=True)
    for name, value in {"type": "Battery", **values}.items():
        (folder / name).write_text(f"{value}\n")
    return root


def test_battery(tmp_path):
    assert meters.Battery(battery(tmp_path / "a", status="Discharging", power_now=12_500_000)).read() == (12.5,)
    by_current = battery(tmp_path / "b", status="Discharging", current_now=-1_000_000, voltage_now=11_000_000)
    assert meters.Battery(by_current).read() == (11.0,)
    with pytest.raises(meters.Unavailable, match="unplug"):
        meters.Battery(battery(tmp_path / "c", status="Charging", power_now=12_500_000))
    with pytest.raises(meters.Unavailable, match="none"):
        meters.Battery(tmp_path / "d")
    with pytest.raises(meters.Unavailable, match="neither"):
        meters.Battery(battery(tmp_path / "e", status="Discharging"))


def test_plugging_in_during_the_run_ends_the_readings(tmp_path):
    root = battery(tmp_path, status="Discharging", power_now=12_500_000)
    meter = meters.Battery(root)
    with Log([meter], None) as log:
        start = log.mark()
        (root / "sys/class/power_supply/BAT0/status").write_text("Charging")
        end = log.mark()
    with pytest.raises(joules.Refused, match="plugged in"):
        joules.check_window(meter, log.readings(meter, start, end), start, end, log.errors)


def test_the_log_of_an_external_meter(tmp_path):
    path, now = tmp_path / "wall.csv", time.time()
    lines = ["time,watts", *(f"{now - 2 + i},{40 + i}" for i in range(14))]
    path.write_text("\n".join(lines) + f"\n{now + 12},9")  # the last line is still being written
    found = meters.open_meters("cpu", wanted="power-file", power_file=str(path))
    log = Log(found.meters, None)
    log.start_epoch_s = now
    readings = log.readings(found.primary, 0.5, 7.5)
    joules.check_window(found.primary, readings, 0.5, 7.5, {})
    assert joules.from_power(readings, 0.5, 7.5) == pytest.approx((42.5 + 49.5) / 2 * 7)
    late = log.readings(found.primary, 9.0, 30.0)
    with pytest.raises(joules.Refused, match="cover"):
        joules.check_window(found.primary, late, 9.0, 30.0, {})


def test_a_power_file_that_is_none(tmp_path):
    (tmp_path / "bad.csv").write_text("1700000000,40\n1700000001,forty\n")
    with pytest.raises(LabError, match="line 2"):
        meters.open_meters("cpu", power_file=str(tmp_path / "bad.csv"))
    with pytest.raises(LabError, match="cannot read"):
        meters.open_meters("cpu", power_file=str(tmp_path / "missing.csv"))


def test_an_assumed_power_is_no_reading_of_the_trace():
    with Log([meters.AssumedPower("20")], None) as log:
        log.mark()
    assert all("power_w" not in row for row in log.table())


@pytest.mark.parametrize("watts", ["no", "0", "30-10", "5-6-7", "-5"])
def test_an_assumption_that_is_no_power(watts):
    with pytest.raises(LabError, match="not a number of watts"):
        meters.AssumedPower(watts)


def test_an_assumption_never_wins_against_a_meter(tmp_path):
    root = powercap(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    found = meters.open_meters("cpu", assume_watts="10-20", root=root)
    assert [meter.name for meter in found.meters] == ["rapl", "assume-watts"]
    with pytest.raises(LabError, match="--meter battery cannot be used"):
        meters.open_meters("cpu", wanted="battery", root=root)


# Windows -------------------------------------------------------------------------------------------------------------

def test_a_window_too_short_is_refused(tmp_path):
    meter = meters.Rapl(powercap(tmp_path, {"intel-rapl:0": ("package-0", 1)}))
    short = [(0.05 * i, (float(i),)) for i in range(8)]
    with pytest.raises(joules.Refused, match="too short.*--min-seconds"):
        joules.check_window(meter, short, 0.0, 0.35, {})
    quick = [(0.01 * i, (float(i),)) for i in range(30)]  # short, but the counter moved often enough
    joules.check_window(meter, quick, 0.0, 0.29, {})


def test_energy_that_is_unknown_is_null_with_every_reason(tmp_path):
    found = meters.open_meters("cpu", root=powercap(tmp_path, {}, hypervisor=True))
    idle = {"before": None, "after": None, "mean": None, "reason": "none"}
    made = joules.entry(found, None, None, 3.0, idle, SCRIPT.divide(None, 3.0, None, 60.0, 100))
    unknown = ("energy_j", "net_energy_j", "idle_power_w", "average_power_w", "energy_per_audio_s_j",
               "energy_per_token_j")
    assert all(made[key] is None for key in unknown)
    assert made["method"] == "none" and "virtual machine" in made["reason"] and made["duration_s"] == 3.0
    document = {"energy": made, "cpu_time_s": 5.0, "machine": {"cores": 2}, "average_rtf": 0.1,
                "batches": [{"peak_rss_bytes": 500_000_000}]}
    text = "\n".join(summary.energy_lines(document))
    assert "not measured" in text and "RAPL" in text and "CPU time 5.0 s" in text and "--power-file" in text


def test_net_is_gross_less_idle(tmp_path):
    root = powercap(tmp_path, {"intel-rapl:0": ("package-0", 1)})
    found = meters.open_meters("cpu", root=root)
    idle = {"before": 9.0, "after": 11.0, "mean": 10.0, "reason": ""}
    made = joules.entry(found, 100.0, None, 4.0, idle, SCRIPT.divide(100.0, 4.0, 10.0, 50.0, 200))
    assert made["net_energy_j"] == pytest.approx(60) and made["average_power_w"] == 25
    assert made["energy_per_audio_s_j"] == 2 and made["energy_per_token_j"] == 0.5


def test_readings_carry_the_time_at_which_they_came(tmp_path):
    class Slow:
        name, method, kind, wraps_at, shortest_s, fewest_steps = "slow", "rapl", "power", None, 0, 0

        def read(self):
            time.sleep(0.03)
            return (10.0,)

        def close(self):
            pass

    with Log([Slow()], 0.01) as log:
        time.sleep(0.4)
    stamps = [row.at for row in log.rows]
    assert stamps == sorted(stamps) and len(stamps) < 16  # wished for 40
    assert joules.from_power(log.readings(Slow(), stamps[0], stamps[-1]), stamps[0], stamps[-1]) == pytest.approx(
        10 * (stamps[-1] - stamps[0]))
    assert not [one for one in threading.enumerate() if one.name == "energy-log"]
    lines = log.write(tmp_path / "a_profile.csv").read_text().splitlines()
    assert lines[0].startswith("# start_epoch_s=") and lines[1] == ",".join(COLUMNS)
    assert lines[2].split(",")[2] == ""  # no GPU: an empty cell, not 0


def test_load_is_unknown_right_after_a_reading():
    conditions = CpuConditions()
    assert conditions.read()["cpu_utilization_percent"] is None
    time.sleep(0.05)
    assert conditions.read()["cpu_utilization_percent"] is not None
