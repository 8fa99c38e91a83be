"""The layouts of 03 in the runtimes that they are for, beside each runtime's own export of the same weights.

    python benchmarks/runtimes.py --corpus FOLDER                     # -> benchmarks/runtimes.json
    python benchmarks/runtimes.py --corpus media --model nano --only 'transformers.js' --output-dir reports

Every row hears the same clips in a process of its own: English, shorter than sherpa-onnx hears, each with one greedy
pass without timestamps. What a row heard is kept in --cache as soon as it is there, so that an interrupted run goes on;
a row whose graphs, program and packages are the same is not measured again. A runtime that cannot take a graph has the
error in its row. `python -m tools.documents` writes the table into docs/runtimes.md.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import accuracy  # noqa: E402
import corpora  # noqa: E402
import prepare  # noqa: E402
import scoring  # noqa: E402
import speech  # noqa: E402

from whisper_lab import checkpoints, console, files, flags, machine  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

SCHEMA = "whisper-onnx-lab/runtimes/1"
KEPT = HERE / "runtimes.json"
CLIPS = 24
LONGEST = 28  # s; sherpa-onnx cuts what is longer than 29.5
OURS, OWN = "03 --layout", "its own export"
NAMES = {"optimum": "optimum-onnx", "transformersjs": "transformers.js", "chromium": "transformers.js in Chromium",
         "sherpa": "sherpa-onnx"}
JAVASCRIPT = {"transformersjs": "hear.mjs", "chromium": "page.html"}  # what asks transformers.js
DTYPES = {"fp32": "fp32", "fp16": "fp16", "int8": "q8", "int4": "q4"}


@dataclass(frozen=True)
class Row:
    """A runtime on one pair of graphs. `folder`: of the artefact, where the graphs are; "" for the artefact itself."""

    runtime: str
    graphs: str
    precision: str
    script: str
    artefact: str
    environment: str | None = None
    folder: str = ""
    setting: dict = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.runtime}, {self.graphs}, {self.precision}"


def rows() -> list[Row]:
    """All that is measured: each runtime on its layout in every precision, and on its own export."""
    lab = {"script": "lab.py", "artefact": "layouts", "packages": ("onnxruntime",)}
    optimum = {"script": "optimum_peer.py", "environment": "optimum",
               "packages": ("optimum-onnx", "transformers", "onnxruntime")}
    node, chromium = {"script": "transformersjs_peer.py"}, {"script": "transformersjs_browser_peer.py"}
    sherpa = {"script": "sherpa_peer.py", "environment": "sherpa-onnx", "packages": ("sherpa-onnx",)}
    found = [Row("this lab", "03", precision, **lab, setting={"precision": precision, "audio_context": "full"})
             for precision in DTYPES]
    for kind, layout, more in (("optimum", "optimum", optimum), ("transformersjs", "optimum", node),
                               ("chromium", "optimum", chromium), ("sherpa", "sherpa", sherpa)):
        found += [Row(NAMES[kind], f"{OURS} {layout}", precision, artefact="layouts", folder=f"{precision}_{layout}",
                      setting={"dtype": dtype} if kind in JAVASCRIPT else {}, **more)
                  for precision, dtype in DTYPES.items()]
        found += own(kind, more)
    return found


def own(kind: str, more: dict) -> list[Row]:
    """What the runtime's own tools make of the checkpoint."""
    if kind == "sherpa":
        return [Row(NAMES[kind], OWN, "int8", artefact="sherpa-onnx-int8", **more,
                    note="its converter fetches OpenAI's weights; what it writes, made by benchmarks/sherpa_layout.py")]
    where = {"fp32": ("optimum", "fp32"), "int8": ("onnx-asr-int8", "int8")}
    return [Row(NAMES[kind], OWN, precision, artefact=artefact, **more,
                setting={"dtype": dtype, "subfolder": ""} if kind in JAVASCRIPT else {},
                note="optimum-cli export onnx" + ", then quantize_dynamic" * (precision == "int8"))
            for precision, (artefact, dtype) in where.items()]


def main(argv: list[str] | None = None) -> int:
    """Choose clips, ask every row, count, write."""
    args = arguments(argv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    checkpoint = checkpoints.resolve(args.model)
    sounds = choose(args, checkpoint.folder)
    chosen = [row for row in rows() if re.search(args.only, row.name)]
    if not chosen:
        raise LabError(f"no row matches '{args.only}'", f"choose from {'; '.join(row.name for row in rows())}")
    found = [measure(row, checkpoint.folder, sounds, args) for row in chosen]
    document = {"schema": SCHEMA, "machine": machine.card(args.threads),
                "model": {"name": checkpoint.name, "random_weights": checkpoint.random_weights},
                "corpus": {"name": Path(args.corpus).resolve().name if Path(args.corpus).exists() else args.corpus,
                           "clips": len(sounds), "seconds": round(sum(sound.seconds for sound in sounds), 1)},
                "threads": args.threads, "repeats": args.repeats,
                "rows": count(found, sounds, scoring.Scorer(checkpoint.folder))}
    path = files.write_json(Path(args.output_dir) / KEPT.name, document)
    console.result(table(document))
    console.note("written", path, "python -m tools.documents puts it into docs/runtimes.md")
    return 0


def choose(args, folder: Path) -> list[accuracy.Sound]:
    """English clips from the shortest to the longest at equal steps. Raises LabError where there is none."""
    clips = [clip for clip in corpora.read(args.corpus)[0] if clip.language == "en"]
    short = [sound for sound in accuracy.prepare_sounds(clips, folder) if not sound.long and sound.seconds < LONGEST]
    if not short:
        raise LabError(f"{args.corpus} has no English clip that fits into a window", "take media, or another folder")
    return speech.spread(short, args.limit)


# Asking -------------------------------------------------------------------------------------------------------------

def measure(row: Row, source: Path, sounds: list[accuracy.Sound], args) -> dict:
    """The row, with versions, bytes and what it heard by clip; or the reason why it heard nothing."""
    found = asdict(row) | {"name": row.name, "reason": "", "versions": {}, "size_bytes": None, "heard": {}}
    try:
        python = prepare.environment(row.environment)
        artefact = prepare.artefact(row.artefact, source)
        folder = artefact if not row.folder else next(artefact.glob(f"*_{row.folder}"))
        if row.graphs == OWN and row.runtime != NAMES["sherpa"]:
            complete(folder, next(prepare.artefact("layouts", source).glob("*_fp32_optimum")))
        graphs = graphs_of(row, folder)
        cache = Path(args.cache) / f"{accuracy.slug(row)}-{fingerprint(row, graphs, args)}.jsonl"
        kept = accuracy.read_cache(cache)
        if wanted := [sound for sound in sounds if sound.key not in kept["rows"]]:
            ask(row, python, source, folder, wanted, cache, args)
            kept = accuracy.read_cache(cache)
        return found | {"versions": kept["versions"], "size_bytes": sum(path.stat().st_size for path in graphs),
                        "heard": {sound.key: kept["rows"][sound.key] for sound in sounds}}
    except (prepare.Unavailable, LabError) as error:
        found["reason"] = getattr(error, "problem", str(error))
        console.warn(f"{row.name}: {found['reason']}")
        return found


def complete(folder: Path, layout: Path) -> None:
    """The tokenizer and the settings where the export left them out: transformers 4 cannot read those of 5."""
    for path in layout.glob("*.json"):
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def graphs_of(row: Row, folder: Path) -> list[Path]:
    """The graphs that a row opens, and their weights in other files."""
    ending = f"_{row.precision}.onnx*" if row.precision != "fp32" else ".onnx*"
    if row.runtime == "this lab":
        return [path for part in ("encoder", "decoder") for path in sorted(folder.glob(f"*_{part}{ending}"))]
    encoder_and_decoder = re.compile(r"encoder|decoder_model_merged|decoder(\.|$)")
    both = [path for path in sorted(folder.rglob("*.onnx*")) if encoder_and_decoder.search(path.name)]
    return [path for path in both if "with_past" not in path.name and path.name != "decoder_model.onnx"]


def fingerprint(row: Row, graphs: list[Path], args) -> str:
    """What a row's texts and times follow from, beside the clips."""
    parts = [repr((row.setting, row.packages, prepare.REQUIREMENTS.get(row.environment), args.threads, args.repeats))]
    for path in graphs:
        with path.open("rb") as file:
            parts.append(hashlib.file_digest(file, "sha256").hexdigest())
    program = [HERE / "peers" / row.script, HERE / "peers" / "harness.py"]
    if asks := [file for kind, file in JAVASCRIPT.items() if row.runtime == NAMES[kind]]:
        program += [HERE / "transformersjs" / name for name in (*asks, "package-lock.json")]
    return prepare.short_digest("\n".join([*parts, *(path.read_text(encoding="utf-8") for path in program)]))


def ask(row: Row, python: Path, source: Path, folder: Path, sounds: list[accuracy.Sound], cache: Path, args) -> None:
    """Let the row's program hear the clips; each answer goes to the cache at once."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    listed, log = (cache.with_suffix(f".{os.getpid()}.{kind}") for kind in ("json", "log"))
    files.write_json(listed, [{"id": sound.key, "wav": str(sound.wav), "language": "en", "long": False}
                              for sound in sounds])
    job = {"clips": str(listed.resolve()), "checkpoint": str(source.resolve()), "artefact": str(folder.resolve()),
           "setting": row.setting, "threads": args.threads, "repeats": args.repeats, "packages": row.packages}
    command = [str(python), str(HERE / "peers" / row.script), json.dumps(job)]
    with console.progress(description=row.name, total=len(sounds), unit="clip") as bar, \
            cache.open("a", encoding="utf-8") as kept:
        for line in accuracy.answers(command, LONGEST, args.threads, log):
            kept.write(json.dumps(line | {"threads": args.threads}, ensure_ascii=False) + "\n")
            kept.flush()
            bar.update("clip" in line)
    listed.unlink()


# Counting -----------------------------------------------------------------------------------------------------------

def count(found: list[dict], sounds: list[accuracy.Sound], scorer: scoring.Scorer) -> list[dict]:
    """The rows with word errors and times in place of texts: no text of a corpus gets into the results."""
    def texts(row: dict) -> list[str]:
        return [row["heard"][sound.key]["text"] for sound in sounds]

    lab = {row["precision"]: texts(row) for row in found if row["runtime"] == "this lab" and row["heard"]}
    counts = {row["name"]: [scorer(sound.clip, text) for sound, text in zip(sounds, texts(row), strict=True)]
              for row in found if row["heard"]}
    base, counted = counts.get("this lab, 03, fp32"), []
    for row in found:
        one = {key: value for key, value in row.items() if key not in ("heard", "script", "packages", "setting")}
        if row["heard"]:
            seconds = [row["heard"][sound.key]["seconds"] for sound in sounds]
            mine, same = counts[row["name"]], lab.get(row["precision"])
            one |= {"wer": scoring.wer(mine), "words": sum(each.words for each in mine),
                    "errors": sum(each.errors for each in mine), "seconds": sum(seconds),
                    "median_s": statistics.median(seconds),
                    "cpu_s": sum(row["heard"][sound.key]["cpu_s"] for sound in sounds),
                    "same_texts": None if same is None else sum(map(str.__eq__, texts(row), same)),
                    "difference": None if base is None or mine is base else scoring.difference(mine, base, seed=0)}
        counted.append(one)
    return counted


COLUMNS = ("runtime", "graphs", "precision", "MB", "median s a clip", "all clips, s", "WER %", "texts as this lab's")


def table(document: dict) -> str:
    """Markdown: the rows, what they heard, and the notes."""
    corpus, lines = document["corpus"], [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    for row in document["rows"]:
        lines.append(f"| {' | '.join([row['runtime'], row['graphs'], row['precision'], *cells(row, corpus)])} |")
    versions = sorted({f"{name} {version}" for row in document["rows"] for name, version in row["versions"].items()})
    notes = list(dict.fromkeys(f"- {row['runtime']}, {row['graphs']}, {row['precision']}: {row['note']}"
                               for row in document["rows"] if row["note"]))
    heard = "each clip once" if document["repeats"] == 1 else f"the median of {document['repeats']} times for each clip"
    clips = f"{console.count(corpus['clips'], 'English clip')} of {corpus['seconds']:.0f} s"
    said = (f"{document['model']['name']} on {clips}, {console.count(document['threads'], 'thread')}, {heard}. "
            f"{machine.one_line(document['machine'])}; {', '.join(versions)}.")
    return "\n".join([*lines, "", said, "", *notes]).strip()


def cells(row: dict, corpus: dict) -> list[str]:
    """The columns behind the name; a row that heard nothing has the reason in place of its times."""
    size = f"{row['size_bytes'] / 1e6:.1f}" if row["size_bytes"] else "–"
    if row["reason"]:
        return [size, row["reason"].replace("|", "\\|"), "–", "–", "–"]
    same = "–" if row["same_texts"] is None else f"{row['same_texts']} of {corpus['clips']}"
    return [size, f"{row['median_s']:.2f}", f"{row['seconds']:.1f}", f"{100 * row['wer']:.1f}", same]


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = flags.parser(__doc__, "model", "threads", "output_dir", "quiet", "log_level", output_dir=str(HERE))
    parser.add_argument("--corpus", default=str(HERE.parent / "media"), metavar="FOLDER|NAME",
                        help="clips with what was said in them, as of accuracy.py (default: media, synthesized)")
    parser.add_argument("--only", default="", metavar="REGEX", help="rows to measure (default: all)")
    parser.add_argument("--limit", type=flags.whole(1), default=CLIPS, metavar="N",
                        help="clips, from the shortest to the longest (default: %(default)s)")
    parser.add_argument("--repeats", type=flags.whole(1), default=1, metavar="N",
                        help="timed transcripts of each clip; the median counts (default: %(default)s)")
    parser.add_argument("--cache", default=str(prepare.WORK / "runtimes"), metavar="DIR",
                        help="where transcripts are kept (default: benchmarks/work/runtimes)")
    args = flags.parse(parser, argv)
    args.threads = args.threads or machine.usable_cores()
    return args


if __name__ == "__main__":
    console.run(main)
