"""Opens what listens: the graphs that are the fastest here, and the detector that says where someone speaks."""

from whisper_lab import audio, confidence, console, names, sessions
from whisper_lab.console import LabError
from whisper_lab.onnx_whisper import OnnxWhisper
from whisper_lab.speakers import models
from whisper_lab.speakers.voice import SpeechDetector


def open_graphs(model: str | None, folder: str, precision: str | None, threads: int | None, provider: str,
                language: str | None) -> OnnxWhisper:
    """The runtime over the graphs that `graphs` chooses, with a note where the model is known to be weak.

    In a process of its own: it makes the shared pool of threads. Raises LabError as OnnxWhisper.
    """
    name, precision = graphs(model, folder, precision)
    runtime = OnnxWhisper(folder, name, precision, threads, shared_pool=True, provider=provider)
    confidence.tell_what_it_knows(name, language)
    return runtime


def graphs(model: str | None, folder: str, precision: str | None) -> tuple[str, str]:
    """Name and precision of the graphs to use, with the reason in a note. None: what is not asked for.

    Raises LabError, with the command that writes them, where there are none.
    """
    name = names.chosen_name(model, folder)
    if precision:
        console.note("graphs", f"{name} {precision}", "--precision asks for it")
        return name, precision  # whether they are there is told where they are opened
    present = sessions.written(folder, name)
    if not present:
        raise LabError(f"there are no graphs of {name} in {folder}",
                       f"write them: {sessions.export_command(folder, name, 'int8')}")
    reason = "the fastest here" if present[0] == "int8" else f"no int8 pair in {folder}, which would be faster"
    console.note("graphs", f"{name} {present[0]}", reason)
    return name, present[0]


def detector(spec) -> SpeechDetector | None:
    """Silero's voice activity detector; None, with a note, where the level has to do."""
    if spec.sampling_rate != audio.SAMPLE_RATE:
        return None  # Silero hears 16 kHz
    try:
        return SpeechDetector(models.obtain("silero-vad"))
    except LabError as error:
        console.note("voice activity", "by level", f"{error.problem}; then {error.remedy}")
        return None
