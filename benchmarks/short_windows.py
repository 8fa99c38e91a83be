"""What a shorter window costs in words and saves in seconds, and which of its texts had better be heard again.

    python benchmarks/short_windows.py --corpus my/corpus --model base      # short-windows.json here
    python benchmarks/short_windows.py --graphs whisper_model_dir --model nano --output-dir /tmp/trial

Every clip that is shorter than the window is heard twice, in the whole window and in one that ends after the silence
that the checkpoint needs: greedy, without timestamps, with its language given. From both texts follows what each limit
of the log-probability would have done: a text below it is heard again in the whole window, and that text counts.
Seconds are of the processor, one thread, with the encoder, the decoder and both looks. The last of the limits is the
one below which a text is shown with a warning.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import corpora  # noqa: E402
import prepare  # noqa: E402
import scoring  # noqa: E402

from whisper_lab import audio, confidence, console, files, flags, machine, short_windows  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

SCHEMA = "whisper-onnx-lab/short-windows/1"
GRAPHS = {"int8": ("int8", False), "int8 optimized": ("int8", True)}
BRIEF_S = 3.5  # a command is shorter
# Times the warning's limit; None: heard again is what loops, does not end, or asks for a higher temperature anyway.
LIMITS = (None, 2.0, 1.5, 1.0)


def main(argv: list[str] | None = None) -> int:
    """Hear every clip twice with every pair, count, show, write."""
    args = arguments(argv)
    checkpoint, folder = prepare.graphs(args)
    scorer = scoring.Scorer(checkpoint.folder)
    clips, _ = corpora.read(args.corpus, args.limit)
    rows = {graphs: listen(open_graphs(folder, checkpoint.name, graphs), clips, scorer) for graphs in GRAPHS}
    document = {"schema": SCHEMA, "machine": machine.card(1), "model": checkpoint.name,
                "corpus": {"name": Path(args.corpus).resolve().name, "clips": len(rows["int8"]),
                           "seconds": round(sum(row["seconds"] for row in rows["int8"]), 1),
                           "languages": len({row["language"] for row in rows["int8"]})},
                "normalizer": scorer.description, "brief_s": BRIEF_S, "chosen": short_windows.HEARD_AGAIN,
                "limits": [{"limit": limit and limit * confidence.limit_of(checkpoint.name), "times": limit,
                            "graphs": {graphs: judged(found, limit, checkpoint.name)
                                       for graphs, found in rows.items()}} for limit in LIMITS]}
    path = files.write_json(Path(args.output_dir) / "short-windows.json", document)
    console.result(f"{table(document)}\n\n{path}")
    return 0


# Listening ------------------------------------------------------------------------------------------------------------

def open_graphs(folder: Path, name: str, graphs: str):
    """The pair, with one thread. Raises LabError where it hears nothing but whole windows."""
    from whisper_lab.onnx_whisper import OnnxWhisper

    precision, optimized = GRAPHS[graphs]
    runtime = OnnxWhisper(folder, name, precision, 1, optimized)
    if runtime.silence_s is None or not runtime.takes_short_windows:
        raise LabError(f"{name} needs its whole window: there is nothing to compare", "take --model base")
    return runtime


def listen(runtime, clips: list[corpora.Clip], scorer: scoring.Scorer) -> list[dict]:
    """A row for each clip that is heard in less than the whole window: its errors and seconds, both ways."""
    rows, whole = [], runtime.spec.n_frames
    for clip in console.progress(clips, description="listening", unit="clip"):
        samples = audio.load(clip.path).samples
        seconds = len(samples) / runtime.spec.sampling_rate
        if (frames := short_windows.heard_frames(runtime, seconds)) < whole:
            (short, short_s), (long, long_s) = (hear(runtime, samples, clip.language, n) for n in (frames, whole))
            rows.append({"seconds": seconds, "language": clip.language, "short": short, "short_s": short_s,
                         "whole_s": long_s, "short_counts": scorer(clip, short.text),
                         "whole_counts": scorer(clip, long.text)})
    if not rows:
        raise LabError("no clip is shorter than the window by the silence that the checkpoint needs",
                       "name a corpus of short clips: --corpus media")
    return rows


def hear(runtime, samples: np.ndarray, language: str, frames: int) -> tuple:
    """(decoding.Result, processor seconds) of float32 [n] in a window of so many frames."""
    from whisper_lab.decoding import Options, decode
    from whisper_lab.features import log_mel

    started = time.process_time()
    options = Options(language=language if runtime.rules.languages else None, temperatures=(0.0,))
    (result,) = decode(runtime, log_mel(samples, runtime.spec, frames)[None], options)
    return result, time.process_time() - started


# Counting -------------------------------------------------------------------------------------------------------------

def judged(rows: list[dict], times: float | None, name: str) -> dict:
    """What a limit does: by length of the clips the share that is heard again, WER, difference, processor time."""
    limit = -np.inf if times is None else times * confidence.limit_of(name)
    parts = {"all": rows, "brief": [row for row in rows if row["seconds"] < BRIEF_S]}
    return {part: _judged(some, limit) for part, some in parts.items() if some}


def _judged(rows: list[dict], limit: float) -> dict:
    from whisper_lab.decoding import Options

    whole = [row["whole_counts"] for row in rows]
    again = [short_windows.is_unsafe(row["short"], Options(), limit) for row in rows]
    counts = [row["whole_counts"] if repeated else row["short_counts"]
              for row, repeated in zip(rows, again, strict=True)]
    seconds = sum(row["short_s"] + repeated * row["whole_s"] for row, repeated in zip(rows, again, strict=True))
    return {"clips": len(rows), "words": sum(count.words for count in whole), "heard_again": sum(again),
            "wer": scoring.wer(counts), "wer_whole": scoring.wer(whole),
            "difference": scoring.difference(counts, whole),
            "processor_time": seconds / sum(row["whole_s"] for row in rows)}


# Showing --------------------------------------------------------------------------------------------------------------

def table(document: dict) -> str:
    """Markdown: a line for each limit and pair."""
    lines = ["| heard again below | graphs | heard again | WER % | whole windows' | difference, points | under "
             f"{document['brief_s']:g} s | processor time of whole windows' |", "|---|---|---|---|---|---|---|---|"]
    for row in document["limits"]:
        limit = "as for a higher temperature" if row["limit"] is None else f"{row['limit']:.2f}"
        limit += " (this lab)" if row["times"] == document["chosen"] else ""
        for graphs, found in row["graphs"].items():
            every, brief = found["all"], found.get("brief")
            cells = [limit, graphs, f"{every['heard_again']} of {every['clips']}", f"{100 * every['wer']:.1f}",
                     f"{100 * every['wer_whole']:.1f}", points(every), points(brief) if brief else "–",
                     f"{every['processor_time']:.2f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", described(document)])


def points(found: dict) -> str:
    """`+0.4 (-0.9 to +1.2)`"""
    difference = found["difference"]
    if difference["low"] is None:
        return f"{difference['points']:+.1f}"
    return f"{difference['points']:+.1f} ({difference['low']:+.1f} to {difference['high']:+.1f})"


def described(document: dict) -> str:
    """On what, in one line."""
    corpus, found = document["corpus"], document["limits"][0]["graphs"]["int8"]
    brief = found.get("brief", {"clips": 0, "words": 0})
    return (f"{document['model']}: {corpus['clips']} clips, {found['all']['words']} words, {corpus['seconds']:g} s, "
            f"{console.count(corpus['languages'], 'language')}; under {document['brief_s']:g} s: {brief['clips']} "
            f"clips, {brief['words']} words; in brackets 95 % of a bootstrap over the clips: where that holds 0, "
            f"chance explains the difference. Processor time of one thread on {machine.one_line(document['machine'])}.")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = flags.parser(__doc__, "model", "output_dir", "quiet", "log_level", output_dir=str(HERE))
    prepare.add_clips_and_graphs(parser)
    return flags.parse(parser, argv)


if __name__ == "__main__":
    console.run(main)
