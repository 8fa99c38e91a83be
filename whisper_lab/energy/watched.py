"""A runtime with a stopwatch and a counter around it: how long each phase takes, how many tokens and operations."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from whisper_lab.energy.operations import Architecture


@dataclass
class Tally:
    """What happened since `Watched.begin`.

    Phases, in s: features (samples to log-mel, and cutting them into windows), encoder, decoder (prompt, tokens and the
    choice among them), words (the attention that word times are made of). tokens: chosen ones, end tokens included.
    """

    phases_s: dict[str, float] = field(default_factory=lambda: {"features": 0.0, "encoder": 0.0, "decoder": 0.0})
    first_token_s: float | None = None  # from samples to the first chosen token
    tokens: int = 0
    windows: int = 0
    calls: int = 0  # of the encoder
    operations: int = 0


class Watched:
    """A decoding.Runtime around another one."""

    def __init__(self, runtime, architecture: Architecture, fixed_tokens: int | None = None, synchronize=None):
        """fixed_tokens: the end token is forbidden, so that every window has this many (Options.max_tokens says how
        many); synchronize: called where a device may still be computing, or None."""
        self.runtime, self.architecture, self.fixed_tokens = runtime, architecture, fixed_tokens
        self.rules, self.spec, self.tokenizer = runtime.rules, runtime.spec, runtime.tokenizer
        self.synchronize = synchronize or (lambda: None)
        self.begin()

    def begin(self) -> None:
        """Start the clock and the counts anew."""
        self.synchronize()
        self.tally, self._past = Tally(), 0
        self._started = self._last = time.perf_counter()

    def encode(self, features: np.ndarray) -> Any:
        """As decoding.Runtime.encode."""
        self._lap("features")
        cross = self.runtime.encode(features)
        self.synchronize()
        self._lap("encoder")
        self.tally.windows += len(features)
        self.tally.calls += 1
        self.tally.operations += len(features) * self.architecture.encoder_operations()
        return cross

    def step(self, input_ids: np.ndarray, cross: Any, cache: Any) -> tuple[np.ndarray, Any]:
        """As decoding.Runtime.step."""
        rows, new = input_ids.shape
        asks_language = cache is None and new == 1 and bool(self.rules.languages)  # no text token is chosen from it
        self._past = 0 if cache is None else self._past
        logits, cache = self.runtime.step(input_ids, cross, cache)
        self._lap("decoder")
        self.tally.operations += rows * self.architecture.decoder_operations(new, self._past)
        self._past += new
        if not asks_language:
            self.tally.tokens += rows
            if self.tally.first_token_s is None:
                self.tally.first_token_s = self._last - self._started
            if self.fixed_tokens:
                logits = np.array(logits)
                logits[..., self.rules.end] = -np.inf
        return logits, cache

    def attention(self, input_ids: np.ndarray, cross: Any) -> np.ndarray:
        """As decoding.Runtime.attention."""
        self.tally.phases_s.setdefault("words", 0.0)
        self._lap("decoder")
        found = self.runtime.attention(input_ids, cross)
        self._lap("words")
        return found

    def reorder(self, cache: Any, rows: np.ndarray) -> Any:
        """As decoding.Runtime.reorder."""
        return self.runtime.reorder(cache, rows)

    def select(self, cross: Any, audios: np.ndarray) -> Any:
        """As decoding.Runtime.select."""
        return self.runtime.select(cross, audios)

    def _lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.tally.phases_s[phase] += now - self._last
        self._last = now
