"""--optimize: a second int8 pair with onnxruntime's own fused operators. Faster, but a graph to run, not to study.

Each self-attention becomes one MultiHeadAttention node (com.microsoft), which never writes the scores of all heads
against all positions to memory; the cross-attention reads caches of a quarter of the size (int8_cache.py); outlier
channels are made apart from the others, so that nothing has to copy these (outliers.make_apart); the second convolution
becomes products in 8 bits (convolution.py). The float32 graphs are changed so, and then quantized: the encoder as the
plain pair's is, the decoder in blocks (blocks.py). The caches say of themselves what they are, so one runtime runs both
pairs.

What that does to a token, after a short window, a whole one and of several recordings: benchmarks/time_spent.py.
"""

from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from whisper_lab.export import blocks, convolution, graphs, int8, int8_cache, outliers, torch_export
from whisper_lab.export.blocks import CONTRIB

FLOAT = ir.DataType.FLOAT


def write_fused(source: Path, target: Path, config) -> tuple[Path, str]:
    """A float32 graph with fused attention, beside `target`; its path, and what was done."""
    model = graphs.load(source)
    with torch_export.quiet():
        count = fuse_attention(model, config)
        if is_encoder(model):
            outliers.make_apart(model)
            convolution.as_products(model)
            int8_cache.write(model, config)
        else:
            int8_cache.read(model, config)
        without_unused(model)
    fused = target.with_name(f"fused_{target.name}")
    graphs.save(model, fused)
    return fused, f"{count} attentions fused, cross caches in int8, "


def without_unused(model: ir.Model) -> None:
    """Remove what no output needs any more."""
    RemoveUnusedNodesPass()(model)
    graphs.drop_unused(model)


def is_encoder(model: ir.Model) -> bool:
    """Whether a graph hears sound, or reads caches."""
    return model.graph.inputs[0].name == "input_features"


def to_blocks(source: Path, target: Path, excluded: list[str], config) -> str:
    """The decoder of the pair, its weights of 8 bits in blocks; returns what was quantized, in words."""
    block = blocks.size(config.d_model)
    with torch_export.quiet():
        blocks.quantize(source, target, (blocks.BITS, block, excluded))
    done = int8.shrink_rest(target, share=blocks.share_embedding)
    return f"{done}, in blocks of {block}"


def fuse_attention(model: ir.Model, config) -> int:
    """Replace scores, softmax and mixing of every self-attention by one node; returns how many were replaced.

    query, key and value are [batch, sequence, d_model], the caches [batch, heads, past, head_dim]. The scale is 1,
    because q_proj (or the Mul after it) holds the scaling already.
    """
    fuse = _Fusion(model)
    attentions = [node.name.rpartition("/")[0] for node in model.graph if node.name.endswith("self_attn/Softmax")]
    for path in attentions:
        if is_encoder(model):
            fuse.plain(path, config.encoder_attention_heads)
        else:
            fuse.cached(path, config.decoder_attention_heads)
    model.opset_imports[CONTRIB] = 1
    return len(attentions)


class _Fusion:
    """The two kinds of self-attention; `path` is the module's, such as encoder.layers.0.self_attn."""

    def __init__(self, model: ir.Model):
        self.model, self.mask = model, None
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

    def _insert(self, path: str, heads: int, inputs: list, outputs: int = 1) -> list[ir.Value]:
        out = self.nodes[f"{path}.out_proj/MatMul"]
        before = self.nodes[f"{path}/Softmax"] if outputs > 1 else out  # its caches are read from there on
        made = graphs.insert(self.model, before, "MultiHeadAttention", inputs, f"{path}/MultiHeadAttention", outputs,
                             CONTRIB, FLOAT, num_heads=heads, scale=1.0)
        made = made if isinstance(made, list) else [made]
        out.replace_input_with(0, made[0])
        return made
