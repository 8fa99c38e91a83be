"""03 and what it writes: names, bytes, metadata, sidecars, failures that leave nothing half done."""

import contextlib
import errno
import gc
import hashlib
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from tests.helpers.export_tiny import exported, script, write_checkpoint
from whisper_lab import names, seals, thinning
from whisper_lab.console import LabError
from whisper_lab.export import graphs, int8, metadata, publish, structure
from whisper_lab.export.pair import open_runtime, session


@pytest.fixture(scope="module")
def tiny():
    return exported()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory: reports/ and the graphs land there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def traced(tiny, monkeypatch):
    """Let 03 take the float32 graphs that were traced once, where tracing is not what is tested: it takes seconds."""
    def ready(model, folder, name, alignment_heads):
        folder.mkdir()
        paths = names.pair(folder, name)
        for part, source in tiny.pairs["fp32"].items():
            graphs.save(graphs.load(source), paths[part])
        return paths

    monkeypatch.setattr(script(), "export_fp32", ready)
    return tiny


def run(tiny, *arguments, output="out", quiet=True) -> Path:
    given = ["--model", str(tiny.checkpoint.folder), "--output-dir", output, *["--quiet"] * quiet, *arguments]
    assert script().main(given) == 0
    return Path(output)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.onnx*"))}


def test_nano_end_to_end(nano_export):
    """The command of the lab text, as a student runs it, on the bundled checkpoint."""
    out, err = ((nano_export / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    assert "Warning" not in err and "Traceback" not in err and "torchvision" not in err
    passed = [line.split(":")[0] for line in err.splitlines() if line.startswith("gates ") and " passed" in line]
    assert passed == ["gates fp32", "gates fp16", "gates int8", "gates int4", "gates int8 optimized"]
    folder = nano_export / "graphs"
    for precision in ("", "_fp16", "_int8", "_int4", "_int8_optimized"):
        for part in ("encoder", "decoder"):
            assert (folder / f"whisper-nano_{part}{precision}.onnx").is_file()
            assert f"whisper-nano_{part}{precision}.onnx" in out
    assert sorted(path.name for path in (folder / "whisper-nano_runtime").iterdir()) == [
        "config.json", "generation_config.json", "preprocessor_config.json", "sha256.json", "tokenizer.json",
        "tokens.tiktoken"]
    assert not list(folder.glob(".*"))
    report = json.loads((nano_export / "reports" / "export-whisper-nano.json").read_text())
    assert report == json.loads((nano_export / "all.json").read_text())
    assert len(report["graphs"]) == 10 and all(gate["passed"] for row in report["graphs"] for gate in row["gates"])
    ratios = {(row["part"], row["precision"]): row["ratio"] for row in report["graphs"] if not row["optimized"]}
    for part in ("encoder", "decoder"):  # nano's names and biases weigh more than base's: 0.25 + 0.02
        assert ratios[part, "fp16"] < 0.51 and ratios[part, "int4"] < ratios[part, "int8"] < 0.28


def test_the_same_input_gives_the_same_bytes(tiny, here):
    """Twice, in one go and alone, in processes with different hash seeds."""
    first = digests(run(tiny, "--precision", "all", "--no-verify", output="first"))
    command = [sys.executable, str(Path(script().__file__)), "--model", str(tiny.checkpoint.folder), "--no-verify"]
    subprocess.run([*command, "--precision", "int8", "--output-dir", "second"], check=True, capture_output=True,
                   env={**os.environ, "PYTHONHASHSEED": "42"})
    second = digests(Path("second"))
    assert len(first) == 8 and len(second) == 2
    assert second == {name: first[name] for name in second}


def test_metadata_tells_what_was_done_and_nothing_of_the_machine(tiny, traced, here):
    folder = run(tiny, "--precision", "int8")
    for part in names.PARTS:
        path = folder / f"whisper-tiny-random_{part}_int8.onnx"
        facts = metadata.read(path)
        assert facts["part"] == part and facts["precision"] == "int8" and facts["model"] == "whisper-tiny-random"
        assert facts["verification"] == "parity gates passed at export" and facts["random_weights"] == "true"
        assert json.loads(facts["recipe"])["weights"] == "int8 per channel"
        assert int(facts["n_mels"]) == 16 and int(facts["n_audio_ctx"]) == 50 and float(facts["timestamp_step"]) == 0.02
        assert int(facts["sot"]) == tiny.runtime.rules.start and int(facts["eot"]) == tiny.runtime.rules.end
        raw = path.read_bytes()
        for trace in (str(here), str(Path.home()), "site-packages", "stack_trace", ".py", os.uname().nodename):
            assert trace.encode() not in raw, trace
        model = onnx.load(path)
        assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
    assert json.loads(facts["cache_types"]) == {"self": "float32", "cross": "float32"}


def test_no_verify_is_said_in_the_metadata(tiny, traced, here):
    folder = run(tiny, "--no-verify")
    assert metadata.read(folder / "whisper-tiny-random_encoder.onnx")["verification"] == "skipped with --no-verify"
    report = json.loads(Path("reports/export-whisper-tiny-random.json").read_text())
    assert [row["gates_passed"] for row in report["graphs"]] == [None, None]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_no_graph_outlives_its_conversion(tiny, here, monkeypatch, precision):
    """Graphs refer to themselves in circles; of a large model each would keep its weights until Python looks."""
    seen, load = [], graphs.load

    def watched(path):
        model = load(path)
        seen.extend(weakref.ref(weight) for weight in model.graph.initializers.values())
        return model

    monkeypatch.setattr(graphs, "load", watched)
    target = names.pair(here, "whisper-tiny-random", precision)
    recipe = script().recipe(precision, tiny.model.config)
    gc.disable()
    try:
        script().convert(precision, tiny.pairs["fp32"], target, recipe)
        assert seen and not any(weight() for weight in seen)
    finally:
        gc.enable()


def test_a_later_run_keeps_the_rows_of_an_earlier_one(tiny, traced, here):
    run(tiny, "--no-verify")
    run(tiny, "--no-verify", "--precision", "fp16", "--fp16-mode", "weights")
    rows = json.loads(Path("reports/export-whisper-tiny-random.json").read_text())["graphs"]
    assert [(row["part"], row["precision"]) for row in rows] == [
        ("encoder", "fp32"), ("decoder", "fp32"), ("encoder", "fp16"), ("decoder", "fp16")]


def test_gates_of_an_earlier_run_stay_with_their_files_and_no_others(tiny, traced, here):
    """--no-verify takes no verdict from a graph that it did not write; a graph that changed since loses its own."""
    folder, report = run(tiny, "--no-verify"), Path("reports/export-whisper-tiny-random.json")
    document = json.loads(report.read_text())
    for row in document["graphs"]:  # as if the gates had been run: they take minutes
        row["gates"], row["gates_passed"] = [{"name": "earlier"}], 1
    report.write_text(json.dumps(document))
    run(tiny, "--no-verify", "--precision", "fp16", "--fp16-mode", "weights")
    kept = {row["file"]: row["gates_passed"] for row in json.loads(report.read_text())["graphs"]}
    assert list(kept.values()) == [1, 1, None, None]
    changed = folder / "whisper-tiny-random_encoder.onnx"
    model = onnx.load(changed)
    model.doc_string = "another"
    onnx.save(model, changed)
    seals.seal(changed)
    run(tiny, "--no-verify", "--precision", "fp16", "--fp16-mode", "weights")
    rows = json.loads(report.read_text())["graphs"]
    assert [row["file"] for row in rows] == [name for name in kept if name != changed.name]


def test_it_says_what_it_will_do_and_which_pair_it_is_at(tiny, traced, here, capsys):
    run(tiny, "--no-verify", "--precision", "all", quiet=False)
    out, err = capsys.readouterr()
    assert "to do: 4 pairs of graphs (" in err and "without gates (--no-verify)" in err
    for number, precision in enumerate(("fp32", "fp16", "int8", "int4"), start=1):
        assert f"pair {number} of 4: {precision} (" in err
    assert "encoder: converted in int8 (" in err and max(map(len, out.splitlines())) <= 140


def test_recording_once_gives_the_graphs_of_recording_twice(tiny, tmp_path, monkeypatch):
    """The exporter's own second recording changes nothing but how a Reshape would treat lengths of 0."""
    from whisper_lab.export import torch_export

    monkeypatch.setattr(torch_export, "recorded_once", lambda export: export())
    twice = script().export_fp32(tiny.model, tmp_path / "twice", "twice", None)
    for part, path in tiny.pairs["fp32"].items():
        once, again = onnx.load(path), onnx.load(twice[part])
        for model in (once, again):
            for node in model.graph.node:
                kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
                del node.attribute[:]
                node.attribute.extend(kept)
        assert list(once.graph.node) == list(again.graph.node)
        assert list(once.graph.initializer) == list(again.graph.initializer)


def test_what_onnx_has_no_operator_for_is_replaced(tmp_path):
    """A clipped GELU: the exporter can translate a minimum and a maximum, and no clip."""
    from whisper_lab import checkpoints

    checkpoint = checkpoints.resolve(str(write_checkpoint(tmp_path / "whisper-clipped", activation_function="gelu_10")))
    model = checkpoints.load_model(checkpoint, attn_implementation="eager")
    assert "Clip" in {node.op_type for node in onnx.load(
        script().export_fp32(model, tmp_path / "fp32", "clipped", None)["encoder"]).graph.node}


def test_nodes_are_called_after_their_modules(tiny):
    names = {node.name for path in tiny.pairs["fp32"].values() for node in graphs.load(path).graph}
    for name in ("encoder.conv1/Conv", "encoder.layers.0.self_attn.q_proj/MatMul", "encoder.layers.1.self_attn/Softmax",
                 "encoder.layers.1.fc1/Add", "decoder.layers.0.encoder_attn.k_proj/MatMul", "proj_out/MatMul",
                 "decoder.layers.1.encoder_attn_layer_norm/LayerNormalization", "decoder.embed_tokens/Gather"):
        assert name in names, name


def test_scaling_is_folded_only_where_it_is_exact(tiny):
    """Encoder heads of 16: 1/4 disappears into q_proj; decoder heads of 32: a Mul per attention stays."""
    scalings = {part: sum(node.op_type == "Mul" and "attn" in node.name for node in graphs.load(path).graph)
                for part, path in tiny.pairs["fp32"].items()}
    assert scalings == {"encoder": 0, "decoder": 2 * 2}


def test_int8_stores_signed_weights_a_scale_per_row_and_survives_an_empty_one(tiny):
    initializers = graphs.load(tiny.pairs["int8"]["decoder"]).graph.initializers
    table = initializers["decoder.embed_tokens.weight_quantized"].const_value.numpy().T  # as the logits read it
    scales = initializers["decoder.embed_tokens.weight_scale"].const_value.numpy()
    right = tiny.model.model.decoder.embed_tokens.weight.detach().numpy()
    assert table.dtype == np.int8 and table.shape == right.shape and scales.shape == right.shape[:1]
    assert not right[7].any() and scales[7] == 1 and not table[7].any()
    assert np.abs(table * scales[:, None] - right).max() <= scales.max() / 2 + 1e-7
    stored = [value.const_value for name, value in initializers.items() if name.endswith("weight_quantized")]
    assert len(stored) == 17 and {tensor.dtype.name for tensor in stored} == {"INT8"}


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_no_weight_is_turned_when_a_quantized_graph_is_opened(tiny, precision):
    for path in tiny.pairs[precision].values():
        model = graphs.load(path)
        turned = [node.name for node in model.graph if node.op_type == "Transpose"
                  and node.inputs[0].name in model.graph.initializers]
        assert turned == []


def test_int8_is_fused_by_onnxruntime(tiny, tmp_path):
    """No weight is unpacked at run time: every MatMulInteger becomes one fused kernel, convolutions float again."""
    import onnxruntime

    for part, path in tiny.pairs["int8"].items():
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{part}.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        types = [node.op_type for node in onnx.load(tmp_path / f"{part}.onnx").graph.node]
        fused = types.count("DynamicQuantizeMatMul") + types.count("MatMulIntegerToFloat")
        assert fused == {"encoder": 16, "decoder": 17}[part], types
        assert "MatMulInteger" not in types and "DequantizeLinear" not in types


def test_int8_exclude_keeps_layers_in_float(tiny, traced, here):
    folder = run(tiny, "--precision", "int8", "--int8-exclude", r"encoder\.layers\.0\.fc")
    names = [node.name for node in graphs.weight_matmuls(graphs.load(folder / "whisper-tiny-random_encoder_int8.onnx"))]
    assert names == ["encoder.layers.0.fc1/MatMul", "encoder.layers.0.fc2/MatMul"]


def test_no_two_integer_products_pass_16_bits(tiny, traced, here):
    """The embedding's neither: without VNNI such a sum saturates, 255 x 127 twice becomes 32,767. The scales are no
    coarser than that asks for."""
    folder = run(tiny, "--precision", "int8", "--no-verify")
    for part, count in (("encoder", 16), ("decoder", 17)):
        model = graphs.load(folder / f"whisper-tiny-random_{part}_int8.onnx")
        weights = [node.inputs[1].const_value.numpy().astype(int) for node in model.graph
                   if node.op_type == "MatMulInteger"]
        assert len(weights) == count
        for weight in weights:
            pairs = weight.reshape(-1, 2, weight.shape[1])
            largest = np.maximum(pairs.clip(0).sum(axis=1), -pairs.clip(None, 0).sum(axis=1)).max(axis=0)
            assert 255 * largest.max() < 2**15
            assert ((largest >= 126) | np.isin(np.abs(weight).max(axis=0), (127, 0))).all()  # 0: of a token never seen


@pytest.mark.parametrize("rows", [1, 5, 300])
def test_every_processor_computes_the_same_integers(rows, tmp_path):
    """With the largest activations there are, and weights that saturated 16 bits before: numbers of one sign."""
    rng = np.random.default_rng(0)
    small, scales = int8.fit(rng.choice([-1.0, 1.0], (65, 48)) * rng.uniform(0.9, 1, (65, 48)))
    alike, _ = int8.fit(np.full((65, 48), -0.3, np.float32))
    for weights in (small, alike):
        node = onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])
        graph = onnx.helper.make_graph(
            [node], "product", [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [None, 65])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT32, None)],
            [onnx.numpy_helper.from_array(weights, "w")])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
        onnx.save(model, tmp_path / "product.onnx")
        x = np.where(rng.random((rows, 65)) < 0.7, 255, 0).astype(np.uint8)
        x[0] = 255
        found = session(tmp_path / "product.onnx").run(None, {"x": x})[0]
        np.testing.assert_array_equal(found, x.astype(int) @ weights.astype(int))
    assert (scales > 0).all() and np.abs(alike).max() == 64


def test_weights_that_would_overflow_16_bits_are_refused(tiny, traced, here, monkeypatch):
    """On a processor with VNNI, too, where no text shows it: the graph may be meant for another."""
    monkeypatch.setattr(int8, "fit_layers", lambda model, source: None)  # as quantize_dynamic rounds them
    for part, source in tiny.pairs["fp32"].items():
        script().to_int8(source, here / f"{part}.onnx", [])
        gates = structure.check(here / f"{part}.onnx", part, "int8", tiny.model.config, graphs.size(source))
        (failed,) = [gate for gate in gates if not gate.passed]
        assert failed.name == "products in 16 bits" and failed.value > int8.PAIR and "/MatMul" in failed.detail


def test_an_odd_last_channel_stands_alone():
    small, _ = int8.fit(np.array([[1.0], [-1.0], [1.0]], np.float32))
    assert small.ravel().tolist() == [127, -127, 127]
    small, _ = int8.fit(np.array([[1.0], [1.0], [1.0]], np.float32))
    assert small.ravel().tolist() == [64, 64, 64]


def test_weights_of_zero_divide_by_no_zero():
    small, scales = int8.fit(np.zeros((4, 2), np.float32))
    assert not small.any() and (scales == 1).all()


def test_alignment_heads_add_the_attention_that_pytorch_sees(tiny, here):
    folder = run(tiny, "--alignment-heads")
    decoder = session(folder / "whisper-tiny-random_decoder.onnx")
    heads = tiny.runtime.rules.alignment_heads
    sounds, ids = tiny.sounds[:2], np.array([[5, 6, 7], [8, 9, 10], [11, 12, 13], [14, 15, 16]])  # two beams each
    cross = [np.concatenate(arrays) for arrays in zip(*(sound.cross for sound in sounds), strict=True)]
    feeds = {"input_ids": ids}
    for value in decoder.get_inputs()[1:]:
        feeds[value.name] = np.zeros((4, 2, 0, 32), np.float32) if "_self_" in value.name else cross.pop(0)
    found = decoder.run(["cross_attention"], feeds)[0]
    assert found.shape == (4, len(heads), 3, 50)
    import torch

    states = torch.from_numpy(np.concatenate([sound.hidden for sound in sounds])).repeat_interleave(2, dim=0)
    output = tiny.model.model.decoder(input_ids=torch.from_numpy(ids), encoder_hidden_states=states,
                                      output_attentions=True)
    right = torch.stack([output.cross_attentions[layer][:, head] for layer, head in heads], dim=1)
    np.testing.assert_allclose(found, right.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("positions", [1, 2, 17, 30, 50])
def test_the_graphs_take_windows_of_any_length(tiny, positions):
    """An encoder and a decoder, beside PyTorch over the beginning of the same window."""
    pair = open_runtime(*tiny.pairs["fp32"].values(), threads=1, like=tiny.runtime)
    features = np.concatenate([sound.features for sound in tiny.sounds[:2]])[:, :, :2 * positions]
    hidden, cross = pair.hidden_and_cross(features)
    states, ids = tiny.runtime.encode(features), np.array([[5, 6, 7], [8, 9, 10]])
    np.testing.assert_allclose(hidden, states.numpy(), atol=1e-5)
    assert pair.takes_short_windows and cross[0].shape[2] == positions - (positions - 50) // thinning.EACH
    np.testing.assert_allclose(pair.step(ids, cross, None)[0], tiny.runtime.step(ids, states, None)[0], atol=1e-4)
    names = [[axis for axis in value.shape if isinstance(axis, str)] for value in pair.encoder.get_outputs()]
    assert all(axes == ["batch", "positions"] for axes in names)


def test_a_sound_longer_than_the_window_is_refused_not_cut(tiny):
    pair = open_runtime(*tiny.pairs["fp32"].values(), threads=1, like=tiny.runtime)
    with pytest.raises(Exception, match="out of|bounds|INVALID_ARGUMENT"):
        pair.encode(np.zeros((1, tiny.runtime.spec.n_mels, 104), np.float32))


def test_large_graphs_get_one_sidecar_and_load_from_anywhere(tiny, traced, here, monkeypatch):
    """The mechanism for models past 2 GB, with the limit lowered; all four precisions, gates included."""
    limits(monkeypatch, 60_000)
    folder = run(tiny, "--precision", "all")
    for precision in names.PRECISIONS:
        pair = names.pair(folder, "whisper-tiny-random", precision)
        for path in pair.values():
            assert names.sidecar(path).is_file()
            places = {entry.value for tensor in onnx.load(path, load_external_data=False).graph.initializer
                      for entry in tensor.external_data if entry.key == "location"}
            assert places == {names.sidecar(path).name}
    code = "import sys, onnxruntime as o; print(o.InferenceSession(sys.argv[1]).get_outputs()[0].name)"
    done = subprocess.run([sys.executable, "-c", code, str(pair["decoder"].resolve())], cwd="/", text=True,
                          capture_output=True)
    assert done.stdout.strip() == "logits", done.stderr
    limits(monkeypatch, 10**9)
    run(tiny, "--precision", "all", "--no-verify")
    assert list(folder.glob("*.data")) == []  # the sidecars are stale now


def limits(monkeypatch, single_file: int, working: int = 60_000) -> None:
    """Bytes of weights above which a published graph, and one being worked on, has a sidecar."""
    monkeypatch.setattr(publish, "SINGLE_FILE_LIMIT", single_file)
    monkeypatch.setattr(graphs, "SINGLE_FILE_LIMIT", single_file)
    monkeypatch.setattr(graphs, "WORKING_LIMIT", working)


def test_a_graph_that_shrinks_below_the_limit_leaves_no_weight_behind(tiny, traced, here, monkeypatch):
    """As whisper-base's decoder in fp16 does: float32 needs a sidecar, half of it does not."""
    limits(monkeypatch, 10**9, working=graphs.weight_bytes(graphs.load(tiny.pairs["fp32"]["decoder"])) * 3 // 4)
    monkeypatch.setattr(graphs, "BIG", 16)  # tiny's LayerNorm weights, which fp16 keeps, go to the sidecar too
    folder = run(tiny, "--precision", "all")
    for path in folder.glob("*.onnx"):
        assert not any(t.external_data for t in onnx.load(path, load_external_data=False).graph.initializer), path.name


def test_working_with_sidecars_changes_no_published_graph(tiny, traced, here, monkeypatch):
    """Weights mapped while working, joined to one file at the end: the same graphs, which any reader of ONNX reads."""
    limits(monkeypatch, 10**9, working=10**9)
    folder = run(tiny, "--precision", "all", "--no-verify")
    held = {path.name: onnx.load(path) for path in folder.glob("*.onnx")}
    limits(monkeypatch, 10**9)
    run(tiny, "--precision", "all")
    assert len(held) == 8 and not list(folder.glob("*.data"))
    for name, model in held.items():
        joined = onnx.load(folder / name)
        onnx.checker.check_model(joined)
        for graph in (model, joined):
            del graph.metadata_props[:]  # the gates ran on one of them
        assert joined.graph.node == model.graph.node and joined.graph.output == model.graph.output, name
        weights, expected = ({tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
                             for graph in (joined, model))
        assert weights.keys() == expected.keys()
        assert all(np.array_equal(weights[key], expected[key]) for key in weights), name


def test_the_quantizer_gives_the_same_without_its_second_copy(tiny, tmp_path, monkeypatch):
    from whisper_lab.export import torch_export

    source, found = tiny.pairs["fp32"]["decoder"], []
    for one_copy in (torch_export.one_copy, contextlib.nullcontext):
        monkeypatch.setattr(torch_export, "one_copy", one_copy)
        script().to_int8(source, tmp_path / "m.onnx", [])
        found.append((tmp_path / "m.onnx").read_bytes())
    assert found[0] == found[1]


def test_a_failed_gate_ends_the_export_and_leaves_the_graph_rejected(tiny, traced, here, monkeypatch, capsys):
    from whisper_lab.export import int8

    old = run(tiny, "--precision", "int8")
    before, right = digests(old), int8.row_scales
    coarse = lambda weight: np.full(len(weight), 0.05, np.float32)  # noqa: E731 (clips everything)
    monkeypatch.setattr(int8, "row_scales", coarse)
    with pytest.raises(LabError) as error:
        run(tiny, "--precision", "int8")
    assert "gate '" in error.value.problem and "first diverging node" in error.value.problem
    assert "rejected" in error.value.remedy and "--no-verify" in error.value.remedy
    names = {path.name for path in old.glob("*.onnx")}
    assert names == set(before) | {name.replace(".onnx", ".rejected.onnx") for name in before}
    assert {name: digest for name, digest in digests(old).items() if name in before} == before  # the old ones stay
    rejected = old / "whisper-tiny-random_decoder_int8.rejected.onnx"
    assert metadata.read(rejected)["verification"] == "rejected: a parity gate failed"
    monkeypatch.setattr(int8, "row_scales", right)
    run(tiny, "--precision", "int8")
    assert not list(old.glob("*.rejected*"))


def test_a_rejected_graph_finds_its_sidecar(tiny, tmp_path, monkeypatch):
    limits(monkeypatch, 60_000)
    with publish.stage(tmp_path) as folder:
        path = folder / "m.onnx"
        graphs.save(graphs.load(tiny.pairs["fp32"]["encoder"]), path)
        rejected = publish.reject([path], tmp_path)
    assert rejected == [tmp_path / "m.rejected.onnx"]
    assert session(rejected[0]).get_outputs()[0].name == "encoder_hidden_states"


@pytest.mark.parametrize("number, words", [(errno.ENOSPC, "No space left"), (errno.EACCES, "Permission denied")])
def test_a_full_disk_or_a_locked_folder_is_one_clear_error(tiny, here, monkeypatch, number, words):
    def fail(model, path):
        path.write_bytes(b"half")
        raise OSError(number, os.strerror(number))
    monkeypatch.setattr(graphs, "save", fail)
    with pytest.raises(LabError, match=words) as error:
        run(tiny)
    assert "--output-dir" in error.value.remedy
    assert list(Path("out").glob("*.onnx*")) == [] and list(Path("out").glob(".*")) == []


def test_ctrl_c_leaves_nothing_half_written(tiny, traced, here, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt
    monkeypatch.setattr(script(), "to_fp16", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tiny, "--precision", "all")
    assert sorted(path.name for path in Path("out").iterdir()) == [  # the pair that was finished, and no more
        "whisper-tiny-random_decoder.onnx", "whisper-tiny-random_encoder.onnx", "whisper-tiny-random_runtime"]


def test_a_file_in_the_place_of_the_output_folder(tiny, here):
    Path("out").write_text("not a folder")
    with pytest.raises(LabError, match="cannot write"):
        run(tiny)


def test_what_is_no_whisper_is_refused(here, tiny):
    folder = here / "bert"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(LabError, match="not a Whisper checkpoint"):
        script().main(["--model", str(folder), "--quiet"])


def test_missing_weights_are_refused(here, tiny):
    from safetensors.numpy import load_file, save_file

    folder = write_checkpoint(here / "holes")
    weights = load_file(folder / "model.safetensors")
    del weights["model.encoder.layers.0.fc1.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(LabError, match="lacks 1 of its weights"):
        script().main(["--model", str(folder), "--quiet", "--output-dir", "out"])
    assert not list(here.glob("out/*.onnx"))


def test_an_untied_output_layer_is_refused(tiny):
    from whisper_lab.export.wrappers import DecoderGraph

    other = SimpleNamespace(proj_out=SimpleNamespace(weight=None), model=tiny.model.model)
    with pytest.raises(LabError, match="not tied"):
        DecoderGraph(other)


def test_half_precision_clamps_instead_of_overflowing(tiny):
    from whisper_lab.export.fp16 import to_half

    halves = to_half(np.array([1e9, -1e9, 1.5], np.float32))
    np.testing.assert_array_equal(halves, np.array([65504, -65504, 1.5], np.float16))


def test_128_mel_bins_as_in_large_v3(here):
    folder = write_checkpoint(here / "whisper-mels", num_mel_bins=128)
    sound = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(sound | {"feature_size": 128}))
    assert script().main(["--model", str(folder), "--quiet", "--output-dir", "out", "--precision", "int8"]) == 0
    pair = open_runtime(*names.pair("out", "whisper-mels", "int8").values())
    assert pair.encode(np.zeros((1, 128, 100), np.float32))[0].shape == (1, 2, 50, 32)


def test_wrong_usage_ends_with_2(run_script, tmp_path):
    for arguments in (["--int8-exclude", "("], ["--precision", "int3"], ["--int8-exclude", "fc2"],
                      ["--precision", "int8", "--fp16-mode", "weights"]):
        done = run_script("03-export-encoder-decoder.py", *arguments, cwd=tmp_path)
        assert done.returncode == 2 and "error:" in done.stderr


def test_sensitivity_ranks_layers_and_finds_the_one_that_int8_hurts(tiny, traced, here, monkeypatch):
    """A huge weight for an input that is always zero changes no number, but makes int8's steps coarse."""
    from whisper_lab.export import sensitivity

    source = graphs.load(tiny.pairs["fp32"]["decoder"])
    run(tiny, "--sensitivity", "--no-verify")
    report = json.loads(Path("reports/export-whisper-tiny-random.json").read_text())
    scores = report["sensitivity"]
    assert len(scores) == len(graphs.weight_matmuls(source)) + 16 + 2  # decoder, encoder, convolutions
    costs = [score["kl_divergence"] for score in scores]
    assert costs == sorted(costs, reverse=True) and costs[0] > 0
    assert Path("reports/sensitivity-whisper-tiny-random.png").read_bytes()[:4] == b"\x89PNG"

    import onnx_ir as ir

    for what, factor in (("fc1.weight", 1000), ("final_layer_norm.weight", 0), ("final_layer_norm.bias", 0)):
        name = f"decoder.layers.1.{what}"
        array = source.graph.initializers[name].const_value.numpy().copy()
        array[0] *= factor
        source.graph.initializers[name].const_value = ir.tensor(array, name=name)
    graphs.save(source, here / "outlier.onnx")
    pair = {"encoder": tiny.pairs["fp32"]["encoder"], "decoder": here / "outlier.onnx"}
    float_pair = open_runtime(*pair.values(), threads=1, like=tiny.runtime)
    from dataclasses import replace

    sounds = [replace(s, logits=float_pair.step(s.forced, float_pair.encode(s.features), None)[0]) for s in tiny.sounds]
    monkeypatch.setattr(sensitivity, "layers", lambda path: [f"decoder.layers.{i}.fc{j}/MatMul" for i in (0, 1)
                                                             for j in (1, 2)] if path.name == "outlier.onnx" else [])
    ranked = sensitivity.scan(pair, here / "scan", tiny.runtime, sounds, 1)
    assert [score["layer"] for score in ranked][0] == "decoder.layers.1.fc1"
    assert ranked[0]["kl_divergence"] > 3 * ranked[1]["kl_divergence"]


@pytest.mark.parametrize("layer,file", [("decoder.layers.0.fc1/MatMul", "decoder.onnx"),
                                        ("proj_out/MatMul", "decoder_alone.onnx")])
def test_sensitivity_quantizes_as_the_export_does(tiny, here, monkeypatch, layer, file):
    from whisper_lab.export import sensitivity
    from whisper_lab.export.run import Export, Settings

    monkeypatch.setattr(sensitivity, "layers", lambda path: [layer] if "decoder" in path.name else [])
    work = SimpleNamespace(settings=Settings(here, threads=1), checkpoint=tiny.checkpoint, runtime=tiny.runtime,
                           sounds=tiny.sounds[:1])
    Export.sensitivity(work, tiny.pairs["fp32"], here / "scan")
    weights = [onnx.numpy_helper.to_array(one) for one in onnx.load(here / "scan" / file)
               .graph.initializer if one.data_type == onnx.TensorProto.INT8 and one.dims]
    assert weights and max(int(int8.largest_pairs(array).max()) for array in weights) == int8.PAIR
