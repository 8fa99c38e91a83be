"""Gates on numbers: the graphs against PyTorch, over all shapes, and against themselves in pieces.

A graph that cannot run a shape at all fails the gate like one that runs it wrongly. In fp32 and fp16 every error is
divided by the error that PyTorch makes itself in that precision; of int8 and int4 the signal-to-noise ratio is judged.
"""

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from whisper_lab import caches, console, machine
from whisper_lab.export import graphs, reference, wire
from whisper_lab.export.gates import (
    ARITHMETIC,
    BATCH,
    EMBEDDED,
    LAYER,
    ORDER,
    ROUNDING,
    SIGNAL,
    Gate,
    above,
    below,
    relative_error,
)
from whisper_lab.export.on_disk import OnDisk
from whisper_lab.export.pair import answer, cross_feeds, encode_all, session
from whisper_lab.export.reference import BOTH, Arithmetic, Pool, Sound, own_errors
from whisper_lab.onnx_whisper import OnnxWhisper

SWEEP_BATCH = 2  # of the encoder, where each recording takes 144 MB for attention in base; `numbers` has one
SWEEP_AUDIO, SWEEP_BEAMS, SWEEP_SEQUENCE = (1, 2, 3), (1, 2), (1, 2, 4, 7)
PIECE_TOKENS, PIECE = 40, 7
FEW_WORDS = 8
TIMES = "times PyTorch's own rounding"


@dataclass(frozen=True)
class LongAnswers:
    """PyTorch's answers to long text; rows are recordings x beams."""

    ids: np.ndarray  # int64 [rows, positions of the decoder]
    logits: dict[int, np.ndarray]  # position -> [rows, vocabulary], for the positions that the sweep looks at
    caches: list[np.ndarray]  # key, value per layer [rows, heads, positions, head_dim]


@dataclass(frozen=True)
class LongRun:
    """The same while no one looks at it, a third of base's weights, and how far PyTorch itself is off."""

    ids: np.ndarray
    looked_at: list[int]  # the positions of the logits
    answers: list[np.ndarray] = OnDisk()  # logits [rows, looked_at, vocabulary] and the caches
    rounding: dict[str, Pool] = field(default_factory=dict)  # fp32, fp16 -> PyTorch's own error in the logits

    def own_error(self, precision: str) -> float:
        return max(self.rounding[precision].error, reference.UNIT[precision])

    def read(self) -> LongAnswers:
        logits, *caches = self.answers
        return LongAnswers(self.ids, {position: logits[:, i] for i, position in enumerate(self.looked_at)}, caches)


# Numbers -------------------------------------------------------------------------------------------------------------

GROUPS = {"encoder": ("encoder", ("hidden", "cross")), "self caches": ("decoder", ("self",)),
          "logits": ("decoder", ("logits",))}  # gate -> whose fault, and the tensors' names


def numbers(graphs: OnnxWhisper, sounds: list[Sound], precision: str) -> list[Gate]:
    """Hidden states, caches, logits of each graph on its own: the decoder gets PyTorch's caches, not the encoder's."""
    judge = _rounding if precision in ARITHMETIC else _signal
    return judge(graphs, sounds, precision)


def _rounding(graphs: OnnxWhisper, sounds: list[Sound], precision: str) -> list[Gate]:
    """On all three sounds, tensor by tensor: errors as multiples of PyTorch's own."""
    errors, own, gates = tensor_errors(graphs, sounds), own_errors(sounds, precision), []
    for name, (part, starts) in GROUPS.items():
        ratios = {tensor: pool.error / own[tensor] for tensor, pool in errors.items() if tensor.startswith(starts)}
        worst = max(ratios, key=ratios.get)
        gates.append(below(f"numbers: {name}", ratios[worst], ROUNDING[precision],
                           f"{worst} off by {errors[worst].error:.1e}, PyTorch by {own[worst]:.1e}", part, TIMES))
    return gates


def _signal(graphs: OnnxWhisper, sounds: list[Sound], precision: str) -> list[Gate]:
    """On speech, tensor by tensor: the right values over the error. 20 dB is an error of a tenth, 6 dB of a half."""
    errors, gates = tensor_errors(graphs, [sound for sound in sounds if sound.is_speech], one_by_one=True), []
    for name, (part, starts) in GROUPS.items():
        levels = {tensor: pool.decibels for tensor, pool in errors.items() if tensor.startswith(starts)}
        worst = min(levels, key=levels.get)
        gates.append(above(f"numbers: {name}", levels[worst], SIGNAL[precision][name],
                           f"{worst} on speech, signal over error", part, "dB"))
    return gates


def tensor_errors(graphs: OnnxWhisper, sounds: list[Sound], one_by_one: bool = False) -> dict[str, Pool]:
    """Tensor -> the graphs' error over the sounds whose caches are kept; tokens at once or as in a transcription."""
    pools: dict[str, Pool] = defaultdict(Pool)
    for sound in (sound for sound in sounds if sound.has_caches):
        given = sound.cross
        hidden, *cross = _run(encode_all, graphs, sound.features, count=1 + len(given))
        logits, caches = (_run(answer, graphs, sound.forced, sound.prompt_length, given, count=2) if one_by_one
                          else _run(graphs.step, sound.forced, given, None, count=2))
        caches = caches if len(np.shape(caches)) else [np.array(np.nan)] * len(sound.self_caches)
        pools["hidden states"].add(hidden, sound.hidden)
        pools["logits"].add(logits, sound.logits)
        for kind, tests, rights in (("cross", cross, given), ("self", caches, sound.self_caches)):
            for i, (test, right) in enumerate(zip(tests, rights, strict=True)):
                pools[f"{kind} {('key', 'value')[i % 2]} {i // 2}"].add(test, right)
    return dict(pools)


def _run(function, *arguments, count: int):
    """The function's outputs, or as many NaN where onnxruntime refuses."""
    try:
        return function(*arguments)
    except Exception as error:  # onnxruntime's exceptions have no common base
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        return [np.array(np.nan)] * count


# Shapes --------------------------------------------------------------------------------------------------------------

def sweep_encoder(encoder, sounds: list[Sound]) -> dict[str, Pool]:
    """A batch in every length: place -> error of the hidden states. encoder: a session.

    The scores of two recordings' attention are the most memory that any gate needs (288 MB in base).
    """
    found, given, hidden = {}, encoder.get_inputs()[0].name, encoder.get_outputs()[0].name
    whole = [sound for sound in sounds if not sound.is_short]
    shorter = [[sound] * SWEEP_BATCH for sound in sounds if sound.is_short]
    for heard in [whole[:SWEEP_BATCH], *shorter]:
        features = np.concatenate([sound.features for sound in heard])
        right = np.concatenate([sound.hidden for sound in heard])
        test, = _run(encoder.run, [hidden], {given: features}, count=1)
        found[f"batch {SWEEP_BATCH}, {features.shape[2]} frames"] = Pool().add(test, right)
    return found


def sweep_decoder(graphs: OnnxWhisper, long: LongAnswers, sounds: list[Sound]) -> dict[str, Pool]:
    """Every batch with every past and every sequence, and each of those with each other: place -> error of the logits.

    The right values are one long run of PyTorch, cut to the piece in question. Cross caches are those of whole windows;
    `numbers` has shorter ones.
    """
    found = {}
    for turn, (audio, beams) in enumerate(itertools.product(SWEEP_AUDIO, SWEEP_BEAMS)):
        cross = _cross_of(sounds[:audio])
        rows = [row for row in range(audio * max(SWEEP_BEAMS)) if row % max(SWEEP_BEAMS) < beams]
        for past, sequence in zip(_pasts(long.ids.shape[1]), np.roll(SWEEP_SEQUENCE, turn).tolist(), strict=True):
            place = f"batch {audio * beams} of {audio} recordings, sequence {sequence}, past {past}"
            found[place] = _one_shape(graphs, long, rows, cross, past, sequence)
        del cross  # of three recordings 110 MB in base: gone before the next are made
        machine.give_back_memory()
    return found


def shapes(graphs: OnnxWhisper, long: LongRun, sounds: list[Sound], precision: str,
           encoder: dict[str, Pool] | None = None, trained: bool = True) -> list[Gate]:
    """The verdict over all shapes, pooled, the worst one named; encoder: what sweep_encoder found, if it was asked.

    trained: the words depend on the sound. With random weights they hardly do, and `batch` has nothing to compare with.
    """
    gates, answers = [], long.read()
    for part, places in (("encoder", encoder or sweep_encoder(graphs.encoder, sounds)),
                         ("decoder", sweep_decoder(graphs, answers, sounds))):
        pool, worst = pooled(places.values()), max(places, key=lambda place: places[place].error)
        name, detail = f"shapes: {part}", f"{len(places)} shapes; worst at {worst}"
        if precision in ARITHMETIC:
            own = long.own_error(precision) if part == "decoder" else own_errors(sounds, precision)["hidden states"]
            gates.append(below(name, pool.error / own, ROUNDING[precision],
                               f"{detail}; off by {pool.error:.1e}, PyTorch by {own:.1e}", part, TIMES))
        else:
            gates.append(above(name, pool.decibels, SIGNAL[precision][name], detail, part, "dB"))
    if precision in ARITHMETIC:
        return gates
    return [*gates, *([batch(graphs, answers, sounds)] if trained else []), order(graphs, answers, sounds)]


def batch(graphs: OnnxWhisper, long: LongAnswers, sounds: list[Sound]) -> Gate:
    """Three recordings in a batch and each alone, the first word of each: none hears another's sound.

    The graph against itself, and what the batch changes (in int8 recordings share scales) against what hearing the
    first recording would change: that may be less than int4's own error.
    """
    firsts, changed, heard = _first_beams(long), Pool(), Pool()
    together = _next_word(graphs, long, sounds, firsts, list(range(len(firsts))))
    for audio, row in enumerate(firsts):
        alone = _next_word(graphs, long, sounds, row[None], [audio])
        changed.add(together[audio:audio + 1] if np.ndim(together) else together, alone)
        heard.add(_next_word(graphs, long, sounds, row[None], [0]), alone)
    return above("recordings in a batch = alone", _ratio_db(heard, changed), BATCH,
                 f"{len(firsts)} recordings; what hearing another changes over what the batch changes", "decoder", "dB")


def order(graphs: OnnxWhisper, long: LongAnswers, sounds: list[Sound]) -> Gate:
    """The same batch in the opposite order: the same words. int8's scales are those of all its rows, in any order.

    Sharper than `batch` where scales are shared: a graph in which all hear the first recording hears another one now.
    """
    firsts = _first_beams(long)
    audios = list(range(len(firsts)))
    forth, back = (_next_word(graphs, long, sounds, firsts[turn], audios[turn])
                   for turn in (slice(None), slice(None, None, -1)))
    if not (np.ndim(forth) and np.ndim(back)):  # a graph that cannot run the batch
        return above("recordings in another order", -float("inf"), ORDER, "the batch does not run", "decoder", "dB")
    changed, heard = Pool().add(back[::-1], forth), Pool().add(np.roll(forth, 1, axis=0), forth)
    more = _ratio_db(heard, changed) if np.isfinite(changed.noise) else -float("inf")
    return above("recordings in another order", more, ORDER,
                 f"{len(firsts)} recordings; how different they are over what their order changes", "decoder", "dB")


def _first_beams(long: LongAnswers) -> np.ndarray:
    """The row of each recording's first beam."""
    return np.arange(0, len(long.ids), max(SWEEP_BEAMS))


def _next_word(graphs: OnnxWhisper, long: LongAnswers, sounds: list[Sound], rows: np.ndarray, audios: list[int]):
    """Logits behind the prompt of these rows of the long run, each over the sound that `audios` names for it."""
    past = sounds[0].prompt_length - 1
    cross = _cross_of([sounds[audio] for audio in audios])
    cache = [np.ascontiguousarray(array[rows, :, :past]) for array in long.caches]
    return _run(graphs.step, long.ids[rows, past:past + 1], cross, cache, count=2)[0]


def _cross_of(sounds: list[Sound]) -> list[np.ndarray]:
    """Cross caches of a batch of recordings, read one after the other: all of three twice are 220 MB in base."""
    whole: list[np.ndarray] = []
    for row, sound in enumerate(sounds):
        arrays = sound.cross
        whole = whole or [np.empty((len(sounds), *array.shape[1:]), array.dtype) for array in arrays]
        for place, array in zip(whole, arrays, strict=True):
            place[row] = array[0]
    return whole


def _ratio_db(one: Pool, other: Pool) -> float:
    """How much larger the first error is than the second, dB; infinite where there is no second."""
    return float(10 * np.log10(one.noise / other.noise)) if other.noise else float("inf")


def pooled(pools) -> Pool:
    """Several pools as one."""
    pools = list(pools)
    return Pool(sum(pool.noise for pool in pools), sum(pool.signal for pool in pools))


def _pasts(positions: int) -> list[int]:
    """0 and 1 (where exporters go wrong), the middle, and the longest that leaves room for the longest sequence."""
    return [0, 1, positions // 4, positions - max(SWEEP_SEQUENCE)]


def _one_shape(graphs: OnnxWhisper, long: LongAnswers, rows: list[int], cross: list, past: int, sequence: int) -> Pool:
    cache = [np.ascontiguousarray(array[rows, :, :past]) for array in long.caches]
    test = _run(graphs.step, long.ids[rows, past:past + sequence], cross, cache, count=2)[0]
    return Pool().add(test, np.stack([long.logits[past + i][rows] for i in range(sequence)], axis=1))


def long_run(runtime, sounds: list[Sound], seed: int = 0, judged: Arithmetic = BOTH) -> LongRun:
    """Text up to the decoder's last position through PyTorch, for every recording and beam of the sweep.

    One beam at a time, each copied to its place: cross caches and copies of all would be as large as the weights.
    """
    ids = _long_ids(sounds, runtime.rules, seed)
    pasts = _pasts(runtime.rules.max_positions)
    looked_at = sorted({past + i for past in pasts for i in range(max(SWEEP_SEQUENCE))})
    whole: list[np.ndarray] = []
    errors: dict[str, Pool] = defaultdict(Pool)
    with reference.lean_attention(runtime.model):
        for row in console.counted(range(len(ids)), "reference: texts as long as the decoder takes", "text"):
            asked = runtime.model, ids[row:row + 1], sounds[row // max(SWEEP_BEAMS)].hidden, looked_at
            with judged.right(runtime.model):
                right = _long_answer(*asked)
            whole = whole or [np.empty((len(ids), *part.shape[1:]), part.dtype) for part in right]
            for place, part in zip(whole, right, strict=True):
                place[row] = part[0]
            for precision, context in judged.yardsticks(runtime.model).items():
                with context:
                    errors[precision].add(_long_answer(*asked)[0], right[0])
            machine.give_back_memory()  # what was in float64, before the next row
    return LongRun(ids, looked_at, whole, dict(errors))


def _long_ids(sounds: list[Sound], rules, seed: int) -> np.ndarray:
    """int64 [recordings x beams, positions]: each recording's prompt, then what PyTorch heard in speech, repeated.

    Every beam begins at another word. Real words, because random tokens drive a real model to where it never is; of a
    model that says next to nothing random ones have to do.
    """
    random, positions = np.random.default_rng(seed), rules.max_positions
    words = np.array([token for sound in sounds if sound.is_speech for token in sound.result.tokens], np.int64)
    if len(set(words.tolist())) < FEW_WORDS:
        words = random.integers(0, rules.vocab_size, positions)
    rows = []
    for sound, _ in itertools.product(sounds[:max(SWEEP_AUDIO)], range(max(SWEEP_BEAMS))):
        said = np.roll(words, random.integers(len(words)))
        rows.append([*sound.result.prompt, *np.resize(said, positions - sound.prompt_length)])
    return np.array(rows, np.int64)


def _long_answer(model, ids: np.ndarray, hidden: np.ndarray, looked_at: list[int]) -> list[np.ndarray]:
    """Logits [1, looked_at, vocabulary] and self caches for one beam of a recording, float32."""
    import torch

    with torch.inference_mode():
        output = model.model.decoder(input_ids=torch.from_numpy(ids), past_key_values=_self_caches_alone(),
                                     use_cache=True, encoder_hidden_states=torch.from_numpy(hidden))
        logits = model.proj_out(output.last_hidden_state[:, looked_at])
    layers = output.past_key_values.self_attention_cache.layers
    caches = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
    return [tensor.float().numpy() for tensor in (logits, *caches)]


def _self_caches_alone():
    """An empty cache that forgets the cross caches: of all layers in float64 they are 74 MB in base."""
    from transformers import DynamicCache, EncoderDecoderCache

    class Forgetful(DynamicCache):
        """What attention is given is what it needs now."""

        def update(self, key_states, value_states, *_):
            """Both, as they came."""
            return key_states, value_states

    return EncoderDecoderCache(DynamicCache(), Forgetful())


# Pieces --------------------------------------------------------------------------------------------------------------

def pieces(graphs: OnnxWhisper, sounds: list[Sound], precision: str, seed: int = 0) -> list[Gate]:
    """The same tokens at once, one by one, and in chunks of 7 through the same graph: the cache forgets nothing.

    Not for int8 and int4, where tokens that go together may share a scale and so depend on each other: their logits
    are compared with PyTorch's one by one, from a cache that grows.
    """
    if precision not in ARITHMETIC:
        return []
    errors, own = piece_errors(graphs, sounds, seed), own_errors(sounds, precision)["logits"]
    worst = max(errors, key=errors.get)
    return [below("prompt at once = in pieces", errors[worst] / own, ROUNDING[precision],
                  f"worst in chunks of {worst}: logits differ by {errors[worst]:.1e}, PyTorch errs by {own:.1e}",
                  "decoder", TIMES)]


def piece_errors(graphs: OnnxWhisper, sounds: list[Sound], seed: int = 0) -> dict[int, float]:
    """Size of the pieces -> relative difference of the logits from those of all tokens at once."""
    cross = sounds[0].cross
    ids = _long_ids(sounds, graphs.rules, seed)[:1, :PIECE_TOKENS]
    whole = _run(graphs.step, ids, cross, None, count=2)[0]
    return {step: relative_error(_in_pieces(graphs, ids, cross, step), whole) for step in (1, PIECE)}


def _in_pieces(graphs: OnnxWhisper, ids: np.ndarray, cross: list[np.ndarray], size: int) -> np.ndarray:
    cache, found = None, []
    for start in range(0, ids.shape[1], size):
        logits, cache = _run(graphs.step, ids[:, start:start + size], cross, cache, count=2)
        if not np.ndim(logits):
            return logits
        found.append(logits)
    return np.concatenate(found, axis=1)


# Layer by layer -------------------------------------------------------------------------------------------------------

# A gate on every layer by itself: each is given what PyTorch's layer was given, so no error hides behind another's.
#
# In int8 and int4 the errors of all layers add up, and a fault in one of them may drown in the sum. So the graph is cut
# where a LayerNorm reads the residual stream, before every attention and every feed-forward network: each part gets
# PyTorch's values for its input, and what it adds to the stream is compared with what PyTorch's part adds. One run does
# all parts, since none waits for another.

NORM = "/LayerNormalization"
EMBEDDING = "embedding and positions"  # of the sound: both convolutions, whose weights are int8, computed in float
TOKENS = 6  # of an answer, for the decoder; each alone, as in a transcription


def check_layers(pair: dict[str, Path], sounds: list[Sound], precision: str, threads: int | None = None) -> list[Gate]:
    """The worst part of each graph on speech; the embedding and positions also in shorter windows."""
    sound = next((sound for sound in sounds if sound.stream), None)
    if sound is None:
        return []
    gates = []
    for part, listen in (("encoder", encoder_layers), ("decoder", decoder_layers)):
        with layers_alone(pair[part], threads) as (run, places):
            levels = {name: pool.decibels for name, pool in listen(run, places, sound).items()}
            shorter = [listen(run, places, one)[EMBEDDING].decibels for one in sounds if one.is_short and one.stream]
        first = min([levels.pop(EMBEDDING), *shorter])
        worst = min(levels, key=levels.get)
        gates += [above(f"embedding and positions: {part}", first, EMBEDDED, "signal over error", part, "dB"),
                  above(f"layer by layer: {part}", levels[worst], LAYER[precision],
                        f"worst of {len(levels)} parts: {worst}, signal over error", part, "dB")]
    return gates


@contextlib.contextmanager
def layers_alone(path: Path, threads: int | None = None) -> Iterator[tuple]:
    """A session of the graph cut into its parts, and LayerNorm -> the value in the stream that it read."""
    model = graphs.load(path)
    places = {node.name.removesuffix(NORM): node.inputs[0] for node in model.graph if node.name.endswith(NORM)}
    for norm, value in places.items():
        given = ir.Value(name=f"given/{norm}", type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)
        for node, index in list(value.uses()):
            node.replace_input_with(index, given)
        model.graph.inputs.append(given)
        model.graph.outputs.append(value)
    copy = path.with_name(f"{path.stem}.layers.onnx")  # beside its sidecar
    try:
        wire.write(model, copy, inline=False)
        names = {norm: value.name for norm, value in places.items()}
        del model
        yield session(copy, threads), names
    finally:
        copy.unlink(missing_ok=True)


def encoder_layers(run, places: dict[str, str], sound: Sound) -> dict[str, Pool]:
    """Part -> error of what it adds to the stream; the cross caches are parts too."""
    feeds = {"input_features": sound.features, **{f"given/{norm}": sound.stream[norm] for norm in places}}
    cross = [output.name for output in run.get_outputs() if "_cross_" in output.name]
    found = run.run([*places.values(), *cross], feeds)
    pools = {name: Pool() for name in layer_parts(places)}
    compare_layer(pools, list(places), found, {norm: sound.stream[norm] for norm in places})
    made = caches.to_float(found[len(places):])
    for i, (test, right) in enumerate(zip(made, sound.cross, strict=True)):
        pools[f"cross cache, {('key', 'value')[i % 2]} of layer {i // 2}"] = Pool().add(test, right)
    return pools


def decoder_layers(run, places: dict[str, str], sound: Sound) -> dict[str, Pool]:
    """Part -> error of what it adds to the stream, over some tokens of PyTorch's answer; the logits are a part too."""
    inputs = [value.name for value in run.get_inputs()]
    own = [name for name in inputs if "_self_" in name]
    fixed = cross_feeds(inputs, sound.cross)
    news = [name.replace("past", "present") for name in own]
    pools, wanted = {name: Pool() for name in [*layer_parts(places), "logits", *news]}, sound.logits
    last = sound.forced.shape[1] - 1
    for token in np.unique(np.linspace(min(sound.prompt_length, last), last, TOKENS).astype(int)).tolist():
        here = {norm: sound.stream[norm][:, token:token + 1] for norm in places}
        past = {name: cache[:, :, :token] for name, cache in zip(own, sound.self_caches, strict=True)}
        feeds = {"input_ids": sound.forced[:, token:token + 1], **past, **fixed,
                 **{f"given/{norm}": np.ascontiguousarray(value) for norm, value in here.items()}}
        found = run.run([*places.values(), "logits", *news], feeds)
        compare_layer(pools, list(places), found, here)
        logits, *presents = found[len(places):]
        for name, test, right in zip(news, presents, sound.self_caches, strict=True):
            pools[name].add(test[:, :, -1:], right[:, :, token:token + 1])
        pools["logits"].add(logits, wanted[:, token:token + 1])
    return pools


def layer_parts(places) -> list[str]:
    """The embedding, then what lies behind each LayerNorm but the last."""
    return [EMBEDDING, *(norm.removesuffix("_layer_norm").replace(".final", ".fc1 and fc2")
                                         for norm in list(places)[:-1])]


def compare_layer(pools: dict[str, Pool], norms: list[str], found: list, right: dict[str, np.ndarray]) -> None:
    """What each part adds: its value minus the one it was given, PyTorch's likewise."""
    before = 0.0
    for name, norm, value in zip(pools, norms, found, strict=False):
        pools[name].add(value - before, right[norm] - before)
        before = right[norm]
