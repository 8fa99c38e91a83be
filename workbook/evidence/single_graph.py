"""Can the whole of Whisper be one graph, from samples to text, and is its text the same?

Measured with script 08's own composition on whisper-nano: what the graph is made of, its size beside the pair, on how
many clips both write the same text, and the time of both, taking turns.
"""

import importlib
import tempfile
from pathlib import Path

from workbook.evidence import common

PRECISION = "fp32"
TELLING = ("Loop", "If", "Conv", "MatMul", "Gather", "ArgMax", "Concat", "Where", "LayerNormalization", "StringConcat",
           "StringSplit", "StringNormalizer")


def measure(evidence, args) -> None:
    script = importlib.import_module("08-single-onnx-model")
    from whisper_lab import names
    from whisper_lab.export import graphs
    from whisper_lab.single import graph

    pair = common.graphs()[PRECISION]
    model = script.compose(pair, names.runtime_folder(common.GRAPHS, common.checkpoint().name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "single.onnx"
        graphs.save(model, path)
        census, size = graph.census(path), graphs.size(path)
        session = graph.open_graph(path, common.THREADS)
    evidence.value("inputs", len(session.get_inputs()), stable=True)
    evidence.value("input_names", ", ".join(value.name for value in session.get_inputs()), stable=True)
    evidence.value("outputs", len(session.get_outputs()), stable=True)
    evidence.value("output_names", ", ".join(value.name for value in session.get_outputs()), stable=True)
    evidence.value("nodes", census["nodes"])
    evidence.value("operators", ", ".join(f"{name} ({census['node_types'][name]})" for name in TELLING
                                          if name in census["node_types"]))
    evidence.value("operator_types", len(census["node_types"]))
    foreign = census["operators"].removeprefix("standard").removeprefix(" and ")
    evidence.value("custom_ops", len(foreign.split(", ")) if foreign else 0, stable=True)
    evidence.value("size_single_mb", size / 1e6, "MB")
    evidence.value("size_pair_mb", sum(map(graphs.size, pair.values())) / 1e6, "MB")
    evidence.value("host_lines_single", len(script.TEN_LINES.strip().splitlines()), stable=True)
    _compare(evidence, session, args.quick)
    _claims(evidence)


def _compare(evidence, session, quick: bool) -> None:
    """Text and time of the graph and of the pair with NumPy's features and our search around it.

    Both hear as much of the window: the sound, the silence that the checkpoint needs, and the rest thinned.
    """
    from whisper_lab.decoding import Options, decode
    from whisper_lab.single import gates

    runtime = common.onnx_runtime(PRECISION)

    def alone(sound) -> str:
        return session.run(["text"], {"samples": sound[None]})[0][0]

    def paired(sound) -> str:
        return decode(runtime, gates.heard(runtime, sound)[None], Options())[0].text

    sounds = [sound for sound, _ in common.spoken(quick)]
    texts = [(alone(sound).strip(), paired(sound).strip()) for sound in sounds]
    evidence.value("clips", len(texts), stable=not quick)
    evidence.value("same_text", sum(one == other for one, other in texts))
    common.share(evidence, "text", evidence.values["same_text"], len(texts))
    single_s, pair_s = common.undisturbed_s([lambda: alone(sounds[0]), lambda: paired(sounds[0])], 41)
    evidence.value("single_s", single_s, "s")
    evidence.value("pair_s", pair_s, "s")


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("same_text", "One graph writes the text of the pair on every clip.",
                   "Eén graaf schrijft op elke clip de tekst van het paar.", values["same_text"] == values["clips"],
                   values["same_text"])
    evidence.claim("loop", "The search is a Loop inside the graph.", "Het zoeken is een Loop binnen de graaf.",
                   "Loop" in values["operators"], values["operators"])
    evidence.claim("standard", "The single graph needs no operator from outside the ONNX standard.",
                   "De ene graaf heeft geen operator van buiten de ONNX-standaard nodig.", values["custom_ops"] == 0,
                   values["custom_ops"])
    evidence.claim("size", "What the single graph adds to encoder and decoder (mel, token rules, characters) is "
                   "less than 4 MB.", "Wat de ene graaf toevoegt aan encoder en decoder (mel, tokenregels, tekens), is "
                   "minder dan 4 MB.",
                   values["size_single_mb"] < values["size_pair_mb"] + 4, values["size_single_mb"])


def draw(evidence, figure) -> None:
    left, right = figure.subplots(1, 2)
    values = evidence.values
    for panel, key, unit, scale, form in ((left, "size_{}_mb", "MB", 1, "%.1f"), (right, "{}_s", "ms", 1000, "%.0f")):
        bars = panel.bar(["one graph", "encoder + decoder\nand the search in Python"],
                         [scale * values[key.format(which)] for which in ("single", "pair")],
                         color=[common.BLUE, common.GREY])
        panel.bar_label(bars, fmt=form)
        panel.set(ylabel=unit)
    left.set_title(f"{values['nodes']} nodes, {values['custom_ops']} non-standard operators")
    right.set_title(f"same text on {values['same_text']} of {values['clips']} clips")


def main(argv: list[str] | None = None) -> int:
    return common.run("single_graph", "3.23", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
