"""What stands behind the Transcribe button: the graphs that 03 exported, or the checkpoint in PyTorch.

Nothing is loaded before somebody asks; then it stays. One transcription at a time: two would only share the cores.
"""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whisper_lab import checkpoints, confidence, console, languages, transcripts
from whisper_lab import transcribe as long_form
from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.console import LabError
from whisper_lab.decoding import Options
from whisper_lab.export import naming
from whisper_lab.features import FeatureSpec
from whisper_lab.onnx_whisper import OnnxWhisper, chosen_name, graph_name
from whisper_lab.transcribe import is_silent

PYTORCH = "PyTorch"
GRAPHS = "ONNX graphs, "  # followed by the precision


@dataclass(frozen=True)
class Heard:
    """A transcript for the page."""

    text: str
    how: str  # one line of Markdown: model, runtime, seconds, language
    warning: str | None = None  # where the model itself finds the text unlikely, or it goes round in a loop
    srt: str = ""  # the same as subtitles


class Listener:
    """Transcribes recordings; every name in `choices()` is a way to do it."""

    def __init__(self, model: str | None, model_dir: str, language: str | None, threads: int | None):
        """model: as --model, None for the default; model_dir: where 03 wrote its graphs; language: None to detect."""
        self.model, self.model_dir, self.language, self.threads = model, Path(model_dir), language, threads
        self._opened: dict = {}
        self._one_at_a_time = threading.Lock()
        self.graphs = chosen_name(model, model_dir)

    def _precisions(self, name: str) -> list[str]:
        return [precision for precision in naming.PRECISIONS
                if all(path.is_file() for path in naming.pair(self.model_dir, name, precision).values())]

    def choices(self) -> list[str]:
        """The best first: the exported graphs that are there, then PyTorch, which is always."""
        return [*(GRAPHS + precision for precision in self._precisions(self.graphs)), PYTORCH]

    def spec(self) -> tuple[FeatureSpec, str]:
        """Whose features to draw, without loading or fetching a model: the exported graphs', else whisper-nano's."""
        if self._precisions(self.graphs):
            return FeatureSpec.from_folder(naming.runtime_folder(self.model_dir, self.graphs)), self.graphs
        return FeatureSpec.from_folder(checkpoints.BUNDLED), "whisper-nano"

    def introduction(self) -> str:
        """What to say to the page's model, where it knows little; Markdown, empty for any other model."""
        named = graph_name(self.model) if self.model else ""
        return confidence.knowledge_in_words(self.graphs if self._precisions(self.graphs) else named, self.language)

    def waiting(self, choice: str) -> str:
        """What the page says until the transcript is there; nothing for what is no choice."""
        if choice not in self.choices():
            return ""
        return "Listening ..." if choice in self._opened else f"Loading the model ({choice}); then it stays loaded ..."

    def languages(self) -> list[tuple[str, str]]:
        """(name, code) of every language that a Whisper knows, and the page's own; "" first: the model finds it."""
        codes = {*languages.NAMES, self.language or "en"}
        return [("found by the model", ""), *sorted((languages.name(code), code) for code in codes)]

    def transcribe(self, samples: np.ndarray, choice: str, language: str | None = None) -> Heard:
        """Samples float32 [n] at 16 kHz to their text. language: None for the page's own, "" to detect it.

        Raises LabError as the runtimes do, also for a language that the model does not know.
        """
        language = self.language if language is None else language or None
        if choice not in self.choices():  # it comes from a visitor, and becomes part of a file's name
            raise LabError("that is no way to transcribe here", f"choose one of: {', '.join(self.choices())}")
        if is_silent(samples):
            return Heard("", "silence: the model was not asked")
        with self._one_at_a_time:
            runtime, name = self._open(choice)
            started = time.perf_counter()
            found = long_form.transcribe(runtime, samples, Options(language=language))
            seconds = time.perf_counter() - started
        how = f"{name}, {choice}: {seconds:.2f} s for {len(samples) / SAMPLE_RATE:.2f} s of sound"
        model = name.split(" ")[0]  # without the remark about random weights
        doubtful = confidence.warning(found.segments, model)
        if found.language_probability is not None:
            how += f"; language {found.language}, detected"
            # Under an invented text a 1.00 would look as if it vouched for it.
            how += "" if doubtful else f" with probability {found.language_probability:.2f}"
        if doubtful:
            doubtful = f"{doubtful}. {confidence.knowledge_in_words(model, language)}".strip()
        return Heard(found.text, how, doubtful, transcripts.srt(found.segments))

    def _open(self, choice: str):
        """The runtime of a choice and its model's name; opened once."""
        if choice not in self._opened:
            started = time.perf_counter()
            self._opened[choice] = self._open_pytorch() if choice == PYTORCH else self._open_graphs(choice)
            seconds = time.perf_counter() - started
            console.note("model", f"{self._opened[choice][1]}, {choice}", f"opened in {seconds:.1f} s; it stays open")
        return self._opened[choice]

    def _open_graphs(self, choice: str):
        runtime = OnnxWhisper(self.model_dir, self.graphs, choice.removeprefix(GRAPHS), self.threads)
        return runtime, self.graphs + _warning(runtime.facts["random_weights"])

    def _open_pytorch(self):
        from whisper_lab.torch_whisper import TorchWhisper

        checkpoint = checkpoints.resolve(self.model)
        runtime = TorchWhisper.load(checkpoint)
        if self.threads:
            import torch

            torch.set_num_threads(self.threads)
        return runtime, checkpoint.name + _warning(checkpoint.random_weights)


def _warning(random_weights: bool) -> str:
    return " (random weights: its text means nothing)" if random_weights else ""
