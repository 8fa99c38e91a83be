"""Graphs on disk: read, write, weigh, and the few edits that every precision needs. Built on onnx_ir (of onnxscript).

onnx_ir maps external weights into memory instead of reading them, and LazyTensor makes a converted weight only while
it is written; so a model of several gigabytes is never held twice.
"""

import gc
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from whisper_lab import external_data, machine, names
from whisper_lab.export import wire

OPSET, IR_VERSION = 20, 9  # opset 20 has Gelu as one node; IR 9 is the oldest that carries it, so old runtimes load it
SINGLE_FILE_LIMIT = 1_500_000_000  # bytes of weights; protobuf ends at 2^31
WORKING_LIMIT = 100_000_000  # bytes of weights above which a graph being worked on keeps them in a sidecar: mapped, not
# held, where protobuf holds a single file twice while it reads (message, bytes)
BIG = 1024  # elements; smaller tensors are not worth a node


def load(path: str | Path) -> ir.Model:
    """Read a graph; weights in a sidecar stay on disk until used. Raises LabError as external_data.check does."""
    external_data.check(path)
    return ir.load(path)


def release_memory() -> None:
    """Free the graphs that no one uses any more: they refer to themselves in circles, which only the collector finds.

    For the exporter between two steps. Not for a program that only runs graphs: looking for circles among all that
    torch and onnxruntime made takes as long as opening a small graph.
    """
    gc.collect()
    machine.give_back_memory()


def settle_memory() -> None:
    """`release_memory`, and from now on the collector passes over what is alive: what torch made for itself, and keeps.

    To look at all of it again takes longer than many a step.
    """
    release_memory()
    gc.freeze()


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values())


def save(model: ir.Model, path: Path) -> None:
    """Write a graph: one file, or above WORKING_LIMIT the graph and `<name>.onnx.data` beside it. Not atomic."""
    model.ir_version = IR_VERSION
    sidecar = names.sidecar(path)
    sidecar.unlink(missing_ok=True)  # a stale one would only confuse
    if weight_bytes(model) <= WORKING_LIMIT:
        wire.write(model, path)  # weights still mapped to the sidecar of a larger graph come along
    else:
        ir.save(model, path, external_data=sidecar.name, size_threshold_bytes=BIG)


def join(source: Path, target: Path) -> None:
    """Write a graph and its sidecar as one file, weight by weight, so that no more than one is in memory.

    By hand, as wire.py says, and in its order: whoever writes the metadata of the one file again gets the same bytes.
    """
    external_data.check(source)
    model = onnx.load(source, load_external_data=False)
    for tensor in tensors(model.graph, inside=False):  # of a loop's body: few and small
        if tensor.external_data:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(source.parent))
    weights = [_without_place(tensor) for tensor in model.graph.initializer]
    del model.graph.initializer[:]
    graph = model.graph.SerializeToString(deterministic=True)
    first, last = wire.around(model, "graph", wire.BEFORE_GRAPH)
    heads = [wire.field(wire.INITIALIZER, len(tensor) + len(raw) + count) + tensor + raw
             for tensor, raw, _, count in weights]
    length = len(graph) + sum(len(head) + count for head, (*_, count) in zip(heads, weights, strict=True))
    with target.open("wb") as out, names.sidecar(source).open("rb") as data:
        out.write(first + wire.field(wire.GRAPH, length) + graph)
        for head, (*_, offset, count) in zip(heads, weights, strict=True):
            data.seek(offset)
            out.write(head + data.read(count))
        out.write(last)


def tensors(graph: onnx.GraphProto, inside: bool = True) -> Iterator[onnx.TensorProto]:
    """The weights of a graph and of the loops in it; `inside` False: of the loops alone."""
    if inside:
        yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from tensors(attribute.g)


def _without_place(tensor: onnx.TensorProto) -> tuple[bytes, bytes, int, int]:
    """A tensor's own bytes, the start of its raw_data, and where these are in the sidecar: offset and count."""
    place = {entry.key: entry.value for entry in tensor.external_data}
    if not place:
        return tensor.SerializeToString(deterministic=True), b"", 0, 0
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    count = int(place["length"])
    return tensor.SerializeToString(deterministic=True), wire.field(9, count), int(place.get("offset", 0)), count


def rewrite(model: ir.Model, path: Path) -> None:
    """Write a graph over the file it was read from, whose sidecar its weights may still be mapped to."""
    folder = path.parent / f"{path.stem}.rewritten"
    folder.mkdir()
    save(model, folder / path.name)
    names.sidecar(path).unlink(missing_ok=True)
    for file in folder.iterdir():
        os.replace(file, path.parent / file.name)
    folder.rmdir()


def is_large(path: Path) -> bool:
    """Should what is made of this graph keep its weights in a sidecar while it is worked on?"""
    return size(path) > WORKING_LIMIT


def size(path: Path) -> int:
    """Bytes on disk, sidecar included."""
    return sum(file.stat().st_size for file in (path, names.sidecar(path)) if file.exists())


def node_types(model: ir.Model) -> Counter:
    """How many nodes of each type, most frequent first."""
    return Counter(dict(Counter(node.op_type for node in model.graph).most_common()))


def constant(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """Add an initializer of a ready array."""
    return register(model, name, ir.tensor(np.ascontiguousarray(array), name=name))


def lazy_constant(model: ir.Model, name: str, source, dtype: ir.DataType, convert: Callable) -> ir.Value:
    """Add an initializer of `convert(source.numpy())`, computed only while it is written; same shape as the source."""
    def make():
        return ir.tensor(np.ascontiguousarray(convert(source.numpy())), name=name)

    return register(model, name, ir.LazyTensor(make, dtype=dtype, shape=source.shape, name=name))


def register(model: ir.Model, name: str, tensor) -> ir.Value:
    """Add an initializer of an onnx_ir tensor."""
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def insert(model: ir.Model, before: ir.Node, op: str, inputs: list, name: str, outputs: int = 1, domain: str = "",
           dtype: ir.DataType | None = None, **attributes) -> ir.Value | list[ir.Value]:
    """Put a new node in front of another; returns its output (or the list of them), called as the node."""
    node = ir.node(op, inputs, attributes, name=name, domain=domain, num_outputs=outputs)
    for i, value in enumerate(node.outputs):
        value.name = name if i == 0 else f"{name}_{i}"
        value.type = ir.TensorType(dtype) if dtype is not None and i == 0 else None
    model.graph.insert_before(before, node)
    return node.outputs[0] if outputs == 1 else list(node.outputs)


def replace(old: ir.Value, new: ir.Value) -> None:
    """Let every reader of `old` read `new`, which takes over the name; the old node is removed."""
    node, graph = old.producer(), old.producer().graph
    name, shape, dtype = old.name, old.shape, old.type
    old.name = f"{name}.replaced"
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    new.name, new.shape, new.type = name, shape, dtype
    graph.remove(node, safe=True)


def drop_unused(model: ir.Model) -> None:
    """Remove initializers that no node reads any more."""
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]


def weight_matmuls(model: ir.Model) -> list[ir.Node]:
    """The MatMul nodes whose second input is a weight (also through a Transpose): the linear layers and the logits."""
    return [node for node in model.graph if node.op_type == "MatMul" and weight_of(node.inputs[1]) is not None]


def linear_layers(path: Path, pattern: str | None) -> list[str]:
    """Names of a graph's linear layers, the logits left out, that match a regular expression; None matches nothing."""
    names = [node.name for node in weight_matmuls(load(path))] if pattern else []
    return [name for name in names if name != "proj_out/MatMul" and re.search(pattern, name)]


def weight_of(value: ir.Value | None) -> ir.Value | None:
    """The initializer behind a value, looking through Transpose and Cast; None where there is none."""
    while value is not None and not value.is_initializer():
        node = value.producer()
        value = node.inputs[0] if node is not None and node.op_type in ("Transpose", "Cast") else None
    return value
