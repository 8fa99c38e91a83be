"""--optimize: a second int8 pair with onnxruntime's own fused operators. Faster, but a graph to run, not to study.

Each attention becomes one MultiHeadAttention node (com.microsoft), which never writes the scores of all heads against
all positions to memory. The float32 graphs are fused, and then quantized as the plain pair is: weights and self caches
are the same, and one runtime runs both. The cross caches become int8 (int8_cache.py), read by GroupQueryAttention;
where the heads have a width that this operator does not take, they stay float32.

Measured on whisper-base (random weights), two cores of an EPYC with AVX512-VNNI, interleaved: 2.65 ms a token plain,
2.57 fused, 2.04 with int8 cross caches (four recordings at once 5.90, 5.78, 3.80; five beams 4.73, 4.55, 4.18); on
one thread 3.99, 4.08, 2.86. The logits' error against float32 is that of the plain pair: 0.0242 and 0.0244.

Tried and left out: MatMulNBits with 8 bits in blocks of 128 for the decoder's linear layers (11.63 ms a token against
11.63 of DynamicQuantizeMatMul on a loaded EPYC with VNNI: no gain, a larger file).
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from whisper_lab.export import graphs, int8_cache, torch_export
from whisper_lab.export.int8_cache import CONTRIB

FLOAT, INTEGER = ir.DataType.FLOAT, ir.DataType.INT64


def write_fused(source: Path, target: Path, config) -> tuple[Path, str]:
    """A float32 graph with fused attention and int8 cross caches, beside `target`; its path, and what was done."""
    model = graphs.load(source)
    with torch_export.quiet():
        count = fuse_attention(model, config, int8_cross=True)
    fused = target.with_name(f"fused_{target.name}")
    graphs.save(model, fused)
    return fused, f"{count} attentions fused, "


def fuse_attention(model: ir.Model, config, int8_cross: bool = False) -> int:
    """Replace scores, softmax and mixing of every attention by one node; returns how many were replaced.

    int8_cross: the graph's cross caches become int8, where the model's heads allow it.

    query, key and value of self-attention are [batch, sequence, d_model], the caches [batch, heads, past, head_dim].
    The scale is 1, because q_proj (or the Mul after it) holds the scaling already.
    """
    attentions = [node.name.rpartition("/")[0] for node in model.graph if node.name.endswith("attn/Softmax")]
    small, is_encoder = int8_cross and int8_cache.fits(config), model.graph.inputs[0].name == "input_features"
    fuse = _Fusion(model, int8_cache.Int8Cross(model, config) if small and not is_encoder else None)
    for path in attentions:
        if is_encoder:
            fuse.plain(path, config.encoder_attention_heads)
        elif path.endswith("encoder_attn"):
            fuse.cross(path, config.decoder_attention_heads)
        else:
            fuse.cached(path, config.decoder_attention_heads)
    if small and is_encoder:
        int8_cache.quantize_outputs(model, config)
    model.opset_imports[CONTRIB] = 1
    RemoveUnusedNodesPass()(model)
    graphs.drop_unused(model)
    return len(attentions)


class _Fusion:
    """The three kinds of attention; `path` is the module's, such as encoder.layers.0.self_attn."""

    def __init__(self, model: ir.Model, int8_cross: int8_cache.Int8Cross | None):
        self.model, self.mask, self.int8_cross = model, None, int8_cross
        self.nodes = {node.name: node for node in model.graph}

    def plain(self, path: str, heads: int) -> None:
        """All positions see all others; in the keys is what each counts."""
        self._insert(path, heads, [self._query(path), self._value(f"{path}/Add"),
                                   self._value(f"{path}.v_proj/Add")])

    def cached(self, path: str, heads: int) -> None:
        """New tokens see the cache and those before them; the node also makes the longer caches."""
        softmax = self.nodes[f"{path}/Softmax"]
        scores = softmax.inputs[0].producer()
        layer = path.split(".")[2]
        caches = {value.name: value for value in self.model.graph.outputs}
        key, value = (caches[f"present_{what}_self_{layer}"] for what in ("key", "value"))
        inputs = [self._query(path), self._value(f"{path}.k_proj/MatMul"), self._value(f"{path}.v_proj/Add"),
                  None, None, self._bias(scores.inputs[1], scores),
                  key.producer().inputs[0], value.producer().inputs[0]]
        _, *presents = self._insert(path, heads, inputs, outputs=3)
        for old, new in zip((key, value), presents, strict=True):
            shape, dtype, name = old.shape, old.type, old.name
            old.name = f"{name}.replaced"
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            new.name, new.shape, new.type = name, shape, dtype

    def cross(self, path: str, heads: int) -> None:
        """Tokens see the sound: query folded to [audio, beams x sequence, d_model], keys as the encoder wrote them."""
        out, mixed = self.nodes[f"{path}.out_proj/MatMul"], self.nodes[f"{path}/MatMul_1"]
        key = self.nodes[f"{path}/MatMul"].inputs[1].producer().inputs[0]
        query = self._query(path)
        width = graphs.constant(self.model, f"{path}/fold_width", np.array([-1, int(query.shape[-1])], np.int64))
        rows = graphs.insert(self.model, out, "Shape", [key], f"{path}/fold_rows", dtype=INTEGER, start=0, end=1)
        shape = graphs.insert(self.model, out, "Concat", [rows, width], f"{path}/fold_shape", dtype=INTEGER, axis=0)
        folded = graphs.insert(self.model, out, "Reshape", [query, shape], f"{path}/fold", dtype=FLOAT)
        if self.int8_cross is None:
            fused, *_ = self._insert(path, heads, [folded, key, mixed.inputs[1]], connect=False)
        else:
            fused = self._cross_int8(path, folded, out)
        like = graphs.insert(self.model, out, "Shape", [query], f"{path}/unfold_shape", dtype=INTEGER)
        out.replace_input_with(0, graphs.insert(self.model, out, "Reshape", [fused, like], f"{path}/unfold",
                                                dtype=FLOAT))

    def _cross_int8(self, path: str, query: ir.Value, out: ir.Node) -> ir.Value:
        weights = self.nodes[f"{path}/Softmax"].outputs[0]
        others = [use for use in weights.uses() if use.node.name != f"{path}/MatMul_1"]  # of --alignment-heads
        before = others[0].node if others else out
        fused, ours = self.int8_cross.attend(path, query, before, bool(others))
        for node, index in others:
            node.replace_input_with(index, ours)
        return fused

    def _query(self, path: str) -> ir.Value:
        scaled = self.nodes.get(f"{path}/Mul")  # there where the scaling could not be folded into q_proj
        return scaled.outputs[0] if scaled is not None else self._value(f"{path}.q_proj/Add")

    def _value(self, name: str) -> ir.Value:
        return self.nodes[name].outputs[0]

    def _bias(self, mask: ir.Value, before: ir.Node) -> ir.Value:
        """[sequence, past + sequence] -> [1, 1, sequence, past + sequence], once for all layers."""
        if self.mask is None:
            axes = graphs.constant(self.model, "decoder/mask_axes", np.array([0, 1], np.int64))
            self.mask = graphs.insert(self.model, before, "Unsqueeze", [mask, axes], "decoder/mask", dtype=FLOAT)
        return self.mask

    def _insert(self, path: str, heads: int, inputs: list, outputs: int = 1, connect: bool = True) -> list[ir.Value]:
        out = self.nodes[f"{path}.out_proj/MatMul"]
        before = self.nodes[f"{path}/Softmax"] if outputs > 1 else out  # its caches are read from there on
        made = graphs.insert(self.model, before, "MultiHeadAttention", inputs, f"{path}/MultiHeadAttention", outputs,
                             CONTRIB, FLOAT, num_heads=heads, scale=1.0)
        made = made if isinstance(made, list) else [made]
        if connect:
            out.replace_input_with(0, made[0])
        return made
