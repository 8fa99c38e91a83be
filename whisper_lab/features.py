"""Log-mel spectrogram in NumPy: what Whisper's encoder hears.

    from whisper_lab.features import FeatureSpec, log_mel
    spec = FeatureSpec.from_folder("whisper_model_dir/whisper-nano")
    log_mel(samples, spec)      # float32 [n_mels, n_frames]

Six steps, in this order: pad or trim to the model's window, cut into overlapping frames, Fourier transform, power,
mel filters, logarithm. Equal to transformers' WhisperFeatureExtractor (a test holds the two together), without torch.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from whisper_lab import files
from whisper_lab.console import LabError

POWER_FLOOR = 1e-10  # power; -100 dB re full scale: keeps log10 away from 0
LOG_FLOOR = np.log10(np.float32(POWER_FLOOR))  # what silence comes to
DYNAMIC_RANGE = 8.0  # log10 of power, so 80 dB: anything softer below the loudest point counts as silence
TOP_HZ = 8000.0  # upper edge of the highest filter: half of Whisper's 16 kHz
FRAMES_AT_ONCE = 128  # x 400 samples x 4 bytes = 200 KiB: stays in a core's cache, twice as fast as all at once

# OpenBLAS wakes its worker threads for products of more than 2^18 multiplications, and they keep spinning
# for a while after: the encoder, next in line, then runs on fewer cores. Smaller products stay on this thread.
SINGLE_THREAD_PRODUCT = 2**18  # multiplications


# Many times what any Whisper asks for; the window: ten minutes at 48 kHz.
LARGEST = {"n_mels": 1024, "n_fft": 16_384, "hop_length": 16_384, "sampling_rate": 768_000, "n_samples": 28_800_000}


@dataclass(frozen=True)
class FeatureSpec:
    """How one checkpoint wants its features; for whisper-base 80, 400, 160, 16000, 480000."""

    n_mels: int  # mel filters: rows of the spectrogram
    n_fft: int  # samples in one frame (400 at 16 kHz: 25 ms)
    hop_length: int  # samples from one frame to the next (160 at 16 kHz: 10 ms)
    sampling_rate: int  # Hz
    n_samples: int  # samples in the model's window

    @property
    def n_frames(self) -> int:
        """Columns of the spectrogram of one window."""
        return self.n_samples // self.hop_length

    @property
    def window_s(self) -> float:
        """Length of the model's window in seconds."""
        return self.n_samples / self.sampling_rate

    @classmethod
    def from_folder(cls, folder: str | Path) -> "FeatureSpec":
        """Read `preprocessor_config.json` of a checkpoint, or the part of `processor_config.json` that stands for it.

        Raises LabError where both are missing, or it is not Whisper's.
        """
        path = Path(folder) / "preprocessor_config.json"
        if inside := not path.is_file() and path.with_name("processor_config.json").is_file():
            path = path.with_name("processor_config.json")  # as transformers 5 saves it
        remedy = "name the folder of a Whisper checkpoint with --model, or download it again"
        try:
            config = files.read_json(path)
            config = config["feature_extractor"] if inside else config
            rate, seconds = config["sampling_rate"], config["chunk_length"]
            spec = cls(config["feature_size"], config["n_fft"], config["hop_length"], rate, seconds * rate)
        except OSError as error:
            raise LabError(f"cannot read {path}: {error.strerror}", remedy) from error
        except KeyError as error:
            raise LabError(f"{path} does not say {error}", remedy) from error
        except (ValueError, TypeError) as error:
            raise LabError(f"{path} is not a feature extractor's configuration: {error}", remedy) from error
        # Noise added on purpose, or padding that is not silence: no Whisper has it, and then the features would differ.
        unusual = {key: config[key] for key in ("dither", "padding_value") if config.get(key)}
        if unusual or not all(type(value) is int and 0 < value <= LARGEST[key] for key, value in vars(spec).items()):
            raise LabError(f"{path} asks for features this lab does not compute: {unusual or spec}", remedy)
        return spec


def hertz_to_mel(hertz: np.ndarray) -> np.ndarray:
    """Frequency in Hz to Slaney's mel scale: linear to 1000 Hz (15 mel), then 27 steps for each factor of 6.4.

    Source: M. Slaney, Auditory Toolbox, Technical Report 1998-010, Interval Research; used by librosa and Whisper.
    """
    hertz = np.asarray(hertz, dtype=np.float64)
    above = 15.0 + 27.0 * np.log(np.maximum(hertz, 1000.0) / 1000.0) / np.log(6.4)
    return np.where(hertz < 1000.0, 3.0 * hertz / 200.0, above)


def mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    """The inverse of `hertz_to_mel`."""
    mel = np.asarray(mel, dtype=np.float64)
    above = 1000.0 * 6.4 ** ((mel - 15.0) / 27.0)
    return np.where(mel < 15.0, 200.0 * mel / 3.0, above)


@functools.lru_cache(maxsize=8)
def mel_filters(n_mels: int, n_fft: int, sampling_rate: int) -> np.ndarray:
    """Triangular filters, float32 [n_mels, 1 + n_fft // 2]; row i times a power spectrum is the power in mel band i.

    Neighbouring triangles overlap by half; each has the same area (Slaney's norm), so that white noise comes out flat.
    The array is shared between calls and read-only.
    """
    bins = np.linspace(0.0, sampling_rate // 2, 1 + n_fft // 2)  # Hz of each Fourier bin
    edges = mel_to_hertz(np.linspace(0.0, hertz_to_mel(TOP_HZ), n_mels + 2))  # Hz; filter i spans edges i to i + 2
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters = (triangles * 2.0 / (high - low)).astype(np.float32)
    filters.flags.writeable = False
    return filters


@functools.lru_cache(maxsize=8)
def hann(n_fft: int) -> np.ndarray:
    """Periodic Hann window, float32 [n_fft]: fades each frame in and out, so that its cut ends make no false tones."""
    window = np.hanning(n_fft + 1)[:-1].astype(np.float32)
    window.flags.writeable = False
    return window


def log_mel(samples: np.ndarray, spec: FeatureSpec, frames: int | None = None) -> np.ndarray:
    """Samples [n] in -1..1 at `spec.sampling_rate` to log-mel features, float32 [n_mels, n_frames].

    Shorter than the window: padded with silence; longer: the start is used. frames: only the first so many of the
    window's; they are the same, since the loudest point of a window is never in its padding. Raises ValueError for
    samples that are not one row of floating-point numbers.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"samples must be float [n] in -1..1, not {samples.dtype} {list(samples.shape)}")
    samples = samples[: spec.n_samples].astype(np.float32, copy=False)
    padded = np.pad(samples, (0, spec.n_samples - len(samples)))
    # Frame t is centred on sample t x hop: half a frame of mirror image on both sides makes room for the outer ones.
    padded = np.pad(padded, spec.n_fft // 2, mode="reflect")
    cut = sliding_window_view(padded, spec.n_fft)[:: spec.hop_length][: spec.n_frames]  # a view, nothing copied
    sounding = sounding_frames(len(samples), spec)
    wanted = spec.n_frames if frames is None else min(frames, spec.n_frames)
    logs = np.full((max(wanted, sounding), spec.n_mels), LOG_FLOOR)
    logs[:sounding] = log_power(cut[:sounding], spec)
    return scaled(logs)[:, :wanted]


def sounding_frames(samples: int, spec: FeatureSpec) -> int:
    """How many frames of a window touch one of its `samples`: all others lie in the padding, and have power 0."""
    return min(spec.n_frames, -(-(samples + spec.n_fft // 2) // spec.hop_length))


def scaled(logs: np.ndarray) -> np.ndarray:
    """log10 of the power in a window, float32 [n_frames, n_mels], to features [n_mels, n_frames]; changes `logs`.

    What is softer than 80 dB below the window's loudest point is raised to there: a frame's features depend on its
    whole window, its log-power does not (09 computes it once).
    """
    np.maximum(logs, logs.max() - np.float32(DYNAMIC_RANGE), out=logs)
    logs += 4.0  # shift and scale as in training: speech comes to lie near -1..1
    logs *= 0.25
    return np.ascontiguousarray(logs.T)


def log_power(frames: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """Frames of samples, float32 [frames, n_fft], to log10 of the power in each mel band, float32 [frames, n_mels]."""
    filters, window = mel_filters(spec.n_mels, spec.n_fft, spec.sampling_rate).T, hann(spec.n_fft)
    power = np.empty((len(frames), spec.n_mels), dtype=np.float32)
    rows = max(1, SINGLE_THREAD_PRODUCT // filters.size)
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        stop = min(start + FRAMES_AT_ONCE, len(frames))
        spectrum = np.fft.rfft(frames[start:stop] * window)  # complex64 [frames, 1 + n_fft // 2]
        spectrum_power = spectrum.real**2 + spectrum.imag**2
        for row in range(start, stop, rows):
            end = min(row + rows, stop)
            np.matmul(spectrum_power[row - start : end - start], filters, out=power[row:end])
    return np.log10(np.maximum(power, np.float32(POWER_FLOOR)))
