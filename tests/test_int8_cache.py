"""The _optimized pair of whisper-nano: int8 cross caches, read in place, say what the plain int8 pair says."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from whisper_lab import audio, features, metrics, names, thinning
from whisper_lab.decoding import Options, decode
from whisper_lab.export import int8_cache
from whisper_lab.int8_step import Blocks
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
    assert small.facts["cache_types"] == {"self": "float32", "cross": "int8"}
    report = json.loads((exported.parent / "reports" / f"export-{NAME}.json").read_text())
    rows = {row["file"]: row for row in report["graphs"]}
    decoder = rows[names.graph_file(NAME, "decoder", "int8", optimized=True)]
    assert decoder["gates_passed"] == len(decoder["gates"]) > 10
    assert decoder["node_types"]["GroupQueryAttention"] == int(small.facts["n_text_layer"])


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


def test_the_caches_are_read_in_place(small, mel):
    """Unchanged after prompts and steps, alone and as a batch; and never handed out as a copy."""
    cross = small.encode(mel)
    before = [array.copy() for array in cross]
    prompt = np.array([small.rules.prompt("en")] * 3, np.int64)
    for rows in ([0], [0, 1, 2]):
        mine = small.select(cross, np.array(rows))
        _, cache = small.step(prompt[rows], mine, None)
        _, cache = small.step(prompt[rows, :1], mine, cache)
        assert {array.dtype for array in cache} == {np.dtype(np.float32)} and len(cache) == len(small._self_inputs)
        assert all(array.shape[2] == prompt.shape[1] + 1 for array in cache)
    assert all(np.array_equal(a, b) for a, b in zip(cross, before, strict=True))


def test_bound_and_unbound_give_the_same(small, mel):
    """Who drives the graph without binding its memory pays for a copy, and gets the same numbers."""
    cross = small.encode(mel[:1])
    prompt = np.array([small.rules.prompt("en")], np.int64)
    bound, _ = small.step(prompt, cross, None)
    unbound = small.decoder.run(["logits"], small.feeds(prompt, cross, None))[0]
    np.testing.assert_array_equal(bound, unbound)


def test_a_batch_is_run_as_its_recordings_alone(small, mel):
    """A prompt is several queries: then the recordings are taken in turn, so each gets exactly its own numbers."""
    cross, prompt = small.encode(mel), np.array([small.rules.prompt("en")] * 6, np.int64)  # two beams each
    prompt[1::2, -1] += 1
    together, cache = small.step(prompt, cross, None)
    for i in range(3):
        rows = slice(2 * i, 2 * i + 2)
        alone, own = small.step(prompt[rows], small.select(cross, np.array([i])), None)
        np.testing.assert_array_equal(together[rows], alone)
        assert all(np.array_equal(a[rows], b) for a, b in zip(cache, own, strict=True))


def test_scales_are_those_of_each_recording(small, mel):
    """The encoder's int8 caches are what NumPy makes of the float values they stand for, each channel full range."""
    cross = small.encode(mel)
    *caches, scales = cross
    assert scales.shape == (3, len(caches), int(small.facts["n_text_state"]))
    assert all((np.abs(cache.astype(int)).max(axis=2) == 127).all() for cache in caches)
    assert not np.allclose(scales[0], scales[1], rtol=0.01)
    for ours, theirs in zip(int8_cache.pack(int8_cache.unpack(cross)), cross, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("positions", [13, 101, 250, 390])
def test_caches_of_any_length(exported, plain, small, mel, positions):
    """Primes cannot be folded into several rows, other lengths can: the scales are exact either way."""
    cross = small.encode(mel[:, :, :2 * positions])
    *caches, scales = cross
    rest = min(small.spec.n_frames // 2 // thinning.EACH, small.spec.n_frames // 2 - positions)
    assert all(cache.shape[2] == positions + rest for cache in caches)
    assert all((np.abs(cache.astype(int)).max(axis=2) == 127).all() for cache in caches)
    for ours, theirs in zip(int8_cache.pack(int8_cache.unpack(cross)), cross, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    prompt = np.array([plain.rules.prompt("en")] * 3, np.int64)
    ours, theirs = (runtime.step(prompt, runtime.encode(mel[:, :, :2 * positions]), None)[0]
                    for runtime in (small, plain))
    assert np.sqrt(np.mean((ours - theirs) ** 2)) / theirs.std() < 0.15


@pytest.mark.parametrize("rows, audios", [(1, 1), (3, 1), (4, 2), (2, 2)])
def test_a_text_may_have_more_tokens_than_a_short_window_has_positions(small, plain, mel, rows, audios):
    """onnxruntime's operator takes no more queries at once than there are positions: a long prompt goes in pieces."""
    ids = np.random.default_rng(0).integers(0, 300, (rows, small.rules.max_positions))
    cross, whole = (small.encode(mel[:audios, :, :frames]) for frames in (40, small.spec.n_frames))
    assert cross[0].shape[2] < ids.shape[1] * rows // audios
    logits, cache = small.step(ids, cross, None)
    assert logits.shape[:2] == ids.shape and np.isfinite(logits).all() and cache[0].shape[2] == ids.shape[1]
    right, _ = plain.step(ids, plain.encode(mel[:audios, :, :40]), None)
    assert np.sqrt(np.mean((logits - right) ** 2)) / right.std() < 0.15
    assert small.step(ids[:, :5], whole, None)[0].shape[1] == 5


def test_the_attention_of_a_long_text_in_a_short_window(small, plain, mel):
    ids = np.random.default_rng(0).integers(0, 300, (1, small.rules.max_positions))
    ours, theirs = (runtime.attention(ids, runtime.encode(mel[:1, :, :40])) for runtime in (small, plain))
    assert ours.shape == theirs.shape and ours.shape[2] < ours.shape[1]
    assert np.abs(ours - theirs).sum(axis=-1).mean() < 0.2


def test_a_silent_channel_is_no_nan():
    caches = [np.zeros((1, 2, 5, 8), np.float32), np.ones((1, 2, 5, 8), np.float32)]
    found = int8_cache.unpack(int8_cache.pack(caches))
    np.testing.assert_allclose(found[0], 0)
    np.testing.assert_allclose(found[1], 1, rtol=1e-6)


def test_attention_for_word_timestamps_stays_near(plain, small, mel):
    ids = np.array([plain.rules.prompt("en")], np.int64)
    ours, theirs = (runtime.attention(ids, runtime.encode(mel[:1])) for runtime in (small, plain))
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours.sum(axis=-1), 1, atol=1e-3)
    assert np.abs(ours - theirs).sum(axis=-1).mean() < 0.2  # 2 is the most two distributions can differ by


def test_the_comparison_reads_int8_caches(exported, plain, small, mel):
    """04 once took the encoder's outputs by the wrong names and stopped at the scales of the int8 caches."""
    from types import SimpleNamespace

    script = importlib.import_module("04-compare-precisions")
    forced = np.array([plain.rules.prompt("en")], np.int64)
    heard = SimpleNamespace(features=mel[:1], forced=forced)
    hidden, cross = small.hidden_and_cross(heard.features)
    assert hidden.shape[0] == 1 and small.decoder.run(["logits"], small.feeds(forced, cross, None))
    plain_pair, pair = names.pair(exported, NAME, "int8"), names.pair(exported, NAME, "int8", optimized=True)
    variants = [SimpleNamespace(name=name, paths=paths) for name, paths in (("a", plain_pair), ("b", pair))]
    inputs = {name: script.layer_inputs(runtime, heard, plain.cross_outputs, plain.encode(heard.features))
              for name, runtime in (("a", plain), ("b", small))}
    rows = script.compare_layers(variants, inputs, 1)["b"]
    assert {row["part"] for row in rows} == {"encoder", "decoder"}
    assert min(row["sqnr_db"] for row in rows if row["sqnr_db"] is not None) > 20


def test_memory_of_self_caches_is_used_again_and_never_under_an_array_that_is_held():
    """Two sets of arrays take turns, as a search needs them; what someone still holds keeps its numbers."""
    blocks, shape = Blocks(), (2, 3, 10, 4)
    (first,) = blocks.take(shape, np.dtype(np.float32), 1)
    first[:] = 1
    view = first[1:]  # such as a batch that some windows have left
    del first
    others = blocks.take((2, 3, 11, 4), np.dtype(np.float32), 3)
    for other in others:
        other[:] = 2
    assert (view == 1).all() and view.shape == (1, 3, 10, 4)
    place = others[0].ctypes.data
    del view, others, other
    again = blocks.take((2, 3, 14, 4), np.dtype(np.float32), 4)
    assert place in {array.ctypes.data for array in again}
    assert len({array.ctypes.data for array in again}) == 4
    del again
    (large,) = blocks.take((2, 3, 500, 4), np.dtype(np.float32), 1)  # what is too small for it is given up
    assert len(blocks._made) == 1 and large.shape == (2, 3, 500, 4)


def test_steps_with_memory_used_again_give_the_same(small, mel):
    """Forty steps with two rows, of which one leaves; beside steps whose caches are all kept."""
    cross = small.encode(mel[:2])
    found = []
    for keep in (False, True):
        kept, said = [], []
        logits, cache = small.step(np.array([[50, 60, 70], [51, 61, 71]]), cross, None)
        heard = cross
        for i in range(40):
            if i == 20:
                cache, heard = small.reorder(cache, np.array([1])), small.select(cross, np.array([1]))
            tokens = logits[:, -1].argmax(-1)[-(1 if i >= 20 else 2):, None]
            logits, cache = small.step(tokens.astype(np.int64), heard, cache)
            said.append(logits.copy())
            kept += [cache] if keep else []
        found.append(said)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_window_is_encoded_as_it_is_alone_whatever_is_beside_it(plain, small, mel):
    """In one run they would share the scale of their activations, and a word may hang on it."""
    for runtime in (plain, small):
        together = runtime.encode(mel)
        for i in range(len(mel)):
            for array, alone in zip(together, runtime.encode(mel[i:i + 1]), strict=True):
                np.testing.assert_array_equal(array[i:i + 1], alone)
