"""NVIDIA's meters: the energy counter (Volta and later), and power where there is no counter.

Both see the whole board, every program on it. The counter is in millijoules since the driver was loaded and moves in
steps of some tens of milliseconds. Power is a trap: `nvmlDeviceGetPowerUsage` is an average over the last second on
Ampere (but GA100) and later, so the field NVML_FI_DEV_POWER_INSTANT is taken where it exists. Source: NVML API
reference.
"""

from whisper_lab.energy.meters import Unavailable


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
    """Watts of this moment where the driver tells them, else the average it offers."""

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
            raise Unavailable(f"{self.board} does not tell its power ({error})") from error
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
    """Clocks, temperature, load and memory of the board, for the trace; None where the board does not tell."""

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
