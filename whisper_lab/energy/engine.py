"""Whisper with a stopwatch and a counter around it: how long each phase takes, how many tokens and operations.

    engine = open_torch(checkpoints.resolve("base"), device="auto", dtype="auto", threads=None, seed=0)
    engine = open_graphs(checkpoints.resolve("base"), "whisper_model_dir", "int8", threads=None)
    engine.runtime              # a decoding.Runtime; `begin` starts its tally, `tally` is what happened since
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from whisper_lab import checkpoints, console, precisions
from whisper_lab.checkpoints import Checkpoint
from whisper_lab.console import LabError

RANDOM_TOKENS = 64  # per window, for a checkpoint that was never trained and seldom ends by itself
OUT_OF_MEMORY = "a smaller --model, --dtype float16, a smaller --batch-size, fewer samples (--num-samples 1)"

# Operations -----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Architecture:
    """The sizes of one Whisper, named as in its config.json; from them, how much there is to compute.

    One multiplication with its addition counts as two operations. Counted are convolutions and matrix products
    (projections, attention, feed-forward, logits); softmax, normalization, GELU, the Fourier transform and the search
    are left out. Attention is counted in full, also what the causal mask throws away.
    """

    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    num_mel_bins: int
    max_source_positions: int  # encoder positions: half as many as frames
    max_target_positions: int
    vocab_size: int

    @classmethod
    def from_folder(cls, folder: str | Path) -> "Architecture":
        """Read config.json of a checkpoint. Raises LabError where it is missing or incomplete."""
        path = Path(folder) / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{name: config[name] for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError) as error:
            raise LabError(f"{path} gives no architecture: {error}", "fetch the checkpoint again") from error

    @property
    def parameters(self) -> int:
        """Weights of the model; the embedding, which also makes the logits, is counted once."""
        d, attention = self.d_model, 4 * self.d_model**2 + 3 * self.d_model  # the key projection has no bias
        encoder_layer = attention + 2 * 2 * d + self._feed_forward(self.encoder_ffn_dim)
        decoder_layer = 2 * attention + 3 * 2 * d + self._feed_forward(self.decoder_ffn_dim)
        front = (self.num_mel_bins * d * 3 + d) + (d * d * 3 + d)
        positions = (self.max_source_positions + self.max_target_positions) * d
        return (front + positions + self.encoder_layers * encoder_layer + self.decoder_layers * decoder_layer
                + self.vocab_size * d + 2 * 2 * d)

    def _feed_forward(self, width: int) -> int:
        return 2 * self.d_model * width + width + self.d_model

    def encoder_operations(self, positions: int | None = None, frames: int | None = None) -> int:
        """For one window, with the keys and values that the decoder's cross-attention takes from it.

        positions: of its layers; frames: of its convolutions, which do not see the thinned rest of a short window.
        None: the whole window.
        """
        d, n = self.d_model, self.max_source_positions if positions is None else positions
        heard = self.max_source_positions if frames is None else frames // 2
        convolutions = 2 * (2 * heard * 3 * self.num_mel_bins * d + heard * 3 * d * d)  # the first at all frames
        layer = 2 * (4 * n * d * d + 2 * n * n * d + 2 * n * d * self.encoder_ffn_dim)
        return convolutions + self.encoder_layers * layer + self.decoder_layers * 2 * (2 * n * d * d)

    def decoder_operations(self, new: int, past: int, positions: int | None = None) -> int:
        """For `new` tokens of one row when `past` are in the cache already; positions: as of encoder_operations."""
        d = self.d_model
        attention = 4 * d * d + 2 * (past + new) * d  # per token: four projections; scores and their sum
        heard = self.max_source_positions if positions is None else positions
        cross = 2 * d * d + 2 * heard * d  # keys and values are there already
        layer = attention + cross + 2 * d * self.decoder_ffn_dim
        return 2 * new * (self.decoder_layers * layer + d * self.vocab_size)


# Stopwatch and counter ------------------------------------------------------------------------------------------------

@dataclass
class Tally:
    """What happened in one pass.

    Phases of Whisper, in s: features (samples to log-mel, and cutting them into windows), encoder, decoder (prompt,
    tokens and the choice among them), words (the attention that word times are made of). tokens: chosen ones, end
    tokens included.
    """

    phases_s: dict[str, float] = field(default_factory=lambda: {"features": 0.0, "encoder": 0.0, "decoder": 0.0})
    seconds: float = 0.0  # of the whole pass
    first_token_s: float | None = None  # from samples to the first chosen token
    tokens: int = 0
    windows: int = 0
    calls: int = 0  # of the encoder
    operations: int | None = 0  # None: not counted


class Watched:
    """A decoding.Runtime around another one."""

    def __init__(self, runtime, architecture: Architecture, fixed_tokens: int | None = None, synchronize=None):
        """fixed_tokens: the end token is forbidden, so that every window has this many (Options.max_tokens says how
        many); synchronize: called where a device may still be computing, or None."""
        self.runtime, self.architecture, self.fixed_tokens = runtime, architecture, fixed_tokens
        self.rules, self.spec, self.tokenizer = runtime.rules, runtime.spec, runtime.tokenizer
        self.takes_short_windows = getattr(runtime, "takes_short_windows", False)
        self.silence_s = getattr(runtime, "silence_s", None)
        self.synchronize = synchronize or (lambda: None)
        self.begin()

    def begin(self) -> None:
        """Start the clock and all counts from 0."""
        self.synchronize()
        self.tally, self._past, self._positions = Tally(), 0, self.architecture.max_source_positions
        self._started = self._last = time.perf_counter()

    def encode(self, features: np.ndarray) -> Any:
        """As decoding.Runtime.encode."""
        self._lap("features")
        cross = self.runtime.encode(features)
        self.synchronize()
        self._lap("encoder")
        self.tally.windows += len(features)
        self.tally.calls += 1
        self._positions = cross[1].shape[2] if isinstance(cross, list) else cross.shape[1]  # values, or states
        counted = self.architecture.encoder_operations(self._positions, features.shape[2])
        self.tally.operations += len(features) * counted
        return cross

    def step(self, input_ids: np.ndarray, cross: Any, cache: Any) -> tuple[np.ndarray, Any]:
        """As decoding.Runtime.step."""
        rows, new = input_ids.shape
        asks_language = cache is None and new == 1 and bool(self.rules.languages)  # no text token is chosen from it
        self._past = 0 if cache is None else self._past
        logits, cache = self.runtime.step(input_ids, cross, cache)
        self._lap("decoder")
        self.tally.operations += rows * self.architecture.decoder_operations(new, self._past, self._positions)
        self._past += new
        if not asks_language:
            self.tally.tokens += rows
            if self.tally.first_token_s is None:
                self.tally.first_token_s = self._last - self._started
            if self.fixed_tokens:
                logits = np.array(logits)
                logits[..., self.rules.end] = -np.inf
        return logits, cache

    def attention(self, input_ids: np.ndarray, cross: Any) -> np.ndarray:
        """As decoding.Runtime.attention."""
        self.tally.phases_s.setdefault("words", 0.0)
        self._lap("decoder")
        found = self.runtime.attention(input_ids, cross)
        self._lap("words")
        return found

    def reorder(self, cache: Any, rows: np.ndarray) -> Any:
        """As decoding.Runtime.reorder."""
        return self.runtime.reorder(cache, rows)

    def select(self, cross: Any, audios: np.ndarray) -> Any:
        """As decoding.Runtime.select."""
        return self.runtime.select(cross, audios)

    def _lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.tally.phases_s[phase] += now - self._last
        self._last = now


# Whisper, loaded -----------------------------------------------------------------------------------------------------

@dataclass
class Engine:
    """A loaded Whisper and what is known about it."""

    checkpoint: Checkpoint
    runtime: Watched
    architecture: Architecture
    device: str
    dtype: str | None  # of PyTorch, such as float32; None for graphs
    precision: str  # of the graphs, else that of PyTorch
    load_s: float
    gpu_memory_bytes: int | None  # allocated right after loading; None without CUDA
    threads: int | None  # as asked for; None: all cores
    audio_context: str | float = "auto"  # how much of its window the encoder hears: short_windows.heard_frames

    @property
    def backend(self) -> str:
        """torch or onnx."""
        return "torch" if self.dtype else "onnx"

    @property
    def tokens(self) -> int | None:
        """How many tokens each window has, where that is fixed."""
        return self.runtime.fixed_tokens

    def fix_tokens(self, tokens: int | None) -> None:
        """Give every window this many tokens; None: as many as are said, but with random weights RANDOM_TOKENS."""
        if self.checkpoint.random_weights and not tokens:
            tokens = RANDOM_TOKENS
            console.note("tokens", f"{tokens} in every window", "random weights seldom end a text; --tokens N changes "
                         "it")
        self.runtime.fixed_tokens = tokens

    def gpu_uuid(self) -> str | None:
        """How NVML finds the GPU in use: CUDA_VISIBLE_DEVICES renumbers CUDA's devices only. None on a processor."""
        if self.device != "cuda":
            return None
        import torch

        return f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"


def open_graphs(checkpoint: Checkpoint, folder: str, precision: str, threads: int | None) -> Engine:
    """The graphs that 03 wrote. precision: fp32, fp16, int8, int4, or one with `_optimized`; None: the fastest there.

    Raises LabError where they are not there or cannot be opened.
    """
    from whisper_lab.onnx_whisper import OnnxWhisper

    architecture, started = Architecture.from_folder(checkpoint.folder), time.perf_counter()
    if precision:
        console.note("graphs", precision, "--precision asks for it")
    precision = precisions.choose(folder, checkpoint.name, precision)
    plain = precision.removesuffix("_optimized")
    runtime = OnnxWhisper(folder, checkpoint.name, plain, threads, plain != precision)
    return Engine(checkpoint, Watched(runtime, architecture), architecture, "cpu", None, precision,
                  time.perf_counter() - started, None, threads)


def open_torch(checkpoint: Checkpoint, device: str, dtype: str, threads: int | None, seed: int) -> Engine:
    """The checkpoint in PyTorch. device: auto, cpu or cuda; dtype: auto, float32, float16 or bfloat16.

    Raises LabError where it cannot be loaded, or where cuda is asked for and not there.
    """
    architecture, started = Architecture.from_folder(checkpoint.folder), time.perf_counter()
    checkpoints.import_transformers()
    import torch

    from whisper_lab.torch_whisper import TorchWhisper, choose_device

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    device = "cpu" if device == "cpu" else choose_device(device)
    dtype = choose_dtype(dtype, device)
    try:
        model = checkpoints.load_model(checkpoint, dtype=getattr(torch, dtype)).to(device)
    except torch.OutOfMemoryError as error:
        raise LabError(f"the GPU's memory cannot hold {checkpoint.name}", OUT_OF_MEMORY) from error
    memory, synchronize = None, None
    if device == "cuda":
        torch.cuda.synchronize()
        memory, synchronize = torch.cuda.memory_allocated(), torch.cuda.synchronize
    runtime = Watched(TorchWhisper(model, checkpoint.folder), architecture, synchronize=synchronize)
    return Engine(checkpoint, runtime, architecture, device, dtype, dtype, time.perf_counter() - started, memory,
                  threads)


def choose_dtype(wanted: str, device: str) -> str:
    """As torch_whisper has it; half precision on a processor is tried first, and warned of where it is slower than
    float32."""
    from whisper_lab import torch_whisper

    dtype = torch_whisper.choose_dtype(wanted, device)
    if device == "cpu" and dtype != "float32":
        ratio = slowdown(dtype)
        if ratio > 1.2:
            console.warn(f"{dtype} is slow on this processor: its matrix products take {ratio:.1f} times as long "
                         "as in float32; --dtype float32 is faster")
        else:
            console.note(f"{dtype} on this processor", f"{ratio:.2f} times the time of float32",
                         "measured on matrix products")
    return dtype


def slowdown(dtype: str, size: int = 512, repeats: int = 7) -> float:
    """Time of matrix products in `dtype`, as a multiple of that in float32.

    The products are a decoder's, [1, size] x [size, 4 size], and an encoder's, [size, size] x [size, 4 size]; each is
    the fastest of `repeats`, the result their geometric mean.
    """
    import torch

    def fastest(rows: int, kind) -> float:
        a, b, times = torch.ones(rows, size, dtype=kind), torch.ones(size, 4 * size, dtype=kind), []
        for _ in range(repeats):
            started = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - started)
        return min(times)

    with torch.inference_mode():
        ratios = [fastest(rows, getattr(torch, dtype)) / fastest(rows, torch.float32) for rows in (1, size)]
    return (ratios[0] * ratios[1]) ** 0.5
