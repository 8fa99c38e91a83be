"""How likely is the right text? What a precision costs, without the chances of a search.

    python benchmarks/likelihood.py --corpus my/corpus --model base          # likelihood.json here
    python benchmarks/likelihood.py --graphs whisper_model_dir --model nano --corpus media --output-dir /tmp/trial

A search makes another word of a small difference, and in a long recording other windows of another word: two precisions
that are equally good are a point of WER apart on a few hundred words, either way. Here nothing is searched. The decoder
is given a text, the prompt at once and then token by token as in greedy search, and says how likely it finds each: of a
clip that fits the window what was said in it, of a longer recording, window after window, what the fp32 graphs write.

Two numbers of each pair, in nats (natural logarithms), means over tokens with the interval of a bootstrap over clips
and windows: how much likelier than fp32 it finds the text, and the Kullback-Leibler divergence of its next-token
distribution from fp32's, which is 0 where nothing is lost. The second also counts what no text happened to hit.
"""

import argparse
import sys
from collections.abc import Callable
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
    runtimes = {graphs: open_graphs(folder, checkpoint.name, graphs, args.threads) for graphs in GRAPHS}
    texts = [text for clip in console.progress(clips, description="texts", unit="clip")
             for text in texts_of(runtimes[FLOAT], clip)]
    heard = [compared(runtimes, text) for text in console.progress(texts, description="listening", unit="window")]
    kept = [i for i, each in enumerate(heard) if all(np.isfinite(pair.likely).all() for pair in each.values())]
    if not kept:
        raise LabError(f"{checkpoint.name} can write no text of {args.corpus}", "name another corpus: --corpus media")
    document = {"schema": SCHEMA, "machine": machine.card(args.threads), "model": checkpoint.name,
                "corpus": {"name": Path(args.corpus).resolve().name, "clips": len(clips),
                           "left_out": len(texts) - len(kept)},
                "parts": {part: pooled([heard[i] for i in kept if texts[i].part == part])
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


@dataclass(frozen=True)
class Judged:
    """What a pair says of the tokens of a text and of its end."""

    likely: np.ndarray  # float32 [tokens + 1] log-probabilities, by the rules of the search
    divergence: np.ndarray  # float32 [tokens + 1] of its next-token distribution from fp32's, nats


def compared(runtimes: dict, text: Text) -> dict[str, Judged]:
    """What every pair says of a text."""
    from whisper_lab import confidence
    from whisper_lab.features import log_mel
    from whisper_lab.tokens import kl_divergence, log_softmax

    features, rules = log_mel(text.samples, runtimes[FLOAT].spec)[None], runtimes[FLOAT].rules
    prompt = rules.prompt(text.language, timestamps=text.timestamps)
    written = [*text.tokens, rules.end][:rules.max_positions - len(prompt)]
    right, found = None, {}
    for graphs, runtime in runtimes.items():
        logits = given(runtime, runtime.encode(features), prompt, written)
        logprobs = log_softmax(logits)
        right = logprobs if right is None else right  # fp32 is the first
        found[graphs] = Judged(confidence.of_rows(rules, logits, written, text.timestamps),
                               kl_divergence(right, logprobs))
    return found


def given(runtime, cross, prompt: list[int], written: list[int]) -> np.ndarray:
    """The logits of each token that follows, float32 [len(written), vocab], fed as greedy search feeds them: tokens
    that go in together may share a scale, and of a whole text that would be one for all."""
    logits, cache = runtime.step(np.array([prompt], np.int64), cross, None)
    rows = [logits[0, -1]]
    for token in written[:-1]:
        logits, cache = runtime.step(np.array([[token]], np.int64), cross, cache)
        rows.append(logits[0, -1])
    return np.stack(rows)


# Comparing ------------------------------------------------------------------------------------------------------------

def pooled(heard: list[dict[str, Judged]]) -> dict:
    """{"tokens", "windows", "graphs": {name: {"logprob": mean of a token, "difference" and "divergence": to fp32 or
    None}}}"""
    counts = np.array([len(each[FLOAT].likely) for each in heard])
    likely, apart = ({graphs: np.array([getattr(each[graphs], what).sum(dtype=float) for each in heard])
                      for graphs in heard[0]} for what in ("likely", "divergence"))
    return {"tokens": int(counts.sum()), "windows": len(heard),
            "graphs": {graphs: {"logprob": float(sums.sum() / counts.sum()),
                                "difference": None if graphs == FLOAT else mean(sums - likely[FLOAT], counts),
                                "divergence": None if graphs == FLOAT else mean(apart[graphs], counts)}
                       for graphs, sums in likely.items()}}


def mean(sums: np.ndarray, counts: np.ndarray) -> dict:
    """The mean of a token, and the interval of a bootstrap over windows; None in fewer than scoring.FEWEST."""
    low, high = (None, None) if len(counts) < scoring.FEWEST else scoring.interval(sums, counts)
    return {"nats": float(sums.sum() / counts.sum()), "low": low, "high": high}


# Showing --------------------------------------------------------------------------------------------------------------

def table(document: dict) -> str:
    """Markdown, twice: a line for each pair, a column for each part of the corpus."""
    parts = document["parts"]
    lines = _lines("how likely, nats a token", document, lambda row: (
        f"{row['logprob']:.4f}" if row["difference"] is None else _cell(row["difference"], "+.4f")))
    lines += ["", *_lines("divergence from fp32, nats a token", document, lambda row: _cell(row["divergence"], ".4f"))]
    counts = ", ".join(f"{console.count(part['tokens'], 'token')} of {console.count(part['windows'], 'window')}"
                       for part in parts.values())
    left_out = document["corpus"]["left_out"]
    return "\n".join([*lines, "", f"{document['model']}; {counts}; {left_out} left out because their texts hold what "
                      f"the model never writes; whole windows. {machine.one_line(document['machine'])}."])


def _lines(title: str, document: dict, cell: Callable[[dict], str]) -> list[str]:
    """A table of one of the two numbers; fp32's divergence from itself has no line."""
    parts = document["parts"]
    rows = {graphs: [part["graphs"][graphs] for part in parts.values()] for graphs in GRAPHS}
    shown = {graphs: [cell(row) for row in cells] for graphs, cells in rows.items()}
    return [f"| {title} | {' | '.join(parts)} |", "|---|" + "---|" * len(parts),
            *(f"| {graphs} | {' | '.join(cells)} |" for graphs, cells in shown.items() if any(cells))]


def _cell(mean: dict | None, style: str) -> str:
    if mean is None:
        return ""
    interval = "" if mean["low"] is None else f" ({mean['low']:{style}} to {mean['high']:{style}})"
    return f"{mean['nats']:{style}}{interval}"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line; wrong usage ends here with exit status 2."""
    parser = flags.parser(__doc__, "model", "threads", "output_dir", "quiet", "log_level", output_dir=str(HERE))
    prepare.add_clips_and_graphs(parser)
    return flags.parse(parser, argv)


if __name__ == "__main__":
    console.run(main)
