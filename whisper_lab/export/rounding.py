"""PyTorch computed more exactly than it does (float64), or less (float16): the yardstick of the arithmetic gates.

How far a graph may stray from PyTorch cannot be a constant: the activations of a real Whisper have outliers a hundred
times their median, those of random weights have none. So the lab measures how far PyTorch itself, in float32 or
float16, strays from the same network in float64, and lets a graph stray a small multiple of that.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

UNIT = {"fp32": 2.0**-25, "fp16": 2.0**-12}  # typical error of a single rounding: a yardstick is never shorter

BLOCK = 4096  # rows of a matrix that are widened at once


@dataclass
class Pool:
    """The error of several arrays as one number: root mean square, relative to the spread of the right values."""

    noise: float = 0.0  # sum of squares of the differences
    signal: float = 0.0  # sum of squares of the right values around the mean of their array

    def add(self, test: np.ndarray, right: np.ndarray) -> "Pool":
        """Count one more array; one that is not finite, or has another shape, makes the error infinite for good."""
        if np.shape(test) != right.shape or not np.isfinite(test).all():
            self.noise = float("inf")
            return self
        self.noise += _square(np.subtract(test, right, dtype=np.float64))
        self.signal += _square(np.subtract(right, right.mean(dtype=np.float64), dtype=np.float64))
        return self

    @property
    def error(self) -> float:
        """sqrt(noise / signal)"""
        return float(np.sqrt(self.noise / max(self.signal, 1e-24)))

    @property
    def decibels(self) -> float:
        """Signal to noise: 20 dB is a tenth of error, 40 dB a hundredth; infinite without noise, -infinite for NaN."""
        if not np.isfinite(self.noise):
            return -float("inf")
        return float(10 * np.log10(max(self.signal, 1e-24) / self.noise)) if self.noise else float("inf")


def _square(array: np.ndarray) -> float:
    return float(np.vdot(array, array))


@contextlib.contextmanager
def exact(model) -> Iterator[None]:
    """Every layer computes in float64 while this lasts; its weights are widened for as long as it is at work.

    So a large model needs room for one layer in float64, not for all.
    """
    with _computed(model, lambda tensor: tensor.double(), lambda tensor: tensor.double()):
        yield


@contextlib.contextmanager
def half(model, operators: bool = True) -> Iterator[None]:
    """Weights are rounded to float16, and with `operators` all that enters and leaves a layer.

    Products are summed in float32, as a GPU and these graphs do. PyTorch's own half precision on a CPU gives the same
    roundings and takes minutes.
    """
    def rounded(tensor):
        return tensor.half().float()

    with _computed(model, rounded, rounded if operators else lambda tensor: tensor):
        yield


@contextlib.contextmanager
def _computed(model, weight: Callable, value: Callable) -> Iterator[None]:
    """Let every module that has weights of its own compute with weight(parameter), value(input), value(output)."""
    import torch

    kept: dict = {}

    def floating(item):
        return value(item) if isinstance(item, torch.Tensor) and item.is_floating_point() else item

    def before(module, args):
        if not isinstance(module, torch.nn.Embedding | torch.nn.Linear):  # a lookup: its output is treated instead
            for parameter in module.parameters(recurse=False):
                kept[parameter] = parameter.data
                parameter.data = weight(parameter.data)
        return tuple(floating(item) for item in args)

    def after(module, args, output):
        _restore(kept)
        return floating(output)

    handles, linear = [], []
    for module in model.modules():
        if any(True for _ in module.parameters(recurse=False)) and not any(True for _ in module.children()):
            handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
            if isinstance(module, torch.nn.Linear):
                module.forward = functools.partial(_in_blocks, module, weight)
                linear.append(module)
    try:
        yield
    finally:
        _restore(kept)
        for handle in handles:
            handle.remove()
        for module in linear:
            del module.forward


def _in_blocks(module, weight: Callable, x):
    """x W + b, some rows of W at a time: the token embedding in float64 would be as large as a small model."""
    import torch

    found = []
    for first in range(0, module.out_features, BLOCK):
        rows = slice(first, first + BLOCK)
        bias = None if module.bias is None else weight(module.bias[rows])
        found.append(torch.nn.functional.linear(x, weight(module.weight[rows]), bias))
    return found[0] if len(found) == 1 else torch.cat(found, dim=-1)


def _restore(kept: dict) -> None:
    for parameter, data in kept.items():
        parameter.data = data
    kept.clear()


@contextlib.contextmanager
def lean_attention(model) -> Iterator[None]:
    """PyTorch's fused attention, which never forms the weights: in float64 those of one layer take 144 MB in base."""
    chosen = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(chosen)
