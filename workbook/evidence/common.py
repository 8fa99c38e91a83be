"""What every evidence script shares: its flags, its JSON document, its figure, the checkpoint, graphs and clips.

A script measures into an Evidence and draws it::

    def measure(evidence, args):
        evidence.value("wer_right_percent", 3.4, "%")
        evidence.claim("right", "Most words are right.", "De meeste woorden kloppen.", 3.4 < 50, 3.4)

    def draw(evidence, figure):
        figure.subplots().bar(["16 kHz"], [evidence.values["wer_right_percent"]])

    def main(argv=None):
        return common.run("sample_rate", "2.01", __doc__, measure, draw, argv)

DIR/NAME.json holds every number (`values`, with `units`) and every claim; DIR/NAME.png carries the digest of the
values that it was drawn from. Exit status 1 where a claim does not hold; both files are written all the same.
"""

import functools
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from whisper_lab import console, files, flags
from whisper_lab.console import LabError
from workbook.values import FIGURE_KEY, RESULTS, SCHEMA, digest

ROOT = Path(__file__).resolve().parents[2]
MEDIA = ROOT / "media"
GRAPHS = ROOT / "whisper_model_dir"
THREADS = 1  # another program on the second core then disturbs little; latency_cuts also measures two
RATE = 16000  # Hz
LEAST_S = 1.5  # of taking turns: what else a machine does comes and goes
DRAWS = 2000  # of a bootstrap
MOST_BYTES = 110_000  # of a figure
KEPT = "WHISPER_LAB_EVIDENCE_TRANSCRIPTS"  # environment: the folder in which a run keeps what it has transcribed
PRECISIONS = ("fp32", "fp16", "int8", "int4")
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#8c8c8c"  # told apart by colour-blind too


class Evidence:
    """What one script found out. `series` is for the figure alone: it does not go into the JSON document."""

    def __init__(self):
        self.values: dict[str, float | int | str] = {}
        self.units: dict[str, str] = {}
        self.claims: list[dict] = []
        self.stable: list[str] = []
        self.series: dict = {}

    def value(self, key: str, value, unit: str = "", stable: bool = False):
        """Note a value (NumPy numbers become plain ones, floats keep six digits); stable: equal on every machine."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float):
            if not np.isfinite(value):
                raise LabError(f"{key} is {value}", "nothing was measured: look at the script")
            value = float(f"{value:.6g}")
        self.values[key], self.units[key] = value, unit
        self.stable += [key] if stable and key not in self.stable else []
        return value

    def claim(self, name: str, text_en: str, text_nl: str, holds: bool, measured) -> None:
        """A statement that has to hold on any machine, without measured numbers in its text; `measured` says why."""
        if isinstance(measured, np.generic):
            measured = measured.item()
        measured = float(f"{measured:.6g}") if isinstance(measured, float) else measured
        self.claims.append({"id": name, "text_en": text_en, "text_nl": text_nl, "holds": bool(holds),
                            "measured": measured})


# Running a script ----------------------------------------------------------------------------------------------------

def run(name: str, question: str, description: str, measure: Callable, draw: Callable,
        argv: list[str] | None = None) -> int:
    """Measure, draw, write, print; returns 1 where a claim does not hold."""
    parser = flags.parser(description, "output_dir", "seed", "quiet", "log_level", output_dir=str(RESULTS))
    parser.add_argument("--quick", action="store_true", help="fewer repeats and clips, the same claims")
    args = flags.parse(parser, argv)
    from whisper_lab import machine

    np.random.seed(args.seed)
    evidence, started = Evidence(), time.perf_counter()
    measure(evidence, args)
    document = {"schema": SCHEMA, "name": name, "question": question, "machine": machine.card(THREADS),
                "seed": args.seed, "values": evidence.values, "units": evidence.units, "claims": evidence.claims,
                "stable": evidence.stable, "figure": f"{name}.png",
                "duration_s": round(time.perf_counter() - started, 1)}
    _save_figure(Path(args.output_dir) / f"{name}.png", evidence, draw)
    path = files.write_json(Path(args.output_dir) / f"{name}.json", document)
    for claim in evidence.claims:
        console.result(f"{'holds' if claim['holds'] else 'FAILS'}  {claim['text_en']}  [{claim['measured']}]")
    console.note("written", path, f"{len(evidence.values)} values in {document['duration_s']} s")
    return 0 if all(claim["holds"] for claim in evidence.claims) else 1


def _save_figure(path: Path, evidence: Evidence, draw: Callable) -> None:
    """1000 x 560 pixels, letters large enough for a slide, marked with the digest of the values."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    with plt.rc_context({"font.size": 13, "axes.titlesize": 14, "axes.spines.top": False, "axes.spines.right": False}):
        figure = plt.figure(figsize=(10, 5.6), layout="constrained")
        draw(evidence, figure)
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=100)
        plt.close(figure)
    mark = PngInfo()
    mark.add_text(FIGURE_KEY, digest(evidence.values))
    with files.atomic(path) as temporary:
        for colours in (256, 128, 64, 32):  # enough of them for bars and lines; spectrograms make large files
            small = Image.open(drawn).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
            small.save(temporary, pnginfo=mark, optimize=True)
            if temporary.stat().st_size < MOST_BYTES:
                break


# The checkpoint, its graphs, the clips -------------------------------------------------------------------------------

@functools.cache
def checkpoint():
    """whisper-nano."""
    from whisper_lab import checkpoints

    return checkpoints.resolve("nano")


@functools.cache
def best():
    """For what is said about Whisper itself: whisper-base where it is here or can be fetched, else whisper-nano."""
    from whisper_lab import checkpoints

    return checkpoints.resolve(None)


@functools.cache
def best_torch():
    """`best` in PyTorch, float32, on all cores: base is slow, and what is measured on it says nothing of time."""
    import torch

    from whisper_lab import machine
    from whisper_lab.torch_whisper import TorchWhisper

    torch.set_num_threads(machine.usable_cores())
    return _kept(TorchWhisper.load(best()), f"{best().name} PyTorch")


def best_runtime():
    """`best` as it needs no export: base in PyTorch, nano as its graphs."""
    return onnx_runtime() if best().source == "bundled" else best_torch()


@functools.cache
def torch_runtime():
    """whisper-nano in PyTorch, float32, on THREADS threads; attention written out, as the exporter wants it."""
    import torch

    from whisper_lab.torch_whisper import TorchWhisper

    torch.set_num_threads(THREADS)
    return TorchWhisper.load(checkpoint(), attn_implementation="eager")


@functools.cache
def graphs() -> dict[str, dict[str, Path]]:
    """precision -> {"encoder": path, "decoder": path} of these very weights; 03 writes them where they are missing."""
    from whisper_lab import names
    from whisper_lab.export.metadata import weights_sha256

    name = checkpoint().name
    pairs = {precision: names.pair(GRAPHS, name, precision) for precision in PRECISIONS}
    wanted = weights_sha256(checkpoint().folder)
    if not all(_is_of(path, wanted) for pair in pairs.values() for path in pair.values()):
        console.note("graphs", "03 writes them", f"{GRAPHS.name} holds none of these, or an earlier 03 wrote them")
        command = [sys.executable, str(ROOT / "03-export-encoder-decoder.py"), "--model", "nano", "--precision", "all",
                   "--output-dir", str(GRAPHS), "--quiet"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True,
                              env={**os.environ, "HF_HUB_OFFLINE": "1"})
        if done.returncode:
            raise LabError(f"03 could not write the graphs: {done.stderr.strip()[-300:]}", " ".join(command))
    return pairs


def _is_of(graph: Path, weights: str) -> bool:
    """Whether a graph was made from these weights, and by a 03 that lets the encoder hear short windows."""
    import onnx

    if not graph.is_file():
        return False
    notes = {entry.key: entry.value for entry in onnx.load(graph, load_external_data=False).metadata_props}
    return notes.get("weights_sha256") == weights and "silence_s" in notes


@functools.cache
def onnx_runtime(precision: str = "fp32", threads: int = THREADS):
    """whisper-nano's two graphs in onnxruntime."""
    from whisper_lab.onnx_whisper import OnnxWhisper

    graphs()
    return _kept(OnnxWhisper(GRAPHS, checkpoint().name, precision, threads), f"{checkpoint().name} {precision}")


def _kept(runtime, name: str):
    """The runtime, under a name by which its transcripts can be found again."""
    runtime.kept_as = name
    return runtime


@functools.cache
def references() -> dict[str, dict]:
    """media/references.json: clip -> text, language."""
    return json.loads((MEDIA / "references.json").read_text(encoding="utf-8"))


@functools.cache
def samples(clip: str) -> np.ndarray:
    """float32 [n] at 16 kHz of a clip in media/."""
    from whisper_lab import audio

    return audio.load(MEDIA / clip).samples


def english(quick: bool = False) -> list[str]:
    """The short English clips: each fits in nano's window."""
    return ["digits.wav", "kitchen.wav"] if quick else ["digits.wav", "kitchen.wav", "time.wav", "hello.wav"]


def spoken(quick: bool = False) -> list[tuple[np.ndarray, str]]:
    """(samples, text): the short English clips, and unless `quick` the sentences of the long one, cut out."""
    found = [(samples(clip), references()[clip]["text"]) for clip in english(quick)]
    if not quick:
        for piece in references()["long.flac"]["segments"]:
            start, end = (round(RATE * piece[key]) for key in ("start_s", "end_s"))
            found.append((samples("long.flac")[max(0, start - RATE // 4):end + RATE // 4], piece["text"]))
    return found


def greedy():
    """How sound is heard that is spoilt on purpose: once. The fallback would draw nonsense again and again."""
    from whisper_lab.decoding import Options

    return Options(language="en", max_tokens=96, temperatures=(0.0,))


def word_error_rate(runtime, clips: list[tuple[np.ndarray, str]], options=None) -> tuple[float, int, list[str]]:
    """Percent of wrong words over all clips (samples, text), how many words there are, and the transcripts."""
    from whisper_lab.decoding import Options

    texts = transcripts(runtime, [sound for sound, _ in clips], options or Options(language="en", max_tokens=96))
    found = [errors(reference, text) for (_, reference), text in zip(clips, texts, strict=True)]
    wrong = sum(one.substitutions + one.insertions + one.deletions for one in found)
    words = sum(one.reference_words for one in found)
    return 100 * wrong / words, words, texts


def transcripts(runtime, sounds: list[np.ndarray], options) -> list[str]:
    """The text of each sound; what an earlier script of the same run has heard in the same way is not heard again.

    `python -m workbook.evidence` names a folder for its run in KEPT and removes it afterwards. A runtime without a name
    (`_kept`) always hears for itself. Scripts that change a model's layers (imitated.py) transcribe nothing with it.
    """
    from whisper_lab import transcribe

    folder, name = os.environ.get(KEPT), getattr(runtime, "kept_as", None)
    if not folder or not name:
        return [one.text for one in transcribe.transcribe_many(runtime, sounds, options)]
    places = [Path(folder) / f"{hashlib.sha256(f'{name} {options}'.encode() + sound.tobytes()).hexdigest()}.txt"
              for sound in sounds]
    new = [i for i, place in enumerate(places) if not place.is_file()]
    heard = transcribe.transcribe_many(runtime, [sounds[i] for i in new], options) if new else []
    for i, one in zip(new, heard, strict=True):
        with files.atomic(places[i]) as temporary:
            temporary.write_text(one.text, encoding="utf-8")
    return [place.read_text(encoding="utf-8") for place in places]


def rounds(many: int) -> int:
    """How often to time the encoder of `best`: base takes a hundred times as long as nano, and scatters no more."""
    return many if best().source == "bundled" else min(many, 7)


def counted(clips: list[tuple[np.ndarray, str]], texts: list[str]) -> np.ndarray:
    """int [clips, 2]: the wrong words and the words of each clip, given the transcripts."""
    found = [errors(reference, text) for (_, reference), text in zip(clips, texts, strict=True)]
    return np.array([(one.substitutions + one.insertions + one.deletions, one.reference_words) for one in found])


def difference(evidence: Evidence, key: str, before: np.ndarray, after: np.ndarray, seed: int) -> None:
    """KEY_points, KEY_low, KEY_high: by how many percentage points the word error rate changed, with its 95 % interval.

    A paired bootstrap over the clips (Bisani and Ney 2004): draw as many clips again, with replacement, and see in
    which range 95 % of the differences are. An interval that contains 0 says that chance explains the difference.
    before, after: `counted` of the same clips.
    """
    def points(rows) -> np.ndarray:
        one, other = before[rows].sum(axis=-2), after[rows].sum(axis=-2)
        return 100 * (other[..., 0] / other[..., 1] - one[..., 0] / one[..., 1])

    draws = np.random.default_rng(seed).integers(len(before), size=(DRAWS, len(before)))
    low, high = np.quantile(points(draws), [0.025, 0.975])
    for name, value in (("points", points(np.arange(len(before)))), ("low", low), ("high", high)):
        evidence.value(f"{key}_{name}", float(value), "percentage points")


def share(evidence: Evidence, key: str, same: int, of: int, stable: bool = False) -> None:
    """How many of so many agree: KEY_percent, KEY_same, KEY_of, and KEY_low to KEY_high, its 95 % interval in percent.

    The workbook shows all of them or none: `{NAME.KEY:share}`.
    """
    from whisper_lab.metrics import share_interval

    low, high = share_interval(same, of)
    evidence.value(f"{key}_percent", 100 * same / of, "%", stable)
    evidence.value(f"{key}_same", int(same), stable=stable)
    evidence.value(f"{key}_of", int(of), stable=stable)
    evidence.value(f"{key}_low", 100 * low, "%", stable)
    evidence.value(f"{key}_high", 100 * high, "%", stable)


def errors(reference: str, text: str):
    """The word errors of an English text; "thirty" and "30" are the same word, since base writes figures."""
    from whisper_lab.metrics import word_errors

    return word_errors(reference, text, "en")


def noisy(sound: np.ndarray, below_db: float, seed: int) -> np.ndarray:
    """White noise `below_db` under the sound's mean power."""
    noise = np.random.default_rng(seed).standard_normal(len(sound)).astype(np.float32)
    return sound + noise * np.float32(np.sqrt(np.mean(sound**2)) * 10 ** (-below_db / 20))


def undisturbed_s(work: list[Callable], rounds: int) -> list[float]:
    """Seconds of each piece of work where nothing else is at work: the first quartile over the rounds.

    rounds: as many at least, and as many more as fit into LEAST_S. What else a machine does only ever adds, in a busy
    moment to most rounds. They take turns: what disturbs the machine disturbs all of them.
    """
    for one in work:
        one()  # warm-up
    times: list[list[float]] = [[] for _ in work]
    begin = time.perf_counter()
    while len(times[0]) < rounds or time.perf_counter() - begin < LEAST_S:
        for one, seen in zip(work, times, strict=True):
            start = time.perf_counter()
            one()
            seen.append(time.perf_counter() - start)
    return [float(np.quantile(seen, 0.25, method="lower")) for seen in times]
