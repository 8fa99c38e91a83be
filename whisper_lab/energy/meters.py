"""Which source of energy there is on this machine, and for every other one why not.

    found = meters.find(device="cpu")
    found.meters            # the first is the one that counts, the others are read along as a cross-check
    found.reasons           # {"nvml": "no NVIDIA driver: ...", "rapl": "...", ...}

A meter only reads. What its readings mean in joules (difference of a counter, integral of power) is computed by those
who use it. Everything a meter sees counts, not this program alone: a package, a board, a whole machine.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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
class Found:
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


def find(device: str, wanted: str = "auto", gpu: int | str = 0, power_file: str | None = None,
         assume_watts: str | None = None, root: str | Path = "/") -> Found:
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
    return Found([found[name] for name in order if name in found], reasons)


def _blind(name: str, device: str) -> str | None:
    """Why a source does not see work on this device."""
    if device == "cpu" and name.startswith("nvml"):
        return "the work runs on the processor, NVML sees a GPU only"
    if device == "cuda" and name in ("rapl", "battery"):
        return "the work runs on the GPU, which this source does not see"
    return None


def _openers(gpu: int | str, power_file: str | None, assume_watts: str | None, root: Path) -> dict:
    from whisper_lab.energy import nvml, power_sources, rapl

    return {"nvml": lambda: nvml.EnergyCounter(gpu), "nvml-power": lambda: nvml.Power(gpu),
            "rapl": lambda: rapl.Rapl(root), "battery": lambda: power_sources.Battery(root),
            "power-file": lambda: power_sources.PowerFile(power_file),
            "assume-watts": lambda: power_sources.AssumedPower(assume_watts)}
