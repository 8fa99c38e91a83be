"""PyTorch in a process of its own: what it hears in every clip, which the graphs are compared with, and how fast it is.

    python -m whisper_lab.compare.pytorch --model nano --model-dir whisper_model_dir --folder FOLDER media

PyTorch and transformers take more memory than two pairs of whisper-base's graphs, and give none of it back within a
process. So PyTorch comes first: it writes all its answers to FOLDER, and its process ends before a pair is opened.
"""

import contextlib
import gc
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whisper_lab import console, files, machine
from whisper_lab.compare import memory, texts, timing
from whisper_lab.compare.heard import Heard, hear, with_speech
from whisper_lab.compare.memory import Setup
from whisper_lab.compare.variants import known
from whisper_lab.console import LabError

ANSWERS, ARRAYS, PROBLEM = "answers.json", "arrays.npz", "problem.json"  # files in FOLDER
STORED = ("features", "hidden", "forced", "logits")  # arrays of heard.Heard


@dataclass(frozen=True)
class Answers:
    """All that PyTorch has to say in a comparison."""

    texts: list[str]  # of each clip
    languages: list[str | None]  # of each clip, as named or detected
    sounds: list[Heard]  # the first windows of the first clips
    rounds: tuple[list[dict], list[dict]]  # times of fp32's graphs and PyTorch's, as timing.in_turns has them
    memory: dict  # as memory.measure has it


@contextlib.contextmanager
def started(setup: Setup, clips: list[str], repeats: int) -> Iterator[Callable[[], Answers]]:
    """Let a fresh process hear these sound files and folders; gives a function that waits for its answers.

    repeats: how many rounds are timed. The function raises LabError where the process fails, with its own words.
    """
    with tempfile.TemporaryDirectory(prefix="whisper-lab-pytorch-") as folder:
        command = [sys.executable, "-m", "whisper_lab.compare.pytorch", "--folder", folder, "--quiet",
                   "--repeats", str(repeats), *setup.flags(clips)]
        with subprocess.Popen(command, env=machine.child_environment()) as process:
            try:
                yield lambda: _wait(process, Path(folder))
            finally:
                process.kill()  # nothing where it has ended; where 04 stopped before, no one waits for it


def _wait(process: subprocess.Popen, folder: Path) -> Answers:
    status = process.wait()
    if (problem := folder / PROBLEM).is_file():
        raise LabError(**files.read_json(problem))
    if status:
        raise LabError(f"PyTorch's process stopped with status {status}",
                       "see its own message above; where there is none, memory may have run out")
    return _read(folder)


def answer(setup: Setup, paths: list[str], repeats: int) -> Answers:
    """Load PyTorch here, transcribe all clips, keep the numbers of the first windows, time it beside fp32's graphs."""
    from whisper_lab import checkpoints

    clips = texts.read_clips(paths, None, setup.language)
    checkpoint = checkpoints.resolve(setup.model)
    runtime, used = memory.first_window(lambda: memory.load_pytorch(checkpoint, setup.threads), clips[0].samples,
                                        setup.language)
    found = texts.hear(runtime, clips)
    languages = [clip.language for clip in texts.with_languages(clips, [one.language for one in found])]
    sounds = [hear(runtime, clips[i].name, clips[i].samples, languages[i])
              for i in with_speech([clip.samples[:runtime.spec.n_samples] for clip in clips])]
    rounds: tuple = [], []
    if repeats:
        gc.collect()  # the checkpoint's own copy, where it was stored in half precision: it refers to itself
        machine.give_back_memory()
        base = known(setup.model_dir, checkpoint.name)[0].open(setup.threads)
        rounds = timing.in_turns(base, runtime, sounds[0], repeats)
    return Answers([one.text for one in found], languages, sounds, rounds, used)


def _write(folder: Path, said: Answers) -> None:
    np.savez(folder / ARRAYS, **{f"{key}_{i}": getattr(heard, key) for i, heard in enumerate(said.sounds)
                                for key in STORED})
    files.write_json(folder / ANSWERS, {
        "texts": said.texts, "languages": said.languages, "rounds": said.rounds, "memory": said.memory,
        "heard": [{"clip": heard.clip, "prompt_length": heard.prompt_length} for heard in said.sounds]})


def _read(folder: Path) -> Answers:
    said = files.read_json(folder / ANSWERS)
    with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
        sounds = [Heard(**heard, **{key: arrays[f"{key}_{i}"] for key in STORED})
                  for i, heard in enumerate(said["heard"])]
    return Answers(said["texts"], said["languages"], sounds, tuple(said["rounds"]), said["memory"])


def main(argv: list[str] | None = None) -> int:
    """Answer; an error that a user can act on goes to the process that waits, which shows it."""
    args, setup = memory.arguments(
        __doc__, argv, ("--repeats", {"type": int, "default": 6, "metavar": "N", "help": "timed rounds (default: 6)"}),
        ("--folder", {"required": True, "metavar": "DIR", "help": "where to write"}))
    try:
        _write(Path(args.folder), answer(setup, args.audio, args.repeats))
    except LabError as error:
        files.write_json(Path(args.folder) / PROBLEM, {"problem": error.problem, "remedy": error.remedy})
        return 1
    return 0


if __name__ == "__main__":
    console.run(main)
