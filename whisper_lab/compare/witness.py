"""PyTorch in a process of its own: what it hears in every clip, which the graphs are held against, and how fast it is.

    python -m whisper_lab.compare.witness --model nano --model-dir whisper_model_dir --folder FOLDER media

PyTorch and transformers take more memory than two pairs of whisper-base's graphs, and give none of it back within a
process. So it says everything at the beginning, in FOLDER, and its process ends before the first pair is opened.
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
from whisper_lab.compare import numbers, probe, texts, timing
from whisper_lab.compare.variants import known
from whisper_lab.console import LabError

SAID, HEARD, PROBLEM = "said.json", "heard.npz", "problem.json"
ARRAYS = ("features", "hidden", "forced", "logits")


@dataclass(frozen=True)
class Testimony:
    """All that PyTorch has to say for a comparison."""

    texts: list[str]  # of each clip
    languages: list[str | None]  # of each clip, as named or detected
    sounds: list[numbers.Heard]  # the first windows of the first clips
    rounds: tuple[list[dict], list[dict]]  # times of fp32's graphs and PyTorch's, as timing.in_turns has them
    memory: dict  # as probe.run has it


@contextlib.contextmanager
def asked(args) -> Iterator[Callable[[], Testimony]]:
    """Let a fresh process hear the clips of 04's command line; gives a function that waits for what it says.

    That raises LabError where the process fails, with its own words.
    """
    with tempfile.TemporaryDirectory(prefix="whisper-lab-pytorch-") as folder:
        command = [sys.executable, "-m", "whisper_lab.compare.witness", "--folder", folder, "--quiet",
                   "--repeats", str(args.repeats), *probe.options(args, args.audio)]
        with subprocess.Popen(command, env=machine.child_environment()) as process:
            try:
                yield lambda: _answer(process, Path(folder))
            finally:
                process.kill()  # nothing where it has ended; where 04 stopped before, no one waits for it


def _answer(process: subprocess.Popen, folder: Path) -> Testimony:
    status = process.wait()
    if (problem := folder / PROBLEM).is_file():
        raise LabError(**files.read_json(problem))
    if status:
        raise LabError(f"PyTorch's process stopped with status {status}",
                       "see its own message above; where there is none, memory may have run out")
    return _read(folder)


def testify(args) -> None:
    """Load PyTorch, transcribe, listen, and be timed beside fp32's graphs; writes all of it to --folder."""
    from whisper_lab import checkpoints

    clips = texts.load(args.audio, None, args.language)
    checkpoint = checkpoints.resolve(args.model)
    reference, memory = probe.first_window(lambda: probe.load_pytorch(checkpoint, args.threads), clips[0].samples,
                                           args.language)
    found = texts.transcribe(reference, clips)
    languages = [clip.language for clip in texts.with_languages(clips, [one.language for one in found])]
    sounds = [numbers.hear(reference, clips[i].name, clips[i].samples, languages[i])
              for i in numbers.with_speech([clip.samples[:reference.spec.n_samples] for clip in clips])]
    rounds: tuple = [], []
    if args.repeats:
        gc.collect()  # the checkpoint's own copy, where it was stored in half precision: it refers to itself
        machine.give_back_memory()
        base = known(args.model_dir, checkpoint.name)[0].open(args.threads)
        rounds = timing.in_turns(base, reference, sounds[0], args.repeats)
    _write(Path(args.folder), Testimony([one.text for one in found], languages, sounds, rounds, memory))


def _write(folder: Path, said: Testimony) -> None:
    np.savez(folder / HEARD, **{f"{key}_{i}": getattr(heard, key) for i, heard in enumerate(said.sounds)
                                for key in ARRAYS})
    files.write_json(folder / SAID, {
        "texts": said.texts, "languages": said.languages, "rounds": said.rounds, "memory": said.memory,
        "heard": [{"clip": heard.clip, "prompt_length": heard.prompt_length} for heard in said.sounds]})


def _read(folder: Path) -> Testimony:
    said = files.read_json(folder / SAID)
    with np.load(folder / HEARD, allow_pickle=False) as arrays:
        sounds = [numbers.Heard(**heard, **{key: arrays[f"{key}_{i}"] for key in ARRAYS})
                  for i, heard in enumerate(said["heard"])]
    return Testimony(said["texts"], said["languages"], sounds, tuple(said["rounds"]), said["memory"])


def main(argv: list[str] | None = None) -> int:
    """Testify; an error that a user can act on goes to the process that asked, which tells it."""
    parser = console.parser(__doc__, "model", "audio", "language", "threads", "quiet", "log_level")
    parser.add_argument("--model-dir", default="whisper_model_dir", metavar="DIR", help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=6, metavar="N", help="timed rounds (default: %(default)s)")
    parser.add_argument("--folder", required=True, metavar="DIR", help="where to write")
    args = console.parse(parser, argv)
    try:
        testify(args)
    except LabError as error:
        files.write_json(Path(args.folder) / PROBLEM, {"problem": error.problem, "remedy": error.remedy})
        return 1
    return 0


if __name__ == "__main__":
    console.run(main)
