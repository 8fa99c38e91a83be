"""Every evidence script runs, its claims hold, its files keep the contract; and a claim that is made false fails."""

import contextlib
import hashlib
import importlib
import itertools
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HELPERS = {"__init__", "__main__", "common", "arm64", "imitated"}
NAMES = sorted(path.stem for path in (ROOT / "workbook" / "evidence").glob("*.py") if path.stem not in HELPERS)


def evidence(name: str, folder: Path, *options: str) -> tuple[int, dict]:
    """Exit status and JSON document of a script, run in this process."""
    module = importlib.import_module(f"workbook.evidence.{name}")
    status = module.main(["--output-dir", str(folder), "--quick", "--quiet", *options])
    return status, json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_claims_hold_and_files_keep_the_contract(nano, tmp_path, name):
    from PIL import Image

    status, document = evidence(name, tmp_path)
    failing = {claim["id"]: claim["measured"] for claim in document["claims"] if not claim["holds"]}
    assert (status, failing) == (0, {})
    assert document["schema"] == "whisper-onnx-lab/evidence/1"
    assert document["name"] == name and document["claims"]
    assert set(document["units"]) == set(document["values"]) >= set(document["stable"])
    assert all(isinstance(value, int | float | str) for value in document["values"].values())
    assert all(claim["text_en"].endswith(".") and claim["text_nl"].endswith(".") for claim in document["claims"])
    figure = tmp_path / document["figure"]
    assert figure.stat().st_size < 120_000
    text = json.dumps(document["values"], sort_keys=True, ensure_ascii=False)
    with Image.open(figure) as image:
        assert image.info["values"] == hashlib.sha256(text.encode()).hexdigest()
        assert image.width <= 1280 and image.height <= 720


def test_every_script_begins_with_its_question():
    for name in NAMES:
        described = importlib.import_module(f"workbook.evidence.{name}").__doc__
        assert described.splitlines()[0].endswith("?"), name


def test_without_a_planted_regression_the_alarm_is_silent_and_the_claim_false(nano, tmp_path, monkeypatch):
    from workbook.evidence import monitoring

    monkeypatch.setattr(monitoring, "planted", lambda i, wait_s: 0.0)
    monkeypatch.setattr(monitoring, "degrade", lambda sound, seed: sound)
    status, document = evidence("monitoring", tmp_path)
    assert status == 1
    assert document["values"]["alarm"] == "no"
    assert not next(claim for claim in document["claims"] if claim["id"] == "alarm")["holds"]


def test_the_single_graph_and_the_pair_hear_as_much(nano, monkeypatch):
    """Else the time of the one is compared with the time of more work."""
    from whisper_lab.short_windows import heard_frames
    from workbook.evidence import common, single_graph

    runtime, asked = common.onnx_runtime(single_graph.PRECISION), []
    encode, made = runtime.encode, common.Evidence()
    monkeypatch.setattr(runtime, "encode", lambda features: asked.append(features.shape[-1]) or encode(features))

    class Graph:
        def run(self, names, given):
            return [["a text"]]

    single_graph._compare(made, Graph(), True)
    sounds = [sound for sound, _ in common.spoken(True)]
    frames = [heard_frames(runtime, len(sound) / common.RATE) for sound in sounds]
    assert set(asked) == set(frames) and max(frames) < runtime.spec.n_frames


def test_the_gates_are_those_of_03(nano_export, nano, tmp_path):
    """Its own count for the int8 pair, less what --alignment-heads adds."""
    _, document = evidence("export_gates", tmp_path)
    report = json.loads((nano_export / "all.json").read_text(encoding="utf-8"))
    rows = [row for row in report["graphs"] if row["precision"] == "int8" and not row["optimized"]]
    both = [gate for gate in rows[0]["gates"] if gate["part"] is None]
    own = [gate for row in rows for gate in row["gates"] if gate["part"] is not None]
    assert document["values"]["gates"] == len(both) + len(own)


def test_outlier_channels_are_no_exception_to_what_is_said_of_int8():
    """A layer left out is one."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from workbook.evidence.netron_nodes import other_products

    def graph(name):
        nodes = [helper.make_node("MatMul", ["q", "k"], ["scores"], name="self_attn/MatMul"),
                 helper.make_node("DequantizeLinear", ["small", "scale"], ["weight"], name="fc2.weight"),
                 helper.make_node("MatMul", ["x", "weight"], ["y"], name=name)]
        stored = [numpy_helper.from_array(np.ones((2, 2), np.int8), "small"),
                  numpy_helper.from_array(np.float32(1), "scale")]
        given = [helper.make_tensor_value_info(one, TensorProto.FLOAT, [2, 2]) for one in "qkx"]
        made = [helper.make_tensor_value_info(one, TensorProto.FLOAT, [2, 2]) for one in ("scores", "y")]
        return helper.make_model(helper.make_graph(nodes, "g", given, made, stored))

    assert other_products(graph("encoder.layers.0.fc2/outliers/MatMul")) == []
    assert other_products(graph("encoder.layers.0.fc2/MatMul")) == ["encoder.layers.0.fc2/MatMul"]


def test_a_fault_that_is_none_is_not_caught_and_the_claim_false(nano, tmp_path, monkeypatch):
    from workbook.evidence import equality

    monkeypatch.setitem(equality.FAULTS, "nothing at all", lambda model: None)
    status, document = evidence("equality", tmp_path)
    assert status == 1
    assert document["values"]["broken_caught"] == document["values"]["broken_tried"] - 1


def test_resampled_rightly_nothing_goes_wrong_and_the_claim_false(nano, tmp_path, monkeypatch):
    from workbook.evidence import sample_rate

    monkeypatch.setattr(sample_rate, "taken_at", lambda rate, sound: sound)
    status, document = evidence("sample_rate", tmp_path)
    failing = {claim["id"] for claim in document["claims"] if not claim["holds"]}
    assert status == 1 and {"wrong", "wrong_low"} <= failing


def test_the_counter_without_its_wrap_gives_a_false_claim(nano, tmp_path, monkeypatch):
    from whisper_lab.energy import joules

    monkeypatch.setattr(joules, "from_counter", lambda readings, wraps_at=None: readings[-1][1][0] - readings[0][1][0])
    status, document = evidence("energy_integral", tmp_path)
    assert status == 1 and not next(one for one in document["claims"] if one["id"] == "wrap")["holds"]


def test_a_value_that_is_no_number_is_refused():
    from whisper_lab.console import LabError
    from workbook.evidence.common import Evidence

    with pytest.raises(LabError, match="wer"):
        Evidence().value("wer", float("nan"))


def test_without_rounding_no_token_differs_and_the_claim_is_false(nano, tmp_path, monkeypatch):
    from workbook.evidence import imitated

    monkeypatch.setattr(imitated, "quantized", lambda layers, bits=8, activations=True: contextlib.nullcontext())
    status, document = evidence("few_positions", tmp_path)
    assert status == 1 and document["values"]["top1_int4_percent"] == 100
    assert not next(one for one in document["claims"] if one["id"] == "tens")["holds"]


def test_whole_windows_everywhere_miss_no_end_and_the_claim_is_false(nano, tmp_path, monkeypatch):
    from workbook.evidence import short_window

    monkeypatch.setattr(short_window, "frames", lambda spec, sound, silence_s: spec.n_frames)
    status, document = evidence("short_window", tmp_path)
    failing = {claim["id"] for claim in document["claims"] if not claim["holds"]}
    assert status == 1 and failing == {"end_is_missed", "rest_tells_the_end"}


def test_a_layer_alone_costs_as_much_as_in_the_whole_encoder(nano):
    """The blocks before it are not computed again; the error is the same."""
    import torch

    from whisper_lab.export import calibration
    from workbook.evidence import common, imitated, outliers

    runtime = common.torch_runtime()
    encoder = runtime.model.model.encoder
    sound = torch.from_numpy(calibration.windows(runtime.spec, 0)[0])
    layers = imitated.linears(encoder)
    with torch.no_grad():
        right = encoder(sound).last_hidden_state
        before = outliers.block_inputs(encoder, sound)
        assert len(before) == len(encoder.layers)
        for name in (next(iter(layers)), "layers.1.fc2", list(layers)[-1]):
            whole = outliers.signal_db(encoder, [layers[name]], [sound], [right])
            assert abs(outliers.alone_db(encoder, name, layers[name], before, right) - whole) < 0.01, name


def test_int8_is_imitated_as_the_operators_compute_it(tmp_path):
    """Against onnx's own DynamicQuantizeLinear and MatMulInteger, and a layer is itself again afterwards."""
    import numpy as np
    import torch
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    from workbook.evidence import imitated

    torch.manual_seed(0)
    layer, x = torch.nn.Linear(24, 7), torch.randn(5, 24) * torch.logspace(-1, 2, 24)  # one loud channel
    scale = (layer.weight.abs().amax(dim=1) / 127).detach().numpy()
    weight = np.round(layer.weight.detach().numpy() / scale[:, None]).astype(np.int8)
    nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
             helper.make_node("MatMulInteger", ["q", "w", "zero"], ["product"])]
    given = [helper.make_tensor_value_info(*one) for one in (("x", TensorProto.FLOAT, [5, 24]),
                                                             ("w", TensorProto.INT8, [24, 7]))]
    made = [helper.make_tensor_value_info("product", TensorProto.INT32, [5, 7]),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, [])]
    model = helper.make_model(helper.make_graph(nodes, "int8", given, made))
    product, step = ReferenceEvaluator(model).run(None, {"x": x.numpy(), "w": np.ascontiguousarray(weight.T)})
    with torch.no_grad(), imitated.quantized([layer]):
        found = layer(x)
    expected = product * step * scale + layer.bias.detach().numpy()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-3)
    assert "forward" not in vars(layer) and not torch.equal(layer(x), found)


def test_a_run_hears_each_sound_once(tmp_path, monkeypatch):
    """What one script has transcribed, the next takes from the run's folder; other options or another model do not."""
    from types import SimpleNamespace

    import numpy as np

    from whisper_lab import transcribe
    from workbook.evidence import common

    heard = []

    def listen(runtime, sounds, options):
        heard.append(len(sounds))
        return [SimpleNamespace(text=f"{len(sound)} samples") for sound in sounds]

    monkeypatch.setattr(transcribe, "transcribe_many", listen)
    one, two = np.zeros(3, np.float32), np.ones(4, np.float32)
    named, nameless = SimpleNamespace(kept_as="base"), SimpleNamespace()
    for _ in range(2):  # outside of a run nothing is kept
        assert common.transcripts(named, [one], "greedy") == ["3 samples"]
    monkeypatch.setenv(common.KEPT, str(tmp_path))
    assert common.transcripts(named, [one], "greedy") == ["3 samples"]
    assert common.transcripts(named, [two, one], "greedy") == ["4 samples", "3 samples"]
    assert common.transcripts(named, [one, two], "greedy") == ["3 samples", "4 samples"]
    assert heard == [1, 1, 1, 1]
    for other, options in ((named, "beams"), (SimpleNamespace(kept_as="nano"), "greedy"), (nameless, "greedy"),
                           (nameless, "greedy")):
        common.transcripts(other, [one], options)
    assert heard == [1, 1, 1, 1, 1, 1, 1, 1]


def test_a_run_gives_its_scripts_a_folder_and_removes_it(monkeypatch, tmp_path):
    from types import SimpleNamespace

    main, common = (importlib.import_module(f"workbook.evidence.{name}") for name in ("__main__", "common"))
    seen = []

    def run(command, cwd, env):
        folder = Path(env[common.KEPT])
        seen.append((command[2], folder.is_dir(), folder))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(common, "graphs", lambda: {})
    monkeypatch.setattr(main.subprocess, "run", run)
    assert main.main(["monitoring", "padding", "--output-dir", str(tmp_path), "--quiet"]) == 0
    assert [one[:2] for one in seen] == [("workbook.evidence.monitoring", True), ("workbook.evidence.padding", True)]
    assert seen[0][2] == seen[1][2] and not seen[0][2].exists()


@pytest.mark.parametrize("rounds", [7, 15])
def test_times_are_those_of_a_machine_that_does_nothing_else(monkeypatch, rounds):
    """Busy for two rounds of three, it makes what is short last as long as what is not."""
    from workbook.evidence import common

    clock, runs = [0.0], itertools.count()

    def work(seconds: float):
        def run():
            clock[0] += seconds + (10 if next(runs) // 2 % 3 else 0)
        return run

    monkeypatch.setattr(common.time, "perf_counter", lambda: clock[0])
    assert common.undisturbed_s([work(1), work(2)], rounds) == pytest.approx([1, 2])


def test_a_busy_second_does_not_outlast_short_work(monkeypatch):
    """Two rounds alone would be over within it."""
    from workbook.evidence import common

    clock = [0.0]

    def run():
        clock[0] += 0.2 if clock[0] < 1 else 0.001

    monkeypatch.setattr(common.time, "perf_counter", lambda: clock[0])
    assert common.undisturbed_s([run, run], 2) == pytest.approx([0.001, 0.001])


def test_clips_are_joined_up_to_a_window_and_none_is_lost():
    import numpy as np

    from workbook.evidence import few_positions

    sounds = [np.full(length, i) for i, length in enumerate((4, 5, 2, 10, 1))]
    made = few_positions.joined(sounds, 10)
    assert [len(one) for one in made] == [9, 2, 10, 1]
    np.testing.assert_array_equal(np.concatenate(made), np.concatenate(sounds))
    assert [len(one) for one in sounds] == [4, 5, 2, 10, 1]


def test_an_interval_of_a_difference_is_as_wide_as_the_clips_differ():
    import numpy as np

    from workbook.evidence import common

    def found(before, after):
        made = common.Evidence()
        common.difference(made, "d", np.array(before), np.array(after), 0)
        return [made.values[f"d_{key}"] for key in ("points", "low", "high")]

    same = [(1, 10)] * 8
    assert found(same, same) == [0, 0, 0]
    assert found(same, [(2, 10)] * 8) == [10, 10, 10], "every clip has one wrong word more"
    points, low, high = found(same, [(1, 10)] * 7 + [(5, 10)])
    assert points == 5 and low == 0 < high, "one clip of eight: a draw without it has no difference"
