"""The loop that all three trainings share: progress, a log line, resumable state, a limit in time.

A trainer has `step`, `seconds` (of training, over all runs that were resumed), `save(path)` and `load(path)`.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from whisper_lab import console


def add_arguments(parser: argparse.ArgumentParser, save_every: int, log_every: int) -> None:
    """The flags that `run` reads."""
    parser.add_argument("--max-minutes", type=float, default=math.inf, help="stop and save (default: %(default)s)")
    parser.add_argument("--save-every", type=int, default=save_every, help="steps (default: %(default)s)")
    parser.add_argument("--log-every", type=int, default=log_every, help="steps (default: %(default)s)")


def resume(trainer, state: Path) -> None:
    """Go on where a run that was stopped has left its state, if one has."""
    if state.exists():
        trainer.load(state)
        console.note("step", trainer.step, f"resumed from {state}")


def run(trainer, state: Path, args, work: Iterable, advance: Callable, names: tuple[str, ...], name: str) -> None:
    """One step for each item of `work`; advance(item) returns a value for each of `names`, whose means are logged."""
    seen, last, limit = [], time.monotonic(), trainer.seconds + 60 * args.max_minutes
    for item in console.progress(work, description=name, total=len(work), unit="step"):
        seen.append(advance(item))
        now = time.monotonic()
        trainer.seconds, last = trainer.seconds + now - last, now
        if trainer.step % args.log_every == 0:
            means = (f"{key} {float(sum(values)) / len(values):.3f}"
                     for key, values in zip(names, zip(*seen, strict=True), strict=True))
            console.log.info("step %d  %s  %.1f min", trainer.step, "  ".join(means), trainer.seconds / 60)
            seen.clear()
        if trainer.seconds > limit:
            break
        if trainer.step % args.save_every == 0:
            trainer.save(state)
    trainer.save(state)
