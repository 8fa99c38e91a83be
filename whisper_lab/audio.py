"""Sound files in, 16 kHz mono float32 out, with a plain account of what was done to them.

    from whisper_lab import audio
    sound = audio.load("speech.wav")
    sound.samples, sound.duration, sound.notes    # ["2 channels averaged", "44100 Hz -> 16000 Hz (soxr HQ)"]

Files are read in blocks; each block is mixed down and resampled before the next is read, so an hour of
six-channel sound costs hardly more memory than its 16 kHz mono samples (230 MB an hour).

Decisions on unusual samples:
- Louder than full scale (float files may be): the whole recording is divided by its peak. That keeps its shape; cutting
  the peaks off would add tones that nobody spoke.
- NaN or infinity: an error. They are a fault of the program that wrote the file, one of them spreads over everything
  near it when resampled, and a guess in its place would be heard as speech.
- A file that ends before its header or its structure says so (sound_ends.py): what is there is used, with a warning.
- A header whose length is still zero, with sound behind it: all of that sound is used.
- Channels of opposite phase, as of a microphone wired the wrong way round: nothing is left of them in their average, so
  the louder one is taken alone.
- Rates that carry no speech, and recordings of more than 8 hours: an error.
"""

import io
import os
import stat
import wave
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from whisper_lab import console, files
from whisper_lab.audio_decode import RECORD_AGAIN, SAMPLE_RATE, Mono, blocks, decode
from whisper_lab.console import LabError

SUFFIXES = frozenset(".wav .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .au .caf .w64 .rf64 "
                     ".webm .mkv .mka .m4a .mp4 .mov .aac .wma .amr .3gp".split())

FULL_SCALE = 32767 / 32768  # the largest 16-bit sample
NEAR_SILENT_DBFS = -60.0  # peak; 33 of 32768 steps: the hum of a microphone that hears nobody
QUIET_DBFS = -30.0  # peak; speech at arm's length peaks at -20 to -3
CLIPPED_TOO_MUCH = 1e-3  # fraction of samples at full scale that can be heard as distortion

RECORD = "record one with python 01-record-audio-app.py, or name a file with --audio"


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
