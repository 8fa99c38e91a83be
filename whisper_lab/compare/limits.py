"""--fail-if: a condition on the measured values, so that a build fails where a precision is too bad.

    wer_delta>0.02            int8.size_ratio > 0.3 or speedup < 1            top1_agreement < 0.98 and wer_pytorch > 0

A metric is that of every precision that is compared with fp32, unless one of them is named before it. Read with
Python's own parser, of whose grammar only comparisons, numbers, `and`, `or` and brackets are let through: nothing is
ever evaluated as code.
"""

import ast
import operator
from collections.abc import Collection
from dataclasses import dataclass

from whisper_lab import console
from whisper_lab.compare.variants import BASELINE, PYTORCH
from whisper_lab.console import LabError

METRICS = {
    "wer": "word error rate against the reference (0.05 is 5 %)",
    "wer_delta": "that, less fp32's",
    "wer_pytorch": "word error rate against PyTorch's text",
    "cer": "character error rate against the reference",
    "cer_delta": "that, less fp32's",
    "size_ratio": "bytes of both graphs over fp32's",
    "speedup": "times faster than fp32 on one window",
    "real_time_factor": "seconds of computing for a second of sound",
    "encoder_sqnr_db": "signal to noise of the encoder's output against PyTorch, dB",
    "encoder_cosine": "cosine between the encoder's output and PyTorch's",
    "worst_layer_sqnr_db": "signal to noise of the worst layer against fp32, dB",
    "top1_agreement": "share of tokens chosen as PyTorch does (1 is all)",
    "nonfinite": "NaN and infinite numbers seen",
    "peak_rss_ratio": "peak memory over fp32's",
}
OPERATORS = {ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Lt: operator.lt, ast.LtE: operator.le}


@dataclass(frozen=True)
class Condition:
    """A parsed expression: where it holds, the build fails."""

    text: str
    tree: ast.expr

    def failures(self, values: dict[str, dict[str, float | None]]) -> list[str]:
        """Where the expression holds: per precision the values that made it so; empty where it holds nowhere.

        values: precision -> metric -> value. Raises LabError where a needed value was not measured: a condition that
        cannot be seen must not pass.
        """
        self.require(values)
        plain = any(isinstance(node, ast.Name) and node.id in METRICS and node.id not in self.precisions
                    for node in ast.walk(self.tree))
        found = []
        for name in values if plain else [None]:  # with precisions named throughout, once is enough
            seen: dict[str, float] = {}
            if _holds(self.tree, name, values, seen):
                found.append(", ".join(f"{metric} = {value:.6g}" for metric, value in seen.items()))
        return found

    def require(self, compared: Collection[str]) -> None:
        """Raises LabError where the expression names a precision that is not among those compared with fp32."""
        if unknown := self.precisions - set(compared):
            raise LabError(f"--fail-if names {', '.join(sorted(unknown))}, which is not compared with fp32 here: there "
                           f"is {', '.join(compared)}", "write it with 03, or leave it out of the expression")

    @property
    def precisions(self) -> set[str]:
        """Those that the expression names."""
        return {node.value.id for node in ast.walk(self.tree) if isinstance(node, ast.Attribute)}


def parse(text: str) -> Condition:
    """Read an expression. Raises ValueError, with what is wrong, for all that is none."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"'{text}' is not a comparison such as wer_delta>0.02") from error
    _check(tree)
    return Condition(text, tree)


def _check(node: ast.expr) -> None:
    if isinstance(node, ast.BoolOp):
        for value in node.values:
            _check(value)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OPERATORS:
        _metric(node.left)
        _number(node.comparators[0])
    else:
        raise ValueError(f"'{ast.unparse(node)}' is not a comparison such as wer_delta>0.02 (with >, >=, < or <=)")


def _metric(node: ast.expr) -> tuple[str | None, str]:
    """(precision or None, metric)"""
    plain = isinstance(node, ast.Name)
    if not plain and not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
        raise ValueError(f"'{ast.unparse(node)}' is not a metric; known are {', '.join(METRICS)}")
    name = node.id if plain else node.attr
    if name not in METRICS:
        raise ValueError(f"unknown metric '{name}'; known are {', '.join(METRICS)}")
    return (None if plain else node.value.id), name


def _number(node: ast.expr) -> float:
    sign = 1.0
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, node = -1.0, node.operand
    if not isinstance(node, ast.Constant) or type(node.value) not in (int, float):
        raise ValueError(f"'{ast.unparse(node)}' is not a number")
    return sign * node.value


def _holds(node: ast.expr, name: str | None, values: dict, seen: dict) -> bool:
    if isinstance(node, ast.BoolOp):
        results = [_holds(value, name, values, seen) for value in node.values]
        return all(results) if isinstance(node.op, ast.And) else any(results)
    only, metric = _metric(node.left)
    name = only or name
    value = values[name].get(metric)
    if value is None:
        raise LabError(f"--fail-if needs {metric} of {name}, which was not measured",
                       "give clips with references for wer and cer; leave out --no-memory and --repeats 0")
    seen[f"{name}.{metric}"] = value
    return OPERATORS[type(node.ops[0])](value, _number(node.comparators[0]))


# The measured values -------------------------------------------------------------------------------------------------

def judge(made: dict, condition: Condition) -> int:
    """The exit status of a comparison (document.make): 1 where the condition holds, and says for which precision."""
    failures = condition.failures(metrics(made))
    for failure in failures:
        console.result(console.plain(f"FAILED {condition.text}: {failure}", one_line=True))
    if not failures:
        console.result(f"passed: nowhere {condition.text}")
    return 1 if failures else 0


def metrics(made: dict) -> dict[str, dict[str, float | None]]:
    """precision -> metric (METRICS) -> value; None where it was not measured."""
    base, found = made["variants"][BASELINE], {}
    for name, entry in made["variants"].items():
        if name not in (PYTORCH, BASELINE):
            found[name] = _of_text(entry, base) | _of_numbers(entry) | _of_cost(entry, base)
    return found


def _of_text(entry: dict, base: dict) -> dict[str, float | None]:
    def rate(one: dict, against: str, what: str) -> float | None:
        return one["text"][against][what] if one["text"][against] else None

    found: dict[str, float | None] = {"wer_pytorch": rate(entry, "pytorch", "wer")}
    for what in ("wer", "cer"):
        value, before = rate(entry, "reference", what), rate(base, "reference", what)
        found |= {what: value, f"{what}_delta": None if value is None or before is None else value - before}
    return found


def _of_numbers(entry: dict) -> dict[str, float | None]:
    numbers, layers = entry["numbers"], entry["layers"]
    noise = [row["sqnr_db"] for row in layers if row["sqnr_db"] is not None]
    return {**{key: numbers[key] for key in ("encoder_sqnr_db", "encoder_cosine", "top1_agreement")},
            "worst_layer_sqnr_db": min(noise, default=None),
            "nonfinite": numbers["nonfinite"] + sum(row["nonfinite"] for row in layers)}


def _of_cost(entry: dict, base: dict) -> dict[str, float | None]:
    speed = entry["speed"] or {}
    peaks = [(one["memory"] or {}).get("peak_rss_bytes") for one in (entry, base)]
    return {"size_ratio": entry["size_ratio"], "speedup": speed.get("speedup"),
            "real_time_factor": speed.get("real_time_factor"),
            "peak_rss_ratio": peaks[0] / peaks[1] if all(peaks) else None}
