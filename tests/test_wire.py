"""Graph files a weight at a time: the bytes that protobuf writes, without its copies of all weights."""

import tracemalloc

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.helpers.export_tiny import exported
from whisper_lab.export import graphs, metadata, wire


@pytest.fixture(scope="module")
def tiny():
    return exported()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A graph with four weights of 4 MB, in one file."""
    weights = [ir.tensor(np.full((1 << 20,), i, np.float32), name=f"weight_{i}") for i in range(4)]
    values = [ir.Value(name=one.name, shape=one.shape, type=ir.TensorType(one.dtype), const_value=one)
              for one in weights]
    total = ir.node("Sum", values, name="total")
    total.outputs[0].name = "sum"
    graph = ir.Graph([], [total.outputs[0]], nodes=[total], initializers=values, opset_imports={"": 20}, name="large")
    path = tmp_path_factory.mktemp("large") / "large.onnx"
    ir.save(ir.Model(graph, ir_version=9), path)
    return path


def peak(function) -> int:
    """Bytes that Python had to hold at once for a call."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_the_bytes_are_those_that_protobuf_writes(tiny, tmp_path, precision):
    for part, path in tiny.pairs[precision].items():
        ir.save(graphs.load(path), tmp_path / "whole.onnx")
        wire.write(graphs.load(path), tmp_path / "wire.onnx")
        assert (tmp_path / "wire.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes(), part


def test_weights_in_a_sidecar_come_along_or_stay_there(tiny, tmp_path):
    source = tmp_path / "source.onnx"
    model = graphs.load(tiny.pairs["fp32"]["decoder"])
    ir.save(model, source, external_data="source.onnx.data", size_threshold_bytes=1)
    for name, inline in (("within", True), ("beside", False)):
        wire.write(graphs.load(source), tmp_path / f"{name}.wire.onnx", inline)
        model = graphs.load(source)
        ir.save(ir.external_data.load_to_model(model) if inline else model, tmp_path / f"{name}.onnx")
        assert (tmp_path / f"{name}.wire.onnx").read_bytes() == (tmp_path / f"{name}.onnx").read_bytes()


def test_metadata_written_again_around_a_joined_graph_gives_the_same_bytes(large, tmp_path):
    """A large graph is joined from its sidecar, and taken for another run: it stays what it was."""
    model = graphs.load(large)
    ir.save(model, tmp_path / "apart.onnx", external_data="apart.onnx.data")
    wire.write_around(metadata_of(tmp_path / "apart.onnx"), tmp_path / "apart.onnx")
    graphs.join(tmp_path / "apart.onnx", tmp_path / "one.onnx")
    before = (tmp_path / "one.onnx").read_bytes()
    wire.write_around(wire.skim(tmp_path / "one.onnx"), tmp_path / "one.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == before and len(before) > 4 << 22
    weights = graphs.load(tmp_path / "one.onnx").graph.initializers
    assert [float(weights[f"weight_{i}"].const_value.numpy()[-1]) for i in range(4)] == [0, 1, 2, 3]


def metadata_of(path) -> onnx.ModelProto:
    """The graph, skimmed, with a note among its metadata."""
    model = wire.skim(path)
    onnx.helper.set_model_props(model, {"format": "2"})
    return model


def test_a_weight_that_is_made_while_it_is_written_is_a_weight(tiny, tmp_path):
    model = graphs.load(tiny.pairs["fp32"]["encoder"])
    source = max(model.graph.initializers.values(), key=lambda value: value.const_value.nbytes)
    source.const_value = ir.LazyTensor(lambda: ir.tensor(np.zeros(source.shape.numpy(), np.float32)),
                                       dtype=ir.DataType.FLOAT, shape=source.shape, name=source.name)
    wire.write(model, tmp_path / "graph.onnx")
    assert not graphs.load(tmp_path / "graph.onnx").graph.initializers[source.name].const_value.numpy().any()


def test_one_weight_is_held_while_a_graph_is_written(large, tmp_path):
    model = graphs.load(large)
    assert peak(lambda: graphs.save(model, tmp_path / "copy.onnx")) < large.stat().st_size * 0.6
    assert (tmp_path / "copy.onnx").read_bytes() == large.read_bytes()


def test_metadata_is_changed_without_reading_the_weights(large, tmp_path):
    path = tmp_path / "graph.onnx"
    path.write_bytes(large.read_bytes())
    used = peak(lambda: metadata.write(path, {"model": "large"}, "encoder", "fp32", {}, verified=False))
    assert used < large.stat().st_size // 4
    model, before = onnx.load(path), onnx.load(large)
    assert model.graph == before.graph and metadata.read(path)["model"] == "large"
    assert path.read_bytes() == model.SerializeToString(deterministic=True)


def test_a_graph_is_skimmed_without_its_weights(large, tiny):
    assert peak(lambda: wire.skim(large)) < 1 << 20
    path = tiny.pairs["int8"]["decoder"]
    whole, skimmed = onnx.load(path), wire.skim(path)
    for tensor in whole.graph.initializer:
        tensor.ClearField("raw_data")
    assert skimmed == whole


def test_what_was_there_stays_where_a_weight_cannot_be_made(large, tmp_path):
    def fail():
        raise OSError("no space")

    model, path = graphs.load(large), tmp_path / "graph.onnx"
    path.write_bytes(large.read_bytes())
    first = next(iter(model.graph.initializers.values()))
    first.const_value = ir.LazyTensor(fail, dtype=ir.DataType.FLOAT, shape=first.shape, name=first.name)
    with pytest.raises(OSError, match="no space"):
        wire.write(model, path)
    assert path.read_bytes() == large.read_bytes() and [*tmp_path.iterdir()] == [path]
