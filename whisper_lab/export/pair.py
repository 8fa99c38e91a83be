"""The two graphs behind decoding.py's runtime interface, as the parity gates use them."""

from pathlib import Path
from typing import Any

import numpy as np

from whisper_lab import external_data, onnx_whisper
from whisper_lab.export import int8_cache, naming


def session(path: Path, threads: int | None = None):
    """An onnxruntime session on the CPU; `threads` None means all cores. Raises LabError as external_data.check."""
    external_data.check(path)
    return _open(str(path), _options(threads))


def session_of(graph: bytes, place: Path, threads: int | None = None):
    """As `session`, over the bytes of a changed copy of the graph `place`, whose weights may be in files beside that.

    Nothing is written: two programs may look into the same graphs, and their folder may be read-only.
    """
    external_data.check(place)
    return _open(graph, beside(_options(threads), place))


def beside(options, place: Path):
    """SessionOptions for a graph that is given as bytes: the files it keeps weights in are where `place` is."""
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(place.parent))
    return options


def _options(threads: int | None):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # a gate reports a failing node itself
    # A pool of memory would keep the largest shape of the sweep for good, on top of the weights.
    options.enable_cpu_mem_arena = False
    return options


def _open(graph: str | bytes, options):
    import onnxruntime

    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"], enable_fallback=0)


class GraphPair:
    """encode, step, reorder, select over an encoder and a decoder graph."""

    def __init__(self, encoder: Path, decoder: Path, threads: int | None = None, like: Any = None):
        """`like`: a runtime (TorchWhisper) whose rules, spec and tokenizer to use; only text needs them."""
        self.encoder, self.decoder = session(encoder, threads), session(decoder, threads)
        self.rules, self.spec, self.tokenizer = (getattr(like, name, None) for name in ("rules", "spec", "tokenizer"))
        inputs = {value.name: value.shape for value in self.decoder.get_inputs()}
        self.self_names = [name for name in inputs if "_self_" in name]
        self.cross_names = [name for name in inputs if "_cross" in name]
        self.int8_cross = naming.cross_scale("past") in inputs
        self.cache_shape = tuple(inputs[self.self_names[0]][1::2])  # heads, head_dim
        self.outputs = ["logits", *(name.replace("past", "present") for name in self.self_names)]

    def encode(self, features: np.ndarray) -> list[np.ndarray]:
        """float32 [audio, n_mels, n_frames] -> the cross caches [audio, heads, positions, head_dim]

        As the decoder wants them: of an _optimized pair int8, with their scales as the last array.
        """
        return self._run_encoder(features)[1:]

    def encode_all(self, features: np.ndarray) -> list[np.ndarray]:
        """The hidden states [audio, positions, d_model], and the cross caches in float32."""
        hidden, *cross = self._run_encoder(features)
        return [hidden, *(int8_cache.unpack(cross) if self.int8_cross else cross)]

    def hidden(self, features: np.ndarray) -> np.ndarray:
        """The hidden states alone: onnxruntime leaves out the cross caches, which are ten times as large."""
        return self.encoder.run([self.encoder.get_outputs()[0].name], {self.encoder.get_inputs()[0].name: features})[0]

    def _run_encoder(self, features: np.ndarray) -> list[np.ndarray]:
        return self.encoder.run(None, {self.encoder.get_inputs()[0].name: features})

    def own(self, cross: list[np.ndarray]) -> list[np.ndarray]:
        """Float32 cross caches, such as PyTorch's, as this decoder wants them."""
        return int8_cache.pack(cross) if self.int8_cross else cross

    def step(self, input_ids: np.ndarray, cross: list[np.ndarray], cache: list[np.ndarray] | None):
        """int64 [batch, sequence] -> logits [batch, sequence, vocab], caches [batch, heads, longer, head_dim]"""
        if cache is None:
            heads, width = self.cache_shape
            cache = [np.zeros((len(input_ids), heads, 0, width), np.float32)] * len(self.self_names)
        feeds = {"input_ids": input_ids, **dict(zip(self.self_names, cache, strict=True)),
                 **dict(zip(self.cross_names, cross, strict=True))}
        if self.int8_cross:
            return onnx_whisper.int8_step(self.decoder, feeds, self.decoder.get_outputs()[0].shape[-1])
        logits, *presents = self.decoder.run(self.outputs, feeds)
        return logits, presents

    def answer(self, ids: np.ndarray, prompt: int, cross: list[np.ndarray]):
        """As `step` from empty caches, but like a transcription: the first `prompt` tokens at once, then one by one.

        In int8 that matters: the first token's activations dwarf all others, and tokens that go together may have to
        share a scale with it.
        """
        logits, cache = self.step(ids[:, :prompt], cross, None)
        found = [logits]
        for i in range(prompt, ids.shape[1]):
            logits, cache = self.step(ids[:, i:i + 1], cross, cache)
            found.append(logits)
        return np.concatenate(found, axis=1), cache

    def reorder(self, cache: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
        """The self caches of these rows."""
        return [array[rows] for array in cache]

    def select(self, cross: list[np.ndarray], audios: np.ndarray) -> list[np.ndarray]:
        """The cross caches of these recordings."""
        return [array[audios] for array in cross]
