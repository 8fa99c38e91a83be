"""What a parity gate reports, and how far each precision may be off. Every limit is printed beside what was measured.

fp32 and fp16 are judged on arithmetic: a graph may err ROUNDING times as much as PyTorch itself does in that precision
(reference.py), on whatever weights. int8 and int4 are judged on behaviour: what a quantized graph makes of speech.
"""

from dataclasses import asdict, dataclass

import numpy as np

ARITHMETIC = ("fp32", "fp16")
# A graph's error over PyTorch's own, tensor by tensor and pooled over all shapes. Measured, the worst of whisper-base,
# tiny.en and nano: fp32 1.2, fp16 0.69 (in these graphs residual sums stay in float32).
ROUNDING = {"fp32": 2.0, "fp16": 1.5}

# Quantized graphs, on speech. Signal over error in dB: 20 dB is an error of a tenth. Beside each limit the least that
# was measured on whisper-base, tiny.en and nano, and what planted faults come to (tests/helpers/planted_faults.py).
# Each part of a graph by itself. int8 20.6, int4 19.3; a head twice as loud or a clipped outlier 14 and below.
LAYER = {"int8": 17, "int4": 16}
EMBEDDED = 28  # the embeddings, in int8 and float16 whatever the precision: 35; positions one off 22 and below
# All parts in a row. int8: encoder 13.0 (18.4 and more where outliers are looked after), self caches 20.2, logits 27.6;
# int4: 19.1, 19.0, 20.0.
SIGNAL = {"int8": {"encoder": 11, "self caches": 14, "logits": 16, "shapes: encoder": 13, "shapes: decoder": 5},
          "int4": {"encoder": 11, "self caches": 13, "logits": 15, "shapes: encoder": 13, "shapes: decoder": 13}}
# What hearing another recording changes over what being in a batch changes, dB. Base int8 37.8, optimized 24.3; where
# all hear the first recording's keys, base 16.5 and below, nano 24.6 and below: ORDER tells those.
BATCH = 22
# How different recordings are over what their order in a batch changes, dB. Most graphs: nothing at all; int4's kernel
# may sum the rows of a pair and the odd row differently (AVX512: base 38.6); where all hear the first, 4.6 and below.
ORDER = 20

# Share of next tokens that are PyTorch's, near ties counted as such; int8 0.992, int4 1.
AGREEMENT = {"fp32": 1.0, "fp16": 1.0, "int8": 0.98, "int4": 0.97}
# Mean KL divergence of the next token, nats; fp32 8e-12, fp16 9e-7, int8 0.013, int4 0.006.
DIVERGENCE = {"fp32": 1e-6, "fp16": 1e-4, "int8": 0.05, "int4": 0.06}
# Nats by which PyTorch may prefer its own token and the choice still be a toss-up: 0.7 is twice as likely, 1.0 two and
# three quarter times. What is said into noise and silence is not judged more sternly than this.
NEAR_TIE = {"fp32": 1e-3, "fp16": 0.05, "int8": 0.7, "int4": 1.0}
# Share of PyTorch's words that differ, except behind a near tie; int8 0.05 (whisper-base), int4 none.
WORDS = {"fp32": 0.0, "fp16": 0.0, "int8": 0.1, "int4": 0.12}
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
    detail += {-np.inf: ": not finite", np.inf: ": no difference at all"}.get(value, "")
    return Gate(name, bool(value >= limit), finite, limit, detail, part, unit, at_least=True)
