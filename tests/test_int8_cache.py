"""int8 cross caches: what NumPy rounds and what the encoder's graph rounds are the same, and the decoder reads both."""

import itertools

import numpy as np
import onnx_ir as ir
import pytest

from tests.helpers.export_tiny import exported
from whisper_lab import caches, names
from whisper_lab.export import graphs, int8, int8_cache, naming, optimize
from whisper_lab.export.pair import open_runtime

LAYERS, HEADS, WIDTH = 2, 4, 8


@pytest.fixture(scope="module")
def tiny():
    return exported()


@pytest.fixture(scope="module")
def pairs(tiny, tmp_path_factory) -> dict:
    """The tiny checkpoint in float32 with fused self-attention, and the same with int8 caches: two runtimes."""
    folder, found = tmp_path_factory.mktemp("caches"), {}
    for kind in ("float", "int8"):
        (folder / kind).mkdir()
        pair = names.pair(folder / kind, "tiny")
        for part, source in tiny.pairs["fp32"].items():
            model = graphs.load(source)
            optimize.fuse_attention(model, tiny.model.config)
            if kind == "int8":
                (int8_cache.write if part == "encoder" else int8_cache.read)(model, tiny.model.config)
            optimize.without_unused(model)
            graphs.save(model, pair[part])
        found[kind] = open_runtime(*pair.values(), threads=1, like=tiny.runtime)
    return found


def some(seed: int = 0, audio: int = 2, positions: int = 7) -> list[np.ndarray]:
    """Float caches of two recordings, one far louder than the other."""
    rng = np.random.default_rng(seed)
    loud = np.array([1, 100], np.float32)[:audio, None, None, None]
    return [loud * rng.standard_normal((audio, HEADS, positions, WIDTH)).astype(np.float32) for _ in range(2 * LAYERS)]


def error(test: np.ndarray, right: np.ndarray) -> float:
    return float(np.sqrt(np.mean((test - right) ** 2)) / right.std())


def test_a_value_is_off_by_half_a_step_of_its_own_head_and_recording():
    right = some()
    for test, array in zip(caches.to_float(caches.to_int8(right)), right, strict=True):
        step = np.abs(array).max(axis=(2, 3), keepdims=True) / caches.LEVELS
        assert test.shape == array.shape and (np.abs(test - array) <= 0.5001 * 2 * step).all()
        largest = np.abs(array).max(axis=(1, 2, 3))
        assert largest[1] > 50 * largest[0]  # the loud recording's steps are not the other's


def test_the_names_are_those_of_the_arrays():
    small = caches.to_int8(some())
    wanted = naming.encoder_outputs(LAYERS, int8_caches=True)[1:]
    assert len(small) == len(wanted) == 5 * LAYERS
    for name, array in zip(wanted, small, strict=True):
        assert array.flags.c_contiguous, "a session would copy it for every token"
        assert (array.dtype == np.int8) == (name.startswith(("present_key_cross", "present_value_cross"))), name
        assert (array.shape[3] == 7) == ("key_cross" in name or "key_sum" in name), name


def test_silence_divides_by_no_zero():
    small = caches.to_int8([np.zeros((1, HEADS, 7, WIDTH), np.float32)] * 2)
    assert all(np.isfinite(array).all() for array in small) and not np.any(small[0])


def test_float_caches_stay_as_they_are():
    right = some()
    assert all(one is other for one, other in zip(caches.to_float(right), right, strict=True))


def test_the_graph_rounds_as_numpy_does(tiny, pairs):
    for sound in tiny.sounds[:2]:
        right = caches.to_int8(pairs["float"].encode(sound.features))
        for test, array in zip(pairs["int8"].encode(sound.features), right, strict=True):
            assert test.dtype == array.dtype and test.shape == array.shape
            if array.dtype == np.int8:
                assert np.abs(test.astype(int) - array).max() <= 1  # a half may be rounded either way
            else:
                np.testing.assert_allclose(test, array, rtol=1e-4, atol=caches.MIDDLE)


@pytest.mark.parametrize("rows, audios", [(1, 1), (3, 1), (4, 2), (2, 2)])
@pytest.mark.parametrize("sequence", [1, 4])
def test_the_decoder_reads_them_alone_in_a_batch_and_for_several_beams(tiny, pairs, rows, audios, sequence):
    features = np.concatenate([sound.features for sound in tiny.sounds[:audios]])
    ids = np.random.default_rng(0).integers(0, tiny.runtime.rules.vocab_size, (rows, sequence))
    test, right = (pairs[kind].step(ids, pairs[kind].encode(features), None)[0] for kind in ("int8", "float"))
    assert error(test, right) < 0.02


@pytest.mark.parametrize("positions", [1, 2, 7, 8])
@pytest.mark.parametrize("by", ["NumPy", "the graph"])
def test_two_products_fit_in_16_bits(positions, by, tiny, pairs):
    """Without VNNI the sum of two products of a uint8 and an int8 would saturate: of values that are alike, which are
    the worst there can be, and of any."""
    if by == "NumPy":
        alike = [np.full((1, HEADS, positions, WIDTH), value, np.float32) for value in (3, -5)]
        crosses = [caches.to_int8(cross) for cross in (alike, some(1, 1, positions))]
    else:
        crosses = [pairs["int8"].encode(tiny.sounds[0].features[:, :, :2 * positions])]
    for array in itertools.chain(*crosses):
        if array.dtype == np.int8:  # keys are added over head_dim, values over positions: both lie on axis 2
            wide = np.moveaxis(array, 2, 0).reshape(array.shape[2], -1)
            assert 64 <= int8.largest_pairs(wide).max() <= int8.PAIR
    assert 255 * int8.PAIR < 1 << 15


def test_float_caches_are_rounded_for_a_decoder_that_reads_int8(tiny, pairs):
    """Those of PyTorch in the gates, and those of an encoder on OpenVINO."""
    sound = tiny.sounds[0]
    given, rounded = (pairs["int8"].step(sound.forced, cross, None)[0]
                      for cross in (sound.cross, caches.to_int8(sound.cross)))
    np.testing.assert_array_equal(given, rounded)


def test_attention_that_is_spread_over_all_positions_is_not_rounded_away(tiny, pairs):
    """With keys of zeros every position weighs the same, far less than a step of 1 / 255."""
    sound = tiny.sounds[0]
    positions = 4 * 255
    rng = np.random.default_rng(0)
    cross = []
    for key in sound.cross[::2]:
        shape = (1, key.shape[1], positions, key.shape[3])
        cross += [np.zeros(shape, np.float32), 1 + rng.standard_normal(shape).astype(np.float32)]
    test, right = (pairs[kind].step(sound.forced, cross, None)[0] for kind in ("int8", "float"))
    assert error(test, right) < 0.02


def test_how_many_positions_there_are_is_read_from_the_values(tiny):
    """The keys are turned around: what asks for their third size would get head_dim."""
    model = graphs.load(tiny.pairs["fp32"]["decoder"])
    given = {value.name: value for value in model.graph.inputs}
    asks = ir.node("Shape", [given["past_key_cross_0"]], {"start": 2, "end": 3})
    model.graph.append(asks)
    int8_cache.read(model, tiny.model.config)
    assert asks.inputs[0].name == "past_value_cross_0"


def test_side_by_side_a_shorter_one_ends_where_it_ended():
    short, long = (caches.to_int8(some(seed, audio=1, positions=positions)) for seed, positions in ((1, 5), (2, 8)))
    both = caches.side_by_side([short, long])
    for test, one, other in zip(both, short, long, strict=True):
        assert test.dtype == one.dtype and len(test) == 2 and np.array_equal(test[1:], other)
        assert np.array_equal(test[:1][tuple(map(slice, one.shape))], one)
    sums = both[2 * LAYERS + 1::3]
    assert all((each[0, ..., 5:] == caches.FAR).all() for each in sums if each.shape[3] > 1)
    assert not np.concatenate([each[0, :, :, 5:].ravel() for each in both[:2 * LAYERS:2]]).any()


def test_windows_of_different_lengths_are_decoded_together_as_each_is_alone(pairs, tiny):
    runtime, whole = pairs["int8"], tiny.runtime.spec.n_frames
    rng = np.random.default_rng(3)
    features = [rng.standard_normal((tiny.runtime.spec.n_mels, frames)).astype(np.float32)
                for frames in (whole // 4 * 2, whole, whole // 4)]
    ids = np.array([[2, 3, 4]] * 3)
    together, cache = runtime.step(ids, runtime.encode(features), None)
    later = runtime.step(ids[:, :1], runtime.encode(features), cache)[0]
    for row, one in enumerate(features):
        alone, cache = runtime.step(ids[:1], runtime.encode([one]), None)
        assert error(together[row], alone[0]) < 1e-5
        assert error(later[row], runtime.step(ids[:1, :1], runtime.encode([one]), cache)[0][0]) < 1e-5
    assert runtime.mixes_lengths and not pairs["float"].mixes_lengths
