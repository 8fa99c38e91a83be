"""Where the sound comes from: a file, raw PCM on standard input, a microphone. All are asked in one way:

    source.take(seconds) -> float32 [n]    waits until at least that much is new, then hands out ALL that is there
                         -> None           it is over

So whoever is late gets more at once, and nothing is lost: live sound is read by a thread into a queue that only memory
limits (an hour is 230 MB).
"""

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from whisper_lab import audio, console
from whisper_lab.audio import SAMPLE_RATE, Streamed
from whisper_lab.console import LabError

SLICE = 0.1  # s; how long a wait may keep Ctrl-C waiting
READ = 1 << 15  # bytes
FULL_SCALE = 32768  # of 16-bit samples


class Clock:
    """The time; tests have one of their own."""

    def now(self) -> float:
        """s"""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Played:
    """A recording, in real time as if it were spoken now, or as fast as it is taken."""

    def __init__(self, samples: np.ndarray | Streamed, realtime: bool, clock: Clock, stop: threading.Event):
        """samples: float32 [n] at 16 kHz, or audio.Streamed"""
        self.samples, self.realtime, self.clock, self.stop = samples, realtime, clock, stop
        self.position = 0  # samples handed out
        self.largest_backlog = 0  # samples that waited
        self.dropouts = 0
        self._start: float | None = None

    def take(self, seconds: float) -> np.ndarray | None:
        """See the top of this file."""
        self._start = self.clock.now() if self._start is None else self._start
        until = min(self.position + round(seconds * SAMPLE_RATE), len(self.samples))
        while self.realtime and not self.stop.is_set() and (early := self.arrival(until) - self.clock.now()) > 0:
            self.clock.sleep(min(early, SLICE))
        if self.stop.is_set() or self.position >= len(self.samples):
            return None
        if self.realtime:
            arrived = int((self.clock.now() - self._start) * SAMPLE_RATE)
            until = min(max(until, arrived), len(self.samples))
        self.largest_backlog = max(self.largest_backlog, until - self.position)
        block, self.position = self.samples[self.position:until], until
        return block

    def arrival(self, sample: int) -> float | None:
        """When this sample was there, by the clock; None where the file is not played in real time."""
        return self._start + sample / SAMPLE_RATE if self.realtime else None


class Live:
    """Sound that comes whether we are ready or not: a thread reads `blocks` and keeps them."""

    realtime = True

    def __init__(self, blocks: Iterable[np.ndarray], clock: Clock, stop: threading.Event, losses=None):
        """blocks: float32 [n] at 16 kHz; losses: microphone.Losses, counting what was lost before it reached us."""
        self.clock, self.stop, self.losses = clock, stop, losses
        self.largest_backlog = 0
        self._waiting: list[np.ndarray] = []
        self._arrivals: list[tuple[int, float]] = []  # (samples so far, when)
        self._total, self._over, self._error = 0, False, None
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(blocks,), daemon=True)
        self._thread.start()

    @property
    def dropouts(self) -> int:
        return self.losses.total if self.losses else 0

    def _read(self, blocks: Iterable[np.ndarray]) -> None:
        try:
            for block in blocks:
                with self._news:
                    self._total += len(block)
                    self._waiting.append(block)
                    self._arrivals.append((self._total, self.clock.now()))
                    self._news.notify()
        except Exception as error:  # told to whoever takes
            self._error = error
        with self._news:
            self._over = True
            self._news.notify()

    def take(self, seconds: float) -> np.ndarray | None:
        """See the top of this file. Raises what reading raised."""
        with self._news:
            while self._samples_waiting() < round(seconds * SAMPLE_RATE) and not self._over:
                self._news.wait(SLICE)
                if self.stop.is_set():
                    self._news.wait_for(lambda: self._over, timeout=5 * SLICE)  # a microphone has a last block
                    break
            if self._error:
                raise self._error
            blocks, self._waiting = self._waiting, []
        if not blocks:
            return None
        block = np.concatenate(blocks)
        self.largest_backlog = max(self.largest_backlog, len(block))
        return block

    def _samples_waiting(self) -> int:
        return sum(map(len, self._waiting))

    def arrival(self, sample: int) -> float | None:
        """When the block with this sample came, by the clock; None where nothing came."""
        if not self._arrivals:
            return None
        totals = [total for total, _ in self._arrivals]
        return self._arrivals[min(np.searchsorted(totals, sample), len(totals) - 1)][1]


def pcm(rate: int, channels: int) -> Iterator[np.ndarray]:
    """Raw 16-bit little-endian samples from standard input as float32 [n] at 16 kHz.

    Raises LabError where standard input is a terminal, or holds a WAV file.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise LabError("nothing is piped into standard input",
                       "ffmpeg -i FILE -f s16le -ar 16000 -ac 1 - | python 09-stream-microphone.py --stdin")
    # The raw file: at Ctrl-C the reading thread is left waiting, and it must not hold a buffer's lock then.
    return _pcm_blocks(sys.stdin.buffer.raw, rate, channels)


def _pcm_blocks(pipe, rate: int, channels: int) -> Iterator[np.ndarray]:
    convert, frame, rest, first = Converter(rate), 2 * channels, b"", True
    while data := pipe.read(READ):
        data = rest + data
        if first and data.startswith((b"RIFF", b"fLaC", b"OggS", b"ID3")):
            raise LabError("standard input holds a sound file, not raw samples",
                           "name the file itself, or unpack it: ffmpeg -i FILE -f s16le -ar 16000 -ac 1 - | ...")
        whole = len(data) // frame * frame
        data, rest, first = data[:whole], data[whole:], False
        yield convert(np.frombuffer(data, "<i2").reshape(-1, channels))
    if rest:
        console.warn(f"the sound ends in the middle of a sample: {console.count(len(rest), 'byte')} left out")
    yield convert(np.zeros((0, channels), np.int16), last=True)


class Converter:
    """int16 [frames, channels] at any rate to float32 [n] in -1..1, mono, 16 kHz; remembers the block before."""

    def __init__(self, rate: int):
        import soxr

        self._resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32",
                                                                               quality="HQ")

    def __call__(self, block: np.ndarray, last: bool = False) -> np.ndarray:
        mono = block.mean(axis=1, dtype=np.float32) / FULL_SCALE if len(block) else np.zeros(0, np.float32)
        return mono if self._resampler is None else self._resampler.resample_chunk(mono, last=last)


# Which sound ----------------------------------------------------------------------------------------------------------

Open = Callable[[Clock, threading.Event], Played | Live]


def asked(paths: list[str], realtime: bool, raw: tuple[int, int] | None, wanted: int | str | None, failed: list
          ) -> Iterable[tuple[str, Open]]:
    """What to listen to: (label, how to open it). Files, else raw samples (Hz, channels) on standard input, else the
    microphone that is wanted, None for the system's. Of several files those that cannot be read go into `failed`.

    Raises LabError at once where there is nothing to listen to: no such file, one that is no sound, no microphone.
    """
    if paths:
        found = audio.find(paths)
        if len(found) == 1:
            audio.check(found[0])
        return files(found, realtime, failed)
    return [standard_input(*raw) if raw else microphone(wanted)]


def files(found: list[Path], realtime: bool, failed: list) -> Iterator[tuple[str, Open]]:
    """Sound files one after the other: (label, how to open it).

    Of several files those that cannot be read are named, put into `failed` and left out.
    """
    for path in found:
        try:
            sound = audio.stream(path)  # played once: an hours-long recording takes no memory
        except LabError as error:
            if len(found) == 1:
                raise
            failed.append(path)
            console.error(error)
            continue
        audio.tell(path, sound)
        yield path.name, lambda clock, stop, sound=sound: Played(sound, realtime, clock, stop)


def standard_input(rate: int, channels: int) -> tuple[str, Open]:
    """Raw 16-bit samples: (label, how to open it)."""
    blocks = pcm(rate, channels)

    def open_source(clock: Clock, stop: threading.Event) -> Live:
        console.note("listening", f"standard input, {rate} Hz, {console.count(channels, 'channel')}, 16 bit",
                     "Ctrl-C ends it")
        return Live(blocks, clock, stop)

    return "standard input", open_source


def microphone(wanted: int | str | None) -> tuple[str, Open]:
    """The microphone of this number or name, None for the system's: (label, how to open it)."""
    from whisper_lab import microphone as devices

    devices.import_sounddevice()
    chosen, losses = devices.find(wanted), devices.Losses()
    return "microphone", lambda clock, stop: Live(_microphone_blocks(chosen, losses, stop), clock, stop, losses)


def _microphone_blocks(chosen, losses, stop: threading.Event) -> Iterator[np.ndarray]:
    """What the microphone hears, float32 [n] at 16 kHz. The way from callback to loop is explained in 01.

    Raises LabError where it cannot be opened, or sends nothing.
    """
    from whisper_lab import microphone

    sounddevice = microphone.import_sounddevice()
    waiting: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()

    def callback(block: np.ndarray, frames: int, _, status) -> None:
        losses.overflows += bool(status.input_overflow)
        waiting.put(block.copy())

    try:
        # A recorder wants no gaps and takes latency `high`; here the sound should be soon.
        stream = sounddevice.InputStream(device=chosen.index, channels=chosen.channels, samplerate=chosen.rate,
                                         dtype="int16", latency="low", callback=callback)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise microphone.open_failure(error, chosen) from error
    convert, count = Converter(chosen.rate), 0
    with stream:
        console.note("listening", f"{stream.latency * 1000:.0f} ms latency, {chosen.rate} Hz",
                     "Enter or Ctrl-C ends it")
        for block in microphone.flow(stream, waiting, stop, chosen):
            count += len(block)
            yield convert(block)
    if not count:
        raise microphone.nothing_came(chosen)
    yield convert(np.zeros((0, chosen.channels), np.int16), last=True)
    losses.report()
