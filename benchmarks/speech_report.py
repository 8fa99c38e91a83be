"""The part of RESULTS.md on speech as people use it: the picture, seconds beside word errors, and the goals.

`document` is what run.py writes; where it has no `speech`, from before that was measured, every function gives nothing.
"""

import statistics
from pathlib import Path

import floors
from speech import COMMAND, KINDS, PARTS, SHORT  # the kinds in the order of the columns, a cold start last

from whisper_lab import pictures

OURS = "this lab"
INT8, FAST, FP32 = "this lab int8", "this lab int8 optimized", "this lab fp32"
CT2, GENAI, TORCH = "faster-whisper int8", "OpenVINO GenAI int8", "transformers fp32"
# (kind of work, ours, the peer, times faster); a cold start is held against the peer's the other way round
FASTER = [("short", INT8, CT2, 4.5), ("short", FAST, CT2, 5.5), ("short", INT8, GENAI, 1.5),
          ("short", FAST, GENAI, 1.8), ("commands", FAST, CT2, 7.0), ("commands", FAST, GENAI, 2.5),
          ("long", INT8, CT2, 3.5), ("long", FAST, CT2, 5.0), ("long", INT8, GENAI, 1.5), ("long", FAST, GENAI, 2.0),
          ("short", FP32, TORCH, 2.5)]
COLDER = [(INT8, CT2, 0.5), (INT8, GENAI, 0.6)]  # of the peer's time
MEMORY = [(INT8, 270), (FAST, 230)]  # MB
MEGA = 1e6
OPENED_BEFORE = " What onnxruntime prepared of this lab's graphs was there from an earlier start."
NAMES = {"short": "short clips", "commands": "commands", "long": "long recording", "cold": "cold start"}
PANELS = ("short", "long")
GAP = 0.062  # of a panel's height between two labels


def median(document: dict, name: str, kind: str) -> float | None:
    """Seconds for all sounds of a kind; None where it was not measured."""
    found = document.get("speech", {}).get("systems", {}).get(name, {}).get(kind)
    return statistics.median(found["seconds"]) if found else None


def wer(found: dict) -> float:
    """Word error rate in %, median over the rounds."""
    return _percent(found, statistics.median(found["errors"]))


def _percent(found: dict, errors: float) -> float:
    return 100 * errors / found["words"] if found["words"] else 0.0


def _errors(found: dict) -> str:
    """The word error rate, and its range where a system wrote several texts."""
    ends = [f"{_percent(found, end(found['errors'])):.1f}" for end in (min, max)]
    return f"{wer(found):.1f}" + f" ({ends[0]}-{ends[1]})" * (ends[0] != ends[1])


# The table -----------------------------------------------------------------------------------------------------------

def section(document: dict) -> list[str]:
    """The lines of this part of RESULTS.md."""
    if "speech" not in document:
        return []
    return ["![Seconds against word errors, a point for each runtime](results.png)", "", *table(document), "",
            described(document), "", "### Goals", "", *goals(document), ""]


def table(document: dict) -> list[str]:
    """A row for each system: seconds and word errors of each kind of work, peak memory; [] without `speech`."""
    if not (found := document.get("speech")):
        return []
    works, rounds = found["works"], found["rounds"]
    heads = [f"{works['short']['clips']} clips of {SHORT[0]} to {SHORT[1]} s, s",
             f"the {works['commands']['clips']} of {COMMAND[0]} to {COMMAND[1]} s, s",
             f"one of {works['long']['seconds']:.0f} s, s"]
    lines = [f"| | {' | '.join(f'{head} | WER %' for head in heads)} | cold start s | peak MB |", "|---" * 9 + "|"]
    for row in document["peers"]:
        if set(row.get("cannot", ())) >= set(PARTS):
            continue  # has its place in the other table alone
        system = found["systems"].get(row["name"], {})
        if not any(kind in system for kind in KINDS):
            lines.append(f"| {row['name']} | not measured: {row['reason'] or _reason(system)} |" + " |" * 7)
            continue
        cells = []
        for kind, part in KINDS.items():
            cells += ["–", "–"] if part in row.get("cannot", ()) else _cells(system, kind, rounds)
        cold = system.get("cold")
        cells[-1] = f"{statistics.median(cold['peak_rss_bytes']) / MEGA:.0f}" if cold else "–"
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return lines


def _cells(system: dict, kind: str, rounds: dict[str, int]) -> list[str]:
    if not (one := system.get(kind)):
        return ["not measured", "–"]
    seconds = statistics.median(one["seconds"])
    fewer = "" if len(one["seconds"]) == rounds[KINDS[kind]] else f" ({len(one['seconds'])} round" \
        f"{'' if len(one['seconds']) == 1 else 's'})"
    most = max(one["loops"])
    loops = f", {most} loop{'' if most == 1 else 's'}" if most else ""
    return [f"{seconds:.2f}{fewer}", f"{_errors(one)}{loops}"]


def _reason(system: dict) -> str:
    return next(iter(system.get("reasons", {}).values()), "")


def described(document: dict) -> str:
    """What was heard, and how often; what is to be known of a row."""
    found = document["speech"]
    works, rounds = found["works"], found["rounds"]
    long = f"{works['joined']} clips joined" if works["joined"] else "one recording"
    notes = [f"- {row['name']}: {row['note']}" for row in document["peers"]
             if row["note"] and "tokens" in row.get("cannot", ())]
    notes += [f"- {name}, {part}: {text}" for name, system in found["systems"].items()
              for part, text in system["reasons"].items()]
    return "\n".join([
        f"English speech of a corpus: {works['short']['clips']} clips of {works['short']['seconds']:.0f} s, "
        f"{works['short']['words']} words; {works['commands']['clips']} of them are {COMMAND[0]} to {COMMAND[1]} s "
        f"long ({works['commands']['words']} words); {works['long']['seconds']:.0f} s and {works['long']['words']} "
        f"words, {long}. Each system in turn, in fresh processes; rounds: {rounds['clips']} of the short clips, "
        f"{rounds['long']} of the long recording, {rounds['cold']} of the cold start; medians. Greedy everywhere; the "
        "long recording as each system goes through one. Cold start: from the start of the process to the text of a "
        f"clip of {works['cold']['seconds']:.0f} s; peak: "
        "the most memory of that process." + _counted(found["systems"])
        + OPENED_BEFORE * bool(document.get("opened_before")),
        *([""] + notes if notes else [])])


# Goals ---------------------------------------------------------------------------------------------------------------

def _counted(systems: dict) -> str:
    """A sentence on which texts were counted: older results kept those of the first round alone."""
    kinds = [one for system in systems.values() for kind in KINDS if (one := system.get(kind))]
    if all(len(one["errors"]) == len(one["seconds"]) for one in kinds):
        return " WER: in brackets the range over the rounds, where their texts differ."
    return " WER: of the first round's texts."


def goals(document: dict) -> list[str]:
    """Each goal with what came out; in brackets the range over the rounds, in which both took turns."""
    lines = ["| work | this lab | against | goal | measured | |", "|---|---|---|---|---|---|"]
    lines += [_line(document, kind, ours, peer, wanted, True) for kind, ours, peer, wanted in FASTER]
    lines += [_line(document, "cold", ours, peer, wanted, False) for ours, peer, wanted in COLDER]
    systems = document["speech"]["systems"]
    for ours, wanted in MEMORY:
        cold = systems.get(ours, {}).get("cold")
        value = statistics.median(cold["peak_rss_bytes"]) / MEGA if cold else None
        lines.append(_judged("peak memory", _short(ours), "", f"{wanted} MB", value, wanted, False,
                             "" if value is None else f"{value:.0f} MB"))
    for ours in (INT8, FAST):
        mine, theirs = (systems.get(name, {}).get("long") for name in (ours, CT2))
        value = wer(mine) if mine and theirs else None
        limit = wer(theirs) if value is not None else 0.0
        lines.append(_judged("WER of the long recording", _short(ours), CT2, f"{limit:.1f} %", value, limit, False,
                             "" if value is None else f"{value:.1f} %"))
    return lines


def _short(name: str) -> str:
    return name.removeprefix(f"{OURS} ")


def _line(document: dict, kind: str, ours: str, peer: str, wanted: float, faster: bool) -> str:
    systems = document["speech"]["systems"]
    mine, theirs = (systems.get(name, {}).get(kind) for name in (ours, peer))
    goal = f"{wanted:g} times faster" if faster else f"{wanted:g} of its time"
    if not mine or not theirs:
        return _judged(NAMES[kind], _short(ours), peer, goal, None, wanted, faster, "")
    pairs = list(zip(mine["seconds"], theirs["seconds"], strict=False))
    ratios = [other / own if faster else own / other for own, other in pairs]
    medians = [statistics.median(one["seconds"]) for one in (mine, theirs)]
    value = medians[1] / medians[0] if faster else medians[0] / medians[1]
    ends = floors.long_floor(document, _short(ours)) if kind == "long" else None
    return _judged(NAMES[kind], _short(ours), peer, goal, value, wanted, faster,
                   f"{value:.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
                   f"; the floor allows {medians[1] / ends[0]:.1f}" if ends else "")


def _judged(kind: str, ours: str, peer: str, goal: str, value: float | None, wanted: float, at_least: bool,
            shown: str, allowed: str = "") -> str:
    """allowed: what is said of the machine where the goal is missed."""
    if value is None:
        return f"| {kind} | {ours} | {peer} | {goal} | not measured | |"
    met = value >= wanted if at_least else value <= wanted
    off = "met" if met else f"missed by {abs(value / wanted - 1):.0%}{allowed}" if wanted else "missed"
    return f"| {kind} | {ours} | {peer} | {goal} | {shown} | {off} |"


# The picture ---------------------------------------------------------------------------------------------------------

def picture(document: dict, path: Path) -> bool:
    """Seconds, on a logarithmic axis, against word errors; a panel each for short clips and the long recording.

    False, and nothing written, where no speech was measured.
    """
    if not (found := document.get("speech")):
        return False
    points = {kind: [(name, statistics.median(system[kind]["seconds"]), wer(system[kind]))
                     for name, system in found["systems"].items() if kind in system] for kind in PANELS}
    if not any(points.values()):
        return False
    figure, axes = pictures.plot(columns=2)
    for axis, kind in zip(axes, PANELS, strict=True):
        works = found["works"][kind]
        what = f"{works['clips']} short clips" if kind == "short" else "one long recording"
        axis.set_title(f"{what}, {works['seconds']:.0f} s of sound")
        panel(axis, points[kind])
    axes[0].set_ylabel("word error rate, %")
    threads = document["settings"]["threads"]
    figure.suptitle(f"{document['model']['name']}, {threads} thread{'' if threads == 1 else 's'}: "
                    "left is faster, down is more accurate; blue is this lab", fontsize=18)
    pictures.save(figure, path)
    return True


def panel(axis, points: list[tuple[str, float, float]]) -> None:
    """The points of one panel, each with its name beside it."""
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    axis.set_xscale("log")
    axis.set_xlabel("seconds of computing (logarithmic)")
    if not points:
        axis.set_axis_off()
        return
    points = sorted(points, key=lambda point: (point[2], -point[1]))  # of equal ones the slowest has the lowest label
    seconds, errors = [x for _, x, _ in points], [y for _, _, y in points]
    spread = max(max(errors) - min(errors), 1.0)
    axis.set_xlim(min(seconds) / 1.25, max(seconds) * 4.6)  # the names need room on the right
    axis.set_ylim(min(errors) - 0.15 * spread, max(errors) + 0.25 * spread)
    ticks = [tick for base in (0.01, 0.1, 1, 10, 100, 1000) for tick in (base, 2 * base, 5 * base)]
    axis.set_xticks([tick for tick in ticks if axis.get_xlim()[0] <= tick <= max(seconds) * 1.5])
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    low, high = axis.get_ylim()
    for (name, x, y), height in zip(points, heights([(y - low) / (high - low) for y in errors]), strict=True):
        mine = name.startswith(OURS)
        color = "#0b5fa5" if mine else "#666666"
        axis.plot(x, y, "o" if mine else "s", color=color, markersize=11, zorder=3)
        axis.annotate(_short(name) if mine else name, (x, y), (1.2 * max(seconds), low + height * (high - low)),
                      color=color, fontsize=14, fontweight="bold" if mine else "normal", va="center",
                      arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.35, "linewidth": 1, "relpos": (0, 0.5)})


def heights(wanted: list[float]) -> list[float]:
    """Where labels go that want these heights, 0 to 1: in the same order, and GAP apart."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    placed, floor = [0.0] * len(wanted), -1.0
    for i in order:
        placed[i] = max(wanted[i], floor + GAP)
        floor = placed[i]
    ceiling = 1 - GAP / 2
    for i in reversed(order):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - GAP
    return placed
