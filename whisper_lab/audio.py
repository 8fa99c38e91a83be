"""Sound files in, 16 kHz mono float32 out, with a plain account of what was done to them.

libsndfile reads what it can, FFmpeg (through PyAV) what it cannot; soxr changes the rate. Blocks, never a whole file
that a header promises.
"""

import io
import os
import stat
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from whisper_lab import console, containers, files
from whisper_lab.console import LabError

# Decoding -------------------------------------------------------------------------------------------------------------

# From bytes to mono samples: libsndfile where it can, FFmpeg (through PyAV) where it cannot, soxr for the rate.
#
# `whisper_lab.audio.load` is the way in. Blocks go through one at a time: read, mix down, resample, keep.

SAMPLE_RATE = 16_000  # Hz; what every Whisper was trained on
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

OTHER_FORMAT = "play it to see whether it is sound at all; if so, convert it to WAV (ffmpeg -i FILE speech.wav)"
RECORD_AGAIN = "record it again with python 01-record-audio-app.py, or name another file"


class Mono:
    """Takes blocks [frames, channels] of any rate, turns them into 16 kHz mono."""

    def __init__(self, path: Path, limit_s: float | None = None, channel: int | None = None):
        """limit_s: where a recording lasts longer, `add` raises LabError; None: LONGEST_S.

        channel: take this one alone instead of the average.
        """
        self.path, self.limit_s, self.channel = path, min(limit_s or LONGEST_S, LONGEST_S), channel
        self.restart()

    def restart(self, through_ffmpeg: bool = False) -> None:
        """Forget all blocks; through_ffmpeg: FFmpeg is to read the file, not libsndfile."""
        self.rate, self.channels, self.frames = 0, 0, 0
        self.samples, self.peak = 0, 0.0  # at 16 kHz: how many so far, and the loudest
        self.notes: list[str] = []
        self.source_format, self.through_ffmpeg = "", through_ffmpeg
        self._bytes = bytearray()  # grows in place: no second copy of an hour of samples at the end
        self._resampler: soxr.ResampleStream | None = None
        self._power, self._mean_power = np.zeros(0), 0.0  # of each channel, and of their mean

    def start(self, rate: int, channels: int) -> None:
        """Say what the blocks are, in Hz and channels, before the first. Raises LabError for an unlikely rate."""
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise LabError(f"{self.path} claims {rate} samples a second: speech needs {LOWEST_RATE} at least, and no "
                           f"converter makes more than {HIGHEST_RATE}", OTHER_FORMAT)
        self.rate, self.channels = rate, channels
        self._power = np.zeros(channels)
        if self.channel is not None:
            self.notes.append(f"{channels} channels, which cancel each other out when averaged (opposite phase): "
                              f"channel {self.channel + 1} alone is used")
        elif channels > 1:
            self.notes.append(f"{channels} channels averaged")
        if rate != SAMPLE_RATE:
            self.notes.append(f"{rate} Hz -> {SAMPLE_RATE} Hz (soxr {QUALITY})")
            self._resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality=QUALITY)

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
        # FFmpeg gets this open file and may open nothing else: a list of other files or addresses (ffconcat) named
        # .wav would otherwise be followed.
        with av.open(opened, options={"protocol_whitelist": "none"}) as container:
            tracks = container.streams.audio
            if not tracks:
                raise LabError(f"{path} has no sound track", "name a file with sound in it")
            if tracks[0].codec_context is None:
                raise LabError(f"{path} is in a codec that neither libsndfile nor FFmpeg knows", OTHER_FORMAT)
            mono.notes.append(f"{tracks[0].codec_context.name} decoded by FFmpeg")
            mono.source_format = f"{container.format.long_name}, {tracks[0].codec_context.name}"
            if len(tracks) > 1:
                mono.notes.append(f"first of {len(tracks)} sound tracks")
            yield from _decode(container, tracks[0], mono)
    except LabError:
        raise
    except Exception as error:  # PyAV passes on what FFmpeg says, and for damaged files errors of its own
        if isinstance(error, MemoryError) and not isinstance(error, av.FFmpegError):
            raise  # FFmpeg's is about a damaged header that asks for more than there is
        if ends.inside:
            raise LabError(f"{path} is cut short, and what tells how to read it is in the part that is missing",
                           RECORD_AGAIN) from error
        raise LabError(f"{path} is not sound that can be read ({why.split(': ')[-1]})", OTHER_FORMAT) from error


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


def blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Pieces of samples [n], so that looking through an hour takes no second hour of memory."""
    return (samples[start : start + BLOCK] for start in range(0, len(samples), BLOCK))


# Loading --------------------------------------------------------------------------------------------------------------

SUFFIXES = frozenset(".wav .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .au .caf .w64 .rf64 "
                     ".webm .mkv .mka .m4a .mp4 .mov .aac .wma .amr .3gp".split())

FULL_SCALE = 32767 / 32768  # the largest 16-bit sample
NEAR_SILENT_DBFS = -60.0  # peak; 33 of 32768 steps: the hum of a microphone that hears nobody
QUIET_DBFS = -30.0  # peak; speech at arm's length peaks at -20 to -3
CLIPPED_TOO_MUCH = 1e-3  # fraction of samples at full scale that can be heard as distortion

RECORD = "record one with python 01-record-audio-app.py, or name a sound file"


@dataclass(frozen=True)
class Audio:
    """A recording as Whisper wants it, and where it came from."""

    samples: np.ndarray  # float32 [n], mono, 16 kHz, in -1..1
    source_rate: int  # Hz
    source_channels: int
    source_format: str  # such as "WAV (Microsoft), Signed 24 bit PCM"
    notes: list[str] = field(default_factory=list)  # what was done, in order

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True)
class Level:
    """How loud a recording is. dBFS: decibels relative to full scale, 0 at most; None where all is zero."""

    rms_dbfs: float | None
    peak_dbfs: float | None
    clipped_fraction: float  # of the samples, 0..1, that lie at full scale
    silent: bool  # nothing that could be speech
    all_zero: bool  # not even noise: a muted or blocked microphone rather than a quiet room
    advice: str | None  # one sentence, or None where the level is good


def load(path: str | Path, limit_s: float | None = None) -> Audio:
    """Read any sound file as float32 mono 16 kHz; see the top of this file for what happens to unusual ones.

    limit_s: refuse what lasts longer, without reading on; None: 8 hours. Raises LabError: no such file, a folder,
    unreadable, empty, no sound in it, no samples, an unlikely rate, NaN or infinity, too long.
    """
    mono = _decoded(Path(path), limit_s, keep=True)
    samples = mono.take()
    if mono.peak > 1.0:
        samples /= mono.peak
    return Audio(samples, mono.rate, mono.channels, mono.source_format, mono.notes)


def tell(path: Path, sound: "Audio | Streamed") -> None:
    """Say on stderr what was loaded, and, of a recording that is in memory, what is wrong with its level."""
    console.note("loaded", f"{path.name}, {sound.duration:.2f} s", "; ".join([sound.source_format, *sound.notes]))
    if isinstance(sound, Audio) and (advice := level(sound.samples).advice):
        console.warn(f"{path.name}: {advice}")


def stream(path: str | Path) -> "Streamed":
    """The same, a block at a time, for whoever goes through a recording once: memory is that of a block.

    The file is read twice: first to its end, to find what `load` would say and the loudest sample. Raises as `load`.
    """
    return Streamed(_decoded(Path(path), None, keep=False))


class Streamed:
    """The samples of a file, to be sliced from the beginning on, without gaps: `streamed[0:n]`, `streamed[n:m]`, ..."""

    def __init__(self, mono: Mono):
        """mono: of a first reading, to its end."""
        self.duration, self.source_format, self.notes = mono.samples / SAMPLE_RATE, mono.source_format, mono.notes
        self._samples, self._peak = mono.samples, max(1.0, mono.peak)
        self._mono = Mono(mono.path, channel=mono.channel)
        self._mono.through_ffmpeg = mono.through_ffmpeg
        self._blocks = decode(mono.path, self._mono)
        self._position, self._rest = 0, np.zeros(0, np.float32)

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, wanted: slice) -> np.ndarray:
        """float32 [n] in -1..1. Raises ValueError for a slice that does not go on where the last one ended."""
        if wanted.start != self._position:
            raise ValueError(f"samples come in order: {self._position} is next, not {wanted.start}")
        parts, count = [self._rest], wanted.stop - wanted.start
        while sum(map(len, parts)) < count and self._more():
            parts.append(self._mono.take() / np.float32(self._peak))
        joined = np.concatenate(parts) if len(parts) > 1 else self._rest
        self._rest, self._position = joined[count:], self._position + min(count, len(joined))
        return joined[:count].copy()  # whoever keeps it must not keep the whole block with it

    def _more(self) -> bool:
        """Read on; False once there is nothing left to take."""
        before = self._mono.samples
        if next(self._blocks, self) is self:
            return self._mono.samples > before  # the resampler's last
        return True


def _decoded(path: Path, limit_s: float | None, keep: bool) -> Mono:
    """A file read to its end, with its warnings given. keep: with the samples."""
    _check_file(path)
    mono = _read(Mono(path, limit_s), keep)
    if (loudest := mono.cancelled()) is not None:
        mono = _read(Mono(path, limit_s, loudest), keep)
    if not mono.samples:
        raise LabError(f"{path} holds no samples", RECORD_AGAIN)
    for note in mono.notes:
        if note.startswith("warning: "):
            console.warn(f"{path}: {note.removeprefix('warning: ')}")
    return mono


def _read(mono: Mono, keep: bool) -> Mono:
    for _ in decode(mono.path, mono):
        if not keep:
            mono.take()
    return mono


def find(paths: list[str | Path]) -> list[Path]:
    """Sound files for what a user named: files as they are, folders as the sound files directly in them.

    Raises LabError where a folder cannot be read or holds no sound, where nothing was named, or where none of the files
    can be opened. Where some can, the others are among what is returned: each is told in its turn, by `load`.
    """
    found: list[Path] = []
    wrong: list[LabError] = []
    for path in map(Path, paths):
        if os.path.isdir(path):  # unlike Path.is_dir, never raises
            found += _sounds_in(path)
            continue
        found.append(path)
        try:
            _check_file(path)
        except LabError as error:
            wrong.append(error)
    if not found:
        raise LabError("no sound file was named", RECORD)
    if len(wrong) == len(found):
        raise wrong[0]
    return found


def _sounds_in(folder: Path) -> list[Path]:
    try:
        inside = sorted(p for p in folder.iterdir() if _is_sound(p))
    except OSError as error:
        raise LabError(f"cannot read folder {folder}: {error.strerror}", "check its permissions: ls -ld") from error
    if not inside:
        raise LabError(f"no sound files in the folder {folder}", f"{RECORD} (subfolders are not searched)")
    return inside


def write_wav(path: str | Path, samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> int:
    """Write float samples [n] in -1..1 as 16-bit mono WAV, whole or not at all; returns how many had to be clipped.

    Rounds to the nearest step, so that 16-bit samples come back exactly as they were. Raises LabError for NaN and
    infinity and where the file cannot be written, ValueError for samples that are not float [n].
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"samples must be float [n] in -1..1, not {samples.dtype} {list(samples.shape)}")
    clipped = 0
    with files.atomic(path) as temporary, _wav(str(temporary), sample_rate) as out:
        for block in blocks(samples.astype(np.float32, copy=False)):
            if not np.isfinite(block).all():
                raise LabError(f"will not write {path}: the samples hold NaN or infinity", RECORD_AGAIN)
            clipped += int(np.count_nonzero(np.abs(block) > 1.0))
            out.writeframesraw(to_pcm16(block))
    return clipped


def wav_bytes(samples: np.ndarray, sample_rate: int = SAMPLE_RATE) -> bytes:
    """The bytes of a 16-bit mono WAV file of finite float samples [n]."""
    with io.BytesIO() as file:
        with _wav(file, sample_rate) as out:
            out.writeframes(to_pcm16(samples))
        return file.getvalue()


def _wav(file, sample_rate: int) -> wave.Wave_write:
    out = wave.open(file, "wb")  # noqa: SIM115
    out.setnchannels(1)
    out.setsampwidth(2)  # bytes
    out.setframerate(sample_rate)
    return out


def to_pcm16(block: np.ndarray) -> bytes:
    """float32 [n] in -1..1 to the bytes of 16-bit samples: rounded to the nearest step, cut off beyond full scale."""
    return np.clip(np.rint(block * 32768.0), -32768, 32767).astype("<i2").tobytes()


def level(samples: np.ndarray) -> Level:
    """Loudness of float samples [n], with advice for whoever records. All fields can be written as JSON."""
    meter = Meter()
    for block in blocks(np.asarray(samples, np.float32)):
        meter.add(block)
    return meter.level()


class Meter:
    """Loudness of a recording that comes in blocks."""

    def __init__(self) -> None:
        self.samples, self.energy, self.peak, self.clipped = 0, 0.0, 0.0, 0

    def add(self, block: np.ndarray) -> None:
        """float32 [n] in -1..1"""
        if len(block):
            loudness = np.abs(block)
            self.samples += len(block)
            self.energy += float(np.dot(block, block))
            self.peak = max(self.peak, float(loudness.max()))
            self.clipped += int(np.count_nonzero(loudness >= FULL_SCALE))

    def level(self) -> Level:
        """Of everything so far."""
        samples = max(self.samples, 1)
        return _judge(dbfs((self.energy / samples) ** 0.5), dbfs(self.peak), self.clipped / samples)


def _judge(rms_dbfs: float | None, peak_dbfs: float | None, clipped: float) -> Level:
    silent = peak_dbfs is None or peak_dbfs < NEAR_SILENT_DBFS
    advice = None
    if peak_dbfs is None:
        advice = "pure silence, every sample is zero: is the microphone muted, or blocked by the browser?"
    elif silent:
        advice = f"near silence (peak {peak_dbfs:.0f} dBFS): is this the right microphone, and is its gain up?"
    elif peak_dbfs < QUIET_DBFS:
        advice = f"very quiet (peak {peak_dbfs:.0f} dBFS): move closer to the microphone"
    elif clipped > CLIPPED_TOO_MUCH:
        advice = f"clipped ({100 * clipped:.1f} % of the samples at full scale): lower the gain or move away"
    return Level(rms_dbfs, peak_dbfs, clipped, silent, peak_dbfs is None, advice)


def _check_file(path: Path) -> None:
    """Raise LabError unless `path` is a readable file with something in it."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise LabError(f"{path} is a folder, not a sound file", "name a sound file in it")
        if not stat.S_ISREG(mode):
            raise LabError(f"{path} is a pipe or device, not a file", "save the sound to a file first")
        with open(path, "rb") as opened:
            if not opened.read(1):
                raise LabError(f"{path} is empty (0 bytes)", RECORD_AGAIN)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LabError(f"no such file: {path}", RECORD) from error
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}", "check its permissions: ls -l") from error


def _is_sound(path: Path) -> bool:
    """A visible file whose name says that it is sound."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def dbfs(amplitude: float) -> float | None:
    """Amplitude (1 is full scale) in decibels; None for 0."""
    return round(20 * float(np.log10(amplitude)), 2) if amplitude > 0 else None
