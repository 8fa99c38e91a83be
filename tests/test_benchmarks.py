"""The benchmark's own arithmetic, its report, whisper.cpp's file format, and one peer run as the benchmark runs it."""

import copy
import json
import re
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.benchmark_files import BENCHMARKS, module
from tests.helpers.onnx_grain import NAME, exported
from whisper_lab.console import LabError

ROOT = Path(__file__).resolve().parent.parent


def row(name: str, encode: float = 0, step_ms: float = 0, cold: float = 1, rss: float = 1e8, reason: str = "") -> dict:
    """A peer's results: three processes of two warm repeats, the middle one as given, 10 tokens each."""
    runs = [{"cold_s": cold, "peak_rss_bytes": rss, "tokens": list(range(10)),
             "warm": [{"mel_s": 0.01, "encode_s": encode * scale, "decode_s": step_ms / 100 * scale, "steps": 10}] * 2}
            for scale in (0.5, 1, 4)] if not reason else []
    return {"name": name, "note": "", "reason": reason, "runs": runs}


@pytest.fixture(scope="module")
def document() -> dict:
    from whisper_lab import machine

    config = {"d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_ffn_dim": 2048,
              "max_source_positions": 1500, "num_mel_bins": 80, "vocab_size": 51865}
    peers = [row("this lab fp32", 0.4, 10), row("this lab int8", 0.2, 2, cold=0.4, rss=280e6),
             row("this lab int8, beam 5", 0.2, 4), row("transformers fp32", 0.8, 10),
             row("faster-whisper int8", 0.6, 6, cold=1), row("sherpa-onnx int8", reason="no exporter")]
    return {"machine": machine.card(2), "load_before": 0.1, "duration_s": 600, "peers": peers,
            "limits": {"float32_flops": 4e11, "bfloat16_flops": 2e12, "int8_ops": 2.3e12,
                       "read_bytes_per_s": {str(32 << 20): 54e9, str(512 << 20): 31e9}},
            "model": {"name": "whisper-base", "random_weights": False, "config": config}, "settings": {
                "rounds": 3, "repeats": 2, "tokens": 10, "threads": 2},
            "graph_bytes": {"encoder": 1000, "decoder": 200, "encoder_int8": 264, "decoder_int8": 60}}


def cells(text: str, beginning: str) -> list[str]:
    """The cells of the table line that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {beginning} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_report_gives_medians_and_the_range(document):
    text = module("report").markdown(document)
    assert cells(text, "this lab int8") == ["this lab int8", "0.010", "0.200", "2.00", "0.220", "0.110-0.880", "0.40",
                                            "280"]


def test_a_peer_that_could_not_run_is_a_row_with_its_reason(document):
    assert "not measured: no exporter" in cells(module("report").markdown(document), "sherpa-onnx int8")[1]


def test_goals_are_judged_in_the_right_direction(document):
    text = module("report").markdown(document)
    judged = {goal: cells(text, goal)[2:] for goal in (
        "int8 faster than faster-whisper int8, times", "int8 peak RSS, MB", "int8 beam 5 over greedy, time per step",
        "encoder int8 over fp32, bytes", "decoder int8 over fp32, bytes", "fp16 over fp32, time",
        "int8 cold start over faster-whisper int8's")}
    assert judged == {  # 0.66 s / 0.22 s = 3; 280 MB of 270; 4 ms / 2 ms; 264 of 1000; 60 of 200; 0.4 s of 1 s
        "int8 faster than faster-whisper int8, times": ["3", "met"], "int8 peak RSS, MB": ["280", "missed by 4%"],
        "int8 beam 5 over greedy, time per step": ["2", "met"], "encoder int8 over fp32, bytes": ["0.26", "met"],
        "decoder int8 over fp32, bytes": ["0.3", "missed by 15%"], "fp16 over fp32, time": ["not measured", ""],
        "int8 cold start over faster-whisper int8's": ["0.4", "met"]}


def test_decoder_floor_reads_weights_and_cross_cache(document):
    """9.2 M elements of cross cache for base: 36.9 MB in float32, whatever the weights are."""
    text = module("report").markdown(document)
    floors = text[text.index("### Floors"):]
    assert cells(floors, "fp32")[1:4] == ["36.9", "0.68-1.19", "10.00"]
    assert cells(floors, "int8")[1:4] == ["36.9", "0.68-1.19", "2.00"]
    # (66 / 2300 + 30.7 / 400) s + 10 x 0.68 to 1.19 ms; 0.66 s of the peer over that
    assert cells(floors, "int8")[6:] == ["0.11-0.12", "0.220", "5.62-5.87"]


def test_a_range_begins_with_its_least_also_where_the_cache_is_slower(document):
    """Neighbors on the same host use the cache, too."""
    other = copy.deepcopy(document)
    speeds = other["limits"]["read_bytes_per_s"]
    speeds |= dict(zip(speeds, reversed(speeds.values()), strict=True))
    report = module("report")
    assert report.markdown(other).split("### Floors")[1].split("| |")[1] == \
        report.markdown(document).split("### Floors")[1].split("| |")[1]


def test_a_floor_that_is_beaten_is_called_wrong(document):
    assert "floors are too high" not in module("report").markdown(document)
    document = copy.deepcopy(document)
    for run in document["peers"][0]["runs"]:
        for repeat in run["warm"]:
            repeat["encode_s"] = 0.001
    assert "than its floor (fp32)" in module("report").markdown(document)


def test_encoder_floor_counts_what_was_counted_by_hand(document):
    """whisper-base: 56.6 + 9.4 GFLOP linear, 27.6 attention, 3.1 convolution (96.8 in all)."""
    floor = module("floors").encoder_floor(document["model"]["config"], document["limits"], "fp32")
    assert floor * 4e11 == pytest.approx(96.8e9, rel=0.01)
    assert module("floors").encoder_floor(document["model"]["config"], document["limits"], "int8") \
        == pytest.approx(66e9 / 2.3e12 + 30.7e9 / 4e11, rel=0.01)
    assert module("floors").encoder_floor(document["model"]["config"], document["limits"], "int8 optimized") \
        == pytest.approx(68.4e9 / 2.3e12 + 28.3e9 / 4e11, rel=0.01)  # with the second convolution in 8 bits


def test_tokens_that_differ_are_counted(document):
    other = copy.deepcopy(document)
    other["peers"][0]["runs"][0]["tokens"][3] = 99
    text = module("report").markdown(other)
    assert "this lab fp32 3," in text and "this lab int8 10" in text


@pytest.fixture
def long_document(monkeypatch):
    """Three pieces of 16 s that take 2 s each, and ten steps that read 1 GB a row, from a cache of 1 GB/s or memory of
    half of that."""
    floors = module("floors")
    monkeypatch.setattr(floors, "encoder_floor", lambda *_: 2.0)
    return {"limits": {"read_bytes_per_s": {floors.SMALL: 1e9, str(1 << 30): 0.5e9}},
            "model": {"config": {"decoder_layers": 1, "max_source_positions": 1500, "d_model": 0}},
            "graph_bytes": {"decoder_int8": 4e9, "decoder_int8_optimized": 6e9},
            "speech": {"works": {"long": {"seconds": 48, "words": 10}},
                       "systems": {"faster-whisper int8": {"long": {"seconds": [26.0]}},
                                   "this lab int8": {"long": {"seconds": [20.0]}},
                                   "this lab int8 optimized": {"long": {"seconds": [5.0]}}}}}


def test_the_floor_of_a_long_recording(long_document):
    report = module("report")
    assert "each of its 48 s heard once in pieces of 16 s" in "".join(report.long_floor(long_document))
    assert "int8 16.0-26.0 s (faster-whisper int8 1.0-1.6 times that); int8 opt" in "".join(
        report.long_floor(long_document))
    assert report.long_floor(long_document | {"speech": {}}) == []
    del long_document["limits"]
    assert module("floors").long_floor(long_document, "int8") is None


def test_a_goal_that_is_missed_says_what_the_floor_allows(long_document):
    lines = [module("speech_report")._line(long_document, "long", name, "faster-whisper int8", 5.0, True)
             for name in ("this lab int8", "this lab int8 optimized")]
    assert lines[0].endswith("| missed by 74%; the floor allows 1.6 |") and lines[1].endswith("| met |")


def test_int8_caches_are_a_quarter_of_what_a_token_reads_of_a_window():
    floors, config = module("floors"), {"decoder_layers": 2, "max_source_positions": 10, "d_model": 3}
    document = {"model": {"config": config}, "cross_types": {"int8": "float32", "int8 optimized": "int8"}}
    assert [floors.cross_bytes(document, name) for name in ("int8", "int8 optimized")] == [480, 120]
    assert floors.cross_bytes({"model": {"config": config}}, "int8 optimized") == 480  # an older document


@pytest.mark.parametrize("folder", [BENCHMARKS, BENCHMARKS / "xeon", BENCHMARKS / "avx2"],
                         ids=["EPYC", "Xeon", "AVX2"])
def test_results_are_what_the_report_makes_of_them(folder):
    if not (folder / "results.json").is_file():
        pytest.skip("results.json is not there: `make benchmark` writes it")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert module("report").markdown(results) == (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert ("speech" in results) == (folder / "results.png").is_file()


# Preparing -----------------------------------------------------------------------------------------------------------

def test_a_failed_preparation_gives_its_last_line(tmp_path, monkeypatch):
    prepare = module("prepare")
    monkeypatch.setattr(prepare, "WORK", tmp_path)
    with pytest.raises(prepare.Unavailable, match="<string>.*boom|-c failed: .*boom"):
        prepare.run([sys.executable, "-c", "raise ValueError('boom')"], "log")


def test_a_conversion_is_made_once_and_again_when_its_recipe_changes(tmp_path, monkeypatch):
    prepare = module("prepare")
    monkeypatch.setattr(prepare, "WORK", tmp_path)
    code = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'made').write_text(sys.argv[2])"
    for content in ("one", "two"):
        monkeypatch.setitem(prepare.RECIPES, "thing", (None, ["-c", code, "{out}", content]))
        first = prepare.artefact("thing", tmp_path / "whisper-x-random")
        stamp = (first / "made").stat().st_mtime_ns
        assert prepare.artefact("thing", tmp_path / "whisper-x-random") == first
        assert (first / "made").read_text() == content and (first / "made").stat().st_mtime_ns == stamp


def test_every_peer_has_what_it_names():
    run, prepare = module("run"), module("prepare")
    for peer in run.PEERS:
        assert peer.reason or (BENCHMARKS / "peers" / peer.script).is_file()
        assert peer.environment is None or peer.environment in prepare.REQUIREMENTS
        assert peer.artefact is None or peer.artefact in prepare.RECIPES
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pins in prepare.REQUIREMENTS.values() for pin in pins)


# A peer's process ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def job(random_model, nano) -> dict:
    """A small checkpoint, exported, as run.py would hand it to lab.py."""
    from whisper_lab import audio

    folder = exported(random_model, nano)
    audio.write_wav(folder / "clip.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 16000).astype(np.float32))
    return {"python": sys.executable, "clip": str(folder / "clip.wav"), "checkpoint": str(folder / NAME),
            "artefact": str(folder / "graphs"), "setting": {"precision": "fp32"}, "threads": 1, "tokens": 9,
            "repeats": 2}


def test_this_lab_and_transformers_write_the_same_forced_tokens(job):
    run, rows = module("run"), []
    for peer in (run.PEERS[0], next(peer for peer in run.PEERS if peer.name == "transformers fp32")):
        rows.append({"runs": [], "reason": ""})
        before = time.time()
        run.measure(peer, job | {"setting": peer.setting}, rows[-1], module("idle").Host())
        assert rows[-1]["reason"] == "" and 0 < rows[-1]["runs"][0]["cold_s"] < time.time() - before
    lab, transformers = (row["runs"][0] for row in rows)
    assert lab["tokens"] == transformers["tokens"] and len(lab["tokens"]) == 9
    assert [repeat["steps"] for repeat in lab["warm"]] == [9, 9] and lab["peak_rss_bytes"] > 30e6
    assert all(repeat[key] > 0 for repeat in lab["warm"] for key in ("mel_s", "encode_s", "decode_s"))


@pytest.mark.parametrize("kept, told", [(("encoder", "decoder"), True), (("encoder",), False), ((), False)])
def test_what_earlier_starts_left_is_looked_for(job, kept, told, tmp_path, monkeypatch):
    """Cold starts say whether they opened prepared graphs: a full cache keeps none."""
    run, warnings = module("run"), []
    monkeypatch.setattr(run.console, "warn", warnings.append)
    monkeypatch.setattr(run.prepared, "entry", lambda graph: tmp_path / graph.stem)
    for part in kept:
        (tmp_path / f"{NAME}_{part}").mkdir()
    openvino = next(peer for peer in run.PEERS if peer.name == "this lab int8 on OpenVINO")  # has an entry of its own
    assert run.opened_before([(run.PEERS[0], job), (openvino, job)]) is told
    assert ["those of first starts" in warning for warning in warnings] == [True] * (not told)


def test_a_process_that_fails_leaves_a_reason(job):
    run, found = module("run"), {"runs": [], "reason": ""}
    run.measure(run.PEERS[0], job | {"artefact": "/nowhere"}, found, module("idle").Host())
    assert found["runs"] == [] and "there is no encoder /nowhere" in found["reason"]


# whisper.cpp's file --------------------------------------------------------------------------------------------------

def test_ggml_file_reads_back(nano, tmp_path):
    """Read as the loader reads it: header, filters, tokens, then tensors to the last byte."""
    from safetensors.numpy import load_file

    module("ggml").convert(nano, tmp_path / "model.bin")
    config = json.loads((nano / "config.json").read_text())
    data = (tmp_path / "model.bin").read_bytes()
    magic, vocab, *_ = struct.unpack_from("<I11i", data)
    assert magic == 0x67676D6C and vocab == config["vocab_size"]
    rows, columns, at = *struct.unpack_from("<2i", data, 48), 56
    assert rows == config["num_mel_bins"]
    at += 4 * rows * columns
    count, at = struct.unpack_from("<i", data, at)[0], at + 4
    tokens = []
    for _ in range(count):
        length = struct.unpack_from("<i", data, at)[0]
        tokens.append(data[at + 4:at + 4 + length])
        at += 4 + length
    assert len({token for token in tokens if len(token) == 1}) == 256  # every byte is a token of its own
    found = {}
    while at < len(data):
        dimensions, length, kind = struct.unpack_from("<3i", data, at)
        shape = struct.unpack_from(f"<{dimensions}i", data, at + 12)[::-1]
        at += 12 + 4 * dimensions
        name, at = data[at:at + length].decode(), at + length
        dtype = np.dtype(np.float16 if kind else np.float32)
        found[name] = np.frombuffer(data, dtype, int(np.prod(shape)), at).reshape(shape)
        at += found[name].nbytes
    weights = load_file(nano / "model.safetensors")
    assert at == len(data) and len(found) == len(weights) - ("proj_out.weight" in weights)
    assert not [name for name in found if re.search("layers|proj|norm|embed_", name)]
    np.testing.assert_array_equal(found["decoder.blocks.1.cross_attn.key.weight"],
                                  weights["model.decoder.layers.1.encoder_attn.k_proj.weight"].astype(np.float16))
    np.testing.assert_array_equal(found["decoder.ln.bias"], weights["model.decoder.layer_norm.bias"])
    np.testing.assert_array_equal(found["encoder.ln_post.weight"], weights["model.encoder.layer_norm.weight"])
    assert found["encoder.conv1.bias"].shape == (config["d_model"], 1)


def test_a_script_that_fails_ends_the_measurement(tmp_path):
    with pytest.raises(LabError, match="status 3 from -c"):
        module("sizes").run(["-c", "raise SystemExit(3)"], tmp_path)


def test_an_architectures_row(document):
    row = {"size": "tiny", "parameters": 10**6, "nano_peak_bytes": 10**8, "convert_peak_bytes": 1.08e8,
           "files": {"encoder.onnx": 10**6, "encoder.onnx.data": 10**6, "decoder.onnx": 2 * 10**6,
                     "encoder_int8.onnx": 10**6}, "single": {"size_bytes": 3 * 10**6}}
    here, other = document["machine"], document["machine"] | {"cpu": "Another processor"}
    text = module("sizes").table({"rows": [row | {"machine": here}, row | {"size": "base", "machine": other}]})
    assert "tiny: measured on " in text and "base: measured on Another processor" in text
    assert cells(text, "tiny") == ["tiny", "1 M", "4", "0", "1", "0", "3", "0.11 (weights x 2.0)", "–"]
