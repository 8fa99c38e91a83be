"""accuracy.json -> ACCURACY.md, the picture, the verdicts.

    python benchmarks/accuracy_report.py          # writes ACCURACY.md and accuracy.png again from accuracy.json
"""

import json
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import corpora  # noqa: E402
from scoring import beyond_chance, judgement  # noqa: E402

from whisper_lab import console, files, machine  # noqa: E402
from whisper_lab.console import count  # noqa: E402

FEW = 200  # words; in a smaller group one error moves the rate by half a point or more
SEVERAL = " *"  # marks such a group
OURS = "this lab"
JOINED = "joined"  # the pool of short clips that are heard as one recording
JOINED_MEANS = " Joined: the short clips of each language as one recording, with pauses between them. So there are " \
               "words enough to compare; but from one clip to the next the speaker and the subject change, which is " \
               "hard on systems that go on from the text before."
RECORDINGS = ("long", JOINED)  # pools that count recordings, not clips
NARROWEST = 0.5  # points to each side of zero that a panel shows at least: thousandths are nothing to look at


def pools_of(document: dict) -> list[str]:
    """The names of the pools, from a system that was measured."""
    return next((list(system["pools"]) for system in document["systems"] if system["pools"]), [])


def size(pool: str, one: dict) -> str:
    """`82 clips, 1239 words`"""
    return f"{count(one['clips'], 'recording' if pool in RECORDINGS else 'clip')}, {one['words']} words"


def percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.1f}"


def interval(found: dict | None) -> str:
    """`+0.1 (-0.2 to +0.5)`, in points; `+0.1` alone where there are too few clips for an interval."""
    if found is None:
        return ""
    limits = "" if found["low"] is None else f" ({signed(found['low'])} to {signed(found['high'])})"
    return signed(found["points"]) + limits


def signed(points: float) -> str:
    """Zero has no sign, from whichever side it was rounded."""
    text = f"{points:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def short_name(name: str) -> str:
    return name.removeprefix(f"{OURS} ")


def verdict(system: dict, systems: list[dict], reference: str | None) -> str | None:
    """`int8: short 10.9 % against 10.7, difference +0.1 (-0.2 to +0.5): chance explains it; long ...`"""
    if system["reason"] or system["name"] == reference:
        return None
    others = next(other for other in systems if other["name"] == reference)["pools"]
    parts = [f"{pool} {percent(one['wer'])} % against {percent(others[pool]['wer'])}, difference "
             f"{interval(one['difference'])}: {judgement(one['difference'])}"
             for pool, one in system["pools"].items() if pool in ("short", *RECORDINGS) and one["difference"]]
    return f"{short_name(system['name'])}: {'; '.join(parts)}"


def summary(document: dict) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table on the screen: a column for each pool."""
    pools = pools_of(document)
    rows = []
    for system in document["systems"]:
        cells = [percent(system["pools"][pool]["wer"]) for pool in pools] if not system["reason"] else \
            ["not measured"] * len(pools)
        rows.append([system["name"], *cells])
    return ["", *pools], rows


# Markdown -----------------------------------------------------------------------------------------------------------

def markdown(document: dict) -> str:
    """The whole of ACCURACY.md."""
    corpus, model, bootstrap = document["corpus"], document["model"], document["bootstrap"]
    random = " (random weights: the words mean nothing)" if model["random_weights"] else ""
    left_out = "".join(f"; left out: {text}" for text in corpus["left_out"])
    lines = [
        "# Word errors of this lab and its peers", "",
        f"{model['name']}{random}, the same weights for every system, on the corpus {corpus['name']}: "
        f"{count(corpus['clips'], 'clip')}, {corpus['words']} words, {corpus['seconds'] / 60:.1f} minutes, "
        f"languages {', '.join(corpus['languages'])}{left_out}. Each clip alone, its language given: one pass without "
        "timestamps, greedy where the name says nothing of beams. Recordings longer than the window (long) go through "
        "each system's own way of transcribing them, with its own defaults, which in faster-whisper are 5 beams; this "
        "lab's default is beams auto, and its other rows have as many beams as they say, else one."
        + JOINED_MEANS * (JOINED in pools_of(document)), "",
        f"Compared as the field does: {document['normalizer']}. The interval of a difference to "
        f"{document['reference']} holds {100 * bootstrap['level']:.0f} % of {bootstrap['draws']} draws of the clips, "
        f"both systems on the same draw (long recordings in stretches of {bootstrap['stretch_words']} words). "
        f"{SEVERAL.strip()}: fewer than {FEW} words, where one error moves the rate by half a point or more.", "",
        *pool_tables(document), *published(document), *verdicts(document), "## By group", "",
        *group_table(document), "", "## Measured with", "",
        f"{machine.one_line(document['machine'])}; each clip {count(document['settings']['repeats'], 'time')}, after a "
        "transcript that is not timed." + (f" {note}" if (note := document["settings"].get("note")) else ""), "",
        *versions(document), ""]
    return "\n".join(lines)


def verdicts(document: dict) -> list[str]:
    """The verdicts and the picture, where there is more than one system to compare."""
    if not document["verdicts"]:
        return []
    return ["## Verdicts", "", *[f"- {line}" for line in document["verdicts"]], "", "![Differences](accuracy.png)", ""]


def pool_tables(document: dict) -> list[str]:
    """A table for each pool."""
    lines = []
    for pool in pools_of(document):
        one = next(system["pools"][pool] for system in document["systems"] if system["pools"])
        lines += [f"## {pool[0].upper()}{pool[1:]}: {size(pool, one)}", "",
                  "| | WER % | difference, points | substituted | inserted | deleted | loops | real-time factor | "
                  "processor s per s | threads |", "|---|---|---|---|---|---|---|---|---|---|"]
        lines += [pool_row(system, pool) for system in document["systems"]]
        lines += [""]
    return [*lines, "Loops: stretches of 80 words that compress more than 2.4 times. Real-time factor: seconds for one "
            "second of sound; processor s: those of all threads together, which other work on the machine changes "
            "less.", ""]


def pool_row(system: dict, pool: str) -> str:
    """One system's line; one that could not be measured says why."""
    if system["reason"]:
        return f"| {system['name']} | not measured: {system['reason'].replace('|', '/')} |" + " |" * 8
    one = system["pools"][pool]
    counts = " | ".join(str(one[key]) for key in ("substitutions", "insertions", "deletions", "loops"))
    return (f"| {system['name']} | {percent(one['wer'])} | {interval(one['difference'])} | {counts} | "
            f"{one['real_time_factor']:.3f} | {one['cpu_s_per_s']:.3f} | {', '.join(map(str, system['threads']))} |")


def published(document: dict) -> list[str]:
    """The paper's figure, where corpus and model are those of the paper."""
    figure = corpora.PUBLISHED.get((document["corpus"]["name"], document["model"]["name"]))
    if figure is None:
        return []
    part = "the first clips of it" if document["settings"]["limit"] else "the full set"
    return [f"Published: {figure} % WER on the full set, greedy (Radford et al. 2022, table 8); measured here on "
            f"{part}.", ""]


def group_table(document: dict) -> list[str]:
    """WER of every measured system in every group, and the difference where chance does not explain it."""
    systems = [system for system in document["systems"] if system["groups"]]
    if not systems:
        return ["No system was measured."]
    lines = ["| | clips | words | " + " | ".join(short_name(system["name"]) for system in systems) + " |",
             "|---|---|---|" + "---|" * len(systems)]
    for name, one in systems[0]["groups"].items():
        cells = [group_cell(system["groups"][name]) for system in systems]
        mark = SEVERAL if one["words"] < FEW else ""
        lines.append(f"| {name}{mark} | {one['clips']} | {one['words']} | {' | '.join(cells)} |")
    return [*lines, "", f"In bold: the interval of the difference to {document['reference']} does not hold zero. Of "
            "many comparisons one in twenty does so by chance."]


def group_cell(one: dict) -> str:
    return f"**{percent(one['wer'])}**" if beyond_chance(one["difference"]) else percent(one["wer"])


def versions(document: dict) -> list[str]:
    """A line for each measured system: packages, the machine that timed it, and whether its repeats agreed."""
    lines = []
    for system in document["systems"]:
        if not system["reason"]:
            packages = ", ".join(f"{name} {version}" for name, version in system["versions"].items())
            unsteady = f"; {system['unsteady']} clips differ from one repeat to the next" if system["unsteady"] else ""
            lines.append(f"- {system['name']}: {packages}; timed on {' and '.join(system['machines'])}{unsteady}")
    return lines


def table(document: dict) -> str:
    """For a document: one line for each system, WER and difference in each pool, and what it was measured on."""
    pools = [pool for pool in pools_of(document) if pool != "short"] or pools_of(document)
    lines = ["| WER % (difference in points) | " + " | ".join(pools) + " |", "|---|" + "---|" * len(pools)]
    for system in document["systems"]:
        if system["reason"]:
            cells = [f"not measured: {system['reason']}", *[""] * (len(pools) - 1)]
        else:
            cells = [f"{percent(one['wer'])} {interval(one['difference'])}".strip()
                     for one in (system["pools"][pool] for pool in pools)]
        lines.append(f"| {system['name']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", counted(document, pools)])


def counted(document: dict, pools: list[str]) -> str:
    """What was said in the pools of a table, and what its brackets are."""
    sizes = next(system["pools"] for system in document["systems"] if system["pools"])
    listed = "; ".join(f"{pool}: {size(pool, sizes[pool])}" for pool in pools)
    listed += ", each the short clips of a language, so that speaker and subject change" if JOINED in pools else ""
    return (f"{document['model']['name']} on {document['corpus']['seconds'] / 60:.0f} minutes of speech ({listed}); in "
            "brackets 95 % of a bootstrap over the clips: where that holds 0, chance explains the difference.")


def precisions_table(document: dict, graph_bytes: dict[str, int]) -> str:
    """For the README: what each precision of this lab weighs, how fast it is, and what its words are worth.

    graph_bytes: of `encoder`, `decoder_int8_optimized` and so on, as results.json has them.
    """
    pools = [pool for pool in ("short", *RECORDINGS) if pool in pools_of(document)]
    lines = [f"| | MB | times real time | {' | '.join(f'WER %, {pool}' for pool in pools)} |",
             "|---|---|---|" + "---|" * len(pools)]
    measured = {system["name"]: system["pools"] for system in document["systems"] if system["pools"]}
    for precision in ("fp32", "fp16", "int8", "int8 optimized", "int4"):
        if (found := measured.get(f"{OURS} {precision}")) is None:
            continue
        suffix = "" if precision == "fp32" else f"_{precision.replace(' ', '_')}"
        weight = sum(graph_bytes[part + suffix] for part in ("encoder", "decoder")) / 1e6
        words = [", ".join(filter(None, (percent(found[pool]["wer"]), interval(found[pool]["difference"]))))
                 for pool in pools]
        speed = 1 / found[pools[0]]["real_time_factor"]
        lines.append(f"| {precision} | {weight:.0f} | {speed:.0f} | {' | '.join(words)} |")
    return "\n".join([*lines, "", f"{counted(document, pools)} Behind a rate its difference to float32's, in points; "
                      f"speed on the short clips. {machine.one_line(document['machine'])}."])


# Picture ------------------------------------------------------------------------------------------------------------

def picture(document: dict, path: Path) -> bool:
    """Differences with their intervals, a panel for each pool. False where there is nothing to compare."""
    systems = [system for system in document["systems"]
               if not system["reason"] and system["name"] != document["reference"]][::-1]
    if not systems:
        return False
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pools = pools_of(document)
    pools = [pool for pool in pools if pool != "short"] if len(pools) > 2 else pools  # its parts say more
    figure, axes = pyplot.subplots(1, len(pools), figsize=(3.2 + 3.6 * len(pools), 2.3 + 0.5 * len(systems)),
                                   sharey=True, squeeze=False, layout="constrained")
    for axis, pool in zip(axes[0], pools, strict=True):
        panel(axis, pool, systems)
    legend(figure, document["reference"])
    axes[0][0].set_yticks(range(len(systems)), [system["name"] for system in systems], fontsize=13)
    figure.suptitle(f"{document['model']['name']} on {document['corpus']['name']}: differences in word error rate",
                    fontsize=15)
    with files.atomic(path) as temporary:
        figure.savefig(temporary, dpi=130)
    pyplot.close(figure)
    return True


def dot(filled: bool, color: str) -> dict:
    """How a difference is drawn; filled where it is more than chance."""
    return {"marker": "o", "linestyle": "", "color": color, "markersize": 9, "markeredgewidth": 2,
            "markerfacecolor": color if filled else "white"}


MEANS = {True: "more than chance: the interval does not hold 0", False: "chance explains it"}  # filled, hollow


def legend(figure, reference: str) -> None:
    """What the axes and a dot say; in the picture, because it is shown without its document."""
    from matplotlib.lines import Line2D

    title = f"WER minus that of {reference}, percentage points (95 % interval); left of 0: fewer errors"
    letters = int(9 * figure.get_figwidth())  # in a row, at this size
    figure.legend(handles=[Line2D([], [], **dot(filled, "#333333"), label=text) for filled, text in MEANS.items()],
                  title=textwrap.fill(title, letters), loc="outside lower center", frameon=False, fontsize=13,
                  title_fontsize=13, ncols=2 if sum(map(len, MEANS.values())) + 12 < letters else 1)


def panel(axis, pool: str, systems: list[dict]) -> None:
    """A dot and a bar for each system; filled where the bar does not reach zero."""
    for row, system in enumerate(systems):
        found = system["pools"][pool]["difference"]
        if found is None:
            continue
        color = "tab:blue" if system["name"].startswith(OURS) else "tab:gray"
        if found["low"] is not None:
            axis.plot([found["low"], found["high"]], [row, row], color=color, linewidth=3, solid_capstyle="butt")
        axis.plot(found["points"], row, **dot(beyond_chance(found), color))
    one = systems[0]["pools"][pool]
    axis.axvline(0, color="black", linewidth=1)
    left, right = axis.get_xlim()
    axis.set_xlim(min(left, -NARROWEST), max(right, NARROWEST))
    axis.set_title(f"{pool}\n{size(pool, one)}", fontsize=13)
    axis.tick_params(axis="x", labelsize=12)
    axis.grid(axis="x", alpha=0.3)
    axis.set_ylim(-0.6, len(systems) - 0.4)


if __name__ == "__main__":
    found = json.loads((HERE / "accuracy.json").read_text(encoding="utf-8"))
    files.write_text(HERE / "ACCURACY.md", markdown(found))
    console.result("ACCURACY.md" + (", accuracy.png" if picture(found, HERE / "accuracy.png") else ""))
