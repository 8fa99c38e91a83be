"""Sound files in, 16 kHz mono float32 out: what a user named, found, checked, loaded or streamed; and written as WAV.

sound_files.py reads them, and says what happens to unusual ones; loudness.py judges them.
"""

import difflib
import io
import os
import stat
import wave
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from whisper_lab import console, files, loudness
from whisper_lab.console import LabError
from whisper_lab.sound_files import RECORD_AGAIN, Mono, decode

SAMPLE_RATE = 16_000  # Hz; what every Whisper was trained on
SUFFIXES = frozenset(".wav .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .au .caf .w64 .rf64 "
                     ".webm .mkv .mka .m4a .mp4 .mov .aac .wma .amr .3gp".split())

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


def load(path: str | Path, limit_s: float | None = None) -> Audio:
    """Read any sound file as float32 mono 16 kHz; sound_files.py says what happens to unusual ones.

    limit_s: refuse what lasts longer, without reading on; None: 8 hours. Raises LabError: no such file, a folder,
    unreadable, empty, no sound in it, no samples, an unlikely rate, NaN or infinity, too long.
    """
    mono = _decoded(Path(path), limit_s, keep=True)
    samples = mono.take()
    if mono.peak > 1.0:
        samples /= mono.peak
    return Audio(samples, mono.rate, mono.channels, mono.source_format, mono.notes)


def check(path: Path) -> None:
    """Raises LabError, as `load`, for what is no sound by its first block; no more of it is read."""
    _check_file(path)
    next(decode(path, Mono(path, SAMPLE_RATE)), None)


def tell(path: Path, sound: "Audio | Streamed") -> None:
    """Say on stderr what was loaded, and, of a recording that is in memory, what is wrong with its level."""
    console.note("loaded", f"{path.name}, {sound.duration:.2f} s", "; ".join([sound.source_format, *sound.notes]))
    if isinstance(sound, Audio) and (advice := loudness.level(sound.samples).advice):
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
        self._mono = Mono(mono.path, SAMPLE_RATE, channel=mono.channel)
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
    mono = _read(Mono(path, SAMPLE_RATE, limit_s), keep)
    if (loudest := mono.cancelled()) is not None:
        mono = _read(Mono(path, SAMPLE_RATE, limit_s, loudest), keep)
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
    can be opened. Where some can, there is a warning about the others, which are among what is returned: each is told
    in its turn, by `load`.
    """
    found: list[Path] = []
    wrong: list[LabError] = []
    if not all(map(str, paths)):
        raise LabError("the name of a sound file is empty", "name one; in a script, look whether its variable is set")
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
    for error in wrong:
        console.warn(f"{error.problem}; the other clips are heard all the same")
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
        for block in loudness.blocks(samples.astype(np.float32, copy=False)):
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


def _near(path: Path) -> str:
    """`; did you mean media/kitchen.wav?`, or nothing where no sound file in its folder is called much the same."""
    try:
        others = [each.name for each in path.parent.iterdir() if each.suffix.lower() in SUFFIXES]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, others, n=1, cutoff=0.75)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


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
        raise LabError(f"no such file: {path}{_near(path)}", RECORD) from error
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}", "check its permissions: ls -l") from error


def _is_sound(path: Path) -> bool:
    """A visible file whose name says that it is sound."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
