"""Reference solution."""

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
    cross, past = listen(encoder, features), empty(decoder)
    names = [value.name for value in decoder.get_outputs()]
    ids, said = np.array([prompt], np.int64), []
    while len(said) < most:
        made = dict(zip(names, decoder.run(None, {"input_ids": ids, **past, **cross}), strict=True))
        token = int(made["logits"][0, -1].argmax())
        if token == end:
            break
        said.append(token)
        ids = np.array([[token]], np.int64)
        past = {name.replace("present", "past"): array for name, array in made.items() if "_self_" in name}
    return said
