"""Which texts are worth five beams? What the two limits of --beams auto cost and save, beside limits chosen elsewhere.

    python benchmarks/beams.py --corpus my/corpus --model base       # beams.json here
    python benchmarks/beams.py --graphs whisper_model_dir --model nano --output-dir /tmp/trial

Every clip that fits the window is heard twice, greedily and with five beams, both as the transcribers do: a short
window first, higher temperatures for what goes round in a loop, which beams find more often than greedy search does. No
timestamps, the language given. From both texts follows what any pair of limits would have done (decoding.is_doubtful:
the mean log-probability of a token, and that of the whole text): a text below one of them is searched again, and the
beams' text counts. The last row has limits that its clips did not choose: for each folder of the corpus those that are
the best on all the other folders. Seconds are of the processor, one thread, the encoder's in both searches; the
transcribers run it once.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import corpora  # noqa: E402
import prepare  # noqa: E402
import scoring  # noqa: E402

from whisper_lab import audio, console, decoding, files, flags, machine  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

SCHEMA = "whisper-onnx-lab/beams/1"
TOKEN = (-0.15, -0.2, -0.25, -0.3, -0.35, -0.4, -0.5, -0.7)  # limits that are tried: of a token, on the mean
TEXT = (-4.0, -6.0, -8.0, -10.0, -12.0, -16.0, -24.0)  # and of a whole text
OURS = (decoding.DOUBTFUL_TOKEN, decoding.DOUBTFUL_TEXT)
NEAR = 0.002  # WER: limits that are no more than this above the best are as good, and the cheapest of them is taken


def main(argv: list[str] | None = None) -> int:
    """Hear every clip both ways, count, show, write."""
    args = arguments(argv)
    checkpoint, folder = prepare.graphs(args)
    scorer = scoring.Scorer(checkpoint.folder)
    clips, _ = corpora.read(args.corpus, args.limit)
    rows = listen(open_graphs(folder, checkpoint.name, args.precision), clips, scorer)
    document = {"schema": SCHEMA, "machine": machine.card(1), "model": checkpoint.name, "precision": args.precision,
                "beams": decoding.WIDE, "normalizer": scorer.description,
                "corpus": {"name": Path(args.corpus).resolve().name, "clips": len(rows),
                           "words": sum(row["greedy_counts"].words for row in rows),
                           "seconds": round(sum(row["seconds"] for row in rows), 1),
                           "languages": len({row["language"] for row in rows}),
                           "folders": len({row["folder"] for row in rows})},
                "rules": rules(rows)}
    path = files.write_json(Path(args.output_dir) / "beams.json", document)
    console.result(f"{table(document)}\n\n{path}")
    return 0


# Listening ------------------------------------------------------------------------------------------------------------

def open_graphs(folder: Path, name: str, precision: str):
    """The pair, with one thread."""
    from whisper_lab.onnx_whisper import OnnxWhisper

    return OnnxWhisper(folder, name, precision, 1)


def listen(runtime, clips: list[corpora.Clip], scorer: scoring.Scorer) -> list[dict]:
    """A row for each clip that fits the window: errors and processor seconds both ways, and how likely the text is."""
    rows = []
    for clip in console.progress(clips, description="listening", unit="clip"):
        samples = audio.load(clip.path).samples
        if len(samples) <= runtime.spec.n_samples:
            rows.append(hear(runtime, samples, clip, scorer))
    if not rows:
        raise LabError("no clip is as short as the window", "name a corpus of short clips: --corpus media")
    return rows


def hear(runtime, samples, clip: corpora.Clip, scorer: scoring.Scorer) -> dict:
    """One clip, by both searches."""
    from whisper_lab.short_windows import hear as hear_windows

    language = clip.language if runtime.rules.languages else None
    search = decoding.Options(language=language, temperatures=decoding.FALLBACK_TEMPERATURES)
    (greedy, greedy_s), (wide, wide_s) = (timed(lambda beams=beams: hear_windows(
        runtime, [samples], replace(search, beams=beams), [language], [()])[0].result) for beams in (1, decoding.WIDE))
    tokens = len(runtime.rules.text_tokens(greedy.tokens)) + 1  # the end is a token too
    token = greedy.text_logprob or 0.0
    return {"folder": clip.folder, "language": clip.language, "seconds": len(samples) / runtime.spec.sampling_rate,
            "token": token, "text": token * tokens, "greedy_s": greedy_s, "wide_s": wide_s,
            "greedy_counts": scorer(clip, greedy.text), "wide_counts": scorer(clip, wide.text)}


def timed(work: Callable) -> tuple:
    """(what it returns, processor seconds)"""
    started = time.process_time()
    return work(), time.process_time() - started


# Limits ---------------------------------------------------------------------------------------------------------------

def rules(rows: list[dict]) -> list[dict]:
    """What each rule does with the same clips: `again` marks those that are searched again."""
    found = [judged("greedy", rows, [False] * len(rows)), judged("five beams", rows, [True] * len(rows)),
             judged("auto", rows, [is_below(row, OURS) for row in rows]) | {"limits": OURS}]
    folders = {row["folder"] for row in rows}
    if len(folders) == 1:  # there are no others
        return found
    chosen = {folder: best([row for row in rows if row["folder"] != folder]) for folder in folders}
    again = [is_below(row, chosen[row["folder"]]) for row in rows]
    return [*found, judged("auto, limits of the other folders", rows, again) | {"limits": sorted({*chosen.values()})}]


def is_below(row: dict, limits: tuple[float, float]) -> bool:
    """As decoding.is_doubtful."""
    return row["token"] < limits[0] or row["text"] < limits[1]


def best(rows: list[dict]) -> tuple[float, float]:
    """The limits with the fewest searches among those whose WER is within NEAR of the lowest."""
    words = sum(row["greedy_counts"].words for row in rows)
    tried = [(sum(row["wide_counts" if again else "greedy_counts"].errors
                  for row, again in zip(rows, marks, strict=True)) / words, sum(marks), limits)
             for limits in ((token, text) for token in TOKEN for text in TEXT)
             for marks in [[is_below(row, limits) for row in rows]]]
    lowest = min(tried)[0]
    return min((searches, limits) for wer, searches, limits in tried if wer <= lowest + NEAR)[1]


def judged(name: str, rows: list[dict], again: list[bool]) -> dict:
    """WER of all clips, of English and of other languages, beside greedy search; and what the searches take."""
    parts = {"all": rows, "English": [row for row in rows if row["language"] == "en"],
             "other languages": [row for row in rows if row["language"] != "en"]}
    marks = dict(zip(map(id, rows), again, strict=True))
    seconds = sum(row["greedy_s"] + marks[id(row)] * row["wide_s"] for row in rows)
    return {"name": name, "clips": len(rows), "searched_again": sum(again),
            "processor_time": seconds / sum(row["greedy_s"] for row in rows),
            "parts": {part: _counted(some, [marks[id(row)] for row in some]) for part, some in parts.items() if some}}


def _counted(rows: list[dict], again: Iterable[bool]) -> dict:
    greedy = [row["greedy_counts"] for row in rows]
    counts = [row["wide_counts"] if repeated else row["greedy_counts"]
              for row, repeated in zip(rows, again, strict=True)]
    return {"words": sum(count.words for count in counts), "wer": scoring.wer(counts),
            "difference": scoring.difference(counts, greedy)}


# Showing --------------------------------------------------------------------------------------------------------------

def table(document: dict) -> str:
    """Markdown: a line for each rule."""
    parts = list(document["rules"][0]["parts"])
    lines = ["| search | below, a token / a text | searched again | "
             + " | ".join(f"WER %, {part}" for part in parts) + " | processor time, greedy = 1 |",
             "|---" * (4 + len(parts)) + "|"]
    for row in document["rules"]:
        cells = [row["name"], limits(row.get("limits")), f"{row['searched_again']} of {row['clips']}",
                 *(_rate(row["parts"][part]) for part in parts), f"{row['processor_time']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", described(document)])


def limits(found: list | None) -> str:
    """`-0.3 / -8`, or several of them"""
    if not found:
        return ""
    pairs = found if isinstance(found[0], (list, tuple)) else [found]
    return ", ".join(f"{token:g} / {text:g}" for token, text in pairs)


def _rate(part: dict) -> str:
    """`7.2, -0.5 (-1.7 to +0.2)`: the WER, its difference from greedy search."""
    difference = part["difference"]
    said = f"{100 * part['wer']:.1f}"
    if not difference["unequal_clips"]:
        return said
    said += f", {difference['points']:+.1f}"
    return said if difference["low"] is None else f"{said} ({difference['low']:+.1f} to {difference['high']:+.1f})"


def described(document: dict) -> str:
    """On what, in one line."""
    corpus = document["corpus"]
    return (f"{document['model']} {document['precision']}: {corpus['clips']} clips of {corpus['folders']} folders, "
            f"{corpus['words']} words, {corpus['seconds']:g} s, {console.count(corpus['languages'], 'language')}; in "
            "brackets 95 % of a bootstrap over the clips. Processor time of one thread on "
            f"{machine.one_line(document['machine'])}.")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = flags.parser(__doc__, "model", "output_dir", "quiet", "log_level", output_dir=str(HERE))
    flags.add_flags(parser, "precision")
    parser.set_defaults(precision="int8")
    prepare.add_clips_and_graphs(parser)
    return flags.parse(parser, argv)


if __name__ == "__main__":
    console.run(main)
