"""Every parity gate sees a graph that was broken on purpose, and none of them complains about a sound one."""

import itertools
import re
import weakref
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.helpers import planted_faults
from tests.helpers.export_tiny import copy_pair, exported
from whisper_lab import names
from whisper_lab.export import end_to_end, graphs, parity, structure, verify
from whisper_lab.export.gates import ARITHMETIC, above, below, relative_error
from whisper_lab.export.pair import session


@pytest.fixture(scope="module")
def tiny():
    return exported()


def gates_of(tiny, pair, precision, trained=False, **options):
    sizes = {part: graphs.size(path) for part, path in tiny.pairs["fp32"].items()}
    vectors = {part: structure.vectors(graphs.load(path)) for part, path in tiny.pairs["fp32"].items()}
    return verify.run(pair, precision, tiny.runtime, tiny.sounds, tiny.long_run, fp32_bytes=sizes,
                      excluded={"encoder": 0, "decoder": 0}, trained=trained, threads=1, vectors=vectors,
                      **{"half_operators": precision == "fp16", **options})


def failed(gates) -> list[str]:
    return [gate.name for gate in gates if not gate.passed]


def test_memory_goes_back_before_each_step(tiny, monkeypatch):
    """What one step freed and glibc kept was a tenth of the peak with whisper-base."""
    done = []
    monkeypatch.setattr(verify.machine, "give_back_memory", lambda: done.append("given back"))
    for module, name in ((parity, "numbers"), (parity, "pieces"), (parity, "shapes"), (end_to_end, "text")):
        monkeypatch.setattr(module, name, lambda *_, name=name: done.append(name) or [])
    gates_of(tiny, tiny.pairs["fp32"], "fp32")
    assert done[-8:] == ["given back", "numbers", "given back", "pieces", "given back", "shapes", "given back", "text"]


def test_the_decoder_is_opened_while_no_other_graph_is(tiny, monkeypatch):
    """In half precision that takes much memory, and an encoder that waits would add its own."""
    opened = []

    def watched(path, threads=None):
        if "decoder" in path.name:
            assert not any(graph() for graph in opened), "an encoder is open"
        made = session(path, threads)
        opened.append(weakref.ref(made))
        return made

    monkeypatch.setattr(verify, "session", watched)
    assert not failed(gates_of(tiny, tiny.pairs["fp16"], "fp16"))
    assert len(opened) == 3  # the encoder twice


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_a_search_on_pytorchs_way_asks_the_graph_for_no_token_twice(tiny, precision):
    """And where it leaves that way, it finds what a search by itself finds."""
    from whisper_lab.export.pair import open_runtime
    from whisper_lab.onnx_whisper import OnnxWhisper

    class Counting(OnnxWhisper):
        steps = 0

        def step(self, *arguments):
            self.steps += 1
            return super().step(*arguments)

    pair, parted = open_runtime(*tiny.pairs[precision].values(), threads=1, like=tiny.runtime, kind=Counting), 0
    for sound in tiny.sounds[:3]:
        cross = pair.encode(sound.features)
        followed = end_to_end.Followed(pair, cross, sound.spoken)
        before, found = pair.steps, end_to_end._decode(followed, cross)
        asked = pair.steps - before
        assert found == end_to_end.decode_encoded(pair, cross, 1, end_to_end._options(followed))[0]
        left = found.tokens != sound.result.tokens[:len(found.tokens)] or len(found.tokens) > len(sound.result.tokens)
        assert (asked > 0) == left, (sound.name, asked)
        parted += left
    assert parted == 0 if precision == "fp32" else parted


def test_a_window_that_two_gates_ask_for_is_encoded_once(tiny):
    from whisper_lab.export.pair import HeardOnce, open_runtime

    pair = open_runtime(*tiny.pairs["fp32"].values(), threads=1, like=tiny.runtime, kind=HeardOnce)
    first, other = (sound.features for sound in tiny.sounds[:2])
    hidden, cross = pair.hidden_and_cross(first)
    encoder, pair.encoder = pair.encoder, None
    assert all(map(np.array_equal, pair.encode(first), cross)) and len(cross) == len(pair.cross_outputs)
    pair.encoder = encoder
    assert not np.array_equal(pair.encode(other)[0], cross[0])  # never asked for before
    assert all(map(np.array_equal, pair.encode(first), cross))  # what was fetched is gone, and is made again
    assert np.array_equal(pair.hidden_and_cross(first)[0], hidden)


def test_of_the_decoders_shapes_each_two_values_meet(tiny):
    """Batch, past and sequence: a fault that needs two of them is seen, without all 96 combinations."""
    from whisper_lab.export.pair import open_runtime

    pair = open_runtime(*tiny.pairs["fp32"].values(), threads=1, like=tiny.runtime)
    places = parity.sweep_decoder(pair, tiny.long_run.read(), tiny.sounds)
    seen = [re.match(r"batch (.+), sequence (\d+), past (\d+)$", place).groups() for place in places]
    for one, other in itertools.combinations(range(3), 2):
        values = [{row[i] for row in seen} for i in (one, other)]
        assert len(values[0]) * len(values[1]) == len({(row[one], row[other]) for row in seen})
    assert [len({row[i] for row in seen}) for i in range(3)] == [6, 4, 4]


@pytest.fixture
def broken(tiny, tmp_path):
    """A function (precision, part, change) -> the pair with one graph changed by `change(onnx_ir.Model)`."""

    def make(precision, part, change):
        pair = copy_pair(tiny.pairs[precision], tmp_path)
        model = graphs.load(pair[part])
        change(model)
        graphs.rewrite(model, pair[part])
        return pair

    return make


def weight(model, name):
    return model.graph.initializers[name]


def change_weight(name, edit):
    """A change that edits one initializer's array."""
    def change(model):
        array = weight(model, name).const_value.numpy().copy()
        edit(array)
        weight(model, name).const_value = ir.tensor(array, name=name)
    return change


def node(model, name):
    return next(node for node in model.graph if node.name == name)


@pytest.mark.parametrize("precision", names.PRECISIONS)
def test_a_sound_pair_passes_every_gate(tiny, precision):
    gates = gates_of(tiny, tiny.pairs[precision], precision)
    assert failed(gates) == []
    assert len(gates) >= 25
    names = " ".join(gate.name for gate in gates)
    for word in ("valid", "free dimensions", "embedding stored once", "numbers", "shapes", "KL"):
        assert word in names
    assert ("in pieces" in names) == (precision in ARITHMETIC)


@pytest.mark.parametrize("precision", names.PRECISIONS)
def test_one_flipped_weight_matrix_is_seen_and_named(tiny, broken, precision):
    name = "decoder.layers.1.fc1.weight"
    stored = {"fp16": f"{name}_float16", "int8": f"{name}_quantized"}.get(precision, name)
    if precision == "int4":
        stored = next(key for key in graphs.load(tiny.pairs["int4"]["decoder"]).graph.initializers
                      if "layers.1.fc1" in key and "scale" in key)
    pair = broken(precision, "decoder", change_weight(stored, lambda array: array.__imul__(-1)))
    gates = gates_of(tiny, pair, precision)
    assert failed(gates)[0].startswith("numbers" if precision in ARITHMETIC else "layer by layer: decoder")
    explanation = verify.explain(gates, pair, precision, tiny.runtime, tiny.sounds)
    assert ("decoder.layers.1.fc1/" if precision in ARITHMETIC else "decoder.layers.1.fc1 and fc2") in explanation


def test_one_wrong_bias_is_seen_and_named(tiny, broken):
    pair = broken("fp32", "encoder", change_weight("encoder.layers.0.self_attn.v_proj.bias", lambda a: a.fill(0)))
    gates = gates_of(tiny, pair, "fp32")
    assert failed(gates)[0] == "numbers: encoder"
    assert "encoder.layers.0.self_attn.v_proj/Add" in verify.explain(gates, pair, "fp32", tiny.runtime, tiny.sounds)


def test_swapped_keys_and_values_are_seen(tiny, broken):
    def swap(model):
        keys = next(value for value in model.graph.inputs if value.name == "past_key_cross_0")
        node(model, "decoder.layers.0.encoder_attn/MatMul_1").replace_input_with(1, keys)
    assert "numbers: logits" in failed(gates_of(tiny, broken("fp32", "decoder", swap), "fp32"))


def test_swapped_inputs_are_seen_by_name(tiny, broken):
    def swap(model):
        inputs = model.graph.inputs
        inputs[1], inputs[2] = inputs[2], inputs[1]
    assert "inputs and outputs" in failed(gates_of(tiny, broken("fp32", "decoder", swap), "fp32"))


def test_nan_is_seen(tiny, broken):
    pair = broken("fp32", "decoder", change_weight("decoder.layer_norm.weight", lambda a: a.__setitem__(3, np.nan)))
    gates = gates_of(tiny, pair, "fp32")
    gate = next(gate for gate in gates if gate.name == "numbers: logits")
    assert not gate.passed and gate.value is None and "not finite" in gate.detail


def test_a_second_copy_of_the_embedding_is_seen(tiny, broken):
    def untie(model):
        table = weight(model, "decoder.embed_tokens.weight")
        copy = graphs.constant(model, "proj_out.weight", table.const_value.numpy().T.copy())
        node(model, "proj_out/MatMul").replace_input_with(1, copy)
    assert "embedding stored once" in failed(gates_of(tiny, broken("fp32", "decoder", untie), "fp32"))


def test_a_layer_left_in_float_is_seen(tiny, broken):
    def put_back(model):
        good = graphs.load(tiny.pairs["fp32"]["encoder"])
        name = "encoder.layers.0.fc1/MatMul"
        array = good.graph.initializers["encoder.layers.0.fc1.weight"].const_value.numpy()
        matrix = graphs.constant(model, "float", array)
        old = next(v for n in model.graph for v in n.outputs if v.name == name)
        x = next(n for n in model.graph if n.name == "encoder.layers.0.final_layer_norm/LayerNormalization").outputs[0]
        graphs.replace(old, graphs.insert(model, old.producer(), "MatMul", [x, matrix], "float/MatMul",
                                          dtype=ir.DataType.FLOAT))
    assert "float MatMul on a weight" in failed(gates_of(tiny, broken("int8", "encoder", put_back), "int8"))


def test_half_weights_with_float_operators_are_not_called_full(tiny, tmp_path):
    from tests.helpers.export_tiny import script

    pair = names.pair(tmp_path, "stored", "fp16")
    for part, source in tiny.pairs["fp32"].items():
        script().to_fp16(source, pair[part], "weights")
    assert failed(gates_of(tiny, pair, "fp16", half_operators=False)) == []
    assert "linear layers computed in float16" in failed(gates_of(tiny, pair, "fp16"))


def test_a_lost_layer_norm_is_seen(tiny, broken):
    def lose(model):
        norm = node(model, "encoder.layer_norm/LayerNormalization")
        norm.outputs[0].replace_all_uses_with(norm.inputs[0], replace_graph_outputs=True)
        name = "encoder_hidden_states"
        source, norm.outputs[0].name = norm.inputs[0], "lost"
        source.name = name
        model.graph.remove(norm, safe=True)
    assert "LayerNormalization nodes" in failed(gates_of(tiny, broken("fp32", "encoder", lose), "fp32"))


def test_a_graph_that_outgrew_its_precision_is_seen(tiny, broken):
    def pad(model):
        ballast = graphs.constant(model, "ballast", np.zeros(100_000, np.float32))
        norm = node(model, "encoder.layer_norm/LayerNormalization")
        graphs.insert(model, norm, "Identity", [ballast], "ballast/Identity", dtype=ir.DataType.FLOAT)
    assert "size against fp32" in failed(gates_of(tiny, broken("int8", "encoder", pad), "int8"))


@pytest.mark.parametrize("fault", [planted_faults.short_one_off, planted_faults.short_from_the_end,
                                   planted_faults.rest_counts_once, planted_faults.rest_is_the_beginning])
@pytest.mark.parametrize("precision", names.PRECISIONS)
def test_positions_that_are_wrong_in_short_windows_alone_are_seen(tiny, broken, precision, fault):
    """In a whole window these graphs say what sound ones say."""
    pair = broken(precision, "encoder", lambda model: fault(model, None))
    given = tiny.sounds[0].features
    sound, other = (session(each["encoder"], 1) for each in (tiny.pairs[precision], pair))
    for frames, same in ((given.shape[2], True), (given.shape[2] // 2, False)):
        right, found = (each.run(None, {"input_features": given[:, :, :frames]})[0] for each in (sound, other))
        assert np.array_equal(right, found) == same
    wrong = [gate for gate in gates_of(tiny, pair, precision) if not gate.passed]
    assert wrong and wrong[0].part == "encoder", wrong


def test_a_frozen_dimension_is_seen(tiny, broken):
    def freeze(model):
        for value in model.graph.inputs:
            if "_self_" in value.name:
                value.shape = ir.Shape([value.shape[0], value.shape[1], 5, value.shape[3]])
    assert "free dimensions" in failed(gates_of(tiny, broken("fp32", "decoder", freeze), "fp32"))


def test_a_length_frozen_inside_the_graph_is_seen_by_the_sweep(tiny, broken):
    """The dimensions look free, but one Range ends where the example's past ended: past 5 works, others do not."""
    def freeze(model):
        start = graphs.constant(model, "frozen", np.array(5, np.int64))
        positions = next(n for n in model.graph if n.op_type == "Range" and not n.inputs[0].is_initializer())
        positions.replace_input_with(0, start)
    seen = failed(gates_of(tiny, broken("fp32", "decoder", freeze), "fp32"))
    assert seen, "no gate saw it"
    from whisper_lab.export.pair import open_runtime
    pair = broken("fp32", "decoder", freeze)
    frozen = open_runtime(*pair.values(), threads=1, like=tiny.runtime)
    found = parity.shapes(frozen, tiny.long_run, tiny.sounds, "fp32")
    assert failed(found) == ["shapes: decoder"]


def test_beams_that_hear_the_wrong_recording_are_seen_by_the_sweep(tiny, broken):
    """A graph right for one recording and wrong for several: only the sweep has several."""
    def mix(model):
        for layer in range(2):
            source = next(v for v in model.graph.inputs if v.name == f"past_key_cross_{layer}")
            reader = next(use.node for use in source.uses() if use.node.op_type == "Transpose")
            zero = model.graph.initializers.get("first") or graphs.constant(model, "first", np.array([0]))
            first = graphs.insert(model, reader, "Gather", [source, zero], f"first/{layer}", dtype=ir.DataType.FLOAT)
            shape = graphs.insert(model, reader, "Shape", [source], f"first/shape/{layer}", dtype=ir.DataType.INT64)
            wide = graphs.insert(model, reader, "Expand", [first, shape], f"first/all/{layer}", dtype=ir.DataType.FLOAT)
            reader.replace_input_with(0, wide)
    gates = gates_of(tiny, broken("fp32", "decoder", mix), "fp32")
    assert failed(gates) == ["shapes: decoder"]
    assert "recordings" in next(gate for gate in gates if not gate.passed).detail


def test_random_weights_need_not_tell_recordings_apart(tiny):
    """Their words hardly depend on the sound: in a batch int8's noise is as loud as what another sound changes. That no
    recording hears another's, the gate on their order still says."""
    from whisper_lab.export.pair import open_runtime
    pair = open_runtime(*tiny.pairs["int8"].values(), threads=1, like=tiny.runtime)
    names = {trained: [gate.name for gate in parity.shapes(pair, tiny.long_run, tiny.sounds, "int8", trained=trained)]
             for trained in (True, False)}
    assert set(names[True]) - set(names[False]) == {"recordings in a batch = alone"}
    assert "recordings in another order" in names[False]


@pytest.mark.parametrize("planted", [False, True])
def test_a_kernel_may_round_by_a_rows_place_but_not_mix_recordings(tiny, planted):
    """int4's kernel sums two rows at once and the odd one in another way, on some processors; what follows rounds the
    difference up to a step of eight bits."""
    class Tiled:
        def step(self, ids, cross, cache):
            cross = [np.repeat(each[:1], len(each), axis=0) for each in cross] if planted else cross
            logits, caches = pair.step(ids, cross, cache)
            logits[-1] += 0.01 * logits[-1].std() * np.sign(np.sin(np.arange(logits.shape[-1])))
            return logits, caches

    from whisper_lab.export.pair import open_runtime
    pair = open_runtime(*tiny.pairs["fp32"].values(), threads=1, like=tiny.runtime)
    gate = parity.order(Tiled(), tiny.long_run.read(), tiny.sounds)
    assert gate.passed != planted, gate.said()


def test_a_cache_that_forgets_is_seen(tiny, broken):
    """The new keys alone, the past dropped: right for the prompt, wrong for every later step."""
    def forget(model):
        for name in ("present_key_self_0", "present_value_self_0"):
            concat = next(o for o in model.graph.outputs if o.name == name).producer()
            past, new = concat.inputs
            zeros = graphs.constant(model, f"{name}.zero", np.array(0, np.float32))
            blank = graphs.insert(model, concat, "Mul", [past, zeros], f"{name}/blank", dtype=ir.DataType.FLOAT)
            concat.replace_input_with(0, blank)
            assert new is not None
    assert failed(gates_of(tiny, broken("fp32", "decoder", forget), "fp32")) == ["prompt at once = in pieces"]


def test_choices_and_divergence_are_judged_with_the_margin(tiny):
    """An offset on one token's logit makes it the likeliest everywhere."""
    from whisper_lab.export.pair import open_runtime
    from whisper_lab.onnx_whisper import OnnxWhisper

    class Shouting(OnnxWhisper):
        def step(self, *arguments):
            logits, cache = super().step(*arguments)
            logits[..., 3] += 50
            return logits, cache

    pair = open_runtime(*tiny.pairs["fp32"].values(), threads=1, like=tiny.runtime, kind=Shouting)
    gates = end_to_end.text(pair, tiny.sounds, "int8", trained=False)
    assert failed(gates) == ["teacher-forced: choices", "teacher-forced: KL divergence"]
    assert "margins where not" in gates[0].detail


def test_text_that_differs_or_loops_is_seen(tiny):
    """A decoder that always prefers one word: wrong words, and a loop where PyTorch had none."""
    from dataclasses import replace

    from whisper_lab.export.pair import open_runtime
    from whisper_lab.onnx_whisper import OnnxWhisper

    word = next(i for i in range(300, tiny.runtime.rules.end) if tiny.runtime.tokenizer.decode([i]).strip().isalpha())

    class Stuck(OnnxWhisper):
        def step(self, *arguments):
            logits, cache = super().step(*arguments)
            logits[..., word] += 1000
            return logits, cache

    result = replace(tiny.sounds[0].result, text="one two three", tokens=tiny.sounds[0].result.tokens)
    sounds = [replace(sound, result=result) for sound in tiny.sounds]
    stuck = open_runtime(*tiny.pairs["fp32"].values(), threads=1, like=tiny.runtime, kind=Stuck)
    assert failed(end_to_end.text(stuck, sounds, "int4", trained=True))[2:] == [
        "free-running: words", "free-running: timestamps", "free-running: loops", "noise and silence"]
    assert "free-running: tokens" in failed(end_to_end.text(stuck, sounds, "fp32", trained=False))


def spoken(tiny, logits: dict[int, float], tokens: list[int], timestamps: bool):
    """PyTorch's answer of `tokens`, whose next token would have had these logits, all others -20."""
    from dataclasses import replace

    from whisper_lab.export.reference import Spoken

    scores = np.full((1, 4 + len(tokens), tiny.runtime.rules.vocab_size), -20, np.float32)
    for token, value in logits.items():
        scores[..., token] = value
    result = replace(tiny.sounds[0].result, prompt=[1, 2, 3, 4][:4], tokens=tokens)
    return Spoken(result, scores, timestamps, False)


def heard(sound, result=None, timed=None):
    """What a pair made of a sound, as the gates on words and times see it."""
    from whisper_lab.export.end_to_end import Heard

    return Heard(sound, np.zeros(1), np.zeros(1), result, timed, True)


def test_where_two_answers_part_pytorch_says_how_near_the_tie_was(tiny):
    from whisper_lab.export.end_to_end import parting

    rules = tiny.runtime.rules
    theirs = spoken(tiny, {300: 2.0, 301: 1.6, rules.end: 0.0}, [300, 300], False)
    assert parting([300, 300], theirs, rules) is None
    found = parting([300, 301], theirs, rules)
    assert found.step == 1 and found.nats == pytest.approx(0.4)
    assert parting([300, 300, 301], theirs, rules).step == 2  # PyTorch stopped there
    never = int(rules.suppress[0])
    assert parting([300, never], theirs, rules).nats == np.inf


def test_timestamps_may_move_a_little_and_no_more(tiny):
    from dataclasses import replace


    rules, begin = tiny.runtime.rules, tiny.runtime.rules.timestamp_begin
    right = spoken(tiny, {300: 1.0, begin: 3.0, begin + 20: 6.0, begin + 40: 5.0}, [begin, 300, begin + 20], True)
    sound = replace(tiny.sounds[0], timed=right)

    def gate(*tokens):
        return end_to_end._times([heard(sound, timed=replace(right.result, tokens=list(tokens)))], "int8", rules)

    assert gate(begin, 300, begin + 20).value == 0 and gate(begin, 300, begin + 28).passed
    late = gate(begin, 300, begin + 40)
    assert not late.passed and late.value == pytest.approx(1) and "[0.0, 0.8] s, PyTorch: [0.0, 0.4]" in late.detail
    assert not gate(300, 300, 300).passed  # no timestamps at all


def test_a_near_tie_in_speech_is_allowed_and_said(tiny):
    from dataclasses import replace


    tie = spoken(tiny, {300: 2.0, 301: 1.7}, [300], False)
    sound = replace(tiny.sounds[0], result=replace(tie.result, text="five"), logits=tie.logits)
    other = heard(sound, result=replace(tie.result, tokens=[301], text="nine"))
    gate = end_to_end._words([other], "int8", tiny.runtime.rules)
    assert gate.passed and gate.value == 0
    assert "near tie, allowed: speech: 'nine', PyTorch: 'five' (0.3 nats)" in gate.detail
    gate = end_to_end._words([other], "fp16", tiny.runtime.rules)
    assert not gate.passed and gate.value == 1


@pytest.mark.parametrize(("part", "name", "edit"), [
    ("encoder", "encoder.layers.1.fc2.bias", lambda array: array.fill(0)),
    ("decoder", "decoder.layer_norm.bias", lambda array: array.__setitem__(3, np.nan)),
    ("decoder", "decoder.layers.0.self_attn_layer_norm.weight", lambda array: array.__imul__(1.01)),
])
def test_biases_and_norms_are_looked_up(tiny, broken, part, name, edit):
    """Too small to be heard through int8's noise, or lost in its rounding: DynamicQuantizeLinear makes NaN a number."""
    gates = gates_of(tiny, broken("int8", part, change_weight(name, edit)), "int8")
    gate = next(gate for gate in gates if not gate.passed)
    assert gate.name == "biases and LayerNorms" and gate.part == part and name in gate.detail


def test_smoothing_by_powers_of_two_is_no_fault(tiny, broken):
    """A LayerNorm divided, what reads it multiplied: the function is the same."""
    pair = broken("int8", "decoder", change_weight("decoder.layers.0.fc1.bias", lambda array: array.__imul__(4)))
    right = structure.vectors(graphs.load(tiny.pairs["fp32"]["decoder"]))
    assert structure.kept(pair["decoder"], "decoder", right)[0].passed


def test_an_invalid_graph_is_seen(tiny, tmp_path):
    pair = copy_pair(tiny.pairs["fp32"], tmp_path)
    model = onnx.load(pair["encoder"])
    model.graph.node[5].op_type = "NoSuchOperator"
    onnx.save(model, pair["encoder"])
    gates = gates_of(tiny, pair, "fp32")
    assert "valid ONNX" in failed(gates)
    assert "encoder" in verify.explain(gates, pair, "fp32", tiny.runtime, tiny.sounds)


def test_relative_error_knows_its_enemies():
    right = np.array([1.0, 2.0, 3.0], np.float32)
    assert relative_error(right, right) == 0
    assert relative_error(right[:2], right) == float("inf")
    assert relative_error(np.array([1, np.nan, 3], np.float32), right) == float("inf")
    assert relative_error(right + right.std(), right) == pytest.approx(1)
    gate = below("x", float("inf"), 1.0, "seen")
    assert not gate.passed and gate.value is None and gate.said() == "not finite, at most 1 allowed"
    gate = above("x", 12.3, 18, "seen", unit="dB")
    assert not gate.passed and gate.said() == "12.3 dB, at least 18 allowed"
    assert above("x", float("inf"), 18, "seen").passed and not above("x", -float("inf"), 18, "seen").passed


@pytest.fixture(scope="module")
def fused(tiny, tmp_path_factory):
    """The _optimized pair of the tiny checkpoint."""
    from tests.helpers.export_tiny import script

    pair = names.pair(tmp_path_factory.mktemp("fused"), "tiny", "int8", optimized=True)
    config = tiny.model.config
    done, _ = script().convert("int8", tiny.pairs["fp32"], pair, script().recipe("int8", config), config)
    assert done["decoder"].startswith("2 attentions fused, cross caches in int8, 16 linear layers")
    assert ", 18 linear layers, 1 convolution (int8)" in done["encoder"]  # the other is two of them
    return pair


def test_the_optimized_pair_passes_every_gate_and_agrees_with_the_plain_one(tiny, fused):
    from whisper_lab.export.pair import open_runtime

    assert failed(gates_of(tiny, fused, "int8", optimized=True)) == []
    plain = open_runtime(*tiny.pairs["int8"].values(), threads=1, like=tiny.runtime)
    quick = open_runtime(*fused.values(), threads=1, like=tiny.runtime)
    sound = tiny.sounds[0]
    logits = [pair.step(sound.forced, sound.cross, None)[0] for pair in (plain, quick)]
    assert relative_error(logits[1], logits[0]) < 0.03


def test_logits_of_the_plain_kind_and_an_embedding_stored_twice_are_seen(tiny, fused, tmp_path):
    pair = copy_pair(fused, tmp_path)
    model = graphs.load(pair["decoder"])
    node = next(node for node in model.graph if node.op_type == "MatMulNBits" and node.name.startswith("proj_out/"))
    weight = node.inputs[1]
    node.replace_input_with(1, graphs.constant(model, "copy", weight.const_value.numpy()))
    graphs.rewrite(model, pair["decoder"])
    assert "embedding stored once" in failed(gates_of(tiny, pair, "int8", optimized=True))


def test_an_attention_that_was_not_fused_is_seen(tiny):
    found = failed(gates_of(tiny, tiny.pairs["int8"], "int8", optimized=True))
    assert {"fused attentions, and Softmax left", "quantized linear layers", "logits in 8 bits"} <= set(found)


def test_scales_of_the_wrong_blocks_are_seen(tiny, fused, tmp_path):
    """Two layers exchange the scales of their blocks in the decoder."""
    pair = copy_pair(fused, tmp_path)
    model = graphs.load(pair["decoder"])
    users = [next(node for node in model.graph if node.op_type == "MatMulNBits"
                  and node.name.startswith(f"decoder.layers.0.encoder_attn.{what}_proj")) for what in ("q", "out")]
    scales = [node.inputs[2] for node in users]
    for node, scale in zip(users, reversed(scales), strict=True):
        node.replace_input_with(2, scale)
    graphs.rewrite(model, pair["decoder"])
    gate = next(gate for gate in gates_of(tiny, pair, "int8", optimized=True) if not gate.passed)
    assert gate.name == "layer by layer: decoder" and "decoder.layers.0.encoder_attn" in gate.detail


def key_scale_lost(model, facts) -> None:
    """In a checkpoint of random weights those of two layers are too much alike to be exchanged."""
    scale = next(value for value in model.graph.inputs if value.name == "past_key_scale_cross_1")
    for node, index in list(scale.uses()):
        node.replace_input_with(index, graphs.constant(model, "lost", np.float32(1)))


def scales_of_the_other_kind(model, facts) -> None:
    """The encoder's keys leave with the scale of its values, and the other way round."""
    made = {value.name: value for value in model.graph.outputs}
    key, value = (made[f"present_{what}_scale_cross_1"] for what in ("key", "value"))
    key.name, value.name = value.name, key.name
    places = [model.graph.outputs.index(one) for one in (key, value)]
    model.graph.outputs[places[0]], model.graph.outputs[places[1]] = value, key


@pytest.mark.parametrize("part, plant", [
    ("decoder", planted_faults.of_another_layer("key_sum")), ("decoder", key_scale_lost),
    ("decoder", planted_faults.of_another_layer("value_scale")), ("encoder", scales_of_the_other_kind)])
def test_what_does_not_belong_to_an_int8_cache_is_seen(tiny, fused, tmp_path, part, plant):
    fault = planted_faults.Fault("of another", part, plant)
    pair = planted_faults.plant(fault, fused, tmp_path, SimpleNamespace(config=tiny.model.config))
    found = [gate for gate in gates_of(tiny, pair, "int8", optimized=True) if not gate.passed]
    assert f"layer by layer: {part}" in [gate.name for gate in found], found


def test_fusion_alone_changes_no_number(tiny, tmp_path):
    """In float32 the fused graphs pass float32's own limits, beams, empty past and all."""
    from whisper_lab.export import optimize
    from whisper_lab.export.pair import open_runtime

    pair = names.pair(tmp_path, "fused")
    for part, source in tiny.pairs["fp32"].items():
        model = graphs.load(source)
        assert optimize.fuse_attention(model, tiny.model.config) == 2
        graphs.save(model, pair[part])
    both = open_runtime(*pair.values(), threads=1, like=tiny.runtime)
    assert failed(parity.numbers(both, tiny.sounds, "fp32") + parity.pieces(both, tiny.sounds, "fp32")
                  + parity.shapes(both, tiny.long_run, tiny.sounds, "fp32")) == []
