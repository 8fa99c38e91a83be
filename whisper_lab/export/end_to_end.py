"""Gates on text: does the graph choose the tokens that PyTorch chooses, given its history and given its own.

Here the two graphs work together: the decoder hears what the encoder of its own precision heard.
"""

import numpy as np

from whisper_lab.decoding import Options, compression_ratio, decode_encoded
from whisper_lab.export.gates import AGREEMENT, DIVERGENCE, LOOP, NEAR_TIE, REPEATS, WORDS, Gate, below
from whisper_lab.export.pair import GraphPair
from whisper_lab.export.reference import Sound
from whisper_lab.tokens import log_softmax


def teacher_forced(graphs: GraphPair, sounds: list[Sound], precision: str) -> list[Gate]:
    """PyTorch's own tokens as history; at each disagreement the margin says whether it was a near tie."""
    agreed, divergences, disagreements = [], [], []
    for sound in sounds:
        test = log_softmax(graphs.step(sound.forced, graphs.encode(sound.features), None)[0][0])
        reference = log_softmax(sound.logits[0])
        divergences.append((np.exp(reference) * (reference - test)).sum(axis=-1))
        ours, theirs = test.argmax(-1), reference.argmax(-1)
        for position in np.flatnonzero(ours != theirs):
            margin = float(reference[position, theirs[position]] - reference[position, ours[position]])
            disagreements.append(margin)
        agreed += (ours == theirs).tolist()
    real = [margin for margin in disagreements if not margin <= NEAR_TIE[precision]]
    share = 1 - len(real) / len(agreed)
    seen = f"{sum(agreed)} of {len(agreed)} tokens the same"
    if disagreements:
        widest = sorted(disagreements, reverse=True)[:5]
        seen += f"; margins where not: {', '.join(f'{margin:.2g}' for margin in widest)} nats"
    divergence = float(np.concatenate(divergences).mean())
    return [Gate("teacher-forced: choices", share >= AGREEMENT[precision], share, AGREEMENT[precision], seen),
            below("teacher-forced: KL divergence", divergence, DIVERGENCE[precision], "mean over positions, nats")]


def free_running(graphs: GraphPair, sounds: list[Sound], precision: str, trained: bool) -> list[Gate]:
    """Greedy decoding from its own history: the words of PyTorch, and no loop where PyTorch has none.

    With random weights the margins are near ties everywhere, so after the first flip the texts have nothing in common:
    then only float32 is judged, and only up to its first near tie.
    """
    if not trained and precision != "fp32":
        return []
    results = [_decode(graphs, sound) for sound in sounds]
    return [_words(results, sounds, precision) if trained else _tokens(results, sounds), _loops(results, sounds)]


def _decode(graphs: GraphPair, sound: Sound):
    room = max(len(sound.result.tokens) + 8, 16)  # a graph that does not stop where PyTorch stops is seen
    options = Options(language=sound.result.language, max_tokens=min(room, graphs.rules.max_positions // 2))
    return decode_encoded(graphs, graphs.encode(sound.features), 1, options)[0]


def _words(results: list, sounds: list[Sound], precision: str) -> Gate:
    from whisper_lab.metrics import word_errors

    wrong = words = 0
    for result, sound in zip(results, sounds, strict=True):
        errors = word_errors(sound.result.text, result.text, sound.result.language)
        wrong += errors.substitutions + errors.insertions + errors.deletions
        words += errors.reference_words
    spoken = "; ".join(f"{sound.name}: '{result.text}'" for result, sound in zip(results, sounds, strict=True))
    return below("free-running: words", wrong / max(words, 1), WORDS[precision],
                 f"{wrong} wrong of PyTorch's {words} words; {spoken}")


def _tokens(results: list, sounds: list[Sound]) -> Gate:
    worst = 0.0
    for result, sound in zip(results, sounds, strict=True):
        theirs = sound.result.tokens
        first = next((i for i, pair in enumerate(zip(result.tokens, theirs, strict=False)) if pair[0] != pair[1]), None)
        if first is not None:
            scores = log_softmax(sound.logits[0, sound.prompt_length + first - 1])
            worst = max(worst, float(scores[theirs[first]] - scores[result.tokens[first]]))
    return below("free-running: tokens", worst, NEAR_TIE["fp32"], "margin in nats at the first token that differs")


def _loops(results: list, sounds: list[Sound]) -> Gate:
    found = [(loopiness(result.text), sound.name) for result, sound in zip(results, sounds, strict=True)
             if loopiness(sound.result.text) <= 1]
    worst, name = max(found, default=(0.0, "none: PyTorch loops everywhere"))
    return below("free-running: loops", worst, 1.0,
                 f"compression ratio / {LOOP} or repeats / {REPEATS}; worst on {name}")


def loopiness(text: str) -> float:
    """Above 1 a text goes round in circles: it compresses too well, or repeats the same 1 to 6 words too often."""
    words, longest = text.split(), 0
    for n in range(1, 7):
        run = n
        for i in range(n, len(words)):
            run = run + 1 if words[i] == words[i - n] else n
            longest = max(longest, run // n)
    return max(compression_ratio(text) / LOOP, longest / REPEATS) if text else 0.0
