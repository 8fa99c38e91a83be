"""Graphs that a stranger made: where their weights may be, in every place of a graph, for every program that opens one.

Each graph here is one that onnx itself would write, with a location, an offset or a file that it would not.
"""

import os
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from whisper_lab import external_data
from whisper_lab.compare import graph_facts, layers
from whisper_lab.console import LabError
from whisper_lab.netron.pane import Pane

FLOATS = np.arange(64, dtype=np.float32)  # 256 bytes


def outside(location, name="w", dims=(64,), kind=TensorProto.FLOAT, **more):
    """A tensor whose numbers are in a file; more: offset, length, or any other key."""
    made = TensorProto(name=name, dims=dims, data_type=kind, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        made.external_data.add(key=key, value=str(value))
    return made


def model_of(*tensors, nodes=(), functions=(), sparse=()):
    """A model that adds its weights to its input, and whatever else is given."""
    inputs, output = ([helper.make_tensor_value_info(name, 1, [64])] for name in ("x", "y"))
    first = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([first, *nodes], "g", inputs, output, list(tensors), sparse_initializer=list(sparse))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9, functions=functions)


def in_a_loop(tensor):
    body = helper.make_graph([helper.make_node("Identity", ["b"], ["c"])], "b", [], [], [tensor])
    inner = helper.make_graph([helper.make_node("If", ["q"], [], then_branch=body, else_branch=body)], "i", [], [])
    return model_of(nodes=[helper.make_node("Loop", ["m"], [], body=inner)])


def in_a_function(tensor):
    node = helper.make_node("Constant", [], ["v"], value=tensor)
    return model_of(functions=[helper.make_function("d", "f", [], ["v"], [node], [helper.make_opsetid("", 20)])])


def as_default_of_a_function(tensor):
    made = helper.make_function("d", "f", [], ["v"], [helper.make_node("Constant", [], ["v"])],
                                [helper.make_opsetid("", 20)])
    made.attribute_proto.append(helper.make_attribute("a", tensor))
    return model_of(functions=[made])


def in_sparse(field):
    def made(tensor):
        sparse = onnx.SparseTensorProto(dims=[64])
        getattr(sparse, field).CopyFrom(tensor)
        return model_of(sparse=[sparse])

    return made


def in_an_attribute(name):
    def made(tensor):
        node = helper.make_node("Constant", [], ["v"])
        attribute = node.attribute.add(name="a")
        {"t": attribute.t.CopyFrom, "tensors": lambda one: attribute.tensors.append(one),
         "sparse": lambda one: attribute.sparse_tensor.values.CopyFrom(one),
         "sparses": lambda one: attribute.sparse_tensors.add().indices.CopyFrom(one),
         "graphs": lambda one: attribute.graphs.add().initializer.append(one)}[name](tensor)
        return model_of(nodes=[node])

    return made


def in_training(tensor):
    made = model_of()
    made.training_info.add().algorithm.initializer.append(tensor)
    return made


PLACES = {"initializer": model_of, "loop": in_a_loop, "function": in_a_function, "default": as_default_of_a_function,
          "sparse values": in_sparse("values"), "sparse indices": in_sparse("indices"), "training": in_training,
          **{f"attribute {name}": in_an_attribute(name) for name in ("t", "tensors", "sparse", "sparses", "graphs")}}
LOCATIONS = [
    "../secret", "/etc/passwd", "sub/../../secret", "./secret", "sub//secret", "", ".", "..", "sub/", "sub",
    "C:\\secret", "C:secret", "\\\\host\\share", "..\\secret", "sub\\secret", "file:///etc/passwd", "NUL", "con.txt",
    "sub/AUX", "secret.", "secret ", "~/secret", "a\x00b", "a\nb", "a\x1b[31mb", "*/_ORT_MEM_ADDR_/*", "link",
    "linked/w", "hard", "fifo", "/dev/zero", "x" * 5000, "missing", "\u202etxt", "W.DATA", "graph.onnx",
    "secret:stream", "%2e%2e/x"]


@pytest.fixture
def folder(tmp_path):
    """A folder with what a location can lead to, and a secret outside it."""
    (tmp_path / "secret").write_bytes(b"secret" * 100)
    made = tmp_path / "graphs"
    (made / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (made / "w.data").write_bytes(FLOATS.tobytes())
    shutil.copy(made / "w.data", tmp_path / "elsewhere" / "w")
    (made / "link").symlink_to(made / "w.data")
    (made / "linked").symlink_to(tmp_path / "elsewhere")
    os.link(tmp_path / "secret", made / "hard")
    os.mkfifo(made / "fifo")
    return made


def written(folder, model):
    path = folder / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def runtime(path):
    from whisper_lab import sessions

    return sessions._open(path, sessions.session_options("decoder", 1, False), "again")


def pair_session(path):
    from whisper_lab.export import pair

    return pair.session(path, 1)


def single(path):
    from whisper_lab.single import graph

    return graph.open_graph(path, 1)


def exporter(path):
    from whisper_lab.export import graphs

    return graphs.load(path)


def joined(path):
    from whisper_lab.export import graphs

    return graphs.join(path, path.with_name("joined.onnx"))


OPENERS = {"04 facts": lambda path: graph_facts.facts(path, graph_facts.read(path)),
           "04 layers": lambda path: layers.exposed(path, ["y"], {"x": FLOATS}, 1),
           "05": lambda path: Pane(path).close(), "runtime": runtime, "03 gates": pair_session, "08": single,
           "03 and 08 edit": exporter, "03 joins": joined}


# Refused -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("location", LOCATIONS)
def test_no_location_leads_out_of_the_folder(folder, location):
    path = written(folder, model_of(outside(location)))
    with pytest.raises(LabError) as caught:
        external_data.check(path)
    assert caught.value.remedy and all(character.isprintable() for character in caught.value.problem)


@pytest.mark.parametrize("place", PLACES)
def test_it_is_found_wherever_it_hides(folder, place):
    path = written(folder, PLACES[place](outside("../secret")))
    with pytest.raises(LabError, match="inside the graph's folder"):
        external_data.check(path)
    good = written(folder, PLACES[place](outside("w.data")))
    (file, parts), = external_data.check(good).items()
    assert file.name == "w.data" and len(parts) == (2 if place == "loop" else 1)  # both branches of the If in it


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("location", ["../secret", "link", "hard"])
def test_every_program_asks_before_it_opens(folder, opener, location):
    path = written(folder, model_of(outside(location), nodes=[helper.make_node("Add", ["x", "w"], ["z"])]))
    with pytest.raises(LabError):
        OPENERS[opener](path)


def test_an_absolute_path_to_a_file_that_is_there(folder, tmp_path):
    with pytest.raises(LabError, match="not a plain name inside"):
        external_data.check(written(folder, model_of(outside(str(folder / "w.data")))))


@pytest.mark.parametrize("names", [("w.data", "sub/w.data"), ("w.data", "sub/W.DATA"), ("sub/graph.onnx",),
                                   ("sub/Graph.ONNX",)])
def test_two_files_of_one_name(folder, names):
    for name in names:
        (folder / name).write_bytes(FLOATS.tobytes())
    with pytest.raises(LabError, match="two files of one name"):
        external_data.check(written(folder, model_of(*(outside(name, name) for name in names))))


def test_05_writes_over_nothing(folder, tmp_path):
    """An absolute path first, then another file of the same name: the second was once written through the first."""
    mine = tmp_path / "mine"
    mine.write_text("my own file")
    (folder / "sub" / "mine").write_text("the attacker's")
    path = written(folder, model_of(outside(str(mine), "a"), outside("sub/mine", "b")))
    with pytest.raises(LabError):
        Pane(path)
    assert mine.read_text() == "my own file" and mine.stat().st_nlink == 1


@pytest.mark.parametrize("more", [
    {"offset": -1}, {"offset": "1e3"}, {"offset": " 0"}, {"offset": "0x10"}, {"offset": 1}, {"offset": 2**70},
    {"length": 255}, {"length": 257}, {"length": -256}, {"length": "all"}, {"length": 2**62}, {"offset": 256},
    {"file": "x"}, {"__class__": "x"}, {"basepath": "/etc"}, {"dims": (65,)}, {"dims": (-64,)},
    {"dims": (2**40, 2**40)}, {"kind": TensorProto.STRING},
    {"kind": TensorProto.UNDEFINED}, {"kind": 99}, {"kind": TensorProto.DOUBLE}])
def test_numbers_that_do_not_fit(folder, more):
    with pytest.raises(LabError):
        external_data.check(written(folder, model_of(outside("w.data", **more))))


def test_a_key_given_twice(folder):
    tensor = outside("w.data")
    tensor.external_data.add(key="location", value="../secret")
    with pytest.raises(LabError, match="two 'location'"):
        external_data.check(written(folder, model_of(tensor)))


def test_a_location_without_the_mark_and_the_mark_without_a_location(folder):
    unmarked = outside("../secret")
    unmarked.ClearField("data_location")
    with pytest.raises(LabError):
        external_data.check(written(folder, model_of(unmarked)))
    with pytest.raises(LabError):
        external_data.check(written(folder, model_of(TensorProto(name="w", dims=[1], data_type=1, data_location=1))))


def test_a_message_in_two_parts_is_read_as_protobuf_reads_it(folder):
    """Two fields `graph`: protobuf joins them."""
    path = written(folder, model_of())
    path.write_bytes(path.read_bytes() + model_of(outside("../secret")).SerializeToString())
    assert len(onnx.load(path, load_external_data=False).graph.initializer) == 1
    with pytest.raises(LabError):
        external_data.check(path)


@pytest.mark.parametrize("content", [b"\x00", b"\x3a\xff\xff\xff\xff\x0f", b"\x3a", b"this is not a graph", b"\x0b\x0c",
                                     b"\xff" * 30, b"\x3a\x02\x2a\x7f", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_graph(tmp_path, content):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(LabError, match="is not an ONNX file"):
        external_data.check(path)
    with pytest.raises(LabError, match="cannot read"):
        external_data.check(tmp_path / "none.onnx")
    with pytest.raises(LabError):
        external_data.check(tmp_path)


def test_graphs_in_graphs_without_end(folder):
    body = b""
    for _ in range(5000):  # a graph in an attribute in a node in a graph, as bytes: protobuf's own objects stop sooner
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            body = tag + _varint(len(body)) + body
    path = folder / "deep.onnx"
    path.write_bytes(b"\x3a" + _varint(len(body) + 8) + body + b"location")
    with pytest.raises(LabError):
        external_data.check(path)


def _varint(number):
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes(found) + bytes([number])


# Files that are larger than they are ---------------------------------------------------------------------------------

def sparse(path: Path, size: int, content: bytes = b"") -> None:
    """A file of `size` bytes that takes no room: a hole, with `content` at its start."""
    with path.open("wb") as file:
        file.write(content)
        try:
            file.truncate(size)
        except OSError:
            pytest.skip("this file system has no large sparse files")


def test_a_large_hole_is_not_read_to_its_end(folder):
    """30 GB that the graph does not need: 04 reads what it does."""
    sparse(folder / "w.data", 30 * 10**9, FLOATS.tobytes())
    path = written(folder, model_of(outside("w.data")))
    started = time.process_time()
    facts = graph_facts.facts(path, graph_facts.read(path))
    assert time.process_time() - started < 2 and facts["files"] == 2
    (folder / "w.data").write_bytes(FLOATS.tobytes())
    assert graph_facts.facts(path, graph_facts.read(path))["sha256"] == facts["sha256"]


@pytest.mark.parametrize("opener", OPENERS)
def test_a_hole_that_the_graph_claims_to_need_is_refused(folder, opener):
    sparse(folder / "w.data", 30 * 10**9)
    path = written(folder, model_of(outside("w.data", dims=(30 * 10**9 // 4,))))
    started = time.process_time()
    with pytest.raises(LabError, match="sparse file"):
        OPENERS[opener](path)
    assert time.process_time() - started < 2


def test_a_graph_that_is_a_hole(tmp_path):
    sparse(tmp_path / "x.onnx", 30 * 10**9)
    for ask in (external_data.check, graph_facts.read):
        with pytest.raises(LabError):
            ask(tmp_path / "x.onnx")


def test_weights_inside_the_graph_are_skipped_not_read(tmp_path):
    inside = onnx.numpy_helper.from_array(np.zeros(1 << 22, np.float32), "w")  # 16 MB
    path = written(tmp_path, model_of(inside))
    tracemalloc.start()
    try:
        assert external_data.check(path) == {}
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# Accepted ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("location", ["w.data", "sub/w.data", "weights of n\u00e9rine (2).bin"])
def test_what_onnx_writes_is_accepted(folder, location):
    target = folder / location
    for tensors in (1, 3):
        model = model_of(*(onnx.numpy_helper.from_array(FLOATS + i, f"w{i}") for i in range(tensors)),
                         nodes=[helper.make_node("Add", ["x", "w0"], ["z"])])
        target.unlink(missing_ok=True)
        onnx.save(model, folder / "graph.onnx", save_as_external_data=True, location=location, size_threshold=0)
        (found, parts), = external_data.check(folder / "graph.onnx").items()
        assert found == target and external_data.ranges(parts)[-1][1] == target.stat().st_size
        assert np.array_equal(runtime(folder / "graph.onnx").run(["y"], {"x": FLOATS})[0], FLOATS)
        with Pane(folder / "graph.onnx") as pane:
            assert set(pane.files) == {"graph.onnx", location}


@pytest.mark.parametrize(("kind", "elements"), [(TensorProto.INT4, 512), (TensorProto.FLOAT16, 128),
                                                (TensorProto.UINT2, 1024), (TensorProto.COMPLEX128, 16),
                                                (TensorProto.FLOAT8E4M3FN, 256), (TensorProto.BOOL, 256)])
def test_elements_of_every_size(folder, kind, elements):
    path = written(folder, model_of(outside("w.data", dims=(elements,), kind=kind, offset=0, length=256)))
    assert external_data.check(path)[folder / "w.data"][0].length == 256
    with pytest.raises(LabError, match="holds 256 bytes"):
        external_data.check(written(folder, model_of(outside("w.data", dims=(elements + 16,), kind=kind))))


def test_the_table_of_sizes_is_onnx_own():
    for name, kind in TensorProto.DataType.items():
        if name in ("UNDEFINED", "STRING"):
            assert kind not in external_data.BITS
        else:
            packed = onnx.numpy_helper.from_array(np.zeros(8, helper.tensor_dtype_to_np_dtype(kind)))
            assert external_data.BITS[kind] == len(packed.raw_data), name  # bytes of eight are bits of one
