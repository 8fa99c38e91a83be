"""Each file format of whisper_lab.weights against the engine that owns it: the same logits on the same speech?

    pip install ctranslate2==4.8.5 pywhispercpp==1.5.1 numba==0.68.1 more-itertools tiktoken==0.14.0
    python benchmarks/formats.py --checkpoint FOLDER --clip media/hello.wav
    python benchmarks/formats.py --render              # FORMATS.md again from formats.json

In an environment of its own: the lab does not need these engines. openai-whisper is in requirements-nodeps.txt.

A checkpoint in Hugging Face's form is written in every format, with the engine's own converter and quantizer where it
has one. The engine opens that file and computes logits; the lab converts the same file, and transformers computes
logits from the folder, in float32. Reported is the relative difference |a - b| / |b| over all positions, and how many
positions have the same most likely token. What remains is the engine's own arithmetic, beside PyTorch's own rounding.

Writes benchmarks/formats.json and benchmarks/FORMATS.md. An engine that is not installed becomes a row with the reason.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import format_engines, ggml  # noqa: E402
from whisper_lab import audio, checkpoints, console, files, flags, machine  # noqa: E402
from whisper_lab.features import FeatureSpec, log_mel  # noqa: E402
from whisper_lab.tokens import TokenRules  # noqa: E402
from whisper_lab.weights import formats  # noqa: E402

RESULT, TABLE = HERE / "formats.json", HERE / "FORMATS.md"
MOST_TOKENS = 60
MEGA = 1e6
FLOAT32_ABORTS = "not computed: whisper.cpp aborts on float32 files, its convolution wants float16"


@dataclass
class Row:
    """One file format and type. `relative` and `same_tokens` are of the logits, `weights` of the numbers themselves."""

    format: str
    type: str
    engine: str
    arithmetic: str  # what the engine computes in
    megabytes: float | None = None
    positions: int | None = None
    same_tokens: int | None = None
    relative: float | None = None
    weights: float | None = None  # largest difference to what the engine itself makes of them; None: it shows none
    note: str = ""


def main(argv: list[str] | None = None) -> int:
    """Measure every format, or only write the table again."""
    made = flags.parser(__doc__, "threads", "quiet", "log_level")
    made.add_argument("--checkpoint", type=Path, metavar="DIR", help="a Hugging Face folder of trained weights")
    made.add_argument("--clip", type=Path, default=HERE.parent / "media" / "hello.wav", metavar="FILE",
                      help="speech to listen to (default: media/hello.wav)")
    made.add_argument("--render", action="store_true", help="write the table again, measure nothing")
    args = flags.parse(made, argv)
    if not args.render:
        if args.checkpoint is None:
            made.error("--checkpoint is missing")
        files.write_json(RESULT, measure(args.checkpoint, args.clip, args.threads))
    document = json.loads(RESULT.read_text(encoding="utf-8"))
    files.write_text(TABLE, markdown(document))
    console.result(markdown(document))
    return 0


def measure(checkpoint: Path, clip: Path, threads: int | None) -> dict:
    """Every row, with what it was measured on."""
    import torch

    torch.set_num_threads(threads or machine.usable_cores())
    speech = Speech(checkpoint, clip)
    with tempfile.TemporaryDirectory() as work:
        rows = [row for part in (huggingface_rows, openai_rows, ctranslate2_rows, ggml_rows)
                for row in part(speech, Path(work))]
    sizes = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return {"checkpoint": checkpoint.name, "width": sizes["d_model"], "clip": clip.name,
            "seconds": round(speech.seconds, 2), "positions": len(speech.tokens), "rounding": speech.rounding(),
            "versions": {name: machine.version(name) for name in format_engines.PACKAGES},
            "machine": machine.card(threads), "rows": [asdict(row) for row in rows]}


class Speech:
    """What every engine hears and reads: features [1, mel bins, frames], and the text that the checkpoint hears."""

    def __init__(self, checkpoint: Path, clip: Path):
        import torch

        spec, rules = FeatureSpec.from_folder(checkpoint), TokenRules.from_folder(checkpoint)
        heard = audio.load(clip)
        self.checkpoint, self.seconds = checkpoint, heard.duration
        self.features = log_mel(heard.samples, spec)[None]
        prompt = {"language": "en", "task": "transcribe"} if rules.languages else {}
        self.model = load(checkpoint)
        self.prompt = [rules.start, *([rules.languages["en"], rules.tasks["transcribe"]] if prompt else []),
                       rules.no_timestamps]
        ids = self.model.generate(torch.from_numpy(self.features), max_new_tokens=MOST_TOKENS, **prompt)[0].tolist()
        text = [i for i in ids if i < rules.end]
        self.tokens = self.prompt + text

    def logits(self, folder: Path, tokens: list[int] | None = None) -> np.ndarray:
        """transformers' float32 logits of a folder, [positions, vocabulary]."""
        return forward(load(folder), self.features, tokens or self.tokens)

    def rounding(self) -> float:
        """The relative error of PyTorch in float32 against float64: the yardstick of every other difference."""
        single = forward(self.model, self.features, self.tokens)
        double = forward(load(self.checkpoint).double(), self.features.astype(np.float64), self.tokens)
        return relative(single, double)


def load(folder: Path):
    """A folder as transformers opens it, in float32, with every weight accounted for."""
    console.log.setLevel("WARNING")
    return checkpoints.load_model(checkpoints.resolve(str(folder)))


def forward(model, features: np.ndarray, tokens: list[int]) -> np.ndarray:
    """Logits [positions, vocabulary]."""
    import torch

    with torch.inference_mode():
        return model(input_features=torch.from_numpy(features), decoder_input_ids=torch.tensor([tokens])
                     ).logits[0].numpy()


def relative(found: np.ndarray, truth: np.ndarray) -> float:
    """|found - truth| / |truth|, both norms over everything."""
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def compared(row: Row, ours: np.ndarray, theirs: np.ndarray) -> Row:
    """The row with its numbers; both [positions, vocabulary]."""
    row.positions, row.relative = len(theirs), relative(ours, theirs)
    row.same_tokens = int((ours.argmax(1) == theirs.argmax(1)).sum())
    return row


def huggingface_rows(speech: Speech, work: Path) -> Iterator[Row]:
    """Shards, and pytorch_model.bin in float16, against transformers opening them itself."""
    import torch

    for kind in ("safetensors in shards", "pytorch_model.bin"):
        folder, out = work / "hf", work / "out"
        if kind == "pytorch_model.bin":
            copy_but_weights(speech.checkpoint, folder)
            torch.save({name: value.half() for name, value in speech.model.state_dict().items()
                        if name != "proj_out.weight"}, folder / kind)
        else:
            copy_but_weights(speech.checkpoint, folder)
            speech.model.save_pretrained(folder, max_shard_size="100MB")
        row = Row("Hugging Face", kind, "transformers", "float32", size(folder))
        ours = speech.logits(formats.convert(folder, out))
        yield compared(row, ours, speech.logits(folder))
        remove(folder, out)


def openai_rows(speech: Speech, work: Path) -> Iterator[Row]:
    """A .pt of openai-whisper's own classes, float16 as published and float32."""
    for dtype in ("float16", "float32"):
        path, out = work / "model.pt", work / "out"
        row = Row("openai-whisper", f".pt, {dtype}", "openai-whisper", "float32")
        try:
            theirs = format_engines.openai_whisper(speech, path, dtype)
        except ImportError as error:
            row.note = f"not measured: {error}"
        else:
            row.megabytes = size(path)
            shutil.copyfile(speech.checkpoint / "tokenizer.json", path.with_name("tokenizer.json"))
            compared(row, speech.logits(formats.convert(path, out)), theirs)
        yield row
        remove(path, out, path.with_name("tokenizer.json"))


def ctranslate2_rows(speech: Speech, work: Path) -> Iterator[Row]:
    """ctranslate2's own converter and quantizer. On a processor float16 and bfloat16 are computed in float32."""
    for kind in ("float32", "float16", "bfloat16", "int16", "int8", "int8_float16", "int8_bfloat16"):
        folder, out = work / "ct2", work / "out"
        row = Row("CTranslate2", kind, "ctranslate2", "float32")
        try:
            theirs, tokens = format_engines.ctranslate2(speech, folder, kind, "float32")
        except ImportError as error:
            row.note = f"not measured: {error}"
            yield row
            continue
        row.megabytes = size(folder)
        ours = forward(load(formats.convert(folder, out)), speech.features, tokens)[len(speech.prompt) - 1:]
        yield compared(row, ours, theirs)
        if kind == "int8":
            theirs, tokens = format_engines.ctranslate2(speech, folder, None, "int8")
            ours = forward(load(out), speech.features, tokens)[len(speech.prompt) - 1:]
            row = Row("CTranslate2", kind, "ctranslate2", "int8, activations too", row.megabytes)
            yield compared(row, ours, theirs)
        remove(folder, out)


def ggml_rows(speech: Speech, work: Path) -> Iterator[Row]:
    """whisper.cpp's ggml files, by benchmarks/ggml.py; ggml's own quantizer makes the blocks."""
    for kind, ftype in (("f32", 0), ("f16", 1), ("q8_0", 7), ("q5_1", 9), ("q5_0", 8), ("q4_1", 3), ("q4_0", 2)):
        path, out = work / "ggml-model.bin", work / "out"
        row = Row("whisper.cpp", kind, "whisper.cpp (pywhispercpp)",
                  {"f32": "float32", "f16": "float16"}.get(kind, "8 bits, activations too"))
        try:
            encode = format_engines.ggml_quantizer(kind) if kind.startswith("q") else None
            ggml.convert(speech.checkpoint, path, ftype, encode)
            theirs = format_engines.whisper_cpp(speech, path) if kind != "f32" else None
        except ImportError as error:
            row.note = f"not measured: {error}"
        else:
            row.megabytes = size(path)
            formats.convert(path, out)
            if theirs is None:
                row.note, row.weights = FLOAT32_ABORTS, weights_difference(out, speech)
            else:
                compared(row, speech.logits(out), theirs)
            if kind.startswith("q"):
                row.weights = format_engines.ggml_weights_difference(kind, path, out)
        yield row
        remove(path, out)


def weights_difference(folder: Path, speech: Speech) -> float:
    """The largest difference between a folder's weights and the checkpoint's."""
    from safetensors.numpy import load_file

    original = speech.model.state_dict()
    return max(float(np.abs(value - original[name].numpy()).max())
               for name, value in load_file(folder / "model.safetensors").items())


def copy_but_weights(checkpoint: Path, folder: Path) -> None:
    """The small files of a checkpoint."""
    folder.mkdir()
    for file in checkpoint.glob("*.json"):
        shutil.copyfile(file, folder / file.name)


def size(path: Path) -> float:
    """Megabytes of a file, or of the weights in a folder."""
    found = [path] if path.is_file() else [file for file in path.iterdir() if file.suffix in (".bin", ".safetensors")]
    return round(sum(file.stat().st_size for file in found) / MEGA, 1)


def remove(*paths: Path) -> None:
    """Files and folders, where they are."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


COLUMNS = ["format", "type", "MB", "engine", "it computes in", "logits, relative difference", "same token",
           "weights differ by"]


def markdown(document: dict) -> str:
    """FORMATS.md."""
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items() if version)
    return "\n".join([
        "# Weights of every format, against the engine that owns it", "",
        f"{document['checkpoint']} on {document['clip']} ({document['seconds']} s of speech, {document['positions']} "
        "positions): written in each format,",
        "read by its engine and by `whisper_lab.weights`, whose folder transformers computes in float32.",
        f"PyTorch's own rounding on it, float32 against float64, is {document['rounding']:.1e}.", "",
        f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS),
        *(f"| {' | '.join(cells(row))} |" for row in document["rows"]), "",
        "Where the engine computes in fewer bits than float32, the difference is its arithmetic: the last column",
        "compares the weights with ggml's own reading of its blocks, or with the checkpoint's.", "",
        f"{machine.one_line(document['machine'])}; {versions}. Made by `benchmarks/formats.py`.", ""])


def cells(row: dict) -> list[str]:
    """One line of the table."""
    first = [row["format"], row["type"], str(row["megabytes"] or ""), row["engine"], row["arithmetic"]]
    weights = "" if row["weights"] is None else f"{row['weights']:.1g}"
    if row["relative"] is None:
        return [*first, row["note"], "", weights]
    return [*first, f"{row['relative']:.1e}", f"{row['same_tokens']} of {row['positions']}", weights]


if __name__ == "__main__":
    console.run(main)
