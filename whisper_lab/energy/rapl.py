"""The energy counter of Intel and AMD processors (Running Average Power Limit), through Linux' powercap files.

Only the domain `package` is taken: `core`, `uncore` and often `dram` are inside it, `psys` is around it, and summing
them counts the same joule up to three times. The counter starts again from 0 at `max_energy_range_uj`, on busy servers
every few minutes. Since CVE-2020-8694 only root may read it. Source: Linux Documentation/power/powercap/powercap.rst.
"""

import re
from pathlib import Path

from whisper_lab.energy.meters import Unavailable


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
