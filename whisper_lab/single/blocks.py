"""Graphs written by hand: a block of nodes reads like NumPy, `block("Add", x, 1.0)`, and a Loop like a function.

Constants become initializers of the main graph, each distinct one once; bodies of loops see them from outside.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from whisper_lab.export import graphs

FLOAT, INT64, BOOL, STRING = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING
UINT8 = ir.DataType.UINT8


class Block:
    """Nodes in order, all named `<prefix>/...`; `model` holds the constants."""

    def __init__(self, model: ir.Model, prefix: str):
        self.model, self.prefix, self.nodes = model, prefix, []

    def __call__(self, op: str, *inputs, name: str | None = None, outputs: int = 1, **attributes):
        """Append a node; returns its output, or the list of them. Numbers, lists, arrays and strings become constants.

        `name` replaces the one made of prefix and operator: onnxruntime's errors show it.
        """
        values = [self._value(each) for each in inputs]
        name = self._free(name or f"{self.prefix}/{op}")
        node = ir.node(op, values, attributes, num_outputs=outputs, name=name)
        for i, value in enumerate(node.outputs):
            value.name = name if i == 0 else f"{name}_{i}"
        self.nodes.append(node)
        return node.outputs[0] if outputs == 1 else list(node.outputs)

    def adopt(self, nodes: Sequence[ir.Node]) -> None:
        """Append nodes made elsewhere."""
        self.nodes += nodes

    def under(self, prefix: str) -> "Block":
        """An empty block of the same model, for the body of a loop."""
        return Block(self.model, f"{self.prefix}/{prefix}")

    def strings(self, texts: Sequence[str], name: str | None = None) -> ir.Value:
        """A list of texts as a Constant node: a sidecar, where a large graph's weights are, takes no strings."""
        return self("Constant", name=name, value_strings=list(texts))

    def _value(self, given):
        if given is None or isinstance(given, ir.Value):
            return given
        array = np.asarray(given)
        return self.strings(array.tolist()) if array.dtype.kind == "U" else constant(self.model, given)

    def _free(self, name: str) -> str:
        used = self.model.meta.setdefault("names of blocks", {})
        used[name] = used.get(name, -1) + 1
        return name if used[name] == 0 else f"{name}_{used[name]}"


def constant(model: ir.Model, given) -> ir.Value:
    """An initializer: bool, int (as int64), float (as float32), a list of one of them, or a ready array."""
    array = np.asarray(given, order="C")
    if not isinstance(given, np.ndarray) and array.dtype == np.float64:
        array = array.astype(np.float32)
    known = model.meta.setdefault("constants of blocks", {})
    key = (array.dtype.str, array.shape, array.tobytes())
    if key not in known:
        shape = "x".join(map(str, array.shape)) or "scalar"
        name = f"constants.{array.dtype.name}_{shape}_{len(known)}"
        known[key] = graphs.register(model, name, ir.tensor(array, name=name))
    return known[key]


def graph_input(model: ir.Model, name: str, dtype: ir.DataType, shape: list, default=None) -> ir.Value:
    """Add an input of the graph; with a default, one that a caller may leave out (an initializer of the same name)."""
    if default is None:
        value = typed(ir.Value(name=name), dtype, shape)
    elif dtype == STRING:
        value = graphs.register(model, name, ir.StringTensor([default.encode()], shape=ir.Shape([1]), name=name))
    else:
        value = graphs.register(model, name, ir.tensor(np.array([default], dtype.numpy()), name=name))
    model.graph.inputs.append(value)
    return value


def typed(value: ir.Value, dtype: ir.DataType, shape: Sequence) -> ir.Value:
    """The value with its element type and shape written down; returns it."""
    value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
    return value


def loop(outer: Block, name: str, trips, states: Sequence[tuple], body: Callable, go_on=True, scans: Sequence = (),
         weights: Sequence[ir.Value] = ()) -> list[ir.Value]:
    """A Loop node; returns its outputs, the last states and then one row per round of each scan.

    states: (first value, dtype, shape) of what one round hands to the next. body(block, round, *states) returns
    (go on, next states, scanned values); `round` counts from 0. scans: (dtype, shape) of the scanned values. weights:
    initializers that belong into the body itself.
    """
    block = outer.under(name)
    count, before = (typed(ir.Value(name=f"{block.prefix}/{what}"), dtype, [])
                     for what, dtype in (("round", INT64), ("going", BOOL)))
    inside = [typed(ir.Value(name=f"{block.prefix}/state_{i}"), dtype, shape)
              for i, (_, dtype, shape) in enumerate(states)]
    going, after, scanned = body(block, count, *inside)
    made_here = {id(value) for node in block.nodes for value in node.outputs}
    results = [value if id(value) in made_here else block("Identity", value) for value in (going, *after, *scanned)]
    kinds = [(BOOL, []), *((dtype, shape) for _, dtype, shape in states), *scans]
    for value, (dtype, shape) in zip(results, kinds, strict=True):
        # A dimension with a name may have changed since the round began: the same name would deny it.
        typed(value, dtype, [None if isinstance(size, str) else size for size in shape])
    graph = ir.Graph([count, before, *inside], results, nodes=block.nodes, initializers=weights, name=name)
    made = outer("Loop", trips, go_on, *(first for first, _, _ in states), name=f"{outer.prefix}/{name}",
                 outputs=len(states) + len(scans), body=graph)
    return made if isinstance(made, list) else [made]
