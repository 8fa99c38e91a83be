"""This lab beside its peers: the same checkpoint on speech as people use it, and token for token on 30 s of it.

    python benchmarks/run.py --corpus FOLDER               # make benchmark CORPUS=FOLDER -> benchmarks/RESULTS.md
    python benchmarks/run.py --only 'lab|faster' --rounds 1 --tokens 8 --minutes 1 --output-dir reports
    python benchmarks/run.py --random small                # random weights, for a size that cannot be had

Each measurement is a fresh process. The peers take turns, round after round, so that a machine that slows down slows
all of them. First they hear short clips, a long recording, and one clip from a cold start; the word errors of each
are beside its time (speech.py). Then all write the same number of tokens: the end token is forbidden, and the tokens
of the float32 peers must be the same. It refuses to run beside other work, and measures again what the host of a
virtual machine disturbed (idle.py).
"""

import argparse
import functools
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import corpora  # noqa: E402
import idle  # noqa: E402
import prepare  # noqa: E402
import report  # noqa: E402
import scoring  # noqa: E402
import speech  # noqa: E402
from prepare import Unavailable  # noqa: E402

from whisper_lab import checkpoints, console, files, flags, machine, names, prepared  # noqa: E402

TIMEOUT = 600  # s for one process; the slowest peer needs 10 on two idle cores
SECONDS = 30  # of sound: one window of the published models
TOKENS = "tokens"  # the part of the benchmark in which every peer writes as many; speech.PARTS are the others
ALL = (TOKENS, *speech.PARTS)
COMMAND = "python benchmarks/run.py"
# Of --minutes, when each part has to be over: no further round of it begins that would not fit.
SHARES = {"clips": 0.42, "cold": 0.52, "long": 0.84, TOKENS: 1.0}


@dataclass(frozen=True)
class Peer:
    """A row: which file measures it, in which environment, on which conversion of the checkpoint."""

    name: str
    script: str
    environment: str | None = None  # None: this lab's own
    artefact: str | None = None  # None: the checkpoint itself
    setting: dict = field(default_factory=dict)
    note: str = ""
    reason: str = ""  # why it cannot be measured anywhere
    once: tuple[str, ...] = ()  # parts in which it is so slow that one round has to do
    cannot: tuple[str, ...] = ()  # parts that are not for it


def lab(name: str, environment: str | None = None, note: str = "", cannot: tuple[str, ...] = (),
        once: tuple[str, ...] = (), **setting) -> Peer:
    return Peer(f"this lab {name}", "lab.py", environment, "graphs", setting, note, once=once, cannot=cannot)


PEERS = [
    lab("fp32", precision="fp32", once=("long",)), lab("fp16", precision="fp16", cannot=speech.PARTS),
    lab("int8", precision="int8"), lab("int4", precision="int4", cannot=speech.PARTS),
    lab("int8 optimized", precision="int8", optimized=True),
    lab("int8 on OpenVINO", "onnxruntime-openvino", "--provider openvino: the float32 encoder there, and the int8 "
        "decoder on onnxruntime", precision="int8", provider="openvino"),
    lab("fp32, beam 5", precision="fp32", beams=5, once=(TOKENS,), cannot=speech.PARTS),
    lab("int8, beam 5", precision="int8", beams=5, cannot=speech.PARTS),
    lab("int8 optimized, beam 5", precision="int8", optimized=True, beams=5, cannot=speech.PARTS),
    Peer("transformers fp32", "transformers_peer.py", setting={"dtype": "float32"}, cannot=("long",)),
    Peer("transformers bf16", "transformers_peer.py", setting={"dtype": "bfloat16"}, once=(TOKENS,),
         cannot=speech.PARTS),
    Peer("optimum-onnx fp32", "optimum_peer.py", "optimum", "optimum", once=(TOKENS,), cannot=speech.PARTS),
    Peer("faster-whisper fp32", "faster_whisper_peer.py", "faster-whisper", "ct2-float32",
         {"compute_type": "float32"}, once=("clips", "long")),
    Peer("faster-whisper int8", "faster_whisper_peer.py", "faster-whisper", "ct2-int8", {"compute_type": "int8"}),
    Peer("OpenVINO GenAI int8", "openvino_peer.py", "openvino", "openvino-int8", cannot=(TOKENS,)),
    Peer("onnx-asr int8", "onnx_asr_peer.py", "onnx-asr", "onnx-asr-int8", cannot=(TOKENS,), once=("long",),
         note="optimum's graphs in int8, in its layout `whisper`; the long recording cut by its Silero detector"),
    Peer("onnxruntime-genai int8", "genai_peer.py", "genai", "genai-int8", cannot=speech.PARTS,
         note="encoder: what the first token takes beyond a later one"),
    Peer("onnxruntime-genai int4", "genai_peer.py", "genai", "genai-int4", cannot=speech.PARTS,
         note="encoder: what the first token takes beyond a later one"),
    Peer("whisper.cpp f16", "whispercpp_peer.py", "whispercpp", "whispercpp", once=("clips", "long"),
         note="tokens given, not chosen: its Python binding returns no logits"),
    Peer("sherpa-onnx int8", "sherpa_peer.py", "sherpa-onnx", "sherpa-onnx-int8", cannot=(TOKENS, "long"),
         note="its own layout; it hears a clip with 10 s of silence, not a window of 30 s, and no long recording"),
]


def main(argv: list[str] | None = None) -> int:
    """Prepare, measure in rounds, write results.json and RESULTS.md."""
    args = arguments(argv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    prepare.compile_modules()
    load = idle.settled_load(args.anyway)
    idle.refuse_busy(load, COMMAND, args.anyway)
    source, random_weights = checkpoint(args)
    clip = write_clip(prepare.WORK / "clip.wav")
    works = None if random_weights else speech.choose(corpora.read(args.corpus)[0], prepare.WORK / "sounds")
    chosen = [peer for peer in PEERS if re.search(args.only, peer.name)]
    rows = {peer.name: {**asdict(peer), "runs": []} for peer in chosen}
    ready = [job for peer in chosen if (job := job_of(peer, source, clip, args, rows[peer.name]))]
    others, host = idle.refuse_busy(None, COMMAND, args.anyway), idle.Host()
    began = time.monotonic()
    limits, heard = host.quiet(functools.partial(measure_limits, args.threads)), {}
    if works:  # random weights have nothing to say about speech
        heard = {"speech": hear(works, source, ready, args, host)}
    rounds = count_tokens([turn for turn in ready if TOKENS not in turn[0].cannot], rows, args.rounds,
                          began + 60 * args.minutes, host)
    document = {"schema": "whisper-onnx-lab/benchmark/3", "machine": machine.card(args.threads),
                "load_before": round(load, 2), "others_cores": others, **host.facts(),
                "duration_s": round(time.monotonic() - began), "opened_before": opened_before(ready), "limits": limits,
                "model": {"name": source.name, "random_weights": random_weights, "config": model_config(source)},
                "settings": {key: getattr(args, key) for key in ("repeats", "tokens", "threads")} | {"rounds": rounds},
                "graph_bytes": graph_sizes(source), "cross_types": cross_types(source), "peers": list(rows.values()),
                **heard}
    files.write_json(Path(args.output_dir) / "results.json", document)
    report.write(document, Path(args.output_dir))
    print(f"{args.output_dir}/RESULTS.md and results.json{', results.png' * bool(heard)} after "
          f"{document['duration_s']} s")
    return 0


def hear(works: speech.Works, source: Path, ready: list, args: argparse.Namespace, host: idle.Host) -> dict:
    """Every system on speech: what it was, rounds of each part, results."""
    scorer = scoring.Scorer(source)
    heard = speech.Speech(works, scorer, args.threads, prepare.WORK, host)
    heard.measure(ready, args.rounds, {part: args.minutes * SHARES[part] for part in speech.PARTS})
    return {"works": works.describe(scorer), "rounds": heard.finished, "systems": heard.results()}


def opened_before(ready: list) -> bool:
    """Whether all that onnxruntime prepared of this lab's graphs is kept; a warning where it is not."""
    pairs = [names.pair(job["artefact"], names.name_of(Path(job["checkpoint"])), peer.setting["precision"],
                        peer.setting.get("optimized", False))
             for peer, job in ready if peer.script == "lab.py" and peer.environment is None]
    entries = [prepared.entry(graph) for pair in pairs for graph in pair.values()]
    kept = bool(entries) and all(entry is not None and entry.exists() for entry in entries)
    if entries and not kept:
        console.warn("not all that onnxruntime prepared of this lab's graphs is kept: their cold starts are those of "
                     f"first starts; is there room in {prepared.place()}?")
    return kept


def count_tokens(turns: list, rows: dict[str, dict], rounds: int, deadline: float, host: idle.Host) -> int:
    """Rounds of the part with a given number of tokens, as Speech.measure makes them; returns their number."""
    for number in range(rounds):
        began = time.monotonic()
        now = [(peer, job) for peer, job in turns if not number or TOKENS not in peer.once]
        for peer, job in console.progress(now, description=f"tokens, round {number + 1}", unit="process"):
            measure(peer, job, rows[peer.name], host)
        if 2 * time.monotonic() - began > deadline:
            break
    console.note(TOKENS, console.count(number + 1, "round"), "of fresh processes, in turn")
    return number + 1


def checkpoint(args: argparse.Namespace) -> tuple[Path, bool]:
    """The folder of the weights, and whether they are random. Raises LabError where --model cannot be had."""
    if args.random:
        return prepare.random_checkpoint(args.random), True
    found = checkpoints.resolve(args.model)
    return found.folder, found.random_weights


def job_of(peer: Peer, source: Path, clip: Path, args, row: dict) -> tuple[Peer, dict] | None:
    """What the peer's process is told, or None where it cannot run; the row then says why."""
    try:
        if peer.reason:
            raise Unavailable(peer.reason)
        python = prepare.environment(peer.environment)
        artefact = prepare.artefact(peer.artefact, source)
    except Unavailable as error:
        console.warn(f"{peer.name}: {error}")
        row["reason"] = str(error)
        return None
    return peer, {"python": str(python), "clip": str(clip), "checkpoint": str(source), "artefact": str(artefact),
                  "setting": peer.setting, "threads": args.threads, "tokens": args.tokens, "repeats": args.repeats}


def measure(peer: Peer, job: dict, row: dict, host: idle.Host) -> None:
    """Count tokens in a fresh process; what it says, or the reason why it says nothing, goes into the row."""
    try:
        row["runs"].append(host.quiet(functools.partial(count, peer, job)))
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        row["reason"] = str(error) if isinstance(error, ValueError) else f"no result within {TIMEOUT} s"
        console.warn(f"{peer.name}: {row['reason']}")


def count(peer: Peer, job: dict) -> dict:
    """The line of JSON of a peer's process. Raises ValueError, with its last line, where it fails."""
    command = [job["python"], str(HERE / "peers" / peer.script)]
    told = {key: value for key, value in job.items() if key != "python"} | {"started": time.time()}
    done = subprocess.run([*command, json.dumps(told)], capture_output=True, text=True, timeout=TIMEOUT,
                          env={**os.environ, "OMP_NUM_THREADS": str(job["threads"])})
    if done.returncode:
        raise ValueError(f"exit status {done.returncode}: {prepare.last_line(done.stderr)}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure_limits(threads: int) -> dict:
    """What the machine can do at best, from a process of its own."""
    done = subprocess.run([sys.executable, str(HERE / "limits.py"), str(threads)], capture_output=True, text=True,
                          check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def model_config(source: Path) -> dict:
    """The sizes from which bytes and operations are counted."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    return {key: config[key] for key in ("d_model", "encoder_layers", "decoder_layers", "encoder_ffn_dim",
                                         "max_source_positions", "num_mel_bins", "vocab_size")}


def graphs_of(source: Path) -> list[Path]:
    """The graphs that this lab made of the checkpoint."""
    return sorted((prepare.home(source) / "graphs").glob("*.onnx"))


def graph_sizes(source: Path) -> dict[str, int]:
    """Bytes of each graph of this lab, such as encoder_int8."""
    return {path.stem.removeprefix(f"{source.name}_"): path.stat().st_size
            + (data.stat().st_size if (data := path.with_name(path.name + ".data")).exists() else 0)
            for path in graphs_of(source)}


def cross_types(source: Path) -> dict[str, str]:
    """What each precision's decoder reads of a window, such as {"int8 optimized": "int8"}."""
    from whisper_lab.export import metadata

    found = {path.stem.removeprefix(f"{source.name}_decoder").strip("_"): path for path in graphs_of(source)
             if "_decoder" in path.stem}
    return {name.replace("_", " ") or "fp32": json.loads(metadata.read(path)["cache_types"])["cross"]
            for name, path in found.items()}


def write_clip(path: Path) -> Path:
    """The first 30 s of the longest clip in media/; the number of tokens is given, so other speech takes as long."""
    from whisper_lab import audio

    samples = audio.load(HERE.parent / "media" / "long.flac").samples
    audio.write_wav(path, samples[:SECONDS * audio.SAMPLE_RATE])
    return path


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = flags.parser(__doc__, "model", "threads", "output_dir", "quiet", "log_level", output_dir=str(HERE))
    parser.add_argument("--corpus", default=str(HERE.parent / "media"), metavar="FOLDER|NAME",
                        help="clips with what was said in them, as of accuracy.py (default: media, synthesized)")
    parser.add_argument("--minutes", type=float, default=19, metavar="M",
                        help="no further round begins that would not fit (default: %(default)s)")
    parser.add_argument("--anyway", action="store_true", help="measure beside other work too")
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes for each peer (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="warm transcripts in each (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="greedy tokens (default: %(default)s)")
    parser.add_argument("--random", metavar="SIZE", help="random weights of this published size, in place of --model")
    parser.add_argument("--only", default="", metavar="REGEX", help="peers to run (default: all)")
    args = flags.parse(parser, argv)
    args.threads = args.threads or machine.usable_cores()
    if min(args.rounds, args.repeats) < 1 or args.tokens < 2:
        parser.error("--rounds and --repeats start at 1, --tokens at 2")
    return args


if __name__ == "__main__":
    console.run(main)
