"""Beam search over any runtime: keep the best few beginnings instead of the best one. NumPy only.

The semantics are those of transformers' `generate(num_beams=...)`: log-softmax first, then the token rules without
normalising again; the 2 * beams best continuations are looked at, of which those that end among the first `beams`
become hypotheses, ranked by log-probability / length ** penalty (the end token counts); a window is finished when its
best running beam can no longer beat its worst hypothesis. With `patience` it is finished as soon as round(beams *
patience) hypotheses exist (Kasai et al. 2022, "A Call for Clarity in Beam Search"; openai-whisper's rule).
"""

from typing import Any

import numpy as np

from whisper_lab.tokens import log_softmax, require_numbers

GROUP = 64  # tokens whose largest score is looked at first


class _Window:
    """The beams of one window: running beginnings with their log-probabilities, and finished hypotheses."""

    def __init__(self, beams: int, penalty: float, patience: float | None):
        self.beams, self.penalty = beams, penalty
        self.keep = beams if patience is None else max(1, round(beams * patience))
        self.stop_when_full = patience is not None
        self.tokens: list[list[int]] = [[]]
        self.scores = np.zeros(1, np.float32)
        self.finished: list[tuple[float, list[int]]] = []  # (normalised score, tokens without the end), best first

    def advance(self, scores: np.ndarray, beams: np.ndarray, tokens: np.ndarray, end: int, is_last: bool) -> np.ndarray:
        """Take the best continuations (all three [2 * beams], best first); returns the row each new beam came from."""
        running: list[tuple[float, int, list[int]]] = []
        for rank, (score, beam, token) in enumerate(zip(scores, beams, tokens, strict=True)):
            if not np.isfinite(score):
                break
            ended = token == end
            if (ended or is_last) and rank < self.beams:
                self._finish(float(score), self.tokens[beam] + ([] if ended else [int(token)]), ended)
            elif not ended and len(running) < self.beams:
                running.append((score, beam, [*self.tokens[beam], int(token)]))
        while 0 < len(running) < self.beams:  # fewer than `beams` continuations were allowed: fill with dead ones
            running.append((-np.inf, running[0][1], running[0][2]))
        self.tokens = [beginning for _, _, beginning in running]
        self.scores = np.array([score for score, _, _ in running], np.float32)
        return np.array([beam for _, beam, _ in running], np.int64)

    def _finish(self, score: float, tokens: list[int], ended: bool) -> None:
        self.finished.append((score / (len(tokens) + ended) ** self.penalty, tokens))
        self.finished = sorted(self.finished, key=lambda pair: -pair[0])[: self.keep]

    def is_done(self, length: int) -> bool:
        """No running beam is left, or none of them can still improve on the hypotheses."""
        if len(self.tokens) == 0:
            return True
        if len(self.finished) < self.keep:
            return False
        return self.stop_when_full or self.scores[0] / length**self.penalty <= self.finished[-1][0]


def beam_search(runtime: Any, cross: Any, cache: Any, logits: np.ndarray, room: int, options: Any
                ) -> list[tuple[list[int], float]]:
    """Returns per window the tokens of the best hypothesis and its score (the mean log-probability at penalty 1).

    logits: float32 [audio, vocab] after the prompt, cache of batch = audio; from the second step on the batch is
    audio x beams while the cross cache stays [audio, ...]. room: most new tokens. options: decoding.Options.
    """
    windows = [_Window(options.beams, options.length_penalty, options.patience) for _ in range(len(logits))]
    live = np.arange(len(windows))
    for step in range(room):
        batch = [windows[i] for i in live]
        best = _continuations(runtime, logits, batch, options)
        offsets = np.cumsum([0] + [len(window.tokens) for window in batch])  # first row of each window
        rows = [offsets[i] + window.advance(*best[i], runtime.rules.end, step + 1 == room)
                for i, window in enumerate(batch)]
        going = np.array([i for i, window in enumerate(batch) if not window.is_done(step + 1)], np.int64)
        if len(going) == 0:
            break
        if len(going) < len(live):
            cross = runtime.select(cross, going)
        live = live[going]
        cache = runtime.reorder(cache, np.concatenate([rows[i] for i in going]))
        last = np.array([tokens[-1] for i in live for tokens in windows[i].tokens], np.int64)
        logits, cache = runtime.step(last[:, None], cross, cache)
        logits = logits[:, -1]
    return [(window.finished[0][1], window.finished[0][0]) if window.finished else ([], 0.0) for window in windows]


def _continuations(runtime: Any, logits: np.ndarray, batch: list[_Window], options: Any) -> list[tuple]:
    """Per window its 2 * beams best continuations: scores, beams they continue, tokens; best first."""
    generated = np.array([tokens for window in batch for tokens in window.tokens], np.int64)
    scores = log_softmax(logits)
    require_numbers(runtime, scores[:, 0])
    scores = runtime.rules.apply(scores, generated.reshape(len(logits), -1), options.timestamps)
    scores += np.concatenate([window.scores for window in batch])[:, None]
    scores = scores.reshape(len(batch), -1)  # [audio, beams * vocab]
    top, values = _largest(scores, min(2 * options.beams, scores.shape[1]))
    return [(values[i], top[i] // logits.shape[1], top[i] % logits.shape[1]) for i in range(len(batch))]


def _largest(scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and values [rows, count] of the largest in each row of [rows, n], best first.

    Of equals the lower place comes first, as torch.topk gives them. To partition the vocabularies of all beams would
    cost as much as a small model's decoder; but the `count` largest stand in the `count` groups of largest maximum.
    """
    rows, n = scores.shape
    groups = n // GROUP
    places = np.broadcast_to(np.arange(n), (rows, n))
    if groups > count:
        largest = scores[:, :groups * GROUP].reshape(rows, GROUP, groups).max(axis=1)
        chosen = np.argpartition(largest, -count, axis=1)[:, None, -count:]
        members = (chosen + groups * np.arange(GROUP)[:, None]).reshape(rows, -1)
        places = np.concatenate([members, places[:, groups * GROUP:]], axis=1)
    values = np.take_along_axis(scores, places, axis=1)
    order = np.lexsort((places, -values), axis=1)[:, :count]
    return np.take_along_axis(places, order, axis=1), np.take_along_axis(values, order, axis=1)
