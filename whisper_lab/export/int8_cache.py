"""--optimize: cross caches in int8, the largest thing that a decoder reads for each token besides its weights.

The encoder rounds keys and values when it has made them, and writes their scales (caches.py). The decoder multiplies
them as they are: MatMulInteger has a kernel for one row of unsigned numbers and a signed matrix that streams past, in
which neither has a zero point. So a query is rounded to uint8 with its zero in the middle, and what that adds to every
score, MIDDLE times the sum of the keys, the encoder has found once and for all. Weights are never negative.

Every query, and every head of it, has a scale of its own: a recording's numbers do not depend on those beside it.
A row of weights is divided by its largest first: of attention that is spread over many positions little would be left.

Softmax stays a node of its own, so --alignment-heads finds the weights where it finds them in the plain graph.

Tried and left out: GroupQueryAttention (com.microsoft), which reads int8 caches too, and takes longer over them than
float attention takes over float32; weights of 16 bits, with no fewer errors.
"""

import numpy as np
import onnx_ir as ir

from whisper_lab import caches
from whisper_lab.export import graphs, naming

FLOAT, INT8, UINT8, INT32 = ir.DataType.FLOAT, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32
CONSTANTS = {"level": np.float32(1 / caches.LEVELS), "least": np.float32(caches.LEAST), "one": np.float32(1),
             "two": np.float32(2), "zero": np.int8(0), "middle": np.uint8(caches.MIDDLE),
             "byte": np.float32(1 / caches.BYTE), "no_weight": np.uint8(0), "last": np.array([-1]),
             "of_a_head": np.array([2, 3])}


class _Nodes:
    """Adds nodes to one graph: in front of a node, or at its end; constants are made when they are first asked for."""

    def __init__(self, model: ir.Model, before: ir.Node | None = None):
        self.model, self.before = model, before

    def constant(self, name: str) -> ir.Value:
        known = self.model.graph.initializers.get(f"int8_cache/{name}")
        return graphs.constant(self.model, f"int8_cache/{name}", CONSTANTS[name]) if known is None else known

    def add(self, op: str, inputs: list, name: str, dtype=FLOAT, **attributes) -> ir.Value:
        """The output of a new node; inputs: values, and names of CONSTANTS."""
        inputs = [self.constant(one) if isinstance(one, str) else one for one in inputs]
        if self.before is not None:
            return graphs.insert(self.model, self.before, op, inputs, name, dtype=dtype, **attributes)
        node = ir.node(op, inputs, attributes, name=name)
        node.outputs[0].name, node.outputs[0].type = name, ir.TensorType(dtype)
        self.model.graph.append(node)
        return node.outputs[0]

    def largest(self, x: ir.Value, axes: str, path: str) -> ir.Value:
        """The largest absolute value over `axes`."""
        return self.add("ReduceMax", [self.add("Abs", [x], f"{path}_abs"), axes], f"{path}_largest", keepdims=1)

    def rounded(self, x: ir.Value, unit: ir.Value, step: str, zero: str, path: str) -> ir.Value:
        """x / unit in steps of 8 bits, of the type of the constant `zero`, which 0 becomes."""
        return self.add("QuantizeLinear", [self.add("Div", [x, unit], f"{path}_units"), step, zero], f"{path}_rounded",
                        UINT8 if CONSTANTS[zero].dtype == np.uint8 else INT8)

    def product(self, one: ir.Value, other: ir.Value, path: str) -> ir.Value:
        """Of uint8 and int8, in float32."""
        return self.add("Cast", [self.add("MatMulInteger", [one, other], f"{path}_products", INT32)], f"{path}_cast",
                        to=FLOAT)


# The encoder writes ---------------------------------------------------------------------------------------------------

def write(model: ir.Model, config) -> None:
    """Let an encoder's graph write its cross caches in int8, and behind them what `caches.names` says."""
    nodes, outputs = _Nodes(model), {value.name: value for value in model.graph.outputs}
    made: dict[str, ir.Value] = {}
    for layer in range(config.decoder_layers):
        for what in ("key", "value"):
            name = f"present_{what}_cross_{layer}"
            made[name], made[f"present_{what}_scale_cross_{layer}"] = _round(
                nodes, outputs[name], what, layer)
        made[f"present_key_sum_cross_{layer}"] = _sum(nodes, made[f"present_key_cross_{layer}"], layer)
    hidden = model.graph.outputs[0]
    del model.graph.outputs[:]
    model.graph.outputs.append(hidden)
    for name in naming.encoder_outputs(config.decoder_layers, int8_caches=True)[1:]:
        made[name].name = name
        model.graph.outputs.append(made[name])


def _round(nodes: _Nodes, cache: ir.Value, what: str, layer: int) -> tuple[ir.Value, ir.Value]:
    """A cache in int8, and its scale, as `caches.to_int8`; keys are turned around, as the queries meet them."""
    path = f"decoder.layers.{layer}.encoder_attn/{what}"
    audio, heads, positions, width = cache.shape
    cache.name = f"{path}_float"
    if what == "key":
        cache.producer().attributes["perm"] = ir.AttrInt64s("perm", [0, 2, 3, 1])
        cache.shape = ir.Shape([audio, heads, width, positions])
    pairs = nodes.add("AveragePool", [cache], f"{path}_pairs", kernel_shape=[2, 1], strides=[2, 1],
                      pads=[0, 0, 1, 0], count_include_pad=1)  # beside a lone last one lies 0
    sums = nodes.add("Mul", [nodes.largest(pairs, "of_a_head", f"{path}_pairs"), "two"], f"{path}_sums")
    largest = nodes.add("Max", [nodes.largest(cache, "of_a_head", path), sums], f"{path}_largest_sum")
    step = nodes.add("Mul", [largest, "level"], f"{path}_step")
    step = nodes.add("Max", [step, "least"], f"{path}_at_least")
    small = nodes.rounded(cache, step, "one", "zero", path)
    scale = nodes.add("Mul", [step, "level" if what == "key" else "byte"], f"{path}_scale")
    small.shape, scale.shape = cache.shape, ir.Shape([audio, heads, 1, 1])
    return small, scale


def _sum(nodes: _Nodes, keys: ir.Value, layer: int) -> ir.Value:
    """MIDDLE times the sum of the keys over head_dim."""
    path = f"decoder.layers.{layer}.encoder_attn/key"
    audio, heads, width, positions = keys.shape
    middles = graphs.constant(nodes.model, f"{path}_middles", np.full((1, int(width)), caches.MIDDLE, np.uint8))
    made = nodes.product(middles, keys, f"{path}_sum")
    made.shape = ir.Shape([audio, heads, 1, positions])
    return made


# The decoder reads ----------------------------------------------------------------------------------------------------

def read(model: ir.Model, config) -> None:
    """Let a decoder's graph read cross caches as `write` writes them."""
    given = {value.name: value for value in model.graph.inputs}
    for name in caches.names("past", config.decoder_layers):
        given[name] = ir.Value(name=name, type=ir.TensorType(FLOAT))
        model.graph.inputs.append(given[name])
    for layer in range(config.decoder_layers):
        _take(given, layer)
        _attend(model, given, f"decoder.layers.{layer}.encoder_attn", layer)


def _take(given: dict[str, ir.Value], layer: int) -> None:
    """The types and shapes of one layer's caches. How many positions there are, the values say."""
    key, value = (given[f"past_{what}_cross_{layer}"] for what in ("key", "value"))
    audio, heads, positions, width = value.shape
    for node, index in [(use.node, use.idx) for use in key.uses() if use.node.op_type == "Shape"]:
        node.replace_input_with(index, value)
    key.type = value.type = ir.TensorType(INT8)
    key.shape = ir.Shape([audio, heads, width, positions])
    given[f"past_key_sum_cross_{layer}"].shape = ir.Shape([audio, heads, 1, positions])
    for what in ("key", "value"):
        given[f"past_{what}_scale_cross_{layer}"].shape = ir.Shape([audio, heads, 1, 1])


def _attend(model: ir.Model, given: dict[str, ir.Value], path: str, layer: int) -> None:
    """Scores and mixing of one attention in integers; between them Softmax stays."""
    found = {node.name: node for node in model.graph}
    scores, softmax, mixed = (found[f"{path}/{name}"] for name in ("MatMul", "Softmax", "MatMul_1"))
    key, total, key_scale, value, value_scale = (
        given[f"past_{what}_cross_{layer}"] for what in ("key", "key_sum", "key_scale", "value", "value_scale"))
    nodes, queries = _Nodes(model, scores), scores.inputs[0]
    largest = nodes.largest(queries, "last", f"{path}/query")  # 0: no score, whatever 0 / 0 is rounded to
    query = nodes.rounded(queries, largest, "level", "middle", f"{path}/query")
    products = nodes.product(query, key, f"{path}/scores")
    steps = nodes.add("Mul", [largest, key_scale], f"{path}/scores_scale")
    right = nodes.add("Mul", [nodes.add("Sub", [products, total], f"{path}/scores_sum"), steps],
                      f"{path}/scores_scaled")
    graphs.replace(scores.outputs[0], right)

    nodes, spread = _Nodes(model, mixed), softmax.outputs[0]
    largest = nodes.add("ReduceMax", [spread, "last"], f"{path}/weights_largest", keepdims=1)
    weights = nodes.rounded(spread, largest, "byte", "no_weight", f"{path}/weights")
    products = nodes.product(weights, value, f"{path}/mixed")
    steps = nodes.add("Mul", [largest, value_scale], f"{path}/mixed_scale")
    graphs.replace(mixed.outputs[0], nodes.add("Mul", [products, steps], f"{path}/mixed_scaled"))
