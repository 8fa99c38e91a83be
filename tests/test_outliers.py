"""Outlier channels: found by listening, computed in float, and none where there are none; int4's finer layers."""

import json
import weakref
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from tests.helpers.export_tiny import exported, script
from whisper_lab import console, names
from whisper_lab.export import blocks, calibration, graphs, metadata, outliers, structure
from whisper_lab.export.calibration import Activations
from whisper_lab.export.pair import session
from whisper_lab.metrics import sqnr_db

LAYER, CHANNEL, NORM = "encoder.layers.1.fc2", 5, "encoder.layers.0.final_layer_norm"


@pytest.fixture(scope="module")
def tiny():
    return exported()


@pytest.fixture(scope="module")
def sounds(tiny) -> list[np.ndarray]:
    return calibration.windows(tiny.runtime.spec)


def listen(path: Path, sounds: list[np.ndarray]) -> dict[str, Activations]:
    return calibration.activations(path, [{"input_features": sound} for sound in sounds], 1)


@pytest.fixture(scope="module")
def planted(tiny, tmp_path_factory) -> Path:
    """The tiny encoder with a channel in front of `LAYER` that is 60 times louder, and a loud channel of `NORM`."""
    model = graphs.load(tiny.pairs["fp32"]["encoder"])
    change(model, "encoder.layers.1.fc1.bias", lambda array: array.__setitem__(CHANNEL, 80))
    change(model, f"{LAYER}.weight", lambda array: array.__setitem__(CHANNEL, array[CHANNEL] / 40))
    for what in ("weight", "bias"):
        change(model, f"{NORM}.{what}", lambda array: array.__setitem__(3, array[3] * 50))
    change(model, "encoder.layers.0.fc1.weight", lambda array: array.__setitem__(3, array[3] / 50))
    path = tmp_path_factory.mktemp("planted") / tiny.pairs["fp32"]["encoder"].name
    graphs.save(model, path)
    return path


def change(model: ir.Model, name: str, edit) -> None:
    value = model.graph.initializers[name]
    array = value.const_value.numpy().copy()
    edit(array)
    value.const_value = ir.tensor(array, name=name)


def hidden(path: Path, features: np.ndarray) -> np.ndarray:
    return session(path, 1).run(["encoder_hidden_states"], {"input_features": features})[0]


def prepare(tiny, encoder: Path, folder: Path, decoder: Path | None = None) -> tuple[Path, dict]:
    pair = {"encoder": encoder, "decoder": decoder or tiny.pairs["fp32"]["decoder"]}
    easier, facts = script().prepare(pair, folder, tiny.runtime, seed=0, threads=1)
    return easier["decoder" if decoder else "encoder"], facts


def test_a_value_that_was_made_easier_is_not_compared_with_what_it_was(tiny, planted, sounds, tmp_path):
    """04's table of noise once began with v_proj of the smoothed layers, whose product is divided down, not wrong."""
    from whisper_lab.compare import layers

    path, facts = prepare(tiny, planted, tmp_path / "prepared")
    assert any(place.endswith("v_proj") for place in facts["smoothed"])
    feeds = {"encoder": {"input_features": sounds[0]}}
    rows = layers.layer_errors({"easier": {"encoder": path}}, {"encoder": planted}, {"easier": feeds}, feeds, 1)
    rows = rows["easier"]
    assert len(rows) > 10
    assert [row for row in rows if row["sqnr_db"] is not None and row["sqnr_db"] < 35] == []


def test_a_planted_outlier_is_found_and_its_reason_told(tiny, planted, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(console, "note", lambda *words: said.append(": ".join(map(str, words))))
    _, facts = prepare(tiny, planted, tmp_path / "prepared")
    assert list(facts["outliers"]) == [LAYER] and CHANNEL in facts["outliers"][LAYER]
    assert len(facts["outliers"][LAYER]) == 128 // outliers.SHARE
    line = next(line for line in said if LAYER in line)
    assert "2 channels stay in float" in line and "largest activation 79.9" in line and "median" in line
    assert facts["smoothed"][NORM] > 0


def test_a_model_of_random_weights_has_none(tiny, tmp_path):
    path, facts = prepare(tiny, tiny.pairs["fp32"]["encoder"], tmp_path / "prepared")
    assert facts["outliers"] == {}
    assert graphs.node_types(graphs.load(path)) == graphs.node_types(graphs.load(tiny.pairs["fp32"]["encoder"]))


def test_without_them_int8_hears_better(tiny, planted, sounds, tmp_path):
    """The same encoder, plain and prepared: most of int8's noise came from two channels."""
    path, _ = prepare(tiny, planted, tmp_path / "prepared")
    right = hidden(planted, sounds[0])
    decibels = []
    for name, source in (("plain", planted), ("prepared", path)):
        script().to_int8(source, tmp_path / f"{name}.onnx", [])
        decibels.append(sqnr_db(right, hidden(tmp_path / f"{name}.onnx", sounds[0])))
    assert sqnr_db(right, hidden(path, sounds[0])) > 40  # the outliers' own weights are stored in int8
    assert decibels[1] > decibels[0] + 8, decibels


def test_a_decoder_s_outliers_are_found_in_what_it_writes(tiny, tmp_path):
    """Its calibration is its own text; a prompt at once, whose tokens share a scale, gains most."""
    source, layer = tiny.pairs["fp32"]["decoder"], "decoder.layers.0.fc2"
    model = graphs.load(source)
    change(model, "decoder.layers.0.fc1.bias", lambda array: array.__setitem__(CHANNEL, 80))
    change(model, f"{layer}.weight", lambda array: array.__setitem__(CHANNEL, array[CHANNEL] / 40))
    graphs.save(model, tmp_path / source.name)
    path, facts = prepare(tiny, tiny.pairs["fp32"]["encoder"], tmp_path / "prepared", tmp_path / source.name)
    assert list(facts["outliers"]) == [layer] and CHANNEL in facts["outliers"][layer]
    window = calibration.windows(tiny.runtime.spec)[0]
    feeds = calibration.decoder_inputs(tiny.pairs["fp32"], [window], tiny.runtime, 1)[0]
    assert feeds["input_ids"].shape[1] > 4
    right, decibels = session(tmp_path / source.name, 1).run(["logits"], feeds)[0], []
    for name, graph in (("plain", tmp_path / source.name), ("prepared", path)):
        script().to_int8(graph, tmp_path / f"{name}.onnx", [])
        decibels.append(sqnr_db(right, session(tmp_path / f"{name}.onnx", 1).run(["logits"], feeds)[0]))
    assert decibels[1] > decibels[0] + 3, decibels


def test_calibration_has_no_two_graphs_open_at_once(tiny, tmp_path, monkeypatch):
    """Each has its weights in memory twice, as they are stored and packed for the processor."""
    alive: list = []

    def counted(path, threads=None, packed=True):
        assert not [one for one in alive if one() is not None], "another session is still open"
        opened = session(path, threads, packed)
        alive.append(weakref.ref(opened))
        return opened

    monkeypatch.setattr(calibration, "session", counted)
    prepare(tiny, tiny.pairs["fp32"]["encoder"], tmp_path / "prepared")
    assert len(alive) == 4  # the encoder for its caches and the decoder for its text; then each for its activations


def test_smoothing_changes_no_bit_of_the_float_graph(tiny, planted, sounds, tmp_path):
    """Its factors are powers of two."""
    model = graphs.load(planted)
    done = outliers.smooth(model, listen(planted, sounds))
    graphs.save(model, tmp_path / "smooth.onnx")
    assert NORM in done and any(place.endswith("v_proj") for place in done)
    np.testing.assert_array_equal(hidden(tmp_path / "smooth.onnx", sounds[0]), hidden(planted, sounds[0]))
    before, after = (listen(path, sounds[:1]) for path in (planted, tmp_path / "smooth.onnx"))
    value = f"{NORM}/LayerNormalization"
    assert before[value].largest.max() > 10 * np.median(before[value].largest)
    assert after[f"{value}_smoothed"].largest.max() < 5 * np.median(after[f"{value}_smoothed"].largest)


def test_the_last_layer_norm_is_left_alone(tiny, sounds):
    """It is an output of the graph."""
    path = tiny.pairs["fp32"]["encoder"]
    model = graphs.load(path)
    assert "encoder.layer_norm" not in outliers.smooth(model, listen(path, sounds))


def mixed(model) -> str:
    """What the first layer's out_proj reads."""
    name = "encoder.layers.0.self_attn.out_proj/MatMul"
    return next(node for node in model.graph if node.name == name).inputs[0].name


def test_what_was_smoothed_is_not_split_as_well(tiny, sounds):
    """A loud channel of the values: divided down at v_proj, so out_proj is left whole; unsmoothed, it is split."""
    for smoothed in (True, False):
        model = graphs.load(tiny.pairs["fp32"]["encoder"])
        layer, value = "encoder.layers.0.self_attn.out_proj", mixed(model)
        heard = listen(tiny.pairs["fp32"]["encoder"], sounds)
        heard[value].high[0] = heard[value].rows[:, 0] = 100
        assert not smoothed or "encoder.layers.0.self_attn.v_proj" in outliers.smooth(model, heard)
        assert (layer in [each.layer for each in outliers.split(model, heard)]) != smoothed


def test_channels_that_no_weight_in_front_can_order_are_ordered_while_it_runs(tiny, sounds, tmp_path):
    """out_proj's come out of the mixing of heads: a Gather brings them into order, and the function stays."""
    source = tiny.pairs["fp32"]["encoder"]
    model, heard = graphs.load(source), listen(source, sounds)
    value = mixed(model)
    heard[value].high[5] = 100
    done = outliers.split(model, {value: heard[value]})
    graphs.save(model, tmp_path / "split.onnx")
    assert [each.layer for each in done] == ["encoder.layers.0.self_attn.out_proj"] and 5 in done[0].channels
    assert f"{done[0].layer}/outliers/ordered" in {node.name for node in model.graph}
    saved = graphs.load(tmp_path / "split.onnx")  # its biases stand as they stood, and the gate knows it
    saved.metadata_props["recipe"] = json.dumps({"outliers": {done[0].layer: done[0].channels}})
    graphs.save(saved, tmp_path / "told.onnx")
    assert structure.kept(tmp_path / "told.onnx", "encoder", structure.vectors(graphs.load(source)))[0].passed
    assert sqnr_db(hidden(source, sounds[0]), hidden(tmp_path / "split.onnx", sounds[0])) > 40


def test_the_order_costs_no_node_and_the_bias_in_front_is_known_again(tiny, planted, written):
    """Loud channels last: the layer in front has its columns so; the gate on biases follows the recipe, and no more."""
    path = written / names.graph_file(tiny.checkpoint.name, "encoder", "int8")
    types = graphs.node_types(graphs.load(path))
    assert types["Split"] == 1 and types["Gather"] == graphs.node_types(graphs.load(planted))["Gather"]
    right = structure.vectors(graphs.load(planted))
    assert structure.kept(path, "encoder", right)[0].passed
    swapped = right | {f"{LAYER[:-1]}1.bias": np.roll(right[f"{LAYER[:-1]}1.bias"], 1)}
    assert not structure.kept(path, "encoder", swapped)[0].passed


@pytest.mark.parametrize("loud,found", [(1.9, False), (2.1, True)])
def test_the_rule_compares_with_the_loudest_of_the_others(loud, found):
    largest = np.linspace(0.5, 1, 128).astype(np.float32)
    largest[7] = loud
    inputs = Activations(np.zeros(128, np.float32), largest, np.zeros((1, 128), np.float32))
    result = outliers.outlier_channels("layer", inputs, outliers.LOUD["encoder"])
    assert (result is not None) == found
    assert not found or (7 in result.channels and result.others == pytest.approx(largest[126]))


def test_all_of_what_is_heard_counts(tiny, sounds):
    """Ranges are those of all sounds together, whatever their order; some rows of each are kept."""
    path, value = tiny.pairs["fp32"]["encoder"], "encoder.layers.0.activation_fn/Gelu"
    alone = [listen(path, [sound])[value] for sound in sounds]
    together = listen(path, sounds[::-1])[value]
    np.testing.assert_array_equal(together.high, np.max([each.high for each in alone], axis=0))
    np.testing.assert_array_equal(together.low, np.min([each.low for each in alone], axis=0))
    assert together.rows.shape == (sum(len(each.rows) for each in alone), 128)
    assert not list(path.parent.glob("*calibration*"))


@pytest.fixture(scope="module")
def written(tiny, planted, tmp_path_factory) -> Path:
    """What 03 makes of the planted encoder: int8 plain and optimized, and int4."""
    def ready(model, folder, name, alignment_heads):
        folder.mkdir()
        paths = names.pair(folder, name)
        for part, source in (("encoder", planted), ("decoder", tiny.pairs["fp32"]["decoder"])):
            graphs.save(graphs.load(source), paths[part])
        return paths

    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script(), "export_fp32", ready)
        patch.chdir(folder)
        patch.setenv("HF_HUB_OFFLINE", "1")
        assert script().main(["--model", str(tiny.checkpoint.folder), "--output-dir", "out", "--precision", "all",
                              "--optimize", "--no-verify", "--quiet", "--threads", "1"]) == 0
    return folder / "out"


def test_both_int8_pairs_keep_them_and_say_so(tiny, planted, written):
    config, name = tiny.model.config, tiny.checkpoint.name
    for optimized in (False, True):
        path = written / names.graph_file(name, "encoder", "int8", optimized)
        nodes = {node.name for node in graphs.load(path).graph}
        assert {f"{LAYER}/outliers/{what}" for what in ("MatMul", "Add")} <= nodes
        assert {f"{LAYER}/outliers/Split": not optimized, f"{LAYER[:-1]}1.loud/MatMul_quant": optimized} == {
            name: name in nodes for name in (f"{LAYER}/outliers/Split", f"{LAYER[:-1]}1.loud/MatMul_quant")}
        assert f"{LAYER}/MatMul_quant" in nodes  # the rest of the layer is int8
        recipe = json.loads(metadata.read(path)["recipe"])
        assert CHANNEL in recipe["outliers"][LAYER] and recipe["smoothed"][NORM] > 0
        gates = structure.check(path, "encoder", "int8", config, graphs.size(planted), optimized=optimized)
        assert [gate.name for gate in gates if not gate.passed] == []
    plain = json.loads(metadata.read(written / names.graph_file(name, "encoder"))["recipe"])
    assert "outliers" not in plain


def test_made_apart_outliers_are_the_same_numbers(tiny, planted, sounds, tmp_path):
    path, _ = prepare(tiny, planted, tmp_path / "prepared")
    model = graphs.load(path)
    outliers.make_apart(model)
    graphs.save(model, tmp_path / "apart.onnx")
    paths = [path, tmp_path / "apart.onnx"]
    assert [graphs.node_types(graphs.load(each))["Split"] for each in paths] == [1, 0]
    np.testing.assert_allclose(*(hidden(each, sounds[0]) for each in paths), atol=1e-5)


def test_of_outliers_that_are_made_apart_the_gate_knows_both_biases(tiny, planted, written):
    path = written / names.graph_file(tiny.checkpoint.name, "encoder", "int8", optimized=True)
    assert graphs.node_types(graphs.load(path))["Split"] == 0
    right, front = structure.vectors(graphs.load(planted)), f"{LAYER[:-1]}1.bias"
    assert structure.kept(path, "encoder", right)[0].passed
    for place in (0, CHANNEL):  # of a quiet channel and of a loud one
        wrong = right[front].copy()
        wrong[place] += 1
        assert not structure.kept(path, "encoder", right | {front: wrong})[0].passed


def test_int4_gives_8_bits_to_what_is_added_to_the_rest(tiny, written):
    """Values and what is added up; and each file is still smaller than int8's."""
    config, name = tiny.model.config, tiny.checkpoint.name
    for part in names.PARTS:
        path = written / names.graph_file(name, part, "int4")
        bits = {node.name: node.attributes["bits"].as_int() for node in graphs.load(path).graph
                if node.op_type == "MatMulNBits"}
        assert len(bits) == structure.linear_layers(part, config)
        fine = {layer for layer, count in bits.items() if count == 8}
        assert set(bits.values()) == {4, 8}
        upper = "fc1" if part == "encoder" else f"decoder.layers.{config.decoder_layers - 1}.fc1"
        fine_ones = ("v_proj", "out_proj", "proj_out", "fc2", upper)
        assert fine == {layer for layer in bits if any(what in layer for what in fine_ones)}
        assert json.loads(metadata.read(path)["recipe"])["eight_bits"] == blocks.eight_bits(config.decoder_layers)
        assert graphs.size(path) < graphs.size(written / names.graph_file(name, part, "int8"))


def test_a_switch_computes_what_the_export_writes(tiny, sounds, tmp_path):
    """--sensitivity's graph: with all in float the float graph, with one layer switched that layer's int8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from whisper_lab.export import int8, sensitivity

    source, layer = tiny.pairs["fp32"]["encoder"], "encoder.layers.1.fc2/MatMul"
    sensitivity.write_switched(source, tmp_path / "switches.onnx", ["encoder.layers.0.fc1/MatMul", layer])
    quantize_dynamic(source, tmp_path / "one.onnx", per_channel=True, weight_type=QuantType.QInt8,
                     nodes_to_quantize=[layer])
    model = graphs.load(tmp_path / "one.onnx")
    int8.fit_layers(model, graphs.load(source))
    graphs.save(model, tmp_path / "one.onnx")
    graph, feeds = sensitivity.Switched(session(tmp_path / "switches.onnx", 1)), {"input_features": sounds[0]}
    assert [value.name for value in graph.get_inputs()] == ["input_features"]
    in_float = graph.run(["encoder_hidden_states"], feeds)[0]
    np.testing.assert_allclose(in_float, hidden(source, sounds[0]), atol=1e-5)
    graph.layer = 1
    switched, right = graph.run(["encoder_hidden_states"], feeds)[0], hidden(tmp_path / "one.onnx", sounds[0])
    assert sqnr_db(in_float, switched) < 60  # int8 it is
    # And the export's own error, to the last bit or nearly.
    assert np.array_equal(right, switched) or sqnr_db(right - in_float, switched - in_float) > 20


def test_the_comparison_says_what_became_of_each_weight(tiny, written):
    """04 knows int4's layers of 8 bits, and the outliers' weights: stored in int8, computed in float."""
    import onnx

    from whisper_lab.compare import graph_facts

    models = {precision: onnx.load(written / names.graph_file(tiny.checkpoint.name, "encoder", precision))
              for precision in ("fp32", "int8", "int4")}
    rows = {precision: {row["name"]: row for row in graph_facts.weights(model)} for precision, model in models.items()}
    assert set(rows["fp32"]) <= set(rows["int8"])  # no weight changed its name on the way
    assert rows["int4"]["encoder.layers.0.self_attn.v_proj.weight"]["reason"].startswith("8 bits in blocks")
    assert rows["int4"]["encoder.layers.0.self_attn.q_proj.weight"]["reason"].startswith("4 bits in blocks")
    attention = {precision: next(row["count"] for row in graph_facts.kept_operators(model)
                                 if row["operator"] == "MatMul")
                 for precision, model in models.items()}
    assert attention["int8"] == attention["fp32"]  # the float product of the outliers is none of attention's
