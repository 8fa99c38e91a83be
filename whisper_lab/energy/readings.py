"""A log of everything the meters and the machine say, in a thread, with the real time of every reading.

    with Log(found.meters, interval_s=0.05) as log:
        start = log.mark()              # reads at this very moment, beside the regular readings
        ...
        end = log.mark()
    log.readings(found.primary, start, end)     # [(s, (value per part, ...)), ...]
    log.write("run_profile.csv")

A thread that asks to sleep 50 ms wakes up after 50, 51 or, on a busy machine, 80: each reading keeps its own time
stamp, so that no one has to multiply a count of readings with an interval that was only wished for.
"""

import csv
import io
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from whisper_lab import files
from whisper_lab.energy.joules import risen

COLUMNS = ("timestamp_s", "power_w", "sm_clock_mhz", "memory_clock_mhz", "temperature_c", "gpu_utilization_percent",
           "cpu_clock_mhz", "cpu_utilization_percent", "memory_used_bytes", "energy_j")
TICK_S = 0.01  # of the kernel's account of processor time


@dataclass(frozen=True)
class Reading:
    """All meters at one moment."""

    at: float  # s since the log began
    values: dict[str, tuple[float, ...] | None]  # meter name -> J or W of each part; None: reading failed
    conditions: dict[str, float | None]


class Log:
    """Readings at an interval and at every mark, from entering the context to leaving it."""

    def __init__(self, meters: list, interval_s: float | None = 0.05, conditions: list | None = None):
        """interval_s: None for readings at the marks only; conditions: objects whose `read()` gives trace columns by
        name; those of the processor always come first."""
        self.meters, self.interval_s = meters, interval_s
        self.conditions = [CpuConditions(), *(conditions or [])]
        self.start_epoch_s, self._started = time.time(), time.perf_counter()
        self.rows: list[Reading] = []
        self.errors: dict[str, str] = {}  # meter name -> the last error of a reading
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="energy-log", daemon=True)

    def __enter__(self) -> "Log":
        self.mark()
        if self.interval_s:
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        if self.interval_s:
            self._thread.join()
        self.mark()
        for one in self.conditions:
            one.close()

    def now(self) -> float:
        """Seconds since the log began."""
        return time.perf_counter() - self._started

    def mark(self) -> float:
        """Read everything now; returns the reading's time stamp in s."""
        with self._lock:
            before = self.now()
            values = {meter.name: self._ask(meter) for meter in self.meters}
            at = (before + self.now()) / 2  # the meters were read somewhere between the two
            found: dict[str, float | None] = {}
            for one in self.conditions:
                found |= {name: value for name, value in one.read().items() if value is not None}
            self.rows.append(Reading(at, values, found))
            return at

    def readings(self, meter, start: float, end: float) -> list[tuple[float, tuple[float, ...]]]:
        """(s, values) of one meter from `start` to `end`, both included; failed readings are left out.

        An external meter's log also gives its last reading before and first one after, to interpolate between.
        """
        if hasattr(meter, "rows"):
            return _around([(at - self.start_epoch_s, (watts,)) for at, watts in meter.rows()], start, end)
        return [(row.at, row.values[meter.name]) for row in self.rows
                if start <= row.at <= end and row.values[meter.name] is not None]

    def write(self, path: str | Path) -> Path:
        """The whole log as CSV; the epoch of its start in a comment before the header."""
        out = io.StringIO()
        out.write(f"# start_epoch_s={self.start_epoch_s:.6f}\n")
        writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.table())
        return files.write_text(path, out.getvalue())

    def table(self) -> list[dict[str, float]]:
        """One row a reading, keys of COLUMNS; unknown ones are left out.

        energy_j: since the start, of the first counter; power_w: of the first meter of power, else how fast the
        counter rose since it last moved (nothing where it did not move).
        """
        counter = next((meter for meter in self.meters if meter.kind == "counter"), None)
        power = next((meter for meter in self.meters if meter.kind == "power" and not hasattr(meter, "rows")
                      and meter.method != "estimate"), None)  # what was only assumed has no place among readings
        made, last, total, moved = [], None, 0.0, None  # moved: (s, J) when the counter last moved
        for row in self.rows:
            line = {"timestamp_s": round(row.at, 6), **row.conditions}
            if power and row.values[power.name] is not None:
                line["power_w"] = round(sum(row.values[power.name]), 4)
            if counter and (values := row.values[counter.name]) is not None:
                total += 0.0 if last is None else risen(last, values, counter.wraps_at)
                last, line["energy_j"] = values, round(total, 6)
                if moved is None or total > moved[1]:
                    if moved and not power:
                        line["power_w"] = round((total - moved[1]) / (row.at - moved[0]), 4)
                    moved = row.at, total
            made.append(line)
        return made

    def _ask(self, meter) -> tuple[float, ...] | None:
        try:
            return meter.read()
        except Exception as error:  # each source has errors of its own; one that fails must not stop the run
            self.errors[meter.name] = f"{type(error).__name__}: {error}"
            return None

    def _run(self) -> None:
        while not self._stop.wait(self.interval_s):
            self.mark()


def _around(rows: list[tuple[float, tuple]], start: float, end: float) -> list[tuple[float, tuple]]:
    inside = [i for i, (at, _) in enumerate(rows) if start <= at <= end]
    first = inside[0] if inside else next((i for i, (at, _) in enumerate(rows) if at > end), len(rows))
    last = inside[-1] if inside else first - 1
    return rows[max(0, first - 1):last + 2]


class CpuConditions:
    """Clock, load and temperature of the processor, and this program's memory."""

    def __init__(self):
        import psutil

        self._psutil, self._process = psutil, psutil.Process(os.getpid())
        psutil.cpu_percent(interval=None)  # the first call has nothing to compare with and says 0
        self._asked = time.monotonic()

    def read(self) -> dict[str, float | None]:
        """Keys as in COLUMNS; None where this system does not say."""
        clock = self._clock()
        return {"cpu_clock_mhz": round(clock, 1) if clock else None,
                "cpu_utilization_percent": self._load(),
                "temperature_c": self._temperature(), "memory_used_bytes": self._process.memory_info().rss}

    def _clock(self) -> float | None:
        try:
            found = self._psutil.cpu_freq()
        except (OSError, NotImplementedError, RuntimeError):
            return None
        return found.current if found else None

    def _load(self) -> float | None:
        """Percent since the last reading; None right after it: the kernel counts in ticks of 10 ms."""
        now = time.monotonic()
        if now - self._asked < 3 * TICK_S:
            return None
        self._asked = now
        return self._psutil.cpu_percent(interval=None)

    def _temperature(self) -> float | None:
        try:
            sensors = self._psutil.sensors_temperatures()
        except (AttributeError, OSError):
            return None
        for name in ("coretemp", "k10temp", "cpu_thermal"):
            if sensors.get(name):
                return sensors[name][0].current
        return None

    def close(self) -> None:
        """Nothing is held open."""
