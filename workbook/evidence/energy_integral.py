"""How does power become energy, and what goes wrong with mean power x readings x wished-for interval?

Computed with the profiler's own functions on simulated readings whose true energy is known: a power trace read at
irregular times (from a seed), and a counter that starts again from 0. Measured: how regularly this machine wakes up a
thread that asks for 50 ms while whisper-nano works, nano's real-time factor, and which energy counter is here.
"""

import time

import numpy as np

from workbook.evidence import common

ASKED_S = 0.05
WINDOW_S = 12.0
IDLE_W, BUSY_W, SETTLE_S = 20.0, 60.0, 0.3  # the work adds BUSY_W, reached with this time constant
ON_S, PERIOD_S = 1.5, 4.0  # it works so long of every period


def power(t: np.ndarray) -> np.ndarray:
    """Simulated power in W: bursts of work that rise and fall like a capacitor's voltage."""
    phase = np.mod(t, PERIOD_S)
    rise = 1 - np.exp(-np.minimum(phase, ON_S) / SETTLE_S)
    return IDLE_W + BUSY_W * rise * np.exp(-np.maximum(phase - ON_S, 0) / SETTLE_S)


def true_energy() -> float:
    """Joules in the window, on a grid so fine (10 us) that its own error does not count."""
    fine = np.linspace(0, WINDOW_S, 1_200_001)
    return float(np.trapezoid(power(fine), fine))


def stamps(seed: int) -> np.ndarray:
    """When a busy machine wakes a thread that asks for 50 ms: later, by a little or by a lot."""
    draw = np.random.default_rng(seed)
    late = draw.exponential(0.012, 10_000) + (draw.random(10_000) < 0.04) * draw.uniform(0.1, 0.3, 10_000)
    times = np.concatenate([[0.0], np.cumsum(ASKED_S + late)])
    return np.append(times[times < WINDOW_S], WINDOW_S)


def naive(readings: list) -> float:
    """Mean power x number of readings x the interval that was asked for."""
    return float(np.mean([watts for _, (watts,) in readings]) * len(readings) * ASKED_S)


def measure(evidence, args) -> None:
    from whisper_lab.energy import joules

    times = stamps(args.seed)
    readings = [(float(t), (float(power(t)),)) for t in times]
    truth, found = true_energy(), joules.from_power(readings, 0.0, WINDOW_S)
    evidence.value("source", "simulated power trace, irregular readings from a seed", stable=True)
    for key, joule in (("true_j", truth), ("trapezoid_j", found), ("naive_j", naive(readings))):
        evidence.value(key, joule, "J", stable=True)
    evidence.value("trapezoid_error_percent", 100 * abs(found / truth - 1), "%", stable=True)
    evidence.value("naive_error_percent", 100 * abs(naive(readings) / truth - 1), "%", stable=True)
    evidence.value("asked_ms", 1000 * ASKED_S, "ms", stable=True)
    evidence.value("mean_interval_ms", 1000 * float(np.diff(times).mean()), "ms", stable=True)
    evidence.value("readings", len(times), stable=True)
    evidence.value("idle_w", IDLE_W, "W", stable=True)
    evidence.value("window_s", WINDOW_S, "s", stable=True)
    evidence.value("gross_j", found, "J", stable=True)
    evidence.value("net_j", found - IDLE_W * WINDOW_S, "J", stable=True)
    _wrap(evidence, joules)
    _here(evidence, args.quick)
    evidence.series = {"times": times, "watts": power(times)}
    _claims(evidence)


def _wrap(evidence, joules) -> None:
    """A counter that starts again from 0 at 262,144 J (2^38 uJ), read each 5 s while 80 W are drawn."""
    wraps_at, true_j = 2**38 / 1e6, 80.0 * 60
    readings = [(5.0 * i, ((wraps_at - 1000 + 80.0 * 5 * i) % wraps_at,)) for i in range(13)]
    evidence.value("counter_true_j", true_j, "J", stable=True)
    evidence.value("counter_wraps_at_j", wraps_at, "J", stable=True)
    evidence.value("counter_wrap_wrong_j", joules.from_counter(readings), "J", stable=True)
    evidence.value("counter_wrap_right_j", joules.from_counter(readings, (wraps_at,)), "J", stable=True)


def _here(evidence, quick: bool) -> None:
    """What this machine does: intervals of a real log while nano works, its real-time factor, its energy counter."""
    from whisper_lab.decoding import Options, decode
    from whisper_lab.energy import meters, readings
    from whisper_lab.features import log_mel
    from whisper_lab.metrics import real_time_factor

    runtime, clip = common.onnx_runtime(), common.samples("hello.wav")
    features, seconds = log_mel(clip, runtime.spec)[None], 1.0 if quick else 4.0
    decode(runtime, features, Options(language="en"))
    rounds, start = 0, time.perf_counter()
    with readings.Log([], ASKED_S) as log:
        while time.perf_counter() - start < seconds:
            decode(runtime, features, Options(language="en"))
            rounds += 1
    spent = time.perf_counter() - start
    evidence.value("rtf", real_time_factor(spent, rounds * len(clip) / common.RATE))
    intervals = np.diff([row.at for row in log.rows][:-1])  # the last reading is not the thread's
    evidence.value("real_mean_interval_ms", 1000 * float(intervals.mean()), "ms")
    evidence.value("real_longest_interval_ms", 1000 * float(intervals.max()), "ms")
    found = meters.open_meters("cpu")
    reasons = "; ".join(f"{name}: {found.reasons[name]}" for name in ("nvml", "rapl", "battery")
                        if name in found.reasons)
    evidence.value("energy_here", found.primary.source if found.primary else "null")
    evidence.value("energy_reason", f"a meter was found: {found.primary.name}" if found.primary else reasons)
    found.close()


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("trapezoid", "The trapezoidal rule over real time stamps comes within one percent (simulated).",
                   "Met de trapeziumregel over echte tijdstippen is de fout kleiner dan één procent (gesimuleerd).",
                   values["trapezoid_error_percent"] < 1, values["trapezoid_error_percent"])
    evidence.claim("naive", "Mean x count x wished-for interval is off by more than ten percent (simulated).",
                   "Gemiddelde x aantal x gewenst interval zit er meer dan tien procent naast (gesimuleerd).",
                   values["naive_error_percent"] > 10, values["naive_error_percent"])
    evidence.claim("wrap", "A counter that wrapped gives a negative energy, unless the wrap is added (simulated).",
                   "Een teller die overliep, geeft een negatieve energie, tenzij je dat corrigeert (gesimuleerd).",
                   values["counter_wrap_wrong_j"] < 0 and
                   abs(values["counter_wrap_right_j"] - values["counter_true_j"]) < 1e-3,
                   values["counter_wrap_wrong_j"])
    evidence.claim("late", "A thread that asks for an interval is on average not woken earlier than that (measured).",
                   "Een thread die om een interval vraagt, wordt gemiddeld niet eerder gewekt dan gevraagd (gemeten).",
                   values["real_mean_interval_ms"] >= values["asked_ms"], values["real_mean_interval_ms"])


def draw(evidence, figure) -> None:
    left, right = figure.subplots(1, 2, width_ratios=[2.2, 1])
    values, series = evidence.values, evidence.series
    fine = np.linspace(0, WINDOW_S, 3000)
    left.fill_between(series["times"], series["watts"], color=common.BLUE, alpha=0.2, label="trapezoids")
    left.plot(fine, power(fine), color=common.GREY, linewidth=1.5, label="true power (simulated)")
    left.plot(series["times"], series["watts"], ".", color=common.BLUE, markersize=5, label="readings")
    left.axhline(IDLE_W, color=common.ORANGE, linestyle="--", label="idle")
    left.set(xlabel="time (s)", ylabel="power (W)", ylim=(0, 115), xlim=(0, WINDOW_S),
             title=f"asked every {values['asked_ms']:.0f} ms, came every {values['mean_interval_ms']:.0f} ms")
    left.legend(ncols=2, loc="upper center", fontsize=12)
    bars = right.bar(["truth", "trape-\nzoids", "mean x\ncount x\n50 ms"],
                     [values["true_j"], values["trapezoid_j"], values["naive_j"]],
                     color=[common.GREY, common.BLUE, common.RED])
    right.bar_label(bars, fmt="%.0f")
    right.set(ylabel="energy (J)")


def main(argv: list[str] | None = None) -> int:
    return common.run("energy_integral", "3.15", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
