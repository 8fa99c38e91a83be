"""Gates on what a graph is made of: nothing stored twice, nothing left large, every node of the right kind."""

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from whisper_lab.export import blocks, convolution, graphs, int8, naming, outliers
from whisper_lab.export.gates import Gate, below

# Bytes of the matrices against float32; int4 has its embedding in 8 bits. The rest of a file (fixed_bytes; names and
# shapes, about 300 bytes a node) is nothing in whisper-base and much in a model of a few megabytes.
# Measured for int8, encoder and decoder: base 0.262 and 0.255, nano 0.271 and 0.269.
RATIO = {"fp32": 1.0, "fp16": 0.502, "int8": 0.253, "int4": 0.253}
BYTES_PER_NODE = 330
# The operator that multiplies by quantized weights; "blocks": in the optimized decoder.
QUANTIZED = {"int8": "MatMulInteger", "int4": "MatMulNBits", "blocks": "MatMulNBits"}


def check(path: Path, part: str, precision: str, config, fp32_bytes: int, excluded: int = 0,
          alignment: bool = False, half_operators: bool = False, optimized: bool = False) -> list[Gate]:
    """All structure gates of one graph. `excluded`: linear layers that --int8-exclude kept in float32."""
    model = graphs.load(path)
    in_blocks = part == "decoder" and (optimized or precision == "int4")
    found = [*_valid(path, part), *_contract(model, part, config, alignment, optimized),
             *_counts(model, part, config), *_tied(model, part, config),
             *_linear_layers(model, part, "blocks" if in_blocks else precision, config, excluded, half_operators,
                             optimized)]
    found += _fused(model, part, config) if optimized else []
    size, rest = graphs.size(path), fixed_bytes(part, config) + BYTES_PER_NODE * len(model.graph)
    ratio = RATIO[precision] + (1 / blocks.size(config.d_model) if in_blocks else 0)  # float32 scales beside float32
    limit = ratio + rest / fp32_bytes + 3 * excluded / linear_layers(part, config)
    return [*found, below("size against fp32", size / fp32_bytes, limit, f"{size} of {fp32_bytes} bytes", part)]


def vectors(model: ir.Model) -> dict[str, np.ndarray]:
    """Name -> every bias, every LayerNorm weight and the channels for the thinned rest, of a float32 graph."""
    ours = (".bias", ".weight", ".last_channels")
    return {name: value.const_value.numpy().copy() for name, value in model.graph.initializers.items()
            if len(value.shape) == 1 and value.dtype == ir.DataType.FLOAT and name.endswith(ours)}


def kept(path: Path, part: str, right: dict[str, np.ndarray]) -> list[Gate]:
    """Quantization leaves biases and LayerNorms as they are: a lost one drowns in its noise, so they are looked up.

    A value may be multiplied by a power of two: what smoothing moves from an activation into the next weight. A layer
    in front of one with outlier channels has these last.
    """
    model = graphs.load(path)
    right = right | _in_order(model, right)
    found = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()
             if value.dtype == ir.DataType.FLOAT and len(value.shape) == 1}
    wrong = [name for name, array in right.items()
             if not _scaled(array, found.get(name, found.get(f"{name}_smoothed")))]
    seen = f"{len(right) - len(wrong)} of {len(right)} as in float32" + (f"; first not: {wrong[0]}" if wrong else "")
    return [Gate("biases and LayerNorms", not wrong, len(wrong), 0, seen, part)]


def _in_order(model: ir.Model, right: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The biases whose channels the graph has in another order, the one that its recipe says, or apart: not those in
    front of a layer whose channels are ordered while the graph runs."""
    split = json.loads(model.metadata_props.get("recipe", "{}")).get("outliers", {})
    running, apart, found = {node.name for node in model.graph}, made_apart(model), {}
    for layer, channels in split.items():
        front = outliers.in_front(layer)
        name = f"{front}.bias"
        if name not in right or outliers.gather_of(layer) in running:
            continue
        found[name] = right[name][outliers.loud_last(channels, len(right[name]))]
        if front in apart:
            found[name], found[f"{outliers.apart(front)}.bias"] = np.split(found[name], [-len(channels)])
    return found


def made_apart(model: ir.Model) -> list[str]:
    """The layers whose outlier channels are made by a product of their own: outliers.make_apart."""
    split = json.loads(model.metadata_props.get("recipe", "{}")).get("outliers", {})
    nodes = {node.name for node in model.graph}
    fronts = [outliers.in_front(layer) for layer in split]
    return [front for front in fronts if f"{outliers.apart(front)}/Gelu" in nodes]


def _scaled(right: np.ndarray, test: np.ndarray | None) -> bool:
    if test is None or test.shape != right.shape or not np.isfinite(test).all():
        return False
    nonzero = right != 0
    factors = test[nonzero] / right[nonzero]
    return bool((test[~nonzero] == 0).all() and (factors > 0).all() and (np.frexp(factors)[0] == 0.5).all())


def fixed_bytes(part: str, config) -> int:
    """Bytes that do not shrink: biases and LayerNorm weights, a scale and a zero point per column, positions."""
    d, encoder = config.d_model, part == "encoder"
    layers, inner = (config.encoder_layers, config.encoder_ffn_dim) if encoder else (
        config.decoder_layers, config.decoder_ffn_dim)
    vectors = layers * ((8 if encoder else 12) * d + inner) + (4 * d + config.decoder_layers * d if encoder else 2 * d)
    columns = layers * ((5 if encoder else 7) * d + inner) + (
        2 * d * (1 + config.decoder_layers) if encoder else config.vocab_size)
    positions = config.max_source_positions if encoder else config.max_target_positions
    return 4 * vectors + 5 * columns + positions * d


def _equal(name: str, part: str, seen, expected) -> Gate:
    return Gate(name, seen == expected, None, None, f"{seen}" if seen == expected else f"{seen}, not {expected}", part)


def _valid(path: Path, part: str) -> list[Gate]:
    try:
        onnx.checker.check_model(str(path), full_check=True)
        problem = "yes"
    except Exception as error:  # the checker raises several unrelated types
        problem = str(error).strip().splitlines()[0]
    return [_equal("valid ONNX", part, problem, "yes")]


def _contract(model: ir.Model, part: str, config, alignment: bool, int8_caches: bool) -> list[Gate]:
    """Opset, IR version, names of inputs and outputs and of their dimensions, type of the cross caches."""
    layers = config.decoder_layers
    names = ([["input_features"], naming.encoder_outputs(layers, int8_caches)] if part == "encoder" else
             [naming.decoder_inputs(layers, int8_caches), naming.decoder_outputs(layers, alignment)])
    values = {value.name: str(value.dtype) for value in [*model.graph.inputs, *model.graph.outputs]}
    types = {values.get(name) for side in ("past", "present") for name in naming.cache_names(side, "cross", layers)
             if side == ("present" if part == "encoder" else "past")}
    seen = [[value.name for value in values] for values in (model.graph.inputs, model.graph.outputs)]
    dims = {str(dim.value) for value in model.graph.inputs for dim in value.shape if isinstance(dim, ir.SymbolicDim)}
    free = {"batch", "frames"} if part == "encoder" else {"batch", "sequence", "past", "audio", "positions"}
    return [_equal("opset and IR version", part, (model.opset_imports.get(""), model.ir_version),
                   (graphs.OPSET, graphs.IR_VERSION)),
            Gate("inputs and outputs", seen == names, None, None,
                 "as agreed" if seen == names else f"{seen}, not {names}", part),
            _equal("cross caches", part, types, {"INT8" if int8_caches else "FLOAT"}),
            _equal("free dimensions", part, sorted(dims), sorted(free))]


def _counts(model: ir.Model, part: str, config) -> list[Gate]:
    """One LayerNormalization and one Gelu where the architecture has one: nothing taken apart, nothing lost."""
    types = graphs.node_types(model)
    if part == "encoder":
        # two convolutions; the optimized pair makes outlier channels apart
        norms, gelus = 2 * config.encoder_layers + 1, config.encoder_layers + 2 + len(made_apart(model))
    else:
        norms, gelus = 3 * config.decoder_layers + 1, config.decoder_layers
    checks = [_equal("LayerNormalization nodes", part, types["LayerNormalization"], norms)]
    if config.activation_function == "gelu":
        checks.append(_equal("Gelu nodes", part, types["Gelu"], gelus))
    return checks


def _fused(model: ir.Model, part: str, config) -> list[Gate]:
    """In the optimized pair no self-attention is left in pieces; the cross-attention is, over int8 caches; and of the
    convolutions the first."""
    types = graphs.node_types(model)
    expected = (config.encoder_layers, 0) if part == "encoder" else (config.decoder_layers, config.decoder_layers)
    return [_equal("fused attentions, and Softmax left", part, (types["MultiHeadAttention"], types["Softmax"]),
                   expected), _equal("convolutions left", part, types["Conv"], int(part == "encoder"))]


def _tied(model: ir.Model, part: str, config) -> list[Gate]:
    """The token embedding is stored once, in whatever type, and not transposed beside itself."""
    if part == "encoder":
        return []
    copies = [name for name, value in model.graph.initializers.items()  # also cut into blocks, or transposed
              if config.vocab_size in value.shape and math.prod(value.shape) == config.d_model * config.vocab_size]
    return [Gate("embedding stored once", len(copies) == 1, None, None, ", ".join(copies) or "none found", part)]


def linear_layers(part: str, config) -> int:
    """Weight MatMuls: encoder 6 a layer (q k v out, fc1 fc2) and the cross caches; decoder 8 and the logits."""
    if part == "encoder":
        return 6 * config.encoder_layers + 2 * config.decoder_layers
    return 8 * config.decoder_layers + 1


def _quantized(model: ir.Model, part: str, precision: str, expected: int, caches: int) -> list[Gate]:
    """So many linear layers are quantized, each by the operator of its precision; no other node quantizes but those at
    int8 caches, two for each layer. `caches`: layers that have those."""
    types, kind = graphs.node_types(model), QUANTIZED[precision]
    sums = caches if part == "encoder" else 0  # of the keys, by MatMulInteger too
    found = [_equal("quantized linear layers", part, types[kind] - sums, expected),
             _equal("nodes that unpack weights at run time", part, types["DequantizeLinear"], 0),
             _equal("nodes that round in 8 bits, besides linear layers", part, types["QuantizeLinear"], 2 * caches)]
    if part == "decoder":
        head = {node.op_type for node in model.graph if node.name.startswith("proj_out/")} & {*QUANTIZED.values()}
        found.append(_equal("logits in 8 bits", part, head, {kind}))
    return [*found, _overflow(model, part)] if kind == QUANTIZED["int8"] else found


def _overflow(model: ir.Model, part: str) -> Gate:
    """No two products pass 16 bits, in which x86 without VNNI adds them, whatever the activations are: int8.fit. On a
    processor that adds in 32 bits nothing else would show it."""
    largest = {node.name: int(int8.largest_pairs(node.inputs[1].const_value.numpy()).max(initial=0))
               for node in model.graph if node.op_type == "MatMulInteger" and node.inputs[1].is_initializer()}
    worst = max(largest, key=largest.get, default=None)
    seen = "no layer" if worst is None else f"{worst} has the largest pair of weights"
    return below("products in 16 bits", largest.get(worst, 0), int8.PAIR, seen, part)


def _linear_layers(model: ir.Model, part: str, precision: str, config, excluded: int,
                   half_operators: bool, int8_caches: bool) -> list[Gate]:
    """Each linear layer computes in the type that the precision promises; `blocks`: the optimized decoder's."""
    expected, floats = linear_layers(part, config), [node.name for node in graphs.weight_matmuls(model)]
    if precision in QUANTIZED:
        more = len(made_apart(model)) + len(convolution.PRODUCTS) * (part == "encoder" and int8_caches)
        return [_equal("float MatMul on a weight", part, len(floats), excluded),
                *_quantized(model, part, precision, expected + more - excluded,
                            config.decoder_layers if int8_caches else 0)]
    checks = [_equal("MatMul on a weight", part, len(floats), expected)]
    if precision == "fp16":
        wide = [name for name, value in model.graph.initializers.items()
                if value.dtype == ir.DataType.FLOAT and len(value.shape) > 1]
        checks.append(_equal("matrices in float32", part, wide, []))
    if half_operators:
        halves = sum(node.inputs[1].dtype == ir.DataType.FLOAT16 for node in graphs.weight_matmuls(model))
        checks.append(_equal("linear layers computed in float16", part, halves, expected))
    return checks
