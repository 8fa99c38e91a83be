"""What is monitored after deployment, and how is a regression found?

A stream of transcriptions on this machine, in three stretches: a baseline, a control in which nothing changed, and one
with two planted regressions: every twelfth run is slowed down, and the sound becomes noisy. Measured: latency
percentiles, and what slow runs alone do to those of the baseline; the model's confidence (known without any reference),
word errors on the clips whose text is known, memory; and whether the alarm sounds where it should and nowhere else.
Runs of baseline and control take turns, so that another program that disturbs this machine disturbs both.
"""

import time

import numpy as np

from workbook.evidence import common

SLOW_SHARE = 0.08  # planted: of the runs
SLOW_TIMES = 4  # a slowed run waits as long as this many 95th percentiles of the baseline
NOISE_DB = -3.0  # planted: noise this far below the speech, so above it
# The alarm's limits, chosen before anything was planted.
P95_LIMIT = 3.0  # times the baseline's
CONFIDENCE_LIMIT = 4.0  # standard errors below the baseline's mean
WER_LIMIT = 10.0  # percentage points above the baseline's
STRETCHES = ("baseline", "control", "regression")


def planted(i: int, wait_s: float) -> float:
    """Seconds that run i of the stretch with the regression is slowed down."""
    return wait_s if i % round(1 / SLOW_SHARE) == 5 else 0.0


def degrade(sound: np.ndarray, seed: int) -> np.ndarray:
    """The sound that the stretch with the regression hears."""
    return common.noisy(sound, NOISE_DB, seed)


def measure(evidence, args) -> None:
    runtime, clips = common.onnx_runtime("int8"), common.spoken(args.quick)
    runs, seed = (36 if args.quick else 150), args.seed
    memory_before = _memory_mb()
    for sound, text in clips:
        listen(runtime, sound, text)  # warm-up
    found = {name: [] for name in STRETCHES}
    for i in range(runs):
        for name in ("baseline", "control"):
            found[name].append(listen(runtime, *clips[i % len(clips)]))
    wait_s = SLOW_TIMES * summary(found["baseline"])["p95_ms"] / 1000
    for i in range(runs):
        sound, text = clips[i % len(clips)]
        found["regression"].append(listen(runtime, degrade(sound, seed + i), text, planted(i, wait_s)))
    evidence.value("runs", runs, stable=not args.quick)
    evidence.value("slow_share_percent", 100 * sum(planted(i, 1) > 0 for i in range(runs)) / runs, "%")
    evidence.value("memory_grown_mb", _memory_mb() - memory_before, "MB")
    facts = {name: summary(rows) for name, rows in found.items()}
    for key in ("mean_ms", "p50_ms", "p95_ms", "p99_ms"):
        evidence.value(key, facts["baseline"][key], "ms")
        evidence.value(f"regression_{key}", facts["regression"][key], "ms")
    slowed = summary([row | {"latency_ms": row["latency_ms"] + 1000 * planted(i, wait_s)}
                      for i, row in enumerate(found["baseline"])])  # noise makes texts, and so runs, longer as well
    for key in ("mean", "p95"):
        evidence.value(f"{key}_change_percent", 100 * (slowed[f"{key}_ms"] / facts["baseline"][f"{key}_ms"] - 1), "%")
    for key, name in (("baseline", "baseline"), ("drift", "regression")):
        evidence.value(f"wer_{key}_percent", facts[name]["wer_percent"], "%")
        evidence.value(f"confidence_{key}", facts[name]["confidence"])
    rows = [np.array([(row["wrong"], row["words"]) for row in found[name]]) for name in ("baseline", "regression")]
    common.difference(evidence, "change_wer", *rows, args.seed)  # request i is the same clip in both
    alarms = {name: alarm(facts["baseline"], facts[name]) for name in STRETCHES[1:]}
    evidence.value("alarm", "yes" if alarms["regression"] else "no")
    evidence.value("alarm_reasons", ", ".join(alarms["regression"]) or "none")
    evidence.value("false_alarms", len(alarms["control"]))
    evidence.series = {"found": found, "limit": P95_LIMIT * facts["baseline"]["p95_ms"]}
    _claims(evidence, alarms)


def listen(runtime, sound: np.ndarray, text: str, slow_s: float = 0.0) -> dict:
    """One request: its latency, the model's mean log-probability per token, wrong words and words."""
    from whisper_lab.decoding import Options, decode
    from whisper_lab.features import log_mel

    start = time.perf_counter()
    result = decode(runtime, log_mel(sound, runtime.spec)[None], Options(language="en", max_tokens=48))[0]
    time.sleep(slow_s)  # the planted regression
    latency = time.perf_counter() - start
    errors = common.errors(text, result.text)
    return {"latency_ms": 1000 * latency, "confidence": result.avg_logprob,
            "wrong": errors.substitutions + errors.insertions + errors.deletions, "words": errors.reference_words}


def summary(rows: list[dict]) -> dict:
    """What the dashboard shows of a stretch."""
    latency, confidence = (np.array([row[key] for row in rows]) for key in ("latency_ms", "confidence"))
    p50, p95, p99 = np.quantile(latency, [0.5, 0.95, 0.99])
    return {"mean_ms": latency.mean(), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "confidence": confidence.mean(),
            "confidence_error": confidence.std(ddof=1) / np.sqrt(len(rows)),
            "wer_percent": 100 * sum(row["wrong"] for row in rows) / sum(row["words"] for row in rows)}


def alarm(baseline: dict, now: dict) -> list[str]:
    """Which limits are crossed."""
    reasons = []
    if now["p95_ms"] > P95_LIMIT * baseline["p95_ms"]:
        reasons.append("latency p95")
    spread = np.hypot(baseline["confidence_error"], now["confidence_error"])
    if now["confidence"] < baseline["confidence"] - CONFIDENCE_LIMIT * spread:
        reasons.append("confidence")
    if now["wer_percent"] > baseline["wer_percent"] + WER_LIMIT:
        reasons.append("word error rate")
    return reasons


def _memory_mb() -> float:
    import psutil

    return psutil.Process().memory_info().rss / 1e6


def _claims(evidence, alarms: dict[str, list[str]]) -> None:
    values = evidence.values
    evidence.claim("alarm", "The alarm finds the slow runs by p95 and the drift by the model's confidence.",
                   "Het alarm vindt de trage runs via p95 en de drift via de zekerheid van het model.",
                   {"latency p95", "confidence"} <= set(alarms["regression"]), values["alarm_reasons"])
    evidence.claim("no_false_alarm", "Where nothing was planted the alarm is silent.",
                   "Waar niets veranderd is, blijft het alarm stil.", values["false_alarms"] == 0,
                   values["false_alarms"])
    evidence.claim("p95_sees_more", "p95 shows the few slow runs more clearly than the mean does.",
                   "p95 toont de paar trage runs duidelijker dan het gemiddelde.",
                   values["p95_change_percent"] > values["mean_change_percent"] > 0, values["p95_change_percent"])
    evidence.claim("wer_drifts", "The word error rate has drifted upwards, as the confidence says without a reference.",
                   "De WER is gestegen, zoals de zekerheid van het model zonder referentie al aangaf.",
                   values["wer_drift_percent"] > values["wer_baseline_percent"], values["wer_drift_percent"])


def draw(evidence, figure) -> None:
    top, bottom = figure.subplots(2, 1, sharex=True)
    found, start = evidence.series["found"], 0
    for name, colour in zip(STRETCHES, (common.GREY, common.BLUE, common.RED), strict=True):
        x = np.arange(start, start + len(found[name]))
        top.plot(x, [row["latency_ms"] for row in found[name]], ".", color=colour, label=name)
        bottom.plot(x, [row["confidence"] for row in found[name]], ".", color=colour)
        for panel, key, what in ((top, "latency_ms", 0.95), (bottom, "confidence", None)):
            values = [row[key] for row in found[name]]
            level = np.quantile(values, what) if what else np.mean(values)
            panel.hlines(level, x[0], x[-1], color=colour, linewidth=3)
        start += len(x)
    top.axhline(evidence.series["limit"], color="black", linestyle="--", linewidth=1, label="alarm limit of p95")
    top.set_yscale("log")
    top.yaxis.set_major_formatter("{x:g}")
    top.yaxis.set_minor_formatter("")
    top.set(ylabel="latency (ms)", title="Points: runs. Bars: 95th percentile (above), mean (below)")
    top.legend(ncols=4, fontsize=12, loc="upper left", bbox_to_anchor=(0, 1.02))
    top.set_ylim(top=8 * evidence.series["limit"])
    bottom.set(xlabel="run", ylabel="mean log-prob.\nper token (nats)")


def main(argv: list[str] | None = None) -> int:
    return common.run("monitoring", "2.10", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
