"""From bytes to mono samples: libsndfile where it can, FFmpeg (through PyAV) where it cannot, soxr for the rate.

`whisper_lab.audio.load` is the way in. Blocks go through one at a time: read, mix down, resample, keep.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from whisper_lab import console
from whisper_lab.console import LabError

SAMPLE_RATE = 16_000  # Hz; what every Whisper was trained on
QUALITY = "HQ"  # soxr: 20 bit, pass band to 91 % of the lower Nyquist frequency (7.3 of 8 kHz)
BLOCK = 16_384  # frames read at once: 0.1 s at 192 kHz, 2 s at 8 kHz
UNKNOWN_LENGTH = 0x7FFFFFFF  # bytes; a WAV written to a pipe claims at least this much

OTHER_FORMAT = "play it to see whether it is sound at all; if so, convert it to WAV (ffmpeg -i FILE speech.wav)"
RECORD_AGAIN = "record it again with python 01-record-audio-app.py, or name another file with --audio"


class Mono:
    """Takes blocks [frames, channels] of any rate, keeps them as 16 kHz mono."""

    def __init__(self, path: Path, limit_s: float | None = None):
        """limit_s: where a recording lasts longer, `add` raises LabError; None: no limit."""
        self.path, self.limit_s = path, limit_s
        self.rate, self.channels, self.frames = 0, 0, 0
        self.notes: list[str] = []
        self._bytes = bytearray()  # grows in place: no second copy of an hour of samples at the end
        self._resampler: soxr.ResampleStream | None = None

    def start(self, rate: int, channels: int) -> None:
        """Say what the blocks are, in Hz and channels, before the first."""
        self.rate, self.channels = rate, channels
        if channels > 1:
            self.notes.append(f"{channels} channels averaged")
        if rate != SAMPLE_RATE:
            self.notes.append(f"{rate} Hz -> {SAMPLE_RATE} Hz (soxr {QUALITY})")
            self._resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality=QUALITY)

    def add(self, block: np.ndarray) -> None:
        """Mix down and resample one block, float32 [frames, channels]."""
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            at = (self.frames + int(finite.argmin())) / self.rate
            raise LabError(f"{self.path} holds NaN or infinity, first at {at:.3f} s", RECORD_AGAIN)
        self.frames += len(block)
        if self.limit_s is not None and self.frames > self.limit_s * self.rate:  # headers can lie: count
            raise LabError(f"{self.path} lasts longer than {self.limit_s / 60:g} minutes, the limit here",
                           "record something shorter, or cut it")
        # The same weight for every channel; np.mean sums float32 in float32, which is enough for a handful.
        mono = np.ascontiguousarray(block[:, 0]) if self.channels == 1 else block.mean(axis=1)
        self._bytes += (mono if self._resampler is None else self._resampler.resample_chunk(mono)).data

    def finish(self) -> np.ndarray:
        """The samples, float32 [n] in -1..1."""
        if self._resampler is not None:
            self._bytes += self._resampler.resample_chunk(np.zeros(0, np.float32), last=True).data
        samples = np.frombuffer(self._bytes, np.float32)
        peak = max((float(np.abs(b).max()) for b in blocks(samples)), default=0.0)
        if peak > 1.0:
            samples /= peak
            self.notes.append(f"louder than full scale: scaled down by {20 * np.log10(peak):.1f} dB to a peak of 1")
        return samples

    def warn_if_cut(self, promised: float) -> None:
        """Warn where the header promised noticeably more seconds (0.05: compressed formats round to whole packets)."""
        got = self.frames / self.rate
        if promised - got > 0.05:
            self._warn(f"cut short: the header promises {promised:.2f} s, the file holds {got:.2f} s")

    def warn_damaged(self, reason: str) -> None:
        """Warn that what follows the blocks so far cannot be decoded."""
        self._warn(f"damaged after {self.frames / self.rate:.2f} s, the rest is left out ({reason})")

    def _warn(self, message: str) -> None:
        self.notes.append(f"warning: {message}")
        console.warn(f"{self.path}: {message}")


def read_with_libsndfile(source: soundfile.SoundFile, mono: Mono) -> str:
    """Read all of an open file; returns its format in words. Raises LibsndfileError for damaged data."""
    mono.notes.append(f"{source.subtype_info} read as 32-bit float")
    mono.start(source.samplerate, source.channels)
    while len(block := source.read(BLOCK, dtype="float32", always_2d=True)):
        mono.add(block)
    mono.warn_if_cut(_promised_frames(source) / source.samplerate)
    return f"{source.format_info}, {source.subtype_info}"


def _promised_frames(source: soundfile.SoundFile) -> float:
    """Frames that the header promises. libsndfile silently corrects a cut WAV, but its log keeps the header's word."""
    said = re.search(r"^\s*data : (\d+) \(should be (\d+)\)", source.extra_info, re.MULTILINE)
    if not said:
        return source.frames
    header, file = int(said[1]), int(said[2])  # bytes
    return source.frames * header / file if 0 < file < header < UNKNOWN_LENGTH else source.frames


def read_with_pyav(path: Path, mono: Mono, why: str) -> str:
    """Read what libsndfile cannot (webm, m4a, mp4, aac; `why`: its error) through FFmpeg; returns the format in words.

    Raises LabError where FFmpeg cannot read it either, or there is no sound track in it.
    """
    try:
        import av
    except ImportError as error:
        raise LabError(f"{path} needs PyAV to be read ({why})", "python -m pip install -r requirements.txt") from error
    try:
        # FFmpeg gets this open file and may open nothing else: a list of other files or addresses (ffconcat) named
        # .wav would otherwise be followed.
        with open(path, "rb") as opened, av.open(opened, options={"protocol_whitelist": "none"}) as container:
            tracks = container.streams.audio
            if not tracks:
                raise LabError(f"{path} has no sound track", "name a file with sound in it")
            mono.notes.append(f"{tracks[0].codec_context.name} decoded by FFmpeg")
            if len(tracks) > 1:
                mono.notes.append(f"first of {len(tracks)} sound tracks")
            _decode(container, tracks[0], mono)
            return f"{container.format.long_name}, {tracks[0].codec_context.name}"
    except (av.FFmpegError, ValueError) as error:
        raise LabError(f"{path} is not sound that can be read ({why.split(': ')[-1]})", OTHER_FORMAT) from error


def _decode(container, track, mono: Mono) -> None:
    """Decode one sound track, up to its end or to where the file is damaged."""
    import av

    to_float = av.AudioResampler(format="fltp")  # changes the sample format only; rate and channels stay
    try:
        for frame in container.decode(track):
            for block in to_float.resample(frame):
                if not mono.rate:
                    mono.start(block.sample_rate, len(block.layout.channels))
                mono.add(block.to_ndarray().T)
    except (av.FFmpegError, ValueError) as error:
        if not mono.frames:
            raise
        mono.warn_damaged(str(error))
        return
    # A bare AAC stream has no header that knows the length: FFmpeg guesses it from the bit rate.
    if mono.rate and track.duration and container.format.name != "aac":
        mono.warn_if_cut(float(track.duration * track.time_base))


def blocks(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Pieces of samples [n], so that looking through an hour takes no second hour of memory."""
    return (samples[start : start + BLOCK] for start in range(0, len(samples), BLOCK))
