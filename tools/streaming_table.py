"""The latency table of docs/benchmarks.md, from benchmarks/streaming.json: the numbers that 09 --json wrote.

    python -m tools.streaming_table FILE      # 09's report -> benchmarks/streaming.json, without what was said
"""

from pathlib import Path

from whisper_lab import console, files, flags, machine, web
from whisper_lab.console import LabError
from whisper_lab.stream.report import percent, percentile

KEPT = Path(__file__).resolve().parent.parent / "benchmarks" / "streaming.json"
TEXTS = ("text", "utterances", "doubtful", "commits", "batch", "batch_by_utterance")  # of a clip


def numbers(document: dict) -> dict:
    """09's report without texts: those of a corpus may not be ours to publish."""
    clips = [{key: value for key, value in clip.items() if key not in TEXTS} for clip in document["clips"]]
    for clip in clips:
        clip["reference"] = {key: value for key, value in clip["reference"].items() if key != "text"}
    return document | {"clips": clips}


def table(document: dict) -> str:
    """Markdown: a row a clip, one for all words together, and where it was measured."""
    settings, clips = document["settings"], document["clips"]
    lines = ["| clip | s | words | word end to commit, p50 s | p95 s | of that, sound waited for, p50 s | real-time "
             "factor | encoder runs | left out | WER live, % | WER batch, % | WER batch by utterance, % |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for clip in clips:
        times, reference = clip["latency"], clip["reference"]
        rates = [percent(reference[f"{text}_wer"]).removesuffix(" %")
                 for text in ("stream", "batch", "batch_by_utterance")]
        lines.append(_row(clip["source"], clip["duration_s"], times["words"], times["latency_p50_s"],
                          times["latency_p95_s"], times["waited_p50_s"], clip["real_time_factor"],
                          clip["encoder_runs"], clip["hypotheses_skipped"], *rates))
    every = [value for clip in clips for value in clip["latency"]["latencies_s"]]
    duration, busy = (sum(clip[key] for clip in clips) for key in ("duration_s", "busy_s"))
    lines.append(_row("all", duration, len(every), percentile(every, 50), percentile(every, 95), None, busy / duration,
                      *(sum(clip[key] for clip in clips) for key in ("encoder_runs", "hypotheses_skipped")),
                      *[""] * 3))
    model = document["model"]
    return "\n".join([*lines, "", f"{model['name']} {model['precision']}, played in real time, a hypothesis every "
                      f"{settings['hop_s']:g} s of new speech, a pause of {settings['pause_s']:g} s ends an utterance; "
                      f"{sum(clip['dropouts'] for clip in clips)} dropouts. Word ends: "
                      f"{clips[0]['latency']['word_ends_from']}. Load before the start "
                      f"{document['load_before']}. {machine.one_line(document['machine'])}."])


def _row(name: str, duration: float, words: int, *cells: object) -> str:
    shown = ["" if cell is None else f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells]
    return f"| {' | '.join([web.markdown(name), f'{duration:.1f}', str(words), *shown])} |"


def main(argv: list[str] | None = None) -> int:
    """Keep the numbers of a report. Raises LabError where FILE is not one."""
    parser = flags.parser(__doc__, "quiet", "log_level")
    parser.add_argument("report", metavar="FILE", help="what 09 --json wrote, of sound files with known texts")
    args = flags.parse(parser, argv)
    remedy = "python 09-stream-microphone.py CLIP --realtime --json FILE, with a references.json beside the clip"
    try:
        kept = numbers(files.read_json(args.report))
    except OSError as error:
        raise LabError(f"{args.report} cannot be read: {error.strerror}", remedy) from error
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"{args.report} is not a report of 09 on clips with known texts", remedy) from error
    files.write_json(KEPT, kept)
    return 0


if __name__ == "__main__":
    console.run(main)
