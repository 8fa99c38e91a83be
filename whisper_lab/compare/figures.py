"""The pictures of a comparison, at the size of a slide: bytes by type, operators, error per layer, the trade-off."""

from pathlib import Path

from whisper_lab import web
from whisper_lab.compare import verdict
from whisper_lab.compare.variants import BASELINE, SPEED
from whisper_lab.pictures import Layout, Picture, plot, twice

# Okabe and Ito's colours, told apart also by colour-blind readers.
COLOURS = {"fp32": "#000000", "pytorch": "#777777", "fp16": "#0072B2", "int8": "#D55E00", "int4": "#009E73",
           "int8_optimized": "#CC79A7"}
TYPES = {"float32": "#1f4e79", "float16": "#56B4E9", "int8": "#D55E00", "uint8": "#009E73", "int4": "#F0E442",
         "int64": "#777777"}
SPARE = ["#E69F00", "#999999", "#F0E442", "#CC79A7"]
MOST_OPERATORS = 14


def draw(made: dict, stem: Path) -> dict[str, Picture]:
    """All pictures of a whole comparison, by name."""
    graphs = {name: entry["graphs"] for name, entry in made["variants"].items() if "graphs" in entry}
    flat = {f"{name}\n{part}": parts[part] for part in ("encoder", "decoder") for name, parts in graphs.items()}
    pictures = {"sizes": twice(lambda layout: sizes(flat, layout), f"{stem}-sizes.png")}
    for part in ("encoder", "decoder"):
        pictures[f"operators_{part}"] = _operators({name: parts[part] for name, parts in graphs.items()
                                                    if name != BASELINE}, part, f"{stem}-operators-{part}.png")
    if any(row["sqnr_db"] is not None for entry in made["variants"].values() for row in entry.get("layers", [])):
        pictures["layers"] = twice(lambda layout: layers(made, layout), f"{stem}-layers.png")
    if len(found := verdict.points(made)) > 1:
        pictures["pareto"] = twice(lambda layout: pareto(made, found, layout), f"{stem}-pareto.png")
    return pictures


def draw_files(made: dict, stem: Path) -> dict[str, Picture]:
    """The pictures of two files."""
    named = {f"{key}: {web.drawn(facts['file'])}": facts for key, facts in made["graphs"].items()}
    return {"sizes": twice(lambda layout: sizes(named, layout), f"{stem}-sizes.png"),
            "operators": _operators({"b": made["graphs"]["b"]}, "b against a", f"{stem}-operators.png")}


def _operators(graphs: dict[str, dict], part: str, path: str) -> Picture:
    return twice(lambda layout: operators(graphs, part, layout), path)


def sizes(graphs: dict[str, dict], layout: Layout):
    """Bytes of each file, by the type of its weights; the rest is names, shapes and nodes."""
    figure, (axes,) = plot(layout, height=max(1.0, 0.17 * len(graphs)))
    kinds = list(dict.fromkeys(kind for facts in graphs.values() for kind in facts["weight_bytes"]))
    spare = iter(SPARE * 3)
    names, left = list(graphs), [0.0] * len(graphs)
    rest = [max(0, facts["size_bytes"] - sum(facts["weight_bytes"].values())) / 1e6 for facts in graphs.values()]
    for kind in [*kinds, None]:
        values = rest if kind is None else [facts["weight_bytes"].get(kind, 0) / 1e6 for facts in graphs.values()]
        if max(values) < 0.002 * max(facts["size_bytes"] for facts in graphs.values()) / 1e6:
            continue
        colour = "#d0d7de" if kind is None else TYPES.get(kind) or next(spare)
        axes.barh(names, values, left=left, color=colour, label=kind or "nodes and names", height=0.72)
        left = [a + b for a, b in zip(left, values, strict=True)]
    for i, facts in enumerate(graphs.values()):
        axes.text(left[i], i, f"  {facts['size_bytes'] / 1e6:.1f} MB, {facts['size_ratio']:.2f}", va="center")
    axes.set(xlabel="size of the file, MB (and share of the first)", title="Bytes by the type of the weights",
             xlim=(0, (1.7 if layout.narrow else 1.25) * max(left)))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    if layout.narrow:
        figure.legend(loc=layout.legend, frameon=False, ncols=2)
    else:
        axes.legend(loc="lower right", frameon=False)
    return figure


def operators(graphs: dict[str, dict], part: str, layout: Layout):
    """How many nodes of each operator more or fewer than in fp32."""
    figure, axes = plot(layout, len(graphs), height=0.75, sharey=True)
    change = {name: facts["operator_change"] for name, facts in graphs.items()}
    names = sorted({name for one in change.values() for name in one},
                   key=lambda name: -max(abs(one.get(name, 0)) for one in change.values()))[:MOST_OPERATORS]
    most = max([abs(count) for one in change.values() for count in one.values()], default=1)
    for axis, (variant, one) in zip(axes, change.items(), strict=True):
        values = [one.get(name, 0) for name in names]
        axis.barh([name.removeprefix("com.microsoft.") for name in names], values,
                  color=["#D55E00" if value > 0 else "#0072B2" for value in values])
        for i, value in enumerate(values):
            if value:
                axis.text(value, i, f" {value:+d} ", va="center", ha="left" if value > 0 else "right", fontsize="small")
        axis.set(title=variant, xlim=(-1.6 * most, 1.6 * most))
        axis.axvline(0, color="black", linewidth=0.8)
        axis.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    figure.supxlabel(layout.wrapped("nodes more (orange) or fewer (blue) than in the first graph"), fontsize="medium")
    figure.suptitle(f"Operators: {part}", fontsize="large")
    if not names:
        axes[0].text(0.5, 0.5, "no operator was added or removed", transform=axes[0].transAxes, ha="center")
    return figure


def layers(made: dict, layout: Layout):
    """Signal to noise along the layers of encoder and decoder, one line a precision."""
    figure, axes = plot(layout, 2, sharey=True)
    shown = {name: entry["layers"] for name, entry in made["variants"].items() if entry.get("layers")}
    for axis, part in zip(axes, ("encoder", "decoder"), strict=True):
        order = list(dict.fromkeys(row["layer"] for rows in shown.values() for row in rows if row["part"] == part))
        for name, rows in shown.items():
            points = [(order.index(row["layer"]), row["sqnr_db"]) for row in rows
                      if row["part"] == part and row["sqnr_db"] is not None]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", markersize=4 * layout.scale, color=COLOURS.get(name),
                          linewidth=2 * layout.scale, label=name,
                          linestyle="--" if name.endswith("_optimized") else "-")
        starts = _block_starts(order, 0.06 if layout.narrow else 0.03)
        axis.set_xticks(list(starts.values()), list(starts), rotation=45, ha="right", fontsize="small")
        axis.set(title=part)
    figure.supylabel("signal to noise against fp32, dB (up is better)", fontsize="medium")
    figure.supxlabel(layout.wrapped("modules in the order of computation; a tick where a block begins"),
                     fontsize="medium")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside upper center",
                  ncols=3 if layout.narrow else 5)
    return figure


def _block_starts(order: list[str], apart: float) -> dict[str, int]:
    """Where each block begins: conv1, layer 0, layer 1, ..., the end; labels that would touch are left out.

    apart: a share of the axis.
    """
    found: dict[str, int] = {}
    for i, name in enumerate(order):
        words = name.split(".")
        is_layer = len(words) > 2 and words[1] == "layers" and words[0] == order[0].split(".")[0]
        rest = "cross caches" if words[1:2] == ["layers"] else words[-1]  # the encoder ends in the decoder's modules
        label = f"layer {words[2]}" if is_layer else "start" if i < 3 else rest
        if label not in found and (not found or i - max(found.values()) > apart * len(order)):
            found[label] = i
    if len(found) > 16:
        keep = [label for label in found if not label.startswith("layer ") or int(label[6:]) % 4 == 0]
        found = {label: found[label] for label in keep}
    return found


def pareto(made: dict, found: dict[str, dict], layout: Layout):
    """Word error rate against speed; the area of a bubble is the size. Bottom right and small is best."""
    figure, (axes,) = plot(layout, height=1.6)
    base, noise = 100 * found[BASELINE]["wer"], 100 * found[BASELINE]["wer_noise"]
    axes.axhspan(max(0, base - noise), base + noise, color="#e8f0e4", zorder=0,
                 label=f"too close to fp32\nto tell: {noise:.1f} points")
    _bubbles(axes, found, made["dominated"], layout.scale)
    values = [100 * point["wer"] for point in found.values()]
    room = max(2.0, 0.4 * (max(values) - min(values)), 1.2 * noise)
    right = "the reference, %" if made["variants"][BASELINE]["text"]["reference"] else "PyTorch's text, %"
    axes.set(xlabel=f"{SPEED}: median of the rounds\n(line: their middle half)",
             ylabel=f"word error rate against {right}", title="Text, speed and size (area of the bubble)",
             ylim=(max(min(values) - room, -0.12 * (max(values) + room)), max(values) + room))  # 0 shows a whole bubble
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= max(values) + room])
    axes.margins(x=0.15)
    figure.legend(frameon=False, loc=layout.legend, labelspacing=0.9, ncols=2 if layout.narrow else 1)
    return figure


def _bubbles(axes, found: dict[str, dict], dominated: dict, scale: float) -> None:
    """A bubble for each point, the middle half of its rounds as a line, and what the legend says of it."""
    largest, area = max(point["size_bytes"] for point in found.values()), scale**2
    for name, point in found.items():
        at, colour = (point["speedup"], 100 * point["wer"]), COLOURS.get(name, "#777777")
        free = name not in dominated
        axes.plot([point["speedup_q1"], point["speedup_q3"]], [at[1]] * 2, color=colour, linewidth=2 * scale)
        axes.scatter(*at, s=2600 * area * point["size_bytes"] / largest, alpha=0.8, color=colour,
                     zorder=3 + largest / point["size_bytes"], edgecolor="#c8a000" if free else "white",
                     linewidth=(4 if free else 1) * scale)
        axes.scatter([], [], s=160 * area, color=colour, label=f"{name}\n{point['size_bytes'] / 1e6:.1f} MB, "
                     f"{at[1]:.1f} %, {at[0]:.2f} x")
    axes.scatter([], [], s=160 * area, color="white", edgecolor="#c8a000", linewidth=4 * scale, label="beaten by none")
