"""What is profiled: a checkpoint on a device, clips in memory, and one pass over a group of them."""

import resource
import time
from dataclasses import dataclass, field

import numpy as np

from whisper_lab import checkpoints, console, machine
from whisper_lab.checkpoints import Checkpoint
from whisper_lab.console import LabError
from whisper_lab.energy.operations import Architecture
from whisper_lab.energy.samples import Sample
from whisper_lab.energy.watched import Tally, Watched

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
    """float32, float16 or bfloat16, noted with its reason; half precision on a processor is tried first, and warned of
    where it is slower than float32."""
    dtype = wanted if wanted != "auto" else ("float16" if device == "cuda" else "float32")
    console.note("dtype", dtype, "--dtype asks for it" if wanted != "auto" else f"the usual choice on {device}")
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
    from whisper_lab.long_form import transcribe_many

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
