"""Cross caches in int8: what the optimized pair's encoder writes and its decoder reads (export/int8_cache.py); NumPy.

A decoder reads the keys and values of the whole sound for every token, and for every recording of a batch its own: in
whisper-base that is 37 MB for a window of 30 s in float32. In int8 it is a quarter. Each head of a recording has a
scale of its own, from its largest value, so nothing is clipped and nothing has to be calibrated; or from the largest
sum of two neighbours, where that is larger: two products have to fit in 16 bits (export/int8.py).
"""

from collections.abc import Sequence

import numpy as np

LEVELS = 127  # -127..127: symmetric, so that zero stays zero and no zero point is needed
LEAST = 1e-8  # what a head of zeros has for its scale: 0 / 0 is NaN
MIDDLE = 128  # a query's zero, which is quantized to uint8, its largest value to MIDDLE +- LEVELS
BYTE = 255  # the largest weight in uint8
MORE = ("key_scale", "key_sum", "value_scale")  # of each layer, besides its key and value
FAR = np.float32(1e30)  # the sum of keys that are none: what is taken from a score leaves no weight


def names(side: str, layers: int) -> list[str]:
    """`past` or `present` -> past_key_scale_cross_0, past_key_sum_cross_0, ...: what int8 caches need besides."""
    return [f"{side}_{what}_cross_{layer}" for layer in range(layers) for what in MORE]


def to_int8(cross: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Keys and values of each layer, float [audio, heads, positions, head_dim], as the encoder's graph rounds them.

    Returns them in int8, keys as [audio, heads, head_dim, positions]; behind them for each layer what `names` says,
    float32: what a step of the keys is worth over LEVELS, and a step of the values over BYTE, [audio, heads, 1, 1], as
    it meets a query and weights whose largest value is 1; between them MIDDLE times the sum of the keys over head_dim
    [audio, heads, 1, positions].
    """
    small, more = [], []
    for key, value in zip(cross[::2], cross[1::2], strict=True):
        (keys, key_step), (values, value_step) = _rounded(np.swapaxes(key, 2, 3)), _rounded(value)
        small += [keys, values]
        more += [key_step / np.float32(LEVELS), MIDDLE * keys.sum(axis=2, keepdims=True, dtype=np.float32),
                 value_step / np.float32(BYTE)]
    return [*small, *more]


def to_float(cross: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The inverse of `to_int8`: float32; caches that are float already stay as they are."""
    if not is_int8(cross):
        return list(cross)
    layers, found = len(cross) // 5, []
    for layer in range(layers):
        key, value = cross[2 * layer:2 * layer + 2]
        key_scale, _, value_scale = cross[2 * layers + 3 * layer:2 * layers + 3 * layer + 3]
        found += [np.ascontiguousarray(np.swapaxes(key * (LEVELS * key_scale), 2, 3)), value * (BYTE * value_scale)]
    return found


def side_by_side(crosses: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Several recordings' caches as those of one batch, which have the positions of the longest.

    Behind its end a shorter one has positions that get no weight: they change no number of it. crosses: of `to_int8`.
    """
    layers = len(crosses[0]) // 5
    behind = [0] * 2 * layers + [0, FAR, 0] * layers
    return [_padded(parts, fill) for parts, fill in zip(zip(*crosses, strict=True), behind, strict=True)]


def is_int8(cross: Sequence[np.ndarray]) -> bool:
    """Whether these are caches as `to_int8` makes them."""
    return len(cross) > 0 and cross[0].dtype == np.int8


def _padded(parts: Sequence[np.ndarray], fill: float) -> np.ndarray:
    """Arrays [1, ...] that may differ in length along an axis, one after the other on the first; fill: behind each."""
    whole = np.full((len(parts), *np.max([part.shape[1:] for part in parts], axis=0)), fill, parts[0].dtype)
    for row, part in zip(whole, parts, strict=True):
        row[tuple(map(slice, part.shape[1:]))] = part[0]
    return whole


def _rounded(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[audio, heads, inner, outer] in steps of int8, and what a step is worth; over `inner` products are added.

    Two neighbours of unlike sign come to less than one of them; and each of two may be rounded up by half a step.
    """
    even, odd = array[:, :, :-1:2], array[:, :, 1::2]
    largest = np.maximum(*(np.abs(values).max(axis=(2, 3), keepdims=True, initial=0) for values in (array, even + odd)))
    step = np.maximum(largest / np.float32(LEVELS), np.float32(LEAST))
    return np.rint(array / step).astype(np.int8, order="C"), step.astype(np.float32)  # as a session reads them
