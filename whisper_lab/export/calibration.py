"""Calibration: what the linear layers are fed while real sound goes through, each channel's range and a sample of rows.

Random weights and random inputs have no outliers; trained Whispers do. Which channels they are does not depend on the
recording, so the clips in media/ are enough to find them. The float32 graph itself is run, with a few more outputs.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from whisper_lab import machine
from whisper_lab.export import graphs, wire
from whisper_lab.export.pair import Closed, session
from whisper_lab.export.reference import MEDIA, vowels
from whisper_lab.features import FeatureSpec, log_mel

TOKENS = 48  # that the decoder writes down for each window
ROWS = 96  # positions kept of each window: enough to weigh errors by, small enough for the largest model


@dataclass(frozen=True)
class Activations:
    """What a linear layer was fed over all positions of all windows, float32."""

    low: np.ndarray  # [channels] the smallest value of each channel
    high: np.ndarray  # [channels] the largest
    rows: np.ndarray  # [positions, channels] about every 16th position of whisper-base

    @property
    def largest(self) -> np.ndarray:
        """[channels] the largest magnitude."""
        return np.maximum(-self.low, self.high)


def windows(spec: FeatureSpec, seed: int = 0) -> list[np.ndarray]:
    """Features float32 [1, n_mels, frames] of dense speech, of one clip and the silence after it, of noise at -30 dBFS.

    The silence after speech has to be there: in it Whisper writes its largest activations.
    """
    noise = np.random.default_rng(seed).standard_normal(spec.n_samples).astype(np.float32) * 10 ** (-30 / 20)
    clips = _clips(spec)
    return [log_mel(samples[:spec.n_samples], spec)[None] for samples in (np.concatenate(clips), clips[0], noise)]


def _clips(spec: FeatureSpec) -> list[np.ndarray]:
    """The clips in media/, float32 [samples]; synthetic vowels where there are none."""
    from whisper_lab import audio

    return [audio.load(path).samples for path in sorted(MEDIA.glob("*.wav"))] or [vowels(spec.sampling_rate)]


def decoder_inputs(pair: dict[str, Path], windows: list[np.ndarray], runtime, threads: int | None = None) -> list[dict]:
    """What a float32 decoder is fed while it writes down these windows: its own tokens, all at once, and the caches.

    runtime: whose token rules to use (TorchWhisper).
    """
    from whisper_lab.decoding import Options, decode_encoded
    from whisper_lab.onnx_whisper import OnnxWhisper

    graphs.release_memory()
    closed, encoded = _encode(pair["encoder"], windows, threads)
    graph, feeds = OnnxWhisper.of_sessions(closed, session(pair["decoder"], threads, packed=False), runtime), []
    options = Options(language=next(iter(runtime.rules.languages), None), temperatures=(0.0,),
                      max_tokens=min(TOKENS, runtime.rules.max_positions // 2))
    for cross in encoded:
        result = decode_encoded(graph, cross, 1, options)[0]
        feeds.append(graph.feeds(np.array([[*result.prompt, *result.tokens]], np.int64), cross, None))
    del graph
    machine.give_back_memory()
    return feeds


def _encode(path: Path, windows: list[np.ndarray], threads: int | None) -> tuple[Closed, list[list[np.ndarray]]]:
    """What the encoder's session said of itself, and the cross caches of each window: it is closed before a decoder's
    is opened, as the weights of both would be in memory twice, packed for the processor and not."""
    run = session(path, threads, packed=False)
    closed = Closed(run)
    encoded = []
    for window in windows:
        encoded.append(run.run(closed.outputs[1:], {closed.inputs[0]: window}))
        machine.give_back_memory()
    del run
    machine.give_back_memory()
    return closed, encoded


def activations(path: Path, feeds: list[dict[str, np.ndarray]], threads: int | None = None) -> dict[str, Activations]:
    """Run a float32 graph on these inputs; returns, by the name of the value, what its linear layers are fed.

    The ranges are made inside the graph: all activations of a large encoder are gigabytes.
    """
    model = graphs.load(path)
    names = list(dict.fromkeys(node.inputs[0].name for node in graphs.weight_matmuls(model)))
    heard = feeds[0].get("input_features")  # by the encoder: it makes a position of two frames
    outputs = _add_outputs(model, names, 1 if heard is None else max(1, heard.shape[2] // 2 // ROWS))
    copy = path.with_name(f"{path.stem}.calibration.onnx")  # beside it: a sidecar is found
    try:
        wire.write(model, copy, inline=False)
        del model  # with the weights that the session reads again
        graphs.release_memory()
        run = session(copy, threads, packed=False)
        found = []
        for one in feeds:
            found.append(run.run(outputs, one))
            machine.give_back_memory()  # of attention; the next window's is larger by what is kept here
    finally:
        copy.unlink(missing_ok=True)
    del run
    machine.give_back_memory()
    return {name: _over_all([one[3 * i:3 * i + 3] for one in found]) for i, name in enumerate(names)}


def _add_outputs(model: ir.Model, names: list[str], step: int) -> list[str]:
    """Three outputs for each value, in place of the graph's own: its channels' lowest and highest, and every `step`th
    of its positions; of a decoder's few tokens all are kept."""
    values = {value.name: value for node in model.graph for value in node.outputs}
    axes = graphs.constant(model, "calibration/axes", np.array([0, 1]))
    first, end, axis = (graphs.constant(model, f"calibration/{what}", np.array([number]))
                        for what, number in (("first", 0), ("end", np.iinfo(np.int64).max), ("axis", 1)))
    every, outputs = graphs.constant(model, "calibration/every", np.array([step])), []
    model.graph.outputs.clear()  # the logits alone would take the embedding once more, transposed
    for name in names:
        for op, inputs, attributes in (("ReduceMin", [axes], {"keepdims": 0}), ("ReduceMax", [axes], {"keepdims": 0}),
                                       ("Slice", [first, end, axis, every], {})):
            node = ir.node(op, [values[name], *inputs], attributes, name=f"{name}/{op}")
            node.outputs[0].name, node.outputs[0].type = node.name, ir.TensorType(ir.DataType.FLOAT)
            model.graph.append(node)
            model.graph.outputs.append(node.outputs[0])
            outputs.append(node.name)
    return outputs


def _over_all(found: list[list[np.ndarray]]) -> Activations:
    lows, highs, rows = zip(*found, strict=True)
    return Activations(np.min(lows, axis=0), np.max(highs, axis=0), np.concatenate([part[0] for part in rows]))
