"""Gates on text: does the graph choose the tokens that PyTorch chooses, given its history and given its own.

Here the two graphs work together: the decoder hears what the encoder of its own precision heard. Where a graph first
chooses otherwise, PyTorch's own preference says whether that matters: a fraction of a nat is a near tie, which rounding
may decide either way.
"""

from dataclasses import dataclass

import numpy as np

from whisper_lab.decoding import Options, Result, compression_ratio, decode_encoded
from whisper_lab.export.gates import (
    AGREEMENT,
    DIVERGENCE,
    LOOP,
    NEAR_TIE,
    REPEATS,
    WORDS,
    Gate,
    above,
    below,
)
from whisper_lab.export.pair import answer
from whisper_lab.export.reference import SURE, Sound, Spoken
from whisper_lab.onnx_whisper import OnnxWhisper
from whisper_lab.tokens import TokenRules, kl_divergence, logsumexp

SAME_TIME = 0.2  # seconds that a segment may begin or end earlier or later
BLOCK = 32  # rows of logits that are compared at once: in float64 those of 128 tokens are 53 MB, several times


@dataclass(frozen=True)
class Heard:
    """What a pair made of one sound."""

    sound: Sound
    divergence: np.ndarray  # per token after PyTorch's own tokens: KL divergence of the next one, nats
    margin: np.ndarray  # and by how much PyTorch's choice is ahead of the pair's there; of speech only
    result: Result | None  # greedy, from its own history
    timed: Result | None  # with timestamps; of speech only
    finite: bool


def text(graphs: OnnxWhisper, sounds: list[Sound], precision: str, trained: bool) -> list[Gate]:
    """Every gate on text; each sound is encoded once and forgotten: all cross caches at once would be too large.

    With random weights the margins are near ties everywhere, so after the first flip the texts have nothing in common:
    then only float32 decodes from its own history, and is judged only up to its first near tie. Shorter windows count
    where PyTorch is sure of its words in them: a checkpoint may never have heard one.
    """
    decode = trained or precision == "fp32"
    sounds = [sound for sound in sounds if not sound.is_short or sound.result.avg_logprob >= SURE]
    heard = [hear(graphs, sound, decode, trained) for sound in sounds]
    gates = teacher_forced(heard, precision)
    return gates + free_running(heard, precision, trained, graphs.rules) if decode else gates


def hear(graphs: OnnxWhisper, sound: Sound, decode: bool, times: bool) -> Heard:
    """Run the pair over one sound."""
    cross = graphs.encode(sound.features)
    plain = Followed(graphs, cross, sound.spoken)
    timed = Followed(graphs, cross, sound.timed) if sound.is_speech else None
    found = [next_tokens(plain), next_tokens(timed)] if timed else [(np.zeros(0), np.zeros(0))]
    divergence, margin = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return Heard(sound, divergence, margin, _decode(plain, cross) if decode else None,
                 _decode(timed, cross) if decode and times and timed else None, bool(np.isfinite(plain.logits).all()))


class Followed:
    """A pair along the tokens that PyTorch wrote of one sound, in the steps of a transcription.

    To a search it is a runtime: as long as that chooses PyTorch's tokens, their logits are there already. Where it
    first chooses another, the graph goes the same way up to there, and then on.
    """

    def __init__(self, graphs: OnnxWhisper, cross, spoken: Spoken):
        self.graphs, self.spoken, self.ids = graphs, spoken, spoken.forced
        self.logits, _ = answer(graphs, self.ids, self.prompt, cross)

    @property
    def prompt(self) -> int:
        """Its length."""
        return len(self.spoken.result.prompt)

    def step(self, input_ids: np.ndarray, cross, cache) -> tuple[np.ndarray, object]:
        """As of OnnxWhisper, for one row. The cache of what is known is its tokens."""
        if not (cache is None or isinstance(cache, np.ndarray)):
            return self.graphs.step(input_ids, cross, cache)
        way, new = input_ids if cache is None else np.concatenate([cache, input_ids], axis=1), input_ids.shape[1]
        if np.array_equal(way, self.ids[:, :way.shape[1]]):
            return self.logits[:, way.shape[1] - new:way.shape[1]], way
        logits, cache = answer(self.graphs, way, self.prompt, cross)
        return logits[:, -new:], cache

    def __getattr__(self, name: str):
        return getattr(self.graphs, name)


# PyTorch's history ---------------------------------------------------------------------------------------------------

def teacher_forced(heard: list[Heard], precision: str) -> list[Gate]:
    """The next token after PyTorch's own tokens, on speech: how far its probabilities are off, and is it the same."""
    divergence, margin = (np.concatenate(arrays) for arrays in
                          zip(*((each.divergence, each.margin) for each in heard), strict=True))
    share = float((margin <= NEAR_TIE[precision]).mean())
    seen = f"{int((margin == 0).sum())} of {len(margin)} tokens the same"
    if (widest := np.sort(margin[margin != 0])[::-1][:5]).size:
        seen += f"; PyTorch's margins where not: {', '.join(f'{one:.2g}' for one in widest)} nats"
    return [above("teacher-forced: choices", share, AGREEMENT[precision],
                  f"{seen}; up to {NEAR_TIE[precision]:g} is a near tie"),
            below("teacher-forced: KL divergence", float(divergence.mean()), DIVERGENCE[precision],
                  "mean over the tokens of speech", unit="nats")]


def next_tokens(followed: Followed) -> tuple[np.ndarray, np.ndarray]:
    """For each token of the answer: KL divergence, and by how much PyTorch's choice is ahead of the graph's there."""
    rows = slice(followed.prompt - 1, None)
    ours, theirs = followed.logits[0][rows], followed.spoken.logits[0][rows]
    found = [_apart(ours[first:first + BLOCK], theirs[first:first + BLOCK]) for first in range(0, len(ours), BLOCK)]
    divergence, margin = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return divergence, margin


def _apart(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of some rows of logits: the divergence, and by how much `theirs` prefers its own choice to the other's."""
    test, right = log_softmax64(ours), log_softmax64(theirs)
    return kl_divergence(right, test), right.max(axis=-1) - right[np.arange(len(right)), test.argmax(axis=-1)]


def log_softmax64(logits: np.ndarray) -> np.ndarray:
    """In float64: the divergence of two float32 graphs is smaller than float32's own rounding of it."""
    wide = logits.astype(np.float64)
    return wide - logsumexp(wide)[..., None]


# Its own history -----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Parting:
    """Where a graph's answer first leaves PyTorch's."""

    step: int
    nats: float  # how much likelier PyTorch holds its own token there


def free_running(heard: list[Heard], precision: str, trained: bool, rules: TokenRules) -> list[Gate]:
    """Greedy decoding from its own history: PyTorch's words, its times, and no loop where PyTorch has none."""
    if not trained:
        return [_tokens(heard, rules), _loops(heard)]
    speech = [each for each in heard if each.sound.is_speech]
    return [_words(speech, precision, rules), _times(speech, precision, rules), _loops(heard),
            _quiet([each for each in heard if not each.sound.is_speech], precision, rules)]


def _decode(followed: Followed, cross) -> Result:
    return decode_encoded(followed, cross, 1, _options(followed))[0]


def _options(followed: Followed) -> Options:
    spoken, rules = followed.spoken, followed.rules
    room = max(len(spoken.result.tokens) + 8, 16)  # a graph that does not stop where PyTorch stops is seen
    return Options(language=spoken.result.language, max_tokens=min(room, rules.max_positions // 2),
                   timestamps=spoken.timestamps)


def parting(tokens: list[int], spoken: Spoken, rules: TokenRules, same_time: float = 0.0) -> Parting | None:
    """The first token that differs from PyTorch's; None where none does.

    Timestamps up to `same_time` seconds apart count as equal.
    """
    theirs, ours = list(spoken.result.tokens), [*tokens, rules.end]
    if not spoken.cut:
        theirs.append(rules.end)
    steps = round(same_time / rules.timestamp_step)
    for step, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        both_times = min(one, other) >= rules.timestamp_begin
        if one != other and not (both_times and abs(one - other) <= steps):
            return Parting(step, _margin(spoken, rules, step, one, other))
    return None


def _margin(spoken: Spoken, rules: TokenRules, step: int, ours: int, theirs: int) -> float:
    """Nats by which PyTorch prefers `theirs` to `ours` under the token rules; infinite for a token never allowed."""
    raw = spoken.logits[0, len(spoken.result.prompt) + step - 1]
    generated = np.array([spoken.result.tokens[:step]], np.int64)
    scores = rules.apply(raw[None].astype(np.float32), generated, spoken.timestamps)[0]
    if np.isfinite(scores[ours]):
        return float(scores[theirs] - scores[ours])
    if not spoken.timestamps or ours >= rules.timestamp_begin:
        return float("inf")
    # All timestamps together were likelier than any text, and the graph saw it the other way round.
    return float(logsumexp(raw[None, rules.timestamp_begin:])[0] - raw[ours])


def _words(speech: list[Heard], precision: str, rules: TokenRules) -> Gate:
    """Words of speech that differ, except behind a near tie."""
    from whisper_lab.metrics import word_errors

    wrong, words, ties, seen = 0, 0, [], []
    for each in speech:
        right = each.sound.result
        errors = word_errors(right.text, each.result.text, right.language)
        different = errors.substitutions + errors.insertions + errors.deletions
        words += errors.reference_words
        found = parting(each.result.tokens, each.sound.spoken, rules)
        if different and found is not None:
            near = found.nats <= NEAR_TIE[precision]
            wrong += 0 if near else different
            (ties if near else seen).append(f"{each.sound.name}: {_both(each, found)}")
    detail = [f"{wrong} of PyTorch's {words} words differ", *seen, *(f"near tie, allowed: {tie}" for tie in ties)]
    return below("free-running: words", wrong / max(words, 1), WORDS[precision], "; ".join(detail))


def _both(each: Heard, found: Parting) -> str:
    return f"'{each.result.text}', PyTorch: '{each.sound.result.text}' ({found.nats:.2g} nats)"


def _times(speech: list[Heard], precision: str, rules: TokenRules) -> Gate:
    """Segments begin and end when PyTorch's do, except behind a near tie."""
    worst, name, moved = 0.0, "none", 0
    for each in speech:
        spoken = each.sound.timed
        times, right = (_seconds(result.tokens, rules) for result in (each.timed, spoken.result))
        if len(times) == len(right) and np.all(np.abs(times - right) <= SAME_TIME + 1e-6):
            continue
        moved += 1
        found = parting(each.timed.tokens, spoken, rules, SAME_TIME)
        if found is not None and found.nats >= worst:
            worst, name = found.nats, f"{each.sound.name}: {times.tolist()} s, PyTorch: {right.tolist()} s"
    return below("free-running: timestamps", worst, NEAR_TIE[precision],
                 f"{moved} of {len(speech)} clips with a time more than {SAME_TIME:g} s off; widest margin: {name}",
                 unit="nats")


def _seconds(tokens: list[int], rules: TokenRules) -> np.ndarray:
    return np.round([(token - rules.timestamp_begin) * rules.timestamp_step for token in tokens
                     if token >= rules.timestamp_begin], 2)


def _tokens(heard: list[Heard], rules: TokenRules) -> Gate:
    found = [parting(each.result.tokens, each.sound.spoken, rules) for each in heard]
    worst = max((each.nats for each in found if each), default=0.0)
    return below("free-running: tokens", worst, NEAR_TIE["fp32"], "margin at the first token that differs", unit="nats")


def _loops(heard: list[Heard]) -> Gate:
    found = [(loopiness(each.result.text), each.sound.name) for each in heard
             if loopiness(each.sound.result.text) <= 1]
    worst, name = max(found, default=(0.0, "none: PyTorch loops everywhere"))
    return below("free-running: loops", worst, 1.0,
                 f"compression ratio / {LOOP} or repeats / {REPEATS}; worst on {name}")


def _quiet(quiet: list[Heard], precision: str, rules: TokenRules) -> Gate:
    """Noise and silence have no right text: finite numbers, and no choice that PyTorch holds for far less likely."""
    worst, seen = 0.0, []
    for each in quiet:
        found = parting(each.result.tokens, each.sound.spoken, rules)
        if not each.finite:
            worst = float("inf")
        elif found is not None:
            worst = max(worst, found.nats)
            seen.append(f"{'near tie, allowed: ' if found.nats <= NEAR_TIE[precision] else ''}{each.sound.name}: "
                        f"{_both(each, found)}")
    return below("noise and silence", worst, NEAR_TIE[precision], "; ".join(seen) or "PyTorch's tokens", unit="nats")


def loopiness(text: str) -> float:
    """Above 1 a text goes round in circles: it compresses too well, or repeats the same 1 to 6 words too often."""
    words, longest = text.split(), 0
    for n in range(1, 7):
        run = n
        for i in range(n, len(words)):
            run = run + 1 if words[i] == words[i - n] else n
            longest = max(longest, run // n)
    return max(compression_ratio(text) / LOOP, longest / REPEATS) if text else 0.0
