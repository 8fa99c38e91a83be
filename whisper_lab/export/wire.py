"""Graph files a weight at a time: protobuf holds a message, its bytes, and a copy of them, each with all weights.

By hand in its wire format (https://protobuf.dev/programming-guides/encoding), where a message is a list of fields, each
a tag, a length, and that many bytes. ModelProto.graph is field 7, GraphProto.initializer 5, TensorProto.raw_data 9.
Fields stand in the order of their numbers, so what is written here is, byte for byte, what protobuf would write.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from whisper_lab import external_data

GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9
BEFORE_GRAPH = ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string")
BEFORE_WEIGHTS = ("node", "name")
BLOCK = 1 << 20  # bytes copied at once


def field(number: int, length: int) -> bytes:
    """What stands in front of a field's bytes."""
    found = bytearray([number << 3 | 2])  # 2: bytes of a given length
    while length > 127:
        found.append(length & 127 | 128)
        length >>= 7
    return bytes(found) + bytes([length])


# Read ----------------------------------------------------------------------------------------------------------------

def skim(path: Path) -> onnx.ModelProto:
    """A graph without the bytes of its weights: their names, types and shapes are there."""
    model = onnx.ModelProto()
    with external_data.mapped(path) as data:
        found, graph = _split(data, 0, len(data), GRAPH)
        model.MergeFromString(found)
        for place in graph:
            found, weights = _split(data, *place, INITIALIZER)
            model.graph.MergeFromString(found)
            for weight in weights:
                model.graph.initializer.add().MergeFromString(_split(data, *weight, RAW_DATA)[0])
    return model


def _split(data, at: int, end: int, number: int) -> tuple[bytes, list[tuple[int, int]]]:
    """A message without the field of this number, and where the bytes of that are."""
    others, places = [], []
    for found, wire, start, stop in external_data.fields(data, at, end):
        if (found, wire) == (number, 2):
            places.append((start, stop))
        else:
            others.append(data[at:stop])
        at = stop
    return b"".join(others), places


# Write ---------------------------------------------------------------------------------------------------------------

def write(model: ir.Model, path: Path, inline: bool = True) -> None:
    """The file that ir.save writes, never with more than one weight in memory.

    inline: weights in a sidecar come along; else they stay there, and the sidecar has to be beside the new file too.
    """
    graph, weights = _without_weights(model)
    sizes = [_size(weight, inline) for weight in weights]
    count = sum(len(field(INITIALIZER, size)) + size for size in sizes)
    (first, last), (start, end) = (around(*message) for message in (
        (graph, "graph", BEFORE_GRAPH), (graph.graph, "initializer", BEFORE_WEIGHTS)))
    with _renewed(path) as out:
        out.write(first + field(GRAPH, len(start) + count + len(end)) + start)
        for weight, size in zip(weights, sizes, strict=True):
            out.write(field(INITIALIZER, size))
            _put(out, weight, inline)
        out.write(end + last)


def write_around(model: onnx.ModelProto, path: Path) -> None:
    """Replace what a file says beside its graph by what `model` says; the graph's bytes are copied."""
    first, last = around(model, "graph", BEFORE_GRAPH)
    with external_data.mapped(path) as data:
        (start, end), = _split(data, 0, len(data), GRAPH)[1]
    with _renewed(path) as out, path.open("rb") as old:
        out.write(first + field(GRAPH, end - start))
        old.seek(start)
        while start < end and (block := old.read(min(BLOCK, end - start))):
            start += out.write(block)
        out.write(last)


@contextlib.contextmanager
def _renewed(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of another once it is whole: until then that one is read."""
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("wb") as out:
            yield out
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def _without_weights(model: ir.Model) -> tuple[onnx.ModelProto, list]:
    """The model as protobuf, its initializers left out, and these, as tensors of onnx_ir; loops keep theirs."""
    values = [value for value in model.graph.initializers.values() if value.const_value is not None]
    weights = [value.const_value for value in values]
    for inner in model.graphs():
        if inner is not model.graph:
            _load(inner.initializers.values())
    try:
        for value in values:
            value.const_value.name, value.const_value = value.name, ir.tensor([0])
        proto = ir.to_proto(model)
    finally:
        for value, weight in zip(values, weights, strict=True):
            value.const_value = weight
    proto.graph.ClearField("initializer")
    return proto, weights


def _load(values: Iterable[ir.Value]) -> None:
    outside = [value for value in values if isinstance(value.const_value, ir.ExternalTensor)]
    made = ir.external_data.convert_tensors_from_external([value.const_value for value in outside])
    for value, tensor in zip(outside, made, strict=True):
        value.const_value = tensor


def around(message, missing: str, names: tuple[str, ...]) -> tuple[bytes, bytes]:
    """A message's bytes before and behind the field that is left out of it; names: the fields before that."""
    rest = type(message)()
    rest.CopyFrom(message)
    rest.ClearField(missing)
    whole = rest.SerializeToString()
    for name in names:
        rest.ClearField(name)
    end = rest.SerializeToString()
    return whole[:len(whole) - len(end)], end


def _message(weight, inline: bool) -> tuple[onnx.TensorProto, int | None]:
    """A weight as protobuf, and how many bytes of raw_data are still to come; None: it is complete, as read."""
    outside = isinstance(weight, ir.ExternalTensor) and not inline
    whole = isinstance(weight, ir.serde.TensorProtoTensor | ir.StringTensor)
    if outside or whole or weight.doc_string or weight.metadata_props:
        return ir.to_proto(weight), None
    return onnx.TensorProto(name=weight.name, data_type=weight.dtype.value, dims=weight.shape.numpy()), weight.nbytes


def _size(weight, inline: bool) -> int:
    """Bytes of a weight's message."""
    message, raw = _message(weight, inline)
    return message.ByteSize() + (0 if raw is None else len(field(RAW_DATA, raw)) + raw)


def _put(out: BinaryIO, weight, inline: bool) -> None:
    """A weight's message; its numbers go from where they are into the file."""
    message, raw = _message(weight, inline)
    out.write(message.SerializeToString())
    if raw is not None:
        out.write(field(RAW_DATA, raw))
        start = out.tell()
        weight.tofile(out)
        if out.tell() - start != raw:
            raise ValueError(f"{weight.name} has {out.tell() - start} bytes, not {raw}")
