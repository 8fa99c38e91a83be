"""This lab beside its peers: the same checkpoint, the same 30 s of speech, the same number of greedy tokens.

    python benchmarks/run.py                               # make benchmark: everything, -> benchmarks/RESULTS.md
    python benchmarks/run.py --only 'lab|faster' --rounds 1 --tokens 8 --output-dir /tmp/trial
    python benchmarks/run.py --random small                # random weights, for a size that cannot be had

Each measurement is a fresh process: one cold transcript, then warm ones. The peers take turns, round after round, so
that a machine that slows down slows all of them. The end token is forbidden, so that every peer writes as many tokens,
and those of the float32 peers must be the same. Words are not counted here: benchmarks/accuracy.py does that.
"""

import argparse
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

import prepare  # noqa: E402
import report  # noqa: E402
from prepare import Unavailable  # noqa: E402

from whisper_lab import checkpoints, console, files, machine  # noqa: E402

TIMEOUT = 600  # s for one process; the slowest peer needs 10 on two idle cores
SECONDS = 30  # of sound: one window of the published models


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


def lab(name: str, **setting) -> Peer:
    return Peer(f"this lab {name}", "lab.py", None, "graphs", setting)


PEERS = [
    lab("fp32", precision="fp32"), lab("fp16", precision="fp16"), lab("int8", precision="int8"),
    lab("int4", precision="int4"), lab("int8 optimized", precision="int8", optimized=True),
    lab("fp32, beam 5", precision="fp32", beams=5), lab("int8, beam 5", precision="int8", beams=5),
    lab("int8 optimized, beam 5", precision="int8", optimized=True, beams=5),
    Peer("transformers fp32", "transformers_peer.py", setting={"dtype": "float32"}),
    Peer("transformers bf16", "transformers_peer.py", setting={"dtype": "bfloat16"}),
    Peer("optimum-onnx fp32", "optimum_peer.py", "optimum", "optimum"),
    Peer("faster-whisper fp32", "faster_whisper_peer.py", "faster-whisper", "ct2-float32",
         {"compute_type": "float32"}),
    Peer("faster-whisper int8", "faster_whisper_peer.py", "faster-whisper", "ct2-int8", {"compute_type": "int8"}),
    Peer("onnxruntime-genai int8", "genai_peer.py", "genai", "genai-int8",
         note="encoder: what the first token takes beyond a later one"),
    Peer("onnxruntime-genai int4", "genai_peer.py", "genai", "genai-int4",
         note="encoder: what the first token takes beyond a later one"),
    Peer("whisper.cpp f16", "whispercpp_peer.py", "whispercpp", "whispercpp",
         note="tokens given, not chosen: its Python binding returns no logits"),
    Peer("sherpa-onnx int8", "", reason="its wheel has no exporter, and cannot be told to write a given number of "
         "tokens: its recognizer stops at the end token or at half of the decoder's positions"),
]


def main(argv: list[str] | None = None) -> int:
    """Prepare, measure in rounds, write results.json and RESULTS.md."""
    args = arguments(argv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    started, load = time.time(), os.getloadavg()[0]
    if load > 0.5:
        console.warn(f"the machine is not idle (load {load:.1f}): times will be too long, and uneven")
    source, random_weights = checkpoint(args)
    clip = write_clip(prepare.WORK / "clip.wav")
    chosen = [peer for peer in PEERS if re.search(args.only, peer.name)]
    rows = {peer.name: {**asdict(peer), "runs": []} for peer in chosen}
    ready = [job for peer in chosen if (job := job_of(peer, source, clip, args, rows[peer.name]))]
    limits = measure_limits(args.threads)
    turns = [job for _ in range(args.rounds) for job in ready]
    for peer, job in console.progress(turns, description="measuring", unit="process"):
        measure(peer, job, rows[peer.name])
    document = {"schema": "whisper-onnx-lab/benchmark/1", "machine": machine.card(args.threads),
                "load_before": round(load, 2), "duration_s": round(time.time() - started), "limits": limits,
                "model": {"name": source.name, "random_weights": random_weights, "config": model_config(source)},
                "settings": {key: getattr(args, key) for key in ("rounds", "repeats", "tokens", "threads")},
                "graph_bytes": graph_sizes(source), "cross_types": cross_types(source), "peers": list(rows.values())}
    files.write_json(Path(args.output_dir) / "results.json", document)
    files.write_text(Path(args.output_dir) / "RESULTS.md", report.markdown(document))
    print(f"{args.output_dir}/RESULTS.md and results.json after {document['duration_s']} s")
    return 0


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


def measure(peer: Peer, job: dict, row: dict) -> None:
    """One fresh process; its line of JSON, or the reason why there is none, goes into the row."""
    command = [job["python"], str(HERE / "peers" / peer.script)]
    told = {key: value for key, value in job.items() if key != "python"} | {"started": time.time()}
    environment = {**os.environ, "OMP_NUM_THREADS": str(job["threads"])}
    try:
        done = subprocess.run([*command, json.dumps(told)], capture_output=True, text=True, timeout=TIMEOUT,
                              env=environment)
        if done.returncode:
            raise ValueError(f"exit status {done.returncode}: {prepare.last_line(done.stderr)}")
        row["runs"].append(json.loads(done.stdout.strip().splitlines()[-1]))
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        row["reason"] = str(error) if isinstance(error, ValueError) else f"no result within {TIMEOUT} s"
        console.warn(f"{peer.name}: {row['reason']}")


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


def cross_types(source: Path) -> dict[str, str]:
    """Element type of the cross caches that each decoder reads, such as {"decoder_int8": "float32"}."""
    from whisper_lab.export import metadata

    return {path.stem.removeprefix(f"{source.name}_"): json.loads(metadata.read(path)["cache_types"])["cross"]
            for path in graphs_of(source) if "_decoder" in path.stem}


def graph_sizes(source: Path) -> dict[str, int]:
    """Bytes of each graph of this lab, such as encoder_int8."""
    return {path.stem.removeprefix(f"{source.name}_"): path.stat().st_size
            + (data.stat().st_size if (data := path.with_name(path.name + ".data")).exists() else 0)
            for path in graphs_of(source)}


def write_clip(path: Path) -> Path:
    """The first 30 s of the longest clip in media/; the number of tokens is given, so other speech takes as long."""
    from whisper_lab import audio

    samples = audio.load(HERE.parent / "media" / "long.flac").samples
    audio.write_wav(path, samples[:SECONDS * audio.SAMPLE_RATE])
    return path


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = console.parser(__doc__, "model", "threads", "output_dir", "quiet", "log_level", output_dir=str(HERE))
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes for each peer (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="warm transcripts in each (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="greedy tokens (default: %(default)s)")
    parser.add_argument("--random", metavar="SIZE", help="random weights of this published size, in place of --model")
    parser.add_argument("--only", default="", metavar="REGEX", help="peers to run (default: all)")
    args = console.parse(parser, argv)
    args.threads = args.threads or machine.usable_cores()
    if min(args.rounds, args.repeats) < 1 or args.tokens < 2:
        parser.error("--rounds and --repeats start at 1, --tokens at 2")
    return args


if __name__ == "__main__":
    console.run(main)
