"""One step of a decoder whose cross caches are int8 (the _optimized pair): read in place, one recording at a time.

The graph hands the caches out again as it got them (export/int8_cache.py). Bound to the memory of the inputs they cost
nothing; in memory of their own they would be copied at every step. onnxruntime and NumPy alone.
"""

import itertools
import sys

import numpy as np


class Blocks:
    """Memory for a step's self caches, used again once no one holds the arrays that were in it.

    A step makes them all again, one token longer. In arrays of their own each step would pay for fresh pages, which
    glibc hands back to the system at once: with four windows after a long prompt as much as for the step itself.
    """

    ROOM = 64  # positions; so many steps fit before a block is too small

    def __init__(self):
        self._made: list[np.ndarray] = []
        (self._free,) = self._references([np.empty(0, np.uint8)])  # of a block that no array is in

    @staticmethod
    def _references(blocks: list[np.ndarray]) -> list[int]:
        return [sys.getrefcount(block) for block in blocks]

    def take(self, shape: tuple[int, int, int, int], dtype: np.dtype, count: int) -> list[np.ndarray]:
        """`count` arrays of undefined content [rows, heads, positions, head_dim]."""
        rows, heads, positions, width = shape
        size, room = dtype.itemsize * rows * heads * width, self.ROOM
        used = [references > self._free for references in self._references(self._made)]
        free = [block for block, is_used in zip(self._made, used, strict=True)
                if not is_used and block.nbytes >= size * positions][:count]
        if len(free) < count:
            free += [np.empty(size * (positions + room), np.uint8) for _ in range(count - len(free))]
            self._made = [*itertools.compress(self._made, used), *free]  # what is free and too small is given up
        return [block[:size * positions].view(dtype).reshape(shape) for block in free]


def int8_step(session, feeds: dict[str, np.ndarray], vocabulary: int, blocks: Blocks | None = None
              ) -> tuple[np.ndarray, list[np.ndarray]]:
    """The decoder's inputs by name -> logits float32 [batch, sequence, vocabulary], self caches longer by sequence.

    onnxruntime's operator takes several queries for one recording, or one query each for several; and no more queries
    than the recording has positions. Beams and the tokens of a prompt are queries, so with those the recordings of a
    batch are run in turn, and a prompt that is longer than a short window in pieces.
    """
    ids = feeds["input_ids"]
    audios, _, positions, _ = next(array.shape for name, array in feeds.items() if is_cross(name))
    most = max(1, positions * audios // len(ids))  # tokens of a row at once
    if ids.shape[1] > most:
        return _in_pieces(session, feeds, vocabulary, most)
    if audios == 1 or ids.size == audios:
        return _run(session, feeds, vocabulary, blocks)
    beams, found = len(ids) // audios, []
    for i in range(audios):
        part = {name: array[i:i + 1] if is_cross(name) else array[i * beams:(i + 1) * beams]
                for name, array in feeds.items()}
        found.append(_run(session, part, vocabulary))
    logits, caches = zip(*found, strict=True)
    return np.concatenate(logits), [np.concatenate(arrays) for arrays in zip(*caches, strict=True)]


def _in_pieces(session, feeds: dict[str, np.ndarray], vocabulary: int, size: int
               ) -> tuple[np.ndarray, list[np.ndarray]]:
    """So many tokens of each row at a time, each piece behind the caches of those before it."""
    ids, names, found = feeds["input_ids"], [name for name in feeds if "_self_" in name], []
    for start in range(0, ids.shape[1], size):
        logits, caches = int8_step(session, feeds | {"input_ids": ids[:, start:start + size]}, vocabulary)
        feeds = feeds | dict(zip(names, caches, strict=True))
        found.append(logits)
    return np.concatenate(found, axis=1), caches


def is_cross(name: str) -> bool:
    """Does this input belong to the recording, not to the tokens?"""
    return "_cross" in name


def _run(session, feeds: dict[str, np.ndarray], vocabulary: int, blocks: Blocks | None = None
         ) -> tuple[np.ndarray, list[np.ndarray]]:
    feeds = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
    rows, sequence = feeds["input_ids"].shape
    outputs = {"logits": np.empty((rows, sequence, vocabulary), np.float32)}
    caches = {name: past for name, past in feeds.items() if "_self_" in name}
    past = next(iter(caches.values()))  # all have one shape
    shape = (*past.shape[:2], past.shape[2] + sequence, past.shape[3])
    longer = blocks.take(shape, past.dtype, len(caches)) if blocks else \
        [np.empty(shape, past.dtype) for _ in caches]
    outputs |= {name.replace("past", "present", 1): array for name, array in zip(caches, longer, strict=True)}
    for name, past in feeds.items():
        if past.dtype == np.int8:
            outputs[name.replace("past", "present", 1)] = past  # the same memory: in place
    binding = session.io_binding()
    for bind, arrays in ((binding.bind_input, feeds), (binding.bind_output, outputs)):
        for name, array in arrays.items():
            bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    session.run_with_iobinding(binding)
    return outputs["logits"], [array for name, array in outputs.items() if "_self_" in name]
