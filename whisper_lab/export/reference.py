"""What PyTorch says: the yardstick of the parity gates. Computed once per checkpoint with Hugging Face's own forward.

Three sounds for the numbers, because random inputs alone miss the outliers that real speech drives Whisper's
activations to: as many sentences of media/ as fit in a window, digital silence, and noise. Their hidden states, caches
and logits are PyTorch's, in float64 where float32 or float16 is to be judged; beside them is how far PyTorch itself is
from these in that precision. The other clips of media/ are for the text: what a quantized pair understands is compared
with what PyTorch understands.
"""

import contextlib
import functools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from whisper_lab import console, machine
from whisper_lab.decoding import Options, Result, decode_encoded
from whisper_lab.export.gates import ARITHMETIC
from whisper_lab.export.on_disk import OnDisk, stored
from whisper_lab.features import FeatureSpec, log_mel

# Reference in another precision ---------------------------------------------------------------------------------------

# PyTorch computed more exactly than it does (float64), or less (float16): the yardstick of the arithmetic gates.
#
# How far a graph may be from PyTorch cannot be a constant: the activations of a real Whisper have outliers a hundred
# times their median, those of random weights have none. So the lab measures how far PyTorch itself, in float32 or
# float16, is from the same network in float64, and lets a graph be off by a small multiple of that.

UNIT = {"fp32": 2.0**-25, "fp16": 2.0**-12}  # typical error of a single rounding: a yardstick is never shorter

BLOCK = 4096  # rows of a matrix that are widened at once


@dataclass
class Pool:
    """The error of several arrays as one number: root mean square, relative to the spread of the right values."""

    noise: float = 0.0  # sum of squares of the differences
    signal: float = 0.0  # sum of squares of the right values around the mean of their array

    def add(self, test: np.ndarray, right: np.ndarray) -> "Pool":
        """Count one more array; one that is not finite, or has another shape, makes the error infinite for good."""
        if np.shape(test) != right.shape or not np.isfinite(test).all():
            self.noise = float("inf")
            return self
        self.noise += _square(np.subtract(test, right, dtype=np.float64))
        self.signal += _square(np.subtract(right, right.mean(dtype=np.float64), dtype=np.float64))
        return self

    @property
    def error(self) -> float:
        """sqrt(noise / signal)"""
        return float(np.sqrt(self.noise / max(self.signal, 1e-24)))

    @property
    def decibels(self) -> float:
        """Signal to noise: 20 dB is a tenth of error, 40 dB a hundredth; infinite without noise, -infinite for NaN."""
        if not np.isfinite(self.noise):
            return -float("inf")
        return float(10 * np.log10(max(self.signal, 1e-24) / self.noise)) if self.noise else float("inf")


def _square(array: np.ndarray) -> float:
    return float(np.vdot(array, array))


@contextlib.contextmanager
def in_float64(model) -> Iterator[None]:
    """Every layer computes in float64 while this lasts; its weights are widened for as long as it is at work.

    So a large model needs room for one layer in float64, not for all.
    """
    with _computed(model, lambda tensor: tensor.double(), lambda tensor: tensor.double()):
        yield


@contextlib.contextmanager
def in_float16(model, operators: bool = True) -> Iterator[None]:
    """Weights are rounded to float16, and with `operators` all that enters and leaves a layer.

    Products are summed in float32, as a GPU and these graphs do. PyTorch's own half precision on a CPU gives the same
    roundings and takes minutes.
    """
    def rounded(tensor):
        return tensor.half().float()

    with _computed(model, rounded, rounded if operators else lambda tensor: tensor):
        yield


@contextlib.contextmanager
def _computed(model, weight: Callable, value: Callable) -> Iterator[None]:
    """Let every module that has weights of its own compute with weight(parameter), value(input), value(output)."""
    import torch

    hooks = _Hooks(weight, value)
    leaves = [module for module in model.modules() if any(True for _ in module.parameters(recurse=False))
              and not any(True for _ in module.children())]
    linear = [module for module in leaves if isinstance(module, torch.nn.Linear)]
    handles = [handle for module in leaves for handle in (module.register_forward_pre_hook(hooks.before),
                                                          module.register_forward_hook(hooks.after))]
    for module in linear:
        module.forward = functools.partial(_in_blocks, module, weight)
    try:
        yield
    finally:
        hooks.restore()
        for handle in handles:
            handle.remove()
        for module in linear:
            del module.forward


class _Hooks:
    """What happens before and after a module computes: its weights are replaced for as long as it is at work."""

    def __init__(self, weight: Callable, value: Callable):
        self.weight, self.value, self.kept = weight, value, {}

    def before(self, module, args) -> tuple:
        """The module's inputs, treated."""
        import torch

        if not isinstance(module, torch.nn.Embedding | torch.nn.Linear):  # a lookup: its output is treated instead
            for parameter in module.parameters(recurse=False):
                self.kept[parameter] = parameter.data
                parameter.data = self.weight(parameter.data)
        return tuple(self._treated(item) for item in args)

    def after(self, module, args, output):
        """The module's output, treated."""
        self.restore()
        return self._treated(output)

    def restore(self) -> None:
        """Give the module that was at work its own weights back."""
        for parameter, data in self.kept.items():
            parameter.data = data
        self.kept.clear()

    def _treated(self, item):
        import torch

        return self.value(item) if isinstance(item, torch.Tensor) and item.is_floating_point() else item


def _in_blocks(module, weight: Callable, x):
    """x W + b, some rows of W at a time: the token embedding in float64 would be as large as a small model."""
    import torch

    found = []
    for first in range(0, module.out_features, BLOCK):
        rows = slice(first, first + BLOCK)
        bias = None if module.bias is None else weight(module.bias[rows])
        found.append(torch.nn.functional.linear(x, weight(module.weight[rows]), bias))
    return found[0] if len(found) == 1 else torch.cat(found, dim=-1)


@dataclass(frozen=True)
class Arithmetic:
    """The precisions whose arithmetic is judged, by PyTorch's own errors in them.

    Where there are none, float32's answers are right enough: int8 and int4 are off by a thousand times its rounding.
    """

    precisions: tuple[str, ...] = ARITHMETIC
    fp16_mode: str = "full"  # or weights: what half precision means (03's --fp16-mode)

    def right(self, model) -> contextlib.AbstractContextManager:
        """In which PyTorch's answers are right."""
        return in_float64(model) if self.precisions else contextlib.nullcontext()

    def yardsticks(self, model) -> dict[str, contextlib.AbstractContextManager]:
        """Precision -> in which PyTorch rounds as it does in that precision."""
        every = {"fp32": contextlib.nullcontext(), "fp16": in_float16(model, operators=self.fp16_mode == "full")}
        return {precision: every[precision] for precision in self.precisions}


BOTH = Arithmetic()


@contextlib.contextmanager
def lean_attention(model) -> Iterator[None]:
    """PyTorch's fused attention, which never forms the weights: in float64 those of one layer take 144 MB in base."""
    chosen = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(chosen)


# What PyTorch says ----------------------------------------------------------------------------------------------------

MEDIA = Path(__file__).resolve().parents[2] / "media"
STEPS = {True: 128, False: 48}  # tokens decoded of speech; of noise, where 48 are enough to see a loop
SURE = -0.7  # mean log-probability of PyTorch's tokens below which it only guesses what was said
SPEECH, SILENCE, NOISE, SHORT = "speech", "silence", "noise", "short window"
QUIET = (SILENCE, NOISE)  # sounds without words


@dataclass(frozen=True)
class Spoken:
    """PyTorch's greedy answer to one window, and the logits on its way."""

    result: Result
    logits: np.ndarray = OnDisk()  # [1, T, vocabulary]: a row per token of the prompt and the answer
    timestamps: bool
    cut: bool  # the answer was longer than was looked at

    @property
    def forced(self) -> np.ndarray:
        """int64 [1, T]: the prompt and the answer"""
        return np.array([[*self.result.prompt, *self.result.tokens]], np.int64)


@dataclass(frozen=True)
class Sound:
    """One window and PyTorch's answers; rows of logits belong to the tokens of `forced`."""

    name: str
    features: np.ndarray  # [1, n_mels, frames]; of a short one fewer than the window has
    hidden: np.ndarray  # [1, positions, d_model]
    cross: list[np.ndarray] = OnDisk()  # key, value per decoder layer [1, heads, positions, head_dim]; may be empty
    forced: np.ndarray  # int64 [1, T]: the prompt and PyTorch's own greedy answer
    prompt_length: int
    logits: np.ndarray = OnDisk()  # [1, T, vocabulary]
    self_caches: list[np.ndarray]  # key, value per layer [1, heads, T, head_dim]; empty where `cross` is
    result: Result
    timed: Spoken | None = None  # the answer with timestamps; of speech only
    cut: bool = False  # the answer was longer than the gates look at
    rounding: dict[str, dict[str, Pool]] = field(default_factory=dict)  # fp32, fp16 -> tensor -> PyTorch's own error
    is_short: bool = False  # only the beginning of the window was heard
    stream: dict[str, np.ndarray] = field(default_factory=dict)  # LayerNorm -> what it reads; not of silence and noise

    @property
    def is_speech(self) -> bool:
        return self.name not in QUIET

    @property
    def spoken(self) -> Spoken:
        """The answer without timestamps."""
        return Spoken(self.result, stored(self, "logits"), False, self.cut)

    @property
    def has_caches(self) -> bool:
        """Whether PyTorch was asked in float64 too: of the three sounds and the short ones, not of the other clips."""
        return bool(self.self_caches)


@dataclass(frozen=True)
class Clip:
    """Samples in -1..1 of at most one window, and the language spoken, where it is known."""

    samples: np.ndarray
    language: str | None = None


def sounds(spec: FeatureSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """name -> samples in -1..1 of at most one window: speech, silence, noise at -30 dBFS."""
    return {name: clip.samples for name, clip in _three(spec, seed, clips(spec)).items()}


def _three(spec: FeatureSpec, seed: int, found: dict[str, Clip]) -> dict[str, Clip]:
    noise = np.random.default_rng(seed).standard_normal(spec.n_samples).astype(np.float32)
    speech = max(found.values(), key=lambda clip: len(clip.samples), default=None)
    speech = speech or Clip(_cut(spec))  # a window of a second: no sentence fits
    return {SPEECH: speech, SILENCE: Clip(np.zeros(spec.n_samples, np.float32)), NOISE: Clip(noise * 10 ** (-30 / 20))}


def _cut(spec: FeatureSpec) -> np.ndarray:
    from whisper_lab import audio

    for path in sorted(MEDIA.glob("*.wav")):
        return audio.load(path).samples[:spec.n_samples]
    console.note("speech for the gates", "synthetic vowels", "media/ holds no clip")
    return vowels(spec.sampling_rate)[:spec.n_samples]


def clips(spec: FeatureSpec) -> dict[str, Clip]:
    """The recordings of media/ by name, each up to the last sentence that ends within one window."""
    from whisper_lab import audio

    try:
        known = json.loads((MEDIA / "references.json").read_text(encoding="utf-8"))
    except OSError:
        return {}
    found = {}
    for name, facts in sorted(known.items()):
        ends = [round(segment["end_s"] * spec.sampling_rate) for segment in facts["segments"]]
        fitting = [end for end in ends if end <= spec.n_samples]
        if fitting and (MEDIA / name).is_file():
            samples = audio.load(MEDIA / name).samples
            end = len(samples) if len(samples) <= spec.n_samples else fitting[-1]
            found[Path(name).stem] = Clip(samples[:end], facts.get("language"))
    return found


def vowels(rate: int, seconds: float = 3.0) -> np.ndarray:
    """A pulse train of 120 Hz through the formants of four vowels in turn: voiced, harmonic, with onsets and pauses."""
    time = np.arange(int(rate * seconds)) / rate
    formants = np.array([(730, 1090), (270, 2290), (300, 870), (530, 1840)])[(time * 4).astype(int) % 4]
    voice = np.zeros_like(time)
    for harmonic in range(1, 30):
        frequency = 120 * harmonic
        gain = sum(1 / (1 + ((frequency - formants[:, i]) / 90) ** 2) for i in range(2))
        voice += gain * np.sin(2 * np.pi * frequency * time)
    voice *= np.sin(np.pi * ((time * 4) % 1)) ** 2
    return (0.3 * voice / np.abs(voice).max()).astype(np.float32)


def make(runtime, seed: int = 0, judged: Arithmetic = BOTH, more: bool = True) -> list[Sound]:
    """Run TorchWhisper over speech, silence and noise, and with `more` over the other clips of media/.

    A clip that the model does not understand (its
    language is unknown to it, or it is not sure of its words) says nothing about a graph and is left out. After the
    three come two clips in shorter windows.
    """
    found = clips(runtime.spec)
    three = _three(runtime.spec, seed, found)
    others = {name: clip for name, clip in found.items() if clip is not three[SPEECH] and _speaks(runtime, clip)}
    asked = [(name, clip, judged, None) for name, clip in three.items()]
    asked += [(f"{SHORT} of {positions} positions", clip, judged, 2 * positions)
              for positions, clip in _shorter(runtime, found).items()]
    asked += [(name, clip, None, None) for name, clip in others.items() if more]
    made = []
    with lean_attention(runtime.model):
        for one in console.counted(asked, "reference", "window"):
            made.append(listen(runtime, *one))
            machine.give_back_memory()  # what was in float64
    return [sound for sound in made if sound.name not in others or sound.result.avg_logprob >= SURE]


def _shorter(runtime, found: dict[str, Clip]) -> dict[int, Clip]:
    """Positions, an odd and an even number -> one of the two shortest clips that the model may understand."""
    whole = runtime.spec.n_frames // 2
    clips = sorted((clip for clip in found.values() if _speaks(runtime, clip)), key=lambda clip: len(clip.samples))
    clips = (clips or [Clip(_cut(runtime.spec))]) * 2
    return {int(whole * 0.4) | 1: clips[0], int(whole * 0.55) // 2 * 2: clips[1]}


def _speaks(runtime, clip: Clip) -> bool:
    return (clip.language or "en") in (runtime.rules.languages or ("en",))


def listen(runtime, name: str, clip: Clip | np.ndarray, judged: Arithmetic | None = None, frames: int | None = None
           ) -> Sound:
    """PyTorch's hidden states, caches, greedy text and teacher-forced logits for one window.

    With judged None the answers are float32's, without caches and without PyTorch's own errors. frames: as many of the
    window as are heard; None: all.
    """
    clip = clip if isinstance(clip, Clip) else Clip(clip)
    features = log_mel(clip.samples, runtime.spec, frames)[None]
    states, language = runtime.encode(features), _language(clip, runtime.rules.languages)
    plain = speak(runtime, states, language, most_tokens(runtime.rules, name not in QUIET))
    timed = speak(runtime, states, language, most_tokens(runtime.rules, True), True) if name not in QUIET else None
    forced = plain.forced
    facts = {"name": name, "features": features, "forced": forced, "prompt_length": len(plain.result.prompt),
             "result": plain.result, "timed": timed, "cut": plain.cut, "is_short": frames is not None}
    if judged is None:
        return Sound(**facts, hidden=states.numpy(), cross=[], logits=plain.logits, self_caches=[])
    stream = {}
    with judged.right(runtime.model), _norms(runtime.model, stream if name == SPEECH or frames else None):
        right = _answers(runtime, runtime.encode(features), forced)
    return Sound(**facts, hidden=right["hidden states"], cross=_named(right, "cross "), logits=right["logits"],
                 self_caches=_named(right, "self "), stream=stream,
                 rounding=_rounding(runtime, features, states, forced, right, judged))


def _language(clip: Clip, known) -> str | None:
    """The language for the prompt: silence has none, and detection is not what is tested here."""
    return next((code for code in (clip.language, "en", *known) if code in known), None)


def _rounding(runtime, features: np.ndarray, states, forced: np.ndarray, right: dict[str, np.ndarray],
              judged: Arithmetic) -> dict[str, dict[str, Pool]]:
    """Precision -> tensor -> how far PyTorch in that precision is from `right`; states: the encoder's in float32."""
    found = {}
    for precision, context in judged.yardsticks(runtime.model).items():
        with context:
            heard = states if precision == "fp32" else runtime.encode(features)
            seen = _answers(runtime, heard, forced, right["hidden states"])
        found[precision] = {tensor: Pool().add(seen[tensor], right[tensor]) for tensor in right}
        del seen  # as large as `right`, before the next is made
    return found


@contextlib.contextmanager
def _norms(model, into: dict | None):
    """Keep what every LayerNorm reads in `into`: the residual stream before each attention and feed-forward network."""
    import torch

    def keep(place):
        return lambda module, args: into.__setitem__(place, args[0].float().numpy())

    norms = {name.removeprefix("model."): module for name, module in model.named_modules()
             if isinstance(module, torch.nn.LayerNorm) and into is not None}
    handles = [module.register_forward_pre_hook(keep(place)) for place, module in norms.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def speak(runtime, states, language: str | None, most: int, timestamps: bool = False) -> Spoken:
    """PyTorch's greedy answer of at most `most` tokens to one window, from its encoder's states.

    language: None to detect it.
    """
    options = Options(language=language, max_tokens=most, timestamps=timestamps)
    result = decode_encoded(runtime, states, 1, options)[0]
    logits, _ = runtime.step(np.array([[*result.prompt, *result.tokens]], np.int64), states, None)
    return Spoken(result, logits, timestamps, len(result.tokens) == most)


def most_tokens(rules, speech: bool) -> int:
    """How many tokens of an answer the gates look at."""
    return min(STEPS[speech], rules.max_positions // 2)


def _answers(runtime, states, forced: np.ndarray, hidden: np.ndarray | None = None) -> dict:
    """Tensor -> float32 values; the decoder hears `hidden`, where given, so that its errors are its own."""
    import torch

    found, heads = {"hidden states": _float32(states)}, runtime.model.config.decoder_attention_heads
    with torch.inference_mode():
        for layer, module in enumerate(runtime.model.model.decoder.layers):
            for kind, project in (("key", module.encoder_attn.k_proj), ("value", module.encoder_attn.v_proj)):
                made = project(states)
                made = made.reshape(*made.shape[:2], heads, -1).transpose(1, 2)
                found[f"cross {kind} {layer}"] = _float32(made)  # at once: all of them in float64 are 74 MB in base
    logits, cache = runtime.step(forced, states if hidden is None else torch.from_numpy(hidden), None)
    for layer, kept in enumerate(cache.self_attention_cache.layers):
        found |= {f"self key {layer}": _float32(kept.keys), f"self value {layer}": _float32(kept.values)}
    return found | {"logits": logits}


def _float32(tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.float().numpy())


def _named(found: dict[str, np.ndarray], start: str) -> list[np.ndarray]:
    return [array for tensor, array in found.items() if tensor.startswith(start)]


def own_errors(sounds: Sequence[Sound], precision: str) -> dict[str, float]:
    """Tensor -> PyTorch's own error in that precision over all sounds, never below one rounding."""
    pools: dict[str, Pool] = defaultdict(Pool)
    for sound in sounds:
        for tensor, pool in sound.rounding.get(precision, {}).items():
            pools[tensor].noise += pool.noise
            pools[tensor].signal += pool.signal
    return {tensor: max(pool.error, UNIT[precision]) for tensor, pool in pools.items()}
