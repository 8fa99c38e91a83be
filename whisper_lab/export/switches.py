"""A float32 graph in which one linear layer at a time computes in int8, whichever the caller names.

For each layer both weights are there. An If node hands on the float product, or makes the 8-bit one where the graph's
input `int8_layer` holds this layer's number; -1 leaves all in float.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from whisper_lab.export import graphs, int8

INPUT = "int8_layer"
FLOAT, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL


def write(source: Path, target: Path, layers: list[str], levels: int) -> None:
    """Give every MatMul named in `layers` its switch; levels: 127, or 64 with --reduce-range."""
    model = graphs.load(source)
    chosen = ir.Value(name=INPUT, shape=ir.Shape([]), type=ir.TensorType(INT64))
    model.graph.inputs.append(chosen)
    for node in graphs.weight_matmuls(model):
        if node.name in layers:
            _switch(model, node, chosen, layers.index(node.name), levels)
    graphs.save(model, target)


def _switch(model: ir.Model, node: ir.Node, chosen: ir.Value, number: int, levels: int) -> None:
    product, weight = node.outputs[0], node.inputs[1].const_value.numpy()
    readers = list(product.uses())
    scales = int8.row_scales(weight.T, levels)
    small = graphs.constant(model, f"{node.name}/int8", int8.round_rows(weight.T, scales).T)
    scale = graphs.constant(model, f"{node.name}/scale", scales)
    one = graphs.constant(model, f"{node.name}/number", np.array(number))
    here = ir.node("Equal", [chosen, one], name=f"{node.name}/chosen")
    here.outputs[0].name, here.outputs[0].type = here.name, ir.TensorType(BOOL)
    branches = {"then_branch": _product(node.inputs[0], small, scale, f"{node.name}/in_int8"),
                "else_branch": _graph([ir.node("Identity", [product], name=f"{node.name}/in_float")])}
    switch = ir.node("If", [here.outputs[0]], branches, name=f"{node.name}/switch")
    model.graph.insert_after(node, [here, switch])
    switch.outputs[0].name, switch.outputs[0].type, switch.outputs[0].shape = switch.name, product.type, product.shape
    for reader, index in readers:
        reader.replace_input_with(index, switch.outputs[0])


def _product(x: ir.Value, weight: ir.Value, scale: ir.Value, name: str) -> ir.Graph:
    """x [..., channels] times an int8 weight [channels, columns], as `quantize_dynamic` writes it."""
    quantized = ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=f"{name}/quantized")
    rounded, step, zero = quantized.outputs
    sums = ir.node("MatMulInteger", [rounded, weight, zero], name=f"{name}/sums")
    wide = ir.node("Cast", [sums.outputs[0]], {"to": FLOAT}, name=f"{name}/cast")
    scales = ir.node("Mul", [step, scale], name=f"{name}/scales")
    return _graph([quantized, sums, wide, scales,
                   ir.node("Mul", [wide.outputs[0], scales.outputs[0]], name=f"{name}/scaled")])


def _graph(nodes: list[ir.Node]) -> ir.Graph:
    """A branch: its last node's output is the result."""
    for node in nodes:
        for i, value in enumerate(node.outputs):
            value.name = f"{node.name}/{i}"
    nodes[-1].outputs[0].type = ir.TensorType(FLOAT)
    return ir.Graph([], [nodes[-1].outputs[0]], nodes=nodes, name=nodes[-1].name)


class Switched:
    """An onnxruntime session over such a graph; `layer` says which of its layers is in int8 from now on."""

    def __init__(self, session):
        self.session, self.layer = session, -1

    def get_inputs(self) -> list:
        """What the float32 graph asks for."""
        return [value for value in self.session.get_inputs() if value.name != INPUT]

    def get_outputs(self) -> list:
        return self.session.get_outputs()

    def run(self, outputs: list[str] | None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return self.session.run(outputs, feeds | {INPUT: np.array(self.layer)})
