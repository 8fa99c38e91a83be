"""Half precision, in two ways.

`convert` (--fp16-mode full): weights, values and operators in float16, except the operators that need float32. They
are LayerNormalization (its squares leave float16's range of 65504 on Whisper's outliers), Softmax and Gelu (no half
kernel on onnxruntime's CPU: each would fall into 5 to 8 primitive operators), and the sums of the residual stream,
whose values grow from layer to layer (Hugging Face clamps them in float16). Inputs and outputs stay float32.

`store` (--fp16-mode weights): only the file is half as large; a Cast after each weight, folded when it is loaded.
"""

import re

import numpy as np
import onnx_ir as ir

from whisper_lab.export import graphs

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
IN_FLOAT32 = {"LayerNormalization", "Softmax", "Gelu"}
RESIDUAL = re.compile(r"(encoder|decoder)(\.layers\.\d+)?/Add(_\d+)?$")  # sums made by a layer, not inside a module
OF_ANY_TYPE = {"Shape", "Cast"}  # take any type; give integers, or integers as float32


def to_half(array: np.ndarray) -> np.ndarray:
    """float32 -> float16, values beyond its range clamped to +-65504 instead of becoming infinite."""
    limit = float(np.finfo(np.float16).max)
    return np.clip(array, -limit, limit, out=np.empty(array.shape, np.float16), casting="unsafe")


def store(model: ir.Model) -> int:
    """Weight matrices in float16, computation in float32; returns how many tensors were converted."""
    count = 0
    for name, value in list(model.graph.initializers.items()):
        if value.dtype != FLOAT or len(value.shape) < 2 or not value.uses():
            continue  # biases and LayerNorm weights are half a percent of the file
        small = graphs.lazy_constant(model, f"{name}_float16", value.const_value, HALF, to_half)
        first = min((use.node for use in value.uses()), key=_order(model).__getitem__)
        cast = graphs.insert(model, first, "Cast", [small], f"{name}/Cast", dtype=FLOAT, to=FLOAT)
        ir.convenience.replace_all_uses_with(value, cast)
        count += 1
    graphs.drop_unused(model)
    return count


def convert(model: ir.Model) -> int:
    """A graph that computes in float16 where it can; returns how many nodes do."""
    halves = _Halves(model)
    outputs = {value.name for value in model.graph.outputs}
    count = 0
    for node in list(model.graph):
        wanted = FLOAT if node.op_type in IN_FLOAT32 or RESIDUAL.match(node.name) else HALF
        if node.op_type in OF_ANY_TYPE or not any(_is_float(value) for value in [*node.inputs, *node.outputs]):
            continue
        for i, value in enumerate(node.inputs):
            if value is not None and _is_float(value):
                node.replace_input_with(i, halves.cast(value, wanted, node))
        if wanted == HALF:
            count += 1
            for value in node.outputs:
                value.type = ir.TensorType(HALF)
                if value.name in outputs:
                    _widen_output(model, value)
    store(model)  # the encoder's positions: added to the residual stream in float32, but stored as half
    return count


class _Halves:
    """Each value in the type a node wants: constants are stored so, others get one Cast that all readers share."""

    def __init__(self, model: ir.Model):
        self.model, self.made = model, {}

    def cast(self, value: ir.Value, wanted: ir.DataType, before: ir.Node) -> ir.Value:
        if value.dtype == wanted:
            return value
        if (value, wanted) not in self.made:
            self.made[value, wanted] = self._make(value, wanted, before)
        return self.made[value, wanted]

    def _make(self, value: ir.Value, wanted: ir.DataType, before: ir.Node) -> ir.Value:
        if value.is_initializer():
            return graphs.lazy_constant(self.model, f"{value.name}_float16", value.const_value, HALF, to_half)
        name = f"{value.name}/to_{'half' if wanted == HALF else 'float'}"
        return graphs.insert(self.model, before, "Cast", [value], name, dtype=wanted, to=wanted)


def _widen_output(model: ir.Model, value: ir.Value) -> None:
    """A graph output that is now half: readers inside keep the half value, the output becomes a Cast of it."""
    name, position = value.name, next(i for i, output in enumerate(model.graph.outputs) if output is value)
    value.name = f"{name}/half"
    cast = ir.node("Cast", [value], {"to": FLOAT}, name=f"{name}/to_float")
    cast.outputs[0].name, cast.outputs[0].type, cast.outputs[0].shape = name, ir.TensorType(FLOAT), value.shape
    model.graph.insert_after(value.producer(), cast)
    model.graph.outputs[position] = cast.outputs[0]


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype in (FLOAT, HALF)


def _order(model: ir.Model) -> dict[ir.Node, int]:
    return {node: i for i, node in enumerate(model.graph)}
