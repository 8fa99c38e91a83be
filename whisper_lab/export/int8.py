"""The parts of an int8 graph that onnxruntime's quantizer leaves large: the embedding, the convolutions, the positions.

Weights are signed (int8 x uint8 is what VNNI and AMX multiply fastest), symmetric, one scale per output channel. Where
`quantize_dynamic` has made DynamicQuantizeLinear and MatMulInteger of every linear layer, this file does the rest:

- linear layers: numbers of which no two neighbours overflow, whatever they are multiplied with (`fit`);
- token embedding: one int8 copy with one scale per row serves the lookup (Gather) and the logits (MatMulInteger);
- convolutions and positions: stored small, computed in float32. Cast and Mul on a constant are folded when
  onnxruntime loads the graph; DequantizeLinear would not be, and ConvInteger is slower than the float Conv.
"""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from whisper_lab import console
from whisper_lab.export import graphs
from whisper_lab.export.fp16 import to_half

FLOAT, INT8, FLOAT16 = ir.DataType.FLOAT, ir.DataType.INT8, ir.DataType.FLOAT16
LEVELS = 127  # -127..127: symmetric, so that zero stays zero and no zero point is needed
PAIR = 128  # that two neighbouring weights of one sign may come to: 255 x 128 is the most that 16 bits hold of it
BLOCK = 4096  # rows or columns that are rounded at once


def row_scales(weight: np.ndarray) -> np.ndarray:
    """Per row of [rows, ...], float32 [rows]: what one step of int8 is worth. A row of zeros gets 1: 0 / 0 is NaN."""
    flat = weight.reshape(len(weight), -1)
    largest = np.maximum(flat.max(axis=1), -flat.min(axis=1)) if weight.size else np.zeros(len(weight))
    return np.where(largest > 0, largest / LEVELS, 1).astype(np.float32)


def round_rows(weight: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """[rows, ...] and [rows] -> int8 of the same shape; weight is about result x scale."""
    scales = scales.reshape(-1, *[1] * (weight.ndim - 1))
    result = np.empty(weight.shape, np.int8)
    for first in range(0, len(weight), BLOCK):  # an embedding at once would take four times its float32
        rows = slice(first, first + BLOCK)
        result[rows] = np.clip(np.rint(weight[rows] / scales[rows]), -LEVELS, LEVELS)
    return result


# Linear layers --------------------------------------------------------------------------------------------------------

# Without VNNI, AMX or a dot product of its own, x86 multiplies uint8 by int8 with VPMADDUBSW: it adds two products that
# lie side by side in 16 bits, and what is more than these hold becomes the largest number that they do. 255 x 127 twice
# is 64,770, and 32,767 is left. onnxruntime's answer, `reduce_range`, gives every weight 7 bits: steps twice as coarse.
# But what must not be too large is a sum of two neighbours, and seldom are both the largest. So a column's scale
# becomes coarser by no more than its largest pair is too large, and every processor computes the same integers.

def fit(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix for MatMulInteger: float [channels, columns] -> int8 of that shape, and float32 [columns], what a step
    of each column is worth. Of the channels 0 and 1, 2 and 3, ... no two weights of one sign come to more than PAIR."""
    small, scales = np.empty(weight.shape, np.int8), np.empty(weight.shape[1], np.float32)
    for first in range(0, weight.shape[1], BLOCK):
        columns = slice(first, first + BLOCK)
        small[:, columns], scales[columns] = _fit(np.asarray(weight[:, columns], np.float32))
    return small, scales


def _fit(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Where both of a pair are rounded up they may still pass PAIR: then the step is made a little larger.
    scales = np.maximum(row_scales(weight.T), largest_pairs(weight) / PAIR).astype(np.float32)
    while True:
        small = round_rows(weight.T, scales).T
        over = largest_pairs(small) > PAIR
        if not over.any():
            return small, scales
        scales[over] *= np.float32(1 + 1 / 512)


def largest_pairs(weight: np.ndarray) -> np.ndarray:
    """The largest sum of two neighbours of one sign in each column, without that sign: [channels, columns], of channels
    0 and 1, 2 and 3, ... -> [columns]. Two of unlike sign come to less than one of them; a last one may be alone."""
    wide = weight.astype(np.int16 if weight.dtype == np.int8 else np.float32)
    alone, together = np.abs(wide), np.abs(wide[:-1:2] + wide[1::2])
    return np.maximum(alone.max(axis=0), together.max(axis=0, initial=0))


def fit_layers(model: ir.Model, source: ir.Model) -> None:
    """Give the linear layers of an int8 graph, as `quantize_dynamic` writes it, the numbers of `fit`, in place.

    source: the float32 graph that it was made of.
    """
    products = [node for node in model.graph if node.op_type == "MatMulInteger"]
    for small in [node.inputs[1] for node in products if node.inputs[1].is_initializer()]:  # not those of caches
        name = small.name.removesuffix("_quantized")
        scale, weight = model.graph.initializers[f"{name}_scale"], source.graph.initializers[name]
        numbers, scales = fit(weight.const_value.numpy())
        small.const_value = ir.tensor(numbers, name=small.name)
        scale.const_value = ir.tensor(scales, name=scale.name)


# The rest -------------------------------------------------------------------------------------------------------------

def shrink_rest(path: Path, source: Path | None = None, share: Callable[[ir.Model], list[str]] | None = None) -> str:
    """Finish a graph on disk that a quantizer of onnxruntime has written; returns what was quantized, in words.

    source: the float32 graph, where `quantize_dynamic` made MatMulInteger of it. share: what makes 8 bits of the token
    embedding; None: `share_embedding`.
    """
    model = graphs.load(path)
    if source is not None:
        fit_layers(model, graphs.load(source))
    embedding = (share or share_embedding)(model)
    convolutions, positions = shrink_convolutions(model), shrink_positions(model)
    graphs.rewrite(model, path)
    rest = (("the embedding (int8, shared)", embedding),
            (f"{console.count(len(convolutions), 'convolution')} (int8)", convolutions),
            ("positions (fp16)", positions))
    return ", ".join([_layers(model, len(embedding)), *(text for text, found in rest if found)])


def _layers(model: ir.Model, logits: int) -> str:
    """`48 linear layers`, or `12 linear layers of 4 bits and 36 of 8`; logits: how many of these are not counted."""
    bits = Counter(node.attributes["bits"].as_int() if node.op_type == "MatMulNBits" else 8
                   for node in model.graph if node.op_type in ("MatMulInteger", "MatMulNBits")
                   and node.inputs[1].is_initializer())
    bits[8] -= logits
    return f"{bits[4]} linear layers of 4 bits and {bits[8]} of 8" if bits[4] else f"{bits[8]} linear layers"


def share_embedding(model: ir.Model) -> list[str]:
    """Replace the tied token embedding by one int8 tensor for both its uses, a scale for each token; returns the names
    quantized.

    It is stored as the logits read it, [d_model, vocabulary]: else onnxruntime would transpose it whenever it opens the
    graph, which takes time and the room of a second copy. Lookup: the columns Gather(E_q, ids, axis=1), transposed,
    Cast, * Gather(scale, ids). Logits: DynamicQuantizeLinear(x), MatMulInteger with E_q, Cast, * x_scale * scale: the
    pattern that onnxruntime fuses into one kernel.
    """
    head = next((node for node in graphs.weight_matmuls(model) if node.inputs[1].producer() is not None), None)
    if head is None:
        return []
    table = graphs.weight_of(head.inputs[1])
    columns, scales = fit(table.const_value.numpy().T)
    quantized = graphs.constant(model, f"{table.name}_quantized", columns)
    scale = graphs.constant(model, f"{table.name}_scale", scales)
    for use in list(table.uses()):
        if use.node.op_type == "Gather":
            _lookup(model, use.node, quantized, scale)
    _logits(model, head, quantized, scale)
    graphs.drop_unused(model)
    return [table.name]


def _lookup(model: ir.Model, gather: ir.Node, quantized: ir.Value, scale: ir.Value) -> None:
    ids, name = gather.inputs[1], gather.name
    columns = graphs.insert(model, gather, "Gather", [quantized, ids], f"{name}_quantized", dtype=INT8, axis=1)
    rows = graphs.insert(model, gather, "Transpose", [columns], f"{name}_rows", dtype=INT8, perm=[1, 2, 0])
    steps = graphs.insert(model, gather, "Gather", [scale, ids], f"{name}_scale", dtype=FLOAT)
    last = graphs.constant(model, f"{name}_axis", np.array([-1]))
    steps = graphs.insert(model, gather, "Unsqueeze", [steps, last], f"{name}_scale_column", dtype=FLOAT)
    rows = graphs.insert(model, gather, "Cast", [rows], f"{name}_cast", dtype=FLOAT, to=FLOAT)
    graphs.replace(gather.outputs[0], graphs.insert(model, gather, "Mul", [rows, steps], f"{name}_scaled", dtype=FLOAT))


def _logits(model: ir.Model, head: ir.Node, quantized: ir.Value, scale: ir.Value) -> None:
    transpose, name = head.inputs[1].producer(), head.name
    x, x_scale, x_zero = graphs.insert(model, head, "DynamicQuantizeLinear", [head.inputs[0]],
                                       f"{name}_input_quantized", outputs=3)
    sums = graphs.insert(model, head, "MatMulInteger", [x, quantized, x_zero], f"{name}_quant", dtype=ir.DataType.INT32)
    sums = graphs.insert(model, head, "Cast", [sums], f"{name}_cast", dtype=FLOAT, to=FLOAT)
    scales = graphs.insert(model, head, "Mul", [x_scale, scale], f"{name}_scales", dtype=FLOAT)
    result = graphs.insert(model, head, "Mul", [sums, scales], f"{name}_scaled", dtype=FLOAT)
    graphs.replace(head.outputs[0], result)
    model.graph.remove(transpose, safe=True)


def shrink_convolutions(model: ir.Model, only: str | None = None) -> list[str]:
    """Store convolution weights [out, in, width] as int8 with a scale per output channel; compute in float32."""
    names = []
    for node in [node for node in model.graph if node.op_type == "Conv" and only in (None, node.name)]:
        weight = node.inputs[1]
        wide = store_rows(model, node, weight.name, f"{node.name}_weight", weight.const_value.numpy())
        node.replace_input_with(1, wide)
        names.append(weight.name)
    graphs.drop_unused(model)
    return names


def store_rows(model: ir.Model, before: ir.Node, name: str, path: str, array: np.ndarray) -> ir.Value:
    """Store a weight [rows, ...] as int8 with a scale per row; returns it in float32, made in front of `before`."""
    scales = row_scales(array)
    small = graphs.constant(model, f"{name}_quantized", round_rows(array, scales))
    scale = graphs.constant(model, f"{name}_scale", scales.reshape(-1, *[1] * (array.ndim - 1)))
    wide = graphs.insert(model, before, "Cast", [small], f"{path}_cast", dtype=FLOAT, to=FLOAT)
    return graphs.insert(model, before, "Mul", [wide, scale], path, dtype=FLOAT)


def shrink_positions(model: ir.Model) -> list[str]:
    """Store position embeddings as float16; a Cast to float32 follows where they are used."""
    names = []
    for name, table in list(model.graph.initializers.items()):
        if not re.search(r"embed_positions(\.weight)?$", name):
            continue
        small = graphs.lazy_constant(model, f"{name}_float16", table.const_value, FLOAT16, to_half)
        for node, index in list(table.uses()):
            if node.op_type == "Gather":  # look up few rows first, then cast only those
                node.replace_input_with(index, small)
                _cast_after(model, node)
            else:
                cast = graphs.insert(model, node, "Cast", [small], f"{name}/Cast", dtype=FLOAT, to=FLOAT)
                node.replace_input_with(index, cast)
        names.append(name)
    graphs.drop_unused(model)
    return names


def _cast_after(model: ir.Model, node: ir.Node) -> None:
    output = node.outputs[0]
    output.type = ir.TensorType(FLOAT16)
    readers = list(output.uses())
    cast = graphs.insert(model, readers[0].node, "Cast", [output], f"{node.name}_cast", dtype=FLOAT, to=FLOAT)
    for reader, index in readers:
        reader.replace_input_with(index, cast)
