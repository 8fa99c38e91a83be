"""What is profiled: a checkpoint on a device, clips in memory, and one pass over a group of them."""

import json
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from whisper_lab import checkpoints, console, machine
from whisper_lab.checkpoints import Checkpoint
from whisper_lab.console import LabError
from whisper_lab.energy.samples import Sample

# Operations -----------------------------------------------------------------------------------------------------------

# How much there is to compute, counted from the architecture: what a clock and a joule are divided by.
#
#     arch = Architecture.from_folder("whisper_model_dir/whisper-nano")
#     arch.parameters, arch.encoder_operations(), arch.decoder_operations(new=1, past=30)
#
# One multiplication with its addition counts as two operations. Counted are convolutions and matrix products
# (projections, attention, feed-forward, logits); softmax, normalization, GELU, the Fourier transform and the search are
# left out. Attention is counted in full, also what the causal mask throws away.

@dataclass(frozen=True)
class Architecture:
    """The sizes of one Whisper; names as in its config.json."""

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
            raise LabError(f"{path} does not tell the architecture: {error}", "fetch the checkpoint again") from error

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

    def encoder_operations(self) -> int:
        """For one window, with the keys and values that the decoder's cross-attention takes from it."""
        d, n = self.d_model, self.max_source_positions
        convolutions = 2 * (2 * n * 3 * self.num_mel_bins * d + n * 3 * d * d)  # the first at twice the positions
        layer = 2 * (4 * n * d * d + 2 * n * n * d + 2 * n * d * self.encoder_ffn_dim)
        return convolutions + self.encoder_layers * layer + self.decoder_layers * 2 * (2 * n * d * d)

    def decoder_operations(self, new: int, past: int) -> int:
        """For `new` tokens of one row when `past` are in the cache already."""
        d = self.d_model
        attention = 4 * d * d + 2 * (past + new) * d  # per token: four projections; scores and their sum
        cross = 2 * d * d + 2 * self.max_source_positions * d  # keys and values are there already
        layer = attention + cross + 2 * d * self.decoder_ffn_dim
        return 2 * new * (self.decoder_layers * layer + d * self.vocab_size)


# Stopwatch and counter ------------------------------------------------------------------------------------------------

# A runtime with a stopwatch and a counter around it: how long each phase takes, how many tokens and operations.

@dataclass
class Tally:
    """What happened since `Watched.begin`.

    Phases, in s: features (samples to log-mel, and cutting them into windows), encoder, decoder (prompt, tokens and the
    choice among them), words (the attention that word times are made of). tokens: chosen ones, end tokens included.
    """

    phases_s: dict[str, float] = field(default_factory=lambda: {"features": 0.0, "encoder": 0.0, "decoder": 0.0})
    first_token_s: float | None = None  # from samples to the first chosen token
    tokens: int = 0
    windows: int = 0
    calls: int = 0  # of the encoder
    operations: int = 0


class Watched:
    """A decoding.Runtime around another one."""

    def __init__(self, runtime, architecture: Architecture, fixed_tokens: int | None = None, synchronize=None):
        """fixed_tokens: the end token is forbidden, so that every window has this many (Options.max_tokens says how
        many); synchronize: called where a device may still be computing, or None."""
        self.runtime, self.architecture, self.fixed_tokens = runtime, architecture, fixed_tokens
        self.rules, self.spec, self.tokenizer = runtime.rules, runtime.spec, runtime.tokenizer
        self.synchronize = synchronize or (lambda: None)
        self.begin()

    def begin(self) -> None:
        """Start the clock and the counts anew."""
        self.synchronize()
        self.tally, self._past = Tally(), 0
        self._started = self._last = time.perf_counter()

    def encode(self, features: np.ndarray) -> Any:
        """As decoding.Runtime.encode."""
        self._lap("features")
        cross = self.runtime.encode(features)
        self.synchronize()
        self._lap("encoder")
        self.tally.windows += len(features)
        self.tally.calls += 1
        self.tally.operations += len(features) * self.architecture.encoder_operations()
        return cross

    def step(self, input_ids: np.ndarray, cross: Any, cache: Any) -> tuple[np.ndarray, Any]:
        """As decoding.Runtime.step."""
        rows, new = input_ids.shape
        asks_language = cache is None and new == 1 and bool(self.rules.languages)  # no text token is chosen from it
        self._past = 0 if cache is None else self._past
        logits, cache = self.runtime.step(input_ids, cross, cache)
        self._lap("decoder")
        self.tally.operations += rows * self.architecture.decoder_operations(new, self._past)
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


# What is profiled -----------------------------------------------------------------------------------------------------

RANDOM_TOKENS = 64  # per window, for a checkpoint that was never trained and seldom ends by itself
OUT_OF_MEMORY = "a smaller --model, --dtype float16, a smaller --batch-size, fewer samples (--num-samples 1)"


@dataclass
class Lab:
    """A loaded model and what is known about it."""

    checkpoint: Checkpoint
    runtime: Watched
    architecture: Architecture
    device: str
    dtype: str | None  # of PyTorch, such as float32; None for graphs
    load_s: float
    gpu_memory_bytes: int | None  # allocated right after loading; None without CUDA


@dataclass
class Clip:
    """A sample in memory with what was measured on it; `error` where it could not be read or transcribed."""

    sample: Sample
    sound: np.ndarray | None = None  # float32 [n], 16 kHz
    error: str | None = None
    seconds: list[float] = field(default_factory=list)  # its share of each timed pass
    text: str | None = None
    words: list[dict] | None = None

    @property
    def duration(self) -> float:
        """Seconds of sound."""
        return 0.0 if self.sound is None else len(self.sound) / 16000


def load_clips(samples: list[Sample]) -> list[Clip]:
    """Every sample read into memory, so that no disk is timed; one that cannot be read carries its error."""
    clips = []
    for sample in samples:
        clip = Clip(sample)
        try:
            clip.sound = sample.load()
        except LabError as error:
            clip.error = error.problem
            console.log.error("error: sample %s: %s\n  try: %s", sample.name, error.problem, error.remedy)
        clips.append(clip)
    return clips


def load(args, checkpoint: Checkpoint) -> Lab:
    """The checkpoint or its graphs, as the arguments ask. Raises LabError where it cannot be loaded."""
    architecture = Architecture.from_folder(checkpoint.folder)
    fixed = args.tokens
    if checkpoint.random_weights and not fixed:
        fixed = args.tokens = RANDOM_TOKENS
        console.note("tokens", f"{fixed} in every window", "random weights seldom end a text; --tokens N changes it")
    started = time.perf_counter()
    if args.backend == "onnx":
        from whisper_lab.compare.variants import known

        variant = next(one for one in known(args.model_dir, checkpoint.name) if one.name == args.precision)
        runtime, device, dtype = variant.open(args.threads), "cpu", None
        console.note("graphs", variant.name, "--precision asks for it" if args.precision != "fp32" else "the default")
    else:
        runtime, device, dtype = _load_torch(checkpoint, args)
    memory, synchronize = None, None
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
        memory, synchronize = torch.cuda.memory_allocated(), torch.cuda.synchronize
    load_s = time.perf_counter() - started
    return Lab(checkpoint, Watched(runtime, architecture, fixed, synchronize), architecture, device, dtype, load_s,
               memory)


def _load_torch(checkpoint: Checkpoint, args):
    checkpoints.import_transformers()
    import torch

    from whisper_lab.torch_whisper import TorchWhisper, choose_device

    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    dtype = choose_dtype(args.dtype, device)
    try:
        model = checkpoints.load_model(checkpoint, dtype=getattr(torch, dtype)).to(device)
    except torch.OutOfMemoryError as error:
        raise LabError(f"the GPU's memory cannot hold {checkpoint.name}", OUT_OF_MEMORY) from error
    return TorchWhisper(model, checkpoint.folder), device, dtype


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


def transcribe_group(lab: Lab, clips: list[Clip], args) -> tuple[float, Tally]:
    """One pass over clips that are decoded together; fills in their texts. Returns seconds and what happened in them.

    With --tokens every window is a recording of its own with the same number of tokens, timestamps off: the same work
    for every model and precision.
    """
    from whisper_lab.decoding import Options
    from whisper_lab.transcribe import transcribe_many

    language = args.language or clips[0].sample.language if lab.runtime.rules.languages else None
    options = Options(language=language, max_tokens=args.tokens, timestamps=False, seed=args.seed,
                      temperatures=(0.0,) if args.tokens else None)  # a second try would be other work
    size = lab.runtime.spec.n_samples
    pieces = [[clip.sound[at:at + size] for at in range(0, len(clip.sound), size)] if args.tokens else [clip.sound]
              for clip in clips]
    lab.runtime.begin()
    started = time.perf_counter()
    found = transcribe_many(lab.runtime, [piece for some in pieces for piece in some], options, words=args.timestamps,
                            batch_size=len(clips))
    seconds, tally, total = time.perf_counter() - started, lab.runtime.tally, sum(clip.duration for clip in clips)
    for clip, some in zip(clips, pieces, strict=True):
        own, found = found[:len(some)], found[len(some):]
        clip.text = " ".join(one.text for one in own)
        if args.timestamps:
            clip.words = [{"timestamp": [round(word.start, 3), round(word.end, 3)], "text": word.text} for one in own
                          for segment in one.segments for word in segment.words or []]
        clip.seconds.append(seconds * clip.duration / total)  # those decoded together share the time by their length
    return seconds, tally


def cpu_seconds() -> tuple[float, float]:
    """Processor time so far, user and system: of this program, all threads; and of every program on the machine.

    A neighbour's virtual machine (steal) counts as another program.
    """
    import psutil

    used, whole = resource.getrusage(resource.RUSAGE_SELF), psutil.cpu_times()._asdict()
    busy = sum(seconds for name, seconds in whole.items() if name not in ("idle", "iowait", "guest", "guest_nice"))
    return used.ru_utime + used.ru_stime, busy


def cpu_spent(since: tuple[float, float], duration_s: float) -> dict[str, float]:
    """`cpu_time_s` of this program since then, and `other_cpu_share`: of the machine, what others took (0 to 1)."""
    import psutil

    own, whole = (now - then for now, then in zip(cpu_seconds(), since, strict=True))
    room = (psutil.cpu_count() or 1) * duration_s
    return {"cpu_time_s": own, "other_cpu_share": min(1.0, max(0.0, whole - own) / room) if room else 0.0}


def reset_peak_memory(device: str) -> None:
    """Forget the high-water marks: the next reading is about what comes now. (Linux: proc(5), clear_refs.)"""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        pass  # elsewhere the mark stays that of the whole run
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: str) -> dict[str, int | None]:
    """`peak_rss_bytes` of this program and, with CUDA, `peak_gpu_bytes` that PyTorch allocated."""
    gpu = None
    if device == "cuda":
        import torch

        gpu = torch.cuda.max_memory_allocated()
    return {"peak_rss_bytes": machine.peak_rss_bytes(), "peak_gpu_bytes": gpu}
