"""Faults that an export can have, planted in a graph of any precision: nodes are inserted, however weights are stored.

    python -m tests.helpers.planted_faults FOLDER --model CHECKPOINT --json faults.json

breaks every pair of CHECKPOINT that 03 wrote to FOLDER in every way, and says which gate sees it, by how much.
"""

import argparse
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir

from whisper_lab.export import convolution, graphs, outliers

FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class Fault:
    """`plant(model, facts)` breaks the graph of `part`; facts: config, rules, largest activation (see `prepare`).

    optimized: only the optimized pair has what it breaks."""

    name: str
    part: str
    plant: Callable
    optimized: bool = False


# Tools ---------------------------------------------------------------------------------------------------------------

def value(model: ir.Model, name: str) -> ir.Value:
    names = (name, f"{name}_smoothed", f"{name}_ordered")  # what is scaled, or in another order, has a name of its own
    return next(output for node in model.graph for output in node.outputs if output.name in names)


def after(model: ir.Model, name: str, op: str, *constants, **attributes) -> None:
    """Insert `op` behind the value: everything that read it reads op(it, constants...) from now on."""
    old = value(model, name)
    readers, inputs = list(old.uses()), [old]
    for constant in constants:
        array = np.asarray(constant)
        if array.dtype.kind == "f":
            array = array.astype(old.dtype.numpy() if old.dtype is not None else np.float32)
        inputs.append(graphs.constant(model, f"{name}/fault_{len(inputs)}", array))
    if old.is_graph_output():
        target = model.graph.outputs[[output.name for output in model.graph.outputs].index(name)]
        old.name = f"{name}/right"
        node = ir.node(op, inputs, attributes, name=f"{name}/fault")
        node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = name, target.type, target.shape
        model.graph.append(node)
        model.graph.outputs[list(model.graph.outputs).index(target)] = node.outputs[0]
    else:
        made = ir.node(op, inputs, attributes, name=f"{name}/fault")
        made.outputs[0].name, made.outputs[0].type = f"{name}/fault", old.type
        made.outputs[0].shape = old.shape
        model.graph.insert_after(old.producer(), made)
        for node, index in readers:
            node.replace_input_with(index, made.outputs[0])
    model.graph.sort()


def zero(model: ir.Model, start: str) -> None:
    """Set every stored vector whose name begins so to zero; how it is stored does not matter."""
    found = [value for name, value in model.graph.initializers.items() if name.startswith(start)]
    assert found, start
    for one in found:
        one.const_value = ir.tensor(np.zeros_like(one.const_value.numpy()), name=one.name)


def heads(config, part: str) -> int:
    return config.encoder_attention_heads if part == "encoder" else config.decoder_attention_heads


def one_head(config, part: str, factor: float) -> np.ndarray:
    """float [d_model]: `factor` for the channels of the second head, 1 for all others."""
    vector = np.ones(config.d_model)
    width = config.d_model // heads(config, part)
    vector[width:2 * width] = factor
    return vector


# Faults --------------------------------------------------------------------------------------------------------------

def clipped(model: ir.Model, facts) -> None:
    """The largest activations before the second feed-forward matrix of a late layer are cut to a quarter."""
    after(model, largest_activations(model, facts.config), "Clip", np.float32(-1e4), np.float32(facts.largest / 4))


def largest_activations(model: ir.Model, config) -> str:
    """The node that makes them: the optimized pair may make outlier channels apart from the others."""
    path = f"encoder.layers.{config.encoder_layers - 1}"
    nodes, loud = {node.name for node in model.graph}, f"{outliers.apart(f'{path}.fc1')}/Gelu"
    return loud if loud in nodes else f"{path}.activation_fn/Gelu"


def wrong_head(part: str, kind: str) -> Callable:
    def plant(model: ir.Model, facts) -> None:
        layer = (facts.config.encoder_layers if part == "encoder" else facts.config.decoder_layers) // 2
        after(model, f"{part}.layers.{layer}.{kind}.v_proj/Add", "Mul", one_head(facts.config, part, 2.0))
    return plant


def exchanged(model: ir.Model, facts) -> None:
    """Key and value of one layer's cross cache leave the encoder under each other's name."""
    layer = facts.config.decoder_layers // 2
    outputs = {output.name: output for output in model.graph.outputs}
    key, other = outputs[f"present_key_cross_{layer}"], outputs[f"present_value_cross_{layer}"]
    places = [list(model.graph.outputs).index(each) for each in (key, other)]
    key.name, other.name = other.name, "exchanged"
    other.name = f"present_key_cross_{layer}"
    model.graph.outputs[places[0]], model.graph.outputs[places[1]] = other, key


def one_off(model: ir.Model, facts) -> None:
    """Every token gets the position of the one before it."""
    place = next(node for node in model.graph if node.name == "decoder.embed_positions/Gather").inputs[1].name
    after(model, place, "Sub", np.array(1, np.int64))
    after(model, f"{place}/fault", "Max", np.array(0, np.int64))


def one_off_sound(model: ir.Model, facts) -> None:
    """Every position of the sound gets the embedding of the one before it."""
    name = next(name for name in model.graph.initializers if name.startswith("encoder.embed_positions"))
    table = model.graph.initializers[name]
    table.const_value = ir.tensor(np.roll(table.const_value.numpy(), 1, axis=0), name=name)


def short_only(model: ir.Model, shift: Callable) -> None:
    """A short window takes its positions from elsewhere in the table; shift: of what is missing from it, how far.

    With a whole window nothing is different.
    """
    node = next(node for node in model.graph if node.op_type == "Gather" and "embed_positions" in node.inputs[0].name)
    table = next(each for name, each in model.graph.initializers.items() if name.startswith("encoder.embed_positions"))
    whole, last = (graphs.constant(model, f"fault/{name}", np.array([number], np.int64))
                   for name, number in (("whole", table.shape[0]), ("last", table.shape[0] - 1)))

    def insert(op: str, inputs: list, name: str) -> ir.Value:
        return graphs.insert(model, node, op, inputs, f"fault/{name}", dtype=ir.DataType.INT64)

    by = shift(insert, insert("Sub", [whole, insert("Shape", [node.inputs[1]], "given")], "missing"))
    node.replace_input_with(1, insert("Min", [insert("Add", [node.inputs[1], by], "shifted"), last], "places"))


def short_one_off(model: ir.Model, facts) -> None:
    """Every position of a shorter window gets the embedding of the one after it."""
    one = graphs.constant(model, "fault/one", np.array([1], np.int64))
    short_only(model, lambda insert, missing: insert("Min", [missing, one], "by"))


def short_from_the_end(model: ir.Model, facts) -> None:
    """A shorter window gets the end of the table of positions, not its beginning."""
    short_only(model, lambda insert, missing: missing)


def rest_counts_once(model: ir.Model, facts) -> None:
    """The positions that stand for the rest of a shorter window count as one each."""
    zero(model, "encoder.thinning.last_channels")


def rest_is_the_beginning(model: ir.Model, facts) -> None:
    """What stands for the rest of a shorter window is the first position, which heard something, not silence."""
    node = next(node for node in model.graph if node.name == "encoder.thinning/Gather")
    first = graphs.constant(model, "fault/first", np.array(0, np.int64))
    where = node.inputs[1].producer().inputs[0].producer()
    where.replace_input_with(2, first)


def no_bias(name: str) -> Callable:
    def plant(model: ir.Model, facts) -> None:
        zero(model, name.format(last=facts.config.encoder_layers - 1, middle=facts.config.decoder_layers // 2))
    return plant


def no_timestamps(model: ir.Model, facts) -> None:
    """The graph itself forbids timestamps, as one made for text without them might."""
    mask = np.zeros(facts.config.vocab_size)
    mask[facts.rules.timestamp_begin:] = -1e4
    after(model, "logits", "Add", mask)


def late_timestamps(model: ir.Model, facts) -> None:
    """Each timestamp has the logit of the one half a second before it."""
    begin, steps = facts.rules.timestamp_begin, round(0.5 / facts.rules.timestamp_step)
    order = np.arange(facts.config.vocab_size)
    order[begin:] = np.maximum(order[begin:] - steps, begin)
    after(model, "logits", "Gather", order, axis=2)


def wrong_sign(part: str, name: str) -> Callable:
    def plant(model: ir.Model, facts) -> None:
        layer = (facts.config.encoder_layers if part == "encoder" else facts.config.decoder_layers) // 2
        after(model, f"{part}.layers.{layer}.{name}/Add", "Neg")
    return plant


def lost_norm(model: ir.Model, facts) -> None:
    """The last LayerNorm of the decoder forgets what it learned."""
    for name, stored in model.graph.initializers.items():
        if name.startswith("decoder.layer_norm.weight"):
            stored.const_value = ir.tensor(np.ones_like(stored.const_value.numpy()), name=name)


def not_a_number(model: ir.Model, facts) -> None:
    name = next(name for name in model.graph.initializers if name.startswith("decoder.layer_norm.bias"))
    array = model.graph.initializers[name].const_value.numpy().copy()
    array[3] = np.nan
    model.graph.initializers[name].const_value = ir.tensor(array, name=name)


def forgetful(model: ir.Model, facts) -> None:
    """The cache of the first layer keeps no key of the past, only zeros."""
    past = next(each for each in model.graph.inputs if each.name == "past_key_self_0")
    node, index = next(iter(past.uses()))
    blank = ir.node("Mul", [past, graphs.constant(model, "fault/zero", np.float32(0))], name="fault/forget")
    blank.outputs[0].name, blank.outputs[0].type = "fault/forgotten", past.type
    model.graph.insert_before(model.graph[0], blank)
    for node, index in [use for use in past.uses() if use.node is not blank]:
        node.replace_input_with(index, blank.outputs[0])


def first_recording(model: ir.Model, facts) -> None:
    """Every recording of a batch is given the keys of the first: right for one, wrong for several."""
    for layer in range(facts.config.decoder_layers):
        source = next(each for each in model.graph.inputs if each.name == f"past_key_cross_{layer}")
        uses = list(source.uses())
        zeros = graphs.constant(model, f"fault/first_{layer}", np.array([0], np.int64))
        first = ir.node("Gather", [source, zeros], name=f"fault/gather_{layer}")
        shape = ir.node("Shape", [source], name=f"fault/shape_{layer}")
        wide = ir.node("Expand", [first.outputs[0], shape.outputs[0]], name=f"fault/expand_{layer}")
        for node in (first, shape, wide):
            node.outputs[0].name = f"{node.name}/0"
        first.outputs[0].type = wide.outputs[0].type = source.type
        shape.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        model.graph.insert_before(model.graph[0], [first, shape, wide])
        for node, index in uses:
            node.replace_input_with(index, wide.outputs[0])


def of_another_layer(what: str) -> Callable:
    """The first and the last layer exchange what belongs to their int8 cross caches."""
    def plant(model: ir.Model, facts) -> None:
        names = [f"past_{what}_cross_{layer}" for layer in (0, facts.config.decoder_layers - 1)]
        given = {value.name: value for value in model.graph.inputs}
        uses = [list(given[name].uses()) for name in names]
        for users, name in zip(uses, reversed(names), strict=True):
            for node, index in users:
                node.replace_input_with(index, given[name])
    return plant


def twice_as_large(what: str) -> Callable:
    """A step of the first layer's int8 cross cache is taken for twice what it is. (Those of two layers may be so much
    alike that to exchange them does no harm.)"""
    def plant(model: ir.Model, facts) -> None:
        given = next(value for value in model.graph.inputs if value.name == f"past_{what}_cross_0")
        uses = list(given.uses())
        twice = ir.node("Mul", [given, graphs.constant(model, "fault/two", np.float32(2))], name="fault/twice")
        twice.outputs[0].name, twice.outputs[0].type = "fault/twice/0", given.type
        model.graph.insert_before(model.graph[0], twice)
        for node, index in uses:
            node.replace_input_with(index, twice.outputs[0])
    return plant


def earlier_frames_not_moved(model: ir.Model, facts) -> None:
    """The convolution that is two products takes for the frame before a pair the second of the pair."""
    places = model.graph.initializers[f"{convolution.LAYER}.places"]
    channels = facts.config.d_model
    places.const_value = ir.tensor(np.array([0, 0, -channels, 0, 0, 0]), name=places.name)


FAULTS = [
    Fault("an outlier channel clipped", "encoder", clipped),
    Fault("one head of the encoder twice as loud", "encoder", wrong_head("encoder", "self_attn")),
    Fault("one head of the decoder twice as loud", "decoder", wrong_head("decoder", "self_attn")),
    Fault("K and V of one cross cache exchanged", "encoder", exchanged),
    Fault("token positions one off", "decoder", one_off),
    Fault("sound positions one off", "encoder", one_off_sound),
    Fault("positions of short windows one off", "encoder", short_one_off),
    Fault("positions of short windows from the wrong end", "encoder", short_from_the_end),
    Fault("the rest of short windows counts once", "encoder", rest_counts_once),
    Fault("the rest of short windows from the beginning", "encoder", rest_is_the_beginning),
    Fault("a bias missing in the encoder", "encoder", no_bias("encoder.layers.{last}.fc2.bias")),
    Fault("a bias missing in the decoder", "decoder", no_bias("decoder.layers.{middle}.fc1.bias")),
    Fault("a bias missing in the cross cache", "encoder", no_bias("decoder.layers.{middle}.encoder_attn.v_proj.bias")),
    Fault("timestamps suppressed", "decoder", no_timestamps),
    Fault("timestamps half a second late", "decoder", late_timestamps),
    Fault("a matrix of the encoder with the wrong sign", "encoder", wrong_sign("encoder", "self_attn.out_proj")),
    Fault("a matrix of the decoder with the wrong sign", "decoder", wrong_sign("decoder", "fc1")),
    Fault("the last LayerNorm without its weights", "decoder", lost_norm),
    Fault("a NaN in the last LayerNorm", "decoder", not_a_number),
    Fault("a cache that forgets", "decoder", forgetful),
    Fault("every recording hears the first", "decoder", first_recording),
    Fault("the frame before a pair is its second", "encoder", earlier_frames_not_moved, optimized=True),
    Fault("scales of the keys twice as large", "decoder", twice_as_large("key_scale"), optimized=True),
    Fault("sums of the keys from another layer", "decoder", of_another_layer("key_sum"), optimized=True),
    Fault("scales of the values from another layer", "decoder", of_another_layer("value_scale"), optimized=True),
]


def faults_of(precision: str) -> list[Fault]:
    """Those that a pair of this precision can have."""
    return [fault for fault in FAULTS if precision.endswith("optimized") or not fault.optimized]


# The table -----------------------------------------------------------------------------------------------------------

def largest_value(pair: dict[str, Path], config, features: np.ndarray) -> float:
    """Of the activations before the encoder's last feed-forward matrix."""
    from whisper_lab.export.pair import session

    model = graphs.load(pair["encoder"])
    wanted = value(model, largest_activations(model, config))
    model.graph.outputs.append(wanted)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        ir.save(model, path)
        return float(session(path, 1).run([wanted.name], {"input_features": features})[0].max())


def plant(fault: Fault, pair: dict[str, Path], folder: Path, facts) -> dict[str, Path]:
    """A copy of the pair in `folder` with the fault in it."""
    broken = {part: Path(shutil.copy(path, folder / path.name)) for part, path in pair.items()}
    model = graphs.load(broken[fault.part])
    fault.plant(model, facts)
    graphs.rewrite(model, broken[fault.part])
    return broken


def judge(fault: Fault | None, pair: dict[str, Path], precision: str, work: SimpleNamespace, go_on=False) -> list:
    """The gates of a pair, broken or sound. work: runtime, sounds, long_run, fp32_bytes, config, rules, largest."""
    from whisper_lab.export import verify

    with tempfile.TemporaryDirectory() as folder:
        broken = pair if fault is None else plant(fault, pair, Path(folder), work)
        return verify.run(broken, precision.split()[0], work.runtime, work.sounds, work.long_run,
                          fp32_bytes=work.fp32_bytes, excluded={"encoder": 0, "decoder": 0}, threads=1,
                          trained=work.trained, alignment=work.alignment, half_operators=precision == "fp16",
                          optimized=precision.endswith("optimized"), vectors=work.vectors, go_on=go_on)


def prepare(checkpoint, pairs: dict[str, dict[str, Path]], alignment: bool = False) -> SimpleNamespace:
    """What the gates need of a checkpoint; pairs: precision -> the two graphs; alignment: with --alignment-heads."""
    from whisper_lab import checkpoints
    from whisper_lab.export import parity, reference, structure
    from whisper_lab.torch_whisper import TorchWhisper

    runtime = TorchWhisper(checkpoints.load_model(checkpoint, attn_implementation="eager"), checkpoint.folder)
    sounds = reference.make(runtime)
    config = runtime.model.config
    return SimpleNamespace(runtime=runtime, sounds=sounds, long_run=parity.long_run(runtime, sounds), config=config,
                           rules=runtime.rules, trained=not checkpoint.random_weights, alignment=alignment,
                           fp32_bytes={part: graphs.size(path) for part, path in pairs["fp32"].items()},
                           vectors={part: structure.vectors(graphs.load(path)) for part, path in pairs["fp32"].items()},
                           largest=largest_value(pairs["fp32"], config, sounds[0].features))


def find_pairs(folder: Path, name: str) -> dict[str, dict[str, Path]]:
    """Precision -> the two graphs, of those that are there."""
    from whisper_lab import names

    found = {precision: names.pair(folder, name, precision) for precision in names.PRECISIONS}
    found["int8 optimized"] = names.pair(folder, name, "int8", optimized=True)
    return {precision: pair for precision, pair in found.items() if all(path.exists() for path in pair.values())}


def main(argv: list[str] | None = None) -> int:
    """Break, judge, print, write."""
    from whisper_lab import checkpoints, console, files

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where 03 wrote the graphs")
    parser.add_argument("--model", required=True, help="the checkpoint they come from")
    parser.add_argument("--precision", nargs="*", help="only these")
    parser.add_argument("--fault", metavar="REGEX", help="only these; 'sound' is the pair as it is")
    parser.add_argument("--go-on", action="store_true", help="also past the first gate that fails")
    parser.add_argument("--json", metavar="PATH")
    args = parser.parse_args(argv)
    checkpoint = checkpoints.resolve(args.model)
    pairs = find_pairs(args.folder, checkpoint.name)
    work, rows = prepare(checkpoint, pairs), []
    for precision in args.precision or pairs:
        for fault in [None, *faults_of(precision)]:
            if args.fault and not re.search(args.fault, fault.name if fault else "sound"):
                continue
            gates = judge(fault, pairs[precision], precision, work, go_on=args.go_on)
            rows += [row_of(fault, precision, gates)]
            print(*rows[-1].values(), sep=" | ", flush=True)
            if args.json:
                files.write_json(args.json, {"model": checkpoint.name, "faults": rows})
    console.note("faults", f"{sum(bool(row['caught_by']) for row in rows if row['fault'])} caught of "
                 f"{sum(bool(row['fault']) for row in rows)}", checkpoint.name)
    return 0


def row_of(fault: Fault | None, precision: str, gates: list) -> dict:
    failed = [gate for gate in gates if not gate.passed]
    numbers = [gate for gate in gates if gate.limit is not None]
    return {"precision": precision, "fault": fault and fault.name,
            "caught_by": [f"{gate.name}: {gate.said() or gate.detail}" for gate in failed],
            "all": {gate.name: [gate.value, gate.limit] for gate in numbers}}


if __name__ == "__main__":
    raise SystemExit(main())
