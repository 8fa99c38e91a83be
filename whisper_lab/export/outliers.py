"""Outlier channels: a few inputs of a layer that are a hundred times louder than the rest, and what int8 does to them.

DynamicQuantizeLinear lays 256 steps over the whole range of an activation. In the trained Whispers the second
feed-forward layer of the upper encoder blocks gets about ten channels of 2,048 that reach 80 or 190, where the median
channel never passes 1.5: one step is then as large as most of what is to be told apart, and words are lost. So it is
in the decoder with the first token of a prompt, whose scale all tokens of the prompt share.

So the loud channels are left out of the 8-bit product and computed beside it in float, as LLM.int8() does (Dettmers et
al. 2022, arXiv 2208.07339): Mul by 0 silences them in one path, Gather picks them for the other, Add joins both.
The float path is a product of 32 channels: nothing beside 2,048. Its weights are stored in int8, as the convolutions'.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from whisper_lab.export import graphs, int8, smooth
from whisper_lab.export.calibration import Inputs

SHARE = 64  # one channel in 64 may be computed in float: 32 of whisper-base's 2,048
# Times louder than the loudest of the others: steps that much finer. More is asked of a decoder's layer: beside its
# product of one row, even four small nodes cost time.
LOUD = {"encoder": 2.0, "decoder": 4.0}
FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class Outliers:
    """The loud channels of one layer's input, and why they are taken for outliers."""

    layer: str  # encoder.layers.4.fc2
    channels: list[int]
    largest: float  # of all channels
    others: float  # the largest activation of the channels that stay in int8
    median: float  # the median channel's largest activation

    @property
    def reason(self) -> str:
        """For the student and the metadata."""
        return (f"largest activation {self.largest:.3g}, of the other channels {self.others:.3g}, "
                f"median channel's {self.median:.2g}")


def split(model: ir.Model, heard: dict[str, Inputs], loud: float = LOUD["encoder"]) -> list[Outliers]:
    """Take the outlier channels of a float32 graph's layers out of what will become int8; returns what was taken.

    Only where the input feeds this layer alone, and was not smoothed: that costs nothing (smooth.py).
    """
    found = []
    for node in graphs.weight_matmuls(model):
        value = node.inputs[0]  # a smoothed one has another name than what was heard
        alone = len(value.uses()) == 1 and not value.is_graph_output()
        if value.name in heard and alone and node.inputs[1].is_initializer():  # the embedding has another use
            outliers = find(node.name.rpartition("/")[0], heard[value.name], loud)
            if outliers is not None:
                _beside(model, node, outliers)
                found.append(outliers)
    return found


def find(layer: str, inputs: Inputs, loud: float) -> Outliers | None:
    """The loudest channels, where the first is `loud` times louder than all others; None where it is not."""
    largest = inputs.largest
    count = len(largest) // SHARE
    order = np.argsort(-largest, kind="stable")
    if not count or largest[order[0]] < loud * largest[order[count]]:
        return None
    return Outliers(layer, sorted(order[:count].tolist()), float(largest[order[0]]), float(largest[order[count]]),
                    float(np.median(largest)))


def _beside(model: ir.Model, node: ir.Node, outliers: Outliers) -> None:
    """x -> Mul(0 or 1) -> MatMul, plus Gather -> MatMul on the channels' own rows of the weight."""
    x, path, weight, chosen = node.inputs[0], f"{outliers.layer}/outliers", node.inputs[1], outliers.channels
    quiet = np.ones(int(weight.shape[0]), np.float32)
    quiet[chosen] = 0
    silenced = graphs.insert(model, node, "Mul", [x, graphs.constant(model, f"{path}/silence_scale", quiet)],
                             f"{path}/silenced", dtype=FLOAT)
    silenced.shape = x.shape
    channels = graphs.constant(model, f"{path}/channels", np.array(chosen))
    loud = graphs.insert(model, node, "Gather", [x, channels], f"{path}/loud", dtype=FLOAT, axis=-1)
    rows = int8.store_rows(model, node, f"{path}.weight", f"{path}/MatMul_weight", weight.const_value.numpy()[chosen])
    beside = graphs.insert(model, node, "MatMul", [loud, rows], f"{path}/MatMul", dtype=FLOAT)
    # The rows of silenced channels become 0: they shall not widen the steps of their columns.
    smooth.scale(weight, quiet[:, None])
    node.replace_input_with(0, silenced)
    _join(model, node, beside, path)


def _join(model: ir.Model, node: ir.Node, beside: ir.Value, path: str) -> None:
    """Add the float path behind the bias; the sum takes over the name of the module's output."""
    last = next((user.outputs[0] for user, _ in node.outputs[0].uses() if user.op_type == "Add"), node.outputs[0])
    readers = list(last.uses())
    add = ir.node("Add", [last, beside], name=f"{path}/Add")
    model.graph.insert_after(last.producer(), add)
    for reader, index in readers:
        reader.replace_input_with(index, add.outputs[0])
    add.outputs[0].shape, add.outputs[0].type = last.shape, last.type
    add.outputs[0].name, last.name = last.name, f"{path}/without"
