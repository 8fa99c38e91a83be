"""How long one window takes: encoder, prompt, and a fixed number of tokens; every variant does the same work."""

import statistics
import time

import numpy as np

from whisper_lab.compare.texts import sign_test

TOKENS = 16  # steps after the prompt: about a short sentence, and the encoder stays the larger part


def one_window(runtime, features: np.ndarray, forced: np.ndarray, prompt_length: int) -> dict[str, float]:
    """Encode a window, feed the prompt, then token by token: `encoder_ms`, `prompt_ms`, `token_ms`, `window_ms`.

    The tokens are given, not chosen: two variants that write different texts still do the same work. PyTorch makes the
    cross caches in the prompt's step, the graphs in the encoder; the sum is what compares.
    """
    tokens = np.resize(forced[0, prompt_length - 1:], min(TOKENS, runtime.rules.max_positions - prompt_length))
    start = time.perf_counter()
    cross = runtime.encode(features)
    encoded = time.perf_counter()
    _, cache = runtime.step(forced[:, :prompt_length], cross, None)
    prompted = time.perf_counter()
    for token in tokens:
        _, cache = runtime.step(np.array([[token]], np.int64), cross, cache)
    end = time.perf_counter()
    return {"encoder_ms": 1e3 * (encoded - start), "prompt_ms": 1e3 * (prompted - encoded),
            "token_ms": 1e3 * (end - prompted) / len(tokens), "window_ms": 1e3 * (end - start)}


def in_turns(base, other, heard, repeats: int, warm: bool = False) -> tuple[list[dict], list[dict]]:
    """Time fp32 and another in turn, round after round, so that whatever else the machine does strikes both alike.

    heard: the window and its tokens (heard.Heard); warm: fp32 has run before. Returns the rounds of each.
    """
    times: tuple[list, list] = [], []
    for i in range(-1, repeats):
        for k in (0, 1) if i % 2 else (1, 0):  # neither always comes first
            if i < 0 and k == 0 and warm:
                continue
            measured = one_window((base, other)[k], heard.features, heard.forced, heard.prompt_length)
            if i >= 0:  # the first round warms up: memory is mapped, threads are started
                times[k].append(measured)
    return times


def summary(rounds: list[dict[str, float]], window_s: float) -> dict:
    """Median, quartiles, smallest and largest of each time over the rounds, and the real-time factor of the median."""
    made = {name: _spread([one[name] for one in rounds]) for name in rounds[0]}
    seconds = made["window_ms"]["median"] / 1e3
    return {**made, "real_time_factor": round(seconds / window_s, 5), "rtfx": round(window_s / seconds, 2),
            "rounds": len(rounds)}


def of_pairs(rounds: dict[str, tuple[list, list]], base: str, window_s: float) -> dict[str, dict]:
    """name -> its summary and how it compares. rounds: name -> (rounds of `base` beside it, its own); empty: {}.

    The summary of `base` is over all its rounds, beside whomever.
    """
    if not all(own for _, own in rounds.values()):
        return {}
    every = [one for ours, _ in rounds.values() for one in ours]
    found = {base: summary(every, window_s) | against(every, every)}
    return found | {name: summary(own, window_s) | against(ours, own) for name, (ours, own) in rounds.items()}


def _spread(values: list[float]) -> dict[str, float]:
    low, median, high = (float(np.quantile(values, part)) for part in (0.25, 0.5, 0.75))
    return {"median": round(median, 4), "q1": round(low, 4), "q3": round(high, 4), "min": round(min(values), 4),
            "max": round(max(values), 4)}


def against(base: list[dict[str, float]], test: list[dict[str, float]]) -> dict:
    """How many times faster than the baseline, round by round: each pair ran within seconds of each other.

    The one statistic by which 04 compares speed, in tables, pictures and verdict: median, quartiles, least and most.

    Within noise where the rounds do not agree who is faster, or are too few to say so (sign test, 5 %).
    """
    ratios = [a["window_ms"] / b["window_ms"] for a, b in zip(base, test, strict=True)]
    p = sign_test(sum(ratio > 1 for ratio in ratios), sum(ratio < 1 for ratio in ratios))
    low, high = (round(float(np.quantile(ratios, part)), 3) for part in (0.25, 0.75))
    return {"speedup": round(statistics.median(ratios), 3), "speedup_q1": low, "speedup_q3": high,
            "speedup_min": round(min(ratios), 3), "speedup_max": round(max(ratios), 3),
            "p_value": round(p, 4), "within_noise": p >= 0.05}
