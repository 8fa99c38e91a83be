"""The _optimized pair of whisper-nano: fused attention and weights in blocks say what the plain int8 pair says."""

import importlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest

from whisper_lab import audio, features, metrics, names
from whisper_lab.console import LabError
from whisper_lab.decoding import Options, decode
from whisper_lab.export import blocks, graphs, metadata
from whisper_lab.onnx_whisper import OnnxWhisper

NAME, CLIPS = "whisper-nano", ("hello.wav", "digits.wav", "kitchen.wav")


@pytest.fixture(scope="module")
def exported(nano_export) -> Path:
    """nano's int8 pairs, plain and optimized, as 03 writes them; the gates of both ran."""
    return nano_export / "graphs"


@pytest.fixture(scope="module")
def plain(exported) -> OnnxWhisper:
    return OnnxWhisper(exported, NAME, "int8")


@pytest.fixture(scope="module")
def small(exported) -> OnnxWhisper:
    return OnnxWhisper(exported, NAME, "int8", optimized=True)


@pytest.fixture(scope="module")
def mel(plain) -> np.ndarray:
    """Three clips, float32 [3, n_mels, frames]"""
    media = Path(__file__).parent.parent / "media"
    return np.stack([features.log_mel(audio.load(media / name).samples, plain.spec) for name in CLIPS])


def test_it_says_what_it_is_and_passed_its_gates(exported, small):
    recipe = metadata.read(names.pair(exported, NAME, "int8", optimized=True)["decoder"])["recipe"]
    assert json.loads(recipe)["decoder"] == "8 bits in blocks"
    assert small.facts["cache_types"] == {"self": "float32", "cross": "int8"}
    report = json.loads((exported.parent / "reports" / f"export-{NAME}.json").read_text())
    rows = {row["file"]: row for row in report["graphs"]}
    decoder = rows[names.graph_file(NAME, "decoder", "int8", optimized=True)]
    assert decoder["gates_passed"] == len(decoder["gates"]) > 10
    assert decoder["node_types"]["MatMulNBits"] == 8 * int(small.facts["n_text_layer"]) + 1


@pytest.mark.parametrize("beams", [1, 3])
def test_it_transcribes_like_the_plain_int8_pair(plain, small, mel, beams):
    """A batch of three, and the first clip alone."""
    for windows in (mel, mel[:1]):
        ours, theirs = ([result.text for result in decode(runtime, windows, Options(language="en", beams=beams))]
                        for runtime in (small, plain))
        assert all(text.strip() for text in theirs)
        assert metrics.word_errors(" ".join(theirs), " ".join(ours), "en").wer <= 0.1, (ours, theirs)


def test_it_chooses_the_tokens_of_the_plain_pair(plain, small, mel):
    """With timestamps, and the plain pair's own text as history: one flip does not change all that follows."""
    same = []
    for i, result in enumerate(decode(plain, mel, Options(language="en", timestamps=True))):
        ids = np.array([[*result.prompt, *result.tokens]], np.int64)
        ours, theirs = (runtime.step(ids, runtime.encode(mel[i:i + 1]), None)[0].argmax(-1)
                        for runtime in (small, plain))
        same += (ours == theirs)[0, len(result.prompt) - 1:].tolist()
    assert len(same) > 30 and np.mean(same) >= 0.95


def test_logits_stay_near_those_of_the_plain_pair(plain, small, mel):
    prompt = np.array([plain.rules.prompt("en")] * 3, np.int64)
    ours, theirs = (runtime.step(prompt, runtime.encode(mel), None)[0] for runtime in (small, plain))
    assert np.sqrt(np.mean((ours - theirs) ** 2)) / theirs.std() < 0.08  # as the gates: int8


def test_a_recording_gets_its_own_numbers_whatever_is_beside_it(small, plain, mel):
    """MatMulNBits and the queries have a scale for each row of activations; the plain pair has one for all rows."""
    cross, prompt = small.encode(mel), np.array([small.rules.prompt("en")] * 6, np.int64)  # two beams each
    prompt[1::2, -1] += 1
    together, cache = small.step(prompt, cross, None)
    for i in range(3):
        rows = slice(2 * i, 2 * i + 2)
        alone, own = small.step(prompt[rows], small.select(cross, np.array([i])), None)
        np.testing.assert_allclose(together[rows], alone, atol=1e-4)
        assert all(np.allclose(a[rows], b, atol=1e-4) for a, b in zip(cache, own, strict=True))
    alone = plain.step(prompt[:2], plain.select(plain.encode(mel), np.array([0])), None)[0]
    assert np.abs(plain.step(prompt, plain.encode(mel), None)[0][:2] - alone).max() > 1e-2


@pytest.mark.parametrize("positions", [13, 101, 250, 390])
def test_windows_of_any_length(plain, small, mel, positions):
    prompt = np.array([plain.rules.prompt("en")] * 3, np.int64)
    ours, theirs = (runtime.step(prompt, runtime.encode(mel[:, :, :2 * positions]), None)[0]
                    for runtime in (small, plain))
    assert np.sqrt(np.mean((ours - theirs) ** 2)) / theirs.std() < 0.15


@pytest.mark.parametrize("rows, audios", [(1, 1), (3, 1), (4, 2), (2, 2)])
def test_a_text_may_have_more_tokens_than_a_short_window_has_positions(small, plain, mel, rows, audios):
    ids = np.random.default_rng(0).integers(0, 300, (rows, small.rules.max_positions))
    logits, cache = small.step(ids, small.encode(mel[:audios, :, :40]), None)
    assert logits.shape[:2] == ids.shape and np.isfinite(logits).all() and cache[0].shape[2] == ids.shape[1]
    right, _ = plain.step(ids, plain.encode(mel[:audios, :, :40]), None)
    assert np.sqrt(np.mean((logits - right) ** 2)) / right.std() < 0.15


def test_the_attention_of_a_long_text_in_a_short_window(small, plain, mel):
    ids = np.random.default_rng(0).integers(0, 300, (1, small.rules.max_positions))
    ours, theirs = (runtime.attention(ids, runtime.encode(mel[:1, :, :40])) for runtime in (small, plain))
    assert ours.shape == theirs.shape and ours.shape[2] < ours.shape[1]
    assert np.abs(ours - theirs).sum(axis=-1).mean() < 0.2


# The weights in blocks ------------------------------------------------------------------------------------------------

def test_the_embedding_is_one_tensor_and_a_row_of_it_is_near_the_float_one(exported):
    """What Gather looks up and what MatMulNBits multiplies with is the same; half a step is the most it is off."""
    small, right = (graphs.load(names.pair(exported, NAME, *kind)["decoder"])
                    for kind in (("int8", True), ("fp32",)))
    table = right.graph.initializers["decoder.embed_tokens.weight"].const_value.numpy()
    weight, scale = (small.graph.initializers[f"decoder.embed_tokens.weight_{what}"]
                     for what in ("quantized", "scale"))
    assert {use.node.op_type for use in weight.uses()} == {"Gather", "MatMulNBits"}
    steps = scale.const_value.numpy()[:, :, None]
    found = (weight.const_value.numpy().astype(np.float32) - blocks.ZERO) * steps
    assert found.reshape(table.shape).shape == table.shape
    assert (np.abs(found - table.reshape(found.shape)) <= steps * 0.5001).all()


def test_layers_that_stay_in_float_do_so_in_blocks_too(exported, tmp_path):
    script = importlib.import_module("03-export-encoder-decoder")
    source = names.pair(exported, NAME, "fp32")
    target = {part: tmp_path / path.name for part, path in source.items()}
    config = SimpleNamespace(d_model=192, decoder_attention_heads=4, encoder_attention_heads=4, decoder_layers=2)
    done, kept = script.convert("int8", source, target, script.recipe("int8", config, exclude="fc2"), config)
    types = graphs.node_types(graphs.load(target["decoder"]))
    assert kept["decoder"] == 2 and types["MatMulNBits"] == 2 * 7 + 1 and "in blocks of 64" in done["decoder"]


@pytest.mark.parametrize("width, block", [(384, 128), (512, 128), (1280, 128), (192, 64), (48, 16), (32, 32)])
def test_a_row_of_the_embedding_is_whole_blocks(width, block):
    assert blocks.size(width) == block


def test_a_width_that_no_block_divides_is_told():
    with pytest.raises(LabError, match="d_model is 24"):
        blocks.size(24)


def test_a_pair_with_int8_caches_of_an_older_lab_is_refused_with_the_command_that_writes_it_again(exported, tmp_path):
    """Its decoder has an input for the scales of the caches, which nothing gives any more."""
    folder = Path(shutil.copytree(exported, tmp_path / "graphs"))
    path = names.pair(folder, NAME, "int8", optimized=True)["decoder"]
    model = graphs.load(path)
    model.graph.inputs.append(ir.Value(name="past_scale_cross", type=ir.TensorType(ir.DataType.FLOAT),
                                       shape=ir.Shape(["audio", 4, 192])))
    graphs.rewrite(model, path)
    with pytest.raises(LabError, match="other inputs and outputs.*past_scale_cross") as caught:
        OnnxWhisper(folder, NAME, "int8", optimized=True, verify=False)
    assert "--precision int8 --optimize" in caught.value.remedy


# What else hears through them -----------------------------------------------------------------------------------------

def test_attention_for_word_timestamps_stays_near(plain, small, mel):
    ids = np.array([plain.rules.prompt("en")], np.int64)
    ours, theirs = (runtime.attention(ids, runtime.encode(mel[:1])) for runtime in (small, plain))
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours.sum(axis=-1), 1, atol=1e-3)
    assert np.abs(ours - theirs).sum(axis=-1).mean() < 0.2  # 2 is the most two distributions can differ by


def test_the_comparison_hears_the_optimized_pair(exported, plain, small, mel):
    script = importlib.import_module("04-compare-precisions")
    forced = np.array([plain.rules.prompt("en")], np.int64)
    heard = SimpleNamespace(features=mel[:1], forced=forced)
    hidden, cross = small.hidden_and_cross(heard.features)
    assert hidden.shape[0] == 1 and small.decoder.run(["logits"], small.feeds(forced, cross, None))
    plain_pair, pair = names.pair(exported, NAME, "int8"), names.pair(exported, NAME, "int8", optimized=True)
    variants = [SimpleNamespace(name=name, paths=paths) for name, paths in (("a", plain_pair), ("b", pair))]
    inputs = {name: script.layer_inputs(runtime, heard, plain.encode(heard.features))
              for name, runtime in (("a", plain), ("b", small))}
    rows = script.compare_layers(variants, inputs, 1)["b"]
    assert {row["part"] for row in rows} == {"encoder", "decoder"}
    assert min(row["sqnr_db"] for row in rows if row["sqnr_db"] is not None) > 20


def test_a_window_is_encoded_as_it_is_alone_whatever_is_beside_it(plain, small, mel):
    """In one run they would share the scale of their activations, and a word may hang on it."""
    for runtime in (plain, small):
        together = runtime.encode(mel)
        for i in range(len(mel)):
            for array, alone in zip(together, runtime.encode(mel[i:i + 1]), strict=True):
                np.testing.assert_array_equal(array[i:i + 1], alone)
