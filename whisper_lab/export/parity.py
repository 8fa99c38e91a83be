"""Gates on numbers: the graphs against PyTorch, over all shapes, and against themselves in pieces.

A graph that cannot run a shape at all fails the gate like one that runs it wrongly.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from whisper_lab.export.gates import NUMBERS, PIECES, Gate, below, relative_error
from whisper_lab.export.pair import GraphPair
from whisper_lab.export.reference import Sound

SWEEP_AUDIO, SWEEP_BEAMS, SWEEP_SEQUENCE = (1, 2, 3), (1, 2), (1, 2, 4, 7)
PIECE_TOKENS, PIECE = 40, 7


@dataclass(frozen=True)
class LongRun:
    """PyTorch over random tokens; rows are recordings x beams."""

    ids: np.ndarray  # int64 [rows, positions of the decoder]
    logits: dict[int, np.ndarray]  # position -> [rows, vocabulary], for the positions that the sweep looks at
    caches: list[np.ndarray]  # key, value per layer [rows, heads, positions, head_dim]


def numbers(graphs: GraphPair, sounds: list[Sound], precision: str) -> list[Gate]:
    """Hidden states, caches, logits of each graph on its own: the decoder gets PyTorch's caches, not the encoder's."""
    states_limit, logits_limit = NUMBERS[precision]
    worst = {"states": ("", 0.0), "caches": ("", 0.0), "logits": ("", 0.0)}

    def see(what: str, where: str, error: float) -> None:
        if error >= worst[what][1]:
            worst[what] = where, error

    for sound in sounds:
        hidden, *cross = _run(graphs.encode_all, sound.features, count=1 + len(sound.cross))
        see("states", f"encoder_hidden_states, {sound.name}", relative_error(hidden, sound.hidden))
        for i, (test, reference) in enumerate(zip(cross, sound.cross, strict=True)):
            see("states", f"cross cache {i}, {sound.name}", relative_error(test, reference))
        logits, caches = _run(graphs.step, sound.forced, graphs.own(sound.cross), None, count=2)
        see("logits", f"logits, {sound.name}", relative_error(logits, sound.logits))
        for i, reference in enumerate(sound.self_caches):
            test = caches[i] if len(np.shape(caches)) else np.array(np.nan)
            see("caches", f"self cache {i}, {sound.name}", relative_error(test, reference))
    return [below("numbers: encoder", worst["states"][1], states_limit, worst["states"][0], "encoder"),
            below("numbers: self caches", worst["caches"][1], states_limit, worst["caches"][0], "decoder"),
            below("numbers: logits", worst["logits"][1], logits_limit, worst["logits"][0], "decoder")]


def _run(function, *arguments, count: int):
    """The function's outputs, or as many NaN where onnxruntime refuses."""
    try:
        return function(*arguments)
    except Exception as error:  # onnxruntime's exceptions have no common base
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        return [np.array(np.nan)] * count


def shapes(graphs: GraphPair, long: LongRun, sounds: list[Sound], precision: str) -> list[Gate]:
    """Every batch, beam width, sequence and past: against one long run of PyTorch, cut to the piece in question."""
    states_limit, logits_limit = NUMBERS[precision]
    encoder, decoder, tried = (0.0, ""), (0.0, ""), 0
    for rows in SWEEP_AUDIO:
        features = np.concatenate([sound.features for sound in sounds[:rows]])
        hidden = np.concatenate([sound.hidden for sound in sounds[:rows]])
        error = relative_error(_run(graphs.encode_all, features, count=1)[0], hidden)
        encoder = max(encoder, (error, f"batch {rows}"))
    for audio, beams in itertools.product(SWEEP_AUDIO, SWEEP_BEAMS):
        cross = [np.concatenate(arrays) for arrays in zip(*(sound.cross for sound in sounds[:audio]), strict=True)]
        cross = graphs.own(cross)
        rows = [row for row in range(audio * max(SWEEP_BEAMS)) if row % max(SWEEP_BEAMS) < beams]
        for past, sequence in itertools.product(_pasts(long.ids.shape[1]), SWEEP_SEQUENCE):
            place = f"batch {audio * beams} of {audio} recordings, sequence {sequence}, past {past}"
            decoder = max(decoder, (_one_shape(graphs, long, rows, cross, past, sequence), place))
            tried += 1
    return [below("shapes: encoder", encoder[0], states_limit, f"worst at {encoder[1]}", "encoder"),
            below("shapes: decoder", decoder[0], logits_limit, f"worst of {tried}: {decoder[1]}", "decoder")]


def _pasts(positions: int) -> list[int]:
    """0 and 1 (where exporters go wrong), the middle, and the longest that leaves room for the longest sequence."""
    return [0, 1, positions // 4, positions - max(SWEEP_SEQUENCE)]


def _one_shape(graphs: GraphPair, long: LongRun, rows: list[int], cross: list, past: int, sequence: int) -> float:
    cache = [np.ascontiguousarray(array[rows, :, :past]) for array in long.caches]
    test = _run(graphs.step, long.ids[rows, past:past + sequence], cross, cache, count=2)[0]
    return relative_error(test, np.stack([long.logits[past + i][rows] for i in range(sequence)], axis=1))


def long_run(runtime, sounds: list[Sound], seed: int = 0) -> LongRun:
    """Random tokens up to the decoder's last position through PyTorch, for every recording and beam of the sweep.

    One beam at a time, each copied to its place: cross caches and copies of all would be as large as the weights.
    """
    random, positions, beams = np.random.default_rng(seed), runtime.rules.max_positions, max(SWEEP_BEAMS)
    ids = random.integers(0, runtime.rules.vocab_size, (max(SWEEP_AUDIO) * beams, positions))
    looked_at = sorted({past + i for past in _pasts(positions) for i in range(max(SWEEP_SEQUENCE))})
    whole: list[np.ndarray] = []
    for row in range(len(ids)):
        answer = _long_answer(runtime.model, ids[row:row + 1], sounds[row // beams].hidden, looked_at)
        whole = whole or [np.empty((len(ids), *part.shape[1:]), part.dtype) for part in answer]
        for place, part in zip(whole, answer, strict=True):
            place[row] = part[0]
    logits, *caches = whole
    return LongRun(ids, {position: logits[:, i] for i, position in enumerate(looked_at)}, caches)


def _long_answer(model, ids: np.ndarray, hidden: np.ndarray, looked_at: list[int]) -> list[np.ndarray]:
    """Logits [1, looked_at, vocabulary] and self caches for one beam of a recording."""
    import torch

    with torch.inference_mode():
        output = model.model.decoder(input_ids=torch.from_numpy(ids), use_cache=True,
                                     encoder_hidden_states=torch.from_numpy(hidden))
        logits = model.proj_out(output.last_hidden_state[:, looked_at]).numpy()
    layers = output.past_key_values.self_attention_cache.layers
    return [logits, *(tensor.numpy() for layer in layers for tensor in (layer.keys, layer.values))]


def pieces(graphs: GraphPair, sounds: list[Sound], precision: str, seed: int = 0) -> list[Gate]:
    """The same tokens at once, one by one, and in chunks of 7 through the same graph: the cache forgets nothing."""
    sound = sounds[0]
    vocabulary, positions = sound.logits.shape[-1], graphs.rules.max_positions
    ids = np.random.default_rng(seed).integers(0, vocabulary, (1, min(PIECE_TOKENS, positions)))
    cross = graphs.own(sound.cross)
    whole = _run(graphs.step, ids, cross, None, count=2)[0]
    errors = {step: relative_error(_in_pieces(graphs, ids, cross, step), whole) for step in (1, PIECE)}
    worst = max(errors, key=errors.get)
    return [below("prompt at once = in pieces", errors[worst], PIECES[precision],
                  f"{ids.shape[1]} tokens, worst in chunks of {worst}", "decoder")]


def _in_pieces(graphs: GraphPair, ids: np.ndarray, cross: list[np.ndarray], size: int) -> np.ndarray:
    cache, found = None, []
    for start in range(0, ids.shape[1], size):
        logits, cache = _run(graphs.step, ids[:, start:start + size], cross, cache, count=2)
        if not np.ndim(logits):
            return logits
        found.append(logits)
    return np.concatenate(found, axis=1)
