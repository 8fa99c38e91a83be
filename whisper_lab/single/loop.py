"""The decoder inside a Loop: greedy search as decoding.py does it, with the cache as what one round hands to the next.

The body of the inner loop contains the nodes of 03's decoder graph. Its first round takes the whole prompt, each later
one a token; the cross caches and all weights are seen from outside, so no round copies them. The outer loop has two
rounds where the language has to be found first: one for a single token after <|startoftranscript|>, then, with empty
caches again, one for the text.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from whisper_lab.single.blocks import BOOL, INT64, STRING, Block, graph_input, loop
from whisper_lab.tokens import TokenRules

NEVER = float("-inf")
MASK = "search/may_come"
LANGUAGE, FIRST, LATER = range(3)  # rows of may_come: a language; the first token of the text; any other


@dataclass
class Body:
    """The decoder's nodes, taken out of 03's graph, and the values by which they meet the rest."""

    nodes: list[ir.Node]
    weights: list[ir.Value]  # of MatMulNBits: its kernel packs none from outside the loop, and is slow then
    ids: ir.Value  # int64 [1, sequence]
    pasts: list[ir.Value]
    logits: ir.Value
    presents: list[ir.Value]


def take(decoder: ir.Model, into: ir.Model, cross: dict[str, ir.Value]) -> Body:
    """Move the decoder's weights to the model `into` and free its nodes for a loop.

    cross: the encoder's present_*_cross_* outputs by name, read in place of the past_*_cross_* inputs. Names that both
    graphs use get a prefix. The decoder is empty afterwards.
    """
    inputs, outputs = ({value.name: value for value in values} for values in (decoder.graph.inputs,
                                                                              decoder.graph.outputs))
    decoder.graph.inputs.clear()
    decoder.graph.outputs.clear()
    nodes = list(decoder.graph)
    decoder.graph.remove(nodes)
    for name, value in inputs.items():
        if "_cross" in name:
            value.replace_all_uses_with(cross[name.replace("past", "present", 1)])
    taken = {value.name for node in into.graph for value in node.outputs} | set(into.graph.initializers)
    _rename(nodes, taken)
    inside = _move_weights(decoder, into, nodes, taken)
    into.graph.opset_imports.update(decoder.graph.opset_imports)
    pasts = [value for name, value in inputs.items() if "_self_" in name]
    presents = [outputs[value.name.replace("past", "present", 1)] for value in pasts]
    return Body(nodes, inside, inputs["input_ids"], pasts, outputs["logits"], presents)


def _rename(nodes: list[ir.Node], taken: set[str]) -> None:
    for node in nodes:
        for value in node.outputs:
            value.name = f"step/{value.name}" if value.name in taken else value.name
        node.name = f"step/{node.name}"


def _move_weights(decoder: ir.Model, into: ir.Model, nodes: list[ir.Node], taken: set[str]) -> list[ir.Value]:
    """Register the decoder's weights in `into`; returns those of MatMulNBits, which go into the loop's body."""
    packed = {id(value) for node in nodes if node.op_type == "MatMulNBits" for value in node.inputs[1:]}
    inside = []
    for name, value in list(decoder.graph.initializers.items()):
        del decoder.graph.initializers[name]
        value.name = f"step/{name}" if name in taken else name
        value.const_value.name = value.name
        if id(value) in packed:
            inside.append(value)
        else:
            into.graph.register_initializer(value)
    return inside


def may_come(block: Block, rules: TokenRules) -> ir.Value:
    """float32 [3, vocab], added to the logits: 0 where a token may come next, -inf where it may not."""
    def put(base, ids, value):
        ids = np.unique(np.asarray(ids, np.int64))
        return block("ScatterElements", base, ids, np.full(len(ids), value, np.float32)) if len(ids) else base

    size = [rules.vocab_size]
    language = put(block("Expand", NEVER, size), list(rules.languages.values()), 0.0)
    later = put(block("Expand", 0.0, size), rules.suppress, NEVER)
    first = put(later, rules.begin_suppress, NEVER)
    return block("Concat", *(block("Unsqueeze", row, [0]) for row in (language, first, later)), axis=0, name=MASK)


def look_up(block: Block, given: ir.Value, table: dict[str, int], error: str) -> ir.Value:
    """The number that a table of texts has for string [1]; for another text a node fails whose name is the error."""
    found = block("Compress", list(table.values()), block("Equal", given, list(table)))
    return block("Reshape", found, [1], name=f"error: {error}")


def search(block: Block, body: Body, rules: TokenRules) -> ir.Value:
    """Greedy search over one window; adds the inputs language, task and max_length. Returns tokens int64 [k].

    The tokens are those after the prompt, without the end token, as decoding.Result has them.
    """
    longest = graph_input(block.model, "max_length", INT64, [1], rules.max_positions)
    known = {}
    if rules.languages:
        language = graph_input(block.model, "language", STRING, [1], "")
        task = graph_input(block.model, "task", STRING, [1], "transcribe")
        codes = {"": -1, **rules.languages}  # "": to be found
        known = {"language": look_up(block, language, codes, f"language must be one of {listed(rules.languages)}, "
                                    "or empty to let the model find it"),
                 "task": look_up(block, task, rules.tasks, f"task must be one of {listed(rules.tasks)}")}
    return passes(block, body, rules, block("Min", longest, [rules.max_positions]), **known)


def listed(names, most: int = 8) -> str:
    """`en, nl`; long lists end in how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def passes(block: Block, body: Body, rules: TokenRules, longest: ir.Value, language=None, task=None) -> ir.Value:
    """One pass with a known language, two where it has to be found; tokens int64 [k]."""
    mask = may_come(block, rules)

    def prompt(inner: Block, code):
        middle = [] if language is None else [code, task]
        tokens = inner("Concat", [rules.start], *middle, [rules.no_timestamps], axis=0)
        return inner("Unsqueeze", tokens, [0])

    def one(inner: Block, _, finding, ids, _tokens):
        room = inner("Max", inner("Sub", longest, inner("Shape", ids, start=1)), [0])
        room = inner("Where", finding, [1], room)
        row = inner("Where", finding, [LANGUAGE], [FIRST])
        tokens = inner("Reshape", greedy(inner, body, rules, mask, ids, row, room), [-1])
        following = prompt(inner, inner("Slice", tokens, [0], [1], [0]))
        return finding, [False, following, tokens], []

    first, find = prompt(block, language), False
    if language is not None:
        find = block("Squeeze", block("Less", language, [0]))
        first = block("Slice", first, [0], block("Where", find, [1], block("Shape", first, start=1)), [1])
    states = [(find, BOOL, []), (first, INT64, [1, "prompt"]), (np.zeros(0, np.int64), INT64, ["tokens"])]
    tokens = loop(block, "passes", None, states, one)[2]
    return block("Compress", tokens, block("Not", block("Equal", tokens, rules.end)), axis=0)


def greedy(block: Block, body: Body, rules: TokenRules, mask: ir.Value, ids, row, room) -> ir.Value:
    """The likeliest token again and again: int64 [rounds, 1, 1], the last one perhaps the end token."""
    def one(inner: Block, _, fed, row, *pasts):
        for value, state in zip([body.ids, *body.pasts], [fed, *pasts], strict=True):
            value.replace_all_uses_with(state)
        inner.adopt(body.nodes)
        last = inner("Gather", body.logits, -1, axis=1)
        scores = inner("Add", last, inner("Gather", mask, row, axis=0))
        token = inner("ArgMax", scores, axis=-1, keepdims=1)  # [1, 1]
        going = inner("Squeeze", inner("Not", inner("Equal", token, rules.end)))
        return going, [token, [LATER], *body.presents], [inner("Identity", token)]

    caches = [(np.zeros((1, value.shape[1], 0, value.shape[3]), value.dtype.numpy()), value.dtype,
               [1, value.shape[1], "past", value.shape[3]]) for value in body.pasts]
    states = [(ids, INT64, [1, "sequence"]), (row, INT64, [1]), *caches]
    return loop(block, "greedy", room, states, one, scans=[(INT64, [1, 1])], weights=body.weights)[-1]
