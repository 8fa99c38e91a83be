"""Every planted fault is caught in every precision, and no sound pair is: on whisper-nano, and on real weights.

The tests on real weights run where WHISPER_LAB_TEST_BASE names the folder of a checkpoint, such as whisper-base.
"""

import contextlib
import importlib
import os

import pytest

from tests.helpers import planted_faults
from whisper_lab import checkpoints
from whisper_lab.export import diverge

QUANTIZED = ["int8", "int4", "int8 optimized"]


def misses(work, pairs, precision) -> list[str]:
    """Faults that no gate saw, and the gates that a sound pair failed."""
    sound = planted_faults.judge(None, pairs[precision], precision, work)
    wrong = [f"sound: {gate.name}, {gate.said()}" for gate in sound if not gate.passed]
    for fault in planted_faults.faults_of(precision):
        gates = planted_faults.judge(fault, pairs[precision], precision, work)
        wrong += [fault.name] if all(gate.passed for gate in gates) else []
    return wrong


@pytest.fixture(scope="module")
def on_nano(nano, nano_export):
    pairs = planted_faults.find_pairs(nano_export / "graphs", "whisper-nano")
    return planted_faults.prepare(checkpoints.resolve(str(nano)), pairs, alignment=True), pairs


@pytest.mark.parametrize("precision", ["fp32", *QUANTIZED])
def test_every_fault_is_caught_on_nano(on_nano, precision):
    assert misses(*on_nano, precision) == []


def test_a_quantized_fault_is_named_by_the_part_it_is_in(on_nano):
    work, pairs = on_nano
    fault = next(fault for fault in planted_faults.FAULTS if fault.name == "one head of the encoder twice as loud")
    gate = next(gate for gate in planted_faults.judge(fault, pairs["int8"], "int8", work) if not gate.passed)
    assert gate.name == "layer by layer: encoder" and gate.unit == "dB" and gate.value < gate.limit
    assert f"encoder.layers.{work.config.encoder_layers // 2}.self_attn," in gate.detail


@pytest.mark.parametrize(("fault", "named"), [
    ("timestamps half a second late", "logits"), ("timestamps suppressed", "logits"),
    ("a matrix of the decoder with the wrong sign", "decoder.layers.{layer}.activation_fn/"),  # which reads it
    ("a bias missing in the decoder", "decoder.layers.{layer}.fc1/")])
def test_the_first_diverging_node_is_named(on_nano, tmp_path, fault, named):
    work, pairs = on_nano
    chosen = next(each for each in planted_faults.FAULTS if each.name == fault)
    broken = planted_faults.plant(chosen, pairs["fp32"], tmp_path, work)
    found = diverge.locate(broken["decoder"], "decoder", "fp32", work.runtime, work.sounds[0])
    assert found.startswith(named.format(layer=work.config.decoder_layers // 2)) and "relative error" in found, found


@pytest.fixture(scope="module")
def on_real_weights(tmp_path_factory):
    folder = os.environ.get("WHISPER_LAB_TEST_BASE")
    if not folder:
        pytest.skip("WHISPER_LAB_TEST_BASE names no folder with real Whisper weights")
    checkpoint, place = checkpoints.resolve(folder), tmp_path_factory.mktemp("real")
    with contextlib.chdir(place):
        assert importlib.import_module("03-export-encoder-decoder").main(
            ["--model", str(checkpoint.folder), "--precision", "all", "--optimize", "--no-verify", "--quiet",
             "--output-dir", "graphs"]) == 0
    pairs = planted_faults.find_pairs(place / "graphs", checkpoint.name)
    return planted_faults.prepare(checkpoint, pairs), pairs


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("precision", ["fp32", "fp16", *QUANTIZED])
def test_every_fault_is_caught_on_real_weights(on_real_weights, precision):
    assert misses(*on_real_weights, precision) == []
