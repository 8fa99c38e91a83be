"""Transcribe an archive: every sound file in FOLDER and in the folders below it, one JSON document each.

    python -m whisper_lab archive recordings --output-dir transcripts --precision int8
    python -m whisper_lab archive recordings --output-dir transcripts --shard 2/8   # the second of eight tasks
    python -m whisper_lab archive collect transcripts                               # one table of all

What is finished is not done again, unless the sound has changed; so after a stop, a crash or new files, run the same
command again. Any number of processes may work on one archive, also on the same shard: each file is claimed by one, and
what a killed one had claimed the next one takes. slurm/transcribe-array.sh does it on a cluster.

Files that cannot be transcribed are listed with the reason, at the end and in the table; the exit status is then 1.
"""

import argparse
import contextlib
import os
import re
import shlex
import socket
import stat
import time
from pathlib import Path

from whisper_lab import audio, console, flags, machine, names, transcribe, transcripts
from whisper_lab.archive import collect, find
from whisper_lab.archive.claims import LEASE_S, Worker
from whisper_lab.archive.run import Counts, Run
from whisper_lab.archive.share import Share
from whisper_lab.archive.store import Store
from whisper_lab.console import LabError

PROG = "python -m whisper_lab archive"


def main(argv: list[str], open_runtime) -> int:
    """One shard, or with `collect` the table. open_runtime: arguments, sound files -> the graphs that they ask
    for."""
    if argv[:1] == ["collect"]:
        return collect.main(argv[1:])
    args = arguments(argv)
    started = time.perf_counter()
    again = f"{PROG} {shlex.join(word for word in argv if word not in ('--replace', '--retry-failed'))}"
    root, output = Path(args.folder), Path(args.output_dir)
    share, place = (Share(path, args.patience, again) for path in (root, output))
    check_folders(share, output, args)
    recordings, unreadable = mine(share, output, *args.shard)
    runtime = open_runtime(args, (recording.path for recording in recordings))
    prompt = runtime.rules.checked_prompt(runtime.tokenizer, args.prompt, args.language, args.task)
    # batch_size too: it decides into how many chunks a long recording is cut, and in int8 how near ties fall.
    recipe = {"model": runtime.described, "settings": transcripts.settings(args, "audio_context", "batch_size")}
    store = Store(output, recipe)
    store.prepare()
    def work(samples: list, progress) -> list[transcribe.Transcript]:
        return transcribe.transcribe_many(runtime, samples, transcripts.options(args), words=args.timestamps == "word",
                                          condition_on_previous=args.condition_on_previous, prompt=prompt,
                                          batch_size=args.batch_size, progress=progress)

    with cannot_write(output, again), Worker(store.claims, who(), lease_s=max(LEASE_S, args.patience)) as worker:
        store.note(worker, args.replace, again)
        head = {"schema": transcripts.SCHEMA, "machine": machine.card(args.threads), **recipe}
        run = Run(store, share, place, worker, work, head, args.batch_size * runtime.lanes, args.check_content,
                  args.retry_failed)
        counts = run.run(recordings)
    counts.failures |= unreadable
    return tell(counts, time.perf_counter() - started, f"{again} --retry-failed")


@contextlib.contextmanager
def cannot_write(output: Path, again: str):
    """Errors of the output folder, which are no recording's, as one of two lines."""
    try:
        yield
    except OSError as error:
        raise LabError(f"cannot work in {output}: {error.strerror or error}",
                       f"free some disk space, or see to its permissions, then go on: {again}") from error


def check_folders(share: Share, output: Path, args: argparse.Namespace) -> None:
    """Raises LabError where the recordings' folder is none, or the other cannot be one; a share that says something
    else is waited for."""
    root = share.root
    try:
        is_folder = stat.S_ISDIR(os.stat(root).st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LabError(f"there is no folder {root}", "name the folder that the recordings are in") from error
    except OSError:
        is_folder = stat.S_ISDIR(share.patiently(lambda: os.stat(root), root).st_mode)
    if not is_folder:
        raise LabError(f"{root} is a file, and an archive is a folder",
                       f"transcribe it alone: {alone(root, args)}")
    if part := next((part for part in (output, *output.parents) if part.exists() and not part.is_dir()), None):
        raise LabError(f"the transcripts cannot be in {output}: {part} is a file", "name a folder: --output-dir OUT")


def alone(sound: Path, args: argparse.Namespace) -> str:
    """The command that transcribes one file with the same graphs."""
    given = {"--model": args.model, "--model-dir": args.model_dir, "--precision": args.precision,
             "--language": args.language}
    words = [word for name, value in given.items() if value not in (None, names.MODEL_DIR) for word in (name, value)]
    return shlex.join(["python", "-m", "whisper_lab", str(sound), *words])


def mine(share: Share, output: Path, shard: int, shards: int) -> tuple[list[find.Recording], dict[str, str]]:
    """The recordings of one shard; folder -> why it cannot be read.

    Raises LabError where there is no sound file in the whole archive.
    """
    found = find.walk(share, output)
    for name, reason in found.unreadable.items():
        console.warn(f"{console.plain(name or share.root, one_line=True)}: {reason}")
    if not found.recordings:
        hidden = console.count(len(found.unreadable), "folder")
        raise LabError(f"no sound file in {share.root} or below it" +
                       (f", and {hidden} cannot be read" if found.unreadable else ""),
                       f"name the folder that the recordings are in; sound is {' '.join(sorted(audio.SUFFIXES))}")
    chosen = [recording for recording in found.recordings if recording.is_in(shard, shards)]
    console.note("found", console.count(len(found.recordings), "recording"),
                 f"{len(chosen)} in shard {shard}/{shards}; {console.count(found.others, 'other file')} left alone")
    return chosen, found.unreadable


def who() -> str:
    """This process, for people: the task of SLURM, or the process id."""
    job, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{socket.gethostname()} " + (f"SLURM {job}_{task}" if job and task else f"process {os.getpid()}")


def tell(counts: Counts, seconds: float, retry: str) -> int:
    """Print what became of the shard and what failed; returns the exit status."""
    for name, reason in counts.failures.items():
        console.result(f"failed: {console.plain(name, one_line=True)}: {reason.removeprefix(f'{name}: ')}")
    rate = f" ({counts.sound_s / seconds:.1f} times real time)" if counts.sound_s else ""
    console.sentence(f"{console.count(counts.transcribed, 'recording')} transcribed, {counts.sound_s:.0f} s of sound "
                     f"in {seconds:.1f} s{rate}; {counts.done_before} done before, {len(counts.failures)} failed")
    if counts.busy:
        console.note("left", console.count(counts.busy, "recording"), "another process is at work on them")
    if counts.failed_before:
        console.note("not tried again", console.count(counts.failed_before, "recording"), "they failed before",
                     f"to try them again: {retry}")
    return 1 if counts.failures else 0


# The command line -----------------------------------------------------------------------------------------------------

def shard(text: str) -> tuple[int, int]:
    """The argparse type of I/N."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"'{text}' is not a shard: 1/8 is the first of eight, 8/8 the last")
    return int(found[1]), int(found[2])


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line; wrong usage ends here with exit status 2."""
    from whisper_lab.__main__ import add_graph_flags

    parser = flags.parser(__doc__, "model", "language", "task", "timestamps", "threads", "beams", "temperature",
                          "fallback", "condition_on_previous", "prompt", "audio_context", "batch_size", "seed",
                          "output_dir", "quiet", "log_level", prog=PROG, output_dir="transcripts")
    parser.add_argument("folder", metavar="FOLDER", help="where the recordings are; `collect OUT` makes the table "
                        "(a folder of that name: ./collect)")
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N",
                        help="this part of the recordings, 1/N to N/N, by a hash of their names (default: 1/1, all)")
    parser.add_argument("--retry-failed", action="store_true", help="try those again that failed before")
    add_graph_flags(parser)
    more = flags.rare(parser)
    more.add_argument("--replace", action="store_true", help="where --output-dir has transcripts of another model or "
                      "other settings, make them again")
    more.add_argument("--check-content", action="store_true", help="compare the bytes of each recording with those "
                      "that were transcribed, also where size and time of change are the same")
    more.add_argument("--patience", type=flags.between(0, 86400), default=60.0, metavar="S", help="how long to wait "
                      "for a share that is away (default: 60)")
    parser.set_defaults(format="json")
    args = flags.parse(parser, argv)
    transcripts.check(parser, args)
    return args
