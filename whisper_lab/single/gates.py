"""The gates of the single graph, against 03's pair: what it is made of, its size, its mel, its tokens, its text.

The pair has passed its own gates against PyTorch, so nothing is left to compare but what is new here: the mel inside,
the loop, the token rules, the text.
"""

import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from whisper_lab import console
from whisper_lab.console import LabError
from whisper_lab.decoding import Options, Result, decode_encoded, detect_language
from whisper_lab.export import graphs, publish, reference
from whisper_lab.export.gates import NEAR_TIE, Gate, below
from whisper_lab.features import log_mel
from whisper_lab.short_windows import AUTO, heard_frames
from whisper_lab.single import graph
from whisper_lab.single.loop import FIRST, LANGUAGE, LATER, MASK
from whisper_lab.tokens import TokenRules, log_softmax

MICROSOFT = {"int4": {"MatMulNBits"}}  # what a precision needs of onnxruntime's own operators
EXTRA_BYTES = 3_000_000  # over encoder plus decoder: filters, token and character tables, nodes
MEL = 1e-4  # largest difference to features.log_mel; measured 2e-5
ENOUGH = 32  # tokens per sound where the weights are random and no text ever ends
FEATURES = "mel/features"
ONE_SAMPLE = "one sample"
NO_SPEECH = (*reference.QUIET, ONE_SAMPLE)


def check(path: Path, pair: dict[str, Path], whisper, precision: str, given: str = "samples", seed: int = 0,
          threads: int | None = None) -> tuple:
    """The opened graph and every gate's verdict; whisper: the OnnxWhisper over `pair`; given: samples or wav.

    After a gate on its structure that fails, nothing more is asked: a malformed graph might not even open.
    """
    gates = check_structure(path, pair, precision, given)
    if not all(gate.passed for gate in gates):
        return None, gates
    session, mel = graph.open_graph(path, threads), graph.open_graph(mel_alone(path), threads)
    gates += [token_rules(path, whisper.rules),
              *check_text(session, whisper, mel, sounds(whisper.spec, seed, given),
                          not whisper.facts["random_weights"], precision, given)]
    return session, gates


def refuse(path: Path, pair: dict[str, Path], gates: list[Gate], folder: Path) -> None:
    """Raises LabError where a gate has failed; the graph is then in `folder` under its .rejected name."""
    broken = next((gate for gate in gates if not gate.passed), None)
    if broken is None:
        console.note("gates", f"{len(gates)} of {len(gates)} passed", "against the pair, on every clip")
        return
    left = publish.reject([path], folder)
    seen = "; ".join(filter(None, [broken.said(), broken.detail]))
    look = shlex.join(["python", "05-explore-in-netron.py", "--graphs", str(left[0]), str(pair["encoder"])])
    raise LabError(f"the single graph is not the pair: gate '{broken.name}' failed ({seen})",
                   f"--no-verify writes it regardless; to look at it beside the encoder: {look}")


# What it is made of --------------------------------------------------------------------------------------------------


def check_structure(path: Path, pair: dict[str, Path], precision: str, given: str = "samples") -> list[Gate]:
    """Which operators, how large, each weight once."""
    model = onnx.load(path, load_external_data=False)
    foreign = {node.op_type for node in graph.nodes(model.graph) if node.domain not in graph.STANDARD}
    allowed = MICROSOFT.get(precision, set())
    both = sum(graphs.size(part) for part in pair.values())
    ours = large_tensors([model])
    theirs = large_tensors([onnx.load(part, load_external_data=False) for part in pair.values()])
    copies = sum(count - theirs[kind] for kind, count in ours.items() if kind in theirs)
    inputs, outputs = ([value.name for value in values] for values in (model.graph.input, model.graph.output))
    expected = inputs[:1] == [given] and outputs == ["text", "tokens"]
    extra = graphs.size(path) - both
    return [Gate("operators", foreign == allowed, None, None, f"beyond the standard: {listed(foreign)}"),
            Gate("inputs and outputs", expected, None, None, f"{inputs} -> {outputs}"),
            below("bytes over encoder plus decoder", extra, EXTRA_BYTES, f"{both} bytes in the pair"),
            Gate("weights stored once", copies == 0, copies, 0, f"{sum(theirs.values())} large tensors in the pair")]


def listed(names: set[str]) -> str:
    """`none`, or the names in order."""
    return ", ".join(sorted(names)) or "none"


def large_tensors(models: list[onnx.ModelProto]) -> Counter:
    """How many weights there are of each type and shape; a copy in another shape is seen by the size."""
    return Counter((tensor.data_type, tuple(tensor.dims)) for model in models for tensor in graphs.tensors(model.graph)
                   if np.prod(tensor.dims) >= graphs.BIG)


# What it says --------------------------------------------------------------------------------------------------------

def feeds(samples: np.ndarray, given: str = "samples") -> dict[str, np.ndarray]:
    """What the graph is given: float32 [1, n], or the bytes of a WAV file, uint8 [bytes]."""
    from whisper_lab import audio

    return {"samples": samples[None]} if given == "samples" else {given: np.frombuffer(audio.wav_bytes(samples), "u1")}


def heard(pair, samples: np.ndarray, context: str | float = AUTO) -> np.ndarray:
    """What the graph's encoder is to hear of a sound, float32 [n_mels, frames]; pair: OnnxWhisper."""
    frames = heard_frames(pair, len(samples) / pair.spec.sampling_rate, context)
    return log_mel(samples, pair.spec, frames)


def sounds(spec, seed: int = 0, given: str = "samples") -> dict[str, np.ndarray]:
    """name -> samples of at most one window: every short clip of media/, silence, noise, one sample.

    For a graph that is given a WAV file, as 16 bits can tell them.
    """
    from whisper_lab import audio

    found = {clip.stem: audio.load(clip).samples for clip in sorted(reference.MEDIA.glob("*.wav"))}
    found = {name: samples for name, samples in found.items() if len(samples) <= spec.n_samples}
    found = reference.sounds(spec, seed) | found | {ONE_SAMPLE: np.full(1, 0.5, np.float32)}
    if given == "samples":
        return found
    return {name: np.frombuffer(audio.to_pcm16(samples), "<i2") / np.float32(32768) for name, samples in found.items()}


@dataclass(frozen=True)
class Heard:
    """What graph and pair make of one sound, and how far they are apart."""

    sound: str
    mel: float  # largest difference to features.log_mel
    same_mel: float  # nats by which the pair, given the graph's own mel, prefers another token; 0: it never does
    own_mel: float  # the same, where the pair computes its mel itself; 0 where nothing is said
    right_text: bool  # the text is that of the tokens


def check_text(session, pair, mel, clips: dict[str, np.ndarray], trained: bool, precision: str,
               given: str = "samples") -> list[Gate]:
    """Mel, tokens and text of each sound. session: the single graph; mel: its mel alone; pair: OnnxWhisper."""
    limit = None if trained else ENOUGH
    near = NEAR_TIE[precision]
    answers = [hear(session, pair, mel, name, samples, limit, near, given) for name, samples in clips.items()]
    name, samples = min(clips.items(), key=lambda item: (item[0] in NO_SPEECH, len(item[1])))
    answers += [hear(session, pair, mel, name, samples, limit, near, given, context) for context in contexts(pair)]
    worst = max(answers, key=lambda one: one.mel)
    wrong = {one.sound for one in answers if not one.right_text}
    return [below("mel", worst.mel, MEL, f"largest difference to features.log_mel, on {worst.sound}"),
            _same_tokens("tokens from the same mel", [(one.same_mel, one.sound) for one in answers], 0),
            Gate("text of the tokens", not wrong, len(wrong), 0, f"differs on: {listed(wrong)}"),
            # The mel's last digit may decide between two tokens that are nearly tied, and nothing else.
            _same_tokens("tokens from samples", [(one.own_mel, one.sound) for one in answers], near)]


def contexts(pair) -> list[float]:
    """s of silence that callers may ask for: some, where the encoder takes shorter windows, and all of a window."""
    window_s = pair.spec.window_s
    return [window_s / 3, window_s] if pair.takes_short_windows else []


def hear(session, pair, mel, name: str, samples: np.ndarray, limit: int | None, near: float = 0.0,
         given: str = "samples", context: float | None = None) -> Heard:
    """Give one sound to the graph and to the pair; limit: the most tokens, None where the text ends by itself.

    near: nats by which a language may be less likely than the pair's own, and yet be the graph's.
    context: s of silence that both hear behind it; None: as much as the graph was made for.
    """
    fed, said = feeds(samples, given), name not in NO_SPEECH
    asked = fed
    if context is not None:
        fed, name = fed | {"audio_context": np.array([context], np.float32)}, f"{name} and {context:.3g} s of silence"
        asked = fed
    if limit:
        asked = fed | {"max_length": np.array([limit + len(pair.rules.prompt(any_language(pair), "transcribe"))])}
    written, tokens = session.run(["text", "tokens"], asked)
    ours, theirs = mel.run(None, fed)[0], heard(pair, samples, AUTO if context is None else context)[None]
    if ours.shape != theirs.shape:
        return Heard(name, float("inf"), float("inf"), float("inf"), False)
    same = answers_apart(pair, ours, tokens.tolist(), limit, near)
    # What is made up for noise or a click hangs on the last digit of its mel: that the mel is right has to do.
    own = answers_apart(pair, theirs, tokens.tolist(), limit, near) if said else 0.0
    return Heard(name, float(np.abs(ours - theirs).max()), same, own,
                 bool(written[0] == pair.rules.text(pair.tokenizer, tokens)))


def _same_tokens(name: str, apart: list[tuple[float, str]], limit: float) -> Gate:
    """apart: by how many nats the pair's token was likelier where the graph first chose another, and on which sound."""
    worst, where = max(apart)
    ties = [f"{sound} ({nats:.2g} nats)" for nats, sound in apart if 0 < nats <= limit]
    detail = f"pair prefers another token: widest on {where}" if worst else "the pair's tokens on every sound"
    if ties:
        detail += f"; near tie, allowed: {', '.join(ties)}"
    return below(name, worst, limit, detail, unit="nats")


def any_language(runtime) -> str | None:
    """Any language of the checkpoint: all prompts are equally long."""
    return next(iter(runtime.rules.languages), None)


def answers_apart(runtime, features: np.ndarray, tokens: list[int], limit: int | None, near: float) -> float:
    """By how many nats the pair prefers its own answer to `tokens`; 0 where it is the same.

    Of one sample, or of noise, the language is a coin toss: `tokens` may be the answer in any that is nearly as likely
    as the pair's own. Then the languages' difference counts, where the tokens' is not larger.
    """
    cross, found = runtime.encode(features), []
    for language, behind in likely_languages(runtime, cross, near):
        result = decode_encoded(runtime, cross, 1, Options(language=language, max_tokens=limit))[0]
        tokens_apart = nats_apart(runtime, cross, result, tokens)
        found.append(max(behind, tokens_apart))
        if tokens_apart == 0:
            break
    return min(found)


def likely_languages(runtime, cross, near: float) -> list[tuple[str | None, float]]:
    """The pair's language of one window, and those at most `near` nats less likely: (code, nats), likeliest first."""
    if not runtime.rules.languages:
        return [(None, 0.0)]
    found = sorted(detect_language(runtime, cross, 1)[0].items(), key=lambda item: -item[1])
    behind = [(code, float(np.log(found[0][1]) - np.log(max(chance, 1e-30)))) for code, chance in found]
    return [(code, nats) for code, nats in behind if nats <= near]


def nats_apart(runtime, cross, result: Result, tokens: list[int]) -> float:
    """By how many nats the pair prefers its own token where `tokens` first differ from it; 0 where they never do."""
    theirs, ours = [*result.tokens, runtime.rules.end], [*tokens, runtime.rules.end]
    i = next((i for i, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1]), None)
    if i is None:
        return 0.0
    forced = np.array([[*result.prompt, *result.tokens[:i]]], np.int64)
    logits, _ = runtime.step(forced, cross, None)
    scores = log_softmax(logits[0, -1])
    return max(float(scores[theirs[i]] - scores[ours[i]]), 1e-9)


def mel_alone(path: Path) -> bytes:
    """The graph up to its features, as a model of its own: what the encoder is given."""
    return cut_out(path, FEATURES)


def cut_out(path: Path, name: str) -> bytes:
    """What the value `name` is made of, as a model whose only output it is."""
    model = onnx.load(path, load_external_data=False)
    wanted, kept = {name}, []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            kept.insert(0, node)
            alone = onnx.helper.make_graph([node], "", [], [])
            wanted.update(nested for inner in graph.nodes(alone) for nested in inner.input)
    weights = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    for tensor in weights:
        if tensor.external_data:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
    inputs = [value for value in model.graph.input if value.name in wanted]
    output = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    part = onnx.helper.make_graph(kept, "part", inputs, [output], weights)
    return onnx.helper.make_model(part, opset_imports=model.opset_import,
                                  ir_version=model.ir_version).SerializeToString()


def token_rules(path: Path, rules: TokenRules) -> Gate:
    """The tokens that the graph allows, first and later, are those that decoding.py allows, whether likely or not.

    A rule that is missing shows in no text until the token it should forbid is the likeliest.
    """
    import onnxruntime

    mask = onnxruntime.InferenceSession(cut_out(path, MASK), providers=["CPUExecutionProvider"]).run(None, {})[0]
    wrong = []
    for row, steps in ((FIRST, 0), (LATER, 1)):
        right = rules.apply(np.zeros((1, rules.vocab_size), np.float32), np.zeros((1, steps), np.int64), False)[0]
        wrong += np.flatnonzero((mask[row] == 0) != (right == 0)).tolist()
    languages = set(np.flatnonzero(mask[LANGUAGE] == 0).tolist()) ^ set(rules.languages.values())
    wrong += sorted(languages)
    return Gate("tokens that may come", not wrong, len(wrong), 0,
                f"wrongly allowed or forbidden: {', '.join(map(str, wrong[:5])) or 'none'}")
