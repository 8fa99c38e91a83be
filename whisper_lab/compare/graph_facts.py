"""What a graph is, read from the file alone: identity, bytes by type, operators. Any ONNX file, no weights loaded."""

import hashlib
import json
import os
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from whisper_lab import external_data
from whisper_lab.console import LabError

LARGEST = 10
MOST_DIMS, MOST_ELEMENTS = 64, 2**48  # more than any tensor has
BLOCK = 1 << 20  # bytes read at once
BITS = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6}  # packed


def read(path: str | Path) -> onnx.ModelProto:
    """The graph without the weights of a sidecar. Raises LabError for what is not a file or not an ONNX model."""
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise LabError(f"{path} {what}", "name an .onnx file, such as those that 03 writes")
    if path.stat().st_size > external_data.LARGEST_GRAPH:  # perhaps one hole: not to be read to its end
        raise LabError(f"{path} is not an ONNX file: it is larger than a graph can be", "name the .onnx file itself")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's exceptions have changed their class from version to version
        raise LabError(f"{path} is not an ONNX file: {_first_line(error)}", "export it again, or name another") \
            from error
    if not model.graph.node and not model.graph.initializer:  # protobuf reads many texts as an empty message
        raise LabError(f"{path} is not an ONNX file: it holds no graph", "export it again, or name another")
    if problem := _fault(model):
        raise LabError(f"{path} is not a valid ONNX file: {problem}", "export it again, or name another")
    return model


def _fault(model: onnx.ModelProto) -> str | None:
    """What no program that looks at graphs could show: names that are not text, tensors without a type or a size.

    protobuf hands out bytes where a text is not UTF-8.
    """
    for node in model.graph.node:
        if not all(isinstance(name, str) for name in (node.name, node.op_type, node.domain, *node.input, *node.output)):
            return "a node has a name that is not text"
    texts = [text for entry in model.metadata_props for text in (entry.key, entry.value)]
    texts += [model.producer_name, model.producer_version, *(entry.domain for entry in model.opset_import)]
    if not all(isinstance(text, str) for text in texts):
        return "its metadata is not text"
    for tensor in tensors(model):
        if not isinstance(tensor.name, str):
            return "a tensor has a name that is not text"
        if tensor.data_type not in TensorProto.DataType.values() or tensor.data_type == TensorProto.UNDEFINED:
            return f"its tensor {tensor.name[:100]!r} is of no known type"
        if min(tensor.dims, default=1) < 0 or len(tensor.dims) > MOST_DIMS or elements(tensor) > MOST_ELEMENTS:
            return f"its tensor {tensor.name[:100]!r} has no size that a tensor can have"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def facts(path: str | Path, model: onnx.ModelProto) -> dict:
    """Identity, size and operators of a graph, ready for JSON."""
    path = Path(path)
    outside = external_data.check(path)
    files = [path, *sorted(outside)]
    return {
        "file": path.name, "sha256": sha256(path, outside), "size_bytes": sum(file.stat().st_size for file in files),
        "files": len(files), **identity(model), **weight_facts(model),
        "nodes": len(model.graph.node), "operators": dict(operators(model).most_common()),
    }


def identity(model: onnx.ModelProto) -> dict:
    """Opset, IR and what the metadata says; unknown is None."""
    notes = {entry.key: entry.value for entry in model.metadata_props}
    return {
        "ir_version": model.ir_version,
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "producer": " ".join(filter(None, [model.producer_name, model.producer_version])) or None,
        "part": notes.get("part"), "precision": notes.get("precision"), "verification": notes.get("verification"),
        "recipe": _recipe(notes.get("recipe")),
        "weights_sha256": notes.get("weights_sha256"),
        "versions": {key.removeprefix("version_"): value for key, value in notes.items()
                     if key.startswith("version_")},
    }


def _recipe(text: str | None) -> dict | None:
    """How 03 made the graph; None where nothing says so, or not in JSON that can be written again."""
    try:
        found = json.loads(text or "null")
        json.dumps(found, allow_nan=False)
        return found if isinstance(found, dict) else None
    except (ValueError, RecursionError):
        return None


def sha256(path: Path, outside: dict[Path, list]) -> str:
    """Over the graph, and over those parts of its sidecars (external_data.check) that hold its weights, in order."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    for sidecar in sorted(outside):
        with os.fdopen(external_data.open_file(sidecar), "rb") as file:
            for start, end in external_data.ranges(outside[sidecar]):
                for at in range(start, end, BLOCK):
                    file.seek(at)
                    digest.update(file.read(min(BLOCK, end - at)))
    return digest.hexdigest()


def tensors(model: onnx.ModelProto) -> list[TensorProto]:
    """The constants of the graph: initializers, and the values of Constant nodes."""
    inside = [attribute.t for node in model.graph.node if node.op_type == "Constant"
              for attribute in node.attribute if attribute.name == "value"]
    return [*model.graph.initializer, *inside]


def elements(tensor: TensorProto) -> int:
    """How many numbers a tensor holds."""
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def type_name(tensor: TensorProto) -> str:
    """float32, float16, int8, uint8, int4, ..."""
    name = TensorProto.DataType.Name(tensor.data_type)
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(name, name.lower())


def tensor_bytes(tensor: TensorProto) -> int:
    """Bytes of a tensor's numbers, wherever they are stored."""
    name = TensorProto.DataType.Name(tensor.data_type)
    if name == "STRING":
        return sum(map(len, tensor.string_data))
    bits = BITS.get(name) or 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return (elements(tensor) * bits + 7) // 8


def weight_facts(model: onnx.ModelProto) -> dict:
    """Bytes of the weights by data type, and the largest tensors."""
    by_type: Counter = Counter()
    for tensor in tensors(model):
        by_type[type_name(tensor)] += tensor_bytes(tensor)
    largest = sorted(model.graph.initializer, key=tensor_bytes, reverse=True)[:LARGEST]
    return {"weight_bytes": dict(by_type.most_common()),
            "largest_tensors": [{"name": tensor.name, "type": type_name(tensor), "shape": list(tensor.dims),
                                 "size_bytes": tensor_bytes(tensor)} for tensor in largest]}


def operators(model: onnx.ModelProto) -> Counter:
    """How many nodes of each type; those of another domain than ONNX's own carry it: com.microsoft.MatMulNBits."""
    return Counter(node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
                   for node in model.graph.node)


# Quantized weights ----------------------------------------------------------------------------------------------------

# Which named weights of a graph were quantized, which were left, and why: one row for each tensor worth asking about.
#
# What decides is what a weight meets: integers multiplied by integers, or numbers that are scaled back to float first.

WORTH_ASKING = 1024  # elements; smaller tensors are not weights to save on
# A constant goes through these on its way to the operator that computes with it.
ON_THE_WAY = {"Cast", "Transpose", "DequantizeLinear", "Unsqueeze", "Reshape", "Identity", "Constant"}
INTEGER = {"MatMulInteger": "int8", "ConvInteger": "int8", "QLinearMatMul": "int8", "QLinearConv": "int8",
           "DynamicQuantizeMatMul": "int8", "MatMulIntegerToFloat": "int8", "MatMulNBits": "blocks"}
SUFFIXES = ("_quantized", "_float16", "_Q4", "_Q8")
ROLES = ("_scale", "_scales", "_zero_point", "_zero_points")
SMALL = {"int8", "uint8", "int4", "uint4"}
KEPT = {  # operators without weights worth saving, and why no one quantizes them
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
    makers = {output: maker for maker in model.graph.node for output in maker.output}
    counts: Counter = Counter(node.op_type for node in model.graph.node if node.op_type in KEPT
                              and not (node.op_type == "MatMul" and constants & set(_sources(node, makers))))
    return [{"operator": name, "count": counts[name], "reason": KEPT[name]} for name in KEPT if counts[name]]


def _readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    readers = defaultdict(list)
    for node in model.graph.node:
        for name in set(node.input):
            readers[name].append(node)
    return readers


def _uses(name: str, readers: dict) -> list[str]:
    """Types of the operators that compute with a constant, looking through casts, transposes and scaling."""
    found, waiting, seen = [], [name], {name}
    while waiting:  # a graph of a stranger may be a circle, or have thousands of casts in a row
        for node in readers.get(waiting.pop(), []):
            if not _carries(node):
                found.append(node.op_type)
            elif node.output and node.output[0] not in seen:
                seen.add(node.output[0])
                waiting.append(node.output[0])
    return found


def _carries(node: onnx.NodeProto) -> bool:
    """Does a constant go through this node on its way? A Mul that gives a stored weight its scale is one, too."""
    return node.op_type in ON_THE_WAY or (node.op_type == "Mul" and "_weight" in node.name)


def _sources(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> list[str]:
    """The values behind a node's inputs, looking through what a constant goes through."""
    found = []
    for name in node.input:
        seen = set()
        while name not in seen and name in makers and _carries(makers[name]) and makers[name].input:
            seen.add(name)
            name = makers[name].input[0]
        found.append(name)
    return found


def _judge(kind: str, uses: list[str], dims: int, name: str) -> tuple[str, str]:
    """(state, reason)"""
    if any(use in INTEGER for use in uses):
        blocks = any(INTEGER.get(use) == "blocks" for use in uses)
        shared = ", shared with the lookup (Gather)" if "Gather" in uses else ""
        bits = 4 if name.endswith("_Q4") else 8
        return "quantized", (f"{bits} bits in blocks with a scale each; the kernel quantizes the activations" if blocks
                             else "8 bits times 8 bits in the product") + shared
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
