"""Edits of a finished graph that layouts share: take nodes from another graph, give inputs and outputs another form.

Nothing here computes: each node that a layout needs is one that 03 has traced, converted and checked, so weights,
types and fusions stay what they were.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, TopologicalSortPass

from whisper_lab import seals
from whisper_lab.export import graphs

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
END = np.iinfo(np.int64).max  # a slice that ends there goes on to the end


def ancestors(values: Iterable[ir.Value], stop: Iterable[ir.Value] = ()) -> list[ir.Node]:
    """The nodes that compute `values`, in the order of computation; what computes `stop` is left out."""
    stop, seen, found = set(stop), set(), []

    def visit(value: ir.Value | None) -> None:
        node = None if value is None or value in stop else value.producer()
        if node is not None and node not in seen:
            seen.add(node)
            for one in node.inputs:
                visit(one)
            found.append(node)

    for value in values:
        visit(value)
    return found


def descendants(values: Iterable[ir.Value]) -> set[ir.Node]:
    """The nodes whose result depends on `values`."""
    found: set[ir.Node] = set()
    waiting = list(values)
    while waiting:
        for use in waiting.pop().uses():
            if use.node not in found:
                found.add(use.node)
                waiting += use.node.outputs
    return found


def constant_nodes(nodes: list[ir.Node]) -> list[ir.Node]:
    """Those of `nodes`, given in the order of computation, that depend on weights alone."""
    found: list[ir.Node] = []
    for node in nodes:
        if all(value is None or value.is_initializer() or value.producer() in found for value in node.inputs):
            found.append(node)
    return found


class Transplant:
    """Copies nodes, of this graph or another, into `model` under names of their own; weights come along once."""

    def __init__(self, model: ir.Model):
        self.model = model
        self.names = {value.name for node in model.graph for value in node.outputs}
        self.names |= {node.name for node in model.graph} | set(model.graph.initializers)
        self.names |= {value.name for value in model.graph.inputs}
        self.weights: dict[ir.Value, ir.Value] = {}

    def name(self, wanted: str) -> str:
        """`wanted`, or with a number behind it where that is taken."""
        name, count = wanted, 0
        while name in self.names:
            count += 1
            name = f"{wanted}_{count}"
        self.names.add(name)
        return name

    def weight(self, value: ir.Value) -> ir.Value:
        """An initializer of another graph as one of this model's."""
        if value.graph is self.model.graph:
            return value
        if value not in self.weights:
            name = self.name(value.name)
            value.const_value.name = name
            self.weights[value] = graphs.register(self.model, name, value.const_value)
        return self.weights[value]

    def copy(self, nodes: Iterable[ir.Node], given: dict[ir.Value, ir.Value]) -> list[ir.Node]:
        """Copies of `nodes`; `given`: what they read in place of a value, to which their own results are added."""
        made = []
        for node in nodes:
            inputs = [self._input(value, given) for value in node.inputs]
            new = ir.Node(node.domain, node.op_type, inputs, list(node.attributes.values()),
                          num_outputs=len(node.outputs), name=self.name(node.name))
            for old, value in zip(node.outputs, new.outputs, strict=True):
                value.name = new.name if old.name == node.name else self.name(old.name)
                value.type, value.shape = old.type, None  # dimensions may be called otherwise here
                given[old] = value
            made.append(new)
        return made

    def _input(self, value: ir.Value | None, given: dict[ir.Value, ir.Value]) -> ir.Value | None:
        if value is None or value in given:
            return given.get(value)
        return self.weight(value) if value.is_initializer() else value


def append(model: ir.Model, op: str, inputs: list[ir.Value], name: str, dtype: ir.DataType | None = None,
           **attributes) -> ir.Value:
    """A new node; `finish` puts it where it belongs. Returns its output, called as the node."""
    node = ir.node(op, inputs, attributes, name=name)
    node.outputs[0].name, node.outputs[0].type = name, None if dtype is None else ir.TensorType(dtype)
    model.graph.append(node)
    return node.outputs[0]


def whole_numbers(model: ir.Model, name: str, *numbers: int) -> ir.Value:
    """An initializer: int64 [n]."""
    return graphs.constant(model, name, np.array(numbers, np.int64))


def whole_number(model: ir.Model, name: str, number: int) -> ir.Value:
    """An initializer: int64, no dimension."""
    return graphs.register(model, name, ir.tensor(np.array(number, np.int64), name=name))


def replace_input(model: ir.Model, old: ir.Value, new: ir.Value) -> None:
    """Every node that read the graph's input `old` reads `new`; the input is removed."""
    ir.convenience.replace_all_uses_with(old, new)
    model.graph.inputs.remove(old)


def new_input(model: ir.Model, name: str, dtype: ir.DataType, shape: list) -> ir.Value:
    """One more input of the graph."""
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
    model.graph.inputs.append(value)
    return value


def rename(value: ir.Value, name: str, shape: list | None = None) -> ir.Value:
    """Another name for an input or output, and other names for its dimensions."""
    value.name = name
    value.shape = value.shape if shape is None else ir.Shape(shape)
    return value


def save(model: ir.Model, path: Path, facts: dict[str, str]) -> None:
    """Write the graph with its metadata, and what nothing needs any more left out; it is sealed when it is in place."""
    RemoveUnusedNodesPass()(model)
    TopologicalSortPass()(model)
    model.metadata_props.clear()
    model.metadata_props.update({key: value for key, value in facts.items() if key != seals.KEY})
    graphs.save(model, path)
