"""int8 as `quantize_dynamic` makes it, imitated in PyTorch: any layers of a model, without writing a graph.

The activation gets 256 steps over its whole range (DynamicQuantizeLinear), each output channel of the weight 255 steps
of its own; the product of such numbers is what MatMulInteger computes. Biases and all else stay in float.
"""

import contextlib
from collections.abc import Iterator


def linears(module) -> dict:
    """Name -> module of every linear layer."""
    import torch

    return {name: one for name, one in module.named_modules() if isinstance(one, torch.nn.Linear)}


def weight(matrix, bits: int = 8):
    """float [out, in] rounded to 2^bits - 1 steps, symmetric, a scale for each output channel."""
    most = 2 ** (bits - 1) - 1
    scale = matrix.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / most
    return (matrix / scale).round().clamp(-most, most) * scale


def activation(x):
    """Rounded to 256 steps from its smallest value (or 0) to its largest, as DynamicQuantizeLinear does."""
    low, high = x.min().clamp_max(0), x.max().clamp_min(0)
    scale = (high - low).clamp_min(1e-12) / 255
    zero = (-low / scale).round()
    return ((x / scale + zero).round().clamp(0, 255) - zero) * scale


@contextlib.contextmanager
def quantized(layers, bits: int = 8, activations: bool = True) -> Iterator[None]:
    """These linear layers in int8 (weights in `bits`, activations or not); in float again afterwards."""
    import torch

    def changed(layer):
        rounded = weight(layer.weight.detach(), bits)
        heard = activation if activations else lambda x: x
        return lambda x: torch.nn.functional.linear(heard(x), rounded, layer.bias)

    for layer in layers:
        layer.forward = changed(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own again
