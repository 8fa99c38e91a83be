"""From the bytes of a sound file to mono samples of one rate, with a plain account of what was done to them.

libsndfile reads what it can, FFmpeg (through PyAV) what it cannot; soxr changes the rate. Blocks go through one at a
time, never a whole file that a header promises: read, mix down, resample, keep. `audio.load` is the way in.
"""

import contextlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from whisper_lab import containers
from whisper_lab.console import LabError

QUALITY = "HQ"  # soxr: 20 bit, pass band to 91 % of the lower Nyquist frequency (7.3 of 8 kHz)
BLOCK = 16_384  # frames read at once: 0.1 s at 192 kHz, 2 s at 8 kHz
BLOCK_VALUES = 1 << 20  # values of all channels read at once
# At 2000 Hz everything above 1000 Hz is lost, and with it most consonants: few syllables can still be told. A header
# that claims less is damaged, and each of its samples would become more than eight.
LOWEST_RATE = 2_000  # Hz
HIGHEST_RATE = 768_000  # Hz; the fastest converters there are
LONGEST_S = 8 * 3600.0  # s; a working day: 1.8 GB of samples
LOUDEST = 1e10  # times full scale: 32-bit whole numbers as floats reach 2e9; what is beyond is not sound
CANCELLED = 0.01  # of the channels' mean power is left in their average: 20 dB less; two strangers leave half
# FFmpeg gets an open file and may open nothing else: a list of other files or addresses (ffconcat) named .wav would
# otherwise be followed.
NOTHING_ELSE = {"protocol_whitelist": "none"}

RECORD_AGAIN = "record it again with python 01-record-audio-app.py, or name another file"


def other_format(path: Path) -> str:
    """The remedy for a file that is not sound as far as anybody here can tell."""
    return ("play it to see whether it is sound at all; if so, convert it to WAV: "
            f"ffmpeg -i {shlex.quote(str(path))} speech.wav")


class Mono:
    """Takes blocks [frames, channels] of any rate, turns them into mono at one."""

    def __init__(self, path: Path, wanted: int, limit_s: float | None = None, channel: int | None = None):
        """wanted: Hz of the samples that come out; limit_s: where a recording lasts longer, `add` raises LabError;
        None: LONGEST_S; channel: take this one alone instead of the average.
        """
        self.path, self.wanted, self.channel = path, wanted, channel
        self.limit_s = min(limit_s or LONGEST_S, LONGEST_S)
        self.restart()

    def restart(self, through_ffmpeg: bool = False) -> None:
        """Forget all blocks; through_ffmpeg: FFmpeg is to read the file, not libsndfile."""
        self.rate, self.channels, self.frames = 0, 0, 0
        self.samples, self.peak = 0, 0.0  # at the wanted rate: how many so far, and the loudest
        self.notes: list[str] = []
        self.source_format, self.through_ffmpeg = "", through_ffmpeg
        self._bytes = bytearray()  # grows in place: no second copy of an hour of samples at the end
        self._resampler: soxr.ResampleStream | None = None
        self._power, self._mean_power = np.zeros(0), 0.0  # of each channel, and of their mean

    def start(self, rate: int, channels: int) -> None:
        """Say what the blocks are, in Hz and channels, before the first. Raises LabError for an unlikely rate."""
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise LabError(f"{self.path} claims {rate} samples a second: speech needs {LOWEST_RATE} at least, and no "
                           f"converter makes more than {HIGHEST_RATE}", other_format(self.path))
        self.rate, self.channels = rate, channels
        self._power = np.zeros(channels)
        if self.channel is not None:
            self.notes.append(f"{channels} channels, which cancel each other out when averaged (opposite phase): "
                              f"channel {self.channel + 1} alone is used")
        elif channels > 1:
            self.notes.append(f"{channels} channels averaged")
        if rate != self.wanted:
            self.notes.append(f"{rate} Hz -> {self.wanted} Hz (soxr {QUALITY})")
            self._resampler = soxr.ResampleStream(rate, self.wanted, 1, dtype="float32", quality=QUALITY)

    def add(self, block: np.ndarray) -> None:
        """Mix down and resample one block, float32 [frames, channels]."""
        self._check(block)
        self.frames += len(block)
        if self.frames > self.limit_s * self.rate:  # headers can lie: count
            raise LabError(f"{self.path} lasts longer than {self.limit_s / 60:g} minutes, the limit here",
                           "record something shorter, or cut it")
        # The same weight for every channel; np.mean sums float32 in float32, which is enough for a handful.
        alone = 0 if self.channels == 1 else self.channel
        mono = block.mean(axis=1) if alone is None else np.ascontiguousarray(block[:, alone])
        if alone is None:
            self._power += np.einsum("fc,fc->c", block, block, dtype=np.float64)
            self._mean_power += float(np.einsum("f,f->", mono, mono, dtype=np.float64))
        self._keep(mono if self._resampler is None else self._resampler.resample_chunk(mono))

    def _check(self, block: np.ndarray) -> None:
        """Raise LabError for what is not sound, with its place."""
        bad = ~(np.abs(block) < LOUDEST).all(axis=1)  # also for NaN
        if bad.any():
            first = int(bad.argmax())
            what = "NaN or infinity"
            if np.isfinite(block[first]).all():
                what = f"values up to {np.abs(block[first]).max():.1g} times full scale"
            raise LabError(f"{self.path} holds {what}, first at {(self.frames + first) / self.rate:.3f} s",
                           RECORD_AGAIN)

    def _keep(self, samples: np.ndarray) -> None:
        if len(samples):
            self.samples += len(samples)
            self.peak = max(self.peak, float(np.abs(samples).max()))
            self._bytes += samples.data

    def end(self) -> None:
        """There are no more blocks."""
        if self._resampler is not None:
            self._keep(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        if self.peak > 1.0:
            self.notes.append(f"louder than full scale: scaled down by {20 * np.log10(self.peak):.1f} dB to a peak "
                              "of 1")

    def take(self) -> np.ndarray:
        """The samples that have come since the last time, float32 [n]; the loudest may be above 1."""
        taken, self._bytes = np.frombuffer(self._bytes, np.float32), bytearray()
        return taken

    def cancelled(self) -> int | None:
        """The loudest channel, where hardly anything is left of the channels in their average; else None."""
        if self.channels < 2 or self.channel is not None or not self._power.any():
            return None
        return int(self._power.argmax()) if self._mean_power < CANCELLED * self._power.mean() else None

    def warn_if_cut(self, promised: float) -> None:
        """Warn where the header promised noticeably more seconds (0.05: compressed formats round to whole packets)."""
        got = self.frames / self.rate
        if promised - got > 0.05:
            self._warn(f"cut short: the header promises {promised:.2f} s, the file holds {got:.2f} s")

    def warn_if_ends_inside(self, ends: containers.Ends) -> None:
        """Warn where the container's structure says that something is missing."""
        got = self.frames / self.rate
        if ends.patch:
            self.notes.append("the header knows no length, as a recorder leaves it that was stopped at once: "
                              "all that follows it is read")
        elif ends.promised and ends.there:
            self.warn_if_cut(got * ends.promised / ends.there)
        elif ends.inside:
            self._warn(f"cut short: the file ends in the middle of a block, after {got:.2f} s")

    def warn_damaged(self, reason: str) -> None:
        """Warn that what follows the blocks so far cannot be decoded."""
        self._warn(f"damaged after {self.frames / self.rate:.2f} s, the rest is left out ({reason})")

    def _warn(self, message: str) -> None:
        if not any(note.startswith("warning: ") for note in self.notes):  # the first says it
            self.notes.append(f"warning: {message}")


class Patched:
    """An open file, some bytes of whose header are read as others. Without a name, which may not be UTF-8."""

    def __init__(self, file: BinaryIO, patch: tuple[int, bytes] | None = None):
        self.file, (self.at, self.bytes) = file, patch or (0, b"")
        self.tell, self.size = file.tell, os.fstat(file.fileno()).st_size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """A damaged header leads anywhere: to the nearest end, then. The readers are C, and can take no exception."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self.size}[whence]
        return self.file.seek(min(max(0, base + offset), self.size))

    def read(self, count: int = -1) -> bytes:
        begin = self.tell()
        rest = max(0, self.size - begin)
        data = self.file.read(min(count, rest) if count >= 0 else rest)
        low, high = max(begin, self.at), min(begin + len(data), self.at + len(self.bytes))
        if low >= high:
            return data
        return data[:low - begin] + self.bytes[low - self.at:high - self.at] + data[high - begin:]


def decode(path: Path, mono: Mono) -> Iterator[None]:
    """Read a sound file into `mono`, a block at a time. Raises LabError where it cannot be read.

    libsndfile first. What it does not know or finds damaged FFmpeg reads, from the start: it gets more out of both.
    """
    with open(path, "rb") as opened:
        ends = containers.examine(opened)
        why = "" if mono.through_ffmpeg else None
        if why is None:
            try:
                with _open_source(path, opened, ends) as source:
                    yield from _read_with_libsndfile(source, mono)
            except soundfile.LibsndfileError as error:
                why = str(error)
                mono.restart(through_ffmpeg=True)
                opened.seek(0)
        if why is not None:
            yield from _read_with_pyav(Patched(opened, ends.patch), mono, why, ends)
    if mono.rate:
        mono.warn_if_ends_inside(ends)
    mono.end()


def promised(path: Path) -> float | None:
    """How many s of sound a file's header promises; None for no file, and where nothing can be read or promised.

    No sound is decoded, and nothing is said of what is wrong with the file: `decode` does.
    """
    with contextlib.suppress(Exception):  # readers in C: each has errors of its own
        if not path.is_file():
            return None
        with open(path, "rb") as opened, contextlib.suppress(soundfile.LibsndfileError), \
                _open_source(path, opened, containers.Ends()) as source:
            return source.frames / source.samplerate
        import av  # which `decode` will need as well

        with open(path, "rb") as opened, av.open(Patched(opened), options=NOTHING_ELSE) as container:
            return container.duration / av.time_base
    return None


def _open_source(path: Path, opened: BinaryIO, ends: containers.Ends) -> soundfile.SoundFile:
    if ends.patch or path.suffix.lower() == ".raw":  # a name that soundfile takes for samples without a header
        return soundfile.SoundFile(Patched(opened, ends.patch))
    # As bytes, where names are bytes: soundfile cannot encode one that is not UTF-8.
    return soundfile.SoundFile(path if os.name == "nt" else os.fsencode(path))


def _read_with_libsndfile(source: soundfile.SoundFile, mono: Mono) -> Iterator[None]:
    """Read all of an open file. Raises LibsndfileError for damaged data."""
    mono.source_format = f"{source.format_info}, {source.subtype_info}"
    mono.notes.append(f"{source.subtype_info} read as 32-bit float")
    mono.start(source.samplerate, source.channels)
    frames = max(1, min(BLOCK, BLOCK_VALUES // source.channels))
    while len(block := source.read(frames, dtype="float32", always_2d=True)):
        mono.add(block)
        yield
    mono.warn_if_cut(source.frames / source.samplerate)


def _read_with_pyav(opened: Patched, mono: Mono, why: str, ends: containers.Ends) -> Iterator[None]:
    """Read what libsndfile cannot (webm, m4a, mp4, aac; `why`: its error) through FFmpeg.

    Raises LabError where FFmpeg cannot read it either, or there is no sound track in it.
    """
    path = mono.path
    try:
        import av
    except ImportError as error:
        raise LabError(f"{path} needs PyAV to be read ({why})", "python -m pip install -r requirements.txt") from error
    try:
        with av.open(opened, options=NOTHING_ELSE) as container:
            yield from _decode(container, _first_track(container, mono), mono)
    except LabError:
        raise
    except Exception as error:  # PyAV passes on what FFmpeg says, and for damaged files errors of its own
        if isinstance(error, MemoryError) and not isinstance(error, av.FFmpegError):
            raise  # FFmpeg's is about a damaged header that asks for more than there is
        if ends.inside:
            raise LabError(f"{path} is cut short, and what tells how to read it is in the part that is missing",
                           RECORD_AGAIN) from error
        raise LabError(f"{path} is not sound that can be read ({why.split(': ')[-1]})", other_format(path)) from error


def _first_track(container, mono: Mono):
    """The sound track to read, noted in `mono`. Raises LabError where there is none, or none that can be decoded."""
    tracks = container.streams.audio
    if not tracks:
        raise LabError(f"{mono.path} has no sound track", "name a file with sound in it")
    if tracks[0].codec_context is None:
        raise LabError(f"{mono.path} is in a codec that neither libsndfile nor FFmpeg knows", other_format(mono.path))
    mono.notes.append(f"{tracks[0].codec_context.name} decoded by FFmpeg")
    mono.source_format = f"{container.format.long_name}, {tracks[0].codec_context.name}"
    if len(tracks) > 1:
        mono.notes.append(f"first of {len(tracks)} sound tracks")
    return tracks[0]


def _decode(container, track, mono: Mono) -> Iterator[None]:
    """Decode one sound track, up to its end or to where the file is damaged."""
    import av

    to_float = av.AudioResampler(format="fltp")  # changes the sample format only; rate and channels stay
    try:
        for frame in container.decode(track):
            for block in to_float.resample(frame):
                if not mono.rate:
                    mono.start(block.sample_rate, len(block.layout.channels))
                mono.add(block.to_ndarray().T)
                yield
    except (av.FFmpegError, ValueError, IndexError) as error:  # also where the number of channels changes
        if not mono.frames:
            raise
        mono.warn_damaged(getattr(error, "strerror", None) or str(error))
        return
    # A bare AAC stream has no header that knows the length: FFmpeg guesses it from the bit rate; AVI rounds it.
    if mono.rate and track.duration and container.format.name not in ("aac", "avi"):
        mono.warn_if_cut(float(track.duration * track.time_base))
