"""One step of a decoder whose cross caches are int8 (the _optimized pair): read in place, one recording at a time.

The graph hands the caches out again as it got them (export/int8_cache.py). Bound to the memory of the inputs they cost
nothing; in memory of their own they would be copied at every step. onnxruntime and NumPy alone.
"""

import numpy as np


def step(session, input_ids: np.ndarray, cache: dict[str, np.ndarray], cross: dict[str, np.ndarray], vocabulary: int
         ) -> tuple[np.ndarray, list[np.ndarray]]:
    """As OnnxWhisper.step; `cache` and `cross` by the names of the decoder's inputs, `vocabulary` entries of logits.

    onnxruntime's operator takes several queries for one recording or one query each for several. Beams and the tokens
    of a prompt are queries, so for a batch of recordings they are run in turn.
    """
    audios = len(next(iter(cross.values())))
    if audios == 1 or input_ids.size == audios:
        return _run(session, input_ids, cache, cross, vocabulary)
    beams = len(input_ids) // audios
    found = []
    for audio in range(audios):
        rows = slice(audio * beams, (audio + 1) * beams)
        found.append(_run(session, input_ids[rows], {name: array[rows] for name, array in cache.items()},
                          {name: array[audio:audio + 1] for name, array in cross.items()}, vocabulary))
    logits, caches = zip(*found, strict=True)
    return np.concatenate(logits), [np.concatenate(arrays) for arrays in zip(*caches, strict=True)]


def _run(session, input_ids: np.ndarray, cache: dict[str, np.ndarray], cross: dict[str, np.ndarray], vocabulary: int
         ) -> tuple[np.ndarray, list[np.ndarray]]:
    batch, sequence = input_ids.shape
    logits = np.empty((batch, sequence, vocabulary), np.float32)
    longer = [np.empty((*past.shape[:2], past.shape[2] + sequence, past.shape[3]), past.dtype)
              for past in cache.values()]
    inputs = {name: np.ascontiguousarray(array) for name, array in {"input_ids": input_ids, **cross, **cache}.items()}
    outputs = {"logits": logits, **{_present(name): array for name, array in zip(cache, longer, strict=True)},
               **{_present(name): inputs[name] for name in cross if inputs[name].dtype == np.int8}}  # in place
    binding = session.io_binding()
    for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
        for name, array in arrays.items():
            bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    session.run_with_iobinding(binding)
    return logits, longer


def _present(name: str) -> str:
    return name.replace("past", "present", 1)
