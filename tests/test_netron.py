"""05 and whisper_lab/netron without a browser: panes, the page before them, slim copies, tour, pictures, errors."""

import contextlib
import importlib
import json
import signal
import socket
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.helpers import browser
from whisper_lab.compare.graph_facts import read
from whisper_lab.console import LabError
from whisper_lab.netron import blocks, front, pane, slim, tour
from whisper_lab.netron.pane import Pane

SCRIPT = "05-explore-in-netron.py"


@pytest.fixture(scope="module")
def pairs():
    from tests.helpers import export_tiny

    return export_tiny.exported().pairs


@pytest.fixture(scope="module")
def served(pairs):
    with browser.explorer("--graphs", pairs["fp32"]["encoder"], pairs["int8"]["encoder"]) as (process, address):
        yield process, address


def get(address, **headers):
    request = urllib.request.Request(address, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read(), answer.headers


def test_each_pane_serves_its_own_graph_and_nothing_beside_it(served, pairs):
    _, address = served
    for side, precision in (("left", "fp32"), ("right", "int8")):
        path = pairs[precision]["encoder"]
        assert get(f"{address}{side}/data/{path.name}")[0] == path.read_bytes()
        assert path.name.encode() in get(f"{address}{side}/")[0]
        for name in (pairs[precision]["decoder"].name, "../x", "%2e%2e/%2e%2e/etc/passwd"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(f"{address}{side}/data/{name}")


def test_the_page_reaches_nobody(served, pairs):
    _, address = served
    content, headers = get(f"{address}left/")
    assert "default-src 'self'" in headers["Content-Security-Policy"] and "consent=" in headers["Set-Cookie"]
    text = content.decode()
    assert '<meta name="date"' not in text and '<meta name="version" content="0.0.0">' in text
    assert str(pairs["fp32"]["encoder"].parent) not in text and "/tmp/" not in text


@pytest.mark.parametrize("path", ["", "left/", "right/grapher.js", "tour.json", "page.js"])
def test_other_hosts_and_origins_are_refused_everywhere(served, path):
    _, address = served
    here = address.split("//")[1].strip("/")
    for allowed in ({}, {"Host": "localhost:1234"}, {"Host": "LOCALHOST"}, {"Host": "[::1]:80"},
                    {"Host": here, "Origin": f"http://{here}"},
                    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}):
        assert get(address + path, **allowed)
    for foreign in ({"Host": "evil.example"}, {"Host": "localhost.evil.example"}, {"Host": "127.0.0.1.evil.example"},
                    {"Host": "localhost:80@evil.example"}, {"Host": ""}, {"Host": "192.168.0.1"},
                    {"X-Forwarded-Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"},
                    {"Origin": "http://localhost:1"}, {"Origin": f"file://{here}"}, {"Sec-Fetch-Site": "cross-site"},
                    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}):
        with pytest.raises(urllib.error.HTTPError, match="403") as caught:
            get(address + path, **foreign)
        assert not any(name.lower().startswith("access-control") for name in caught.value.headers)


def test_it_listens_to_this_machine_only(served):
    port = int(served[1].rsplit(":", 1)[1].strip("/"))
    with socket.socket() as other:
        other.settimeout(1)
        with pytest.raises(OSError):
            other.connect((_own_address(), port))


def _own_address() -> str:
    """This machine's address towards others; 127.0.0.2 (which 127.0.0.1 does not answer for) where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.2"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ending_it_ends_all(pairs, number):
    with browser.explorer("--graphs", *pairs["fp32"].values(), "--slim") as (process, address):
        assert not Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()  # nothing to outlive it
        process.send_signal(number)
        assert process.wait(15) == (-9 if number == signal.SIGKILL else 0)
        with pytest.raises(OSError):
            get(address)


# Slim ----------------------------------------------------------------------------------------------------------------

def test_slim_keeps_the_structure_and_drops_the_numbers(pairs):
    path = pairs["fp32"]["decoder"]
    model = read(path)
    small = slim.without_weights(model)
    assert [node.SerializeToString() for node in small.graph.node] == \
        [node.SerializeToString() for node in model.graph.node]
    assert [(one.name, one.data_type, list(one.dims)) for one in small.graph.initializer] == \
        [(one.name, one.data_type, list(one.dims)) for one in model.graph.initializer]
    assert len(small.SerializeToString()) < 0.2 * path.stat().st_size
    assert model.graph.initializer[0].raw_data, "the original is as it was"
    shapes = {one.name: one for one in small.graph.initializer if 0 < np.prod(one.dims) <= slim.KEPT}
    assert shapes and all(numpy_helper.to_array(one).size for one in shapes.values())
    assert {entry.key for entry in small.metadata_props} - {entry.key for entry in model.metadata_props} == {"slim"}


def test_a_slim_pane_needs_no_sidecar(tmp_path, pairs):
    model = onnx.load(pairs["fp32"]["encoder"])
    (tmp_path / "weights").mkdir()
    onnx.save(model, tmp_path / "big.onnx", save_as_external_data=True, location="weights/big.data")
    (tmp_path / "weights" / "secret").write_text("secret")
    with Pane(tmp_path / "big.onnx") as whole, in_front(whole, whole) as address:
        assert get(f"{address}left/data/weights/big.data")[0] == (tmp_path / "weights" / "big.data").read_bytes()
        for name in ("weights/secret", "secret", "weights", "./big.onnx", "weights/../weights/big.data"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(f"{address}left/data/{name}")
    (tmp_path / "weights" / "big.data").unlink()
    with Pane(tmp_path / "big.onnx", slim=True) as small, in_front(small, small) as address:
        assert 0 < len(get(f"{address}right/data/big.onnx")[0]) < 100_000
    with pytest.raises(LabError, match="not beside it"), Pane(tmp_path / "big.onnx"):
        pass


@contextlib.contextmanager
def in_front(left, right):
    """The page before two panes: its address."""
    with front.Front({"left": left, "right": right}, "t", [], [], 0) as made:
        yield f"http://127.0.0.1:{made.port}/"


def test_a_name_full_of_markup_is_a_name(tmp_path, pairs):
    path = tmp_path / 'a"><script src=x>#?%20.onnx'
    path.write_bytes(pairs["fp32"]["encoder"].read_bytes())
    with Pane(path) as pane, in_front(pane, pane) as address:
        for page in (get(address)[0], get(f"{address}left/")[0]):
            assert b"<script src=x>" not in page and b"&lt;script src=x&gt;" in page
        assert get(f"{address}left/data/{urllib.parse.quote(path.name)}")[0] == path.read_bytes()


def test_a_file_replaced_by_a_link_is_not_followed(tmp_path, pairs):
    onnx.save(onnx.load(pairs["fp32"]["encoder"]), tmp_path / "big.onnx", save_as_external_data=True,
              location="big.data")
    with Pane(tmp_path / "big.onnx") as pane, in_front(pane, pane) as address:
        before = (tmp_path / "big.data").read_bytes()
        (tmp_path / "big.data").unlink()
        (tmp_path / "big.data").symlink_to("/etc/passwd")
        assert get(f"{address}left/data/big.data")[0] == before
        assert get(f"{address}left/grapher.css")[1]["Content-Type"] == "text/css"
        for name in ("server.py", "__init__.py", "../netron/server.py", "nothing.js"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(f"{address}left/{name}")


def test_without_netron_there_is_an_error(pairs, monkeypatch):
    monkeypatch.setattr(pane.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LabError, match="Netron is not installed"):
        Pane(pairs["fp32"]["encoder"])


# Tour ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("part, precision", [("encoder", "int8"), ("decoder", "int8"), ("encoder", "int4"),
                                             ("decoder", "int4"), ("decoder", "fp16")])
def test_every_stop_names_nodes_that_exist(pairs, part, precision):
    script = importlib.import_module(SCRIPT.removesuffix(".py"))
    left, right = read(pairs["fp32"][part]), read(pairs[precision][part])
    marks = script.landmarks(None, left, right)
    found = tour.stops(marks, left, right)
    names = [{node.name for node in model.graph.node} for model in (left, right)]
    assert all((stop["left"] is None or stop["left"] in names[0]) and
               (stop["right"] is None or stop["right"] in names[1]) for stop in found)
    own = {"encoder": script.ENCODER, "decoder": script.DECODER}[part]
    titles = {stop["title"] for stop in found}
    missing = {mark.title for mark in own} - titles
    assert missing <= {"The first DynamicQuantizeLinear"} and (precision != "int8" or not missing)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_the_cache_grows_where_keys_are_appended_and_an_encoder_has_none(pairs, precision):
    """There are other Concat nodes, of shapes, in both graphs."""
    script = importlib.import_module(SCRIPT.removesuffix(".py"))
    encoder, decoder = (read(pairs[precision][part]) for part in ("encoder", "decoder"))
    (stop,) = [one for one in tour.stops(script.landmarks(None, encoder, decoder), encoder, decoder)
               if one["title"] == "The cache grows"]
    assert stop["left"] is None
    node = next(node for node in decoder.graph.node if node.name == stop["right"])
    assert node.op_type == "Concat" and node.input[0].startswith("past_key_self_0")
    assert node.output[0].startswith("present_key_self_0")


def test_no_text_says_once_a_recording_or_that_windows_have_one_length():
    """A long recording is heard window by window, and a graph takes shorter ones too."""
    script = importlib.import_module(SCRIPT.removesuffix(".py"))
    said = [mark.text for mark in (*script.ENCODER, *script.DECODER, *script.ANY)]
    said.append(Path(blocks.__file__).read_text(encoding="utf-8"))
    assert not [text for text in said if "per recording" in text or "fixed number" in text]


def test_outlier_channels_are_a_stop_where_a_graph_has_them(pairs, tmp_path):
    script = importlib.import_module(SCRIPT.removesuffix(".py"))

    def titles(left, right):
        return {one["title"]: one for one in tour.stops(script.landmarks(None, left, right), left, right)}

    plain, int8 = read(pairs["fp32"]["encoder"]), read(pairs["int8"]["encoder"])
    assert "Outlier channels" not in titles(plain, int8)
    front = next(node for node in int8.graph.node if node.op_type == "Gelu" and ".layers." in node.name)
    layer = front.name.rpartition("/")[0].removesuffix(".activation_fn")
    split = helper.make_node("Split", [front.output[0]], ["quiet", "loud"], f"{layer}.fc2/outliers/Split")
    product = helper.make_node("MatMul", ["loud", "rows"], ["beside"], f"{layer}.fc2/outliers/MatMul")
    int8.graph.node.extend([split, product])
    stop = titles(plain, int8)["Outlier channels"]
    assert stop["right"] == split.name and stop["left"] == front.name  # in float: what makes all channels


def test_a_node_that_only_one_graph_has_shows_what_feeds_it_in_the_other(pairs):
    left, right = read(pairs["fp32"]["encoder"]), read(pairs["int8"]["encoder"])
    (stop,) = tour.stops([tour.Landmark("t", "x", operator="DynamicQuantizeLinear")], left, right)
    assert stop["left"] == "encoder.layers.0.self_attn_layer_norm/LayerNormalization"
    assert tour.stops([tour.Landmark("t", "x", operator="LSTM")], left, right) == []


def test_it_is_found_too_where_03_has_renamed_what_it_smoothed():
    """In real models, and in nano, outliers are divided down: the value before the first quantization is another."""
    from onnx import helper

    def made(value, *after):
        norm = helper.make_node("LayerNormalization", ["x", "w"], [value], name="norm")
        return helper.make_model(helper.make_graph([norm, *after], "g", [], []))

    quantize = helper.make_node("DynamicQuantizeLinear", ["norm_smoothed"], ["y", "s", "z"], name="first")
    landmark = tour.Landmark("t", "x", operator="DynamicQuantizeLinear")
    (stop,) = tour.stops([landmark], made("norm"), made("norm_smoothed", quantize))
    assert (stop["left"], stop["right"]) == ("norm", "first")


def test_counts_are_those_of_the_graphs(served, pairs):
    rows = {row["operator"]: row for row in json.loads(get(f"{served[1]}tour.json")[0])["counts"]}
    for side, precision in (("left", "fp32"), ("right", "int8")):
        nodes = read(pairs[precision]["encoder"]).graph.node
        assert sum(row[side] for row in rows.values()) == len(nodes)
        assert rows["MatMul"][side] == sum(node.op_type == "MatMul" for node in nodes)
    assert rows["MatMulInteger"]["left"] == 0 and rows["MatMulInteger"]["first"]["left"] is None


# Pictures and errors -------------------------------------------------------------------------------------------------

def test_blocks_hold_every_node_and_every_byte(pairs):
    for part in ("encoder", "decoder"):
        model = read(pairs["int8"][part])
        found = blocks.gather(model)
        assert sum(sum(block.operators.values()) for block in found) == len(model.graph.node)
        names = [block.name for block in found]
        assert {"layer 0", "layer 1", "final LayerNorm"} <= set(names)
        assert ("cross cache 1" in names) == (part == "encoder") and ("logits" in names) == (part == "decoder")


def test_pictures_are_written_and_the_same_twice(pairs, call_script, tmp_path):
    for folder in ("a", "b"):
        status, out, _ = call_script(SCRIPT, "--graphs", *pairs["int8"].values(), "--picture", "--output-dir",
                                     tmp_path / folder)
        assert status == 0 and len(out.split()) == 4
    for made in sorted((tmp_path / "a").iterdir()):
        assert made.read_bytes() == (tmp_path / "b" / made.name).read_bytes() and made.suffix in (".svg", ".png")


def test_a_graph_without_module_names_has_no_blocks(tmp_path, pairs):
    model = onnx.load(pairs["fp32"]["encoder"])
    for i, node in enumerate(model.graph.node):
        node.name = f"n{i}"
    with pytest.raises(LabError, match="not named after modules"):
        blocks.gather(model)


def test_errors_are_two_lines(call_script, tmp_path, pairs):
    text = tmp_path / "text.onnx"
    text.write_text("this is not a graph", encoding="utf-8")
    good = pairs["fp32"]["encoder"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        cases = [(["--graphs", good, tmp_path / "none.onnx"], "does not exist"),
                 (["--graphs", good, text], "not an ONNX"),
                 (["--graphs", good, tmp_path], "is a folder"),
                 (["--graphs", good, good, "--port", port], f"port {port} is in use"),
                 (["--model", "nano", "--model-dir", tmp_path], "--model nano --output-dir")]
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        for arguments, words in cases:
            status, _, err = call_script(SCRIPT, *arguments)
            assert status == 1 and words in err and err.rstrip().splitlines()[-1].startswith("  try: ")
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert call_script(SCRIPT, "--port", "70000")[0] == 2


def listening(port: int = 0) -> socket.socket:
    taken = socket.socket()
    taken.bind(("127.0.0.1", port))
    taken.listen()
    return taken


def test_where_the_usual_port_is_in_use_the_next_free_one_is_taken(pairs, monkeypatch, caplog):
    small = Pane(pairs["fp32"]["encoder"], slim=True)
    with listening() as taken:
        first = taken.getsockname()[1]
        monkeypatch.setattr(front, "PORTS", range(first, min(first + 20, 65536)))
        with small, front.Front({"left": small, "right": small}, "t", [], [], None) as made:
            assert first < made.port <= first + 20 and get(f"http://127.0.0.1:{made.port}/")[0]
        assert f"{first} is in use" in caplog.text
        monkeypatch.setattr(front, "PORTS", range(first, first + 1))
        with pytest.raises(LabError, match=f"all ports from {first} to {first} are in use"):
            front.Front({"left": small, "right": small}, "t", [], [], None)


def test_a_free_usual_port_is_taken_without_a_word(pairs, monkeypatch, capsys):
    with listening() as taken:
        port = taken.getsockname()[1]
    monkeypatch.setattr(front, "PORTS", range(port, port + 1))
    with Pane(pairs["fp32"]["encoder"], slim=True) as small, \
            front.Front({"left": small, "right": small}, "t", [], [], None) as made:
        assert made.port == port and capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [["--parts"], ["--show", "parts"]])
def test_parts_are_encoder_and_decoder_of_what_03_alone_writes(pairs, call_script, tmp_path, words):
    for part, path in pairs["fp32"].items():
        (tmp_path / f"whisper-mine_{part}.onnx").write_bytes(path.read_bytes())
    status, out, err = call_script(SCRIPT, "--model", "whisper-mine", "--model-dir", tmp_path, *words, "--picture",
                                   "--output-dir", tmp_path / "made")
    assert status == 0, err
    assert {Path(line).stem for line in out.split()} == {f"graph-whisper-mine_{part}" for part in pairs["fp32"]}
    assert "int8" in call_script(SCRIPT, "--model", "whisper-mine", "--model-dir", tmp_path, "--picture")[2]


def test_the_help_has_one_name_for_parts(call_script):
    status, out, _ = call_script(SCRIPT, "--help")
    assert status == 0 and "--parts" in out and "--show" not in out


def test_quiet_changes_nothing_but_a_line():
    page = '<meta name="version" content="9.3.3">\n<meta name="date" content="2026-10-23 19:50:08">\n<title>N</title>'
    assert pane.quiet(page) == '<meta name="version" content="9.3.3">\n<title>N</title>'
