"""Where the time goes: the operators of an encoder run and of a token, and the stages of a cold start.

    python benchmarks/time_spent.py                                # time-spent.json here
    python benchmarks/time_spent.py --model nano --rounds 1 --output-dir reports

Operators: onnxruntime's own profiler on a whole window and on single tokens after it. It takes time for each operator,
so that a token, which has many small ones, takes far longer than without. Tokens without it, the pairs in turn: after a
short window, after a whole one, and of several recordings at once; medians.
Cold start: fresh processes, from their start to the text of one clip; medians. What onnxruntime prepared of the graphs
is there already (whisper_lab/prepared.py); one row says what opening them takes without.
"""

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import idle  # noqa: E402
import prepare  # noqa: E402

from whisper_lab import audio, console, files, flags, machine, prepared  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

SCHEMA = "whisper-onnx-lab/time-spent/1"
GRAPHS = {"int8": ("int8", False), "int8 optimized": ("int8", True)}
PARTS = {"encoder": "encoder, a whole window", "decoder": "decoder, a token"}
SHOWN = 0.04  # share of a run from which on an operator is named
WARM, WINDOWS = 3, 3  # runs that are not counted, and those of the encoder that are
SHORT_S, BATCH = 5.0, 4
TIMEOUT = 300  # s for one process

# A cold start as `python -m whisper_lab` makes it, stage by stage; then again, each alone, what opening consists of.
COLD = """\
import json, sys, time
job, laps, last = json.loads(sys.argv[1]), {}, [float(sys.argv[2])]
def lap(name):
    now = time.time()
    laps[name], last[0] = now - last[0], now
lap("Python")
import numpy, onnxruntime
lap("NumPy, onnxruntime")
from whisper_lab import __main__, audio, names, onnx_whisper, prepared, sessions, tokenizer, transcribe
from whisper_lab.decoding import Options
lap("this lab's modules")
graphs = job["folder"], job["name"], job["precision"], job["threads"], job["optimized"]
runtime = onnx_whisper.OnnxWhisper(*graphs, shared_pool=True, keep=True)
lap("graphs and tokenizer")
samples = audio.load(job["clip"]).samples
lap("sound file")
text = transcribe.transcribe(runtime, samples, Options(language=job["language"])).text
lap("the text")
opening = dict(laps)
paths = sessions.find_pair(job["folder"], job["name"], job["precision"], job["optimized"])
laps.clear()
tokenizer.Tokenizer.from_folder(names.runtime_folder(job["folder"], job["name"]))
lap("tokenizer")
for part, path in paths.items():
    options, kept = sessions.session_options(part, None, True), prepared.find(path)
    if kept:
        kept.open(options)
    else:
        onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    lap(f"{part}'s session, and its checksum")
print(json.dumps({"stages": opening, "opening": laps, "text": text}))
"""


def main(argv: list[str] | None = None) -> int:
    """Measure in turn, show, write."""
    args = arguments(argv)
    started, load = time.time(), idle.load_before()
    prepare.compile_modules()
    checkpoint, folder = prepare.graphs(args)
    job = {"folder": str(folder), "name": checkpoint.name, "clip": str(Path(args.clip).resolve()), "language": "en",
           "threads": args.threads or machine.usable_cores()}
    jobs = {name: job | {"precision": precision, "optimized": optimized}
            for name, (precision, optimized) in GRAPHS.items()}
    for one in jobs.values():
        cold(one)  # the first start here, which keeps what was prepared; on the disk's side, too, it is the first
    host = idle.Host()
    colds = [(name, host.quiet(functools.partial(cold, one))
              | {"unkept": host.quiet(functools.partial(cold, one, kept=False))["stages"]})
             for _ in range(args.rounds) for name, one in jobs.items()]
    alone = host.quiet(functools.partial(tokens_alone, jobs, args.rounds, args.tokens))
    rows = {name: {"operators": operators(one, args.tokens), "token": alone[name],
                   **medians([found for other, found in colds if other == name])} for name, one in jobs.items()}
    document = {"schema": SCHEMA, "machine": machine.card(job["threads"]), "load_before": round(load, 2),
                **host.facts(),
                "duration_s": round(time.time() - started), "model": checkpoint.name,
                "clip_s": round(audio.load(args.clip).duration, 2), "settings": {"rounds": args.rounds,
                                                                                "tokens": args.tokens}, "graphs": rows}
    files.write_json(Path(args.output_dir) / "time-spent.json", document)
    console.result(table(document))
    console.result(f"{args.output_dir}/time-spent.json after {document['duration_s']} s")
    return 0


# Measuring -----------------------------------------------------------------------------------------------------------

def cold(job: dict, kept: bool = True) -> dict:
    """{"stages": {name: s}, "opening": {name: s}} of a fresh process. Raises LabError where it fails.

    kept: it may open what onnxruntime prepared for an earlier one.
    """
    done = subprocess.run([sys.executable, "-c", COLD, json.dumps(job), str(time.time())], capture_output=True,
                          text=True, timeout=TIMEOUT, env=os.environ | {"PYTHONPATH": str(HERE.parent)}
                          | ({} if kept else {prepared.PLACE: prepared.NOT_KEPT}))
    if done.returncode:
        raise LabError(f"a cold start failed: {prepare.last_line(done.stderr)}", "write the graphs again with 03")
    found = json.loads(done.stdout.splitlines()[-1])
    if not found.pop("text"):
        raise LabError(f"nothing was heard in {job['clip']}", "name a clip in English: --clip FILE")
    return found


def medians(rows: list[dict]) -> dict:
    """One row of several: the median of each stage, in s."""
    return {kind: {name: statistics.median(row[kind][name] for row in rows) for name in rows[0][kind]}
            for kind in ("stages", "opening", "unkept")}


def tokens_alone(jobs: dict[str, dict], rounds: int, tokens: int) -> dict[str, dict[str, float]]:
    """{graphs: {after what: s of a token}}, without a profiler, the pairs in turn; medians of rounds x tokens."""
    from whisper_lab.onnx_whisper import OnnxWhisper

    runtimes = {name: OnnxWhisper(job["folder"], job["name"], job["precision"], job["threads"], job["optimized"])
                for name, job in jobs.items()}
    found: dict[str, dict[str, float]] = {name: {} for name in jobs}
    spec = next(iter(runtimes.values())).spec
    for kind, (frames, rows) in _kinds(spec).items():
        silence = np.zeros((rows, spec.n_mels, frames), np.float32)
        crosses = {name: runtime.encode(silence) for name, runtime in runtimes.items()}
        laps: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(rounds):
            for name, runtime in runtimes.items():
                laps[name] += _laps(runtime, crosses[name], rows, tokens)
        for name, times in laps.items():
            found[name][kind] = statistics.median(times)
    return found


def _kinds(spec) -> dict[str, tuple[int, int]]:
    """{after what: (frames of the window, recordings)}"""
    second, whole = spec.sampling_rate // spec.hop_length, spec.n_frames
    return {f"{SHORT_S:g} s": (round(SHORT_S * second), 1), f"{whole / second:g} s": (whole, 1),
            f"{BATCH} x {whole / second:g} s": (whole, BATCH)}


def _laps(runtime, cross, rows: int, tokens: int) -> list[float]:
    """s of each of so many tokens; the prompt and WARM tokens before them are not counted."""
    cache, token, laps = None, np.full((rows, 1), runtime.rules.start, np.int64), []
    for _ in range(1 + WARM + tokens):
        started = time.perf_counter()
        _, cache = runtime.step(token, cross, cache)
        laps.append(time.perf_counter() - started)
    return laps[1 + WARM:]


def operators(job: dict, tokens: int) -> dict:
    """{part: {"seconds": of a run, "operators": {name: s of it}}}, with onnxruntime's profiler on."""
    import onnxruntime

    from whisper_lab import sessions
    from whisper_lab.features import log_mel
    from whisper_lab.onnx_whisper import OnnxWhisper

    pair = job["folder"], job["name"], job["precision"]
    known, opened = OnnxWhisper(*pair, job["threads"], job["optimized"]), {}
    with tempfile.TemporaryDirectory() as place:
        for part, path in sessions.find_pair(*pair, job["optimized"]).items():
            options = sessions.session_options(part, job["threads"], False)
            options.enable_profiling, options.profile_file_prefix = True, f"{place}/{part}"
            opened[part] = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        runtime = OnnxWhisper.of_sessions(opened["encoder"], opened["decoder"], known)
        features = log_mel(audio.load(job["clip"]).samples, known.spec)[None]
        for _ in range(WARM + WINDOWS):
            cross = runtime.encode(features)
        cache, token = None, np.array([[known.rules.start]], np.int64)
        for _ in range(WARM + tokens):
            _, cache = runtime.step(token, cross, cache)
        return {part: spent(Path(session.end_profiling())) for part, session in opened.items()}


def spent(path: Path) -> dict:
    """What onnxruntime's profile says of a run, on average, the first WARM left out: s in all, and of each operator."""
    events = json.loads(path.read_text(encoding="utf-8"))
    runs = sorted((event["ts"], event["dur"]) for event in events if event["name"] == "model_run")[WARM:]
    found: dict[str, float] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= runs[0][0]:
            name = event["args"]["op_name"]
            found[name] = found.get(name, 0.0) + event["dur"] / 1e6 / len(runs)
    return {"seconds": sum(duration for _, duration in runs) / 1e6 / len(runs),
            "operators": dict(sorted(found.items(), key=lambda item: -item[1]))}


# Showing -------------------------------------------------------------------------------------------------------------

def table(document: dict) -> str:
    """Markdown: the stages of a cold start, the operators, and where it was measured."""
    graphs = document["graphs"]
    lines = [f"| cold start, ms | {' | '.join(graphs)} |", "|---|" + "---|" * len(graphs)]
    for kind, mark in (("stages", ""), ("opening", "of that, each alone: ")):
        if kind == "opening":
            lines += [_row("**in all**", [sum(row["stages"].values()) for row in graphs.values()]),
                      _row("in all, where nothing was prepared by an earlier start",
                           [sum(row["unkept"].values()) for row in graphs.values()])]
        lines += [_row(mark + name, [row[kind][name] for row in graphs.values()])
                  for name in next(iter(graphs.values()))[kind]]
    lines += ["", f"| a token, ms | {' | '.join(graphs)} |", "|---|" + "---|" * len(graphs)]
    lines += [_row(f"after {kind}", [row["token"][kind] for row in graphs.values()], 2)
              for kind in next(iter(graphs.values()))["token"]]
    lines += ["", "| run | ms | of that |", "|---|---|---|"]
    for name, row in graphs.items():
        for part, found in row["operators"].items():
            shares = [(operator, seconds / found["seconds"]) for operator, seconds in found["operators"].items()]
            named = [f"{operator} {100 * share:.0f} %" for operator, share in shares if share >= SHOWN]
            rest = 1 - sum(share for _, share in shares if share >= SHOWN)
            lines.append(f"| {name}, {PARTS[part]} | {1000 * found['seconds']:.2f} | {', '.join(named)}, "
                         f"everything else {100 * rest:.0f} % |")
    settings = document["settings"]
    return "\n".join([*lines, "", f"{document['model']}; cold: medians of {settings['rounds']} processes, a clip of "
                      f"{document['clip_s']:g} s; a token: medians of {settings['rounds']} x {settings['tokens']}, the "
                      f"pairs in turn; operators: {WINDOWS} windows and {settings['tokens']} tokens, "
                      "onnxruntime's profiler on, which makes a token take longer. Load before the start "
                      f"{document['load_before']}{idle.in_words(document)}. "
                      f"{machine.one_line(document['machine'])}."])


def _row(name: str, seconds: list[float], digits: int = 0) -> str:
    return f"| {name} | {' | '.join(f'{1000 * value:.{digits}f}' for value in seconds)} |"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line; wrong usage ends here with exit status 2."""
    parser = flags.parser(__doc__, "model", "threads", "quiet", "log_level")
    parser.add_argument("--graphs", metavar="DIR", help="where 03 wrote both int8 pairs (default: made for this)")
    parser.add_argument("--clip", default=str(HERE.parent / "media" / "hello.wav"), metavar="FILE",
                        help="English, shorter than a window (default: media/hello.wav)")
    parser.add_argument("--rounds", type=flags.between(1, 50, int), default=7, metavar="N",
                        help="cold starts of each (default: %(default)s)")
    parser.add_argument("--tokens", type=flags.between(1, 200, int), default=64, metavar="N",
                        help="in the profile (default: %(default)s)")
    parser.add_argument("--output-dir", default=str(HERE), metavar="DIR", help="(default: this folder)")
    return flags.parse(parser, argv)


if __name__ == "__main__":
    console.run(main)
