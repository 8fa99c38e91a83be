"""Whisper from two ONNX graphs, with onnxruntime, NumPy and soundfile/soxr alone (tokenizers for a prompt): no torch.

    python -m whisper_lab clip.wav --model nano --precision int8
    python -m whisper_lab lecture.mp3 --model base --format srt > lecture.srt

    runtime = OnnxWhisper("whisper_model_dir", "whisper-nano", "int8")
    print(transcribe.transcribe(runtime, audio.load("speech.wav").samples).text)

The same small interface as torch_whisper.py: the token rules, the search and the windows are shared, so what differs
between the two are the numbers alone. How graphs are opened is in sessions.py.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from whisper_lab import caches, console, names, openvino, prepared, seals, sessions
from whisper_lab.console import LabError
from whisper_lab.features import FeatureSpec
from whisper_lab.tokenizer import TABLE, Tokenizer
from whisper_lab.tokens import TokenRules

NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8,
               "tensor(uint8)": np.uint8}
RUNTIME_FILES = ("config.json", "preprocessor_config.json", "generation_config.json", "tokenizer.json")


def runtime_files(folder: Path) -> tuple[str, ...]:
    """What is read beside the graphs in `folder`; an earlier 03 wrote no table of tokens."""
    return (*RUNTIME_FILES, TABLE) if (folder / TABLE).is_file() else RUNTIME_FILES


class OnnxWhisper:
    """Two onnxruntime sessions behind the interface of decoding.Runtime.

    Arrays go in and come out without a copy: onnxruntime computes on NumPy's memory and hands out its own.
    """

    lanes = 1  # threads that may decode with it at once: see lanes.py

    def __init__(self, folder: str | Path = names.MODEL_DIR, name: str = "whisper-nano", precision: str = "fp32",
                 threads: int | None = None, optimized: bool = False, shared_pool: bool = False, verify: bool = True,
                 provider: str = "cpu", keep: bool = False, lanes: int = 1):
        """folder, name, precision: as 03 wrote them; threads: None takes all cores; shared_pool: one pool of threads
        for this whole process, a little faster where nobody else in it uses onnxruntime; verify: refuse files that
        have changed since 03 wrote them; provider: `openvino` takes the float32 encoder and runs it there; keep: what
        onnxruntime prepares of the graphs, so that the next start takes less time (prepared.py); lanes: several decode
        long recordings on as many threads, in place of `threads` that share each operator (lanes.py). There are none on
        OpenVINO, nor in a process that has a shared pool already: `lanes` is 1 then.

        Raises LabError where a file is missing, cannot be read, has changed, or does not belong to the others, and
        where the provider is not installed.
        """
        if provider == "openvino":
            openvino.require()
            openvino.tell(precision, optimized)
        self.command = sessions.export_command(folder, name, precision, optimized, provider)
        # Found first: without graphs the files beside them say nothing.
        paths = sessions.find_pair(folder, name, precision, optimized, provider)
        keeps = keep and verify and provider == "cpu"  # what does not run here is prepared elsewhere
        kept = {part: prepared.find(path) for part, path in paths.items()} if keeps else {}
        checks = sessions.begin_checks(paths, kept) if verify else {}  # hashed while the tokenizer is read
        files = names.runtime_folder(folder, name)
        if provider == "cpu" and lanes > 1 and not sessions.has_pool():
            self.lanes, threads, shared_pool = lanes, 1, False
        if verify:
            seals.check_files(files, runtime_files(files), seals.sealed(paths["decoder"]) is not None, self.command)
        self._read_runtime_files(files)
        encoder, decoder, self.facts = sessions.open_pair(folder, name, precision, optimized, threads, shared_pool,
                                                          checks, provider, kept)
        sessions.check_runtime_files(self.facts, self.rules, self.spec, files, self.command)
        if self.tokenizer.lines not in (None, self.rules.vocab_size):  # the rest would be missing in the text
            raise LabError(f"{files / TABLE} has {console.count(self.tokenizer.lines, 'token')}, the model "
                           f"{self.rules.vocab_size}",
                           f"write it again: {self.command}")
        try:
            self._connect(encoder, decoder)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise LabError(f"the graphs of {name} have other inputs and outputs than 03 gives them: {error}",
                           f"write both again: {self.command}") from error

    @classmethod
    def of_sessions(cls, encoder, decoder, like=None) -> "OnnxWhisper":
        """The same runtime over two sessions that are already open, such as graphs that 03 has yet to check.

        like: the runtime whose rules, spec and tokenizer it takes; None: it computes numbers and knows no text.
        """
        made = cls.__new__(cls)
        made.rules, made.spec, made.tokenizer = (getattr(like, key, None) for key in ("rules", "spec", "tokenizer"))
        made._connect(encoder, decoder)
        return made

    def _read_runtime_files(self, files: Path) -> None:
        """What the checkpoint says of tokens and sound."""
        try:
            self.tokenizer = Tokenizer.from_folder(files, f"write them again: {self.command}")
            self.rules, self.spec = TokenRules.from_folder(files, self.tokenizer), FeatureSpec.from_folder(files)
        except LabError as error:
            raise LabError(f"the graphs' runtime files cannot be read: {error.problem}",
                           f"write them again: {self.command}") from error

    def _connect(self, encoder, decoder) -> None:
        """Which output feeds which input: names alone tell, `present_x` of one call is `past_x` of the next."""
        self.encoder, self.decoder = encoder, decoder
        inputs = {value.name: value for value in self.decoder.get_inputs()}
        past = [name for name in inputs if name.startswith("past_")]
        made = [value.name for value in self.encoder.get_outputs()]
        self._features, self._hidden = self.encoder.get_inputs()[0].name, made[0]
        self._cross_inputs = [name for name in past if "_cross_" in name]
        wanted = [name.replace("past", "present", 1) for name in self._cross_inputs]
        self.cross_outputs = [name for name in wanted if name in made]
        self._self_inputs = [name for name in past if name not in self._cross_inputs]
        self._self_outputs = [name.replace("past", "present", 1) for name in self._self_inputs]
        if unknown := [name for name in past if len(inputs[name].shape) != 4]:  # scales of an older lab's int8 caches
            raise ValueError(", ".join(unknown))
        self._empty = [((inputs[name].shape[1], 0, inputs[name].shape[3]), NUMPY_TYPES[inputs[name].type])
                       for name in self._self_inputs]

    @property
    def takes_short_windows(self) -> bool:
        """Whether the encoder hears windows of any length, or always the whole one."""
        return not isinstance(self.encoder.get_inputs()[0].shape[2], int)

    @property
    def mixes_lengths(self) -> bool:
        """Whether windows of different lengths can be decoded together: int8 caches know where each one ends."""
        return any("_key_sum_" in name for name in self._cross_inputs)

    @property
    def silence_s(self) -> float | None:
        """How much silence a shorter window needs behind the sound, as 03 found it; None: it has to be whole."""
        found = getattr(self, "facts", {}).get("silence_s")
        return float(found) if type(found) in (int, float) and 0 <= found < float("inf") else None

    @property
    def described(self) -> dict:
        """Which graphs these are, for documents."""
        return {"name": self.facts["model"], **{key: self.facts[key] for key in (
            "revision", "random_weights", "weights_sha256", "precision", "optimized", "provider")}}

    @property
    def has_attention(self) -> bool:
        """Whether the decoder was exported with --alignment-heads, which word timestamps need."""
        return any(output.name == "cross_attention" for output in self.decoder.get_outputs())

    def encode(self, features: Sequence[np.ndarray]) -> list[np.ndarray]:
        """float32 [audio, n_mels, frames] -> per layer key and value [audio, heads, positions, head_dim]; of the
        optimized pair in int8, as caches.py says. Where it `mixes_lengths`, each may have its own number of frames.

        One window after the other: several in one run take as long, and as much more memory.
        """
        first = self._encode_one(features[0])
        if len(features) == 1:
            return self._as_read(first)
        if len({one.shape for one in features}) > 1:
            rest = (self._encode_one(one) for one in features[1:])
            return caches.side_by_side([self._as_read(cross) for cross in (first, *rest)])
        made = [np.empty((len(features), *array.shape[1:]), array.dtype) for array in first]
        for whole, array in zip(made, first, strict=True):
            whole[0] = array[0]
        for i in range(1, len(features)):
            self._encode_into(features[i][None], [array[i:i + 1] for array in made])
        return self._as_read(made)

    def _encode_one(self, features: np.ndarray) -> list[np.ndarray]:
        """float32 [n_mels, frames] -> cross caches of one audio."""
        return self.encoder.run(self.cross_outputs, {self._features: np.ascontiguousarray(features[None])})

    def _as_read(self, cross: list[np.ndarray]) -> list[np.ndarray]:
        """Cross caches as the decoder reads them; float ones, of another encoder or of PyTorch, are rounded for one
        that reads int8."""
        return cross if len(cross) == len(self._cross_inputs) else caches.to_int8(cross)

    def _encode_into(self, features: np.ndarray, places: list[np.ndarray]) -> None:
        """One window's caches, written where they are to be instead of copied there."""
        bound = self.encoder.io_binding()
        bound.bind_cpu_input(self._features, np.ascontiguousarray(features))
        for name, place in zip(self.cross_outputs, places, strict=True):
            bound.bind_output(name, "cpu", 0, place.dtype, place.shape, place.ctypes.data)
        self.encoder.run_with_iobinding(bound)

    def hidden_states(self, features: np.ndarray) -> np.ndarray:
        """float32 [audio, n_mels, n_frames] -> what the encoder ends with [audio, positions, d_model]"""
        return self.encoder.run([self._hidden], {self._features: np.ascontiguousarray(features)})[0]

    def hidden_and_cross(self, features: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Both that `hidden_states` and `encode` give, from one run of the encoder."""
        hidden, *cross = self.encoder.run([self._hidden, *self.cross_outputs],
                                          {self._features: np.ascontiguousarray(features)})
        return hidden, cross

    def step(self, input_ids: np.ndarray, cross: list[np.ndarray], cache: list[np.ndarray] | None
             ) -> tuple[np.ndarray, list[np.ndarray]]:
        """int64 [batch, sequence] -> float32 logits [batch, sequence, vocab] and self caches longer by sequence.

        batch = audio x beams; the cross caches are those of the audios, so beams share them.
        """
        logits, *cache = self.decoder.run(["logits", *self._self_outputs], self.feeds(input_ids, cross, cache))
        return logits, cache

    def feeds(self, input_ids: np.ndarray, cross: list[np.ndarray], cache: list[np.ndarray] | None) -> dict:
        """The decoder's inputs by name; arguments as of `step`."""
        if cache is None:
            cache = [np.zeros((len(input_ids), *shape), dtype) for shape, dtype in self._empty]
        return {"input_ids": np.ascontiguousarray(input_ids), **dict(zip(self._self_inputs, cache, strict=True)),
                **dict(zip(self._cross_inputs, self._as_read(cross), strict=True))}

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


if __name__ == "__main__":  # the command line's older name
    import runpy

    runpy.run_module("whisper_lab", run_name="__main__")
