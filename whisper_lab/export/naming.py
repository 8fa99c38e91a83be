"""Every name in a graph: inputs, outputs, dimensions, and nodes called after the module they come from.

The names of its files are in whisper_lab/names.py, where the runtime finds them.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable

import onnx_ir as ir

from whisper_lab import caches

PLACE = re.compile(r"((?:encoder|decoder|proj_out)[\w.]*)/(?:Add|MatMul|LayerNormalization|Gelu|Conv|Gather)(_\d+)?")
INNER = ("_attn", "coder")  # modules whose last value is not their output


def cache_names(side: str, kind: str, layers: int) -> list[str]:
    """`past` or `present`, `self` or `cross` -> past_key_self_0, past_value_self_0, past_key_self_1, ..."""
    return [f"{side}_{what}_{kind}_{layer}" for layer in range(layers) for what in ("key", "value")]


def encoder_outputs(layers: int, int8_caches: bool = False) -> list[str]:
    """The hidden states first (the end of the encoder in Netron), then the cross caches; `layers` of the decoder."""
    more = caches.names("present", layers) if int8_caches else []
    return ["encoder_hidden_states", *cache_names("present", "cross", layers), *more]


def decoder_inputs(layers: int, int8_caches: bool = False) -> list[str]:
    """The new tokens, the self caches, the cross caches."""
    more = caches.names("past", layers) if int8_caches else []
    return ["input_ids", *cache_names("past", "self", layers), *cache_names("past", "cross", layers), *more]


def decoder_outputs(layers: int, alignment: bool = False) -> list[str]:
    """The logits, the longer self caches, with --alignment-heads the cross-attention weights."""
    return ["logits", *cache_names("present", "self", layers), *(["cross_attention"] if alignment else [])]


def module_outputs(values: Iterable[str]) -> dict[str, str]:
    """Module -> the last of its values, which is its output; `values` of a named graph in the order of computation."""
    found: dict[str, str] = {}
    for value in values:
        match = PLACE.fullmatch(value)
        if match and not match[1].endswith(INNER):
            found.pop(match[1], None)  # the order is that of the outputs
            found[match[1]] = value
    return found


def name_after_modules(model) -> None:
    """Rename an onnx_ir.Model's nodes and values in place: `encoder.layers.0.self_attn.q_proj/MatMul`.

    The exporter notes each node's module in its metadata; the notes (with paths and stack traces) are then removed.
    A value is called as the node that makes it; constants without a name become `constants.0`, `constants.1`, ...
    """
    kept = {value.name for value in [*model.graph.inputs, *model.graph.outputs]}
    used: Counter = Counter()
    for node in model.graph:
        name = f"{'shapes' if _is_size(node) else _module_path(node)}/{node.op_type}"
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name] - 1}"
        node.metadata_props.clear()
        node.doc_string = None
        for i, value in enumerate(node.outputs):
            value.metadata_props.clear()
            if value.name not in kept:
                value.name = node.name if i == 0 else f"{node.name}_{i}"
    _name_constants(model.graph)


def name_positions(model) -> None:
    """Call the encoder's positions `positions`, as the decoder does, and `heard` those that the sound has itself.

    The exporter has `(frames - 1)//2 + 1` for these, and adds a Min to it for the others.
    """
    for value in [*(value for node in model.graph for value in node.outputs), *model.graph.outputs]:
        for axis, size in enumerate(value.shape or ()):
            if "frames" in str(getattr(size, "value", "")) and "//" in str(size.value):
                value.shape[axis] = "positions" if "Min" in str(size.value) else "heard"


def _is_size(node) -> bool:
    """Arithmetic with a single whole number: how long something is, computed inside a module but no value of it."""
    made = node.outputs[0]
    return node.op_type in ("Add", "Sub", "Mul", "Div") and made.shape is not None and len(made.shape) == 0 \
        and made.dtype == ir.DataType.INT64


def _module_path(node) -> str:
    scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    modules = [scope for scope in scopes[:-1] if scope and not scope.startswith("_")]
    return modules[-1] if modules else "shapes"  # sizes read from the inputs belong to no module


def _name_constants(graph) -> None:
    nameless = [value for name, value in graph.initializers.items() if name.startswith("val_")]
    for i, value in enumerate(nameless):
        value.name = f"constants.{i}"
    for value in [*graph.initializers.values(), *graph.inputs, *graph.outputs]:
        value.metadata_props.clear()
    for value in graph.initializers.values():
        value.const_value.name = value.name
