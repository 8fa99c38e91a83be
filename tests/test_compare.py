"""04 and whisper_lab/compare: facts of graphs, numbers, texts, timing, the gate and the report."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from whisper_lab import report
from whisper_lab.compare import (
    figures,
    graph_facts,
    heard,
    layers,
    limits,
    pytorch,
    sections,
    texts,
    timing,
    variants,
    verdict,
)
from whisper_lab.compare.memory import Setup
from whisper_lab.console import LabError
from whisper_lab.pictures import SLIDE

SCRIPT = "04-compare-precisions.py"
ROOT = Path(__file__).resolve().parent.parent


def small_graph(path, *, hidden=32, operators=("MatMul", "Relu"), outside=False):
    """x [n, 64] @ weight [64, hidden], and whatever follows."""
    random = np.random.default_rng(3)
    weight = numpy_helper.from_array(random.normal(size=(64, hidden)).astype(np.float32), "layer.weight")
    bias = numpy_helper.from_array(np.ones(hidden, np.float32), "layer.bias")
    nodes, name = [helper.make_node("MatMul", ["x", "layer.weight"], ["layer/MatMul"], "layer/MatMul")], "layer/MatMul"
    for i, operator in enumerate(operators[1:]):
        nodes.append(helper.make_node(operator, [name], [f"out{i}"], f"layer/{operator}"))
        name = f"out{i}"
    nodes.append(helper.make_node("Add", [name, "layer.bias"], ["y"], "layer/Add"))
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", hidden])], [weight, bias])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, path, save_as_external_data=outside, location=f"{path.name}.data", size_threshold=1024)
    return path


# Files and graphs ----------------------------------------------------------------------------------------------------

def test_facts_of_a_graph(tmp_path):
    path = small_graph(tmp_path / "a.onnx")
    facts = graph_facts.facts(path, graph_facts.read(path))
    assert facts["size_bytes"] == path.stat().st_size
    assert facts["weight_bytes"] == {"float32": 4 * (64 * 32 + 32)}
    assert facts["operators"] == {"MatMul": 1, "Relu": 1, "Add": 1} and facts["nodes"] == 3
    assert facts["largest_tensors"][0] == {"name": "layer.weight", "type": "float32", "shape": [64, 32],
                                           "size_bytes": 4 * 64 * 32}
    assert facts["opsets"] == {"ai.onnx": 20} and facts["ir_version"] == 9


def test_weights_outside_the_graph_count_and_change_the_hash(tmp_path):
    path = small_graph(tmp_path / "a.onnx", outside=True)
    sidecar = tmp_path / "a.onnx.data"
    facts = graph_facts.facts(path, graph_facts.read(path))
    assert facts["size_bytes"] == path.stat().st_size + sidecar.stat().st_size and facts["files"] == 2
    sidecar.write_bytes(sidecar.read_bytes()[:-1] + b"\x01")
    assert graph_facts.facts(path, graph_facts.read(path))["sha256"] != facts["sha256"]
    sidecar.unlink()
    with pytest.raises(LabError, match=r"a\.onnx\.data, which is not beside it"):
        graph_facts.facts(path, graph_facts.read(path))


@pytest.mark.parametrize("kind, shape, expected", [
    (TensorProto.INT4, [3, 3], 5), (TensorProto.FLOAT16, [4], 8), (TensorProto.INT8, [0, 7], 0),
    (TensorProto.DOUBLE, [], 8), (TensorProto.BOOL, [2], 2)])
def test_bytes_of_a_tensor(kind, shape, expected):
    assert graph_facts.tensor_bytes(TensorProto(data_type=kind, dims=shape)) == expected


@pytest.mark.parametrize("content", [b"", b"no graph at all", bytes(range(256))])
def test_what_is_no_onnx_file(tmp_path, content):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(LabError, match="is not an ONNX file"):
        graph_facts.read(path)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(LabError, match="does not exist"):
        graph_facts.read(tmp_path / "none.onnx")
    with pytest.raises(LabError, match="is a folder"):
        graph_facts.read(tmp_path)


def test_weights_and_why(exported):
    """The tiny export in all precisions: every linear layer is found in the state that 03 put it in."""
    states = {name: {row["name"]: row["state"] for row in graph_facts.weights(graph_facts.read(pair["decoder"]))}
              for name, pair in exported.pairs.items()}
    layer, table = "decoder.layers.1.fc1.weight", "decoder.embed_tokens.weight"
    assert [states[name][layer] for name in ("fp32", "fp16", "int8", "int4")] == ["left", "half"] + ["quantized"] * 2
    assert states["int8"][table] == "quantized" and states["fp32"][table] == "left"
    rows = graph_facts.weights(graph_facts.read(exported.pairs["int8"]["encoder"]))
    conv = next(row for row in rows if row["name"] == "encoder.conv2.weight")
    assert conv["state"] == "stored small" and "ConvInteger" in conv["reason"]
    kept = {row["operator"]: row["count"] for row in
            graph_facts.kept_operators(graph_facts.read(exported.pairs["int8"]["encoder"]))}
    assert kept["LayerNormalization"] == 2 * 2 + 1 and kept["MatMul"] == 2 * 2  # scores and mixing, two layers


def test_operator_change_is_exact(exported, call_script, tmp_path):
    pair = [exported.pairs[name]["encoder"] for name in ("fp32", "int8")]
    status, out, _ = call_script(SCRIPT, "--graphs", *pair, "--output-dir", tmp_path)
    made = json.loads(next(tmp_path.glob("compare-*.json")).read_text(encoding="utf-8"))
    change = made["graphs"]["b"]["operator_change"]
    assert status == 0 and change["MatMulInteger"] == -change["MatMul"] == 6 * 2 + 2 * 2
    assert made["graphs"]["b"]["operators_added"] == ["DynamicQuantizeLinear", "MatMulInteger"]
    assert change["Cast"] >= change["MatMulInteger"] and change["Mul"] >= change["MatMulInteger"]
    assert "MatMulInteger" in out and len(list(tmp_path.glob("*.png"))) == 2


# Numbers -------------------------------------------------------------------------------------------------------------

def test_error_per_layer_grows_where_a_layer_is_broken(exported, tmp_path):
    base = exported.pairs["fp32"]
    model = onnx.load(base["encoder"])
    weight = next(one for one in model.graph.initializer if one.name == "encoder.layers.1.fc1.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.1, weight.name))
    broken = tmp_path / "broken.onnx"
    onnx.save(model, broken)
    feeds = {"encoder": {"input_features": exported.sounds[0].features}}
    rows = layers.layer_errors({"broken": {"encoder": broken}}, {"encoder": base["encoder"]}, {"broken": feeds}, feeds,
                                1)["broken"]
    by_layer = {row["layer"]: row["sqnr_db"] for row in rows}
    assert by_layer["encoder.layers.0.fc2"] is None and by_layer["encoder.layers.1.self_attn.out_proj"] is None
    assert 15 < by_layer["encoder.layers.1.fc1"] < 25  # a tenth too large: 20 dB, and the bias changes that a little
    assert layers.worst(rows)[0]["sqnr_db"] == min(value for value in by_layer.values() if value is not None)


def test_nan_is_told_and_comes_first():
    row = layers._error(np.ones(3), np.array([1.0, np.nan, np.inf]))
    assert row["nonfinite"] == 2 and row["sqnr_db"] is None
    assert layers.worst([{"layer": "a", "sqnr_db": 3.0, "nonfinite": 0}, row | {"layer": "b"}])[0]["layer"] == "b"


def test_first_divergence_and_its_margin():
    class Tokenizer:
        def decode(self, ids):
            return f"t{ids[0]}"

    sound = heard.Heard("clip.wav", None, None, None, 0, None)
    right = np.array([[0.0, 5.0, 1.0], [4.0, 3.5, 0.0]])
    test = np.array([[0.0, 6.0, 1.0], [3.0, 3.1, 0.0]])
    found = heard.first_divergence(Tokenizer(), sound, right, test)
    assert found == {"clip": "clip.wav", "token": 1, "pytorch": "t0", "graph": "t1", "margin_logits": 0.5}
    assert heard.first_divergence(Tokenizer(), sound, right, right + 1) is None


@pytest.mark.parametrize("outside", [False, True])
def test_inner_values_are_made_outputs_of_a_graph_as_it_stands(tmp_path, outside):
    """An output that is there already does not come twice, which onnxruntime refuses, and the file is not changed."""
    path = small_graph(tmp_path / "a.onnx", outside=outside)
    before, x = path.read_bytes(), np.ones((2, 64), np.float32)
    found = layers.exposed(path, ["layer/MatMul", "y"], {"x": x}, 1)
    weight = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    np.testing.assert_allclose(found["layer/MatMul"], x @ weight, rtol=1e-5)
    np.testing.assert_allclose(found["y"], np.maximum(x @ weight, 0) + 1, rtol=1e-5)
    assert path.read_bytes() == before and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("outside", [False, True])
def test_inner_values_need_no_room_beside_the_graph(tmp_path, outside):
    """The folder may be read-only. Whatever is made or removed in it changes its time, also for the superuser."""
    path = small_graph(tmp_path / "a.onnx", outside=outside)
    os.utime(tmp_path, (1, 1))
    tmp_path.chmod(0o555)
    try:
        assert set(layers.exposed(path, ["layer/MatMul"], {"x": np.ones((2, 64), np.float32)}, 1)) == {"layer/MatMul"}
    finally:
        tmp_path.chmod(0o755)
    assert tmp_path.stat().st_mtime == 1


def test_two_programs_look_into_one_graph_at_once(tmp_path, monkeypatch):
    """The second one comes, and is done, while the first one opens its copy."""
    import onnxruntime

    path, feeds = small_graph(tmp_path / "a.onnx", outside=True), {"x": np.ones((2, 64), np.float32)}
    opened, found = onnxruntime.InferenceSession, []

    def interrupted(*arguments, **options):
        monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
        found.append(layers.exposed(path, ["out0"], feeds, 1))
        return opened(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", interrupted)
    found.append(layers.exposed(path, ["out0"], feeds, 1))
    np.testing.assert_array_equal(found[0]["out0"], found[1]["out0"])


# Texts ---------------------------------------------------------------------------------------------------------------

def clip(reference, name="a.wav", language="en"):
    return texts.Clip(name, np.zeros(16000, np.float32), 1.0, reference, language)


def test_rates_are_pooled_over_words_not_clips():
    score = texts.score([clip("turn on the light in the kitchen please"), clip("off", "b.wav")],
                        ["turn on the light in the kitchen please", "of"], ["turn", "off"])
    assert score["reference"]["wer"] == pytest.approx(1 / 9)
    assert score["reference"]["alignments"][1] == [("S", "off", "of")]
    assert score["pytorch"]["reference_words"] == 2


def test_characters_are_pooled_as_they_are_compared():
    """Punctuation is not compared, so it does not count as characters that were right (or wrong) either."""
    clips = [clip("x, y!!!! ..... ??????", language="nl"), clip("abcdefghij", "b.wav", "nl")]
    score = texts.score(clips, ["x", "abcdefghij"], ["", ""])
    assert score["reference"]["cer"] == pytest.approx(2 / 13)  # "x y" lost " y"


@pytest.mark.parametrize("one, other, p", [(0, 0, 1.0), (1, 0, 1.0), (6, 0, 0.03125), (0, 8, 0.0078125),
                                           (13, 4, 0.04904)])
def test_sign_test(one, other, p):
    assert texts.sign_test(one, other) == pytest.approx(p, rel=1e-3)  # binomial tables


def test_a_difference_is_noise_until_enough_words_changed():
    words = " ".join(["word"] * 40)
    base = texts.score([clip(words)], [words], [words])["reference"]

    def lost(count):
        text = " ".join(["word"] * (40 - count) + ["other"] * count)
        return texts.difference(base, texts.score([clip(words)], [text], [words])["reference"])

    assert lost(texts.FEWEST_CHANGED - 1)["within_noise"] and not lost(texts.FEWEST_CHANGED)["within_noise"]
    assert lost(3) == {"errors_more": 3, "errors_fewer": 0, "p_value": 0.25, "within_noise": True}


def test_inserted_words_count_in_the_verdict():
    """Word for word as right as fp32, and still worse: it says words that no one said."""
    words = "turn on the light in the kitchen please"
    base = texts.score([clip(words)], [words], [words])["reference"]
    test = texts.score([clip(words)], [words + " thank you very much"], [words])["reference"]
    assert texts.difference(base, test) == {"errors_more": 4, "errors_fewer": 0, "p_value": 0.125, "within_noise": True}
    back = texts.difference(test, base)
    assert (back["errors_more"], back["errors_fewer"]) == (0, 4)
    entry = {"text": {"reference": test}, "text_difference": texts.difference(base, test)}
    assert "4 errors that fp32 does not make, 0 of fp32's avoided" in verdict._text(entry)


@pytest.mark.parametrize(("said", "written"), [
    ("four seven two nine one eight", "472918."), ("set a timer for thirty seconds", "Set a timer for 30 seconds")])
def test_a_number_in_figures_is_no_error(said, written):
    assert texts.score([clip(said)], [written], [written])["reference"]["wer"] == 0


def test_few_words_are_warned_of():
    assert "points) prove" in texts.few_words(24) and "words prove" in texts.few_words(7)
    assert "24 words" in texts.few_words(24) and texts.few_words(texts.ENOUGH_WORDS) is None
    assert "nothing" in texts.few_words(0)


def test_manifest_folder_and_single_file(tmp_path, references):
    shutil.copy(ROOT / "media" / "digits.wav", tmp_path)
    manifest = tmp_path / "references.json"
    manifest.write_text('{"digits.wav": "four seven"}', encoding="utf-8")
    for given in (manifest, tmp_path):
        (found,) = texts.read_clips([str(given)], None, None)
        assert (found.name, found.reference, found.language) == ("digits.wav", "four seven", None)
    (found,) = texts.read_clips([str(tmp_path / "digits.wav")], None, None)
    assert found.reference == "four seven"
    (found,) = texts.read_clips([str(tmp_path / "digits.wav")], "said by hand", "en")
    assert (found.reference, found.language) == ("said by hand", "en")
    for broken in ("[1]", "{", "{}"):
        manifest.write_text(broken, encoding="utf-8")
        with pytest.raises(LabError, match="manifest"):
            texts.read_clips([str(manifest)], None, None)


# Speed ---------------------------------------------------------------------------------------------------------------

def rounds(*milliseconds):
    return [{"encoder_ms": value / 2, "prompt_ms": 0.0, "token_ms": value / 64, "window_ms": value}
            for value in milliseconds]


def test_speed_is_compared_round_by_round():
    slow, fast = rounds(10, 20, 40, 10, 20, 40, 10), rounds(5, 10, 20, 5, 10, 20, 5)
    found = timing.against(slow, fast)
    assert found["speedup"] == 2.0 and not found["within_noise"]  # though their ranges overlap
    assert timing.against(slow, rounds(11, 19, 41, 9, 21, 39, 11))["within_noise"]
    assert timing.against(slow[:3], fast[:3])["within_noise"]  # three rounds prove nothing
    assert timing.summary(slow, 10.0)["real_time_factor"] == 0.002


def test_speed_is_one_number_in_table_and_picture():
    """Here the medians say that int8 is slower than fp32, and the rounds in turn that it is faster: the machine."""
    busy = timing.of_pairs({"int8": (rounds(20, 21, 22, 23, 24, 25, 26), rounds(10, 11, 12, 13, 14, 15, 16)),
                            "fp16": (rounds(*[2] * 9), rounds(*[2] * 9))}, "fp32", 10.0)
    assert busy["int8"]["rtfx"] < busy["fp32"]["rtfx"] and busy["int8"]["speedup"] > 1.5
    text = {"reference": {"wer": 0.1, "reference_words": 10, "alignments": []}, "pytorch": None}
    made = {"variants": {name: {"text": text, "speed": speed, "size_bytes": 1, "size_ratio": 1.0, "memory": None}
                         for name, speed in busy.items()}, "warnings": [], "missing": [], "dominated": {}}
    drawn, table = verdict.points(made), sections._verdict(made).tables[0]
    assert table.columns[4] == variants.SPEED
    figure = figures.pareto(made, drawn, SLIDE)
    assert figure.axes[0].get_xlabel().startswith(variants.SPEED)
    legend = {text.get_text().split("\n")[0]: text.get_text() for text in figure.legends[0].get_texts()}
    for name, *_, speed, _ in table.rows:
        assert legend[name].endswith(f" {speed} x") and f"{drawn[name]['speedup']:.2f}" == speed
        assert drawn[name]["speedup_q1"] <= drawn[name]["speedup"] <= drawn[name]["speedup_q3"]


# Verdict and gate ----------------------------------------------------------------------------------------------------

def point(wer, low, high, size, noise=True):
    wrong = round(100 * wer)
    alignment = [("S", "a", "b")] * wrong + [("=", "a", "a")] * (100 - wrong)
    return {"wer": wer, "wer_noise": 0.08, "alignments": [alignment],
            "speedup": (low + high) / 2, "speedup_q1": low, "speedup_q3": high, "within_noise": noise,
            "size_bytes": size}


def test_beaten_only_beyond_noise():
    found = {"fp32": point(0.10, 1.0, 1.0, 100), "int8": point(0.12, 0.7, 0.9, 25), "int4": point(0.30, 0.5, 0.6, 15)}
    found["worse"] = point(0.20, 0.7, 0.9, 25)  # 8 words more than int8, all one way: p = 0.008
    # int8 is smaller than fp32, and neither text nor speed differ beyond noise, as the verdict on its speed says too.
    assert verdict.dominated(found) == {"fp32": "int8", "worse": "int8"}
    found["int8"] = point(0.12, 0.7, 0.9, 25, noise=False)
    assert verdict.dominated(found) == {"worse": "int8"}


@pytest.mark.parametrize(("speedups", "words"), [
    ((2.0, 1.9, 2.2), "2.00 times faster on one window (1.90 to 2.20 in 7 rounds)"),
    ((0.5, 0.4, 0.8), "2.00 times slower on one window (1.25 to 2.50 in 7 rounds)"),  # all three as times slower
])
def test_how_much_faster_or_slower(speedups, words):
    speed = dict(zip(("speedup", "speedup_min", "speedup_max"), speedups, strict=True))
    assert verdict._speed({**speed, "within_noise": False, "rounds": 7}) == words


@pytest.mark.parametrize("text, failing", [
    ("wer_delta>0.02", ["int8.wer_delta = 0.03"]), ("size_ratio > 0.4", ["fp16.size_ratio = 0.5"]),
    ("int8.wer_delta>=0.03 and fp16.size_ratio<1", ["int8.wer_delta = 0.03, fp16.size_ratio = 0.5"]),
    ("wer_delta<-0.02 or wer_delta>1", []), ("fp16.wer_delta>0.02", [])])
def test_gate(text, failing):
    values = {"fp16": {"wer_delta": 0.0, "size_ratio": 0.5}, "int8": {"wer_delta": 0.03, "size_ratio": 0.25}}
    assert limits.parse(text).failures(values) == failing


def test_a_gate_that_cannot_see_does_not_pass():
    with pytest.raises(LabError, match="speedup of int8, which was not measured"):
        limits.parse("speedup<1").failures({"int8": {"speedup": None}})


def test_a_gate_over_graphs_that_are_not_compared(tmp_path, call_script):
    """fp32 is wrong usage; a pair that was not exported is told before anything is measured."""
    from whisper_lab import names

    given = ["--model", "nano", "--model-dir", tmp_path, "--audio", tmp_path / "not-read-yet.wav", "--fail-if"]
    for precision in ("fp32", "int8"):
        for path in names.pair(tmp_path, "whisper-nano", precision).values():
            path.touch()
    status, _, err = call_script(SCRIPT, *given, "fp32.wer>0.1")
    assert status == 2 and "fp32 is not compared here" in err
    status, _, err = call_script(SCRIPT, *given, "int4.wer>0.1")
    assert status == 1 and "names int4, which is not compared with fp32 here: there is int8" in err
    with pytest.raises(LabError, match="names int4"):
        limits.parse("int4.wer>0.1").failures({"int8": {"wer": 0.0}})


@pytest.mark.parametrize("text", ["", "wer", "wer>", "wer_dleta>0.02", "wer>cer", "1<wer<2", "wer>True", "wer=='x'",
                                  "__import__('os')>1", "not wer>1", "a.b.wer>1", "wer>0.1; cer>0.1", "wer>(1)**9"])
def test_wrong_expressions_are_wrong_usage(text, call_script):
    with pytest.raises(ValueError, match=r"metric|comparison|number"):
        limits.parse(text)
    status, _, err = call_script(SCRIPT, "--fail-if", text)
    assert status == 2 and "--fail-if" in err


def test_the_list_of_what_can_be_tested_is_whole(call_script):
    """--help has no room for it."""
    status, out, _ = call_script(SCRIPT, "--fail-if", "list")
    assert status == 0 and all(f" {metric} " in out for metric in limits.METRICS)


# The report ----------------------------------------------------------------------------------------------------------

def test_a_layer_of_nan_is_not_called_exact():
    right = np.ones(3, np.float32)
    rows = [{"part": "encoder", "layer": name, **layers._error(right, test)}
            for name, test in (("same", right), ("broken", right * np.nan), ("noisy", right * 0.9))]
    one = {"encoder_cosine": 1.0, "encoder_max_error": 0.0, "encoder_mean_error": 0.0, "encoder_sqnr_db": None,
           "top1_agreement": 1.0, "first_divergence": None, "nonfinite": 4}
    tables = sections._numbers({"variants": {"fp16": {"numbers": one, "layers": rows}}}).tables
    assert tables[0].rows[0][4] == "exact"  # the encoder's end; the four stand among the decoder's logits
    assert [row[2:4] for row in tables[1].rows] == [["broken", "NaN, inf"], ["noisy", "20.0"]]
    assert [row[3] for row in tables[2].rows] == ["exact", "NaN, inf", "20.0"]


def test_page_escapes_and_needs_nothing_else():
    section = sections.Section("A <b>", "x & y", ["<script>alert(1)</script>"], tables=[
        sections.Table("t", ["c|d"], [["<i>", "a|b"]])], aligned=[sections.Aligned("clip", [["S", "<a>", "&"]])])
    page = report.html("t", "u", [section], {})
    assert "<script" not in page and "&lt;script&gt;" in page and "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "a\\|b" in report.markdown("t", "u", [section], {})


def test_texts_without_an_error_are_folded_below_those_with_one():
    right = [sections.Aligned(f"right {i}", [["=", "a", "a"]]) for i in range(3)]
    page = report.html("t", "u", [sections.Section("Text", "x", aligned=[*right, sections.Aligned("wrong", [
        ["S", "a", "b"]])])], {})
    assert page.index("wrong") < page.index("3 without an error") < page.index("right 0")
    assert page.count("</summary>") == 2  # the section's own, and that


def test_missing_precisions_are_named_with_their_command(exported, tmp_path, caplog):
    from whisper_lab import names

    name = exported.checkpoint.name
    with pytest.raises(LabError, match="no fp32 pair"):
        variants.present_and_missing(tmp_path, name)
    for path in exported.pairs["fp32"].values():
        shutil.copy(path, tmp_path / path.name)
    with pytest.raises(LabError, match="there is no fp16 or .* to compare with fp32") as error:
        variants.present_and_missing(tmp_path, name)
    assert "--precision fp16" in error.value.remedy
    with pytest.raises(LabError, match="no int4 pair of .* to compare with fp32"):
        variants.present_and_missing(tmp_path, name, ["int4"])
    for path in exported.pairs["int8"].values():
        shutil.copy(path, tmp_path / path.name)
    present, missing = variants.present_and_missing(tmp_path, name)
    assert [one.name for one in present] == ["fp32", "int8"]
    assert [one.command.split("03-export-encoder-decoder.py ")[1] for one in missing] == [
        f"--model {name} --precision fp16 --output-dir {tmp_path}",
        f"--model {name} --precision int4 --output-dir {tmp_path}",
        f"--model {name} --precision int8 --optimize --output-dir {tmp_path}"]
    assert names.pair(tmp_path, name)["encoder"].is_file()


def test_the_script_end_to_end(comparison):
    """On the tiny random model: all points are there, units in the keys, and the page says what was measured."""
    status, out, err, folder, name = comparison
    assert status == 1, err  # the gate below fails on purpose
    made = json.loads((folder / f"compare-{name}.json").read_text(encoding="utf-8"))
    assert made["schema"] == "whisper-onnx-lab/compare/1" and made["machine"]["cores"] and made["model"]["name"] == name
    assert list(made["variants"]) == ["pytorch", "fp32", "int8"]
    int8 = made["variants"]["int8"]
    assert int8["numbers"]["encoder_cosine"] > 0.99 and 15 < int8["numbers"]["encoder_sqnr_db"] < 60
    assert made["variants"]["fp32"]["numbers"]["encoder_sqnr_db"] > 90
    assert len(int8["layers"]) > 20 and all(row["sqnr_db"] is None or row["sqnr_db"] > 5 for row in int8["layers"])
    assert int8["speed"]["window_ms"]["min"] <= int8["speed"]["window_ms"]["median"]
    assert 20e6 < int8["memory"]["peak_rss_bytes"] < made["variants"]["pytorch"]["memory"]["peak_rss_bytes"]
    assert any("never trained" in warning for warning in made["warnings"])
    assert {one["name"] for one in made["missing"]} == {"fp16", "int4", "int8_optimized"}
    assert "SHA-256" not in out and len(out.splitlines()) < 30  # the result first; the rest is in the report
    assert int8["verdict"] in out and "random weights" in int8["verdict"]
    assert "FAILED size_ratio>0.01 and int8.nonfinite<1: int8.size_ratio" in out
    page = (folder / f"compare-{name}.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2 * 5  # on a laptop, and on a telephone
    report = (folder / f"compare-{name}.md").read_text(encoding="utf-8")
    assert "| precision | MB | size, fp32 = 1 | WER | speed, fp32 = 1 | peak MB |" in report
    for picture in ("sizes", "operators-encoder", "operators-decoder", "layers", "pareto"):
        assert f"(compare-{name}-{picture}.png)" in report
        assert (folder / f"compare-{name}-{picture}.png").stat().st_size > 10_000


def test_pytorch_and_the_graphs_never_share_a_process(comparison):
    """PyTorch alone takes more than two pairs of whisper-base's graphs; and of those no more than two are open."""
    watched = json.loads((comparison[3] / "watched.json").read_text(encoding="utf-8"))
    assert watched == {"sessions": 4, "packages": []}


def test_what_stops_pytorch_is_told_in_its_own_words(exported, tmp_path):
    setup = Setup(str(exported.checkpoint.folder), tmp_path, threads=1, language="en")
    clips = [str(ROOT / "media" / "digits.wav")]
    with pytorch.started(setup, clips, 6) as answers, pytest.raises(LabError, match="there is no encoder") as error:
        answers()
    assert "03-export-encoder-decoder.py" in error.value.remedy


@pytest.fixture(scope="module")
def exported():
    from tests.helpers import export_tiny

    return export_tiny.exported()


@pytest.fixture(scope="module")
def comparison(references):
    from tests.helpers import compare_tiny

    return compare_tiny.comparison()
