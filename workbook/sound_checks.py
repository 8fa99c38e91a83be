"""Checks of the tasks on sound: load and mel. task_checks.py says what a check is."""

import tempfile
from pathlib import Path

import numpy as np

from whisper_lab.console import LabError

RATE = 16000  # Hz


# A sound file --------------------------------------------------------------------------------------------------------

def tone(hertz: float, rate: int, height: float = 0.5) -> np.ndarray:
    """One second, float64 [rate]."""
    return height * np.sin(2 * np.pi * hertz * np.arange(rate) / rate)


def sound_file(what: str, channels: list[np.ndarray], rate: int, bits: int, judge):
    """A check of one WAV file; `judge` takes the samples and raises LabError."""
    def one(function) -> None:
        import soundfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sound.wav"
            soundfile.write(path, np.stack(channels, 1), rate, subtype=f"PCM_{bits}")
            given = function(str(path))
        called = f"load({what})"
        if not isinstance(given, np.ndarray) or given.dtype != np.float32 or given.ndim != 1:
            shape = f"{given.dtype} {list(given.shape)}" if isinstance(given, np.ndarray) else type(given).__name__
            raise LabError(f"{called} gives {shape}, should give float32 [n]",
                           "soundfile.read(..., dtype='float32') gives [n, channels]: average over the channels")
        if abs(len(given) - RATE) > 10:
            raise LabError(f"{called} gives {len(given)} samples, should give {RATE}: it lasts one second",
                           "resample from the file's rate to 16000")
        judge(given, called)

    return one


def high(least: float, most: float, why: str):
    """Judge: how high the sound peaks, its ends left out."""
    def one(given: np.ndarray, called: str) -> None:
        peak = float(np.abs(given[500:-500]).max())
        if not least <= peak <= most:
            raise LabError(f"{called} peaks at {peak:.2g}, should at {least:g} to {most:g}", why)

    return one


LOAD = [
    sound_file("16 kHz, mono, 16 bits", [tone(440, RATE)], RATE, 16,
               high(0.49, 0.51, "scale to -1..1: soundfile does with dtype='float32'")),
    sound_file("16 kHz, mono, 24 bits", [tone(440, RATE)], RATE, 24,
               high(0.49, 0.51, "each format has a largest value of its own: leave the scaling to soundfile")),
    sound_file("16 kHz, stereo, sound on the left", [tone(440, RATE), 0 * tone(440, RATE)], RATE, 16,
               high(0.24, 0.26, "the mean of the channels, not their sum and not one of them")),
    sound_file("44.1 kHz, 1000 Hz", [tone(1000, 44100)], 44100, 16, high(0.48, 0.52, "resampling keeps the level")),
    sound_file("44.1 kHz, 10000 Hz", [tone(10000, 44100)], 44100, 16,
               high(0, 0.01, "no 16 kHz sound holds 10 kHz: without a filter it folds back (soxr.resample filters)")),
]


# The log-mel spectrogram ---------------------------------------------------------------------------------------------

VARIANTS = {  # what is different -> what to say
    "magnitude": "step 3: the power is the square of the magnitude",
    "natural": "step 5: the logarithm to base 10",
    "no floor": "step 6: what is more than 8 below the largest value is raised to that floor",
    "floor of each column": "step 6: the largest value of all, not that of each column",
    "unscaled": "step 6: then (x + 4) / 4",
    "zeros": "step 1: mode='reflect' pads with the mirror image, not with zeros",
    "no window": "step 2: each frame times the window, which fades it in and out",
}


def spectrogram(samples: np.ndarray, window: np.ndarray, filters: np.ndarray, hop: int, but: str = "") -> np.ndarray:
    """The steps of the task, `but` one of VARIANTS is done as a mistake does it."""
    size = len(window)
    padded = np.pad(samples, size // 2, mode="constant" if but == "zeros" else "reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop][:len(samples) // hop]
    heard = np.abs(np.fft.rfft(frames if but == "no window" else frames * window))
    bands = np.maximum(filters @ (heard if but == "magnitude" else heard**2).T, 1e-10)
    logs = np.log(bands) if but == "natural" else np.log10(bands)
    if but != "no floor":
        logs = np.maximum(logs, logs.max(0 if but == "floor of each column" else None) - 8)
    return logs if but == "unscaled" else (logs + 4) / 4


def like_the_extractor(function) -> None:
    """One second with a loud and a nearly silent half."""
    from whisper_lab.features import FeatureSpec, hann, log_mel, mel_filters

    spec = FeatureSpec(80, 400, 160, RATE, RATE)
    noise = np.random.default_rng(0).standard_normal(RATE) * np.repeat([1e-5, 1e-7], RATE // 2)
    samples = (tone(440, RATE) * (np.arange(RATE) < RATE // 2) + noise).astype(np.float32)
    given_too = hann(400), mel_filters(80, 400, RATE), 160
    right, given = log_mel(samples, spec), np.asarray(function(samples, *given_too))
    if given.shape != right.shape:
        raise LabError(f"mel(one second) gives the shape {list(given.shape)}, should give {list(right.shape)}",
                       "bands by frames, and as many frames as n // hop: the last one that fits is dropped")
    if np.allclose(given, right, atol=1e-3):
        return
    for but, why in VARIANTS.items():
        if np.allclose(given, spectrogram(samples, *given_too, but), atol=1e-3):
            raise LabError("mel(one second) is not what the extractor gives, and it is known why", why)
    worst = float(np.abs(given - right).max())
    raise LabError(f"mel(one second) is up to {worst:.2g} away from what the extractor gives",
                   "print each step for one frame and look which is not what its line says")


MEL = [like_the_extractor]
