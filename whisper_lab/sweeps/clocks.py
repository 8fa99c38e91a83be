"""The device under test and its clock: lock it for one run, and give it back whatever happens.

Three ways, one interface: NVML's locked clocks (NVIDIA, needs root; the application clocks of older launchers leave
with CUDA 14), Linux's cpufreq, and nothing, with the reason. Frequencies are in MHz everywhere.
"""

import atexit
import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from whisper_lab import console
from whisper_lab.console import LabError

# NVML's reasons for a clock lower than asked for; idle and application settings are choices, not throttling.
THROTTLE_BITS = {0x4: "power cap", 0x8: "hardware slowdown", 0x20: "temperature (software)",
                 0x40: "temperature (hardware)", 0x80: "power brake"}


@dataclass(frozen=True)
class GpuType:
    """What is known of a data-centre GPU before one is at hand: clocks in MHz."""

    name: str
    chip: str
    memory_mhz: int
    lowest: int
    highest: int
    step: int

    def frequencies(self) -> list[int]:
        """All graphics clocks, ascending."""
        return list(range(self.lowest, self.highest + 1, self.step))


GPU_TYPES = {gpu.name: gpu for gpu in (GpuType("A100", "GA100", 1215, 510, 1410, 15),
                                       GpuType("V100", "GV100", 877, 510, 1380, 15),
                                       GpuType("H100", "GH100", 2619, 510, 1785, 15))}


class Clocks:
    """A clock that cannot be set; the two below can. `reason` says why not, None where it can be set."""

    kind = "none"

    def __init__(self, device: str, reason: str | None):
        self.device, self.reason = device, reason  # device: A100, CPU, ...: the first word of every file's name

    def frequencies(self) -> list[int] | None:
        """The clocks that can be asked for, ascending, or None where unknown."""
        return None

    def lock(self, mhz: int) -> None:
        """Hold the clock at `mhz`."""
        raise RuntimeError(f"this clock cannot be set: {self.reason}")

    def release(self) -> None:
        """Back to what it was; safe to call twice."""

    def temperature_c(self) -> float | None:
        """Temperature of the device now, or None where it has no readable sensor."""
        return cpu_temperature()

    def throttling(self) -> list[str] | None:
        """Why the clock is lower than asked for at this moment; [] for not at all, None for unknown."""
        return None

    def environment(self) -> dict[str, str]:
        """Variables for the program under test, so that it works on this device and on no other."""
        return {"CUDA_VISIBLE_DEVICES": ""} if self.device == "CPU" else {}

    def card(self) -> dict:
        """What the summary says about the device."""
        return {"type": self.device, "name": None, "name_reason": "no NVIDIA GPU was measured"}


class NvmlClocks(Clocks):
    """Locked graphics clocks of one NVIDIA GPU."""

    kind = "nvml"

    def __init__(self, nvml, handle, only_look: bool):
        """only_look: leave the clocks as they are, since another sweep may hold them; the right is not tried then."""
        self.nvml, self.handle = nvml, handle
        super().__init__(gpu_type(self._ask("nvmlDeviceGetName") or "GPU"), None)
        if only_look:
            return
        try:
            # Resetting needs the same right as locking, and a sweep wants to start from the default clocks anyway.
            nvml.nvmlDeviceResetGpuLockedClocks(handle)
        except nvml.NVMLError as error:
            self.reason = f"NVML may not lock clocks: {error}; it takes root, or the cluster's operator"

    def _ask(self, function: str, *arguments):
        try:
            return getattr(self.nvml, function)(self.handle, *arguments)
        except (self.nvml.NVMLError, AttributeError):
            return None

    def frequencies(self) -> list[int] | None:
        memory = self._ask("nvmlDeviceGetSupportedMemoryClocks")
        found = self._ask("nvmlDeviceGetSupportedGraphicsClocks", max(memory)) if memory else None
        return sorted(found) if found else None

    def lock(self, mhz: int) -> None:
        self.nvml.nvmlDeviceSetGpuLockedClocks(self.handle, mhz, mhz)

    def release(self) -> None:
        self.nvml.nvmlDeviceResetGpuLockedClocks(self.handle)

    def temperature_c(self) -> float | None:
        return self._ask("nvmlDeviceGetTemperature", self.nvml.NVML_TEMPERATURE_GPU)

    def throttling(self) -> list[str] | None:
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons") if bits is None else bits
        return None if bits is None else [reason for bit, reason in THROTTLE_BITS.items() if bits & bit]

    def environment(self) -> dict[str, str]:
        # By UUID, since CUDA and NVML count in different orders; a single GPU needs no telling.
        return {"CUDA_VISIBLE_DEVICES": self._ask("nvmlDeviceGetUUID")} if self.nvml.nvmlDeviceGetCount() > 1 else {}

    def card(self) -> dict:
        known = GPU_TYPES.get(self.device)
        clocks = self.frequencies()
        return {"type": self.device, "name": self._ask("nvmlDeviceGetName"), "uuid": self._ask("nvmlDeviceGetUUID"),
                "driver": self.nvml.nvmlSystemGetDriverVersion(), "chip": known.chip if known else None,
                "core_range_mhz": [clocks[0], clocks[-1]] if clocks else None}


class CpuFreq(Clocks):
    """The frequency limits that Linux lets root write; minimum and maximum are set to the same value."""

    kind = "cpufreq"

    def __init__(self, root: Path):
        super().__init__("CPU", None)
        self.folders = sorted(root.glob("cpu[0-9]*/cpufreq"))
        self.saved = {folder: (self._read(folder, "scaling_min_freq"), self._read(folder, "scaling_max_freq"))
                      for folder in self.folders}

    @staticmethod
    def _read(folder: Path, name: str) -> int:
        return int((folder / name).read_text(encoding="ascii"))  # kHz

    @staticmethod
    def _write(folder: Path, low: int, high: int) -> None:
        # The kernel refuses a minimum above the maximum, so the limit that moves away goes first.
        pair = [("scaling_max_freq", high), ("scaling_min_freq", low)]
        for name, value in pair if high >= CpuFreq._read(folder, "scaling_min_freq") else reversed(pair):
            (folder / name).write_text(str(value), encoding="ascii")

    def frequencies(self) -> list[int] | None:
        folder = self.folders[0]
        with contextlib.suppress(OSError):
            listed = (folder / "scaling_available_frequencies").read_text(encoding="ascii").split()
            return sorted(int(value) // 1000 for value in listed)
        low, high = (self._read(folder, f"cpuinfo_{end}_freq") // 1000 for end in ("min", "max"))
        return sorted({low + (high - low) * i // 8 for i in range(9)})  # the driver takes any value between

    def lock(self, mhz: int) -> None:
        for folder in self.folders:
            self._write(folder, mhz * 1000, mhz * 1000)

    def release(self) -> None:
        for folder, (low, high) in self.saved.items():
            self._write(folder, low, high)


def gpu_type(name: str) -> str:
    """`NVIDIA A100-PCIE-40GB` -> A100; a GPU that is not in the table keeps its own name, fit for a file's."""
    known = next((known for known in GPU_TYPES if re.search(rf"\b{known}\b", name)), None)
    plain = re.sub(r"[^A-Za-z0-9]+", "-", re.sub(r"NVIDIA|GeForce", "", name)).strip("-")
    return known or plain or "GPU"


def find_clocks(index: int = 0, only_look: bool = False) -> Clocks:
    """The clock of this machine: the GPU of that index if there is one, else the CPU's, else none with the reason."""
    try:
        import pynvml

        pynvml.nvmlInit()
        atexit.register(pynvml.nvmlShutdown)
        return NvmlClocks(pynvml, visible_gpu(pynvml, index), only_look)
    except Exception as error:  # no package, no driver, no device: all mean that there is no GPU to speak of
        return find_cpu(f"NVML: {error}")


def find_cpu(why: str, root: Path = Path("/sys/devices/system/cpu")) -> Clocks:
    """The processor's clock; `why` it and not a GPU is part of the reason where it cannot be set."""
    limits = list(root.glob("cpu[0-9]*/cpufreq/scaling_m[ai][xn]_freq"))
    if not limits:
        return Clocks("CPU", f"{why}; Linux offers no cpufreq here, as in most virtual machines")
    if not all(os.access(path, os.W_OK) for path in limits):
        return Clocks("CPU", f"{why}; cpufreq may be set by root only")
    return CpuFreq(root)


def visible_gpu(nvml, index: int):
    """The NVML handle of the index-th GPU that CUDA_VISIBLE_DEVICES leaves to this process (SLURM sets it)."""
    listed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    name = listed[index] if index < len(listed) else str(index)
    if not name.isdigit():
        return nvml.nvmlDeviceGetHandleByUUID(name)
    # Where SLURM confines devices, NVML sees only the job's own and counts them from 0.
    number = int(name)
    return nvml.nvmlDeviceGetHandleByIndex(number if number < nvml.nvmlDeviceGetCount() else index)


def cpu_temperature() -> float | None:
    """The hottest sensor of the CPU, or None where there is none (most virtual machines)."""
    import psutil

    groups = getattr(psutil, "sensors_temperatures", dict)()
    found = [sensor.current for name in ("coretemp", "k10temp", "cpu_thermal") for sensor in groups.get(name, [])]
    return max(found, default=None)


@contextlib.contextmanager
def locked(clocks: Clocks, mhz: int | None) -> Iterator[None]:
    """Hold the clock for the block (None: leave it alone), and release it on any way out that Python can see."""
    if mhz is None:
        yield
        return
    atexit.register(clocks.release)  # the net below `finally`, should a second Ctrl-C strike inside it
    try:
        clocks.lock(mhz)
        yield
    finally:
        clocks.release()
        atexit.unregister(clocks.release)


# Which device a sweep measures ----------------------------------------------------------------------------------------

@dataclass
class Chosen:
    """The device's name in file names, its clock, the mode that is possible; `dry_run`: why nothing may be run."""

    device: str
    clocks: Clocks
    mode: str
    dry_run: str | None = None
    notes: list[str] = field(default_factory=list)

    def say(self, what: str, choice: str, reason: str) -> None:
        """A choice with its reason, for the reader and for the summary."""
        console.note(what, choice, reason)
        self.notes.append(f"{what}: {choice} ({reason})")


def choose_device(gpu_type: str, index: int, mode: str, dry_run: bool = False) -> Chosen:
    """The device of a sweep that runs here.

    gpu_type: A100, V100, H100, CPU or auto; index: of the GPU; mode: baseline, custom or dvfs; dry_run: only look,
    another sweep may hold the clock.
    """
    found = _clocks_of(gpu_type, index, only_look=dry_run)
    chosen = Chosen(found.device, found, mode)
    same = gpu_type in ("auto", found.device)
    if mode == "baseline":
        why = "what this machine has" if same else f"there is no {gpu_type} here: files and summary say so"
        chosen.say("device", found.device, why)
    elif not same:
        chosen.device = gpu_type
        chosen.dry_run = f"there is no {gpu_type} here but {found.device}" + (
            f" ({found.reason})" if found.reason else "")
    elif found.reason and found.device == "CPU":
        chosen.mode = "baseline"
        chosen.say("profiling mode", "baseline", f"clocks cannot be set: {found.reason}")
    elif found.reason:
        chosen.dry_run = found.reason
    return chosen


def elsewhere(gpu_type: str, mode: str) -> Chosen:
    """The device of a job array: that of its node, so only its name counts here."""
    return Chosen(gpu_type, Clocks(gpu_type, "the node will say"), mode)


def device_of_task(wanted: str, index: int, mode: str) -> Chosen:
    """The device of one task of an array. Raises LabError where the node is not what the sweep is for."""
    found = _clocks_of(wanted, index)
    if wanted not in ("auto", found.device):
        raise LabError(f"the plan is for {wanted}, and this node has {found.device}" + (
            f" ({found.reason})" if found.reason else ""), "choose another --partition")
    if mode != "baseline" and found.reason:
        raise LabError(f"this node's clock cannot be set: {found.reason}",
                       "--profiling-mode baseline needs no permission")
    return Chosen(found.device, found, mode)


def _clocks_of(gpu_type: str, index: int, only_look: bool = False) -> Clocks:
    """This machine's clock; of the processor where that is asked for, even where there is a GPU."""
    return find_cpu("--gpu-type CPU") if gpu_type == "CPU" else find_clocks(index, only_look)
