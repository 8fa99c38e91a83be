"""--picture: a graph as a handful of blocks, for a slide. Nodes are gathered by the module that 03 named them after."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from whisper_lab import files, web
from whisper_lab.compare.graph_facts import INTEGER, tensor_bytes
from whisper_lab.console import LabError

COLOURS = {"quantized": "#f7c9a3", "float": "#d5e5f4"}
SHOWN_TYPES = 4


@dataclass
class Block:
    """Nodes that belong together."""

    name: str
    operators: Counter = field(default_factory=Counter)
    weight_bytes: int = 0

    @property
    def quantized(self) -> bool:
        return any(name in INTEGER for name in self.operators)

    def text(self) -> str:
        types = ", ".join(f"{count} {name}" for name, count in self.operators.most_common(SHOWN_TYPES))
        more = ", ..." if len(self.operators) > SHOWN_TYPES else ""
        count, size = sum(self.operators.values()), self.weight_bytes / 1e6
        few = "no weights of its own" if self.name == "logits" else "< 0.01 MB"  # the logits use the embedding's table
        weights = f"{size:.2f} MB" if size >= 0.005 else few
        return f"{count} node{'' if count == 1 else 's'}, {weights}\n{types}{more}"


# First match wins. What a name says about its block: nodes of a module, and casts at the graph's inputs and outputs.
RULES = (
    (r"present_\w+_cross_(\d+)", r"cross cache \1"), (r"(?:past|present)_\w+_self_(\d+)", r"layer \1"),
    (r"past_\w+_cross_(\d+)", r"layer \1"), (r"logits|proj_out", "logits"),
    (r"encoder_hidden_states|\w+\.layer_norm", "final LayerNorm"),
    (r"decoder\.embed_\w+", "token and position embedding"),
)


def key(name: str, part: str) -> str:
    """The block of a node in the graph of `part` (encoder or decoder)."""
    module = name.partition("/")[0]
    layer = re.match(r"(encoder|decoder)\.layers\.(\d+)", module)
    if layer:
        return f"{'layer' if layer[1] == part else 'cross cache'} {layer[2]}"
    for pattern, block in RULES:
        if found := re.match(pattern, module):
            return found.expand(block)
    return "convolutions and positions" if part == "encoder" else "shapes and causal mask"


def gather(model: onnx.ModelProto) -> list[Block]:
    """Blocks in the order of computation. Raises LabError where the nodes carry no module names."""
    if not any("/" in node.name for node in model.graph.node):
        raise LabError("the nodes of this graph are not named after modules, so there are no blocks to draw",
                       "use a graph that 03 wrote, or Netron's own export (menu, Export as PNG)")
    part = "encoder" if any(node.op_type == "Conv" for node in model.graph.node) else "decoder"
    sizes = {tensor.name: tensor_bytes(tensor) for tensor in model.graph.initializer}
    blocks: dict[str, Block] = {}
    for node in model.graph.node:
        block = blocks.setdefault(key(node.name, part), Block(key(node.name, part)))
        block.operators[node.op_type] += 1
        for name in node.input:
            block.weight_bytes += sizes.pop(name, 0)  # a shared weight counts where it is first used
    layers = [block for block in blocks.values() if block.name.startswith("layer ")]
    rest = [block for block in blocks.values() if block not in layers]
    after = ("final LayerNorm", "logits", "cross cache")
    return [*(block for block in rest if not block.name.startswith(after)), *layers,
            *sorted((block for block in rest if block.name.startswith(after)),
                    key=lambda block: after.index(next(name for name in after if block.name.startswith(name))))]


def draw(model: onnx.ModelProto, title: str, stem: Path) -> list[Path]:
    """Write <stem>.svg and <stem>.png; returns both paths."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "whisper-onnx-lab"  # same graph, same file
    from matplotlib import pyplot

    trunk, branches = _trunk_and_branches(gather(model))
    height = len(trunk) + (1.4 if branches else 0)
    figure, axes = pyplot.subplots(figsize=(12.8, 0.92 * height + 1.2), dpi=100, layout="constrained")
    axes.set(xlim=(0, 12.8), ylim=(-height - 0.3, 0.9), title=web.drawn(title))
    axes.title.set_fontsize(18)
    axes.axis("off")
    for i, block in enumerate(trunk):
        _box(axes, block, 2.4, -i, 8.0)
        if i:
            axes.annotate("", (6.4, -i + 0.36), (6.4, -i + 0.64), arrowprops={"arrowstyle": "-|>", "lw": 1.6})
    _branches(axes, branches, -len(trunk) - 0.3)
    _legend(axes)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png")]
    for path in paths:
        with files.atomic(path) as temporary:
            figure.savefig(temporary, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
    pyplot.close(figure)
    return paths


def _trunk_and_branches(blocks: list[Block]) -> tuple[list[Block], list[Block]]:
    """The blocks one below the other, and the cross caches beside them. Layers are alike: of many, two and the last."""
    trunk = [block for block in blocks if not block.name.startswith("cross cache")]
    branches = [block for block in blocks if block.name.startswith("cross cache")]
    if len(trunk) > 12:
        layers = [block for block in trunk if block.name.startswith("layer ")]
        trunk = [block for block in trunk if block not in layers[2:-1]]
    return trunk, branches


def _legend(axes) -> None:
    from matplotlib.patches import Rectangle

    for x, label, colour in ((2.4, "integer products", "quantized"), (6.6, "floating point", "float")):
        axes.add_patch(Rectangle((x, 0.56), 0.35, 0.22, color=COLOURS[colour]))
        axes.text(x + 0.5, 0.67, label, va="center", fontsize=13)


def _box(axes, block: Block, x: float, y: float, width: float, small: bool = False) -> None:
    from matplotlib.patches import FancyBboxPatch

    colour = COLOURS["quantized" if block.quantized else "float"]
    axes.add_patch(FancyBboxPatch((x, y - 0.32), width, 0.64, boxstyle="round,pad=0,rounding_size=0.12",
                                  facecolor=colour, edgecolor="#3e4c59"))
    if small:
        axes.text(x + width / 2, y, f"{block.name}\n{block.weight_bytes / 1e6:.2f} MB", ha="center", va="center",
                  fontsize=12)
    else:
        axes.text(x + 0.2, y, block.name, ha="left", va="center", fontsize=15, fontweight="bold")
        axes.text(x + width - 0.2, y, block.text(), ha="right", va="center", fontsize=11)


def _branches(axes, branches: list[Block], y: float) -> None:
    """The encoder's end: keys and values for every decoder layer, side by side."""
    shown = branches if len(branches) <= 8 else [*branches[:3], *branches[-2:]]
    width = min(3.0, 12.4 / max(len(shown), 1) - 0.2)
    left = 6.4 - (width + 0.2) * len(shown) / 2
    for i, block in enumerate(shown):
        x = left + 0.1 + i * (width + 0.2)
        _box(axes, block, x, y, width, small=True)
        axes.annotate("", (x + width / 2, y + 0.34), (6.4, y + 0.96), arrowprops={"arrowstyle": "-|>", "lw": 1.6})
    if shown:
        axes.text(6.4, y - 0.5, f"keys and values of the cross-attention, one pair for each of {len(branches)} decoder "
                  "layers: computed in parallel, once for every window", ha="center", va="center", fontsize=12)
