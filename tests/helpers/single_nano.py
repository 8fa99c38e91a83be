"""whisper-nano's single graph in int8, written once for all tests that use it: by 08, gates included."""

import contextlib
import functools
import importlib
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

from tests.helpers import nano_pair

NAME = nano_pair.NAME


def script():
    """08 as a module."""
    return importlib.import_module("08-single-onnx-model")


@functools.cache
def written(nano_export: Path) -> SimpleNamespace:
    """folder (of the int8 graphs), path (of the single graph), place (where the JSON lies), whisper (the pair)."""
    from whisper_lab.onnx_whisper import OnnxWhisper
    from whisper_lab.single import graph

    place = Path(tempfile.mkdtemp(prefix="single-nano-"))
    folder = nano_pair.take(nano_export, place / "graphs", "_int8")
    os.environ["HF_HUB_OFFLINE"] = "1"
    with contextlib.chdir(place):
        assert script().main(["--model", "nano", "--precision", "int8", "--quiet", "--model-dir", str(folder),
                              "--json", "single.json"]) == 0
    return SimpleNamespace(folder=folder, place=place, path=graph.path_of(folder, NAME, "int8"),
                           whisper=OnnxWhisper(folder, NAME, "int8", threads=1))


def part(build, dtype, shape, made_dtype, made_shape):
    """A function of one array: the block that build(block, input) makes, in onnxruntime."""
    import onnx_ir as ir

    from whisper_lab.export import graphs
    from whisper_lab.single import blocks, graph

    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": graphs.OPSET}, name="part"), ir_version=9)
    given = blocks.graph_input(model, "given", dtype, shape)
    block = blocks.Block(model, "part")
    made = build(block, given)
    model.graph.extend(block.nodes)
    graph.add_outputs(model, {"made": (made, made_dtype, made_shape)})
    session = graph.open_graph(ir.to_proto(model).SerializeToString(), 1)
    return lambda array: session.run(None, {"given": array})[0]
