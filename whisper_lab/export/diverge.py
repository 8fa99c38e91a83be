"""Where does a graph that failed first leave PyTorch's path? Bisection over the modules that its nodes are named after.

Hooks on Hugging Face's modules give the right values; the same places of the graph are made outputs and compared, first
after each layer, then inside the first layer that is off.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from whisper_lab.export import graphs, naming, reference
from whisper_lab.export.gates import ARITHMETIC, relative_error
from whisper_lab.export.pair import cross_feeds, session_of
from whisper_lab.export.reference import BOTH, Sound

COARSE = re.compile(r"((encoder|decoder)\.(conv\d|layers\.\d+|layer_norm|embed_tokens)"
                    r"|.*encoder_attn\.[kv]_proj|proj_out)$")
JUMP = 4  # a place is off where its error is so many times what was to be expected there
QUANTIZED = {"int8": 0.05, "int4": 0.15}  # relative error of a single quantized layer, about


def locate(path: Path, part: str, precision: str, runtime, sound: Sound) -> str:
    """`decoder.layers.3.fc1/MatMul: error 0.8` of the first node that is off, or the one with the largest error."""
    model = graphs.load(path)
    places = naming.module_outputs(output.name for node in model.graph for output in node.outputs if output.name)
    if part == "decoder":
        places["proj_out"] = "logits"
    coarse = _errors(path, part, {p: places[p] for p in places if COARSE.match(p)}, precision, runtime, sound)
    first = _first_off(coarse)
    if first is None:
        place = max(coarse, key=lambda place: coarse[place][0], default=None)
        return (f"no node is off by itself; largest error {coarse[place][0]:.2g} at {places[place]}"
                if place else "unknown")
    inside = {p: places[p] for p in places if p == first or p.startswith(f"{first}.")}
    fine = _errors(path, part, inside, precision, runtime, sound)
    place = _first_off(fine) or first
    return f"{places[place]} (relative error {(fine | {first: coarse[first]})[place][0]:.2g})"


def _first_off(errors: dict[str, tuple[float, float]]) -> str | None:
    """The first place whose error is far larger than expected: there, or at any place before."""
    worst = 0.0
    for place, (error, expected) in errors.items():
        if error > JUMP * max(expected, worst if expected in QUANTIZED.values() else 0):
            return place
        worst = max(worst, error)
    return None


def _errors(path: Path, part: str, places: dict[str, str], precision: str, runtime,
            sound: Sound) -> dict[str, tuple[float, float]]:
    """Place -> relative error of the graph's value, and what is to be expected: PyTorch's own error, where known."""
    with reference.in_float64(runtime.model):
        right = _hooked(part, set(places), runtime, sound)
    own = {}
    if precision in ARITHMETIC:
        with BOTH.yardsticks(runtime.model)[precision]:
            own = _hooked(part, set(places), runtime, sound)
    wanted = {place: value for place, value in places.items() if place in right}
    seen = _exposed(path, part, list(wanted.values()), sound)
    found = {}
    for place, value in wanted.items():
        if value in seen:
            expected = (max(relative_error(own[place], right[place]), reference.UNIT[precision]) if own
                        else QUANTIZED[precision])
            test = _own_channels(seen[value].astype(np.float32), right[place].shape[-1])
            found[place] = relative_error(test, right[place]), expected
    return found


def _own_channels(array: np.ndarray, width: int) -> np.ndarray:
    """[..., width + heads] -> [..., width]: without the channel that wrappers.SoundAttention gives each head."""
    if not (heads := array.shape[-1] - width):
        return array
    return array.reshape(*array.shape[:-1], heads, -1)[..., :-1].reshape(*array.shape[:-1], width)


def _hooked(part: str, places: set[str], runtime, sound: Sound) -> dict[str, np.ndarray]:
    """Outputs of Hugging Face's modules of these paths for one sound."""
    import torch

    modules = {name.removeprefix("model."): module for name, module in runtime.model.named_modules()}
    with _outputs({place: modules[place] for place in places if place in modules}) as found, torch.inference_mode():
        if part == "encoder":
            states = torch.from_numpy(runtime.encode(sound.features).numpy())
            for place in places:
                if place.startswith("decoder."):  # the cross caches, which the encoder's graph ends in
                    modules[place](states)
        else:
            runtime.step(sound.forced, torch.from_numpy(sound.hidden), None)
    for place in [place for place in found if place.endswith("q_proj")]:
        scaling = modules[place.rpartition(".")[0]].scaling
        if np.frexp(scaling)[0] == 0.5:  # folded into the weight: see wrappers.Attention
            found[place] = found[place] * scaling
    return found


@contextlib.contextmanager
def _outputs(modules: dict) -> Iterator[dict[str, np.ndarray]]:
    """Place -> what its module gave last, while this lasts; modules: place -> module."""
    found: dict[str, np.ndarray] = {}

    def hook(place):
        def keep(module, inputs, output):
            found[place] = (output[0] if isinstance(output, tuple) else output).detach().numpy()
        return keep

    handles = [module.register_forward_hook(hook(place)) for place, module in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _exposed(path: Path, part: str, names: list[str], sound: Sound) -> dict[str, np.ndarray]:
    """Values of the graph, made outputs in a copy, which is in memory alone."""
    model = graphs.load(path)
    outputs = {value.name for value in model.graph.outputs}
    values = {value.name: value for node in model.graph for value in node.outputs}
    exposed = [values[name] for name in names if values[name].type is not None]
    model.graph.outputs.extend(value for value in exposed if value.name not in outputs)
    try:
        run = session_of(ir.to_proto(model).SerializeToString(), path)
        feeds = {"input_features": sound.features} if part == "encoder" else _decoder_feeds(run, sound)
        asked = [value.name for value in exposed]
        return dict(zip(asked, run.run(asked, feeds), strict=True))
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        return {}


def _decoder_feeds(run, sound: Sound) -> dict[str, np.ndarray]:
    names = [value.name for value in run.get_inputs()]
    _, heads, _, width = sound.cross[0].shape
    empty = np.zeros((1, heads, 0, width), np.float32)
    feeds = {name: empty for name in names if "_self_" in name}
    return feeds | cross_feeds(names, sound.cross) | {"input_ids": sound.forced}
