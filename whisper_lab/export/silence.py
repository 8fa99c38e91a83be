"""How much silence a checkpoint needs behind a sound: found by letting it hear the same sounds in shorter windows.

A Whisper was trained on windows of 30 s that mostly end in silence. In a shorter window, whose rest a few positions
stand for (thinning.py), it hears the same; but where too little of the silence is heard as it is, it does not notice
that the speech has ended, and says its last words again and again. How much is enough is written nowhere, and
checkpoints differ: one that was trained on whole windows alone may need all of it.

So the float32 graphs hear the clips of media/, whole and in pieces of 1.5 and 2 s (the short ones need the most), in
noise and among other voices too, in whole windows and in shorter ones. A shorter window passes where hardly a text
loops that did not loop in the whole (such a text is seen, and heard again), and where the whole window's texts, and
their ends, are not much less likely. Of those that pass the shortest is taken, and the next longer one as a margin.

Nothing else in an export of one precision takes as long, so what graphs of the same weights say that are there already
is believed (`known`).
"""

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from whisper_lab import confidence, console, machine
from whisper_lab.decoding import Options, Result, decode_encoded
from whisper_lab.export import metadata, reference
from whisper_lab.features import log_mel
from whisper_lab.short_windows import heard_frames

# s of silence; the first that passes is not taken, but the one after it
CANDIDATES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
PIECES = ((0.3, 1.8), (0.3, 2.3), (0.0, 10.0))  # s; the beginning is silent: pieces of 1.5 and 2 s, and the clip
SNR_DB = 10.0  # of noise and of other voices
FEWEST = 6  # sounds that have to be understood, or nothing can be said
TOGETHER = 4  # sounds of one length that are decoded at once: a step reads the weights once for all of them
TOKENS_PER_SECOND, MORE_TOKENS = 10, 24  # twice the fastest speech; a text that is longer goes round in a loop
MOST_LOOPS = 0.03  # share of the sounds
DECIDES = (Path(__file__), *(Path(confidence.__file__).with_name(f"{name}.py") for name in (
    "confidence", "decoding", "features", "short_windows", "thinning")))  # what the answer follows from
# Nats by which the whole window's text may be less likely in the shorter, a token, and its end; means over what is
# understood. whisper-base: 0.058 and 0.30 with 1 s, 0.040 and 0.21 with 1.5 s, 0.026 and 0.13 with 2 s.
LESS_LIKELY, END_LESS_LIKELY = 0.05, 0.25


@dataclass(frozen=True)
class Sound:
    """A sound, and what was heard in the whole window."""

    name: str
    samples: np.ndarray  # float32 [samples]
    language: str | None
    whole: Result | None = None
    understood: bool = False


@dataclass(frozen=True)
class Trial:
    """What became of the sounds in a window of so much silence."""

    silence_s: float
    loops: list[str]  # the sounds whose texts loop
    problem: str | None  # in words, such as too many loops; then no more sounds were tried
    less_likely: float  # nats a token
    end_less_likely: float  # nats

    @property
    def passed(self) -> bool:
        return self.problem is None and self.less_likely <= LESS_LIKELY and self.end_less_likely <= END_LESS_LIKELY

    def __str__(self) -> str:
        seen = self.problem or \
            f"text less likely by {self.less_likely:z.3f} nats a token, its end by {self.end_less_likely:z.2f}"
        names = f" ({', '.join(map(repr, self.loops))})" if self.loops else ""
        return f"{self.silence_s:g} s: {seen}, {console.count(len(self.loops), 'loop')}{names}"


@dataclass(frozen=True)
class Found:
    """How much silence is enough, s; None: the whole window. `reason` in words."""

    silence_s: float | None
    reason: str


def find(pair: dict[str, Path], runtime, name: str, trained: bool, threads: int | None = None, seed: int = 0) -> Found:
    """Ask the float32 graphs; runtime: whose token rules to use (TorchWhisper); name: the checkpoint's."""
    from whisper_lab.export.pair import open_runtime

    if not trained:
        return Found(None, "random weights: their texts cannot tell")
    graph = open_runtime(*pair.values(), threads=threads, like=runtime)
    found = choose(graph, listen(graph, seed, name))
    del graph
    machine.give_back_memory()
    return found


def tell(found: Found) -> None:
    """The note."""
    console.note("silence behind a sound", "the whole window" if found.silence_s is None else f"{found.silence_s:g} s",
                 found.reason)


def method(seed: int) -> str:
    """What an answer depends on beside the weights, as a digest: how it is found, the clips, the seed."""
    return metadata.of_files((*DECIDES, *sorted(reference.MEDIA.glob("*.wav"))), str(seed))


def known(folder: Path, facts: dict[str, str], by: str) -> Found | None:
    """What graphs in `folder` say that were made of the same weights, found by the same method; None: there are none.

    facts: of the checkpoint, as `metadata.of_checkpoint`; by: `method`.
    """
    wanted = {key: facts[key] for key in ("model", "weights_sha256")} | {"silence_by": by}
    for path in sorted(folder.glob(f"{facts['model']}_decoder*.onnx")):
        noted = metadata.agreeing(path, wanted) or {}
        with contextlib.suppress(ValueError, KeyError):
            if (silence_s := json.loads(noted["silence_s"])) in (None, *CANDIDATES):
                return Found(silence_s, f"as {path.name} says, which was made of the same weights")
    return None


def choose(graph, heard: list[Sound]) -> Found:
    """The shortest silence that passes, and a margin."""
    understood = [sound for sound in heard if sound.understood]
    if len(understood) < FEWEST:
        return Found(None, f"{len(understood)} of {len(heard)} sounds are understood: too few to tell by")
    shortest = min(len(sound.samples) for sound in heard) / graph.spec.sampling_rate
    trials = []
    for silence_s, margin_s in zip(CANDIDATES, CANDIDATES[1:], strict=False):
        if shortest + margin_s >= graph.spec.window_s:
            break  # nothing would be shorter
        trials.append(attempt(graph, heard, silence_s))
        if trials[-1].passed and (confirmed := attempt(graph, heard, margin_s)).passed:
            before = f"; {trials[-2]}" if len(trials) > 1 else ""
            return Found(margin_s, f"{len(heard)} sounds, {trials[-1]}; a margin: {confirmed}{before}")
    return Found(None, f"{len(heard)} sounds, none passed: {'; '.join(map(str, trials)) or 'the window is too short'}")


def attempt(graph, heard: list[Sound], silence_s: float) -> Trial:
    """All sounds in windows of so much silence behind them, until too many loop; those that are no shorter for it say
    nothing."""
    drops, ends, looping, rate = [], [], [], graph.spec.sampling_rate
    for group in console.counted(together(heard), f"silence: {silence_s:g} s", "group"):
        if heard_frames(graph, len(group[0].samples) / rate, silence_s) == graph.spec.n_frames:
            continue
        cross, results = _hear(graph, group, silence_s)
        looping += [sound.name for sound, result in zip(group, results, strict=True)
                    if loops(result) and not loops(sound.whole)]
        if len(looping) > MOST_LOOPS * len(heard):
            return Trial(silence_s, looping, "too many texts loop", np.inf, np.inf)
        for row, sound in enumerate(group):
            if sound.understood:
                less = _less_likely(graph, graph.select(cross, np.array([row])), sound.whole)
                drops.append(less.mean())
                ends.append(less[-1])
    if len(drops) < FEWEST:
        return Trial(silence_s, looping, "too few shorter sounds are understood", np.inf, np.inf)
    return Trial(silence_s, looping, None, float(np.mean(drops)), float(np.mean(ends)))


def _less_likely(graph, cross, whole: Result) -> np.ndarray:
    """Nats by which each token of the whole window's text is less likely in another window, its end's the last."""
    return np.array(whole.logprobs) - confidence.logprobs(graph, cross, whole.prompt, whole.tokens, False)


def loops(result: Result) -> bool:
    """Whether a text repeats itself, or did not end where any speech would have."""
    return not result.ended or result.compression_ratio > confidence.LOOPS


def together(sounds: list[Sound]) -> list[list[Sound]]:
    """Neighbors of one length, at most TOGETHER in a group."""
    same = (list(run) for _, run in itertools.groupby(sounds, lambda sound: len(sound.samples)))
    return [run[first:first + TOGETHER] for run in same for first in range(0, len(run), TOGETHER)]


def _hear(graph, group: list[Sound], context: str | float) -> tuple:
    """The cross caches and texts of sounds of one length."""
    seconds = len(group[0].samples) / graph.spec.sampling_rate
    frames, most = heard_frames(graph, seconds, context), round(TOKENS_PER_SECOND * seconds) + MORE_TOKENS
    options = Options(temperatures=(0.0,), max_tokens=min(most, graph.rules.max_positions // 2))
    cross = graph.encode(np.stack([log_mel(sound.samples, graph.spec, frames) for sound in group]))
    return cross, decode_encoded(graph, cross, len(group), options, [sound.language for sound in group])


def listen(graph, seed: int, model: str = confidence.OTHERS) -> list[Sound]:
    """Every sound in the whole window, the shortest first: they are the first to loop where silence is too short.

    One by one: the caches of several whole windows would be most of the memory that 03 takes.
    """
    found = []
    asked = sorted(sounds(graph.spec, graph.rules, seed), key=lambda sound: len(sound.samples))
    for sound in console.counted(asked, "silence: whole windows", "sound"):
        whole = _hear(graph, [sound], "full")[1][0]
        doubtful = confidence.is_doubtful(whole.text_logprob, model, whole.compression_ratio)
        safe = bool(whole.text) and not loops(whole) and not doubtful
        found.append(replace(sound, whole=whole, understood=safe))
    return found


def sounds(spec, rules, seed: int) -> Iterator[Sound]:
    """Pieces of the clips whose language is known, clean, in noise, among voices."""
    known = {name: clip for name, clip in reference.clips(spec).items()
             if (clip.language or "en") in (rules.languages or ("en",))}
    random, rate = np.random.default_rng(seed), spec.sampling_rate
    for name, clip in known.items():
        voices = [other.samples for key, other in known.items() if key != name]
        for first, last in PIECES:
            piece = clip.samples[round(first * rate):round(last * rate)]
            noise = random.standard_normal(len(piece))
            babble = sum((np.resize(voice, len(piece)) for voice in voices), np.zeros(len(piece)))
            what = f"{len(piece) / rate:.1f} s of {name}"
            language = clip.language if rules.languages else None
            yield Sound(what, piece, language)
            yield Sound(f"{what} in noise", mixed(piece, noise), language)
            yield Sound(f"{what} among voices", mixed(piece, babble), language)


def mixed(samples: np.ndarray, other: np.ndarray) -> np.ndarray:
    """float32 [n]: both, `other` SNR_DB softer."""
    gain = np.sqrt(np.mean(samples**2) / max(float(np.mean(other**2)), 1e-12)) * 10 ** (-SNR_DB / 20)
    return (samples + gain * other).astype(np.float32)
