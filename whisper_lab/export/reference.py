"""What PyTorch says: the yardstick of the parity gates. Computed once per checkpoint with Hugging Face's own forward.

Three sounds, because random inputs alone miss the outliers that real speech drives Whisper's activations to: a clip of
speech, digital silence, and noise.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whisper_lab import console
from whisper_lab.decoding import Options, Result, decode_encoded
from whisper_lab.features import FeatureSpec, log_mel

MEDIA = Path(__file__).resolve().parents[2] / "media"
STEPS = 48  # tokens decoded per sound; enough to see a loop, short enough for two cores


@dataclass(frozen=True)
class Sound:
    """One window and PyTorch's answers; rows of logits belong to the tokens of `forced`."""

    name: str
    features: np.ndarray  # [1, n_mels, frames]
    hidden: np.ndarray  # [1, positions, d_model]
    cross: list[np.ndarray]  # key, value per decoder layer [1, heads, positions, head_dim]
    forced: np.ndarray  # int64 [1, T]: the prompt and PyTorch's own greedy answer
    prompt_length: int
    logits: np.ndarray  # [1, T, vocabulary]
    self_caches: list[np.ndarray]  # key, value per layer [1, heads, T, head_dim]
    result: Result


def sounds(spec: FeatureSpec, seed: int = 0) -> dict[str, np.ndarray]:
    """name -> samples in -1..1 of at most one window: speech, silence, noise at -30 dBFS."""
    noise = np.random.default_rng(seed).standard_normal(spec.n_samples).astype(np.float32)
    return {"speech": _speech(spec), "silence": np.zeros(spec.n_samples, np.float32), "noise": noise * 10 ** (-30 / 20)}


def _speech(spec: FeatureSpec) -> np.ndarray:

    clips = sorted(MEDIA.glob("*.wav")) + sorted(MEDIA.glob("*.flac"))
    if clips:
        from whisper_lab import audio

        return audio.load(clips[0]).samples[:spec.n_samples]
    console.note("speech for the gates", "synthetic vowels", "media/ holds no clip")
    return vowels(spec.sampling_rate)


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


def make(runtime, seed: int = 0) -> list[Sound]:
    """Run TorchWhisper over the three sounds."""
    return [listen(runtime, name, samples) for name, samples in sounds(runtime.spec, seed).items()]


def listen(runtime, name: str, samples: np.ndarray) -> Sound:
    """PyTorch's hidden states, caches, greedy text and teacher-forced logits for one window."""
    features = log_mel(samples, runtime.spec)[None]
    states = runtime.encode(features)
    rules = runtime.rules
    language = next(iter(rules.languages), None)  # any: detection is not what is tested here
    options = Options(language=language, max_tokens=min(STEPS, rules.max_positions // 2))
    result = decode_encoded(runtime, states, 1, options)[0]
    forced = np.array([[*result.prompt, *result.tokens]], np.int64)
    logits, cache = runtime.step(forced, states, None)
    return Sound(name, features, states.numpy(), _pairs(cache.cross_attention_cache), forced, len(result.prompt),
                 logits, _pairs(cache.self_attention_cache), result)


def _pairs(cache) -> list[np.ndarray]:
    return [tensor.numpy() for layer in cache.layers for tensor in (layer.keys, layer.values)]
