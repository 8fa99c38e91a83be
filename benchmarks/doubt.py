"""Which number tells right text from invented text? Measured on clips with known text, for each checkpoint.

    python benchmarks/doubt_clips.py work/synthetic --texts corpus/references.json --digits DIGITS
    python benchmarks/doubt.py listen --model nano media corpus work/synthetic --clips work/nano.json
    python benchmarks/doubt.py listen --model base corpus --babble -2 --clips work/base.json
    python benchmarks/doubt.py judge work/nano.json work/base.json     # doubt.json, doubt.png, the library's limits
    python benchmarks/doubt.py listen --model base corpus --babble -2 --clips work/auto.json --beams auto
    python benchmarks/doubt.py check work/auto.json                    # the same limit on texts of --beams auto

`listen` transcribes the first window of every clip, as 02 does, and notes what a program can know of the result without
its reference. `judge` calls a text right where its WER is at most 0.3 and invented where it is above 0.6 (what lies
between is left out), and asks of each number how well it separates the two: AUC, the chance that a random invented
text looks worse than a random right one (0.5 is a guess). The limit of the text's log-probability is set so that one
right text in twenty is beyond it; with a compression ratio above 2.4 it makes the warning. The rates beside
it come from clips that did not set the limit (two halves, each judged with the limit of the other).

With --beams auto a doubtful text is replaced by that of five beams, and it is still the greedy one that says how
doubtful it is (decoding.least_wrong). `check` counts what the limit, as it stands, does with the texts that remain.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from whisper_lab import audio, checkpoints, confidence, console, files, flags, machine, transcripts  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402
from whisper_lab.decoding import AUTO  # noqa: E402
from whisper_lab.features import log_mel  # noqa: E402
from whisper_lab.tokens import log_softmax  # noqa: E402

HERE = Path(__file__).resolve().parent
SCHEMA = "whisper-onnx-lab/doubt/1"
RIGHT, INVENTED = 0.3, 0.6  # WER: at most, above
FALSE_ALARMS = 0.05  # share of right texts that may be warned of
SHIFT_S = 0.23  # of silence put before the sound for the second hearing
BABBLE_VOICES = 6
DRAWS = 1000  # of the bootstrap

# What a program can know of a text without knowing what was said; more of each is worse. `one_pass`: for the price of
# the decoding itself, or of one decoder pass over the finished text.
STATISTICS: dict[str, str] = {
    "-text_logprob": "minus the mean log-probability of the text's tokens and the end, timestamps left out",
    "-avg_logprob": "the same with the timestamps, where there are any",
    "-lowest": "minus the log-probability of the text's least likely token",
    "-second_lowest": "minus that of the second least likely token",
    "-quantile_10": "minus the 10 % quantile of the tokens' log-probabilities",
    "entropy": "mean entropy of the decoder's guesses, nats",
    "no_speech_prob": "probability of <|nospeech|>",
    "compression_ratio": "bytes of the text over bytes packed",
    "-language_prob": "minus the probability of the likeliest language",
    "tokens_per_s": "tokens for each second of sound that is not silent",
    "-focus": "minus the largest weight of each token's cross-attention, alignment heads, mean",
    "backward": "how far the attention moves backward in time, as a share of the sound",
    "disagreement": "WER against the text of the same sound 0.23 s later: a second encoding and decoding",
}


def main(argv: list[str] | None = None) -> int:
    """One of the two steps."""
    args = arguments(argv)
    return {"listen": listen, "judge": judge, "check": check}[args.step](args)


# 1. Listen -----------------------------------------------------------------------------------------------------------

def listen(args) -> int:
    """Transcribe every clip; write a row of numbers for each."""
    import torch

    from whisper_lab.torch_whisper import TorchWhisper

    torch.set_num_threads(args.threads or machine.usable_cores())
    checkpoint = checkpoints.resolve(args.model)
    runtime = TorchWhisper.load(checkpoint)
    clips = [clip for folder in args.corpora for clip in corpus(Path(folder))]
    noise, draw = Babble(clips), np.random.default_rng(args.seed)
    rows = []
    for clip, (path, reference, language, group) in enumerate(console.progress(clips, description="listening",
                                                                               unit="clip")):
        samples = audio.load(path).samples
        if len(samples) > runtime.spec.n_samples:
            if group not in args.cut:
                continue  # nobody knows which of its words are in the first window
            samples, reference = samples[:runtime.spec.n_samples], None
        for decibel in (None, *args.babble):
            sound = samples if decibel is None else noise.under(samples, decibel, draw)
            condition = "clean" if decibel is None else f"babble {decibel:g} dB"
            rows += [{"clip": clip, "group": group, "condition": condition, "language": language,
                      "wer": error_rate(reference, found["text"], language), **found}
                     for found in both_ways(runtime, sound, language, AUTO if args.beams == AUTO else 1)]
    facts = {"name": checkpoint.name, "decoder_layers": runtime.model.config.decoder_layers, "beams": args.beams}
    files.write_json(args.clips, {"schema": SCHEMA, "model": facts, "rows": rows})
    console.result(f"{args.clips}: {len(rows)} rows")
    return 0


def corpus(folder: Path) -> list[tuple[Path, str, str, str]]:
    """(file, text, language, group) of a folder's references.json: a list of rows, or an object by file name.

    Rows without a text are left out. Raises LabError where there is no such file.
    """
    found = transcripts.read_references(folder / "references.json")
    return [(folder / name, row["text"], row["language"], row.get("group", folder.name))
            for name, row in found.items() if row["text"]]


class Babble:
    """Six voices of the clips at once."""

    def __init__(self, clips: list[tuple[Path, str, str, str]]):
        paths = [clip[0] for clip in clips]
        self.voices = [audio.load(path).samples for path in paths[::max(1, len(paths) // 12)]]

    def under(self, samples: np.ndarray, decibel: float, draw: np.random.Generator) -> np.ndarray:
        """samples with babble `decibel` dB softer than they are, at most at full scale."""
        total = np.zeros(len(samples))
        for i in draw.permutation(len(self.voices))[:BABBLE_VOICES]:
            voice = np.roll(np.resize(self.voices[i], len(samples)), draw.integers(len(samples)))
            total += voice / (_rms(voice) + 1e-9)
        mixed = samples + total * _rms(samples) / _rms(total) * 10 ** (-decibel / 20)
        return (mixed / max(1.0, np.abs(mixed).max())).astype(np.float32)


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples))))


def both_ways(runtime, samples: np.ndarray, language: str, beams: int | str = 1) -> list[dict]:
    """The text of one window, without and with timestamps, and all STATISTICS of each; samples: float32 [n].

    beams: of both; the log-probability of the text is what the library judges by, that of the first search.
    """
    from whisper_lab.decoding import Options, decode_encoded, detect_language

    rules, spec = runtime.rules, runtime.spec
    cross = runtime.encode(log_mel(samples, spec)[None])
    languages = detect_language(runtime, cross, 1)[0] if rules.languages else {"en": 1.0}
    options = Options(language=language if language in rules.languages else None)
    shifted = np.concatenate([np.zeros(round(SHIFT_S * spec.sampling_rate), np.float32), samples])[:spec.n_samples]
    again = decode_encoded(runtime, runtime.encode(log_mel(shifted, spec)[None]), 1, options)[0]
    common = {"-language_prob": -max(languages.values())}
    made = []
    for timestamps in (False, True):
        result = decode_encoded(runtime, cross, 1, replace(options, timestamps=timestamps, beams=beams))[0]
        disagreement = (error_rate(result.text, again.text, language) or 0.0) if result.text else 0.0
        made.append({"timestamps": timestamps, "text": result.text, **common, "disagreement": disagreement,
                     **of_result(runtime, cross, result, samples, timestamps), "beams": result.beams,
                     "-text_logprob": -result.text_logprob})
    return made


def of_result(runtime, cross, result, samples: np.ndarray, timestamps: bool) -> dict:
    """The STATISTICS of one Result that need no second hearing."""
    rules = runtime.rules
    likely = confidence.logprobs(runtime, cross, result.prompt, result.tokens, timestamps)
    text = likely[[token <= rules.end for token in [*result.tokens, rules.end]][:len(likely)]]  # no timestamps
    sequence = np.array([[*result.prompt, *result.tokens, rules.end]], np.int64)[:, :rules.max_positions]
    first = len(result.prompt) - 1  # this row writes the first token
    guesses = log_softmax(runtime.step(sequence, cross, None)[0][0, first:-1].astype(np.float64))
    attention = runtime.attention(sequence, cross)[:, first:-1].mean(axis=0)  # [tokens, positions]
    positions = max(1, min(attention.shape[-1], round(len(samples) / runtime.spec.sampling_rate
                                                      / rules.timestamp_step)))
    heard = attention[:, :positions]
    centres = (heard * np.arange(positions)).sum(-1) / (heard.sum(-1) + 1e-9)
    return {
        "-text_logprob": -float(text.mean()), "-avg_logprob": -result.avg_logprob, "-lowest": -float(text.min()),
        "-second_lowest": -float(np.sort(text)[min(1, len(text) - 1)]), "-quantile_10": -float(np.quantile(text, 0.1)),
        "entropy": float(-(np.exp(guesses) * guesses).sum(-1).mean()), "no_speech_prob": result.no_speech_prob,
        "compression_ratio": result.compression_ratio, "tokens_per_s": len(text) / max(0.1, _voiced_s(samples)),
        "-focus": -float(heard.max(-1).mean()),
        "backward": float(-np.minimum(np.diff(centres), 0).sum() / positions),
    }


def _voiced_s(samples: np.ndarray) -> float:
    """Seconds within 35 dB of the loudest 20 ms."""
    frames = samples[:len(samples) // 320 * 320].reshape(-1, 320)
    power = 10 * np.log10(np.square(frames).mean(-1) + 1e-10)
    return 0.02 * float((power > max(power.max(initial=-100) - 35, -60)).sum())


def error_rate(reference: str | None, text: str, language: str) -> float | None:
    """WER with Whisper's own normalizer for English, which reads 4 and four alike; None: not to be judged.

    reference None: of what was cut off, so that any text counts as invented (only for speech a model cannot know).
    """
    import jiwer
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    from whisper_lab.metrics import normalize

    same = EnglishTextNormalizer({}) if language == "en" else normalize
    if not text.strip() or (language != "en" and reference and _has_digits(text) != _has_digits(reference)):
        return None  # nothing to judge; or 1940 against a year in words, which only the English normalizer reads alike
    if reference is None or not (said := same(reference)):
        return 1.0
    return float(jiwer.wer(said, same(text)))


def _has_digits(text: str) -> bool:
    return any(character.isdigit() for character in text)


# 2. Judge ------------------------------------------------------------------------------------------------------------

def judge(args) -> int:
    """From the rows to AUCs, limits and a picture."""
    models, rows_of = {}, {}
    for path in args.files:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        name, rows = document["model"]["name"], [row for row in document["rows"] if row["wer"] is not None]
        models[name] = of_model(rows) | {"not_judged": len(document["rows"]) - len(rows)}
        rows_of[name] = rows
    files.write_json(args.output, {"schema": SCHEMA, "machine": machine.card(), "statistics": STATISTICS,
                                   "right": f"WER at most {RIGHT}", "invented": f"WER above {INVENTED}",
                                   "models": models})
    write_limits(models)
    draw(rows_of, models, Path(args.output).with_suffix(".png"))
    for name, found in models.items():
        show(name, found)
    return 0


def check(args) -> int:
    """Into doubt.json: what the limit that stands there does with the texts of another search."""
    document, heard = (json.loads(Path(path).read_text(encoding="utf-8")) for path in (args.output, args.file))
    name, beams = heard["model"]["name"], heard["model"]["beams"]
    if name not in document["models"]:
        raise LabError(f"{args.output} has no limit of {name}", "set one: python benchmarks/doubt.py judge --help")
    rows = [row for row in heard["rows"] if row["wer"] is not None]
    found = at_limit(rows, document["models"][name]["limit"])
    document["models"][name][f"beams_{beams}"] = found
    files.write_json(args.output, document)
    console.result(f"{name}, --beams {beams}: {found['clips']} clips, {found['right']} right, {found['invented']} "
                   f"invented texts, {found['searched_again']} searched again; warned of: "
                   f"{100 * found['false_alarms']['share']:.1f} % of the right, "
                   f"{100 * found['caught']['share']:.1f} % of the invented")
    return 0


def at_limit(rows: list[dict], limit: float) -> dict:
    """Shares of right and of invented texts whose log-probability is below a limit, with intervals over clips."""
    kept = [row for row in rows if not RIGHT < row["wer"] <= INVENTED]
    table = np.array([(row["clip"], row["wer"] > INVENTED, has_warning(row, "-text_logprob", -limit)) for row in kept])
    found, drawn = _shares(table), bootstrap(table, _shares)
    return {"clips": len({row["clip"] for row in rows}), "right": int((table[:, 1] == 0).sum()),
            "invented": int(table[:, 1].sum()), "searched_again": sum(row["beams"] > 1 for row in rows)} | {
                kind: {"share": round(found[i], 3), "interval_95": _interval(drawn[:, i])}
                for i, kind in enumerate(("false_alarms", "caught"))}


def _shares(table: np.ndarray) -> list[float]:
    """Of rows (clip, invented, warned): the shares of right and of invented texts with a warning."""
    return [float(table[table[:, 1] == kind, 2].mean()) if (table[:, 1] == kind).any() else np.nan for kind in (0, 1)]


def of_model(rows: list[dict]) -> dict:
    """All that is said of one checkpoint."""
    right, invented = [row for row in rows if row["wer"] <= RIGHT], [row for row in rows if row["wer"] > INVENTED]
    if not right or not invented:
        raise LabError(f"{len(right)} right and {len(invented)} invented texts: nothing to tell apart",
                       "listen to clips that the checkpoint understands, and to clips that it does not")
    chosen = "-text_logprob"
    limit = limit_for(right, chosen)
    return {
        "clips": len({row["clip"] for row in rows}), "right": len(right), "invented": len(invented),
        "between": len(rows) - len(right) - len(invented), "limit": round(-limit, 3),
        "rates": {mode: rates([row for row in rows if row["timestamps"] == stamps], chosen)
                  for mode, stamps in (("text alone", False), ("with timestamps", True))} | {
                      "both": rates(rows, chosen)},
        "statistics": {name: separation(right, invented, name) for name in STATISTICS},
        "groups": by_group(rows, chosen, limit),
    }


def has_warning(row: dict, name: str, limit: float) -> bool:
    """As doubt.is_doubtful: the number beyond its limit, or a loop."""
    return row[name] > limit or row["compression_ratio"] > confidence.LOOPS


def limit_for(right: list[dict], name: str) -> float:
    """The value that FALSE_ALARMS of the right texts exceed."""
    return float(np.quantile([row[name] for row in right], 1 - FALSE_ALARMS))


def rates(rows: list[dict], name: str) -> dict:
    """Shares of right and of invented texts with a warning, each half judged with the limit of the other.

    With 95 % intervals of a bootstrap over clips: the texts of one clip are not independent.
    """
    marks = []  # (clip, invented, warned)
    for half in (0, 1):
        limit = limit_for([row for row in rows if row["clip"] % 2 != half and row["wer"] <= RIGHT], name)
        marks += [(row["clip"], row["wer"] > INVENTED, has_warning(row, name, limit)) for row in rows
                  if row["clip"] % 2 == half and not RIGHT < row["wer"] <= INVENTED]
    table = np.array(marks, np.int64)
    found, drawn = _shares(table), bootstrap(table, _shares)
    return {kind: {"share": round(found[i], 3), "interval_95": _interval(drawn[:, i])}
            for i, kind in enumerate(("false_alarms", "caught"))}


def separation(right: list[dict], invented: list[dict], name: str) -> dict:
    """AUC with its interval, and the share of invented texts caught where FALSE_ALARMS of the right are warned of."""
    table = np.array([(row["clip"], kind, row[name]) for kind, rows in ((0, right), (1, invented)) for row in rows])
    drawn = bootstrap(table, lambda some: [auc(some[some[:, 1] == 0, 2], some[some[:, 1] == 1, 2])])
    values = np.array([row[name] for row in invented])
    return {"auc": round(auc(*(table[table[:, 1] == kind, 2] for kind in (0, 1))), 3),
            "interval_95": _interval(drawn[:, 0]), "caught": round(float(np.mean(values > limit_for(right, name))), 3)}


def auc(right: np.ndarray, invented: np.ndarray) -> float:
    """The chance that an invented text has the larger value; ties count half. NaN where one kind is missing."""
    if not len(right) or not len(invented):
        return float("nan")
    right = np.sort(right)
    below = np.searchsorted(right, invented, "left") + np.searchsorted(right, invented, "right")
    return float(below.mean() / 2 / len(right))


def bootstrap(table: np.ndarray, measure: Callable[[np.ndarray], list[float]]) -> np.ndarray:
    """measure of DRAWS random choices of as many clips (column 0 of the table), [DRAWS, measures]."""
    generator = np.random.default_rng(0)
    rows_of = [np.flatnonzero(table[:, 0] == clip) for clip in np.unique(table[:, 0])]
    return np.array([measure(table[np.concatenate([rows_of[i] for i in generator.integers(len(rows_of),
                                                                                          size=len(rows_of))])])
                     for _ in range(DRAWS)])


def _interval(values: np.ndarray) -> list[float]:
    return [round(float(bound), 3) for bound in np.nanquantile(values, (0.025, 0.975))]


def by_group(rows: list[dict], name: str, limit: float) -> dict:
    """Counts by group and condition: right and invented texts, and how many of each get a warning."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        if RIGHT < row["wer"] <= INVENTED:
            continue
        entry = found.setdefault(f"{row['group']}, {row['condition']}",
                                 dict.fromkeys(("right", "right_warned", "invented", "invented_warned"), 0))
        kind = "right" if row["wer"] <= RIGHT else "invented"
        entry[kind] += 1
        entry[f"{kind}_warned"] += has_warning(row, name, limit)
    return found


def write_limits(models: dict) -> None:
    """The library's file; checkpoints that were not measured this time stay as they are."""
    known = json.loads(confidence.LIMITS.read_text(encoding="utf-8"))["models"] if confidence.LIMITS.is_file() else {}
    for name, found in models.items():
        known[name] = {key: found[key] for key in ("limit", "clips", "right", "invented")} | \
            {kind: found["rates"]["both"][kind]["share"] for kind in ("false_alarms", "caught")}
    files.write_json(confidence.LIMITS, {"schema": SCHEMA, "written_by": "benchmarks/doubt.py judge", "models": known})


def show(name: str, found: dict) -> None:
    """The table of a checkpoint."""
    alarms, caught = (100 * found["rates"]["both"][kind]["share"] for kind in ("false_alarms", "caught"))
    console.result(f"{name}: {found['clips']} clips, {found['right']} right, {found['invented']} invented texts; "
                   f"doubtful below {found['limit']:.3f}: {alarms:.1f} % of the right, {caught:.1f} % of the invented")
    best = sorted(found["statistics"].items(), key=lambda item: -item[1]["auc"])
    console.table(name, ["number", "AUC", "95 % interval", "caught at 5 % false alarms"],
                  [[key, f"{row['auc']:.3f}", "{:.3f} to {:.3f}".format(*row["interval_95"]),
                    f"{100 * row['caught']:.0f} %"] for key, row in best])


def draw(rows_of: dict[str, list[dict]], models: dict, path: Path) -> None:
    """Per checkpoint a histogram of the chosen number and the ROC curves of four."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 12, "axes.titlelocation": "left", "axes.spines.top": False,
                         "axes.spines.right": False}):
        figure, axes = plt.subplots(len(models), 2, figsize=(13, 4.6 * len(models)), layout="constrained",
                                    squeeze=False, width_ratios=[3, 2])
        for (name, rows), (histogram, curves) in zip(rows_of.items(), axes, strict=True):
            right = [row for row in rows if row["wer"] <= RIGHT]
            invented = [row for row in rows if row["wer"] > INVENTED]
            draw_histogram(histogram, right, invented, name, models[name]["limit"])
            draw_curves(curves, right, invented, models[name]["statistics"])
        with files.atomic(path) as place:
            figure.savefig(place, dpi=100, format="png")
        plt.close(figure)


def draw_histogram(axes, right: list[dict], invented: list[dict], name: str, limit: float) -> None:
    """Shares of right and invented texts over the mean log-probability."""
    values = [[-row["-text_logprob"] for row in rows] for rows in (right, invented)]
    bins = np.linspace(max(-2.0, min(map(min, values))), 0, 41)
    for some, label, colour in zip(values, ("right", "invented"), ("#0072b2", "#d55e00"), strict=True):
        axes.hist(np.clip(some, bins[0], 0), bins, weights=np.full(len(some), 100 / len(some)), alpha=0.6,
                  color=colour, label=f"{label}, {len(some)} texts")
    axes.axvline(limit, color="black", linestyle="--", label=f"limit {limit:.2f}")
    axes.set(title=name, xlabel="mean log-probability a token, nats", ylabel="texts, %")
    axes.legend(frameon=False)


def draw_curves(axes, right: list[dict], invented: list[dict], statistics: dict) -> None:
    """Invented texts caught over right texts warned of, as the limit moves."""
    for name, style in (("-text_logprob", "-"), ("-avg_logprob", "--"), ("disagreement", "-."),
                        ("no_speech_prob", ":")):
        limits = np.unique([row[name] for row in [*right, *invented]])[::-1]
        shares = [[0.0, *(float(np.mean(np.array([row[name] for row in rows]) >= limit)) for limit in limits)]
                  for rows in (right, invented)]
        axes.plot(100 * np.array(shares[0]), 100 * np.array(shares[1]), style,
                  label=f"{name.removeprefix('-')}, AUC {statistics[name]['auc']:.2f}")
    axes.set(xlabel="right texts warned of, %", ylabel="invented texts caught, %", xlim=(-1, 101), ylim=(-1, 101))
    axes.legend(frameon=False, loc="lower right")


# The command line ----------------------------------------------------------------------------------------------------

def arguments(argv: list[str] | None):
    """The command line."""
    parser = flags.parser(__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    listening = steps.add_parser("listen", help="transcribe clips, note the numbers")
    flags.add_flags(listening, "model", "threads", "seed")
    listening.add_argument("--beams", choices=["1", AUTO], default="1", help="as of 02 (default: 1, greedy search)")
    listening.add_argument("corpora", nargs="+", metavar="FOLDER", help="clips with a references.json")
    listening.add_argument("--clips", required=True, metavar="FILE", help="where the numbers go")
    listening.add_argument("--babble", type=float, nargs="*", default=[], metavar="DB",
                           help="also under six voices, this many dB softer than the clip (default: none)")
    listening.add_argument("--cut", nargs="*", default=[], metavar="GROUP",
                           help="groups whose longer clips are cut to the window, any text of which is invented")
    judging = steps.add_parser("judge", help="compare the numbers, write limits and picture")
    judging.add_argument("files", nargs="+", metavar="FILE", help="what listen wrote, one for each checkpoint")
    judging.add_argument("--output", default=str(HERE / "doubt.json"), metavar="FILE",
                         help="the picture goes beside it (default: %(default)s)")
    checking = steps.add_parser("check", help="what the limits do with the texts of --beams auto")
    checking.add_argument("file", metavar="FILE", help="what listen --beams auto wrote")
    checking.add_argument("--output", default=str(HERE / "doubt.json"), metavar="FILE", help="(default: %(default)s)")
    return flags.parse(parser, argv)


if __name__ == "__main__":
    console.run(main)
