"""--sensitivity: which layer pays for int8? Quantize one at a time, measure the KL divergence of the logits, rank.

A cost near zero says: int8 is free here. The layers at the top are the first candidates for --int8-exclude.
"""

from pathlib import Path

import numpy as np

from whisper_lab import console, files
from whisper_lab.export import graphs, int8, trace
from whisper_lab.export.pair import GraphPair
from whisper_lab.tokens import log_softmax

SHOWN = 25  # bars


def scan(fp32: dict[str, Path], folder: Path, runtime, sounds: list, threads: int | None,
         reduce_range: bool) -> list[dict]:
    """[{"part", "layer", "kl_divergence"}] in nats, dearest first; mean over PyTorch's own tokens on all sounds."""
    folder.mkdir()
    scores = []
    work = [(part, layer) for part, path in fp32.items() for layer in layers(path)]
    for part, layer in console.progress(work, description="sensitivity", unit="layer"):
        target = folder / f"{part}.onnx"
        quantize_only(fp32[part], target, layer, reduce_range)
        pair = GraphPair(*(fp32 | {part: target}).values(), threads=threads, like=runtime)
        scores.append({"part": part, "layer": layer.rpartition("/")[0], "kl_divergence": divergence(pair, sounds)})
    return sorted(scores, key=lambda score: -score["kl_divergence"])


def layers(path: Path) -> list[str]:
    """What can be quantized alone: every weight MatMul, every convolution."""
    model = graphs.load(path)
    products = graphs.weight_matmuls(model)
    return [node.name for node in model.graph if node.op_type == "Conv" or node in products]


def quantize_only(source: Path, target: Path, layer: str, reduce_range: bool) -> None:
    """The float32 graph with one layer as the int8 graph has it."""
    if layer.endswith("/MatMul") and layer != "proj_out/MatMul":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with trace.quiet():
            quantize_dynamic(source, target, op_types_to_quantize=["MatMul"], per_channel=True,
                             reduce_range=reduce_range, nodes_to_quantize=[layer], weight_type=QuantType.QInt8,
                             extra_options={"MatMulConstBOnly": True},
                             use_external_data_format=graphs.is_large(source))
        return
    model = graphs.load(source)
    if layer == "proj_out/MatMul":
        # lookup and logits: they are one tensor
        int8.share_embedding(model, int8.REDUCED if reduce_range else int8.LEVELS)
    else:
        int8.shrink_convolutions(model, only=layer)
    graphs.save(model, target)


def divergence(pair: GraphPair, sounds: list) -> float:
    """Mean KL divergence in nats of the pair's next-token distributions from PyTorch's, PyTorch's tokens as history."""
    found = []
    for sound in sounds:
        reference = log_softmax(sound.logits[0])
        test = log_softmax(pair.step(sound.forced, pair.encode(sound.features), None)[0][0])
        found.append((np.exp(reference) * (reference - test)).sum(axis=-1))
    return max(0.0, float(np.concatenate(found).mean()))  # below 0 is rounding


def plot(scores: list[dict], model: str, path: Path) -> Path:
    """A bar for each of the dearest layers, encoder and decoder in two colours; returns the path of the PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = scores[:SHOWN][::-1]
    figure, axes = plt.subplots(figsize=(9, 0.28 * len(shown) + 1.5), layout="constrained")
    colours = {"encoder": "#0072b2", "decoder": "#e69f00"}
    axes.barh([score["layer"] for score in shown], [score["kl_divergence"] for score in shown],
              color=[colours[score["part"]] for score in shown])
    axes.set_xlabel("KL divergence of the logits from PyTorch's, nats (mean over tokens)")
    axes.set_title(f"{model}: what int8 costs, one layer at a time" +
                   (f" (the {SHOWN} dearest of {len(scores)})" if len(scores) > SHOWN else ""))
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    axes.legend([plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()], list(colours))
    with files.atomic(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})
    plt.close(figure)
    return path
