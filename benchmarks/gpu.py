"""What a GPU does: 06 on CUDA, for every published size, in each dtype, one clip at a time and many at once.

    python benchmarks/gpu.py --clips FOLDER                         # every size -> benchmarks/gpu.json
    python benchmarks/gpu.py --clips FOLDER --models base --repeats 5
    python benchmarks/gpu.py --clips FOLDER --models large-v3-random --batch-sizes 1,16
    python benchmarks/gpu.py --corpus FOLDER --models base          # its words in each dtype, beside the processor's

A model whose name ends in -random is made here, with random weights, and has 64 tokens in every window: its times and
joules are a published model's, its texts mean nothing. The word error rate of the others is that of the clips, which
want a references.json beside them. Each row is a fresh process; one that is measured again replaces its row.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import prepare  # noqa: E402

from whisper_lab import console, files, flags, machine  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

SCHEMA = "whisper-onnx-lab/gpu/1"
MODELS = ("base", "tiny-random", "base-random", "small-random", "medium-random", "large-v3-random", "turbo-random")
RANDOM = "-random"
DTYPES = ("float32", "float16", "bfloat16")


def main(argv: list[str] | None = None) -> int:
    """Model by model, dtype by dtype; the document is written after every process."""
    args = arguments(argv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    old = json.loads(args.output.read_text(encoding="utf-8")) if args.output.is_file() else {}
    rows = {(row["model"], row["dtype"], row["batch_size"]): row for row in old.get("rows", [])}
    kept = {"schema": SCHEMA, "words": [], "machine": None, "rows": []} | old
    for model in args.models if args.clips else ():
        for dtype in args.dtypes:
            console.note("model", f"{model}, {dtype}", f"batch sizes {args.batch_sizes}")
            document = profile(model_path(model), args.clips, dtype, args.device, "--batch-size", args.batch_sizes,
                               "--repeats", str(args.repeats), "--min-seconds", "2", "--language", "en")
            for row in rows_of(document):
                rows[row["model"], row["dtype"], row["batch_size"]] = row
            kept |= {"machine": document["machine"], "rows": in_order(rows)}
            files.write_json(args.output, kept)
    if args.corpus:
        files.write_json(args.output, kept | {"words": words(trained(args.models)[0], args)})
    return 0


def trained(models: list[str]) -> list[str]:
    """Those whose texts mean something."""
    return [model for model in models if not model.endswith(RANDOM)]


def arguments(argv: list[str] | None):
    """The command line."""
    parser = flags.parser(__doc__, "quiet", "log_level")
    parser.add_argument("--clips", metavar="FOLDER", help="English sound files of less than 30 s, each one window, "
                        "with a references.json: times and joules")
    parser.add_argument("--corpus", metavar="FOLDER", help="such files in any language: word errors of the first "
                        "model that has weights of its own")
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME", help="default: %(default)s")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float32", "float16"],
                        help="default: %(default)s")
    parser.add_argument("--batch-sizes", default="1,16", metavar="N,N", help="default: %(default)s")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="timed passes (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=HERE / "gpu.json", metavar="FILE", help="default: %(default)s")
    args = flags.parse(parser, argv)
    if not args.clips and not args.corpus:
        parser.error("--clips FOLDER measures times, --corpus FOLDER words: give one of them, or both")
    if args.corpus and not trained(args.models):
        parser.error("random weights write no words to compare: --corpus needs a model such as base")
    return args


def model_path(model: str) -> str:
    """What 06 calls it; a random checkpoint is made where it is not there yet."""
    return str(prepare.random_checkpoint(model.removesuffix(RANDOM))) if model.endswith(RANDOM) else model


def profile(checkpoint: str, folder: str, dtype: str, device: str, *options: str) -> dict:
    """One process of 06 on the clips of a folder; its document. Raises LabError where it fails."""
    path = prepare.WORK / "gpu-profile.json"
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "06-profile-energy.py", str(Path(folder).resolve()), "--model", checkpoint,
               "--device", device, "--dtype", dtype, *options, "--quiet", "--json", str(path)]
    done = subprocess.run(command, cwd=prepare.ROOT, stdout=subprocess.DEVNULL)
    if done.returncode or not path.is_file():
        raise LabError(f"06 ended with status {done.returncode} for {checkpoint} in {dtype}",
                       "its own error stands above; --models and --dtypes choose what is measured")
    return json.loads(path.read_text(encoding="utf-8"))


def words(checkpoint: str, args) -> list[dict]:
    """The word error rate on the corpus: the processor's float32 first, then the GPU's dtypes."""
    documents = [profile(checkpoint, args.corpus, dtype, device, "--repeats", "1", "--warm-up", "0", "--idle-seconds",
                         "0") for device, dtype in (("cpu", "float32"), *((args.device, one) for one in DTYPES))]
    return words_of(documents)


def words_of(documents: list[dict]) -> list[dict]:
    """A row for each document of 06; `other_texts`: clips of which it wrote another text than the first one did."""
    texts = [[entry["text"] for entry in document["transcriptions"]] for document in documents]
    return [{"model": document["checkpoint"]["name"], "device": document["device"],
             "dtype": document["torch_dtype"].removeprefix("torch."), "clips": document["total_samples"],
             "reference_words": document["reference_words"], "wer": document["wer"],
             "other_texts": sum(a != b for a, b in zip(own, texts[0], strict=True))}
            for document, own in zip(documents, texts, strict=True)]


def rows_of(document: dict) -> list[dict]:
    """A row for each batch size; seconds, bytes, joules, watts."""
    return [{"model": document["checkpoint"]["name"], "device": document["device"],
             "dtype": document["torch_dtype"].removeprefix("torch."),
             "batch_size": batch["batch_size"], "parameters": document["model_parameters"],
             "random_weights": document["checkpoint"]["random_weights"],
             "clips": document["total_samples"],
             "audio_s": batch["total_audio_duration"], "repeats": batch["repeats"],
             "tokens": batch["tokens"], "inference_time_s": batch["inference_time_s"],
             "average_rtf": batch["average_rtf"], "time_to_first_token_s": batch["time_to_first_token_s"]["mean"],
             "phases_s": batch["phases_s"], "peak_gpu_bytes": batch.get("peak_gpu_bytes"),
             "operations_per_second": batch["operations_per_second"], "energy": energy_of(batch["energy"]),
             "wer": document["wer"]} for batch in document["batches"]]


def energy_of(entry: dict) -> dict:
    """What a table needs of it; the reason where there are no joules."""
    wanted = ("method", "source", "net_energy_j", "average_power_w", "idle_power_w", "energy_per_audio_s_j",
              "energy_per_token_j", "audio_s", "reason", "also")
    return {key: entry[key] for key in wanted if key in entry}


def in_order(rows: dict) -> list[dict]:
    """The models as they are listed above, others after them."""
    place = {f"whisper-{model}": number for number, model in enumerate(MODELS)}
    return [rows[key] for key in sorted(rows, key=lambda key: (place.get(key[0], len(place)), key[0],
                                                               DTYPES.index(key[1]), key[2]))]


def table(document: dict) -> str:
    """Markdown: a line for each model, dtype and batch size, and what the words are worth."""
    lines = ["| model | parameters | dtype | clips at once | times real time | first token, ms | peak GPU memory, GB "
             "| J per second of sound, net | average W | WER % |", "|---|---|---|---|---|---|---|---|---|---|"]
    lines += [f"| {' | '.join(cells(row))} |" for row in document["rows"]]
    return "\n".join([*lines, "", *words_line(document["words"]), described(document)])


def words_line(words: list[dict]) -> list[str]:
    """The words of each dtype in one sentence, and an empty line."""
    if not words:
        return []
    first, *others = words
    listed = ", ".join(f"{100 * row['wer']:.1f} % in {row['dtype']} (another text in "
                       f"{console.count(row['other_texts'], 'clip')})" for row in others)
    return [f"Words of {first['model']} on {first['clips']} clips, {first['reference_words']} words, each clip's "
            f"language given where it is known: word error rate {100 * first['wer']:.1f} % on the processor in "
            f"{first['dtype']}; on the GPU {listed}.", ""]


def described(document: dict) -> str:
    """What was measured, with what, where."""
    rows, first = document["rows"], document["rows"][0]
    idle = [row["energy"]["idle_power_w"] for row in rows if row["energy"].get("idle_power_w")]
    power = f", {min(idle):.0f} to {max(idle):.0f} W" if idle else ""
    return (f"{first['clips']} English clips, {first['audio_s']:.0f} s of sound, each one window; at least "
            f"{min(row['repeats'] for row in rows)} passes; random weights have 64 tokens in every window and no word "
            f"error rate. Energy: {first['energy']['source']}, less what the board takes idle with the model "
            f"loaded{power}. {machine.one_line(document['machine'])}.")


def cells(row: dict) -> list[str]:
    """One line of the table."""
    energy, known = row["energy"], row["energy"].get("net_energy_j") is not None
    net = energy["net_energy_j"] / energy["audio_s"] if known else None
    name = row["model"].removeprefix("whisper-").replace("-random", ", random")
    return [name, f"{row['parameters'] / 1e6:.0f} M", row["dtype"], str(row["batch_size"]),
            f"{1 / row['average_rtf']:.0f}", f"{1e3 * row['time_to_first_token_s']:.0f}",
            f"{row['peak_gpu_bytes'] / 1e9:.2f}" if row["peak_gpu_bytes"] else "–",
            f"{net:.2f}" if known else "–", f"{energy['average_power_w']:.0f}" if known else "–",
            "–" if row["wer"] is None else f"{100 * row['wer']:.1f}"]


if __name__ == "__main__":
    console.run(main)
