"""A gate on every layer by itself: each is given what PyTorch's layer was given, so no error hides behind another's.

In int8 and int4 the errors of all layers add up, and a fault in one of them may drown in the sum. So the graph is cut
where a LayerNorm reads the residual stream, before every attention and every feed-forward network: each part gets
PyTorch's values for its input, and what it adds to the stream is compared with what PyTorch's part adds. One run does
all parts, since none waits for another.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from whisper_lab.export import graphs, int8_cache, naming
from whisper_lab.export.gates import EMBEDDED, LAYER, Gate, above
from whisper_lab.export.pair import session
from whisper_lab.export.reference import Sound
from whisper_lab.export.rounding import Pool

NORM = "/LayerNormalization"
EMBEDDING = "embedding and positions"  # of the sound: both convolutions, whose weights are int8, computed in float
TOKENS = 6  # of an answer, for the decoder; each alone, as in a transcription


def check(pair: dict[str, Path], sounds: list[Sound], precision: str, threads: int | None = None) -> list[Gate]:
    """The worst part of each graph on speech."""
    sound = next((sound for sound in sounds if sound.stream), None)
    if sound is None:
        return []
    gates = []
    for part, listen in (("encoder", encoder), ("decoder", decoder)):
        with alone(pair[part], threads) as (run, places):
            levels = {name: pool.decibels for name, pool in listen(run, places, sound).items()}
        first = levels.pop(EMBEDDING)
        worst = min(levels, key=levels.get)
        gates += [above(f"embedding and positions: {part}", first, EMBEDDED, "signal over error", part, "dB"),
                  above(f"layer by layer: {part}", levels[worst], LAYER[precision],
                        f"worst of {len(levels)} parts: {worst}, signal over error", part, "dB")]
    return gates


@contextlib.contextmanager
def alone(path: Path, threads: int | None = None) -> Iterator[tuple]:
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
        ir.save(model, copy)
        names = {norm: value.name for norm, value in places.items()}
        del model
        yield session(copy, threads), names
    finally:
        copy.unlink(missing_ok=True)


def encoder(run, places: dict[str, str], sound: Sound) -> dict[str, Pool]:
    """Part -> error of what it adds to the stream; the cross caches are parts too."""
    feeds = {"input_features": sound.features, **{f"given/{norm}": sound.stream[norm] for norm in places}}
    cross = [output.name for output in run.get_outputs() if "_cross" in output.name]
    found = run.run([*places.values(), *cross], feeds)
    pools = {name: Pool() for name in parts(places)}
    compare(pools, list(places), found, {norm: sound.stream[norm] for norm in places})
    made = found[len(places):]
    made = int8_cache.unpack(made) if naming.cross_scale("present") in cross else made
    for i, (test, right) in enumerate(zip(made, sound.cross, strict=True)):
        pools[f"cross cache, {('key', 'value')[i % 2]} of layer {i // 2}"] = Pool().add(test, right)
    return pools


def decoder(run, places: dict[str, str], sound: Sound) -> dict[str, Pool]:
    """Part -> error of what it adds to the stream, over some tokens of PyTorch's answer; the logits are a part too."""
    inputs = [value.name for value in run.get_inputs()]
    packed = naming.cross_scale("past") in inputs
    fixed = dict(zip([name for name in inputs if "_cross" in name],
                     int8_cache.pack(sound.cross) if packed else sound.cross, strict=True))
    own = [name for name in inputs if "_self_" in name]
    news = [name.replace("past", "present") for name in own]
    caches = {name: Pool() for name in news}
    pools = {name: Pool() for name in parts(places)} | {"logits": Pool()} | caches
    last = sound.forced.shape[1] - 1
    for token in np.unique(np.linspace(min(sound.prompt_length, last), last, TOKENS).astype(int)).tolist():
        here = {norm: sound.stream[norm][:, token:token + 1] for norm in places}
        past = {name: cache[:, :, :token] for name, cache in zip(own, sound.self_caches, strict=True)}
        feeds = {"input_ids": sound.forced[:, token:token + 1], **past, **fixed,
                 **{f"given/{norm}": np.ascontiguousarray(value) for norm, value in here.items()}}
        found = run.run([*places.values(), "logits", *news], feeds)
        compare(pools, list(places), found, here)
        logits, *presents = found[len(places):]
        for name, test, right in zip(news, presents, sound.self_caches, strict=True):
            pools[name].add(test[:, :, -1:], right[:, :, token:token + 1])
        pools["logits"].add(logits, sound.logits[:, token:token + 1])
    return pools


def parts(places) -> list[str]:
    """The embedding, then what lies behind each LayerNorm but the last."""
    return [EMBEDDING, *(norm.removesuffix("_layer_norm").replace(".final", ".fc1 and fc2")
                                         for norm in list(places)[:-1])]


def compare(pools: dict[str, Pool], norms: list[str], found: list, right: dict[str, np.ndarray]) -> None:
    """What each part adds: its value minus the one it was given, PyTorch's likewise."""
    before = 0.0
    for name, norm, value in zip(pools, norms, found, strict=False):
        pools[name].add(value - before, right[norm] - before)
        before = right[norm]
