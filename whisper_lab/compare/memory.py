"""One variant in a process of its own: how long until it can work, and how much memory it takes.

    python -m whisper_lab.compare.memory --variant int8 --model-dir whisper_model_dir --model nano speech.wav

Memory never goes back to the system within a process, and what one variant has loaded, the next would find: so each
gets a fresh one. Prints one line of JSON.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whisper_lab import console, flags, machine
from whisper_lab.compare.variants import PYTORCH, known
from whisper_lab.console import LabError
from whisper_lab.machine import peak_rss_bytes

TOKENS = 48  # that are decoded at most


@dataclass(frozen=True)
class Setup:
    """What a fresh process has to know: the checkpoint, its graphs, and how to run them."""

    model: str | None  # as on the command line; None: the usual one
    model_dir: str | Path
    threads: int | None = None  # None: all cores
    language: str | None = None  # None: detect

    def flags(self, clips: list) -> list[str]:
        """As the command line of such a process, which `arguments` reads."""
        return ["--model-dir", str(self.model_dir), *(["--model", self.model] if self.model else []),
                *(["--threads", str(self.threads)] if self.threads else []),
                *(["--language", self.language] if self.language else []), *map(str, clips)]


def arguments(description: str, argv: list[str] | None, *others: tuple[str, dict]) -> tuple[argparse.Namespace, Setup]:
    """The command line of a fresh process: `others` are its own flags and their options."""
    parser = flags.parser(description, "audio", "model", "model_dir", "language", "threads", "quiet", "log_level")
    for flag, options in others:
        parser.add_argument(flag, **options)
    args = flags.parse(parser, argv)
    return args, Setup(args.model, args.model_dir, args.threads, args.language)


def measure(variant: str, setup: Setup, clip: Path) -> dict:
    """Start a fresh process for one variant; returns what it measured. Raises LabError where it fails."""
    command = [sys.executable, "-m", "whisper_lab.compare.memory", "--variant", variant, "--quiet",
               *setup.flags([clip])]
    done = subprocess.run(command, capture_output=True, text=True, env=machine.child_environment())
    if done.returncode:
        raise LabError(f"measuring {variant} in a process of its own failed: {done.stderr.strip()[-300:]}",
                       "leave memory out with --no-memory")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure_here(variant: str, setup: Setup, clip: Path) -> dict:
    """Open the variant in this process and transcribe the first window of the clip."""
    from whisper_lab import audio, checkpoints

    sound, checkpoint = audio.load(clip), checkpoints.resolve(setup.model)
    if variant == PYTORCH:
        return first_window(lambda: load_pytorch(checkpoint, setup.threads), sound.samples, setup.language)[1]
    pair = next(one for one in known(setup.model_dir, checkpoint.name) if one.name == variant)
    return first_window(lambda: pair.open(setup.threads), sound.samples, setup.language)[1]


def load_pytorch(checkpoint, threads: int | None):
    """A TorchWhisper; threads: None takes all cores."""
    import torch

    from whisper_lab.torch_whisper import TorchWhisper

    if threads:
        torch.set_num_threads(threads)
    return TorchWhisper.load(checkpoint)


def first_window(opened: Callable[[], Any], samples: np.ndarray, language: str | None) -> tuple[Any, dict]:
    """Open a runtime and let it hear a window, as the first work of this process: (runtime, what that took)."""
    from whisper_lab.decoding import Options, decode
    from whisper_lab.features import log_mel

    started = time.perf_counter()
    runtime = opened()
    loaded, after_load = time.perf_counter(), peak_rss_bytes()
    features = log_mel(samples[:runtime.spec.n_samples], runtime.spec)[None]
    decode(runtime, features, Options(language=language, max_tokens=TOKENS))
    return runtime, {"load_s": round(loaded - started, 3), "first_window_s": round(time.perf_counter() - loaded, 3),
                     "rss_after_load_bytes": after_load, "peak_rss_bytes": peak_rss_bytes()}


def main(argv: list[str] | None = None) -> int:
    """Measure one variant and print it."""
    args, setup = arguments(__doc__, argv, ("--variant", {
        "required": True, "help": "pytorch, fp32, fp16, int8, int4 or int8_optimized"}))
    console.result(json.dumps(measure_here(args.variant, setup, Path(args.audio[0]))))
    return 0


if __name__ == "__main__":
    console.run(main)
