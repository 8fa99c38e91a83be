"""Graphs that no exporter writes, shown by 04 and 05: circles, endless chains, names that are not text, false sizes."""

import json
import os
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from whisper_lab.compare import graph_facts
from whisper_lab.console import LabError
from whisper_lab.netron import blocks, tour

SCRIPT = "04-compare-precisions.py"
WEIGHT = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
SOON_S = 2.0  # of the processor


def model_of(*nodes, weights=(WEIGHT,), notes=None):
    """A model of these nodes (type, inputs, output, name)."""
    made = [helper.make_node(kind, inputs, [output], name, **({"to": 1} if kind == "Cast" else {}))
            for kind, inputs, output, name in nodes]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64]) for name in ("x", "y")]
    graph = helper.make_graph(made, "g", values[:1], values[1:], list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    helper.set_model_props(model, notes or {})
    return model


def copy(name="a/Identity"):
    return "Identity", ["x"], "y", name


def casts(count):
    chain = [("Cast", [f"c{i}"], f"c{i + 1}", "") for i in range(count)]
    return model_of(("Cast", ["w"], "c0", ""), *chain, ("MatMul", ["x", f"c{count}"], "y", ""))


def doubling(count):
    """Every value is cast twice and joined again: so many ways lead from the weight to the product as 2 ** count."""
    nodes = [("Cast", ["w"], "e0", "")]
    for i in range(count):
        nodes += [("Cast", [f"e{i}"], f"f{i}", ""), ("Cast", [f"e{i}"], f"g{i}", ""),
                  ("Mul", [f"f{i}", f"g{i}"], f"e{i + 1}", "_weight")]
    return model_of(*nodes, ("MatMul", ["x", f"e{count}"], "y", ""))


ODD = {
    "long chain": casts(5000),
    "many ways": doubling(40),
    "circle": model_of(("Cast", ["b"], "a", ""), ("Cast", ["a"], "b", ""), ("MatMul", ["x", "a"], "y", "")),
    "circle with a weight": model_of(("Mul", ["w", "b"], "a", "_weight"), ("Cast", ["a"], "b", ""),
                                     ("MatMul", ["x", "a"], "y", "")),
    "its own input": model_of(("Identity", ["a"], "a", ""), ("MatMul", ["x", "a"], "y", "")),
    "ten thousand operators": model_of(*((f"Op{i}", ["x", "w"], f"v{i}", f"a/{i}") for i in range(10_000))),
    "recipe that is not JSON": model_of(copy(), notes={"recipe": "{"}),
    "recipe of brackets": model_of(copy(), notes={"recipe": "[" * 100_000}),
    "recipe of NaN": model_of(copy(), notes={"recipe": '{"a": NaN}'}),
    "recipe of a long number": model_of(copy(), notes={"recipe": "1" * 5000}),
    "no type of operator": model_of(("", ["x"], "y", "a/b")),
}


def tensor(**fields):
    return model_of(copy(), weights=[TensorProto(name="odd", **fields)])


def renamed(old, new, **more):
    """The bytes of a model in which a text is not UTF-8 any more."""
    return model_of(copy("zzzz"), weights=[numpy_helper.from_array(np.ones((64, 64), np.float32), "wwww")],
                    notes={"kkkk": "vvvv"}).SerializeToString().replace(old, new)


REFUSED = {
    "type 99": tensor(dims=[2000], data_type=99), "type 0": tensor(dims=[2000], data_type=0),
    "less than nothing": tensor(dims=[-2000], data_type=1),
    "more than there is": tensor(dims=[2**62] * 5000, data_type=1),
    "node's name": renamed(b"zzzz", b"\xff\xfe\xfd\xfc"), "tensor's name": renamed(b"wwww", b"\xff\xfe\xfd\xfc"),
    "key": renamed(b"kkkk", b"\xff\xfe\xfd\xfc"), "value": renamed(b"vvvv", b"\xff\xfe\xfd\xfc"),
    "operator": renamed(b"Identity", b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8")}


def written(folder, model):
    path = folder / "odd.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


@pytest.mark.parametrize("name", ODD)
def test_it_is_shown_and_soon(tmp_path, call_script, name):
    path = written(tmp_path, ODD[name])
    started = time.process_time()
    model = graph_facts.read(path)
    facts = graph_facts.facts(path, model)
    assert json.dumps(facts, allow_nan=False) and facts["nodes"] == len(model.graph.node)
    rows, kept = graph_facts.weights(model), graph_facts.kept_operators(model)
    assert [row["name"] for row in rows] == ["w"] and isinstance(kept, list)
    assert len(tour.counts(model, model)) == len(facts["operators"])
    assert time.process_time() - started < SOON_S
    if name.startswith("recipe"):
        done = call_script(SCRIPT, "--graphs", path, path, "--output-dir", tmp_path)
        assert done[0] == 0 and list(tmp_path.glob("*.json"))


def test_what_a_weight_meets_behind_a_chain_is_still_found():
    for name in ("long chain", "many ways", "circle with a weight"):
        row, = graph_facts.weights(ODD[name])
        assert row["used_by"] == "MatMul", name


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shown_is_two_lines(tmp_path, name):
    path = written(tmp_path, REFUSED[name])
    with pytest.raises(LabError, match="not a valid ONNX file") as caught:
        graph_facts.read(path)
    assert caught.value.problem.isprintable()


def test_blocks_of_many_layers(tmp_path):
    model = model_of(*(("Add", ["x", "w"], f"v{i}", f"decoder.layers.{i}.fc1/Add") for i in range(2000)))
    started = time.process_time()
    assert len(blocks.gather(model)) == 2000 and time.process_time() - started < SOON_S


def test_a_pipe_in_place_of_a_graph_is_not_waited_for(tmp_path, run_script):
    os.mkfifo(tmp_path / "pipe.onnx")
    for script in (SCRIPT, "05-explore-in-netron.py"):
        done = run_script(script, "--graphs", str(tmp_path / "pipe.onnx"), str(tmp_path / "pipe.onnx"))
        assert done.returncode == 1 and "pipe.onnx" in done.stderr and len(done.stderr.strip().splitlines()) == 2


def test_onnxruntime_prints_nothing_of_a_graph_that_it_cannot_read(tmp_path, capsys):
    """Its Python tries again where a text is not UTF-8, and says so on stdout, where results are."""
    from whisper_lab import sessions

    path = written(tmp_path, REFUSED["operator"])
    with pytest.raises(LabError):
        sessions._open(path, sessions.session_options("encoder", 1, False), "write it again")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("notes", [{}, {"n_audio_ctx": "x", "timestamp_step": "0.02", "recipe": "{}"},
                                   {"n_audio_ctx": "9" * 5000, "timestamp_step": "0.02", "recipe": "{}"},
                                   {"n_audio_ctx": "150", "timestamp_step": "nan", "recipe": "{}"},
                                   {"n_audio_ctx": "150", "timestamp_step": "0.02", "recipe": "[" * 100_000},
                                   {"n_audio_ctx": "150", "timestamp_step": "0.02", "recipe": "[1]"}])
def test_08_runs_no_graph_that_only_says_it_is_one(tmp_path, notes):
    from whisper_lab.single import graph

    path = written(tmp_path, model_of(copy(), notes={"part": graph.PART, **notes}))
    with pytest.raises(LabError, match="metadata"):
        graph.facts(path)


def test_an_ordinary_graph_is_sound():
    assert graph_facts._fault(model_of(("MatMul", ["x", "w"], "y", "a/MatMul"))) is None
    assert graph_facts._fault(onnx.ModelProto()) is None
