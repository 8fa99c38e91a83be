"""The pictures of an analysis: clocks, factors, real time against energy, and power over each run's time."""

import functools
import math
from pathlib import Path

import numpy as np

from whisper_lab import console
from whisper_lab.metrics import FEWEST_FOR_INTERVAL
from whisper_lab.pictures import Layout, Picture, plot, twice
from whisper_lab.sweeps import profiles
from whisper_lab.sweeps.analysis import FACTORS
from whisper_lab.sweeps.layout import find_runs

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777"]
MOST_TRACES = 6


def draw(made: dict, experiments: list[dict], folders: list[Path], target: Path) -> dict[str, Picture]:
    """All pictures that the data allow, by name."""
    pictures = {f"clocks-{group['number']}": _group(group, experiments, folders, target) for group in made["groups"]}
    for factor, clusters in made["comparisons"].items():
        pictures[f"factor-{factor}"] = twice(functools.partial(factors, factor, clusters[0]),
                                             target / f"{factor}-against-energy.png")
    points = [(group, one) for group in made["groups"] for one in group["clocks"] if one["rtf"]["mean"]]
    if any(one["j_per_audio_s"]["mean"] for _, one in points):
        pictures["real-time"] = twice(functools.partial(real_time, points), target / "rtf-against-energy.png")
    return pictures


def _group(group: dict, experiments: list[dict], folders: list[Path], target: Path) -> Picture:
    """Of several clocks their means; of one clock its runs."""
    if len(group["clocks"]) > 1:
        return twice(functools.partial(clocks, group), target / f"clocks-{group['number']}.png")
    chosen = [run for one in experiments for run in one["runs"] if run["status"] == "success"
              and all(run[name] == group[name] for name in ("machine", "app", "model", "precision", "batch"))]
    return twice(functools.partial(runs, group, chosen, {folder.name: folder for folder in folders}),
                 target / f"runs-{group['number']}.png")


def _estimate(sources: list[dict]) -> str:
    """What a title adds where joules were not measured."""
    return " (ESTIMATED energy)" if any("estimate" in one["methods"] for one in sources) else ""


def _half(spread: dict) -> float:
    return 0.0 if spread["low"] is None else spread["high"] - spread["mean"]


def clocks(group: dict, layout: Layout):
    """Time, energy and EDP over the requested clock, 95 % intervals, the optimum marked."""
    rows = [one for one in group["clocks"] if one["freq_mhz"] is not None]
    columns = [("time_s", "time, s"), ("energy_j", "energy, J"), ("edp_js", "energy × delay, J s")]
    columns = [column for column in columns if any(one[column[0]]["mean"] is not None for one in rows)]
    figure, axes = plot(layout, len(columns), height=0.8)
    for axis, (name, label), colour in zip(axes, columns, COLOURS, strict=False):
        known = [one for one in rows if one[name]["mean"] is not None]
        axis.errorbar([one["freq_mhz"] for one in known], [one[name]["mean"] for one in known],
                      [_half(one[name]) for one in known], marker="o", capsize=4, color=colour,
                      linewidth=2 * layout.scale)
        axis.set(xlabel="requested clock, MHz", ylabel=label, ylim=(0, None))
        best = group["optimum"]["edp"]
        if name == "edp_js" and best and best["freq_mhz"] is not None:
            axis.plot(best["freq_mhz"], best["value"], marker="*", markersize=22 * layout.scale, color="#E69F00",
                      zorder=5)
            axis.set_title(f"★ optimum within the limit: {best['freq_mhz']} MHz", fontsize="small")
        if name == "time_s" and group["optimum"]["limit_s"]:
            axis.axhline(group["optimum"]["limit_s"], color="#777777", linestyle="--", linewidth=1)
            axis.annotate("time limit", (rows[0]["freq_mhz"], group["optimum"]["limit_s"]),
                          xytext=(0, -18 * layout.scale), textcoords="offset points", color="#555555")
    reason = "" if len(columns) > 1 else "; energy unknown on this machine"
    runs = rows[0]["runs"]
    spread = ", 95 % interval" if runs >= FEWEST_FOR_INTERVAL else ""
    title = f"{group['label']}: mean of {console.count(runs, 'run')}{spread}{reason}{_estimate([group])}"
    figure.suptitle(layout.wrapped(title))
    return figure


def runs(group: dict, chosen: list[dict], folders: dict[str, Path], layout: Layout):
    """One clock: the real-time factor of each run, and power (or the processor's load) over its time."""
    figure, axes = plot(layout, 2, height=0.8, width_ratios=[1, 2])
    names = [f"{run['run']:02d}" for run in chosen]
    values = [run["rtf"] if run["rtf"] is not None else math.nan for run in chosen]
    axes[0].bar(names, values, color=COLOURS[0], width=0.6)
    for name, value in zip(names, values, strict=True):
        if math.isfinite(value):
            axes[0].text(name, value, f"{value:.3g}", ha="center", va="bottom")
    axes[0].set(xlabel="run", ylabel="real-time factor", title="Speed of each run")
    label = _traces(axes[1], chosen[:MOST_TRACES], folders)
    axes[1].set(xlabel="time since the profile's start, s", ylabel=label or "", ylim=(0, None),
                title=f"{'Power' if label and 'W' in label else 'Load'} over time")
    title = f"{group['label']}, default clock" if group["clocks"][0]["freq_mhz"] is None else group["label"]
    figure.suptitle(layout.wrapped(title))
    return figure


def _traces(axis, chosen: list[dict], folders: dict[str, Path]) -> str | None:
    """Draw the first column that every profile knows; its label."""
    found = [(run, profile) for run in chosen if (profile := _profile(run, folders))]
    for column, label in (("power", "power, W"), ("utilization", "GPU load, %"), ("cpu_utilization", "CPU load, %")):
        assumed = column == "power" and any(run["method"] == "estimate" for run in chosen)  # a straight line: no news
        if found and not assumed and all(profile.known(column) for _, profile in found):
            for (run, profile), colour in zip(found, COLOURS, strict=False):
                times = profile.columns.get("time", np.arange(len(profile.columns[column]), dtype=float))
                # A load is that since the reading before: over a few milliseconds it says nothing.
                good = np.isfinite(profile.columns[column]) & (
                    (np.diff(times, prepend=-1.0) > 0.02) | (column == "power"))
                axis.plot(times[good] - times[0], profile.columns[column][good], color=colour, linewidth=1.5,
                          label=f"run {run['run']:02d}")
            axis.legend(loc="lower right")
            return label
    axis.text(0.5, 0.5, "the profiles hold no power and no load", ha="center", transform=axis.transAxes)
    return None


def _profile(run: dict, folders: dict[str, Path]) -> profiles.Profile | None:
    found = find_runs(folders[run["folder"]]).get(run["run_id"])
    try:
        return profiles.read(found["files"]["profile"])[0]
    except (TypeError, KeyError, ValueError, IndexError):
        return None


def factors(factor: str, cluster: list[dict], layout: Layout):
    """One factor: joules (or, where unknown, seconds) a second of audio, beside the real-time factor."""
    names = [str(entry["value"]) for entry in cluster]
    columns = [("j_per_audio_s", "energy, J per second of audio"), ("energy_j", "energy, J"),
               ("rtf", "real-time factor"), ("time_s", "time, s")]
    known = [column for column in columns if all(entry[column[0]]["mean"] is not None for entry in cluster)]
    shown = [column for i, column in enumerate(known) if column[0] not in ("energy_j", "time_s") or i == 0]
    figure, axes = plot(layout, max(1, len(shown)), height=0.8)
    for axis, (name, label), colour in zip(axes, shown, COLOURS, strict=False):
        axis.bar(names, [entry[name]["mean"] for entry in cluster], yerr=[_half(entry[name]) for entry in cluster],
                 color=colour, capsize=5, width=0.6)
        axis.set(xlabel=FACTORS[factor], ylabel=label, ylim=(0, None))
        axis.grid(axis="x", visible=False)
        axis.tick_params(axis="x", labelrotation=20 if max(map(len, names)) > 12 else 0)
    if not shown:
        axes[0].text(0.5, 0.5, "nothing was measured in all of them", transform=axes[0].transAxes, ha="center")
    title = f"{FACTORS[factor].capitalize()} against energy{_estimate(cluster)}"
    known = any("energy" in label for _, label in shown)
    figure.suptitle(layout.wrapped(title if known else f"{title} (energy unknown: time instead)"))
    return figure


def real_time(points: list[tuple[dict, dict]], layout: Layout):
    """Every configuration and clock: how fast, and at what price."""
    figure, (axis,) = plot(layout, height=1.3)
    labels = list(dict.fromkeys(group["label"] for group, _ in points))
    for label, colour in zip(labels, COLOURS * (1 + len(labels) // len(COLOURS)), strict=False):
        chosen = [one for group, one in points if group["label"] == label and one["j_per_audio_s"]["mean"]]
        if not chosen:
            continue
        x, y = [one["rtf"]["mean"] for one in chosen], [one["j_per_audio_s"]["mean"] for one in chosen]
        axis.errorbar(x, y, [_half(one["j_per_audio_s"]) for one in chosen], [_half(one["rtf"]) for one in chosen],
                      fmt="o", capsize=3, color=colour, label=label, markersize=9 * layout.scale)
        for one, a, b in zip(chosen, x, y, strict=True):
            if one["freq_mhz"]:
                axis.annotate(f"{one['freq_mhz']} MHz", (a, b), xytext=(8, 6), textcoords="offset points",
                              fontsize="small")
    rates = [one["rtf"]["mean"] for _, one in points]
    highest = max(one["j_per_audio_s"]["mean"] or 0 for _, one in points)
    axis.axvline(1, color="#777777", linestyle="--", linewidth=1)
    axis.set(xlabel="real-time factor (below 1: faster than speech)", ylabel="energy, J per second of audio",
             xscale="log", xlim=(min(rates) / 1.4, max(rates) * 1.6), ylim=(0, 1.15 * highest),
             title=layout.wrapped(f"Real-time factor against energy{_estimate([group for group, _ in points])}"))
    for which in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
        which("{x:g}")
    if layout.narrow:
        figure.legend(frameon=False, loc=layout.legend)
    else:
        axis.legend(frameon=False, loc="lower right")
    return figure
