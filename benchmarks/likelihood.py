"""How likely is the right text? What a precision costs, without the chances of a search.

    python benchmarks/likelihood.py --corpus my/corpus --model base          # likelihood.json here
    python benchmarks/likelihood.py --graphs whisper_model_dir --model nano --corpus media --output-dir /tmp/trial

A search makes another word of a small difference, and in a long recording other windows of another word: two precisions
that are equally good are a point of WER apart on a few hundred words, either way. Here nothing is searched. The decoder
is given a text and says how likely it finds each token: of a clip that fits the window what was said in it, of a longer
recording, window after window, what the fp32 graphs write. Natural logarithms, pooled over tokens; the difference to
fp32 with the interval of a bootstrap over clips and windows.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import corpora  # noqa: E402
import prepare  # noqa: E402
import scoring  # noqa: E402

from whisper_lab import audio, console, files, flags, machine  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402

SCHEMA = "whisper-onnx-lab/likelihood/1"
FLOAT = "fp32"
GRAPHS = {FLOAT: (FLOAT, False), "fp16": ("fp16", False), "int8": ("int8", False), "int8 optimized": ("int8", True),
          "int4": ("int4", False)}
ENGLISH, OTHERS, LONG = "what was said, English", "what was said, other languages", "what fp32 writes, long recordings"


@dataclass(frozen=True)
class Text:
    """A window of sound, float32 [n], and the tokens that are given to the decoder."""

    part: str  # ENGLISH, OTHERS or LONG
    samples: np.ndarray
    language: str
    tokens: list[int]

    @property
    def timestamps(self) -> bool:
        return self.part == LONG


def main(argv: list[str] | None = None) -> int:
    """Give every pair every text, compare, show, write."""
    args = arguments(argv)
    checkpoint, folder = prepare.graphs(args)
    clips, _ = corpora.read(args.corpus, args.limit)
    texts, found = [], {}
    for graphs in GRAPHS:
        runtime = open_graphs(folder, checkpoint.name, graphs, args.threads)
        texts = texts or [text for clip in console.progress(clips, description="texts", unit="clip")
                          for text in texts_of(runtime, clip)]
        found[graphs] = [judged(runtime, text) for text in
                         console.progress(texts, description=graphs, unit="window")]
    kept = [i for i in range(len(texts)) if all(np.isfinite(row[i]).all() for row in found.values())]
    if not kept:
        raise LabError(f"{checkpoint.name} can write no text of {args.corpus}", "name another corpus: --corpus media")
    document = {"schema": SCHEMA, "machine": machine.card(args.threads), "model": checkpoint.name,
                "corpus": {"name": Path(args.corpus).resolve().name, "clips": len(clips),
                           "left_out": len(texts) - len(kept)},
                "parts": {part: pooled(found, [i for i in kept if texts[i].part == part])
                          for part in (ENGLISH, OTHERS, LONG) if any(texts[i].part == part for i in kept)}}
    path = files.write_json(Path(args.output_dir) / "likelihood.json", document)
    console.result(f"{table(document)}\n\n{path}")
    return 0


# Listening ------------------------------------------------------------------------------------------------------------

def open_graphs(folder: Path, name: str, graphs: str, threads: int | None):
    """A pair of GRAPHS."""
    from whisper_lab.onnx_whisper import OnnxWhisper

    precision, optimized = GRAPHS[graphs]
    return OnnxWhisper(folder, name, precision, threads, optimized)


def texts_of(runtime, clip: corpora.Clip) -> list[Text]:
    """A clip's one text, or those of the windows of a recording that is longer than the window."""
    samples = audio.load(clip.path).samples
    language = clip.language if runtime.rules.languages else None
    if len(samples) > runtime.spec.n_samples:
        return written(runtime, samples, language)
    said = clip.text.capitalize() if clip.text.isupper() else clip.text
    tokens = runtime.tokenizer.encode(f" {said.strip()}")
    return [Text(ENGLISH if clip.language == "en" else OTHERS, samples, language, tokens)]


def written(runtime, samples: np.ndarray, language: str | None) -> list[Text]:
    """What this runtime writes of a long recording, window after window, greedy, as transcribe.py goes through it."""
    from whisper_lab.decoding import Options, decode
    from whisper_lab.features import log_mel
    from whisper_lab.transcribe import Recording

    recording, texts = Recording(samples, runtime, Options(language=language), condition_on_previous=False), []
    for window in recording.windows:
        (result,) = decode(runtime, log_mel(window.samples, runtime.spec)[None], recording.options)
        if recording.take(result):
            texts.append(Text(LONG, window.samples, language, result.tokens))
    return texts


def judged(runtime, text: Text) -> np.ndarray:
    """Log-probability of each token of a text and of its end, float32 [tokens + 1]."""
    from whisper_lab import confidence
    from whisper_lab.features import log_mel

    cross = runtime.encode(log_mel(text.samples, runtime.spec)[None])
    prompt = runtime.rules.prompt(text.language, timestamps=text.timestamps)
    return confidence.logprobs(runtime, cross, prompt, text.tokens, text.timestamps)


# Comparing ------------------------------------------------------------------------------------------------------------

def pooled(found: dict[str, list[np.ndarray]], rows: list[int]) -> dict:
    """{"tokens", "windows", "graphs": {name: {"logprob": mean of a token, "difference": to fp32 | None}}}"""
    counts = np.array([len(found[FLOAT][i]) for i in rows])
    sums = {graphs: np.array([each[i].sum(dtype=float) for i in rows]) for graphs, each in found.items()}
    return {"tokens": int(counts.sum()), "windows": len(rows),
            "graphs": {graphs: {"logprob": float(each.sum() / counts.sum()),
                                "difference": None if graphs == FLOAT else difference(each - sums[FLOAT], counts)}
                       for graphs, each in sums.items()}}


def difference(sums: np.ndarray, counts: np.ndarray) -> dict:
    """The mean of a token, and the interval of a bootstrap over windows; None in fewer than scoring.FEWEST."""
    low, high = (None, None) if len(counts) < scoring.FEWEST else scoring.interval(sums, counts)
    return {"nats": float(sums.sum() / counts.sum()), "low": low, "high": high}


# Showing --------------------------------------------------------------------------------------------------------------

def table(document: dict) -> str:
    """Markdown: a line for each pair, a column for each part of the corpus."""
    parts = document["parts"]
    lines = [f"| nats a token | {' | '.join(parts)} |", "|---|" + "---|" * len(parts)]
    lines += [f"| {graphs} | {' | '.join(_cell(part['graphs'][graphs]) for part in parts.values())} |"
              for graphs in GRAPHS]
    counts = ", ".join(f"{console.count(part['tokens'], 'token')} of {console.count(part['windows'], 'window')}"
                       for part in parts.values())
    left_out = document["corpus"]["left_out"]
    return "\n".join([*lines, "", f"{document['model']}; {counts}; {left_out} left out because their texts hold what "
                      f"the model never writes; whole windows. {machine.one_line(document['machine'])}."])


def _cell(row: dict) -> str:
    difference = row["difference"]
    if difference is None:
        return f"{row['logprob']:.4f}"
    if difference["low"] is None:
        return f"{difference['nats']:+.4f}"
    return f"{difference['nats']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line; wrong usage ends here with exit status 2."""
    parser = flags.parser(__doc__, "model", "threads", "output_dir", "quiet", "log_level", output_dir=str(HERE))
    prepare.add_clips_and_graphs(parser)
    return flags.parse(parser, argv)


if __name__ == "__main__":
    console.run(main)
