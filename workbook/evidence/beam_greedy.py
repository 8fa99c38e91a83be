"""What does beam search find that greedy search does not, and what does it cost?

Measured on the clips in white noise, where choices are close: word errors, the log-probability of the text that each
finds (both scored in the same way, by feeding the text to the decoder), on how many clips that of five beams is higher,
and the time. The graphs share the cross cache among beams.
"""

import numpy as np

from workbook.evidence import common

BEAMS = 5
NOISE_DB = {"whisper-base": 12.0}  # below the speech, where choices are close; for all other models:
OTHER_NOISE_DB = 3.0


def measure(evidence, args) -> None:
    from whisper_lab.decoding import Options, decode, decode_encoded
    from whisper_lab.features import log_mel

    runtime = common.best_runtime()
    evidence.value("model", common.best().name)
    below = evidence.value("noise_db", NOISE_DB.get(common.best().name, OTHER_NOISE_DB), "dB")
    clips = [(common.noisy(sound, below, args.seed + i), text) for i, (sound, text) in
             enumerate(common.spoken(args.quick))]
    options = {"greedy": Options(language="en", max_tokens=64),
               "beam5": Options(language="en", max_tokens=64, beams=BEAMS)}
    scores, counts, found = {}, {}, {name: [] for name in options}
    for sound, _ in clips:  # each is encoded once, for both searches and their scores: the encoder is most of the work
        heard = runtime.encode(log_mel(sound, runtime.spec)[None])
        for name, how in options.items():
            result = decode_encoded(runtime, heard, 1, how)[0]
            found[name].append((result, score(runtime, heard, result)))
    for name in options:
        results = [result for result, _ in found[name]]
        counts[name] = common.counted(clips, [result.text for result in results])
        wrong, words = counts[name].sum(axis=0)
        evidence.value(f"wer_{name}_percent", 100 * wrong / words, "%")
        scores[name] = np.array([scored for _, scored in found[name]])
        scores[f"{name}_mean"] = scores[name] / [len(result.tokens) + 1 for result in results]  # the end token counts
        evidence.value(f"logprob_{name}", scores[name].mean())
        evidence.value(f"mean_logprob_{name}", scores[f"{name}_mean"].mean())
    gain = scores["beam5"] - scores["greedy"]
    common.difference(evidence, "change", counts["greedy"], counts["beam5"], args.seed)
    evidence.value("words", int(counts["greedy"][:, 1].sum()), stable=not args.quick)
    evidence.value("clips", len(clips), stable=not args.quick)
    evidence.value("better_clips", int((gain > 1e-3).sum()))
    evidence.value("worse_clips", int((gain < -1e-3).sum()))
    longest = log_mel(common.samples("hello.wav"), runtime.spec)[None]
    greedy_s, beam_s = common.undisturbed_s([lambda one=one: decode(runtime, longest, one) for one in options.values()],
                                       5)
    evidence.value("greedy_ms", 1000 * greedy_s, "ms")
    evidence.value("beam5_ms", 1000 * beam_s, "ms")
    evidence.value("time_ratio", beam_s / greedy_s)
    evidence.series = scores
    values = evidence.values
    evidence.claim("score", "On average beam search finds a text that the model holds at least as likely per token.",
                   "Gemiddeld vindt beam search een tekst die het model per token minstens even waarschijnlijk acht.",
                   values["mean_logprob_beam5"] >= values["mean_logprob_greedy"] - 1e-3, values["mean_logprob_beam5"])
    evidence.claim("costs", "Five beams take longer than one, and less than five times as long.",
                   "Vijf beams duren langer dan één, en minder dan vijf keer zo lang.", 1 < values["time_ratio"] < 5,
                   values["time_ratio"])


def score(runtime, heard, result) -> float:
    """Log-probability in nats of a result's tokens and the end token, given the prompt and the encoded sound."""
    from whisper_lab.tokens import log_softmax

    said = [*result.tokens, runtime.rules.end]
    logits = runtime.step(np.array([[*result.prompt, *result.tokens]], np.int64), heard, None)[0]
    after = log_softmax(logits[0, len(result.prompt) - 1:])  # row i scores the token after the first i of the text
    return float(after[np.arange(len(said)), said].sum())


def draw(evidence, figure) -> None:
    left, right = figure.subplots(1, 2, width_ratios=[1.6, 1])
    greedy, beam, values = evidence.series["greedy"], evidence.series["beam5"], evidence.values
    low = 1.05 * min(greedy.min(), beam.min())
    left.plot([low, 0], [low, 0], color=common.GREY, linewidth=1)
    left.plot(greedy, beam, "o", color=common.BLUE, markersize=8, alpha=0.6)
    left.set(xlabel="greedy: log-probability of its text (nats)", ylabel="5 beams: of theirs (nats)",
             title=f"{values['clips']} noisy clips: above the line beams find more")
    names = ["greedy", "5 beams"]
    bars = right.bar(names, [values["wer_greedy_percent"], values["wer_beam5_percent"]],
                     color=[common.GREY, common.BLUE])
    right.bar_label(bars, fmt="%.0f %%")
    right.set(ylabel="word error rate (%)", title=f"{values['time_ratio']:.1f} times the time")


def main(argv: list[str] | None = None) -> int:
    return common.run("beam_greedy", "1.05", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
