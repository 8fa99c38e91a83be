"""The whole of Whisper in one graph: 03's encoder and decoder with a mel in front, a Loop around, text behind.

    samples -> log-mel -> encoder -> Loop(decoder) -> tokens -> text
"""

from pathlib import Path

import onnx_ir as ir

from whisper_lab.export import graphs, naming, single_loop, single_mel, single_text
from whisper_lab.export.blocks import FLOAT, INT64, STRING, Block, graph_input, typed
from whisper_lab.features import FeatureSpec
from whisper_lab.tokens import TokenRules

PART = "end_to_end"


def file_of(folder: str | Path, name: str, precision: str) -> Path:
    """`<folder>/whisper-base_end_to_end_int8.onnx`"""
    return Path(folder) / naming.graph_file(name, PART, precision)


def compose(pair: dict[str, Path], runtime: Path) -> ir.Model:
    """The single graph of a pair of 03's; `runtime`: the folder of tokenizer and configuration beside them.

    Weights stay on disk where they are in a sidecar. Raises LabError for files of another kind.
    """
    rules, spec = TokenRules.from_folder(runtime), FeatureSpec.from_folder(runtime)
    words = single_text.token_bytes(runtime / "tokenizer.json", rules.end)
    model, decoder = graphs.load(pair["encoder"]), graphs.load(pair["decoder"])
    cross = open_ends(model)
    body = single_loop.take(decoder, model, cross)
    front, tail, written = (Block(model, name) for name in ("mel", "search", "text"))
    samples = graph_input(model, "samples", FLOAT, [1, "n"])
    features = single_mel.log_mel(front, samples, spec)
    join_front(model, front, features)
    tokens = single_loop.search(tail, body, rules)
    text = single_text.text(written, tokens, words)
    outputs = [("text", written("Identity", text), STRING, [1]), ("tokens", tail("Identity", tokens), INT64, ["tokens"])]
    model.graph.extend([*tail.nodes, *written.nodes])
    for name, value, dtype, shape in outputs:
        value.name = name
        model.graph.outputs.append(typed(value, dtype, shape))
    graphs.drop_unused(model)
    return model


def open_ends(model: ir.Model) -> dict[str, ir.Value]:
    """Take inputs and outputs off the encoder; returns its cross caches by name."""
    cross = {value.name: value for value in model.graph.outputs if "_cross_" in value.name}
    model.graph.outputs.clear()
    return cross


def join_front(model: ir.Model, front: Block, features: ir.Value) -> None:
    """Put the mel's nodes before the encoder's, which read `features` from then on."""
    given = model.graph.inputs.pop(0)
    given.replace_all_uses_with(features)
    model.graph.insert_before(model.graph[0], front.nodes)
