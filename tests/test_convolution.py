"""The encoder's second convolution as two products: the same numbers for windows of any even length."""

import numpy as np
import onnxruntime
import pytest

from whisper_lab import names
from whisper_lab.export import convolution, graphs


@pytest.fixture(scope="module")
def encoders(nano_export, tmp_path_factory) -> tuple:
    """nano's in float32: as it is, and with products."""
    source = names.pair(nano_export / "graphs", "whisper-nano", "fp32")["encoder"]
    path = tmp_path_factory.mktemp("products") / "encoder.onnx"
    model = graphs.load(source)
    convolution.as_products(model)
    graphs.save(model, path)
    return source, path


@pytest.mark.parametrize("frames", [2, 4, 50, 998, 1000])
def test_products_give_what_the_convolution_gives(encoders, frames):
    sessions = [onnxruntime.InferenceSession(path) for path in encoders]
    shape = (2, sessions[0].get_inputs()[0].shape[1], frames)
    sound = {"input_features": np.random.default_rng(frames).standard_normal(shape).astype(np.float32)}
    right, found = (session.run(None, sound) for session in sessions)
    for one, other in zip(right, found, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(other, one, atol=1e-4)


def test_one_convolution_is_left_and_nothing_of_the_other(encoders):
    before, after = map(graphs.load, encoders)
    counts = [graphs.node_types(model) for model in (before, after)]
    assert [types["Conv"] for types in counts] == [2, 1] and counts[0]["Gelu"] == counts[1]["Gelu"]
    layers = [{node.name for node in graphs.weight_matmuls(model)} for model in (before, after)]
    assert layers[1] == layers[0] | {*convolution.PRODUCTS}
    assert not [name for name in after.graph.initializers if name == f"{convolution.LAYER}.weight"]
    assert graphs.weight_bytes(after) - graphs.weight_bytes(before) < 100  # two shapes more
