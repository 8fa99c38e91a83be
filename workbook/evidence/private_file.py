"""What can a graph from a stranger read on your machine, and who stops it?

Measured on graphs made for this: a tensor whose numbers are in another file, beside the graph (as large models have
it), outside its folder, behind a link in the folder, and in a file of yours that happens to be in the folder; what
onnx, onnxruntime and this lab say to each; and whether the bytes of that file come out as the graph's answer.
"""

import tempfile
from pathlib import Path

import numpy as np

from workbook.evidence import common

SECRET = b"the password is swordfish"
PLACES = {"beside": "weights.bin", "outside": "../private/key.txt", "link": "innocent.bin", "neighbour": "notes.txt"}


def measure(evidence, args) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        (folder / "private").mkdir()
        (folder / "private" / "key.txt").write_bytes(SECRET)
        (folder / "model").mkdir()
        (folder / "model" / "weights.bin").write_bytes(SECRET[::-1])
        (folder / "model" / "notes.txt").write_bytes(SECRET)
        (folder / "model" / "innocent.bin").symlink_to(folder / "private" / "key.txt")
        for name, location in PLACES.items():
            graph = write(folder / "model" / f"{name}.onnx", location)
            for reader, read in (("onnx", with_onnx), ("onnxruntime", with_onnxruntime), ("lab", with_lab)):
                evidence.value(f"{reader}_{name}", asked(read, graph))
    _versions(evidence)
    _claims(evidence)


def write(path: Path, location: str) -> Path:
    """A graph whose answer is a tensor of bytes that is kept in the file `location`."""
    from onnx import TensorProto, helper, save

    tensor = TensorProto(name="weights", data_type=TensorProto.UINT8, dims=[len(SECRET)],
                         data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(SECRET)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    answer = helper.make_tensor_value_info("answer", TensorProto.UINT8, [len(SECRET)])
    node = helper.make_node("Identity", ["weights"], ["answer"])
    graph = helper.make_graph([node], "stranger", [], [answer], [tensor])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def asked(read, graph: Path) -> str:
    """What a reader does with the graph: 'reads', or 'refuses'."""
    try:
        return "reads" if read(graph) in (SECRET, SECRET[::-1]) else "gives something else"
    except Exception:  # each of them has errors of its own
        return "refuses"


def with_onnx(graph: Path) -> bytes:
    import onnx

    return np.asarray(onnx.numpy_helper.to_array(onnx.load(graph).graph.initializer[0])).tobytes()


def with_onnxruntime(graph: Path) -> bytes:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]).run(None, {})[0].tobytes()


def with_lab(graph: Path) -> bytes:
    """As 05 and the runtime open a graph: the check comes first."""
    from whisper_lab import external_data

    external_data.check(graph)
    return with_onnxruntime(graph)


def _versions(evidence) -> None:
    import onnx
    import onnxruntime

    evidence.value("onnx_version", onnx.__version__)
    evidence.value("onnxruntime_version", onnxruntime.__version__)


def _claims(evidence) -> None:
    values = evidence.values
    evidence.claim("refused", "The lab opens no graph whose weights lie outside its folder, or behind a link.",
                   "Het lab opent geen graaf met gewichten buiten haar map of achter een link.",
                   values["lab_outside"] == values["lab_link"] == "refuses", values["lab_outside"])
    evidence.claim("neighbour", "Your own file, left in the graph's folder, is read by all three: no rule can tell it "
                   "from weights.", "Je eigen bestand, achtergelaten in de map van de graaf, wordt door alle drie "
                   "gelezen: geen regel kan het van gewichten onderscheiden.",
                   all(values[f"{reader}_neighbour"] == "reads" for reader in ("onnx", "onnxruntime", "lab")),
                   values["lab_neighbour"])
    evidence.claim("beside", "Weights in a plain file beside the graph are read by all three.",
                   "Gewichten in een gewoon bestand naast de graaf worden door alle drie gelezen.",
                   all(values[f"{reader}_beside"] == "reads" for reader in ("onnx", "onnxruntime", "lab")),
                   values["lab_beside"])


def draw(evidence, figure) -> None:
    from matplotlib.patches import Rectangle

    panel, readers = figure.subplots(), ("onnx", "onnxruntime", "lab")
    places = {"beside": "a file beside\nthe graph", "outside": "../private/key.txt", "link": "a link in\nthe folder",
              "neighbour": "your notes in\nthe same folder"}
    for row, reader in enumerate(readers):
        for column, place in enumerate(places):
            said = evidence.values[f"{reader}_{place}"]
            harmless = (said == "reads") == (place == "beside")
            panel.add_patch(Rectangle(
                (column - 0.48, row - 0.46), 0.96, 0.92, color=common.GREEN if harmless else common.RED, alpha=0.75))
            panel.text(column, row, said, ha="center", va="center", fontsize=15)
    panel.set(xlim=(-0.5, 3.5), ylim=(2.5, -0.5), title="A graph's weights are in another file: who reads it?")
    panel.set_xticks(range(4), places.values())
    panel.set_yticks(range(3), [f"onnx {evidence.values['onnx_version']}",
                                f"onnxruntime {evidence.values['onnxruntime_version']}", "this lab"])


def main(argv: list[str] | None = None) -> int:
    return common.run("private_file", "4.06", __doc__, measure, draw, argv)


if __name__ == "__main__":
    common.console.run(main)
