"""Opens what listens: the graphs that are the fastest here, and the detector that says where someone speaks."""

import time

from whisper_lab import audio, confidence, console, names, precisions
from whisper_lab.console import LabError
from whisper_lab.onnx_whisper import OnnxWhisper
from whisper_lab.speakers import models
from whisper_lab.speakers.voice import SpeechDetector
from whisper_lab.stream.hypothesis import HOLD_UNITS


def open_graphs(model: str | None, folder: str, precision: str | None, optimized: bool, threads: int | None,
                provider: str, language: str | None) -> OnnxWhisper:
    """The runtime over the graphs that `precisions` chooses, with a note where the model is known to be weak.

    In a process of its own: it makes the shared pool of threads. Raises LabError as OnnxWhisper.
    """
    started, name = time.perf_counter(), names.chosen_name(model, folder)
    precision = precisions.choose(folder, name, precision, optimized, provider)
    runtime = OnnxWhisper(folder, name, precision, threads, optimized, shared_pool=True, provider=provider, keep=True)
    console.note("graphs", f"{name} {precision}{' optimized' * optimized}",
                 f"opened in {time.perf_counter() - started:.2f} s")
    if not runtime.has_attention:
        console.note("word times", "not in these graphs", f"the last {HOLD_UNITS} words are held back; "
                     "03 --alignment-heads: fewer, so that text comes sooner")
    confidence.tell_what_it_knows(name, language)
    return runtime


def detector(spec) -> SpeechDetector | None:
    """Silero's voice activity detector; None, with a note, where the level has to do."""
    if spec.sampling_rate != audio.SAMPLE_RATE:
        return None  # Silero hears 16 kHz
    try:
        return SpeechDetector(models.obtain("silero-vad"))
    except LabError as error:
        console.note("voice activity", "by level", f"{error.problem}; then {error.remedy}")
        return None
