"""Waveform and log-mel spectrogram of a whole recording, over one time axis."""

import threading
from pathlib import Path

import numpy as np

from whisper_lab.explain import draw_mel, draw_wave
from whisper_lab.features import FeatureSpec, log_mel

_one_at_a_time = threading.Lock()  # matplotlib is not made for several threads


def features(samples: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """Log-mel of all windows side by side, the padding of the last cut off: float32 [n_mels, frames]."""
    frames = -(-len(samples) // spec.hop_length)
    windows = [samples[start:start + spec.n_samples] for start in range(0, max(1, len(samples)), spec.n_samples)]
    return np.concatenate([log_mel(window, spec) for window in windows], axis=1)[:, :frames]


def draw(samples: np.ndarray, spec: FeatureSpec, model: str, path: Path) -> Path:
    """A 1200 x 675 PNG; `spec` and `model` say whose features these are. samples: float32 [n], not empty."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with _one_at_a_time:
        figure = Figure(figsize=(12, 6.75), layout="constrained")
        FigureCanvasAgg(figure)
        wave, mel = figure.subplots(2, 1, sharex=True, height_ratios=[2, 3])
        draw_wave(wave, samples, 0.0, spec)
        draw_mel(mel, features(samples, spec), 0.0, spec)
        duration = len(samples) / spec.sampling_rate
        beyond = duration > spec.window_s
        _head(mel, f"{mel.get_title()}, as {model} gets it" + (f" (dashed: windows of {spec.window_s:g} s)" * beyond))
        _head(wave, wave.get_title())
        for axes in (wave, mel):
            for border in np.arange(spec.window_s, duration, spec.window_s):
                axes.axvline(border, color="#c00000", linestyle="--", linewidth=1)
        mel.set_xlim(0, duration)
        mel.set_xlabel("time (s)")
        figure.savefig(path, dpi=100)
    return path


def _head(axes, title: str) -> None:
    axes.set_title("")
    axes.set_title(title, loc="left", fontsize=15)
