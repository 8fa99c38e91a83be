"""--optimize: cross caches in int8, the largest thing a decoder step reads after its weights (whisper-base: 37 MB).

The encoder finds the largest value of each channel over all positions of the recording it hears, so scales are exact
for every recording and nothing has to be calibrated. They leave as one more output, `present_scale_cross` [audio,
2 x layers, d_model] (key and value of layer 0, of layer 1, ...), and enter the decoder as `past_scale_cross`.

The decoder reads the int8 caches with GroupQueryAttention (com.microsoft). The operator's own scales have no batch
axis, so ours are applied outside: (q * k_scale) . k_int8 are the scores, (weights . v_int8) * v_scale the mixed values.

The operator is made for caches that grow, so it has outputs for them, `present_key_cross_i`, although no key is new
here. A runtime that gives these outputs the memory of the inputs saves a copy (int8_step.int8_step); any other pays
for the copy and gets the same numbers.

Limits of the operator: heads of a multiple of 8 channels; one recording at a time where it has several queries.
"""

import numpy as np
import onnx_ir as ir

from whisper_lab import names
from whisper_lab.export import graphs, naming
from whisper_lab.export.int8 import LEVELS

CONTRIB = "com.microsoft"
FLOAT, INT8, INT32, INT64 = ir.DataType.FLOAT, ir.DataType.INT8, ir.DataType.INT32, ir.DataType.INT64
FEW_ROWS = 12  # at most so many long rows, into which positions are folded before a channel's maximum is taken
SILENT = 1e-12  # a channel of zeros gets this for its largest value: 0 / 0 is NaN


def fits(config) -> bool:
    """Can GroupQueryAttention read this model's caches?"""
    return config.d_model // config.decoder_attention_heads % 8 == 0


# The encoder writes ---------------------------------------------------------------------------------------------------

def quantize_outputs(model: ir.Model, config) -> None:
    """Let an encoder graph write its cross caches in int8, and their scales as its last output."""
    outputs, scales = {value.name: value for value in model.graph.outputs}, []
    constants = {"axes": np.array([1]), "least": np.float32(SILENT), "levels": np.float32(LEVELS),
                 "one": np.float32(1), "zero": np.int8(0)}
    shared = {name: graphs.constant(model, f"cross_cache/{name}", np.asarray(array))
              for name, array in constants.items()}
    for name in naming.cache_names("present", "cross", config.decoder_layers):
        transpose = outputs[name].producer()
        reshape = transpose.inputs[0].producer()
        if not scales:
            shared |= _folds(model, reshape, config.d_model)
        scales.append(_quantize(model, reshape, shared))
        reshape.outputs[0].type = outputs[name].type = ir.TensorType(INT8)
    node = ir.node("Concat", scales, {"axis": 1}, name="cross_cache/scales")
    model.graph.insert_after(scales[-1].producer(), node)
    _as_scales(node.outputs[0], names.cross_scale("present"), outputs[name].shape[0], config)
    model.graph.sort()
    model.graph.outputs.append(node.outputs[0])


def _folds(model: ir.Model, before: ir.Node, width: int) -> dict[str, ir.Value]:
    """Two shapes, made once for all caches: positions [audio, P, d] as few long `rows`, and as the `columns` of one.

    P is known when the graph runs. It has to divide into the rows: as many as its largest divisor up to FEW_ROWS.
    """
    x = before.inputs[0]

    def insert(op: str, inputs: list, name: str, **attributes) -> ir.Value:
        return graphs.insert(model, before, op, inputs, f"cross_cache/{name}", dtype=INT64, **attributes)

    def number(*values: int) -> ir.Value:
        name = f"cross_cache/numbers_{'_'.join(map(str, values))}"
        known = model.graph.initializers.get(name)
        return graphs.constant(model, name, np.array(values)) if known is None else known

    counts = number(*range(1, FEW_ROWS + 1))
    positions = insert("Shape", [x], "positions", start=1, end=2)
    left = insert("Mod", [positions, counts], "left_over")  # 0 where so many rows take them all
    fitting = insert("Mul", [counts, insert("Sub", [number(1), insert("Min", [left, number(1)], "misfit")], "fits")],
                     "row_counts")
    rows = insert("ReduceMax", [fitting, number(0)], "row_count", keepdims=1)
    length = insert("Div", [positions, rows], "row_length")
    flat = insert("Mul", [length, number(width)], "row_width")
    return {"rows": insert("Concat", [number(0), rows, flat], "rows", axis=0),
            "columns": insert("Concat", [number(0), length, number(width)], "columns", axis=0)}


def _quantize(model: ir.Model, reshape: ir.Node, shared: dict[str, ir.Value]) -> ir.Value:
    """Quantize what `reshape` reads [audio, positions, d_model]; returns the scales [audio, 1, d_model].

    Two detours, because two operators of onnxruntime are slow here. QuantizeLinear is with a scale per channel: so Mul,
    and QuantizeLinear with scale 1. ReduceMax is over many short rows: so the positions are folded into a few long
    rows, and the maximum is taken twice (0.46 ms for 1500 x 512 instead of 2.05).
    """
    x, path = reshape.inputs[0], reshape.name.rpartition("/")[0]
    path = f"{path}/{x.name.rpartition('/')[0].rpartition('.')[2]}_int8"

    def insert(op: str, inputs: list, name: str, dtype=FLOAT, **attributes) -> ir.Value:
        return graphs.insert(model, reshape, op, inputs, f"{path}/{name}", dtype=dtype, **attributes)

    few = insert("Reshape", [insert("Abs", [x], "abs"), shared["rows"]], "few_long_rows")
    few = insert("ReduceMax", [few, shared["axes"]], "largest_of_few", keepdims=0)
    few = insert("Reshape", [few, shared["columns"]], "fewer_rows")
    largest = insert("ReduceMax", [few, shared["axes"]], "largest", keepdims=1)
    largest = insert("Max", [largest, shared["least"]], "at_least")
    steps = insert("Mul", [x, insert("Div", [shared["levels"], largest], "factor")], "steps")
    reshape.replace_input_with(0, insert("QuantizeLinear", [steps, shared["one"], shared["zero"]], "rounded", INT8))
    return insert("Div", [largest, shared["levels"]], "scale")


def _as_scales(value: ir.Value, name: str, audio, config) -> None:
    value.name, value.type = name, ir.TensorType(FLOAT)
    value.shape = ir.Shape([audio, 2 * config.decoder_layers, config.d_model])


# The decoder reads ----------------------------------------------------------------------------------------------------

class Int8Cross:
    """A decoder graph's int8 cross caches: inputs, scales, and the attention over them."""

    def __init__(self, model: ir.Model, config):
        """Add the input past_scale_cross, and what all layers share; before the first node of the graph."""
        self.model, self.heads = model, config.decoder_attention_heads
        self.caches = {value.name: value for value in model.graph.inputs if "_cross_" in value.name}
        any_cache = next(iter(self.caches.values()))
        scale = ir.Value(name="")
        _as_scales(scale, names.cross_scale("past"), any_cache.shape[0], config)
        model.graph.inputs.append(scale)
        self.first = model.graph[0]
        splits = self._shared("Split", [scale], "scales", 2 * config.decoder_layers, axis=1,
                              num_outputs=2 * config.decoder_layers)
        self.scales = dict(zip(self.caches, splits, strict=True))
        self._nothing_new(any_cache, config.d_model)
        self.one = graphs.constant(model, "cross_cache/one", np.ones(1, np.float32))

    def _nothing_new(self, any_cache: ir.Value, width: int) -> None:
        """What the operator asks for besides: that the caches are full, and no keys are to be added to them."""
        rows = self._shared("Shape", [any_cache], "rows", dtype=INT64, start=0, end=1)
        positions = self._shared("Cast", [self._shared("Shape", [any_cache], "positions", dtype=INT64, start=2, end=3)],
                                 "total", dtype=INT32, to=INT32)
        before_last = graphs.constant(self.model, "cross_cache/last", np.array([1], np.int32))
        self.lengths = self._shared("Expand", [self._shared("Sub", [positions, before_last], "length", dtype=INT32),
                                               rows], "lengths", dtype=INT32)
        nothing = graphs.constant(self.model, "cross_cache/nothing", np.array([0, width]))
        shape = self._shared("Concat", [rows, nothing], "no_keys_shape", dtype=INT64, axis=0)
        self.no_keys = self._shared("ConstantOfShape", [shape], "no_keys", dtype=FLOAT,
                                    value=ir.tensor(np.zeros(1, np.float32)))
        self.total = positions

    def _shared(self, op: str, inputs: list, name: str, outputs: int = 1, dtype=FLOAT, **attributes):
        return graphs.insert(self.model, self.first, op, inputs, f"cross_cache/{name}", outputs, dtype=dtype,
                             **attributes)

    def attend(self, path: str, query: ir.Value, before: ir.Node, with_weights: bool) -> tuple[ir.Value, ir.Value]:
        """query [audio, beams x sequence, d_model] -> mixed values of that shape, and the weights after softmax.

        The weights [audio, heads, beams x sequence, positions] are made where --alignment-heads needs them.
        """
        names = [f"past_{what}_cross_{path.split('.')[2]}" for what in ("key", "value")]
        key_scale, value_scale = (self.scales[name] for name in names)
        scaled = graphs.insert(self.model, before, "Mul", [query, key_scale], f"{path}/key_scale", dtype=FLOAT)
        inputs = [scaled, self.no_keys, self.no_keys, *(self.caches[name] for name in names), self.lengths, self.total,
                  None, None, None, None, None, self.one, self.one]
        mixed, *presents = graphs.insert(
            self.model, before, "GroupQueryAttention", inputs, f"{path}/GroupQueryAttention", 3 + with_weights, CONTRIB,
            FLOAT, num_heads=self.heads, kv_num_heads=self.heads, scale=1.0, causal=0, k_quant_type="PER_TENSOR",
            v_quant_type="PER_TENSOR", kv_cache_bit_width=8, **({"qk_output": 2} if with_weights else {}))
        for name, present in zip(names, presents, strict=False):
            cache = self.caches[name]
            cache.type = ir.TensorType(INT8)
            present.name, present.shape, present.type = name.replace("past", "present", 1), cache.shape, cache.type
            self.model.graph.outputs.append(present)
        return (graphs.insert(self.model, before, "Mul", [mixed, value_scale], f"{path}/value_scale", dtype=FLOAT),
                presents[-1])


# The same in NumPy, for the gates -------------------------------------------------------------------------------------

def pack(caches: list[np.ndarray]) -> list[np.ndarray]:
    """Float caches [audio, heads, positions, head_dim] -> int8 ones, and the scales [audio, 2 x layers, d_model]."""
    scales = [np.maximum(np.abs(cache).max(axis=2, keepdims=True), SILENT) / np.float32(LEVELS) for cache in caches]
    small = [np.rint(cache / scale).astype(np.int8) for cache, scale in zip(caches, scales, strict=True)]
    return [*small, np.concatenate([scale.reshape(len(scale), 1, -1) for scale in scales], axis=1)]


def unpack(packed: list[np.ndarray]) -> list[np.ndarray]:
    """What the int8 caches stand for, in float32: the inverse of `pack`."""
    *caches, scales = packed
    audio, heads, _, width = caches[0].shape
    return [cache * scales[:, i].reshape(audio, heads, 1, width) for i, cache in enumerate(caches)]
