"""The encoder's second convolution as two matrix products, which are quantized as every other linear layer is.

onnxruntime has no fast convolution in 8 bits (ConvInteger is slower than the float Conv). But of width 3, stride 2 and
padding 1, output i hears the inputs 2 i - 1, 2 i and 2 i + 1: the last two lie side by side in memory when the input is
[frames, channels], as one row of [frames / 2, 2 channels], and the first is the second half of the row before. So one
product takes two thirds of the weights, another the rest from the rows one place later, and nothing is copied three
times as by im2col (Chellapilla et al. 2006).

For the optimized pair: in a graph to study, a convolution had better look like one.
"""

import numpy as np
import onnx_ir as ir

from whisper_lab.export import graphs

FLOAT = ir.DataType.FLOAT
LAYER = "encoder.conv2"
PRODUCTS = (f"{LAYER}/MatMul", f"{LAYER}.before/MatMul")  # of both inputs of a pair, and of the one before them


def as_products(model: ir.Model) -> None:
    """Replace the convolution, the Gelu behind it and the transposition to [batch, positions, channels]."""
    conv = next(node for node in model.graph if node.name == f"{LAYER}/Conv")
    gelu = conv.outputs[0].uses()[0].node
    transposed = gelu.outputs[0].uses()[0].node
    made = graphs.insert(model, conv, "Gelu", [_convolved(model, conv)], f"{LAYER}/Gelu", dtype=FLOAT)
    graphs.replace(transposed.outputs[0], made)
    model.graph.remove([gelu, conv], safe=True)
    graphs.drop_unused(model)


def _convolved(model: ir.Model, conv: ir.Node) -> ir.Value:
    """[batch, channels, frames] -> [batch, frames / 2, channels of the result]"""
    heard, weight, bias = conv.inputs
    before, even, odd = weight.const_value.numpy().transpose(2, 1, 0)  # each [channels, channels of the result]
    channels = len(even)

    def insert(op: str, inputs: list, name: str, **attributes) -> ir.Value:
        return graphs.insert(model, conv, op, inputs, name, dtype=FLOAT, **attributes)

    def constant(name: str, array: np.ndarray) -> ir.Value:
        return graphs.constant(model, f"{LAYER}.{name}", array)

    frames = insert("Transpose", [heard], f"{LAYER}/Transpose", perm=[0, 2, 1])
    pairs = insert("Reshape", [frames, constant("pairs", np.array([0, -1, 2 * channels]))], f"{LAYER}/Reshape")
    # One row of zeros in front, and away with the last row and with the even half: at both ends, negative is less.
    places = constant("places", np.array([0, 1, -channels, 0, -1, 0]))
    earlier = insert("Pad", [pairs, places], f"{LAYER}.before/Pad")
    products = [insert("MatMul", [rows, constant(name, taps)], node) for node, rows, name, taps in zip(
        PRODUCTS, (pairs, earlier), ("pair.weight", "before.weight"), (np.concatenate([even, odd]), before),
        strict=True)]
    return insert("Add", [insert("Add", products, f"{LAYER}/Add"), bias], f"{LAYER}/bias")
