"""Two graphs with the inputs and outputs of script 03's pair, small enough to make and run in a blink.

The decoder's next token is the sum of all tokens that it was ever given and of the sound, modulo MODULUS. A token that
is fed twice, or a cache that gets lost, therefore changes every later one.
"""

import numpy as np

from whisper_lab.console import LabError

MODULUS = 23
MOST_CALLS = 100


class Watched:
    """An onnxruntime session that notes what it is given."""

    def __init__(self, model):
        import onnxruntime

        self.session, self.calls = onnxruntime.InferenceSession(model.SerializeToString()), []

    def run(self, names, feeds: dict) -> list[np.ndarray]:
        """Raises LabError after MOST_CALLS: a loop that does not end."""
        self.calls.append(feeds)
        if len(self.calls) > MOST_CALLS:
            raise LabError(f"the loop does not end: a graph was run {MOST_CALLS} times",
                           "stop at the end token, and at the latest after `most` tokens")
        return self.session.run(names, feeds)

    def get_inputs(self):
        return self.session.get_inputs()

    def get_outputs(self):
        return self.session.get_outputs()


def toy(heard: int) -> tuple[Watched, Watched, np.ndarray]:
    """Encoder, decoder, and features whose sum is `heard`."""
    features = np.zeros((1, 4, 10), np.float32)
    features[0, 1, 2] = heard
    return Watched(_encoder()), Watched(_decoder()), features


def _encoder():
    """The sum of the features is the one key of the cross-attention."""
    from onnx import TensorProto, helper

    nodes = [helper.make_node("ReduceSum", ["input_features", "axes"], ["sum"], keepdims=1),
             helper.make_node("Identity", ["sum"], ["encoder_hidden_states"]),
             helper.make_node("Unsqueeze", ["sum", "last"], ["present_key_cross_0"])]
    inputs = [helper.make_tensor_value_info("input_features", TensorProto.FLOAT, ["batch", 4, 10])]
    outputs = [helper.make_tensor_value_info("encoder_hidden_states", TensorProto.FLOAT, ["batch", 1, 1]),
               helper.make_tensor_value_info("present_key_cross_0", TensorProto.FLOAT, ["batch", 1, 1, 1])]
    constants = [_constant("axes", [1, 2]), _constant("last", [3])]
    return _model(nodes, inputs, outputs, constants)


def _decoder():
    """logits[0, i, v] is largest where v is the sum up to token i, modulo MODULUS."""
    from onnx import TensorProto, helper

    node = helper.make_node
    nodes = [node("Cast", ["input_ids"], ["numbers"], to=TensorProto.FLOAT),
             node("Unsqueeze", ["numbers", "around"], ["new"]),
             node("Concat", ["past_key_self_0", "new"], ["present_key_self_0"], axis=2),
             node("ReduceSum", ["past_key_self_0", "places"], ["before"], keepdims=1),
             node("CumSum", ["new", "place"], ["running"]),
             node("Add", ["running", "before"], ["said"]),
             node("Add", ["said", "past_key_cross_0"], ["total"]),
             node("Mod", ["total", "modulus"], ["wanted"], fmod=1),
             node("Squeeze", ["wanted", "heads"], ["column"]),
             node("Sub", ["column", "vocabulary"], ["away"]),
             node("Abs", ["away"], ["distance"]),
             node("Neg", ["distance"], ["logits"])]
    cache = ["batch", 1, "past", 1]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
              helper.make_tensor_value_info("past_key_self_0", TensorProto.FLOAT, cache),
              helper.make_tensor_value_info("past_key_cross_0", TensorProto.FLOAT, ["audio", 1, 1, 1])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", MODULUS]),
               helper.make_tensor_value_info("present_key_self_0", TensorProto.FLOAT, ["batch", 1, "longer", 1])]
    constants = [_constant("around", [1, 3]), _constant("places", [2]), _constant("heads", [1]),
                 _constant("place", 2), _constant("modulus", np.float32(MODULUS)),
                 _constant("vocabulary", np.arange(MODULUS, dtype=np.float32))]
    return _model(nodes, inputs, outputs, constants)


def _constant(name: str, value):
    from onnx import numpy_helper

    array = value if isinstance(value, np.ndarray | np.generic) else np.array(value, np.int64)
    return numpy_helper.from_array(np.asarray(array), name)


def _model(nodes: list, inputs: list, outputs: list, constants: list):
    from onnx import helper

    graph = helper.make_graph(nodes, "toy", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
