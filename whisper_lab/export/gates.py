"""What a parity gate reports, and how far each precision may stray. Every limit stands beside what was measured.

Measured on whisper-base and whisper-nano with random weights (biases and LayerNorm weights too) on two cores of an AMD
EPYC with AVX512-VNNI, onnxruntime 1.31.1, torch 2.13; errors are root mean squares relative to the reference's spread.
"""

from dataclasses import asdict, dataclass

import numpy as np

# Root mean square error against PyTorch, relative to the spread of PyTorch's values: (states and caches, logits).
# Measured, the worse of base and nano: fp32 7.5e-7, 7.8e-7; fp16 6.3e-4, 6.1e-4; int8 0.026, 0.026; int4 0.20, 0.18;
# on the trained nano, whose decoder is narrow and sure of itself, int4 logits come to 0.49 at the worst shape of 96.
NUMBERS = {"fp32": (1e-5, 1e-5), "fp16": (3e-3, 3e-3), "int8": (0.08, 0.08), "int4": (0.45, 0.65)}
# The same graph, prompt at once or in pieces. int8 has one activation scale per tensor, so a token depends on its
# neighbours. Measured: fp32 6.9e-7, fp16 7.3e-5, int8 0.022, int4 0.015.
PIECES = {"fp32": 1e-5, "fp16": 1e-3, "int8": 0.08, "int4": 0.05}
# Share of positions whose likeliest token is PyTorch's, near ties counted as agreement; mean KL divergence in nats.
# Measured KL: fp32 5e-8, fp16 6e-8, int8 7.8e-5, int4 4.6e-3 (random weights: a trained model is surer of its choices,
# so the same error costs more; hence the wide limits).
AGREEMENT = {"fp32": 1.0, "fp16": 0.995, "int8": 0.98, "int4": 0.9}
DIVERGENCE = {"fp32": 1e-6, "fp16": 1e-4, "int8": 0.02, "int4": 0.5}
# Nats that PyTorch's choice is ahead of the graph's. Measured, the widest: int8 0.001, int4 0.2.
NEAR_TIE = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.5, "int4": 1.5}
WORDS = {"fp32": 0.0, "fp16": 0.02, "int8": 0.1, "int4": 0.34}  # word error rate against PyTorch's own text
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

    def as_json(self) -> dict:
        return asdict(self)


def relative_error(test: np.ndarray, reference: np.ndarray) -> float:
    """sqrt(mean((test - reference)^2)) / std(reference); infinite where test is not finite or shapes differ."""
    if test.shape != reference.shape or not np.isfinite(test).all():
        return float("inf")
    difference = test.astype(np.float64) - reference
    return float(np.sqrt((difference**2).mean()) / max(float(reference.std()), 1e-12))


def below(name: str, value: float, limit: float, detail: str, part: str | None = None) -> Gate:
    """A gate that passes where value <= limit (infinity is stored as None, which JSON has a word for)."""
    finite = value if np.isfinite(value) else None
    detail = detail if finite is not None else f"{detail}: not finite"
    return Gate(name, bool(value <= limit), finite, limit, detail, part)
