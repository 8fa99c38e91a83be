"""SmoothQuant: make an activation's channels alike before 8 bits are laid over them.

After Xiao et al. 2022, arXiv 2211.10438.

A linear layer computes sum_c x_c w_c. Divide the loud channels of x by s_c and multiply their rows of w by it: the sum
is the same, but x now fits a finer grid, and w, which has a scale per column, can bear it. Where x comes out of a
LayerNorm the division costs nothing: its weight and bias are divided once, here. The factors are powers of two, so the
float32 graph computes exactly what it did.
"""

import numpy as np
import onnx_ir as ir

from whisper_lab.export.calibration import Inputs
from whisper_lab.export.int8 import LEVELS

# How much of the difficulty moves from the activations to the weights; 0 is none. The paper takes 0.5 everywhere; here
# the strength with the smallest error is taken for each LayerNorm.
STRENGTHS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SUFFIX = "_smoothed"
TINY = 1e-5  # a channel that is always 0 gets a finite factor


def encoder(model: ir.Model, heard: dict[str, Inputs]) -> dict[str, float]:
    """Smooth what the linear layers of a float32 encoder graph are fed; module in front -> the strength chosen.

    Two kinds: a LayerNorm that only feeds linear layers, and the values of self-attention, which are mixed channel by
    channel before out_proj reads them. The encoder's last LayerNorm is an output of the graph and stays as it is.
    """
    done, nodes = {}, {node.name: node for node in model.graph}
    for node in list(nodes.values()):
        if node.op_type == "LayerNormalization":
            front, layers = node, [user for user, _ in node.outputs[0].uses()]
        elif node.name.endswith("self_attn.out_proj/MatMul"):
            front, layers = nodes[node.name.replace("out_proj/MatMul", "v_proj/Add")], [node]
        else:
            continue
        heard_here = heard.get(layers[0].inputs[0].name)
        if front.outputs[0].is_graph_output() or heard_here is None or not _linear(layers):
            continue
        strength, factors = choose(heard_here, [layer.inputs[1].const_value.numpy() for layer in layers])
        if strength:
            _fold(front, layers, factors)
            done[front.name.rpartition("/")[0]] = strength
    return done


def _linear(nodes: list[ir.Node]) -> bool:
    return all(node.op_type == "MatMul" and node.inputs[1].is_initializer() for node in nodes)


def choose(inputs: Inputs, weights: list[np.ndarray]) -> tuple[float, np.ndarray]:
    """The strength with the smallest error in 8 bits, and its factors [channels]; weights are [channels, columns]."""
    tried = {strength: factors(inputs, weights, strength) for strength in STRENGTHS}
    best = min(tried, key=lambda strength: noise(inputs, weights, tried[strength]))
    return best, tried[best]


def factors(inputs: Inputs, weights: list[np.ndarray], strength: float) -> np.ndarray:
    """Powers of two near largest activation ^ strength / largest weight ^ (1 - strength), float32 [channels]."""
    largest = np.maximum(inputs.largest, TINY)
    if not strength:
        return np.ones_like(largest)
    heaviest = np.maximum(np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0), TINY)
    return np.exp2(np.rint(strength * np.log2(largest) - (1 - strength) * np.log2(heaviest))).astype(np.float32)


def noise(inputs: Inputs, weights: list[np.ndarray], factors: np.ndarray) -> float:
    """Power of the error that 8 bits make in the products, relative to the products; summed over the layers."""
    low, high = min(0.0, float((inputs.low / factors).min())), max(0.0, float((inputs.high / factors).max()))
    step = max(high - low, TINY) / 255  # one scale for the whole tensor, as DynamicQuantizeLinear
    rounded = np.rint(inputs.rows / factors / step) * step
    total = 0.0
    for weight in weights:
        right, scaled = inputs.rows @ weight, weight * factors[:, None]
        scales = np.maximum(np.abs(scaled).max(axis=0), TINY) / LEVELS
        error = rounded @ (np.rint(scaled / scales) * scales) - right
        total += float((error**2).sum() / max(float((right**2).sum()), TINY))
    return total


def _fold(front: ir.Node, layers: list[ir.Node], factors: np.ndarray) -> None:
    """Divide weight and bias of what is in front, multiply the layers' rows; what lies between gets a name of its own.

    Who compares graphs value by value must not take the smoothed one for the old.
    """
    if front.op_type == "LayerNormalization":
        divided = front.inputs[1:3]
    else:  # v_proj: MatMul, then Add of the bias
        divided = front.inputs[0].producer().inputs[1], front.inputs[1]
    for weight in divided:
        scale(weight, 1 / factors)
    for layer in layers:
        scale(layer.inputs[1], factors[:, None])
    for value in dict.fromkeys((front.outputs[0], layers[0].inputs[0])):
        value.name = f"{value.name}{SUFFIX}"


def scale(weight: ir.Value, factors: np.ndarray) -> None:
    """Multiply an initializer in place; computed only while it is written, as graphs.lazy_constant."""
    old = weight.const_value
    weight.const_value = ir.LazyTensor(lambda: ir.tensor(old.numpy() * factors, name=weight.name), dtype=old.dtype,
                                       shape=old.shape, name=weight.name)
