"""What a parity gate reports, and how far each precision may stray. Every limit stands beside what was measured.

fp32 and fp16 are judged on arithmetic: a graph may err ROUNDING times as much as PyTorch itself does in that precision
(rounding.py), on whatever weights. int8 and int4 are judged on behaviour: what a quantized graph makes of speech.
"""

from dataclasses import asdict, dataclass

import numpy as np

ARITHMETIC = ("fp32", "fp16")
# Arithmetic. Errors relative to PyTorch's own, tensor by tensor and over all shapes.
ROUNDING = {"fp32": 2.0, "fp16": 1.5}
# Behaviour.
SIGNAL = {"int8": {"encoder": 10, "self caches": 5, "logits": 5, "shapes: encoder": 10, "shapes: decoder": 5},
          "int4": {"encoder": 10, "self caches": 5, "logits": 5, "shapes: encoder": 10, "shapes: decoder": 5}}
LAYER = {"int8": 20, "int4": 12}
EMBEDDED = 30
BATCH = {"int8": 15, "int4": 20}
AGREEMENT = {"fp32": 1.0, "fp16": 1.0, "int8": 0.98, "int4": 0.9}
DIVERGENCE = {"fp32": 1e-6, "fp16": 1e-4, "int8": 0.02, "int4": 0.5}
NEAR_TIE = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.5, "int4": 1.5}
QUIET_TIE = NEAR_TIE
WORDS = {"fp32": 0.0, "fp16": 0.0, "int8": 0.1, "int4": 0.34}
LOOP, REPEATS = 2.4, 3  # openai-whisper's threshold of compression; "seven seven seven" is a phone number, not a loop


@dataclass(frozen=True)
class Gate:
    """One gate's verdict: `value` against `limit` (both None where there is nothing to compare), and what was seen."""

    name: str
    passed: bool
    value: float | None
    limit: float | None
    detail: str
    part: str | None = None  # encoder or decoder, where known
    unit: str = ""
    at_least: bool = False  # the limit is the least, not the most, that passes

    def as_json(self) -> dict:
        return asdict(self)

    def said(self) -> str:
        """`12 dB, at least 18 dB allowed`, or nothing where nothing was compared."""
        if self.limit is None:
            return ""
        value = "not finite" if self.value is None else f"{self.value:.3g}{self.unit and f' {self.unit}'}"
        return f"{value}, {'at least' if self.at_least else 'at most'} {self.limit:.3g} allowed"


def relative_error(test: np.ndarray, reference: np.ndarray) -> float:
    """sqrt(mean((test - reference)^2)) / std(reference); infinite where test is not finite or shapes differ."""
    if test.shape != reference.shape or not np.isfinite(test).all():
        return float("inf")
    difference = test.astype(np.float64) - reference
    return float(np.sqrt((difference**2).mean()) / max(float(reference.std()), 1e-12))


def below(name: str, value: float, limit: float, detail: str, part: str | None = None, unit: str = "") -> Gate:
    """A gate that passes where value <= limit (infinity is stored as None, which JSON has a word for)."""
    finite = value if np.isfinite(value) else None
    detail = detail if finite is not None else f"{detail}: not finite"
    return Gate(name, bool(value <= limit), finite, limit, detail, part, unit)


def above(name: str, value: float, limit: float, detail: str, part: str | None = None, unit: str = "") -> Gate:
    """A gate that passes where value >= limit; -infinity stands for values that are not finite."""
    finite = value if np.isfinite(value) else None
    detail = f"{detail}: not finite" if value == -np.inf else detail
    return Gate(name, bool(value >= limit), finite, limit, detail, part, unit, at_least=True)
