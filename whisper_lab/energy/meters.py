"""Which source of energy there is on this machine, and for every other one why not.

    found = meters.open_meters(device="cpu")
    found.meters            # the first is the one that counts, the others are read along as a cross-check
    found.reasons           # {"nvml": "no NVIDIA driver: ...", "rapl": "...", ...}

The library zeus reads more counters (AMD, Apple), but its energy monitor gives the joules of a window without the
readings and their time stamps, and None without a reason where a counter is missing; it knows no battery and no
external meter, and brings pandas and scikit-learn. It gives a second opinion instead: crosscheck.py.

A meter only reads. What its readings mean in joules (difference of a counter, integral of power) is computed by those
who use it. Everything a meter sees counts, not this program alone: a package, a board, a whole machine.
"""

import csv
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from whisper_lab import console
from whisper_lab.console import LabError

SOURCES = ("nvml", "nvml-power", "rapl", "battery", "power-file", "assume-watts")
TO_GET_JOULES = ("run on bare metal with readable RAPL, on an NVIDIA GPU or on battery; or pass --power-file with a "
                 "meter's log, or --assume-watts W for an estimate")


class Meter(Protocol):
    """One source of energy. `kind` says what `read` returns: joules of a running counter, or watts of this moment."""

    name: str  # one of SOURCES
    method: str  # counter, integrated-power, rapl, battery, external-file or estimate
    source: str  # what is read, in words
    kind: str  # "counter" or "power"
    wraps_at: tuple[float, ...] | None  # J at which each value of a counter starts again from 0; None: it never does
    shortest_s: float  # a window shorter than this is refused, unless the readings changed `fewest_steps` times in it
    fewest_steps: int

    def read(self) -> tuple[float, ...]:
        """Joules or watts, one value for each part (package). Raises OSError or another error of its source."""

    def close(self) -> None:
        """Release what was opened."""


class Unavailable(Exception):
    """A source cannot be used here; the message says why, in one line."""


@dataclass(frozen=True)
class OpenMeters:
    """The meters of this machine, best first, and why the other sources are not among them."""

    meters: list[Meter]
    reasons: dict[str, str]

    @property
    def primary(self) -> Meter | None:
        """The meter that counts, or None."""
        return self.meters[0] if self.meters else None

    def close(self) -> None:
        for meter in self.meters:
            meter.close()


def open_meters(device: str, wanted: str = "auto", gpu: int | str = 0, power_file: str | None = None,
                assume_watts: str | None = None, root: str | Path = "/") -> OpenMeters:
    """Try every source.

    device: cpu or cuda, where the work is done: a meter that does not see it cannot count. wanted: auto, none or one of
    SOURCES. gpu: index or UUID. root: where /sys and /proc hang (tests). Raises LabError where `wanted` is not there.
    """
    openers = _openers(gpu, power_file, assume_watts, Path(root))
    found, reasons = {}, {}
    for name, opener in openers.items():
        try:
            if wanted not in ("auto", name):
                raise Unavailable(f"--meter {wanted} leaves it out")
            meter = opener()
            if wanted == "auto" and (blind := _blind(name, device)):
                meter.close()
                raise Unavailable(blind)
            found[name] = meter
        except Unavailable as error:
            reasons[name] = str(error)
    if wanted in SOURCES and not found:
        raise LabError(f"--meter {wanted} cannot be used: {reasons[wanted]}", TO_GET_JOULES)
    order = ("power-file", "nvml", "nvml-power", "rapl", "battery", "assume-watts")
    return OpenMeters([found[name] for name in order if name in found], reasons)


def announce(found: OpenMeters) -> None:
    """Say which source the joules come from."""
    if found.primary:
        console.note("energy", found.primary.source, "the best source here that sees this device; --meter chooses")
    else:
        console.note("energy", "not measured", "no source on this machine, see below")


def conditions(gpu: str | None) -> list["Conditions"]:
    """What the trace reads besides the meters: clocks and temperature of the GPU with this UUID, if one is in use."""
    try:
        return [Conditions(gpu)] if gpu else []
    except Unavailable as error:
        console.warn(f"no clocks in the trace: {error}")
        return []


def wait_for(meter: Meter | None, patience_s: float = 3.0) -> None:
    """The log of an external meter may lag behind: wait a little until it has reached this moment."""
    if not hasattr(meter, "rows"):
        return
    end, patient = time.time(), time.monotonic() + patience_s
    while time.monotonic() < patient and (not (rows := meter.rows()) or rows[-1][0] < end):
        time.sleep(0.1)


def _blind(name: str, device: str) -> str | None:
    """Why a source does not see work on this device."""
    if device == "cpu" and name.startswith("nvml"):
        return "the work runs on the processor, NVML sees a GPU only"
    if device == "cuda" and name in ("rapl", "battery"):
        return "the work runs on the GPU, which this source does not see"
    return None


def _openers(gpu: int | str, power_file: str | None, assume_watts: str | None, root: Path) -> dict:
    """Source -> what opens it, or raises Unavailable."""
    return {"nvml": lambda: EnergyCounter(gpu), "nvml-power": lambda: Power(gpu),
            "rapl": lambda: Rapl(root), "battery": lambda: Battery(root),
            "power-file": lambda: PowerFile(power_file),
            "assume-watts": lambda: AssumedPower(assume_watts)}


# RAPL -----------------------------------------------------------------------------------------------------------------

# The energy counter of Intel and AMD processors (Running Average Power Limit), through Linux' powercap files.
#
# Only the domain `package` is taken: `core`, `uncore` and often `dram` are inside it, `psys` is around it, and summing
# them counts the same joule up to three times. The counter starts again from 0 at `max_energy_range_uj`, on busy
# servers every few minutes. Since CVE-2020-8694 only root may read it. Source: Linux
# Documentation/power/powercap/powercap.rst.

class Rapl:
    """Joules of every processor package."""

    name, method, kind = "rapl", "rapl", "counter"
    shortest_s, fewest_steps = 1.0, 20

    def __init__(self, root: str | Path = "/"):
        """root: where /sys and /proc hang. Raises Unavailable."""
        self._files = packages(Path(root))
        try:
            self.wraps_at = tuple(int((file.parent / "max_energy_range_uj").read_text()) / 1e6 for file in self._files)
            self.read()
        except PermissionError as error:
            raise Unavailable(f"{self._files[0]} may be read by root only (CVE-2020-8694); until the next start: sudo "
                              f"chmod a+r {' '.join(map(str, self._files))}; for good, a udev rule: SUBSYSTEM=="
                              '"powercap", RUN+="/bin/chmod a+r /sys%p/energy_uj"') from error
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self._files[0].parent} cannot be read: {error}") from error
        number = f"{len(self._files)} packages" if len(self._files) > 1 else "1 package"
        self.source = f"RAPL package energy counter, {number}"

    def read(self) -> tuple[float, ...]:
        """Joules of each package since some moment; each counter wraps on its own."""
        return tuple(int(file.read_text()) / 1e6 for file in self._files)

    def close(self) -> None:
        """Nothing is held open."""


def packages(root: Path) -> list[Path]:
    """The `energy_uj` files of the package domains. Raises Unavailable where there are none."""
    folder = root / "sys/class/powercap"
    if not folder.is_dir():
        raise Unavailable(f"{folder} is missing{_virtual(root)}")
    zones = [zone for zone in sorted(folder.iterdir()) if re.fullmatch(r"intel-rapl:\d+", zone.name)]
    found = []
    for zone in zones:
        try:
            if (zone / "name").read_text().startswith("package"):
                found.append(zone / "energy_uj")
        except OSError:
            continue
    if not found:
        raise Unavailable(f"{folder} has no package domain{_virtual(root)}")
    return found


def _virtual(root: Path) -> str:
    try:
        flags = re.search(r"^flags\s*:(.*)$", (root / "proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    except OSError:
        return ""
    return " (a virtual machine: the host keeps the counter to itself)" if flags and " hypervisor" in flags[1] else ""


# NVML -----------------------------------------------------------------------------------------------------------------

# NVIDIA's meters: the energy counter (Volta and later), and power where there is no counter.
#
# Both see the whole board, every program on it. The counter is in millijoules since the driver was loaded and moves in
# steps of some tens of milliseconds. Power is a trap: `nvmlDeviceGetPowerUsage` is an average over the last second on
# Ampere (but GA100) and later, so the field NVML_FI_DEV_POWER_INSTANT is taken where it exists. Source: NVML API
# reference.

class _Board:
    """NVML, opened on one GPU."""

    def __init__(self, gpu: int | str = 0):
        """gpu: NVML's index, or a UUID: CUDA_VISIBLE_DEVICES renumbers CUDA's devices but not NVML's."""
        try:
            import pynvml
        except ImportError as error:
            raise Unavailable("the package nvidia-ml-py is not installed") from error
        self.nvml = pynvml
        try:
            pynvml.nvmlInit()
            by = pynvml.nvmlDeviceGetHandleByUUID if isinstance(gpu, str) else pynvml.nvmlDeviceGetHandleByIndex
            self.handle = by(gpu)
            name = pynvml.nvmlDeviceGetName(self.handle)
        except pynvml.NVMLError as error:
            raise Unavailable(f"no NVIDIA driver or GPU: {error}") from error
        self.board = f"GPU {gpu} {name.decode() if isinstance(name, bytes) else name}"

    def close(self) -> None:
        self.nvml.nvmlShutdown()


class EnergyCounter(_Board):
    """Joules since the driver was loaded."""

    name, method, kind = "nvml", "counter", "counter"
    wraps_at = None  # 64 bits of millijoules
    shortest_s, fewest_steps = 1.0, 20

    def __init__(self, gpu: int | str = 0):
        super().__init__(gpu)
        try:
            self.read()
        except self.nvml.NVMLError as error:
            self.close()
            raise Unavailable(f"{self.board} has no energy counter ({error}): older than Volta, a vGPU, MIG or Jetson"
                              ) from error
        self.source = f"NVML total energy counter, {self.board}"

    def read(self) -> tuple[float, ...]:
        return (self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1e3,)


class Power(_Board):
    """Watts of this moment where the driver gives them, else the average that it offers."""

    name, method, kind = "nvml-power", "integrated-power", "power"
    wraps_at = None
    shortest_s, fewest_steps = 2.0, 20

    def __init__(self, gpu: int | str = 0):
        super().__init__(gpu)
        self._instant = True
        try:
            self.read()
        except (self.nvml.NVMLError, AttributeError):
            self._instant = False
        try:
            self.read()
        except self.nvml.NVMLError as error:
            self.close()
            raise Unavailable(f"{self.board} does not report its power ({error})") from error
        kind = "instant power" if self._instant else "power, which many drivers average over a second,"
        self.source = f"NVML {kind} integrated over time, {self.board}"

    def read(self) -> tuple[float, ...]:
        if not self._instant:
            return (self.nvml.nvmlDeviceGetPowerUsage(self.handle) / 1e3,)
        value = self.nvml.nvmlDeviceGetFieldValues(self.handle, [self.nvml.NVML_FI_DEV_POWER_INSTANT])[0]
        if value.nvmlReturn:
            raise self.nvml.NVMLError(value.nvmlReturn)
        return (value.value.uiVal / 1e3,)


class Conditions(_Board):
    """Clocks, temperature, load and memory of the board, for the trace; None where the board does not say."""

    def read(self) -> dict[str, float | None]:
        """Keys as in the trace's header."""
        nvml, handle = self.nvml, self.handle
        return {
            "sm_clock_mhz": self._ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "memory_clock_mhz": self._ask(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            "temperature_c": self._ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            "gpu_utilization_percent": self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "memory_used_bytes": self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used)}

    def _ask(self, question) -> float | None:
        try:
            return question()
        except self.nvml.NVMLError:
            return None


# Battery, external meter, assumption ----------------------------------------------------------------------------------

# Sources other than a processor's or GPU's own counter: the battery, an external meter's log, an assumed power.

class Battery:
    """Watts drawn from the battery: the whole machine, display included; updated every few seconds only."""

    name, method, kind = "battery", "battery", "power"
    wraps_at = None
    shortest_s, fewest_steps = 60.0, 20

    def __init__(self, root: str | Path = "/"):
        """root: where /sys hangs. Raises Unavailable, also on mains: then the battery does not see what is used."""
        folder = Path(root) / "sys/class/power_supply"
        batteries = [one for one in sorted(folder.glob("*")) if _text(one / "type") == "Battery"
                     and _text(one / "scope") != "Device"]  # Device: a mouse's or headset's own
        if not batteries:
            raise Unavailable("this machine has none")
        discharging = [one for one in batteries if _text(one / "status") == "Discharging"]
        if not discharging:
            raise Unavailable("on mains, where the battery does not see what is used; unplug it")
        self._folders = discharging
        try:
            self.read()
        except (OSError, ValueError) as error:
            raise Unavailable(f"{discharging[0]} has neither power_now nor current_now and voltage_now") from error
        self.source = f"discharge of {', '.join(one.name for one in discharging)}, the whole machine"

    def read(self) -> tuple[float, ...]:
        return (sum(self._watts(folder) for folder in self._folders),)

    def _watts(self, folder: Path) -> float:
        if _text(folder / "status") != "Discharging":
            raise OSError(f"{folder.name} no longer discharges: plugged in during the run")
        if (folder / "power_now").exists():
            return abs(int((folder / "power_now").read_text())) / 1e6
        microamperes, microvolts = (int((folder / name).read_text()) for name in ("current_now", "voltage_now"))
        return abs(microamperes) * microvolts / 1e12

    def close(self) -> None:
        """Nothing is held open."""


class PowerFile:
    """The log of an external meter: CSV of seconds since 1970 and watts; it may still be growing.

    It is read when the run is over, and only what falls into the run counts: the clocks of both machines must agree.
    """

    name, method, kind = "power-file", "external-file", "power"
    wraps_at = None
    shortest_s, fewest_steps = 5.0, 5

    def __init__(self, path: str | None):
        """Raises Unavailable where no file was named, LabError where the one named cannot be read."""
        if path is None:
            raise Unavailable("no --power-file was given")
        self.path = Path(path)
        try:
            self.rows()  # what is wrong with it must be known before the run, not after
        except OSError as error:
            raise LabError(f"cannot read {path}: {error.strerror}", "name the CSV that your meter writes") from error
        self.source = f"external meter's log {self.path.name}"

    def rows(self) -> list[tuple[float, float]]:
        """(seconds since 1970, watts) in order of time. Raises LabError for a file that is not such a log."""
        text = self.path.read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]  # the last one is being written
        found = []
        for number, row in enumerate(csv.reader(lines), 1):
            try:
                pair = float(row[0]), float(row[1])
            except (ValueError, IndexError) as error:
                if not found or not row:  # a header, an empty line
                    continue
                raise LabError(f"{self.path}, line {number} is not `seconds since 1970,watts`",
                               "write two columns, as of: date +%s.%N") from error
            if all(map(math.isfinite, pair)):
                found.append(pair)
        return sorted(found)

    def read(self) -> tuple[float, ...]:
        """Never sampled: see `rows`."""
        return ()

    def close(self) -> None:
        """Nothing is held open."""


class AssumedPower:
    """No meter at all: time multiplied by a power that someone named. An estimate, and labelled so."""

    name, method, kind = "assume-watts", "estimate", "power"
    wraps_at = None
    shortest_s, fewest_steps = 0.0, 0

    def __init__(self, watts: str | None):
        """watts: `15`, or `10-25` for a range. Raises Unavailable where none was given, LabError for nonsense."""
        if watts is None:
            raise Unavailable("no --assume-watts was given")
        try:
            ends = [float(end) for end in watts.split("-")]
            self.low, self.high = ends[0], ends[-1]
            if len(ends) > 2 or not 0 < self.low <= self.high < math.inf:
                raise ValueError
        except ValueError as error:
            raise LabError(f"--assume-watts '{watts}' is not a number of watts",
                           "give one, 15, or a range, 10-25") from error
        self.source = f"ESTIMATE: {watts} W assumed, nothing was measured"

    def read(self) -> tuple[float, ...]:
        return ((self.low + self.high) / 2,)

    def close(self) -> None:
        """Nothing is held open."""


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
