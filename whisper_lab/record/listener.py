"""What stands behind the Transcribe button: the graphs that 03 exported, or the checkpoint in PyTorch.

Nothing is loaded before somebody asks; then it stays. One transcription at a time: two would only share the cores.
"""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from whisper_lab import checkpoints, confidence, console, languages, names, precisions, subtitles
from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.console import LabError
from whisper_lab.decoding import AUTO, Options
from whisper_lab.features import FeatureSpec
from whisper_lab.onnx_whisper import OnnxWhisper
from whisper_lab.silence import is_silent
from whisper_lab.tokens import TokenRules
from whisper_lab.transcribe import transcribe

# First in the list of languages, where the model knows them: those of the class and those most spoken.
COMMON = ("en", "nl", "fr", "de", "es", "it", "pt", "pl", "tr", "ar", "ru", "uk", "zh", "ja", "hi")
PYTORCH = "PyTorch"
GRAPHS = "ONNX graphs, "  # followed by the precision


@dataclass(frozen=True)
class Heard:
    """A transcript for the page."""

    text: str
    how: str  # one line of Markdown: model, runtime, seconds, language
    warning: str | None = None  # where the model itself finds the text unlikely, or it goes round in a loop
    files: dict[str, str] = field(default_factory=dict)  # the same to keep: a file's ending -> what is in it


class Listener:
    """Transcribes recordings; every name in `choices()` is a way to do it."""

    def __init__(self, model: str | None, model_dir: str, language: str | None, threads: int | None):
        """model: as --model, None for the default; model_dir: where 03 wrote its graphs; language: None to detect."""
        self.model, self.model_dir, self.language, self.threads = model, Path(model_dir), language, threads
        self._opened: dict = {}
        self._found: checkpoints.Checkpoint | None = None  # behind PYTORCH, once it was looked for
        self._one_at_a_time = threading.Lock()
        self.graphs = names.chosen_name(model, model_dir)

    def _precisions(self, name: str) -> list[str]:
        return precisions.written(self.model_dir, name)

    def choices(self) -> list[str]:
        """The fastest first: the exported graphs that are there, then PyTorch, which is always."""
        return [*(GRAPHS + precision for precision in self._precisions(self.graphs)), PYTORCH]

    def spec(self) -> tuple[FeatureSpec, str]:
        """Whose features to draw, without loading or fetching a model: the exported graphs', else whisper-nano's."""
        if self._precisions(self.graphs):
            return FeatureSpec.from_folder(names.runtime_folder(self.model_dir, self.graphs)), self.graphs
        return FeatureSpec.from_folder(checkpoints.BUNDLED), "whisper-nano"

    def introduction(self) -> str:
        """What to say to the page's model, where it knows little; Markdown, empty for any other model."""
        named = names.name_for(self.model) if self.model else ""
        return confidence.knowledge_in_words(self.graphs if self._precisions(self.graphs) else named, self.language)

    def opening(self, choice: str) -> Iterator[str]:
        """Open a choice, and say what is being done; the last line stays until the text is there.

        Says nothing about what is no choice. Raises LabError as the runtimes do.
        """
        if choice not in self.choices():
            return
        if choice not in self._opened:
            if choice == PYTORCH and self._found is None:
                yield (f"Looking for {names.name_for(self._named())}; what this machine does not have is fetched "
                       "once ...")
            yield self._loading(choice)
            with self._one_at_a_time:
                self._open(choice)
        yield f"{self._opened[choice][1]}, {choice}: listening ..."

    def _loading(self, choice: str) -> str:
        """Which model is loaded, and how much that is."""
        if choice == PYTORCH:
            name, files = self._checkpoint().name, self._checkpoint().folder.glob("*")
            size = sum(path.stat().st_size for path in files if path.suffix in (".safetensors", ".bin"))
        else:
            name, pair = self.graphs, names.pair(self.model_dir, self.graphs, choice.removeprefix(GRAPHS))
            size = sum(path.stat().st_size for graph in pair.values() for path in (graph, names.sidecar(graph))
                       if path.is_file())
        return f"Loading {name}, {choice}: {size / 1e6:.0f} MB, once; then it stays loaded ..."

    def languages(self) -> list[tuple[str, str]]:
        """(name, code) of the languages to choose from, common ones first; "" before them: the model finds it.

        Those that the page's model knows; where that is not known before it is loaded, those of any Whisper.
        """
        known = self._known()
        if known == {"en"}:
            return [("English, the only one", "")]
        codes = (known or {*languages.NAMES}) | {self.language or "en"}
        common = [code for code in COMMON if code in codes]
        rest = sorted(codes - set(common), key=languages.name)
        return [("found by the model", ""), *((languages.name(code), code) for code in [*common, *rest])]

    def _known(self) -> set[str]:
        """The languages of the page's model; empty where its files are not at hand, or its choices differ in them."""
        name = names.name_for(self._named())
        if name.endswith(".en"):
            return {"en"}
        if self._precisions(self.graphs) and name == self.graphs:
            folder = names.runtime_folder(self.model_dir, name)
        else:
            folder = checkpoints.BUNDLED if name == checkpoints.BUNDLED.name else Path(self._named())
        try:
            return set(TokenRules.from_folder(folder).languages) or {"en"}
        except LabError:
            return set()

    def _named(self) -> str:
        """--model, else what stands for it."""
        return self.model or os.environ.get("WHISPER_LAB_MODEL") or checkpoints.DEFAULT

    def transcribe(self, samples: np.ndarray, choice: str, language: str | None = None) -> Heard:
        """Samples float32 [n] at 16 kHz to their text. language: None for the page's own, "" to detect it.

        Raises LabError as the runtimes do, also for a language that the model does not know.
        """
        language = self.language if language is None else language or None
        if choice not in self.choices():  # it comes from a visitor, and becomes part of a file's name
            raise LabError("that is not a way to transcribe here", f"choose one of: {', '.join(self.choices())}")
        if is_silent(samples):
            return Heard("", "silence: the model was not asked")
        with self._one_at_a_time:
            runtime, name = self._open(choice)
            started = time.perf_counter()
            found = transcribe(runtime, samples, Options(language=language, beams=AUTO))
            seconds = time.perf_counter() - started
        how = f"{name}, {choice}: {seconds:.2f} s for {len(samples) / SAMPLE_RATE:.2f} s of sound"
        model = name.split(" ")[0]  # without the remark about random weights
        doubtful = confidence.warning(found.segments, model)
        if found.language_probability is not None:
            how += f"; language {found.language}, detected"
            # Under an invented text a 1.00 would look as if it vouched for it.
            how += "" if doubtful else f" with probability {found.language_probability:.2f}"
        if doubtful:
            advice = confidence.remedy_on_page(model, language), confidence.knowledge_in_words(model, language)
            doubtful = f"{doubtful}. {' '.join(advice)}".strip()
        made = {"txt": f"{found.text}\n",
                **{kind: write(found.segments) for kind, write in subtitles.SUBTITLES.items()}}
        return Heard(found.text, how, doubtful, made if found.text else {})

    def _open(self, choice: str):
        """The runtime of a choice and its model's name; opened once."""
        if choice not in self._opened:
            started = time.perf_counter()
            self._opened[choice] = self._open_pytorch() if choice == PYTORCH else self._open_graphs(choice)
            seconds = time.perf_counter() - started
            console.note("model", f"{self._opened[choice][1]}, {choice}", f"opened in {seconds:.1f} s; it stays open")
        return self._opened[choice]

    def _open_graphs(self, choice: str):
        runtime = OnnxWhisper(self.model_dir, self.graphs, choice.removeprefix(GRAPHS), self.threads,
                              keep=True)
        return runtime, self.graphs + _warning(runtime.facts["random_weights"])

    def _open_pytorch(self):
        from whisper_lab.torch_whisper import TorchWhisper

        checkpoint = self._checkpoint()
        runtime = TorchWhisper.load(checkpoint)
        if self.threads:
            import torch

            torch.set_num_threads(self.threads)
        return runtime, checkpoint.name + _warning(checkpoint.random_weights)

    def _checkpoint(self) -> checkpoints.Checkpoint:
        """The checkpoint behind PYTORCH; looked for, and fetched where it is not here, the first time only."""
        if self._found is None:
            self._found = checkpoints.resolve(self.model)
        return self._found


def _warning(random_weights: bool) -> str:
    return " (random weights: its text means nothing)" if random_weights else ""
