"""Which named weights of a graph were quantized, which were left, and why: one row for each tensor worth asking about.

What decides is what a weight meets: integers multiplied by integers, or numbers that are scaled back to float first.
"""

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass

import onnx

from whisper_lab.compare.graph_facts import elements, tensor_bytes, type_name

WORTH_ASKING = 1024  # elements; smaller tensors are no weights to save on
# A constant goes through these on its way to the operator that computes with it.
ON_THE_WAY = {"Cast", "Transpose", "DequantizeLinear", "Unsqueeze", "Reshape", "Identity", "Constant"}
INTEGER = {"MatMulInteger": "int8", "ConvInteger": "int8", "QLinearMatMul": "int8", "QLinearConv": "int8",
           "DynamicQuantizeMatMul": "int8", "MatMulIntegerToFloat": "int8", "MatMulNBits": "blocks"}
SUFFIXES = ("_quantized", "_float16", "_Q4", "_Q8")
ROLES = ("_scale", "_scales", "_zero_point", "_zero_points")
SMALL = {"int8", "uint8", "int4", "uint4"}
KEPT = {  # operators without weights worth saving, and why nobody quantizes them
    "LayerNormalization": "squares of activations: the range is too wide for 8 bits, and there are few of them",
    "Softmax": "an exponential: small differences of large numbers decide",
    "Gelu": "a curve applied to each number, no product to save on",
    "MatMul": "both sides are activations (attention): no constant to quantize beforehand",
}


@dataclass(frozen=True)
class Weight:
    """A weight tensor: how it is stored, where it is used, and what was done to it."""

    name: str  # of the layer, without the quantizer's endings
    type: str
    size_bytes: int
    used_by: str  # operator types
    state: str  # quantized, stored small, half, left
    reason: str


def weights(model: onnx.ModelProto) -> list[dict]:
    """A row for each weight, in the order of the graph; ready for JSON."""
    readers = _readers(model)
    rows = []
    for tensor in model.graph.initializer:
        if elements(tensor) < WORTH_ASKING or tensor.name.endswith(ROLES):
            continue
        uses = sorted(set(_uses(tensor.name, readers)))
        state, reason = _judge(type_name(tensor), uses, len(tensor.dims), tensor.name)
        rows.append(asdict(Weight(layer_name(tensor.name), type_name(tensor), tensor_bytes(tensor),
                                  ", ".join(uses) or "nothing", state, reason)))
    return rows


def layer_name(tensor: str) -> str:
    """`encoder.layers.0.fc1.weight_quantized` -> `encoder.layers.0.fc1.weight`"""
    for suffix in SUFFIXES:
        tensor = tensor.removesuffix(suffix)
    return tensor


def kept_operators(model: onnx.ModelProto) -> list[dict]:
    """Operators that stay in float whatever the precision, how many, and why."""
    constants = {tensor.name for tensor in model.graph.initializer}
    counts: Counter = Counter(node.op_type for node in model.graph.node if node.op_type in KEPT
                              and not (node.op_type == "MatMul" and constants & set(_sources(node, model))))
    return [{"operator": name, "count": counts[name], "reason": KEPT[name]} for name in KEPT if counts[name]]


def _readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    readers = defaultdict(list)
    for node in model.graph.node:
        for name in set(node.input):
            readers[name].append(node)
    return readers


def _uses(name: str, readers: dict) -> list[str]:
    """Types of the operators that compute with a constant, looking through casts, transposes and scaling."""
    found = []
    for node in readers[name]:
        if _carries(node):
            found += _uses(node.output[0], readers)
        else:
            found.append(node.op_type)
    return found


def _carries(node: onnx.NodeProto) -> bool:
    """Does a constant go through this node on its way? A Mul that gives a stored weight its scale is one, too."""
    return node.op_type in ON_THE_WAY or (node.op_type == "Mul" and "_weight" in node.name)


def _sources(node: onnx.NodeProto, model: onnx.ModelProto) -> list[str]:
    """The values behind a node's inputs, looking through what a constant goes through."""
    makers = {output: maker for maker in model.graph.node for output in maker.output}
    found = []
    for name in node.input:
        while name in makers and _carries(makers[name]) and makers[name].input:
            name = makers[name].input[0]
        found.append(name)
    return found


def _judge(kind: str, uses: list[str], dims: int, name: str) -> tuple[str, str]:
    """(state, reason)"""
    if any(use in INTEGER for use in uses):
        blocks = any(INTEGER.get(use) == "blocks" for use in uses)
        shared = ", shared with the lookup (Gather)" if "Gather" in uses else ""
        bits = 8 if name.endswith("_Q8") else 4
        return "quantized", (f"{bits} bits in blocks with a scale each; the kernel quantizes the activations"
                             if blocks else f"8 bits times 8 bits in the product{shared}")
    if kind in SMALL:
        why = "the float convolution is faster than ConvInteger" if "Conv" in uses else "scaled back before use"
        return "stored small", f"stored in {kind}, computed in float: {why}"
    if kind == "float16":
        return "half", "stored in 16 bits"
    if dims < 2:
        return "left", "a vector (bias, LayerNorm): too few bytes to matter, and added, not multiplied"
    if "Gather" in uses and "MatMul" not in uses:
        return "left", "a lookup: rows are picked, nothing is multiplied"
    return "left", f"a matrix in {kind} for {', '.join(uses) or 'nothing'}"
