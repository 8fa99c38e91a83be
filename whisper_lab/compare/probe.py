"""One variant in a process of its own: how long until it can work, and how much memory it takes.

    python -m whisper_lab.compare.probe --variant int8 --model-dir whisper_model_dir --model nano speech.wav

Memory never goes back to the system within a process, and what one variant loaded, the next would find: so each gets a
fresh one. Prints one line of JSON.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from whisper_lab import console, machine
from whisper_lab.compare.variants import PYTORCH, known
from whisper_lab.console import LabError
from whisper_lab.machine import peak_rss_bytes


def run(variant: str, args, clip: Path) -> dict:
    """Start a fresh process for one variant and return what it measured. Raises LabError where it fails."""
    command = [sys.executable, "-m", "whisper_lab.compare.probe", "--variant", variant, "--quiet",
               *options(args, [clip])]
    done = subprocess.run(command, capture_output=True, text=True, env=machine.child_environment())
    if done.returncode:
        raise LabError(f"measuring {variant} in a process of its own failed: {done.stderr.strip()[-300:]}",
                       "leave memory out with --no-memory")
    return json.loads(done.stdout.strip().splitlines()[-1])


def options(args, clips: list) -> list[str]:
    """What a process that 04 starts is told of 04's own command line."""
    return ["--model-dir", str(args.model_dir), *(["--model", args.model] if args.model else []),
            *(["--threads", str(args.threads)] if args.threads else []),
            *(["--language", args.language] if args.language else []), *map(str, clips)]


def measure(args) -> dict:
    """Open the variant, transcribe the first window of the clip."""
    from whisper_lab import audio, checkpoints

    sound = audio.load(Path(args.audio[0]))
    checkpoint = checkpoints.resolve(args.model)
    if args.variant == PYTORCH:
        return first_window(lambda: load_pytorch(checkpoint, args.threads), sound.samples, args.language)[1]
    variant = next(one for one in known(args.model_dir, checkpoint.name) if one.name == args.variant)
    return first_window(lambda: variant.open(args.threads), sound.samples, args.language)[1]


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
    decode(runtime, features, Options(language=language, max_tokens=48))
    return runtime, {"load_s": round(loaded - started, 3), "first_window_s": round(time.perf_counter() - loaded, 3),
                     "rss_after_load_bytes": after_load, "peak_rss_bytes": peak_rss_bytes()}


def main(argv: list[str] | None = None) -> int:
    """Measure one variant and print it."""
    parser = console.parser(__doc__, "model", "audio", "language", "threads", "quiet", "log_level")
    parser.add_argument("--variant", required=True, help="pytorch, fp32, fp16, int8, int4 or int8_optimized")
    parser.add_argument("--model-dir", default="whisper_model_dir", metavar="DIR", help="(default: %(default)s)")
    console.result(json.dumps(measure(console.parse(parser, argv))))
    return 0


if __name__ == "__main__":
    console.run(main)
