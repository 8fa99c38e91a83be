"""Outlier channels: a few inputs of a layer that are a hundred times larger than the rest, and what 03 does about them.

DynamicQuantizeLinear lays 256 steps over the whole range of an activation. In the trained Whispers the second
feed-forward layer of the upper encoder blocks gets about ten channels of 2,048 that reach 80 or 190, where the median
channel never passes 1.5: one step is then as large as most of what it has to tell apart, and words are lost. The same
happens in the decoder with the first token of a prompt, whose scale all tokens of the prompt share.

There are two remedies, and both leave the float32 graph the same function of its inputs:

1. `smooth` divides the large channels down and multiplies the next weight's rows up. It costs nothing, but it needs
   something in front of the layer that can be divided: a LayerNorm, or the values of self-attention.
2. `split` takes the large channels out of the 8-bit product and computes them in float beside it. It is for the layers
   that have nothing to divide, such as fc2 behind a GELU.

Which channels are large is measured by running the graph (calibration.py).
"""

import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from whisper_lab import console
from whisper_lab.export import graphs, int8
from whisper_lab.export.calibration import Activations

FLOAT = ir.DataType.FLOAT


# 1. Smooth -----------------------------------------------------------------------------------------------------------

# SmoothQuant (Xiao et al. 2022, arXiv 2211.10438). A linear layer computes sum_c x_c w_c. Divide channel c of x by s_c
# and multiply row c of w by s_c: the sum is the same, but x fits a finer grid, and w, which has a scale per column, can
# bear it. Where x comes out of a LayerNorm the division is free: its weight and bias are divided once, here. The
# factors are powers of two, so the float32 graph computes exactly what it did, bit for bit.

# How much of the difficulty moves from the activations to the weights; 0 is none. The paper takes 0.5 everywhere; here
# each LayerNorm gets the strength with the smallest error.
STRENGTHS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SUFFIX = "_smoothed"
TINY = 1e-5  # a channel that is always 0 gets a finite factor


def smooth(model: ir.Model, seen: dict[str, Activations]) -> dict[str, float]:
    """Smooth the inputs of a float32 encoder's linear layers, in place; module in front -> the strength chosen.

    seen: name of a value -> what it was (calibration.activations). Values without an entry are left as they are.
    """
    done = {}
    for front, layers in _smoothable(model):
        inputs = seen.get(layers[0].inputs[0].name)
        if inputs is None:
            continue
        strength, factors = best_strength(inputs, [layer.inputs[1].const_value.numpy() for layer in layers])
        if strength:
            _fold(front, layers, factors)
            done[front.name.rpartition("/")[0]] = strength
    return done


def _smoothable(model: ir.Model) -> list[tuple[ir.Node, list[ir.Node]]]:
    """What can be divided down, and the linear layers that read it.

    A LayerNorm that feeds linear layers only; and v_proj, whose channels attention mixes one by one before out_proj
    reads them. The encoder's last LayerNorm is an output of the graph and has to stay as it is.
    """
    nodes, found = {node.name: node for node in model.graph}, []
    for node in nodes.values():
        if node.op_type == "LayerNormalization":
            found.append((node, [user for user, _ in node.outputs[0].uses()]))
        elif node.name.endswith("self_attn.out_proj/MatMul"):
            found.append((nodes[node.name.replace("out_proj/MatMul", "v_proj/Add")], [node]))
    return [(front, layers) for front, layers in found if not front.outputs[0].is_graph_output()
            and all(layer.op_type == "MatMul" and layer.inputs[1].is_initializer() for layer in layers)]


def best_strength(inputs: Activations, weights: list[np.ndarray]) -> tuple[float, np.ndarray]:
    """The strength with the smallest error in 8 bits, and its factors [channels]; weights are [channels, columns]."""
    tried = {strength: smoothing_factors(inputs, weights, strength) for strength in STRENGTHS}
    best = min(tried, key=lambda strength: int8_error(inputs, weights, tried[strength]))
    return best, tried[best]


def smoothing_factors(inputs: Activations, weights: list[np.ndarray], strength: float) -> np.ndarray:
    """Powers of two near largest activation ^ strength / largest weight ^ (1 - strength), float32 [channels]."""
    activation = np.maximum(inputs.largest, TINY)
    if not strength:
        return np.ones_like(activation)
    weight = np.maximum(np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0), TINY)
    return np.exp2(np.rint(strength * np.log2(activation) - (1 - strength) * np.log2(weight))).astype(np.float32)


def int8_error(inputs: Activations, weights: list[np.ndarray], factors: np.ndarray) -> float:
    """Power of the error that 8 bits make in the products, relative to the products; summed over the layers."""
    low, high = min(0.0, float((inputs.low / factors).min())), max(0.0, float((inputs.high / factors).max()))
    step = max(high - low, TINY) / 255  # one scale for the whole tensor, as DynamicQuantizeLinear
    rounded = np.rint(inputs.rows / factors / step) * step
    total = 0.0
    for weight in weights:
        right, scaled = inputs.rows @ weight, weight * factors[:, None]
        scales = np.maximum(np.abs(scaled).max(axis=0), TINY) / int8.LEVELS
        error = rounded @ (np.rint(scaled / scales) * scales) - right
        total += float((error**2).sum() / max(float((right**2).sum()), TINY))
    return total


def _fold(front: ir.Node, layers: list[ir.Node], factors: np.ndarray) -> None:
    """Divide the weight and bias in front, multiply the layers' rows, and rename the value in between.

    What changes gets a new name: a comparison of two graphs by name must not take it for the old value.
    """
    changed = [front.outputs[0], layers[0].inputs[0]]
    if front.op_type == "LayerNormalization":
        divided = front.inputs[1:3]
    else:  # v_proj: MatMul, then Add of the bias
        divided = front.inputs[0].producer().inputs[1], front.inputs[1]
        changed.append(front.inputs[0])
    for weight in divided:
        multiply(weight, 1 / factors)
    for layer in layers:
        multiply(layer.inputs[1], factors[:, None])
    for value in dict.fromkeys(changed):
        value.name = f"{value.name}{SUFFIX}"


def multiply(weight: ir.Value, factors: np.ndarray) -> None:
    """Multiply an initializer in place; computed only while it is written, as graphs.lazy_constant."""
    old = weight.const_value
    weight.const_value = ir.LazyTensor(lambda: ir.tensor(old.numpy() * factors, name=weight.name), dtype=old.dtype,
                                       shape=old.shape, name=weight.name)


# 2. Split ------------------------------------------------------------------------------------------------------------

# LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339). The large channels go behind all others: their order is that of
# the columns of the weight in front, so that this costs nothing while the graph runs. Split then hands out both parts,
# the 8-bit product takes the quiet channels, a float product beside it the loud ones, and Add joins them. The float
# product is one of 32 channels: nothing beside 2,048. Its weights are stored in int8, as those of the convolutions are.

ORDERED = "_ordered"
SHARE = 64  # one channel in 64 may be computed in float: 32 of whisper-base's 2,048
# How many times the largest of the other channels an outlier has to be: the steps become finer by as much. The decoder
# asks for more, because beside its product of a single row even four small nodes cost time.
LOUD = {"encoder": 2.0, "decoder": 4.0}


@dataclass(frozen=True)
class Outliers:
    """The outlier channels of one layer's input, and the numbers that make them outliers."""

    layer: str  # encoder.layers.4.fc2
    channels: list[int]
    largest: float  # the largest activation of all channels
    others: float  # the largest activation of the channels that stay in int8
    median: float  # the median channel's largest activation

    @property
    def reason(self) -> str:
        """For the student and the metadata."""
        return (f"largest activation {self.largest:.3g}, of the other channels {self.others:.3g}, "
                f"median channel's {self.median:.2g}")


def split(model: ir.Model, seen: dict[str, Activations], loud: float = LOUD["encoder"]) -> list[Outliers]:
    """Take the outlier channels of a float32 graph's layers out of what becomes int8, in place; returns what was taken.

    Only where the input feeds this layer alone. A smoothed input has another name than the one that was seen, so a
    layer gets one remedy, never both.
    """
    found = []
    for node in graphs.weight_matmuls(model):
        value = node.inputs[0]
        alone = len(value.uses()) == 1 and not value.is_graph_output()
        if value.name in seen and alone and node.inputs[1].is_initializer():  # the embedding has another use
            outliers = outlier_channels(node.name.rpartition("/")[0], seen[value.name], loud)
            if outliers is not None:
                _compute_beside(model, node, outliers)
                found.append(outliers)
    return found


def outlier_channels(layer: str, inputs: Activations, loud: float) -> Outliers | None:
    """The largest channels, where the first is `loud` times as large as all others; None where it is not."""
    largest = inputs.largest
    count = len(largest) // SHARE
    order = np.argsort(-largest, kind="stable")
    if not count or largest[order[0]] < loud * largest[order[count]]:
        return None
    return Outliers(layer, sorted(order[:count].tolist()), float(largest[order[0]]), float(largest[order[count]]),
                    float(np.median(largest)))


def _compute_beside(model: ir.Model, node: ir.Node, outliers: Outliers) -> None:
    """x, its large channels last -> Split -> MatMul of the others, plus a MatMul of the large ones with their rows."""
    path, weight, count = f"{outliers.layer}/outliers", node.inputs[1], len(outliers.channels)
    order = loud_last(outliers.channels, int(weight.shape[0]))
    x = _in_order(model, node, order, outliers.layer)
    parts = graphs.constant(model, f"{path}/parts", np.array([len(order) - count, count]))
    quiet, loud = graphs.insert(model, node, "Split", [x, parts], f"{path}/Split", outputs=2, axis=-1)
    for value, name, channels in ((quiet, "quiet", len(order) - count), (loud, "loud", count)):
        value.name, value.type = f"{path}/{name}", ir.TensorType(FLOAT)
        value.shape = ir.Shape([*x.shape[:-1], channels])
    rows = int8.store_rows(model, node, f"{path}.weight", f"{path}/MatMul_weight",
                           weight.const_value.numpy()[order[-count:]])
    beside = graphs.insert(model, node, "MatMul", [loud, rows], f"{path}/MatMul", dtype=FLOAT)
    take(weight, order[:-count], axis=0)
    node.replace_input_with(0, quiet)
    _add(model, node, beside, path)


def make_apart(model: ir.Model) -> None:
    """Where Split follows a linear layer and its Gelu, make its parts by a layer each: Split copies all channels of all
    positions. For a graph to run; in one to study the parts are easier to see."""
    for node in [node for node in model.graph if node.op_type == "Split" and node.name.endswith("/outliers/Split")]:
        if (front := _linear_before(node.inputs[0])) is not None:
            _make_apart(model, node, front)


def _make_apart(model: ir.Model, split: ir.Node, front: ir.Node) -> None:
    x, (quiet, loud), add = split.inputs[0], split.outputs, front.outputs[0].uses()[0].node
    weight, bias, path = front.inputs[1], add.inputs[1], apart(front.name.rpartition("/")[0])
    count, columns = int(loud.shape[-1]), int(weight.shape[1])
    first, last = np.arange(columns - count), np.arange(columns - count, columns)
    made = front.inputs[0]
    for op, kind, old in (("MatMul", "weight", weight), ("Add", "bias", bias)):
        part = graphs.constant(model, f"{path}.{kind}", old.const_value.numpy().take(last, axis=-1))
        made = graphs.insert(model, split, op, [made, part], f"{path}/{op}", dtype=FLOAT)
        take(old, first, axis=len(old.shape) - 1)
    made = graphs.insert(model, split, "Gelu", [made], f"{path}/Gelu", dtype=FLOAT)
    made.shape = loud.shape
    ir.convenience.replace_all_uses_with([quiet, loud], [x, made])
    for value in (front.outputs[0], add.outputs[0], x):
        value.shape = quiet.shape
    model.graph.remove(split, safe=True)


def apart(layer: str) -> str:
    """What a layer's share of the outlier channels is called: encoder.layers.3.fc1 -> encoder.layers.3.fc1.loud"""
    return f"{layer}.loud"


def loud_last(channels: list[int], count: int) -> np.ndarray:
    """The order of `count` channels, int [count]: all others, then these."""
    return np.array([*(channel for channel in range(count) if channel not in set(channels)), *channels])


def in_front(layer: str) -> str:
    """The layer whose columns `split` brings into that order: encoder.layers.3.fc2 -> encoder.layers.3.fc1."""
    return re.sub("fc2$", "fc1", layer)


def gather_of(layer: str) -> str:
    """The node that orders a layer's channels while the graph runs, where nothing in front of it could be ordered."""
    return f"{layer}/outliers/ordered"


def _in_order(model: ir.Model, node: ir.Node, order: np.ndarray, layer: str) -> ir.Value:
    """The node's input with its channels in this order: from the weight and bias in front, or by a Gather behind what
    has none. Values get new names because they are new values, as in `_fold`."""
    x = node.inputs[0]
    if (front := _linear_before(x)) is None:
        places = graphs.constant(model, f"{layer}/outliers/order", order)
        made = graphs.insert(model, node, "Gather", [x, places], gather_of(layer), dtype=FLOAT, axis=-1)
        made.shape = x.shape
        return made
    add = front.outputs[0].uses()[0].node
    take(front.inputs[1], order, axis=1)
    take(add.inputs[1], order, axis=0)
    for value in (front.outputs[0], add.outputs[0], x):
        value.name = f"{value.name}{ORDERED}"
    return x


def _linear_before(x: ir.Value) -> ir.Node | None:
    """The MatMul of a linear layer, its bias added, behind which there is nothing but a Gelu that makes x."""
    gelu = x.producer()
    add = gelu.inputs[0].producer() if gelu is not None and gelu.op_type == "Gelu" else None
    product = add.inputs[0].producer() if add is not None and add.op_type == "Add" else None
    alone = product is not None and product.op_type == "MatMul" and all(
        value.is_initializer() and len(value.uses()) == 1 for value in (product.inputs[1], add.inputs[1]))
    return product if alone and len(product.outputs[0].uses()) == len(add.outputs[0].uses()) == 1 else None


def take(weight: ir.Value, places: np.ndarray, axis: int) -> None:
    """Keep these rows or columns of an initializer, in this order; computed only while it is written, as `multiply`."""
    old = weight.const_value
    shape = ir.Shape([len(places) if i == axis else size for i, size in enumerate(old.shape)])
    weight.const_value = ir.LazyTensor(lambda: ir.tensor(old.numpy().take(places, axis), name=weight.name),
                                       dtype=old.dtype, shape=shape, name=weight.name)
    weight.shape = shape


def _add(model: ir.Model, node: ir.Node, beside: ir.Value, path: str) -> None:
    """Add the float path behind the bias; the sum takes over the name of the module's output."""
    last = next((user.outputs[0] for user, _ in node.outputs[0].uses() if user.op_type == "Add"), node.outputs[0])
    readers = list(last.uses())
    add = ir.node("Add", [last, beside], name=f"{path}/Add")
    model.graph.insert_after(last.producer(), add)
    for reader, index in readers:
        reader.replace_input_with(index, add.outputs[0])
    add.outputs[0].shape, add.outputs[0].type = last.shape, last.type
    add.outputs[0].name, last.name = last.name, f"{path}/without"


# Notes for the student ------------------------------------------------------------------------------------------------

def tell(smoothed: dict[str, float], split: list[Outliers]) -> None:
    """A note for what was smoothed, and one for each layer that was split, with the reason."""
    console.note("activations", f"{len(smoothed)} smoothed", "large channels divided down, their weights multiplied up")
    for each in split:
        console.note(f"outliers in {each.layer}", f"{len(each.channels)} channels stay in float", each.reason)
