"""How is a clip brought to the length of the model's window, and what is wrong with the other ways?

Measured: word errors of short clips padded with silence (right), with their own sound repeated, and with features of 0
instead of silence; the words lost when a long recording is cut at the window; and that the encoder takes as long for
2 s as for a full window, because it always computes the whole of it.
"""

import numpy as np

from workbook.evidence import common

LONG = "long.flac"


def measure(evidence, args) -> None:
    from whisper_lab.features import log_mel

    runtime, clips = common.best_runtime(), common.spoken(args.quick)
    evidence.value("model", common.best().name)
    spec = runtime.spec
    first = clips[0][0]
    evidence.value("clip_s", len(first) / common.RATE, "s", stable=True)
    evidence.value("window_s", spec.window_s, "s", stable=True)
    evidence.value("padded_percent", 100 * (1 - len(first) / spec.n_samples), "%", stable=True)
    silence, repeated, zeros = [], [], []
    for sound, _ in clips:
        silence.append(log_mel(sound, spec))
        repeated.append(log_mel(np.resize(sound, spec.n_samples), spec))
        wrong = silence[-1].copy()
        wrong[:, -(-len(sound) // spec.hop_length):] = 0  # 0 is no silence here: that is the clip's lowest value
        zeros.append(wrong)
    counts = {}
    for name, features in (("padded", silence), ("repeated", repeated), ("zero_features", zeros)):
        texts = common.word_error_rate(runtime, clips)[2] if name == "padded" else _texts(runtime, features)
        counts[name] = common.counted(clips, texts)
        wrong, words = counts[name].sum(axis=0)
        evidence.value(f"wer_{name}_percent", 100 * wrong / words, "%")
        evidence.value(f"text_{name}", texts[0] or "(nothing)")
        if name != "padded":
            common.difference(evidence, f"change_{name}", counts["padded"], counts[name], args.seed)
    evidence.value("words", int(counts["padded"][:, 1].sum()), stable=not args.quick)
    _cut(evidence, runtime, args.quick)

    short, long = (log_mel(common.samples(LONG)[:round(seconds * common.RATE)], spec)[None]
                   for seconds in (2, spec.window_s))
    short_s, long_s = common.undisturbed_s([lambda: runtime.encode(short), lambda: runtime.encode(long)],
                                           common.rounds(25))
    evidence.value("encoder_ms_short", 1000 * short_s, "ms")
    evidence.value("encoder_ms_long", 1000 * long_s, "ms")
    evidence.value("encoder_time_ratio", long_s / short_s)
    evidence.series = {"features": {"padded": silence[0], "repeated": repeated[0], "zero_features": zeros[0]},
                       "window_s": spec.window_s}
    _claims(evidence)


def _texts(runtime, features: list[np.ndarray]) -> list[str]:
    """The transcripts of features as they are."""
    from whisper_lab.decoding import Options, decode

    return [decode(runtime, one[None], Options(language="en", max_tokens=96))[0].text for one in features]


def _cut(evidence, runtime, quick: bool) -> None:
    """What is lost when everything behind the window is thrown away: words of the reference that lie there."""
    segments = common.references()[LONG]["segments"]
    text, spec = common.references()[LONG]["text"], runtime.spec
    behind = [one["text"] for one in segments if one["start_s"] >= spec.window_s]
    lost, total = (common.errors(" ".join(each), "").reference_words for each in (behind, [text]))
    evidence.value("words_total", total, stable=True)
    evidence.value("words_lost", lost, stable=True)
    cut = common.samples(LONG)[:spec.n_samples]
    evidence.value("wer_cut_percent", common.word_error_rate(runtime, [(cut, text)])[0], "%")
    if not quick:
        evidence.value("wer_windows_percent", common.word_error_rate(runtime, [(common.samples(LONG), text)])[0], "%")


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("silence", "Padded with silence, fewer than one word in three is wrong.",
                   "Aangevuld met stilte is minder dan één woord op drie fout.", values["wer_padded_percent"] < 33,
                   values["wer_padded_percent"])
    evidence.claim("repeated", "Fill the window with repetitions of the clip, and the WER exceeds 50 %.",
                   "Vul je het venster met herhalingen van de clip, dan stijgt de WER boven 50 %.",
                   values["wer_repeated_percent"] > 50, values["wer_repeated_percent"])
    share = values["words_lost"] / values["words_total"]
    evidence.claim("cut", "Cut a long recording at the window, and everything after it is lost.",
                   "Knip je een lange opname af op het venster, dan gaat alles erna verloren.",
                   share > 0.05 and values["wer_cut_percent"] >= 95 * share, values["wer_cut_percent"])
    evidence.claim("same_time", "The encoder takes as long for 2 s of sound as for a full window (factor 1.5 at most).",
                   "De encoder doet even lang over 2 s geluid als over een vol venster (binnen een factor 1,5).",
                   1 / 1.5 < values["encoder_time_ratio"] < 1.5, values["encoder_time_ratio"])


def draw(evidence, figure) -> None:
    panels = figure.subplots(3, 1, sharex=True)
    values, window = evidence.values, evidence.series["window_s"]
    titles = {"padded": "right: silence", "repeated": "wrong: the clip repeated",
              "zero_features": "not silence either: features of 0"}
    for panel, (name, features) in zip(panels, evidence.series["features"].items(), strict=True):
        panel.imshow(features, origin="lower", aspect="auto", cmap="magma", extent=(0, window, 0, len(features)),
                     vmin=-1, vmax=1.5)
        panel.set_title(f"{titles[name]}: WER {values[f'wer_{name}_percent']:.0f} %", fontsize=13)
        panel.axvline(values["clip_s"], color="white", linestyle="--")
        panel.set_ylabel("mel band")
    panels[-1].set_xlabel("time in the model's window (s)")


def main(argv: list[str] | None = None) -> int:
    return common.run("padding", "1.04", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
