"""One step of a decoder whose cross caches are int8 (the _optimized pair): read in place, one recording at a time.

The graph hands the caches out again as it got them (export/int8_cache.py). Bound to the memory of the inputs they cost
nothing; in memory of their own they would be copied at every step. onnxruntime and NumPy alone.
"""

import numpy as np


def step(session, feeds: dict[str, np.ndarray], vocabulary: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The decoder's inputs by name -> logits float32 [batch, sequence, vocabulary], self caches longer by sequence.

    onnxruntime's operator takes several queries for one recording, or one query each for several. Beams and the tokens
    of a prompt are queries, so with those the recordings of a batch are run in turn.
    """
    ids = feeds["input_ids"]
    audios = next(len(array) for name, array in feeds.items() if is_cross(name))
    if audios == 1 or ids.size == audios:
        return _run(session, feeds, vocabulary)
    beams, found = len(ids) // audios, []
    for i in range(audios):
        part = {name: array[i:i + 1] if is_cross(name) else array[i * beams:(i + 1) * beams]
                for name, array in feeds.items()}
        found.append(_run(session, part, vocabulary))
    logits, caches = zip(*found, strict=True)
    return np.concatenate(logits), [np.concatenate(arrays) for arrays in zip(*caches, strict=True)]


def is_cross(name: str) -> bool:
    """Does this input belong to the recording, not to the tokens?"""
    return "_cross" in name


def _run(session, feeds: dict[str, np.ndarray], vocabulary: int) -> tuple[np.ndarray, list[np.ndarray]]:
    feeds = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
    rows, sequence = feeds["input_ids"].shape
    outputs = {"logits": np.empty((rows, sequence, vocabulary), np.float32)}
    for name, past in feeds.items():
        present = name.replace("past", "present", 1)
        if "_self_" in name:
            outputs[present] = np.empty((*past.shape[:2], past.shape[2] + sequence, past.shape[3]), past.dtype)
        elif past.dtype == np.int8:
            outputs[present] = past  # the same memory: in place
    binding = session.io_binding()
    for bind, arrays in ((binding.bind_input, feeds), (binding.bind_output, outputs)):
        for name, array in arrays.items():
            bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    session.run_with_iobinding(binding)
    return outputs["logits"], [array for name, array in outputs.items() if "_self_" in name]
