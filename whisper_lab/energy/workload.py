"""What is profiled, whatever the work is: clips in memory, passes over groups of them, and what a pass takes.

A Workload is one of tasks.py. It is given groups of clips again and again; each time it writes what it found into them
and returns a Tally.
"""

import dataclasses
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from whisper_lab import console, machine
from whisper_lab.audio import SAMPLE_RATE
from whisper_lab.console import LabError
from whisper_lab.energy.engine import OUT_OF_MEMORY, Engine, Tally
from whisper_lab.energy.samples import Sample


@dataclass
class Clip:
    """A sample in memory with what was measured on it; `error` where it could not be read or processed."""

    sample: Sample
    sound: np.ndarray | None = None  # float32 [n], 16 kHz
    error: str | None = None
    seconds: list[float] = field(default_factory=list)  # its share of each timed pass
    text: str | None = None
    words: list[dict] | None = None
    speakers: int | None = None  # how many were told apart; None where no one asked

    @property
    def duration(self) -> float:
        """Seconds of sound."""
        return 0.0 if self.sound is None else len(self.sound) / SAMPLE_RATE


class Workload(Protocol):
    """What 06 can profile."""

    task: str  # as --task calls it
    engine: Engine  # the Whisper in it
    model: str  # names of all its models
    parameters: int  # of all its models
    load_s: float

    def process(self, clips: Sequence[Clip]) -> Tally:
        """One pass over clips that are taken together; writes text, words and its share of the time into each."""


def load_clips(samples: Sequence[Sample]) -> list[Clip]:
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


def unmeasured(clips: Sequence[Clip]) -> list[Clip]:
    """The same clips, nothing measured yet."""
    return [dataclasses.replace(clip, seconds=[], text=None, words=None, speakers=None) for clip in clips]


def groups(clips: Sequence[Clip], size: int) -> list[list[Clip]]:
    """Clips without an error, in groups of `size` of one language."""
    made = []
    for language in dict.fromkeys(clip.sample.language for clip in clips):
        same = [clip for clip in clips if clip.sample.language == language and not clip.error]
        made += [same[i:i + size] for i in range(0, len(same), size)]
    return made


def try_pass(work: Workload, clips: Sequence[Clip]) -> Tally | None:
    """One pass over a group, or None where it failed: then its clips carry the error."""
    if any(clip.error for clip in clips):
        return None
    try:
        return work.process(clips)
    except (LabError, RuntimeError, MemoryError) as error:  # torch's out of memory is a RuntimeError
        problem = getattr(error, "problem", None) or f"{type(error).__name__}: {error}".splitlines()[0]
        remedy = getattr(error, "remedy", None) or (
            OUT_OF_MEMORY if "memory" in problem.lower() else "run it again with --log-level DEBUG")
        console.log.debug("traceback of the error below", exc_info=True)
        for clip in clips:
            clip.error = problem
        names = ", ".join(clip.sample.name for clip in clips)
        console.log.error("error: sample %s: %s\n  try: %s", names, problem, remedy)
        return None


# The timed window -----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Repeat:
    """One timed pass over all samples: when (s of the log), and what each group of samples took."""

    start: float
    end: float
    passes: list[Tally]

    @property
    def seconds(self) -> float:
        """Seconds of processing."""
        return sum(tally.seconds for tally in self.passes)


@dataclass(frozen=True)
class Window:
    """Equal repeats one after the other, with what they took from the machine; moments are s of the log."""

    size: int  # clips in a group
    clips: list[Clip]
    start: float
    end: float
    repeats: list[Repeat]
    usage: dict[str, float | int | None]  # see Usage.so_far

    @property
    def seconds(self) -> float:
        return self.end - self.start

    @property
    def tallies(self) -> list[Tally]:
        """Of every group in every repeat; empty where all samples failed."""
        return [tally for repeat in self.repeats for tally in repeat.passes]

    @property
    def audio_s(self) -> float:
        """Seconds of sound in one repeat."""
        return sum(clip.duration for clip in self.clips if not clip.error)

    @property
    def tokens(self) -> int:
        """Chosen in all repeats."""
        return sum(tally.tokens for tally in self.tallies)


class Usage:
    """Processor time and memory that this program takes, from the making of this object on."""

    def __init__(self, device: str):
        """device: cpu or cuda. The marks of the largest memory so far are forgotten."""
        self.device = device
        reset_peak_memory(device)
        self.restart()

    def restart(self) -> None:
        """Count processor time from now on."""
        self.begun, self.since = time.perf_counter(), cpu_seconds()

    def so_far(self) -> dict[str, float | int | None]:
        """`cpu_time_s`, `other_cpu_share`, `peak_rss_bytes` and `peak_gpu_bytes`."""
        return cpu_spent(self.since, time.perf_counter() - self.begun) | peak_memory(self.device)


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
