"""The first window of each clip as PyTorch heard it, and which next tokens PyTorch and a graph would choose.

    heard = hear(runtime, "clip.wav", samples, language="en")          # of a TorchWhisper
    first_divergence(tokenizer, heard, choices(rules, heard, heard.logits), choices(rules, heard, logits))

This module knows nothing of graphs, so that PyTorch's process need not load what reads them.
"""

from dataclasses import dataclass

import numpy as np

from whisper_lab.export import reference
from whisper_lab.features import log_mel
from whisper_lab.silence import is_silent

MOST_TOKENS = 48
MOST_CLIPS = 8  # whose scores of every token are kept; the text is compared on all of them


@dataclass(frozen=True)
class Heard:
    """The first window of a clip and what PyTorch made of it."""

    clip: str
    features: np.ndarray  # float32 [1, n_mels, frames]
    hidden: np.ndarray  # float32 [1, positions, d_model]
    forced: np.ndarray  # int64 [1, T]: the prompt and PyTorch's own greedy answer
    prompt_length: int
    logits: np.ndarray  # float32 [1, T, vocab]


def with_speech(windows: list[np.ndarray]) -> list[int]:
    """Which of the clips' first windows, float32 [n] at 16 kHz, to compare: at most MOST_CLIPS.

    Those that hold no speech are passed over, for which a Whisper invents words; of nothing but silence, all stay.
    """
    spoken = [i for i, window in enumerate(windows) if not is_silent(window)]
    return (spoken or list(range(len(windows))))[:MOST_CLIPS]


def hear(runtime, clip: str, samples: np.ndarray, language: str | None) -> Heard:
    """What TorchWhisper makes of the first window of a clip."""
    features = log_mel(samples[:runtime.spec.n_samples], runtime.spec)[None]
    states = runtime.encode(features)
    spoken = reference.speak(runtime, states, language, min(MOST_TOKENS, runtime.rules.max_positions // 2))
    return Heard(clip, features, states.float().numpy(), spoken.forced, len(spoken.result.prompt), spoken.logits)


def choices(rules, heard: Heard, logits: np.ndarray) -> np.ndarray:
    """Scores of each next token after the token rules, given PyTorch's tokens so far: float32 [answer + 1, vocab]."""
    rows, answer = [], heard.forced[0, heard.prompt_length:]
    for i in range(len(answer) + 1):
        row = logits[:, heard.prompt_length - 1 + i].astype(np.float32)
        rows.append(rules.apply(row.copy(), answer[None, :i], False)[0])
    return np.stack(rows)


def first_divergence(tokenizer, heard: Heard, right: np.ndarray, test: np.ndarray) -> dict | None:
    """The first token that PyTorch's scores and the graph's (both [tokens, vocab]) choose differently, or None.

    The margin is how far PyTorch's choice stood above the one the graph made: near 0 it was a coin toss.
    """
    chosen, other = right.argmax(axis=-1), test.argmax(axis=-1)
    differing = np.flatnonzero(chosen != other)
    if not len(differing):
        return None
    at = int(differing[0])
    return {"clip": heard.clip, "token": at, "pytorch": _spell(tokenizer, chosen[at]),
            "graph": _spell(tokenizer, other[at]),
            "margin_logits": round(float(right[at, chosen[at]] - right[at, other[at]]), 4)}


def _spell(tokenizer, token: int) -> str:
    return tokenizer.decode([int(token)]) or f"<{token}>"
