"""Does int8 cost whisper-base words on human speech, and could chance explain what was seen?

Measured by `benchmarks/accuracy.py` and taken from benchmarks/accuracy.json, not measured again here: word error rates
of the lab's precisions on clips of human speech in five languages, the difference of each to float32, and the interval
in which that difference lies with 95 % confidence (a paired bootstrap over stretches of speech). An interval that
contains 0 says that chance explains the difference.
"""

import json

from workbook.evidence import common

BENCHMARK = common.ROOT / "benchmarks" / "accuracy.json"
POOLS = {"short": "short", "long": "long"}  # name of a value -> pool in the benchmark


def measure(evidence, args) -> None:
    document = json.loads(BENCHMARK.read_text(encoding="utf-8"))
    systems = {one["name"]: one["pools"] for one in document["systems"]}
    evidence.value("model", document["model"]["name"])
    evidence.value("clips", document["corpus"]["clips"], stable=True)
    evidence.value("languages", len(document["corpus"]["languages"]), stable=True)
    evidence.value("level_percent", 100 * document["bootstrap"]["level"], "%", stable=True)
    for pool, called in POOLS.items():
        evidence.value(f"words_{pool}", systems["this lab fp32"][called]["words"], stable=True)
        for precision in common.PRECISIONS:
            found = systems[f"this lab {precision}"][called]
            evidence.value(f"wer_{pool}_{precision}_percent", 100 * found["wer"], "%", stable=True)
            if difference := found["difference"]:
                for key in ("points", "low", "high"):
                    evidence.value(f"{key}_{pool}_{precision}", difference[key], "percentage points", stable=True)
                unequal, clips = difference["unequal_clips"], found["clips"]  # other counts of errors, not other texts
                evidence.value(f"unequal_{pool}_{precision}", unequal, stable=True)
                common.share(evidence, f"equal_{pool}_{precision}", clips - unequal, clips, stable=True)
    _claims(evidence)


def _claims(evidence) -> None:
    values = evidence.values
    inside = values["low_short_int4"] <= 0 <= values["high_short_int4"]
    evidence.claim("chance", "On these short clips chance explains the difference between base in int4 and in float32.",
                   "Op deze korte clips verklaart toeval het verschil tussen base in int4 en in float32.", inside,
                   values["points_short_int4"])
    evidence.claim("texts_differ", "Quantization does change texts: on some clips int4 makes more or fewer errors.",
                   "Kwantisatie verandert wel teksten: op sommige clips maakt int4 meer of minder fouten.",
                   values["unequal_short_int4"] > 0, values["unequal_short_int4"])
    evidence.claim("fp16", "float16 makes as many errors as float32 on at least 99 of 100 clips.",
                   "float16 maakt op minstens 99 van de 100 clips evenveel fouten als float32.",
                   values["unequal_short_fp16"] <= values["clips"] / 100, values["unequal_short_fp16"])


def draw(evidence, figure) -> None:
    values, panels = evidence.values, figure.subplots(1, 2, sharey=True)
    shown = ["fp16", "int8", "int4"]
    for panel, pool in zip(panels, POOLS, strict=True):
        for place, precision in enumerate(shown):
            low, middle, high = (values[f"{key}_{pool}_{precision}"] for key in ("low", "points", "high"))
            panel.plot([low, high], [place, place], color=common.BLUE, linewidth=6, solid_capstyle="butt")
            panel.plot([middle], [place], "o", color="black", markersize=9)
        panel.axvline(0, color=common.RED, linestyle="--")
        words, rate = values[f"words_{pool}"], values[f"wer_{pool}_fp32_percent"]
        panel.set(xlabel="WER - WER of fp32 (points)", title=f"{pool} clips, {words} words, fp32 {rate:.1f} %")
    panels[0].set_yticks(range(len(shown)), shown)
    figure.suptitle(f"{values['model']}: difference and its 95 % interval")


def main(argv: list[str] | None = None) -> int:
    return common.run("base_accuracy", "3.14", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
