"""OnnxWhisper as the gates ask it: over any two files, whether a user could open them or not, and token by token."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from whisper_lab import caches, external_data, sessions
from whisper_lab.export.on_disk import Stored
from whisper_lab.onnx_whisper import OnnxWhisper


def session(path: Path, threads: int | None = None, packed: bool = True):
    """An onnxruntime session on the CPU; `threads` None means all cores. Raises LabError as external_data.check.

    packed: weights are laid out anew for the processor; a graph that is run a few times does without the copy.
    """
    external_data.check(path)
    options = _options(threads)
    if not packed:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return _open(str(path), options)


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

    return onnxruntime.InferenceSession(graph, options, providers=sessions.CPU, enable_fallback=0,
                                        disabled_optimizers=sessions.SLOWER)


class HeardOnce(OnnxWhisper):
    """The users' runtime, whose encoder hears a window once though two gates ask: most of their time goes there.

    What `hidden_and_cross` was asked for waits on disk until `encode` fetches it.
    """

    def _connect(self, encoder, decoder) -> None:
        super()._connect(encoder, decoder)
        self._waiting: dict[bytes, Stored] = {}

    def hidden_and_cross(self, features: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """As of OnnxWhisper."""
        hidden, cross = super().hidden_and_cross(features)
        self._waiting[features.tobytes()] = Stored(cross)
        return hidden, cross

    def encode(self, features: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As of OnnxWhisper."""
        waiting = self._waiting.pop(b"".join(one.tobytes() for one in features), None)
        return waiting.read() if waiting else super().encode(features)


class Closed:
    """The names of a session's inputs and outputs, once it is closed: for OnnxWhisper around the other one alone."""

    def __init__(self, run):
        self.inputs, self.outputs = ([value.name for value in values] for values in (run.get_inputs(),
                                                                                     run.get_outputs()))

    def get_inputs(self) -> list[SimpleNamespace]:
        """As of an InferenceSession."""
        return [SimpleNamespace(name=name) for name in self.inputs]

    def get_outputs(self) -> list[SimpleNamespace]:
        """As of an InferenceSession."""
        return [SimpleNamespace(name=name) for name in self.outputs]


def open_runtime(encoder: Path, decoder: Path, threads: int | None = None, like: Any = None,
                 kind: type[OnnxWhisper] = OnnxWhisper) -> OnnxWhisper:
    """The users' runtime over two graph files; like: as of OnnxWhisper.of_sessions."""
    return kind.of_sessions(session(encoder, threads), session(decoder, threads), like)


def encode_all(runtime: OnnxWhisper, features: np.ndarray) -> list[np.ndarray]:
    """The hidden states [audio, positions, d_model], and the cross caches in float32."""
    hidden, cross = runtime.hidden_and_cross(features)
    return [hidden, *caches.to_float(cross)]


def cross_feeds(inputs: list[str], cross: list[np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch's cross caches by the names of a decoder's inputs: in int8 where it reads those."""
    wanted = [name for name in inputs if "_cross_" in name]
    return dict(zip(wanted, cross if len(wanted) == len(cross) else caches.to_int8(cross), strict=True))


def answer(runtime: OnnxWhisper, ids: np.ndarray, prompt: int, cross: list[np.ndarray]):
    """As `step` from empty caches, but like a transcription: the first `prompt` tokens at once, then one by one.

    In int8 that matters: the first token's activations dwarf all others, and tokens that go together may have to
    share a scale with it.
    """
    logits, cache = runtime.step(ids[:, :prompt], cross, None)
    found = [logits]
    for i in range(prompt, ids.shape[1]):
        logits, cache = runtime.step(ids[:, i:i + 1], cross, cache)
        found.append(logits)
    return np.concatenate(found, axis=1), cache
