"""What benchmarks/operations.py counts, and what benchmarks/devices.py makes of a run."""

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import devices, newest_python, operations
from tests.helpers.nano_pair import NAME, take
from tools import edge_pack
from whisper_lab.console import LabError
from workbook.evidence import arm64

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("op, inputs, expected", [
    ("MatMul", [("float", [1, 8, 1, 64]), ("float", [1, 8, 64, 100])], (8 * 64 * 100, 4 * 8 * 64 * 100)),
    ("MatMul", [("float", [2, 3, 4]), ("float16", [4, 5])], (2 * 3 * 4 * 5, 2 * 4 * 5)),
    ("MatMulInteger", [("uint8", [1, 1, 512]), ("int8", [512, 2048]), ("uint8", [])], (512 * 2048, 512 * 2048)),
    ("Conv", [("float", [1, 80, 3000]), ("float", [512, 80, 3])], (512 * 80 * 3 * 3000, 4 * 512 * 80 * 3)),
    ("Add", [("float", [9, 9]), ("float", [9, 9])], (0, 0)),
])
def test_a_node_is_counted(op, inputs, expected):
    assert operations.count(op, inputs) == expected


def test_the_counts_of_a_pair_are_those_of_its_sizes(nano_export, tmp_path):
    """Against the formula: projections, feed-forward, attention and the two convolutions."""
    graphs = take(nano_export, tmp_path)
    config = json.loads((graphs / f"{NAME}_runtime" / "config.json").read_text())
    width, layers, inner = config["d_model"], config["decoder_layers"], config["decoder_ffn_dim"]
    positions, vocabulary = config["max_source_positions"], config["vocab_size"]
    found = operations.measure(graphs, NAME, "fp32")
    weights = layers * (6 * width * width + 2 * width * inner) + width * vocabulary
    past = operations.POSITION + 1
    attention = layers * 2 * width * (positions + past)
    assert found["token"] == {"int8_multiply_adds": 0, "float_multiply_adds": weights + attention,
                              "bytes": 4 * (weights + attention)}
    blocks = config["encoder_layers"] * (4 * width * width + 2 * width * config["encoder_ffn_dim"])
    cross, convolutions = 2 * layers * width * width, 3 * width * (2 * config["num_mel_bins"] + width)
    encoder = positions * (blocks + cross + convolutions + config["encoder_layers"] * 2 * width * positions)
    more = config["encoder_attention_heads"] * (2 * width + positions)  # the channel that tells what a position counts
    encoder += positions * config["encoder_layers"] * more
    assert found["encoder"]["float_multiply_adds"] == encoder


def test_a_graph_without_products_is_refused():
    with pytest.raises(LabError, match="no product"):
        operations.total([("Add", [("float", [1])], [("float", [1])])])


def test_the_least_time_is_that_of_the_slower_part():
    device = {"cores": 2, "ghz": 1, "int8": 10, "float": 5, "gb_s": 1}
    pair = {"token": {"int8_multiply_adds": 20e9, "float_multiply_adds": 10e9, "bytes": 1e9},
            "encoder": {"int8_multiply_adds": 0, "float_multiply_adds": 1e9, "bytes": 7e9}}
    assert operations.least(pair, "token", device) == pytest.approx(2) and \
        operations.least(pair, "encoder", device) == pytest.approx(7)


def test_another_text_and_an_error_are_shown():
    reference = {"a.wav": {"text": "yes", "logprob": -0.1}}
    other = devices.compared({"clips": {"a.wav": {"text": "no", "logprob": -0.3}}, "cpu_s": 1.5}, reference)
    assert other["logprob_apart"] == 0.2
    assert devices.verdict(other, set()).endswith("0 of 1 text equal, log-probability at most 0.2000 apart; of a.wav, "
                                                  "another text: no")
    assert "which the model doubts itself: no" in devices.verdict(other, {"a.wav"})
    assert devices.verdict(devices.compared({"error": "a | b"}, reference), set()) == "error: a / b"


def test_a_program_that_fails_is_an_error(tmp_path):
    tmp_path.joinpath("whisper_lab").with_suffix(".py").write_text("raise SystemExit('no graphs here')")
    assert devices.hear([sys.executable], tmp_path, ("kitchen.wav",)) == {"error": "no graphs here"}


def test_what_was_measured_is_what_the_document_says():
    """With the pinned packages every text is the lab's; with older ones at most one that the model does not doubt."""
    packs = json.loads(devices.KEPT.read_text())["packs"]
    for found in packs.values():
        unsure = devices.doubted(found)
        assert len(unsure) < len(found["reference"]) / 2
        for where, row in devices.rows_of(found):
            assert "error" in row or len(set(row["other_texts"]) - unsure) <= ("onnxruntime" in row), where
        assert {row["onnxruntime"] for row in found.get("runtimes", []) if "error" in row} <= {"1.16.3"}
    assert {"pythons", "newest", "aarch64", "processors", "runtimes"} <= set().union(*packs.values())


def test_the_newest_python_was_run_and_is_one_that_the_pins_are_for():
    found = json.loads(devices.KEPT.read_text())["packs"]["whisper-base-int8"]
    rows = dict(devices.rows_of(found))
    (where,) = [where for where in rows if "Debian testing" in where]
    assert newest_python.PYTHON in where and rows[where]["clips"] == len(devices.CLIPS)
    assert f"to {newest_python.PYTHON}" in (ROOT / "edge" / "device" / "README.md").read_text()


def test_pip_is_asked_for_the_other_pythons_wheels(tmp_path):
    options = devices.target(tmp_path, newest_python)
    assert options[:4] == ["--target", str(tmp_path), "--python-version", newest_python.PYTHON]
    assert options.count("--platform") == len(newest_python.PLATFORMS)


def test_without_apt_it_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(newest_python, "FOLDER", tmp_path / "python")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="no apt-get here") as raised:
        newest_python.command()
    assert "--python" in raised.value.remedy and not (tmp_path / "python").exists()


def test_a_version_that_is_measured_again_replaces_its_row():
    rows = devices.merged([{"onnxruntime": "1.9.0"}, {"onnxruntime": "1.10.0", "clips": 1}],
                          [{"onnxruntime": "1.10.0", "clips": 2}])
    assert rows == [{"onnxruntime": "1.9.0"}, {"onnxruntime": "1.10.0", "clips": 2}]


def test_the_archive_on_an_emulated_arm(nano_export, tmp_path):
    """With the real aarch64 wheels; fetching them takes a minute, so where EMULATE is set."""
    if not os.environ.get("EMULATE"):
        pytest.skip("EMULATE=1 runs it; it fetches 50 MB")
    if reason := arm64.missing():
        pytest.skip(reason)
    archive = edge_pack.pack("nano", "int8", False, take(nano_export, tmp_path / "graphs", "_int8"), tmp_path)
    with devices.unpacked(archive) as pack:
        found = devices.on_arm(pack, devices.reference_of(pack))
    assert [row["processor"] for row in found] == ["cortex-a76", "cortex-a72"]
    assert all(row["other_texts"] == {} and row["logprob_apart"] < 0.01 for row in found)


def test_an_archive_that_is_none_is_named(tmp_path):
    (tmp_path / "broken.tar.gz").write_bytes(b"no archive")
    with pytest.raises(LabError, match="cannot be unpacked") as raised, devices.unpacked(tmp_path / "broken.tar.gz"):
        pass
    assert raised.value.remedy == "write it: make edge-pack"
