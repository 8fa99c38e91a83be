"""--sensitivity: which layer pays for int8? Quantize one at a time, measure the KL divergence of the logits, rank.

A cost near zero says: int8 is free here. The layers at the top are the first candidates for --int8-exclude.
One graph with a switch at every layer is opened once: making a graph per layer took most of the time.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from whisper_lab import console, files
from whisper_lab.export import graphs, int8
from whisper_lab.export.pair import open_runtime, session
from whisper_lab.onnx_whisper import OnnxWhisper
from whisper_lab.tokens import kl_divergence, log_softmax

SHOWN = 25  # bars


def scan(fp32: dict[str, Path], folder: Path, runtime, sounds: list, threads: int | None) -> list[dict]:
    """[{"part", "layer", "kl_divergence"}] in nats, costliest first; mean over PyTorch's own tokens on all sounds."""
    folder.mkdir()
    found = {part: layers(path) for part, path in fp32.items()}
    switched = {part: [layer for layer in names if is_switched(layer)] for part, names in found.items()}
    paths = {part: folder / f"{part}.onnx" for part in fp32}
    for part, path in fp32.items():
        write_switched(path, paths[part], switched[part])
    pair = open_runtime(*paths.values(), threads=threads, like=runtime)
    pair.encoder, pair.decoder = Switched(pair.encoder), Switched(pair.decoder)
    encoded = [pair.encode(sound.features) for sound in sounds]
    scores = []
    work = [(part, layer) for part, names in found.items() for layer in names]
    for part, layer in console.progress(work, description="sensitivity", unit="layer"):
        alone = folder / f"{part}_alone.onnx"
        with quantized(pair, part, layer, switched[part], fp32[part], alone, threads):
            cost = divergence(pair, sounds, encoded if part == "decoder" else None)
        scores.append({"part": part, "layer": layer.rpartition("/")[0], "kl_divergence": cost})
    return sorted(scores, key=lambda score: -score["kl_divergence"])


def layers(path: Path) -> list[str]:
    """What can be quantized alone: every weight MatMul, every convolution."""
    model = graphs.load(path)
    products = graphs.weight_matmuls(model)
    return [node.name for node in model.graph if node.op_type == "Conv" or node in products]


def is_switched(layer: str) -> bool:
    """The linear layers have a switch; convolutions and the embedding (lookup and logits) get a graph of their own."""
    return layer.endswith("/MatMul") and layer != "proj_out/MatMul"


@contextlib.contextmanager
def quantized(pair: OnnxWhisper, part: str, layer: str, switched: list[str], source: Path, target: Path,
              threads: int | None) -> Iterator[None]:
    """The pair with this one layer as the int8 graph has it; in float again afterwards.

    source: the float32 graph; target: where one without a switch is written.
    """
    before = getattr(pair, part)
    if is_switched(layer):
        before.layer = switched.index(layer)
    else:
        quantize_only(source, target, layer)
        setattr(pair, part, session(target, threads))
    try:
        yield
    finally:
        before.layer = -1
        setattr(pair, part, before)


def quantize_only(source: Path, target: Path, layer: str) -> None:
    """The float32 graph with a convolution, or the embedding, as the int8 graph has it."""
    model = graphs.load(source)
    if layer == "proj_out/MatMul":
        int8.share_embedding(model)  # lookup and logits: they are one tensor
    else:
        int8.shrink_convolutions(model, only=layer)
    graphs.save(model, target)


def divergence(pair: OnnxWhisper, sounds: list, encoded: list | None = None) -> float:
    """Mean KL divergence in nats of the pair's next-token distributions from PyTorch's, PyTorch's tokens as history.

    encoded: the cross caches of each sound, where the encoder has nothing new to say.
    """
    found = []
    for i, sound in enumerate(sounds):
        reference = log_softmax(sound.logits[0])
        cross = pair.encode(sound.features) if encoded is None else encoded[i]
        test = log_softmax(pair.step(sound.forced, cross, None)[0][0])
        found.append(kl_divergence(reference, test))
    return float(np.concatenate(found).mean())


def plot(scores: list[dict], model: str, path: Path) -> Path:
    """A bar for each of the costliest layers, encoder and decoder in two colours; returns the path of the PNG."""
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
                   (f" (the {SHOWN} costliest of {len(scores)})" if len(scores) > SHOWN else ""))
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    axes.legend([plt.Rectangle((0, 0), 1, 1, color=colour) for colour in colours.values()], list(colours))
    with files.atomic(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})
    plt.close(figure)
    return path


# A graph with switches ------------------------------------------------------------------------------------------------

# A float32 graph in which one linear layer at a time computes in int8, whichever the caller names.
#
# It contains both weights of each layer. An If node hands on the float product, or makes the 8-bit one where the
# graph's input `int8_layer` is this layer's number; with -1 all layers compute in float.

INPUT = "int8_layer"
FLOAT, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL


def write_switched(source: Path, target: Path, layers: list[str]) -> None:
    """Give every MatMul named in `layers` its switch."""
    model = graphs.load(source)
    chosen = ir.Value(name=INPUT, shape=ir.Shape([]), type=ir.TensorType(INT64))
    model.graph.inputs.append(chosen)
    for node in graphs.weight_matmuls(model):
        if node.name in layers:
            _switch(model, node, chosen, layers.index(node.name))
    graphs.save(model, target)


def _switch(model: ir.Model, node: ir.Node, chosen: ir.Value, number: int) -> None:
    product = node.outputs[0]
    readers = list(product.uses())
    small, scale = (graphs.constant(model, f"{node.name}/{what}", array) for what, array in
                    zip(("int8", "scale"), int8.fit(node.inputs[1].const_value.numpy()), strict=True))
    one = graphs.constant(model, f"{node.name}/number", np.array(number))
    here = ir.node("Equal", [chosen, one], name=f"{node.name}/chosen")
    here.outputs[0].name, here.outputs[0].type = here.name, ir.TensorType(BOOL)
    branches = {"then_branch": _product(node.inputs[0], small, scale, f"{node.name}/in_int8"),
                "else_branch": _graph([ir.node("Identity", [product], name=f"{node.name}/in_float")])}
    switch = ir.node("If", [here.outputs[0]], branches, name=f"{node.name}/switch")
    model.graph.insert_after(node, [here, switch])
    switch.outputs[0].name, switch.outputs[0].type, switch.outputs[0].shape = switch.name, product.type, product.shape
    for reader, index in readers:
        reader.replace_input_with(index, switch.outputs[0])


def _product(x: ir.Value, weight: ir.Value, scale: ir.Value, name: str) -> ir.Graph:
    """x [..., channels] times an int8 weight [channels, columns], as `quantize_dynamic` writes it."""
    quantized = ir.node("DynamicQuantizeLinear", [x], num_outputs=3, name=f"{name}/quantized")
    rounded, step, zero = quantized.outputs
    sums = ir.node("MatMulInteger", [rounded, weight, zero], name=f"{name}/sums")
    wide = ir.node("Cast", [sums.outputs[0]], {"to": FLOAT}, name=f"{name}/cast")
    scales = ir.node("Mul", [step, scale], name=f"{name}/scales")
    return _graph([quantized, sums, wide, scales,
                   ir.node("Mul", [wide.outputs[0], scales.outputs[0]], name=f"{name}/scaled")])


def _graph(nodes: list[ir.Node]) -> ir.Graph:
    """A branch: its last node's output is the result."""
    for node in nodes:
        for i, value in enumerate(node.outputs):
            value.name = f"{node.name}/{i}"
    nodes[-1].outputs[0].type = ir.TensorType(FLOAT)
    return ir.Graph([], [nodes[-1].outputs[0]], nodes=nodes, name=nodes[-1].name)


class Switched:
    """An onnxruntime session over such a graph; `layer` says which of its layers is in int8 from now on."""

    def __init__(self, session):
        self.session, self.layer = session, -1

    def get_inputs(self) -> list:
        """What the float32 graph asks for."""
        return [value for value in self.session.get_inputs() if value.name != INPUT]

    def get_outputs(self) -> list:
        return self.session.get_outputs()

    def run(self, outputs: list[str] | None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return self.session.run(outputs, feeds | {INPUT: np.array(self.layer)})
