"""The structure of a graph without the numbers: what Netron needs to draw it, at a hundredth of the size."""

import onnx

from whisper_lab.compare.graph_facts import elements

KEPT = 64  # elements: shapes, axes and single numbers stay, they are part of the structure
DATA = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data",
        "external_data")


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose larger tensors have a type and a shape but no data: to be shown, not run; the metadata say so."""
    slim = onnx.ModelProto()
    slim.CopyFrom(model)
    inside = [attribute.t for node in slim.graph.node for attribute in node.attribute if attribute.HasField("t")]
    for tensor in [*slim.graph.initializer, *inside]:
        if elements(tensor) > KEPT:
            for field in DATA:
                tensor.ClearField(field)
            tensor.ClearField("data_location")
    entry = slim.metadata_props.add()
    entry.key, entry.value = "slim", "weights removed for showing; not to be run"
    return slim
