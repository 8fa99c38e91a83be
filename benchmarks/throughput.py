"""How fast long recordings are heard, and in how much memory: against length, windows at once and threads.

    python benchmarks/throughput.py                                # throughput.json and throughput.png here
    python benchmarks/throughput.py --corpus my/corpus --graphs whisper_model_dir
    python benchmarks/throughput.py --minutes 1 3 --threads 1 --output-dir /tmp/trial       # a trial

The recordings are made of the clips of a corpus (default: media), in random order with pauses of 0.3 to 1 s between
them. Each measurement is a fresh process, which hears the recording once after a warm-up of one window, as
`python -m whisper_lab --batch-size N` does, on as many lanes. They take turns, so that a machine that slows down slows
all of them. Word errors of the same settings are what benchmarks/accuracy.py counts.
"""

import argparse
import functools
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import corpora  # noqa: E402
import idle  # noqa: E402
import prepare  # noqa: E402

from whisper_lab import audio, console, files, flags, machine  # noqa: E402
from whisper_lab.audio import SAMPLE_RATE  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402
from whisper_lab.transcribe import BATCH, MIXED  # noqa: E402

SCHEMA = "whisper-onnx-lab/throughput/1"
GRAPHS = {"int8": ("int8", False), "int8 optimized": ("int8", True)}
DEFAULT = {"int8": BATCH, "int8 optimized": MIXED}  # windows at once
PAUSE = (0.3, 1.0)  # s between clips
TIMEOUT = 600  # s for one process
LANGUAGE = "en"


def main(argv: list[str] | None = None) -> int:
    """Measure in turn, show, write."""
    args = arguments(argv)
    if args.cell:
        print(json.dumps(measure(json.loads(args.cell))))
        return 0
    started, load = time.time(), idle.load_before()
    checkpoint, folder = prepare.graphs(args)
    recordings = {minutes: write_recording(args.corpus, minutes, args.seed) for minutes in args.minutes}
    cells = [{"graphs": graphs, "batch_size": size, "threads": threads, "minutes": minutes, "folder": str(folder),
              "name": checkpoint.name, "wav": str(recordings[minutes])}
             for minutes in args.minutes for threads in args.threads for size in args.batch_sizes for graphs in GRAPHS
             if threads == max(args.threads) or size in (min(args.batch_sizes), DEFAULT[graphs])]
    host = idle.Host()
    rows = [host.quiet(functools.partial(in_a_process, cell)) for _ in range(args.rounds)
            for cell in console.progress(cells, description="measuring", unit="process")]
    document = {"schema": SCHEMA, "machine": machine.card(max(args.threads)), "load_before": round(load, 2),
                **host.facts(),
                "duration_s": round(time.time() - started), "model": checkpoint.name,
                "corpus": Path(args.corpus).resolve().name,
                "settings": {"rounds": args.rounds, "seed": args.seed, "default_batch_size": DEFAULT},
                "rows": medians(rows)}
    folder = Path(args.output_dir)
    files.write_json(folder / "throughput.json", document)
    picture(document, folder / "throughput.png")
    console.result(table(document))
    console.result(f"{folder}/throughput.json and throughput.png after {document['duration_s']} s")
    return 0


# Measuring ------------------------------------------------------------------------------------------------------------

def write_recording(corpus: str, minutes: float, seed: int) -> Path:
    """A recording of so many minutes as a WAV, the same for the same corpus and seed."""
    clips = [clip for clip in corpora.read(corpus)[0] if clip.language == LANGUAGE]
    if not clips:
        raise LabError(f"{corpus} has no clip in English", "name another corpus: --corpus media")
    order, sounds, parts, left = random.Random(seed), {}, [], minutes * 60 * SAMPLE_RATE
    waiting: list = []
    while left > 0:
        waiting = waiting or order.sample(clips, len(clips))
        clip = waiting.pop()
        sounds[clip.id] = sounds[clip.id] if clip.id in sounds else audio.load(clip.path).samples
        parts += [sounds[clip.id], np.zeros(round(order.uniform(*PAUSE) * SAMPLE_RATE), np.float32)]
        left -= len(parts[-1]) + len(parts[-2])
    path = prepare.WORK / "throughput" / f"{minutes:g}-minutes.wav"
    audio.write_wav(path, np.concatenate(parts)[:round(minutes * 60 * SAMPLE_RATE)])
    return path


def in_a_process(cell: dict) -> dict:
    """`measure` in a fresh process. Raises LabError where that fails."""
    done = subprocess.run([sys.executable, __file__, "--cell", json.dumps(cell)], capture_output=True, text=True,
                          timeout=TIMEOUT, env={**os.environ, "OMP_NUM_THREADS": str(cell["threads"])})
    if done.returncode:
        raise LabError(f"{cell['graphs']} could not be measured: {prepare.last_line(done.stderr)}",
                       "run it with --cell and what stands in its command line, and look at its errors")
    return {key: cell[key] for key in ("graphs", "batch_size", "threads", "minutes")} \
        | json.loads(done.stdout.strip().splitlines()[-1])


def measure(cell: dict) -> dict:
    """One recording: seconds, processor seconds, characters of text, bytes of its samples, the peak memory."""
    from whisper_lab import lanes, transcribe
    from whisper_lab.decoding import Options
    from whisper_lab.onnx_whisper import OnnxWhisper

    precision, optimized = GRAPHS[cell["graphs"]]
    runtime = OnnxWhisper(cell["folder"], cell["name"], precision, cell["threads"], optimized, shared_pool=True,
                          lanes=lanes.fit(cell["threads"], cell["batch_size"], 60 * cell["minutes"]))
    samples, options = audio.load(cell["wav"]).samples, Options(language=LANGUAGE)
    transcribe.transcribe(runtime, samples[:runtime.spec.n_samples], options)
    started, processor = time.perf_counter(), time.process_time()
    found = transcribe.transcribe(runtime, samples, options, batch_size=cell["batch_size"])
    return {"seconds": time.perf_counter() - started, "processor_s": time.process_time() - processor,
            "characters": len(found.text), "sound_bytes": samples.nbytes, "peak_rss_bytes": machine.peak_rss_bytes()}


def medians(rows: list[dict]) -> list[dict]:
    """One row for each cell: the median over rounds of its times and of its memory."""
    keys, cells = ("graphs", "batch_size", "threads", "minutes"), {}
    for row in rows:
        cells.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [dict(zip(keys, cell, strict=True))
            | {key: float(np.median([row[key] for row in found])) for key in found[0] if key not in keys}
            | {"times_real_time": 60 * cell[-1] / float(np.median([row["seconds"] for row in found]))}
            for cell, found in cells.items()]


# Showing --------------------------------------------------------------------------------------------------------------

def select(document: dict, **wanted) -> list[dict]:
    """The rows that have these values."""
    return [row for row in document["rows"] if all(row[key] == value for key, value in wanted.items())]


def values(document: dict, key: str) -> list:
    """What `key` takes in the rows, in order."""
    return sorted({row[key] for row in document["rows"]})


def table(document: dict) -> str:
    """Markdown: a line for each precision, threads and windows at once; a column for each length."""
    lengths = values(document, "minutes")
    columns = [f"{minutes:g} min, {what}" for what in ("times real time", "peak MB") for minutes in lengths]
    lines = [f"| | threads | windows at once | {' | '.join(columns)} |",
             f"|---|---|---|{'---|' * 2 * len(lengths)}"]
    for graphs in GRAPHS:
        for threads in reversed(values(document, "threads")):
            for size in values(document, "batch_size"):
                rows = [select(document, graphs=graphs, threads=threads, batch_size=size, minutes=minutes)
                        for minutes in lengths]
                if all(rows):
                    cells = [f"{row['times_real_time']:.0f}" for (row,) in rows]
                    cells += [f"{row['peak_rss_bytes'] / 1e6:.0f}" for (row,) in rows]
                    lines.append(f"| {graphs} | {threads} | {size} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{document['model']}, recordings made of the English clips of {document['corpus']}; "
                      f"{console.count(document['settings']['rounds'], 'round')} of fresh processes; peak memory holds "
                      "the samples, 3.8 MB a minute. Measured on "
                      f"{machine.one_line(document['machine'])}; load before the start {document['load_before']}"
                      f"{idle.in_words(document)}."])


COLOURS = {"int8": "#6f42c1", "int8 optimized": "#0969da"}


def picture(document: dict, path: Path) -> Path:
    """Three panels: speed against length, speed against windows at once and threads, memory against length."""
    from whisper_lab import pictures

    figure, (speed, batch, memory) = pictures.plot(columns=3)
    most, lengths, sizes = max(values(document, "threads")), values(document, "minutes"), values(document, "batch_size")
    default = document["settings"]["default_batch_size"]
    for graphs, colour in COLOURS.items():
        for size, style in ((sizes[0], ":"), (default[graphs], "-")):
            rows = select(document, graphs=graphs, threads=most, batch_size=size)
            label = f"{graphs}, {size} at once"
            for axes, scale, key in ((speed, 1, "times_real_time"), (memory, 1e6, "peak_rss_bytes")):
                axes.plot([row["minutes"] for row in rows], [row[key] / scale for row in rows], style, marker="o",
                          color=colour, linewidth=2.5, label=label)
        for threads in values(document, "threads"):
            rows = select(document, graphs=graphs, threads=threads, minutes=lengths[-1])
            batch.plot([sizes.index(row["batch_size"]) for row in rows], [row["times_real_time"] for row in rows],
                       "-" if threads == most else "--", marker="o", color=colour, linewidth=2.5,
                       label=f"{graphs}, {console.count(threads, 'thread')}")
    batch.set_xticks(range(len(sizes)), map(str, sizes))
    for axes, title, below, beside in (
            (speed, f"Speed, {console.count(most, 'thread')}", "minutes of sound", "times real time"),
            (batch, f"Speed, {lengths[-1]:g} minutes", "windows at once", "times real time"),
            (memory, f"Memory, {console.count(most, 'thread')}", "minutes of sound", "peak, MB")):
        axes.set(title=title, xlabel=below, ylabel=beside, ylim=(0, None))
        axes.legend(fontsize=12, loc="lower center", handlelength=3, markerscale=0)
    speed.set_xlim(0, None)
    memory.set_xlim(0, None)
    return pictures.save(figure, path)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    cores = machine.usable_cores()
    parser = flags.parser(__doc__, "model", "seed", "output_dir", "quiet", "log_level", output_dir=str(HERE))
    parser.add_argument("--corpus", default=str(HERE.parent / "media"), metavar="FOLDER|NAME",
                        help="whose English clips the recordings are made of (default: media)")
    parser.add_argument("--graphs", metavar="DIR", help="graphs that 03 wrote (default: made in benchmarks/work)")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 4, 12], metavar="N",
                        help="lengths of the recordings (default: 1 4 12)")
    parser.add_argument("--batch-sizes", type=flags.whole(1), nargs="+", default=[1, *sorted(DEFAULT.values()), 8],
                        metavar="N", help="windows at once (default: 1 4 6 8)")
    parser.add_argument("--threads", type=flags.whole(1), nargs="+", default=sorted({1, cores}), metavar="N",
                        help="processor threads; with fewer than the most, the smallest batch and the default alone "
                        "(default: 1 and all cores)")
    parser.add_argument("--rounds", type=flags.whole(1), default=1, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--cell", help=argparse.SUPPRESS)  # one measurement, in a process of its own
    args = flags.parse(parser, argv)
    args.batch_sizes = sorted({*args.batch_sizes, *DEFAULT.values()})
    args.minutes, args.threads = sorted(set(args.minutes)), sorted(set(args.threads))
    return args


if __name__ == "__main__":
    console.run(main)
