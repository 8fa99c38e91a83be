"""What surrounds the single graph of 08: its name, its ends, its metadata, how it is opened, its row of the table."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from whisper_lab import console, external_data, files, machine, names, precisions, seals, sessions
from whisper_lab.console import LabError
from whisper_lab.export import metadata
from whisper_lab.single.blocks import Block, typed

STANDARD = {"", "ai.onnx"}  # domains of operators that every runtime has
PART, SCHEMA = "end_to_end", "whisper-onnx-lab/single/1"
REPORTS = Path("reports")
SLOW = 1.5  # times the pair's time, from where on that is said


def path_of(folder: str | Path, name: str, precision: str, given: str = "samples") -> Path:
    """`<folder>/whisper-base_end_to_end_int8.onnx`; `..._end_to_end_wav_int8.onnx` where a WAV file is given."""
    return Path(folder) / names.graph_file(name, PART if given == "samples" else f"{PART}_{given}", precision)


def find(folder: str | Path, name: str, asked: str | None, given: str = "samples") -> Path:
    """The single graph of the precision that is asked for; None: the fastest that is there, else that could be."""
    if asked:
        return path_of(folder, name, asked, given)
    if there := [*precisions.whole(lambda one: [path_of(folder, name, one, given)])]:
        precisions.tell(there[0], folder)
    could = there or precisions.written(folder, name) or sessions.FASTEST_FIRST
    return path_of(folder, name, could[0], given)


def command(path: Path) -> str:
    """The command that writes the single graph of this name, as a shell takes it; of any other, the usual one."""
    name, is_ours, rest = path.stem.partition(f"_{PART}")
    if not is_ours:
        return "python 08-single-onnx-model.py --model nano --precision int8"
    precision = rest.rpartition("_")[2]
    words = ["python", "08-single-onnx-model.py", "--model", names.given(name),
             "--precision", precision if precision in names.PRECISIONS else "fp32",
             *(["--input", "wav"] if rest.startswith("_wav") else []),
             *([] if path.parent == Path(names.MODEL_DIR) else ["--model-dir", str(path.parent)])]
    return shlex.join(words)


def pair_command(path: Path, notes: dict, clip: Path) -> str:
    """The command that transcribes a clip of any length with the pair that a single graph was made of."""
    words = ["python", "-m", "whisper_lab.onnx_whisper", str(clip), "--model", names.given(notes["model"]),
             "--precision", notes["precision"],
             *([] if path.parent == Path(names.MODEL_DIR) else ["--model-dir", str(path.parent)])]
    return shlex.join(words)


# The graph's ends ----------------------------------------------------------------------------------------------------

def feed_encoder(model: ir.Model, front: Block, features: ir.Value) -> dict[str, ir.Value]:
    """Put the mel's nodes before the encoder's, which read `features` from now on; returns its cross caches by name."""
    given = next(value for value in model.graph.inputs if value.name == "input_features")
    model.graph.inputs.remove(given)
    given.replace_all_uses_with(features)
    model.graph.insert_before(model.graph[0], front.nodes)
    cross = {value.name: value for value in model.graph.outputs if "_cross_" in value.name}
    model.graph.outputs.clear()
    return cross


def silence_s(encoder: ir.Model) -> float | None:
    """How much silence the encoder needs behind a sound, as 03 noted it in its graph; None: it hears whole windows."""
    found = json.loads(encoder.metadata_props.get("silence_s", "null"))
    return float(found) if type(found) in (int, float) else None


def add_outputs(model: ir.Model, wanted: dict[str, tuple]) -> None:
    """name -> (value, element type, shape): the graph's outputs, under these names."""
    for name, (value, dtype, shape) in wanted.items():
        output = ir.node("Identity", [value], name=f"{name}/Identity")
        output.outputs[0].name = name
        model.graph.append(output)
        model.graph.outputs.append(typed(output.outputs[0], dtype, shape))


# Metadata ------------------------------------------------------------------------------------------------------------

def describe(path: Path, pair: dict[str, Path], verified: bool, given: str = "samples") -> None:
    """Metadata: what the pair says of the checkpoint, and how this graph came about."""
    shared = metadata.read(pair["encoder"])
    own = {key: shared.pop(key, None) for key in ("precision", "recipe", "part", "verification")}
    recipe = json.loads(own["recipe"] or "{}") | {"composed_of": [part.name for part in pair.values()], "input": given}
    metadata.write(path, shared | {"operators": operators(path)}, PART, own["precision"], recipe, verified)


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the bodies of its loops, and of the loops in those."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_graphs(attribute.g)


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those inside loops too."""
    return (node for inner in all_graphs(graph) for node in inner.node)


def operators(path: Path) -> str:
    """`standard`, or which other operators a runtime has to have."""
    model = onnx.load(path, load_external_data=False)
    foreign = {f"{node.domain}.{node.op_type}" for node in nodes(model.graph)
               if node.domain not in STANDARD}
    return "standard" if not foreign else f"standard and {', '.join(sorted(foreign))}"


def census(path: Path) -> dict:
    """Nodes of all levels, by type."""
    model = onnx.load(path, load_external_data=False)
    types = Counter(node.op_type for node in nodes(model.graph))
    return {"nodes": sum(types.values()), "node_types": dict(types.most_common()), "operators": operators(path)}


def facts(path: Path) -> dict:
    """{"window_s": 30.0, "input": "samples", ...} of a graph that 08 wrote. Raises LabError where it is none."""
    if not path.is_file():
        raise LabError(f"there is no graph {path}", f"write it: {command(path)}")
    try:
        found = metadata.read(path)
    except Exception as error:  # protobuf's DecodeError is not a subclass of anything useful
        raise LabError(f"{path} is not an ONNX graph", f"write it: {command(path)}") from error
    if problem := seals.fault(path):
        raise LabError(f"{path} {problem}", f"write it again: {command(path)}")
    if found.get("part") != PART:
        raise LabError(f"{path} is not a single graph from samples to text", f"write one: {command(path)}")
    try:
        window_s, recipe = int(found["n_audio_ctx"]) * float(found["timestamp_step"]), json.loads(found["recipe"])
        if not 0 < window_s < float("inf") or not isinstance(recipe, dict):
            raise ValueError
    except (KeyError, ValueError, OverflowError, RecursionError) as error:
        raise LabError(f"{path} was not written whole: its metadata does not say how it is used",
                       f"write it again: {command(path)}") from error
    return found | {"window_s": window_s, "input": recipe.get("input", "samples")}


# Open and report ------------------------------------------------------------------------------------------------------

def open_graph(path: str | Path | bytes, threads: int | None):
    """A session as 03's pair gets for its decoder. Raises LabError as external_data.check."""
    import onnxruntime

    if not isinstance(path, bytes):
        external_data.check(path)
    # Without the fusion that the pair's session leaves out: it rounds otherwise, and int8 makes a step of that.
    return onnxruntime.InferenceSession(path if isinstance(path, bytes) else str(path),
                                        sessions.session_options("decoder", threads, False), providers=sessions.CPU,
                                        disabled_optimizers=sessions.SLOWER)


def report(row: dict, name: str, model_dir: str, threads: int | None = None, output_json: str | None = None) -> None:
    """The table on stdout and `reports/single-<model>.json`, where rows of other precisions stay."""
    def seconds(key: str, digits: int = 3) -> str:
        return "not timed" if row[key] is None else f"{row[key]:.{digits}f}"

    over = row["size_bytes"] - row["pair_bytes"]
    console.table(f"{name} in {model_dir}",
                  ["file", "MB", "MB more than the pair", "operators", "time s", "the pair's s", "time, pair = 1"],
                  [[row["file"], f"{row['size_bytes'] / 1e6:.2f}", f"{over / 1e6:+.2f}", row["operators"],
                    seconds("seconds"), seconds("pair_seconds"), seconds("time_ratio", 2)]])
    if (row["time_ratio"] or 0) > SLOW:
        console.warn(f"the single graph takes {row['time_ratio']:.1f} times as long as the pair for the same tokens: "
                     "time it again on an idle machine, and if that stays, use the pair where time counts")
    path = REPORTS / f"single-{name}.json"
    document = {"schema": SCHEMA, "machine": machine.card(threads), "peak_rss_bytes": machine.peak_rss_bytes(),
                "graphs": [*(old for old in _rows(path) if old["file"] != row["file"]), row]}
    for target in filter(None, (path, output_json)):
        files.write_json(target, document)
    console.note("report", path, "every gate with its value and limit" if row["gates"] else
                 "no gate was run: --no-verify")


def _rows(path: Path) -> list[dict]:
    """The rows of an earlier report; none where there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["graphs"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def plain_environment() -> dict[str, str]:
    """The ten lines see no package of ours: UTF-8 on the pipe whatever the terminal is, and nothing else changed."""
    return {**os.environ, "PYTHONIOENCODING": "utf-8"}
