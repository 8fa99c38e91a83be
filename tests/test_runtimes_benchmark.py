"""benchmarks/runtimes.py: what it measures, what it keeps, and what its table says."""

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers.benchmark_files import BENCHMARKS, module

PROGRAM = """import json, pathlib, sys
job = json.loads(sys.argv[1])
print(json.dumps({"versions": {"thing": "1.0"}}))
for clip in json.load(open(job["clips"])):
    with open(pathlib.Path(__file__).with_name("asked"), "a") as asked:
        asked.write(clip["id"] + "\\n")
    print(json.dumps({"clip": clip["id"], "text": "turn it on", "steady": True, "seconds": 0.5, "cpu_s": 0.4}))
"""


@pytest.fixture
def runtimes():
    return module("runtimes")


@pytest.fixture
def sounds() -> list:
    """Two clips."""
    return [SimpleNamespace(key=key, wav=Path(f"{key}.wav"), seconds=2.0, long=False,
                            clip=SimpleNamespace(text=text, language="en", digits=None))
            for key, text in (("a", "turn it on"), ("b", "turn it off"))]


@pytest.fixture
def world(runtimes, tmp_path, monkeypatch):
    """A row whose program, graphs and place are in tmp_path; `asked` has a line for each clip that it heard."""
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "thing.py").write_text(PROGRAM)
    (tmp_path / "peers" / "harness.py").write_text("")
    (graphs := tmp_path / "made" / "x_int8_optimum").mkdir(parents=True)
    for name in ("encoder_model_quantized.onnx", "decoder_model_merged_quantized.onnx"):
        (graphs / name).write_bytes(b"12345")
    monkeypatch.setattr(runtimes, "HERE", tmp_path)
    monkeypatch.setattr(module("prepare"), "environment", lambda name: Path(sys.executable))
    monkeypatch.setattr(module("prepare"), "artefact", lambda name, source: tmp_path / "made")
    row = runtimes.Row("thing", "03 --layout optimum", "int8", "thing.py", "layouts", folder="int8_optimum")
    args = argparse.Namespace(cache=str(tmp_path / "cache"), threads=1, repeats=1)
    return SimpleNamespace(row=row, args=args, graphs=graphs, asked=tmp_path / "peers" / "asked", source=tmp_path)


def test_every_row_can_be_made_and_asked(runtimes):
    prepare, rows = module("prepare"), runtimes.rows()
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert (BENCHMARKS / "peers" / row.script).is_file() and row.artefact in prepare.RECIPES
        assert row.environment is None or row.environment in prepare.REQUIREMENTS
    for runtime in runtimes.NAMES.values():
        mine = [row for row in rows if row.runtime == runtime]
        assert {row.precision for row in mine if row.graphs.startswith(runtimes.OURS)} == set(runtimes.DTYPES)
        assert any(row.graphs == runtimes.OWN for row in mine)


def test_what_was_heard_is_not_asked_again_until_a_graph_changes(runtimes, world, sounds):
    first = runtimes.measure(world.row, world.source, sounds[:1], world.args)
    both = runtimes.measure(world.row, world.source, sounds, world.args)
    assert first["size_bytes"] == 10 and list(both["heard"]) == ["a", "b"] and both["versions"] == {"thing": "1.0"}
    assert world.asked.read_text().split() == ["a", "b"]  # an interrupted run goes on with the second
    (world.graphs / "encoder_model_quantized.onnx").write_bytes(b"54321")
    runtimes.measure(world.row, world.source, sounds[:1], world.args)
    assert world.asked.read_text().split() == ["a", "b", "a"]


def test_a_runtime_that_cannot_take_a_graph_says_why(runtimes, world, sounds, capsys):
    (world.source / "peers" / "thing.py").write_text("raise SystemExit('no kernel for MatMulNBits')")
    found = runtimes.measure(world.row, world.source, sounds, world.args)
    assert found["reason"] == "exit status 1: no kernel for MatMulNBits" and not found["heard"]
    row, = runtimes.count([found], sounds, lambda clip, text: pytest.fail("nothing was heard"))
    document = {"rows": [row], "corpus": {"clips": 2, "seconds": 4.0}, "model": {"name": "x"}, "threads": 1,
                "repeats": 1, "machine": module("accuracy").machine.card(1)}
    assert "| thing | 03 --layout optimum | int8 | – | exit status 1: no kernel for MatMulNBits | – | – | – |" in \
        runtimes.table(document)


def test_rows_are_counted_and_no_text_is_kept(runtimes, world, sounds):
    class Scorer:
        """Words that differ."""

        def __call__(self, clip, text):
            errors = sum(a != b for a, b in zip(clip.text.split(), text.split(), strict=True))
            return module("scoring").Counts(3, errors, 0, 0, 0, ((3, errors),))

    found = runtimes.measure(world.row, world.source, sounds, world.args)
    lab = found | {"runtime": "this lab", "graphs": "03", "name": "this lab, 03, int8",
                   "heard": {key: row | {"text": "turn it off"} for key, row in found["heard"].items()}}
    ours, theirs = runtimes.count([lab, found], sounds, Scorer())
    assert theirs["wer"] == pytest.approx(1 / 6) and theirs["seconds"] == 1 and theirs["median_s"] == 0.5
    assert theirs["same_texts"] == 0 and ours["same_texts"] == 2
    assert "turn it" not in json.dumps([ours, theirs])
    document = {"rows": [ours, theirs], "corpus": {"clips": 2, "seconds": 4.0}, "model": {"name": "x"}, "threads": 2,
                "repeats": 3, "machine": module("accuracy").machine.card(2)}
    said = runtimes.table(document)
    assert "| thing | 03 --layout optimum | int8 | 0.0 | 0.50 | 1.0 | 16.7 | 0 of 2 |" in said
    assert "x on 2 English clips of 4 s, 2 threads, the median of 3 times for each clip. " in said
    assert said.endswith("thing 1.0.")


@pytest.mark.parametrize("names, wanted", [
    (["decoder_model.onnx", "decoder_model_merged.onnx", "decoder_with_past_model.onnx", "encoder_model.onnx"],
     ["decoder_model_merged.onnx", "encoder_model.onnx"]),
    (["decoder.int8.onnx", "encoder.int8.onnx", "silero_vad.onnx"], ["decoder.int8.onnx", "encoder.int8.onnx"]),
    (["x-decoder.onnx", "x-encoder.onnx", "x-encoder.onnx.data"],
     ["x-decoder.onnx", "x-encoder.onnx", "x-encoder.onnx.data"])])
def test_the_size_is_that_of_the_graphs_that_are_opened(runtimes, tmp_path, names, wanted):
    for name in names:
        (tmp_path / name).touch()
    row = runtimes.Row("thing", runtimes.OWN, "fp32", "thing.py", "optimum")
    assert [path.name for path in runtimes.graphs_of(row, tmp_path)] == wanted
