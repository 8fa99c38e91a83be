"""Whisper from two ONNX graphs, with onnxruntime, NumPy, tokenizers and soundfile/soxr alone: no torch.

    python -m whisper_lab.onnx_whisper clip.wav --model nano --precision int8
    python -m whisper_lab.onnx_whisper lecture.mp3 --model base --format srt > lecture.srt

    runtime = OnnxWhisper("whisper_model_dir", "whisper-nano", "int8")
    print(long_form.transcribe(runtime, audio.load("speech.wav").samples).text)

The same small interface as torch_whisper.py: the token rules, the search and the windows are shared, so what differs
between the two are the numbers alone.
"""

import os
from pathlib import Path

import numpy as np

from whisper_lab import checkpoints, console, content, int8_decoder
from whisper_lab.console import LabError
from whisper_lab.export import naming
from whisper_lab.features import FeatureSpec
from whisper_lab.onnx_session import begin_checks, check_runtime_files, export_command, find_pair, open_pair
from whisper_lab.tokens import TokenRules

NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8,
               "tensor(uint8)": np.uint8}
RUNTIME_FILES = ("config.json", "preprocessor_config.json", "generation_config.json", "tokenizer.json")


class OnnxWhisper:
    """Two onnxruntime sessions behind the interface of decoding.Runtime.

    Arrays go in and come out without a copy: onnxruntime computes on NumPy's memory and hands out its own.
    """

    def __init__(self, folder: str | Path = "whisper_model_dir", name: str = "whisper-nano", precision: str = "fp32",
                 threads: int | None = None, optimized: bool = False, shared_pool: bool = False, verify: bool = True):
        """folder, name, precision: as 03 wrote them; threads: None takes all cores; shared_pool: one pool of threads
        for this whole process, a little faster where nobody else in it uses onnxruntime; verify: refuse files that
        have changed since 03 wrote them.

        Raises LabError where a file is missing, cannot be read, has changed, or does not belong to the others.
        """
        self.command = export_command(folder, name, precision, optimized)
        paths = find_pair(folder, name, precision, optimized)  # without graphs the files beside them say nothing
        checks = begin_checks(paths) if verify else {}  # hashed while the tokenizer is read
        files = naming.runtime_folder(folder, name)
        if verify:
            content.check_files(files, RUNTIME_FILES, content.sealed(paths["decoder"]) is not None, self.command)
        self._read_runtime_files(files)
        self.encoder, self.decoder, self.facts = open_pair(folder, name, precision, optimized, threads,
                                                           shared_pool, checks)
        check_runtime_files(self.facts, self.rules, self.spec, files, self.command)
        try:
            self._read_signature()
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise LabError(f"the graphs of {name} have other inputs and outputs than 03 gives them: {error}",
                           f"write both again: {self.command}") from error

    def _read_runtime_files(self, files: Path) -> None:
        """What the checkpoint says of tokens and sound."""
        from tokenizers import Tokenizer

        try:
            self.tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
            self.rules, self.spec = TokenRules.from_folder(files, self.tokenizer), FeatureSpec.from_folder(files)
        except Exception as error:  # tokenizers raises a bare Exception for a file it cannot read
            raise LabError(f"the graphs' runtime files cannot be read: {getattr(error, 'problem', error)}",
                           f"write them again: {self.command}") from error

    def _read_signature(self) -> None:
        """Which output feeds which input: names alone tell, `present_x` of one call is `past_x` of the next."""
        inputs = {value.name: value for value in self.decoder.get_inputs()}
        past = [name for name in inputs if name.startswith("past_")]
        made = [value.name for value in self.encoder.get_outputs() if value.name.replace("present", "past", 1) in past]
        self._features = self.encoder.get_inputs()[0].name
        self.cross_outputs = made
        self._cross_inputs = [name.replace("present", "past", 1) for name in made]
        self._self_inputs = [name for name in past if name not in self._cross_inputs]
        self._self_outputs = [name.replace("past", "present", 1) for name in self._self_inputs]
        self._int8_cross = naming.cross_scale("past") in inputs  # then the last array of `cross` holds the scales
        self._empty = [((inputs[name].shape[1], 0, inputs[name].shape[3]), NUMPY_TYPES[inputs[name].type])
                       for name in self._self_inputs]

    @property
    def takes_short_windows(self) -> bool:
        """Whether the encoder hears windows of any length, or always the whole one."""
        return not isinstance(self.encoder.get_inputs()[0].shape[2], int)

    @property
    def has_attention(self) -> bool:
        """Whether the decoder was exported with --alignment-heads, which word timestamps need."""
        return any(output.name == "cross_attention" for output in self.decoder.get_outputs())

    def encode(self, features: np.ndarray) -> list[np.ndarray]:
        """float32 [audio, n_mels, n_frames] -> per layer key and value [audio, heads, positions, head_dim]"""
        return self.encoder.run(self.cross_outputs, {self._features: np.ascontiguousarray(features)})

    def step(self, input_ids: np.ndarray, cross: list[np.ndarray], cache: list[np.ndarray] | None
             ) -> tuple[np.ndarray, list[np.ndarray]]:
        """int64 [batch, sequence] -> float32 logits [batch, sequence, vocab] and self caches longer by sequence.

        batch = audio x beams; the cross caches are those of the audios, so beams share them.
        """
        if self._int8_cross:
            return int8_decoder.step(self.decoder, self.feeds(input_ids, cross, cache), self.rules.vocab_size)
        logits, *cache = self.decoder.run(["logits", *self._self_outputs], self.feeds(input_ids, cross, cache))
        return logits, cache

    def feeds(self, input_ids: np.ndarray, cross: list[np.ndarray], cache: list[np.ndarray] | None) -> dict:
        """The decoder's inputs by name; arguments as of `step`."""
        if cache is None:
            cache = [np.zeros((len(input_ids), *shape), dtype) for shape, dtype in self._empty]
        return {"input_ids": np.ascontiguousarray(input_ids), **dict(zip(self._self_inputs, cache, strict=True)),
                **dict(zip(self._cross_inputs, cross, strict=True))}

    def reorder(self, cache: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
        """The self caches of these rows."""
        return _rows(cache, rows)

    def select(self, cross: list[np.ndarray], audios: np.ndarray) -> list[np.ndarray]:
        """The cross caches of these audios."""
        return _rows(cross, audios)

    def attention(self, input_ids: np.ndarray, cross: list[np.ndarray]) -> np.ndarray:
        """Cross-attention weights of the alignment heads for one audio: float32 [heads, sequence, positions].

        Raises LabError where the graph has no such output.
        """
        if not self.has_attention:
            raise LabError("this decoder has no output cross_attention, which word timestamps are made of",
                           f"write it with one: {self.command} --alignment-heads")
        return self.decoder.run(["cross_attention"], self.feeds(input_ids, cross, None))[0][0]


def _rows(arrays: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
    """arrays[rows] on the first axis; neighbours in their order are a view, so that nothing is copied."""
    rows = np.asarray(rows, np.int64)
    if len(rows) and (np.diff(rows) == 1).all():
        return [array[rows[0]:rows[-1] + 1] for array in arrays]
    return [np.take(array, rows, axis=0) for array in arrays]


# Names ---------------------------------------------------------------------------------------------------------------

def graph_name(model: str) -> str:
    """`nano`, `openai/whisper-base` or a folder -> the name in the graphs' file names, as 03 chose it."""
    return checkpoints.name_for(model)


def chosen_name(model: str | None, folder: str | Path) -> str:
    """The name in the graphs' file names: `model`, else $WHISPER_LAB_MODEL, else base, else nano.

    nano stands in for base where nobody named a model and `folder` holds no graph of base; that is noted.
    """
    named = model or os.environ.get("WHISPER_LAB_MODEL")
    name = graph_name(named or checkpoints.DEFAULT)
    if named or any(Path(folder).glob(f"{name}_*.onnx")):
        return name
    console.note("graphs", "of whisper-nano", f"no graphs of {name}, the default, in {folder}")
    return "whisper-nano"


if __name__ == "__main__":
    from whisper_lab.onnx_cli import main

    console.run(main)
