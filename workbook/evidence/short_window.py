"""What does Whisper hear in a shorter window, and how much silence does it need behind the sound?

Measured: the same clips with 0, 2, 4 and 8 s of silence behind them instead of as much as fills the window, and with
2 s and the rest of the window thinned, as this lab's graphs have it: wrong words, texts that go round in a loop, and
how long the encoder takes.
"""

import contextlib
from unittest import mock

import numpy as np

from workbook.evidence import common

SILENCES_S = (0, 2, 4, 8)  # behind the sound; and at last the whole window
THINNED_S = 2
MOST_TOKENS = 48


def measure(evidence, args) -> None:
    runtime, clips = common.best_torch(), common.spoken(args.quick)
    spec = runtime.spec
    evidence.value("model", common.best().name)
    evidence.value("window_s", spec.window_s, "s", stable=True)
    evidence.value("clips", len(clips), stable=not args.quick)
    evidence.value("mean_clip_s", float(np.mean([len(sound) for sound, _ in clips])) / common.RATE, "s")
    whole, ends = hear(runtime, clips, None)
    found, likely_end = {"whole": whole}, {"whole": ends}
    with rest_left_out():
        for silence_s in SILENCES_S:
            found[f"{silence_s}_s"], likely_end[f"{silence_s}_s"] = hear(runtime, clips, silence_s, whole)
    found["thinned"], likely_end["thinned"] = hear(runtime, clips, THINNED_S, whole)
    counts = {name: common.counted(clips, [result.text for result in results]) for name, results in found.items()}
    for name, results in found.items():
        wrong, words = counts[name].sum(axis=0)
        evidence.value(f"wer_{name}_percent", 100 * wrong / words, "%")
        evidence.value(f"loops_{name}", sum(map(loops, results)))
        evidence.value(f"end_logprob_{name}", float(np.mean(likely_end[name])), "nats")
        if name != "whole":
            common.difference(evidence, f"change_{name}", counts["whole"], counts[name], args.seed)
    evidence.value("words", int(words), stable=not args.quick)
    worst = max(range(len(clips)), key=lambda i: len(found["0_s"][i].text))
    evidence.value("looped_said", clips[worst][1])
    evidence.value("looped_text", short(found["0_s"][worst].text) or "(nothing)")
    common.console.note("without silence", f'"{evidence.values["looped_text"]}"',
                        f'{common.best().name}; what was said: "{clips[worst][1]}"')
    time_encoder(evidence, common.best_runtime(), clips, common.rounds(15))
    _claims(evidence)


@contextlib.contextmanager
def rest_left_out():
    """Shorter windows end where they end: no positions stand for the rest of the whole one."""
    from whisper_lab import thinning

    with mock.patch.object(thinning, "MOST", 0):
        yield


def hear(runtime, clips, silence_s: float | None, whole: list | None = None) -> tuple[list, list[float]]:
    """Each clip, greedy, once, in a window as long as sound and silence: a decoding.Result, and how likely the end is.

    The latter is the end token's log-probability in nats after the text of `whole`, the results in whole windows; None:
    after the text found here. Each window is encoded once for both.
    """
    from whisper_lab import confidence
    from whisper_lab.decoding import Options, decode_encoded
    from whisper_lab.features import log_mel

    options = Options(language="en", max_tokens=MOST_TOKENS, no_speech_threshold=None)
    results, ends = [], []
    for i, (sound, _) in enumerate(clips):
        heard = runtime.encode(log_mel(sound, runtime.spec, frames(runtime.spec, sound, silence_s))[None])
        results.append(decode_encoded(runtime, heard, 1, options)[0])
        text = whole[i] if whole else results[-1]
        ends.append(float(confidence.logprobs(runtime, heard, text.prompt, text.tokens, False)[-1]))
    return results, ends


def frames(spec, sound: np.ndarray, silence_s: float | None) -> int:
    """Mel frames of sound and silence: an even number, since the encoder makes a position of two."""
    if silence_s is None:
        return spec.n_frames
    needed = -(-(len(sound) + round(silence_s * common.RATE)) // spec.hop_length)
    return min(spec.n_frames, needed + needed % 2)


def loops(result) -> bool:
    """It repeats itself, or did not end within MOST_TOKENS, where every one of these clips has ended long before."""
    from whisper_lab import confidence

    return not result.ended or result.compression_ratio > confidence.LOOPS


def short(text: str) -> str:
    """The beginning of a text: a loop shows soon."""
    return text if len(text) < 100 else f"{text[:100].rsplit(' ', 1)[0]} ..."


def time_encoder(evidence, runtime, clips, rounds: int) -> None:
    """The encoder on the first clip: with THINNED_S of silence and the rest thinned, and in the whole window."""
    from whisper_lab.features import log_mel

    sound, spec = clips[0][0], runtime.spec
    some = min(frames(spec, sound, THINNED_S), spec.n_frames // 4 * 2)
    windows = [log_mel(sound, spec, count)[None] for count in (some, spec.n_frames)]
    encodings = [lambda window=window: runtime.encode(window) for window in windows]
    little_s, whole_s = common.undisturbed_s(encodings, rounds)
    evidence.value("short_window_s", some * spec.hop_length / common.RATE, "s")
    evidence.value("encoder_ms_short", 1000 * little_s, "ms")
    evidence.value("encoder_ms_whole", 1000 * whole_s, "ms")
    evidence.value("encoder_times", whole_s / little_s)


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("whole_is_safe", "In the whole window no text goes round in a loop.",
                   "In het volle venster raakt geen enkele tekst in een lus.", values["loops_whole"] == 0,
                   values["loops_whole"])
    missed = values["end_logprob_whole"] - values["end_logprob_0_s"]
    evidence.claim("end_is_missed", "With no silence behind the sound the model finds the end of the text less likely.",
                   "Zonder stilte achter het geluid vindt het model het einde van de tekst minder waarschijnlijk.",
                   missed > 0, missed)
    gained = values["end_logprob_thinned"] - values[f"end_logprob_{THINNED_S}_s"]
    evidence.claim("rest_tells_the_end", "With the rest of the window thinned the end is likelier than without it.",
                   "Met de rest van het venster uitgedund is het einde waarschijnlijker dan zonder.", gained > 0,
                   gained)
    evidence.claim("shorter_is_faster", "The encoder takes less time for a shorter window.",
                   "De encoder heeft minder tijd nodig voor een korter venster.", values["encoder_times"] > 1.2,
                   values["encoder_times"])


def draw(evidence, figure) -> None:
    values = evidence.values
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    names = [f"{silence_s}_s" for silence_s in SILENCES_S] + ["thinned", "whole"]
    heights = [values[f"wer_{name}_percent"] for name in names]
    bars = left.bar(range(len(names)), heights, color=[common.RED if values[f"loops_{name}"] else common.GREEN
                                                       for name in names])
    for bar, height, name in zip(bars, heights, names, strict=True):
        count = values[f"loops_{name}"]
        left.annotate(f"{height:.0f} %\n{count} {'loop' if count == 1 else 'loops'}",
                      (bar.get_x() + bar.get_width() / 2, height), ha="center", va="bottom")
    left.set_xticks(range(len(names)), [*(f"{silence_s} s" for silence_s in SILENCES_S),
                                        f"{THINNED_S} s, rest\nthinned", "whole\nwindow"])
    left.set_xlabel("silence behind the sound")
    left.set_ylabel("word error rate (%)")
    left.set_ylim(0, 1.25 * max(1, *heights))
    left.set_title(f"{values['model']}, {values['clips']} clips, {values['words']} words", fontsize=13)
    right.bar([f"{values['short_window_s']:.0f} s", f"{values['window_s']:.0f} s"],
              [values["encoder_ms_short"], values["encoder_ms_whole"]], color=[common.GREEN, common.GREY])
    right.set_xlabel("window")
    right.set_ylabel("encoder (ms)")


def main(argv: list[str] | None = None) -> int:
    return common.run("short_window", "4.07", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
