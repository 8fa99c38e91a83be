"""PyTorch in float64 and in half precision, layer by layer: the yardstick of the gates, and the weights unharmed."""

import contextlib

import numpy as np
import pytest
import torch

from tests.helpers.export_tiny import exported
from whisper_lab.export import parity, reference
from whisper_lab.export.reference import Pool


@pytest.fixture(scope="module")
def runtime():
    return exported().runtime


def answers(runtime):
    features = exported().sounds[0].features
    states = runtime.encode(features)
    logits, _ = runtime.step(np.array([[3, 4, 5]]), states, None)
    return states.double().numpy(), logits


def test_exact_is_what_a_model_in_float64_computes_and_leaves_no_trace(runtime):
    before = {name: tensor.clone() for name, tensor in runtime.model.state_dict().items()}
    plain, _ = answers(runtime)
    with reference.in_float64(runtime.model):
        states, _ = answers(runtime)
        assert runtime.encode(exported().sounds[0].features).dtype == torch.float64
    assert all(torch.equal(before[name], tensor) for name, tensor in runtime.model.state_dict().items())
    assert np.array_equal(answers(runtime)[0], plain)
    wide = type(runtime.model)(runtime.model.config).double().eval()
    wide.load_state_dict(runtime.model.state_dict())
    with torch.inference_mode():
        right = wide.model.encoder(torch.from_numpy(exported().sounds[0].features).double()).last_hidden_state.numpy()
    assert Pool().add(states, right).error < 1e-13
    assert 1e-8 < Pool().add(plain, right).error < 1e-5


def test_half_rounds_weights_and_values(runtime):
    with reference.in_float64(runtime.model):
        right, _ = answers(runtime)
    errors = {}
    for operators in (True, False):
        with reference.in_float16(runtime.model, operators):
            errors[operators] = Pool().add(answers(runtime)[0], right).error
    assert 1e-4 < errors[False] < errors[True] < 1e-2


def test_weights_are_restored_after_an_error(runtime):
    before = runtime.model.model.encoder.conv1.weight.clone()
    with pytest.raises(ZeroDivisionError), reference.in_float64(runtime.model):
        handle = runtime.model.model.encoder.conv1.register_forward_hook(lambda *_: 1 / 0)
        try:
            answers(runtime)
        finally:
            handle.remove()
    assert torch.equal(runtime.model.model.encoder.conv1.weight, before)
    assert runtime.encode(exported().sounds[0].features).dtype == torch.float32


def test_a_pool_is_the_error_of_all_its_arrays():
    right = np.array([1.0, 3.0])
    pool = Pool().add(right + 0.1, right).add(right, right)
    assert pool.error == pytest.approx(np.sqrt(0.02 / 4)) and pool.decibels == pytest.approx(10 * np.log10(4 / 0.02))
    assert Pool().add(right, right).decibels == np.inf and Pool().add(right, right).error == 0
    for broken in (np.array([1.0, np.nan]), right[:1]):
        pool = Pool().add(broken, right)
        assert pool.error == np.inf and pool.decibels == -np.inf


def test_own_errors_are_never_shorter_than_one_rounding():
    sounds = exported().sounds
    for precision, unit in reference.UNIT.items():
        own = reference.own_errors(sounds, precision)
        assert {"hidden states", "cross key 0", "self value 1", "logits"} <= set(own)
        assert all(unit <= error < 100 * unit for error in own.values())


def test_where_no_arithmetic_is_judged_float32_is_right(runtime, monkeypatch):
    """An export of int8 alone waits for no float64, and its gates see the same."""
    monkeypatch.setattr(reference, "in_float64", lambda model: pytest.fail("float64 is not needed"))
    monkeypatch.setattr(reference, "in_float16", lambda model, operators=True: contextlib.nullcontext())
    judged = reference.Arithmetic(())
    found = reference.make(runtime, judged=judged, more=False)
    for seen, right in zip(found, exported().sounds, strict=False):
        assert seen.has_caches and not seen.rounding and set(seen.stream) == set(right.stream)
        assert Pool().add(seen.hidden, right.hidden).decibels > 90
        assert Pool().add(seen.logits, right.logits).decibels > 90
    assert not parity.long_run(runtime, found, judged=judged).rounding
