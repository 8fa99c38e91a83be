"""Task: greedy decoding over the two graphs of script 03 (questions 1.05, 3.05 and 3.12).

`empty` and `listen` are given. Fill the gap in `greedy`, then: python -m workbook.check greedy
"""

import numpy as np


def empty(decoder) -> dict[str, np.ndarray]:
    """The self caches before the first token, by the names of the decoder's inputs: nothing said, so length 0."""
    wanted = {value.name: value.shape for value in decoder.get_inputs() if "_self_" in value.name}
    return {name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in wanted.items()}


def listen(encoder, features: np.ndarray) -> dict[str, np.ndarray]:
    """The keys and values of the cross-attention, by the names of the decoder's inputs."""
    names = [value.name for value in encoder.get_outputs()]
    heard = dict(zip(names, encoder.run(None, {"input_features": features}), strict=True))
    return {name.replace("present", "past"): array for name, array in heard.items() if "_cross_" in name}


def greedy(encoder, decoder, features: np.ndarray, prompt: list[int], end: int, most: int) -> list[int]:
    """The tokens after the prompt, up to the end token (which is not one of them), at most `most` of them.

    encoder, decoder: onnxruntime sessions. `session.run(None, {name: array})` returns all outputs, in the order of
    `[value.name for value in session.get_outputs()]`.
    features: float32 [1, bins, frames].
    The decoder takes `input_ids`, int64 [1, tokens], what `listen` returns, and the self caches `past_..._self_N`. It
    gives `logits`, float32 [1, tokens, vocabulary], and the longer caches `present_..._self_N`: with `past` for
    `present` they are what the next call takes.
    """
    raise NotImplementedError("the gap: about twelve lines, a loop that runs the decoder once for each token")
