"""From landmarks to stops: which node of each graph a landmark means, and how often each operator occurs."""

import re
from dataclasses import dataclass

import onnx

from whisper_lab.compare.graph_facts import operators


@dataclass(frozen=True)
class Landmark:
    """Something to look for: `node`, a pattern for the node's whole name; the first of type `operator`; or the first
    that `reads` a value of such a name, other than to cast it."""

    title: str
    text: str
    node: str | None = None
    operator: str | None = None
    reads: str | None = None

    def find(self, graph: onnx.GraphProto) -> str | None:
        """The name of the node meant, or None where the graph has none."""
        for node in graph.node:
            if self.operator == node.op_type or (self.node and re.fullmatch(self.node, node.name)):
                return node.name
            if self.reads and node.op_type != "Cast" and any(re.fullmatch(self.reads, name) for name in node.input):
                return node.name
        return None


def stops(landmarks: list[Landmark], left: onnx.ModelProto, right: onnx.ModelProto) -> list[dict]:
    """The landmarks that at least one of the graphs has: title, text, and the node's name (or None) left and right.

    Where only one graph has the node, the other shows what makes the value that goes into it, if it has that.
    """
    found = []
    for one in landmarks:
        a, b = one.find(left.graph), one.find(right.graph)
        if a or b:
            found.append({"title": one.title, "text": one.text, "left": a or _maker(left.graph, right.graph, b),
                          "right": b or _maker(right.graph, left.graph, a)})
    return found


def _maker(graph: onnx.GraphProto, other: onnx.GraphProto, name: str) -> str | None:
    """The node of `graph` that makes the first input of node `name` of `other`.

    It may be called by the same name and make a value of another one: 03 calls what it has smoothed so.
    """
    wanted = next(node.input[0] for node in other.node if node.name == name)
    made = next((node.name for node in other.node if wanted in node.output), None)
    return next((node.name for node in graph.node if wanted in node.output or node.name == made), None)


def counts(left: onnx.ModelProto, right: onnx.ModelProto) -> list[dict]:
    """Per operator how many there are left and right, largest change first, and the first node of each."""
    a, b = operators(left), operators(right)
    names = sorted({*a, *b}, key=lambda name: (-abs(b[name] - a[name]), -a[name], name))
    first = [_first_nodes(model) for model in (left, right)]
    return [{"operator": name.removeprefix("com.microsoft."), "left": a[name], "right": b[name],
             "first": {side: nodes.get(name.rpartition(".")[2]) for side, nodes in zip(("left", "right"), first,
                                                                                       strict=True)}} for name in names]


def _first_nodes(model: onnx.ModelProto) -> dict[str, str]:
    """Operator type -> the name of its first node."""
    return {node.op_type: node.name for node in reversed(model.graph.node)}
