"""The same window measured by zeus and by codecarbon, where they are installed: a second opinion, never the result.

codecarbon fills gaps with guesses (thermal design power times load, watts per memory module): where it did, it says so.
"""

import contextlib
import sys
from collections.abc import Iterator

KWH = 3.6e6  # J


class Checks:
    """Starts the other tools around a window and collects what they say."""

    def __init__(self, wanted: bool, device: str):
        self.tools = [Zeus(device), CodeCarbon(device)] if wanted else []
        self.found: dict[str, dict] = {}  # tool -> energy_j, reason, note

    @contextlib.contextmanager
    def window(self) -> Iterator[None]:
        """Every tool measures what runs inside."""
        running = [tool for tool in self.tools if self._try(tool, tool.begin)]
        yield
        for tool in running:
            self._try(tool, lambda tool=tool: self.found.update({tool.name: tool.end()}))

    def _try(self, tool, action) -> bool:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # both talk, and results are on stdout
                action()
            return True
        except ImportError:
            reason = "not installed"
        except Exception as error:  # whatever another tool trips over must not spoil the run
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        self.found[tool.name] = {"energy_j": None, "reason": reason}
        return False


class Zeus:
    """zeus' ZeusMonitor: the GPU's counter, or RAPL."""

    name = "zeus"

    def __init__(self, device: str):
        self.device = device

    def begin(self) -> None:
        from zeus.monitor import ZeusMonitor

        self.monitor = ZeusMonitor(gpu_indices=self._gpus(), approx_instant_energy=False)
        self.monitor.begin_window("profile", sync_execution=False)

    def _gpus(self) -> list[int] | None:
        """The GPU in use; None, all of them, where none is."""
        if self.device != "cuda":
            return None
        import torch

        return [torch.cuda.current_device()]

    def end(self) -> dict:
        """Energy of the device in use."""
        measured = self.monitor.end_window("profile", sync_execution=False)
        parts = measured.gpu_energy if self.device == "cuda" else measured.cpu_energy
        if not parts:
            return {"energy_j": None, "reason": f"zeus sees no energy of the {self.device}"}
        return {"energy_j": float(sum(parts.values())), "reason": None}


class CodeCarbon:
    """codecarbon's tracker, offline, once a second."""

    name = "codecarbon"

    def __init__(self, device: str):
        self.device = device

    def begin(self) -> None:
        from codecarbon import OfflineEmissionsTracker

        self.tracker = OfflineEmissionsTracker(country_iso_code="BEL", measure_power_secs=1, save_to_file=False,
                                               log_level="critical", allow_multiple_runs=True)
        self.tracker.start()

    def end(self) -> dict:
        """Energy of the device in use; for a processor with the note where it is a guess."""
        self.tracker.stop()
        data = self.tracker.final_emissions_data
        if self.device == "cuda":
            return {"energy_j": data.gpu_energy * KWH, "reason": None} if data.gpu_energy else \
                {"energy_j": None, "reason": "codecarbon sees no energy of the GPU"}
        modes = {getattr(part, "_mode", None) for part in self.tracker._hardware}
        guess = "intel_rapl" not in modes
        return {"energy_j": data.cpu_energy * KWH, "reason": None,
                "note": "a guess from the processor's design power, not a measurement" if guess else None}
