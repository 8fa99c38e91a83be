"""Sources other than a processor's or GPU's own counter: the battery, an external meter's log, an assumed power."""

import csv
import math
from pathlib import Path

from whisper_lab.console import LabError
from whisper_lab.energy.meters import Unavailable


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
            raise Unavailable(f"{discharging[0]} tells neither power_now nor current_now and voltage_now") from error
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
        """(seconds since 1970, watts) in order of time. Raises LabError for a file that is no such log."""
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
    """No meter at all: time multiplied by a power that somebody named. An estimate, and labelled so."""

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
            raise LabError(f"--assume-watts '{watts}' is no power", "give watts, 15, or a range, 10-25") from error
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
