"""Who spoke when: what does the diarization error rate count, and how wrong are the turns of script 10?

Measured: the rate of turns made for this, with one fault of each kind, by the function that script 10 uses. Taken from
benchmarks/speakers.json, which `benchmarks/speakers.py` measured on human speech: the rate and the number of speakers
found, for readers joined in random order, over a telephone, and in meetings of two.
"""

import json

from workbook.evidence import common

BENCHMARK = common.ROOT / "benchmarks" / "speakers.json"
KINDS = {"files": "readers", "telephone": "telephone", "meetings": "meetings"}  # in the benchmark -> name of a value


def measure(evidence, args) -> None:
    _example(evidence)
    document = json.loads(BENCHMARK.read_text(encoding="utf-8"))
    for group, name in KINDS.items():
        rows = document[group]
        judged = sum(row["judged_s"] for row in rows)
        evidence.value(f"recordings_{name}", len(rows), stable=True)
        evidence.value(f"minutes_{name}", judged / 60, "min", stable=True)
        common.share(evidence, f"number_{name}", sum(row["speakers"] == row["found"] for row in rows), len(rows),
                     stable=True)
        for kind in ("missed", "false_alarm", "confused"):
            share = 100 * sum(row[f"{kind}_s"] for row in rows) / judged
            evidence.value(f"{kind}_{name}_percent", share, "%", stable=True)
        evidence.value(f"der_{name}_percent", 100 * sum(row["missed_s"] + row["false_alarm_s"] + row["confused_s"]
                                                        for row in rows) / judged, "%", stable=True)
    _claims(evidence)


def _example(evidence) -> None:
    """Two speakers, 30 s of speech, one fault of each kind; speakers' numbers mean nothing, so 0 and 1 are swapped."""
    from whisper_lab.speakers import turns
    from whisper_lab.speakers.turns import Turn

    truth = [Turn(0, 0, 10), Turn(1, 12, 22), Turn(0, 24, 34)]
    found = [Turn(1, 0, 8), Turn(0, 12, 19), Turn(1, 19, 22), Turn(1, 24, 35)]
    errors = turns.errors(truth, found, collar=0)
    evidence.value("example_speech_s", errors.total, "s", stable=True)
    evidence.value("example_missed_s", errors.missed, "s", stable=True)
    evidence.value("example_false_alarm_s", errors.false_alarm, "s", stable=True)
    evidence.value("example_confused_s", errors.confused, "s", stable=True)
    evidence.value("example_der_percent", 100 * errors.rate, "%", stable=True)
    evidence.series = {"truth": truth, "found": found}


def _claims(evidence) -> None:
    values = evidence.values
    parts = sum(values[f"example_{kind}_s"] for kind in ("missed", "false_alarm", "confused"))
    expected = 100 * parts / values["example_speech_s"]
    evidence.claim("sum", "The rate is what was missed, invented or given to the wrong speaker, over the speech "
                   "there was.", "De maat is wat gemist, verzonnen of aan de verkeerde spreker gegeven is, gedeeld "
                   "door de spraak die er was.", abs(values["example_der_percent"] - expected) < 0.01,
                   values["example_der_percent"])
    evidence.claim("telephone", "Over a telephone more speech goes to the wrong speaker than with the same clips in "
                   "full quality.", "Over de telefoon gaat er meer spraak naar de verkeerde spreker dan met "
                   "dezelfde clips in volle kwaliteit.",
                   values["confused_telephone_percent"] > values["confused_readers_percent"],
                   values["confused_telephone_percent"])


def draw(evidence, figure) -> None:
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    colours = (common.BLUE, common.ORANGE)
    for row, name in enumerate(("truth", "found")):
        for turn in evidence.series[name]:
            speaker = turn.speaker if name == "truth" else 1 - turn.speaker  # as the rate maps them
            left.broken_barh([(turn.start, turn.end - turn.start)], (row - 0.35, 0.7), color=colours[speaker])
    for start, end, what in ((8, 10, "missed"), (19, 22, "confused"), (34, 35, "invented")):
        left.annotate(what, ((start + end) / 2, 1.36), ((start + end) / 2, 1.75), ha="center",
                      arrowprops={"arrowstyle": "->"})
    left.set_yticks([0, 1], ["truth", "found"])
    left.set(xlabel="time (s)", ylim=(-0.6, 2.1),
             title="error rate {example_der_percent:.0f} % of {example_speech_s:.0f} s".format(**evidence.values))
    bottom = [0.0] * len(KINDS)
    for kind, colour in (("missed", common.GREY), ("false_alarm", common.GREEN), ("confused", common.RED)):
        heights = [evidence.values[f"{kind}_{name}_percent"] for name in KINDS.values()]
        right.bar(list(KINDS.values()), heights, bottom=bottom, color=colour, label=kind.replace("_", " "))
        bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
    right.set(ylabel="diarization error rate (%)", title="script 10, human speech")
    right.legend(fontsize=11)


def main(argv: list[str] | None = None) -> int:
    return common.run("who_spoke", "4.05", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
