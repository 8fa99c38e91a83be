"""Waveform and log-mel spectrogram of a whole recording, over one time axis."""

import dataclasses
import threading
from pathlib import Path

import numpy as np

from whisper_lab.explain import draw_mel, draw_wave
from whisper_lab.features import FeatureSpec, log_mel
from whisper_lab.pictures import TELEPHONE, Layout

# The page is light or dark, as its reader's system is: the paper is transparent, and these are legible on both.
INK, WAVE = "#808080", "#3d85c6"
INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
WIDE = Layout(8, 5, 150, 10)  # 1200 x 750
NARROW_UP_TO = 640  # pixels
NARROW = dataclasses.replace(TELEPHONE, height=4.4)  # 728 x 880
_one_at_a_time = threading.Lock()  # matplotlib is not made for several threads


def layout_for(width: float | None) -> Layout:
    """What is legible in a window of this many pixels; None or 0: unknown."""
    return NARROW if width and width <= NARROW_UP_TO else WIDE


def features(samples: np.ndarray, spec: FeatureSpec) -> np.ndarray:
    """Log-mel of all windows side by side, the padding of the last cut off: float32 [n_mels, frames]."""
    frames = -(-len(samples) // spec.hop_length)
    windows = [samples[start:start + spec.n_samples] for start in range(0, max(1, len(samples)), spec.n_samples)]
    return np.concatenate([log_mel(window, spec) for window in windows], axis=1)[:, :frames]


def draw(samples: np.ndarray, spec: FeatureSpec, model: str, path: Path, layout: Layout = WIDE) -> Path:
    """A PNG; `spec` and `model` say whose features these are. samples: float32 [n], not empty."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with _one_at_a_time, rc_context({**dict.fromkeys(INKED, INK), "font.size": layout.font}):
        figure = Figure(figsize=(layout.width, layout.height), layout="constrained")
        FigureCanvasAgg(figure)
        wave, mel = figure.subplots(2, 1, sharex=True, height_ratios=[2, 3])
        draw_wave(wave, samples, 0.0, spec, WAVE)
        draw_mel(mel, features(samples, spec), 0.0, spec)
        _head(wave, wave.get_title(), layout)
        _head(mel, f"{mel.get_title()}, as {model} gets it", layout)
        _windows((wave, mel), len(samples) / spec.sampling_rate, spec.window_s)
        figure.savefig(path, dpi=layout.dpi, transparent=True)
    return path


def _head(axes, title: str, layout: Layout) -> None:
    axes.set_title("")
    axes.set_title(layout.wrapped(title), loc="left", fontsize=1.1 * layout.font)


def _windows(both: tuple, duration: float, window_s: float) -> None:
    """The time axis, and a dashed line between two windows."""
    for axes in both:
        for border in np.arange(window_s, duration, window_s):
            axes.axvline(border, color="#c00000", linestyle="--", linewidth=1)
    both[-1].set_xlim(0, duration)
    both[-1].set_xlabel("time (s)" + (f"; dashed: windows of {window_s:g} s" if duration > window_s else ""))
