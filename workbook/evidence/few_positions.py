"""Why is it no proof that two models choose the same token at ten positions out of ten?

Measured with whisper-base (whisper-nano where base cannot be had): the next token at every position of the clips, in
float32 and with all linear layers rounded to 8 and to 4 bits (imitated in PyTorch), over the same history; how many
stretches of ten positions show no difference all the same; and what ten out of ten says about the rest. base hears as
many clips as its window holds one behind the other: what it costs is the windows, what it shows is the positions.
"""

import numpy as np

from workbook.evidence import common, imitated

STRETCH = 10  # positions
SURE = 0.05  # a share this unlikely is excluded: 95 % confidence
WANTED = 0.99  # agreement that one would like to have shown
MOST_TOKENS = 160  # of a window: thirty seconds of these sentences have fewer
BITS = {"int8": 8, "int4": 4}
NANO_NOISE_DB = -3.0  # below the speech, so 3 dB above it


def measure(evidence, args) -> None:
    from whisper_lab.features import log_mel

    runtime = common.best_torch()
    evidence.value("model", common.best().name)
    sounds = [sound for sound, _ in common.spoken(args.quick)]
    if common.best().source == "bundled":  # nano is too sure of its few sentences to differ on clean ones
        sounds = [common.noisy(sound, NANO_NOISE_DB, args.seed + i) for i, sound in enumerate(sounds)]
    else:
        sounds = joined(sounds, runtime.spec.n_samples)
    features = [log_mel(sound, runtime.spec)[None] for sound in sounds]
    evidence.value("windows", len(features), stable=not args.quick)
    heard = [runtime.encode(one) for one in features]
    histories = [_history(runtime, one) for one in heard]
    right = [_choices(runtime, one, *history) for one, history in zip(heard, histories, strict=True)]
    evidence.value("positions", sum(map(len, right)))
    layers = imitated.linears(runtime.model).values()
    for name, bits in BITS.items():
        with imitated.quantized(layers, bits):
            other = [_choices(runtime, runtime.encode(one), *history)
                     for one, history in zip(features, histories, strict=True)]
        same = np.concatenate([a == b for a, b in zip(right, other, strict=True)])
        common.share(evidence, f"top1_{name}", same.sum(), same.size)
        evidence.value(f"differing_{name}", int((~same).sum()))
        tens = np.lib.stride_tricks.sliding_window_view(same, STRETCH).all(axis=1)
        evidence.value(f"clean_{name}", int(tens.sum()))  # they overlap: a count of what is there, no independent draws
        evidence.series[name] = same
    evidence.value("stretches", int(tens.size))
    evidence.value("stretch", STRETCH, stable=True)
    evidence.value("least_percent", 100 * SURE ** (1 / STRETCH), "%", stable=True)
    common.share(evidence, "tens", STRETCH, STRETCH, stable=True)
    evidence.value("needed", int(np.ceil(np.log(SURE) / np.log(WANTED))), stable=True)
    _claims(evidence)


def joined(sounds: list[np.ndarray], most: int) -> list[np.ndarray]:
    """The sounds one behind the other, as many in each as fit into `most` samples."""
    made = sounds[:1]
    for sound in sounds[1:]:
        if len(made[-1]) + len(sound) <= most:
            made[-1] = np.concatenate([made[-1], sound])
        else:
            made.append(sound)
    return made


def _history(runtime, heard) -> tuple[list[int], list[int]]:
    """What float32 writes down of an encoded window: (prompt, tokens)."""
    from whisper_lab.decoding import Options, decode_encoded

    found = decode_encoded(runtime, heard, 1, Options(language="en", max_tokens=MOST_TOKENS))[0]
    return found.prompt, found.tokens


def _choices(runtime, heard, prompt: list[int], tokens: list[int]) -> np.ndarray:
    """int [tokens + 1]: the likeliest next token after the prompt and after each token; the prompt itself is given."""
    logits = runtime.step(np.array([[*prompt, *tokens]], np.int64), heard, None)[0]
    return logits[0, len(prompt) - 1:].argmax(axis=-1)


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("tens", "A model that does not always choose the same token still does on at least one in five "
                   "stretches of ten.", "Een model dat niet altijd hetzelfde token kiest, doet dat op minstens één op "
                   "vijf reeksen van tien toch.",
                   values["differing_int4"] > 0 and 5 * values["clean_int8"] >= values["stretches"],
                   values["clean_int8"])
    evidence.claim("bound", "Ten out of ten excludes no agreement above three quarters, at 95 % confidence.",
                   "Tien op tien sluit bij 95 % zekerheid geen enkele overeenkomst boven drie kwart uit.",
                   values["least_percent"] < 75, values["least_percent"])
    evidence.claim("bits", "With weights of 4 bits at least as many tokens differ as with 8.",
                   "Met gewichten van 4 bits verschillen er minstens evenveel tokens als met 8.",
                   values["differing_int4"] >= values["differing_int8"], values["differing_int4"])


def draw(evidence, figure) -> None:
    top, bottom = figure.subplots(2, 1, height_ratios=[1, 1.3])
    values = evidence.values
    for place, name in enumerate(BITS):
        wrong = np.flatnonzero(~evidence.series[name])
        top.vlines(wrong, place - 0.35, place + 0.35, color=common.RED, linewidth=2.5)
        top.hlines(place, 0, values["positions"], color=common.GREY, linewidth=1)
    top.set_yticks(range(len(BITS)), [f"{name}: {values[f'differing_{name}']}" for name in BITS])
    top.set(xlabel="position", title=f"{values['model']}: where another token is chosen, of {values['positions']}")
    seen = np.arange(1, 400)
    bottom.plot(seen, 100 * SURE ** (1 / seen), color=common.BLUE, linewidth=2.5)
    bottom.plot([STRETCH], [values["least_percent"]], "o", color=common.RED, markersize=9)
    bottom.annotate(f"10 of 10: at least {values['least_percent']:.0f} %", (STRETCH, values["least_percent"]), (30, 68),
                    arrowprops={"arrowstyle": "->"})
    bottom.set(xlabel="positions that all agreed", ylabel="at least (%)", ylim=(50, 101),
               title="what that shows about all positions, at 95 % confidence")


def main(argv: list[str] | None = None) -> int:
    return common.run("few_positions", "4.03", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
