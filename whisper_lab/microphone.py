"""A local microphone through PortAudio: which one, at which rate, what was lost, when to stop.

The recording itself, from the callback to the file, is written out in 01-record-audio-app.py.
"""

import contextlib
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from whisper_lab import console, loudness
from whisper_lab.console import LabError

BROWSER = "record in a browser instead: python 01-record-audio-app.py"
SCALE_DB = 60  # the meter's left end is this far below full scale
METER_EVERY = 0.1  # s
SILENT_DEVICE = 3.0  # s without a block: even a muted microphone sends zeros


def import_sounddevice():
    """sounddevice, or a LabError that says what is missing."""
    try:
        import sounddevice
    except ImportError as error:
        raise LabError("the package sounddevice is not installed",
                       f"python -m pip install -r requirements.txt; or {BROWSER}") from error
    except OSError as error:  # the package is there, the C library is not
        raise LabError("PortAudio, which reads local microphones, is not installed",
                       f"apt-get install libportaudio2; or {BROWSER}") from error
    return sounddevice


@dataclass(frozen=True)
class Microphone:
    """The input that will be used, and how."""

    index: int
    name: str
    rate: int  # Hz, the device's own: what it is resampled to is decided here, not by a driver
    channels: int


def find(device: int | str | None) -> Microphone:
    """The microphone that --microphone names (number, part of a name, None: the system's default), and why, in a note.

    Raises LabError where there is none, or where it does not record.
    """
    sounddevice = import_sounddevice()
    try:
        facts = sounddevice.query_devices(device, "input")
    except (ValueError, sounddevice.PortAudioError) as error:
        if not any(one["max_input_channels"] for one in sounddevice.query_devices()):
            raise LabError("PortAudio finds no microphone on this machine", BROWSER) from error
        if device is None:
            raise LabError("this system names no default microphone",
                           "choose one: --list-devices, then --microphone N") from error
        raise LabError(f"there is no single microphone '{device}'", "see the names and numbers: --list-devices") \
            from error
    index, rate = facts["index"], round(facts["default_samplerate"])
    channels = 1
    try:
        sounddevice.check_input_settings(device=index, channels=1, dtype="int16", samplerate=rate)
    except sounddevice.PortAudioError:  # some only give all of their channels
        channels = facts["max_input_channels"]
    console.note("microphone", f"{index} {facts['name']}", "--microphone asks for it" if device is not None else
                 "the system's default; --microphone takes another")
    return Microphone(index, facts["name"], rate, channels)


def list_devices() -> None:
    """--list-devices: every input, the default marked. Raises LabError where there is none."""
    sounddevice = import_sounddevice()
    default = sounddevice.default.device[0]
    rows = [[f"{one['index']}{' (default)' if one['index'] == default else ''}", one["name"], one["max_input_channels"],
             round(one["default_samplerate"])]
            for one in sounddevice.query_devices() if one["max_input_channels"]]
    if not rows:
        raise LabError("PortAudio finds no microphone on this machine", BROWSER)
    console.table("Microphones", ["--microphone", "name", "channels", "Hz"], rows)


def open_failure(error: Exception, microphone: Microphone) -> LabError:
    """What to say when PortAudio cannot open the stream."""
    reason = str(error).split("[")[0].strip().rstrip(":")
    return LabError(f"cannot record from {microphone.name}: {reason}",
                    f"end what else uses it, try another --microphone, --latency or --blocksize; or {BROWSER}")


def nothing_came(microphone: Microphone) -> LabError:
    """What to say when not one sample arrived."""
    return LabError(f"not one sample came from {microphone.name}", f"try another one: --list-devices; or {BROWSER}")


def flow(stream, waiting: queue.SimpleQueue, stop: threading.Event, microphone: Microphone) -> Iterator[np.ndarray]:
    """The blocks that the callback queued, until the stream ends or `stop` is set; then those that still wait."""
    heard = time.monotonic()
    while stream.active and not stop.is_set():
        try:
            yield waiting.get(timeout=0.1)  # s; short, so that Enter is noticed soon
            heard = time.monotonic()
        except queue.Empty:
            if time.monotonic() - heard > SILENT_DEVICE:
                console.warn(f"{microphone.name} has sent nothing for {SILENT_DEVICE:g} s (unplugged?): the end")
                break
    stream.stop()
    while not waiting.empty():
        yield waiting.get()


class Losses:
    """Counts the blocks before which sound was lost, in the callback: no more than an addition."""

    def __init__(self) -> None:
        self.overflows = 0  # PortAudio: the device had more sound than we took from it
        self.queue_full = 0  # ours: the writer was too slow for too long

    @property
    def total(self) -> int:
        return self.overflows + self.queue_full

    def report(self) -> None:
        """Say what was lost and what helps."""
        if self.overflows:
            console.warn(f"{self.overflows} dropouts: the processor came too late for the sound; try --latency high or "
                         "a larger --blocksize")
        if self.queue_full:
            console.warn(f"{self.queue_full} blocks lost: the disk was too slow; record to another one with --output")


@contextlib.contextmanager
def stopping(enter: bool = True) -> Iterator[threading.Event]:
    """An event that Ctrl-C, a polite kill and (`enter`) Enter set; afterwards Ctrl-C means what it did."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    if enter:
        threading.Thread(target=_wait_for_enter, args=(stop,), daemon=True).start()
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _wait_for_enter(stop: threading.Event) -> None:
    with contextlib.suppress(OSError, ValueError):  # no keyboard
        if sys.stdin is not None and sys.stdin.readline():  # "" is the end of a file, not Enter
            stop.set()


class Bar:
    """The level meter: one line on stderr that is written over; nothing where nobody looks."""

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty() and console.log.isEnabledFor(20)
        self.next = 0.0

    def show(self, block: np.ndarray, seconds: float) -> None:
        """block: float32 [n]; seconds: recorded so far."""
        if self.shown and len(block) and time.monotonic() >= self.next:
            self.next = time.monotonic() + METER_EVERY
            peak = loudness.dbfs(float(np.abs(block).max()))
            print(f"\r{bar(peak)} {'  -inf' if peak is None else f'{peak:6.1f}'} dBFS {seconds:7.1f} s ",
                  end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        if self.shown:
            print(file=sys.stderr)


def bar(peak_dbfs: float | None, width: int = 30) -> str:
    """[######      ] for a peak between -60 and 0 dBFS; ! at its end: full scale is reached."""
    filled = 0 if peak_dbfs is None else round(width * np.clip(1 + peak_dbfs / SCALE_DB, 0, 1))
    over = peak_dbfs is not None and peak_dbfs >= loudness.dbfs(loudness.FULL_SCALE)
    return f"[{'#' * filled}{' ' * (width - filled)}]{'!' if over else ' '}"
