"""The frozen parts of the model: which they are, how wide they are, and how to get them.

A part is named by a folder, by one of the ids below, whose architecture is built in (so that a blueprint needs no
network), or by any other id on the Hugging Face Hub.
"""

from pathlib import Path

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    Qwen2Config,
    WhisperConfig,
    WhisperModel,
)


class ASRError(ValueError):
    """What is wrong, and what to do about it, one line each."""

    def __init__(self, problem: str, remedy: str):
        super().__init__(f"{problem}; {remedy}")
        self.problem, self.remedy = problem, remedy


def first_line(error: Exception) -> str:
    """What an exception says, short enough for one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# The numbers of the published checkpoints, as in the config.json of each.
# Whisper: width, layers of the encoder, of the decoder, heads, mel bins, vocabulary.
_WHISPERS = {
    "tiny": (384, 4, 4, 6, 80, 51865), "base": (512, 6, 6, 8, 80, 51865), "small": (768, 12, 12, 12, 80, 51865),
    "medium": (1024, 24, 24, 16, 80, 51865), "large-v2": (1280, 32, 32, 20, 80, 51865),
    "large-v3": (1280, 32, 32, 20, 128, 51866), "large-v3-turbo": (1280, 32, 4, 20, 128, 51866),
}
# Qwen2: width, layers, heads, key-value heads, width of the feed-forward layers, vocabulary, tied embeddings.
_QWENS = {
    "0.5B": (896, 24, 14, 2, 4864, 151936, True), "1.5B": (1536, 28, 12, 2, 8960, 151936, True),
    "7B": (3584, 28, 28, 4, 18944, 152064, False), "72B": (8192, 80, 64, 8, 29568, 152064, False),
}


def _whisper(width: int, layers: int, decoder_layers: int, heads: int, mels: int, vocabulary: int) -> WhisperConfig:
    return WhisperConfig(
        d_model=width, encoder_layers=layers, decoder_layers=decoder_layers, encoder_attention_heads=heads,
        decoder_attention_heads=heads, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width, num_mel_bins=mels,
        vocab_size=vocabulary)


def _qwen2(width: int, layers: int, heads: int, kv_heads: int, ffn: int, vocabulary: int, tied: bool) -> Qwen2Config:
    return Qwen2Config(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        intermediate_size=ffn, vocab_size=vocabulary, tie_word_embeddings=tied, max_position_embeddings=32768)


def built_in() -> dict:
    """Every id whose architecture is built in -> a function that makes its configuration."""
    known = {f"openai/whisper-{size}": (_whisper, numbers) for size, numbers in _WHISPERS.items()}
    for size, numbers in _QWENS.items():
        known |= {f"Qwen/Qwen2-{size}": (_qwen2, numbers), f"Qwen/Qwen2-{size}-Instruct": (_qwen2, numbers)}
    return known


def read_config(model_id: str, role: str, local_files_only: bool = False):
    """The configuration of a part; `role` is "audio" or "text". Raises ASRError where there is none, or it cannot be
    that part: the audio part must be a Whisper, the text part a causal language model."""
    known = built_in()
    if model_id in known and not Path(model_id).is_dir():
        make, numbers = known[model_id]
        config = make(*numbers)
    else:
        config = _fetch_config(model_id, role, local_files_only)
    if role == "audio" and config.model_type != "whisper":
        raise ASRError(f"{model_id} cannot be the audio encoder: it is a {config.model_type}, not a Whisper",
                       "name a Whisper, such as openai/whisper-base or whisper_model_dir/whisper-nano")
    if role == "text" and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or role == "text" and _listens(config):
        raise ASRError(f"{model_id} cannot be the text decoder: a {config.model_type} is not a causal language model",
                       "name a decoder-only language model, such as Qwen/Qwen2-0.5B-Instruct")
    return config


def _listens(config) -> bool:
    """Whisper's decoder is registered as a causal language model too; it wants an encoder, not audio vectors."""
    return bool(getattr(config, "is_encoder_decoder", False))


def _fetch_config(model_id: str, role: str, local_files_only: bool):
    try:
        # Left out, transformers would ask whether to run a repository's own code, and take a y from a pipe.
        return AutoConfig.from_pretrained(model_id, local_files_only=local_files_only, trust_remote_code=False)
    except Exception as error:  # a folder without config.json, no network, no such repository, an unknown kind
        if "trust_remote_code" in str(error):
            raise ASRError(f"the {role} part '{model_id}' needs code of its own, which is never run here",
                           "name a part whose architecture is built into transformers") from error
        reason = first_line(error)
        near = ", ".join(name for name in built_in() if ("whisper" in name) == (role == "audio"))
        raise ASRError(f"the {role} part '{model_id}' is not known here: {reason}",
                       f"name a folder, an id on the Hub, or one that is built in: {near}") from error


def width(config) -> int:
    """Length of the vectors that an audio part gives, or that a text part takes."""
    return config.get_text_config().hidden_size


def window_frames(audio_config) -> int:
    """Mel frames in the encoder's window: two for every position, because its second convolution has stride 2."""
    return 2 * audio_config.max_source_positions


def encoder_positions(frames):
    """Encoder positions of `frames` mel frames (int or integer tensor): kernel 3, padding 1, stride 2."""
    return (frames + 1) // 2


def load_audio_encoder(model_id: str, config, dtype=None) -> WhisperModel:
    """The Whisper of `model_id` without its decoder. Raises ASRError where weights are missing."""
    model = _load(WhisperModel, model_id, config, dtype)
    model.decoder = None
    return model


def load_text_decoder(model_id: str, config, dtype=None):
    """The language model of `model_id`. Raises ASRError where weights are missing."""
    return _load(AutoModelForCausalLM, model_id, config, dtype)


def _load(model_class, model_id: str, config, dtype):
    try:
        model, info = model_class.from_pretrained(
            model_id, config=config, dtype=dtype or torch.float32, output_loading_info=True, trust_remote_code=False)
    except Exception as error:
        raise ASRError(f"the weights of {model_id} cannot be loaded: {first_line(error)}",
                       "download it once with a network, or name a folder") from error
    if missing := sorted(info["missing_keys"]):
        raise ASRError(f"{model_id} lacks {len(missing)} of its weights, such as {missing[0]}", "fetch it again")
    return model


def empty_audio_encoder(config) -> WhisperModel:
    """The same architecture with no numbers in it yet: random ones, or none at all under torch.device("meta")."""
    small = type(config).from_dict(config.to_dict() | {"decoder_layers": 1})  # the decoder is thrown away anyway
    model = WhisperModel(small)
    model.decoder = None
    model.config = config
    return model


def empty_text_decoder(config):
    """The same for a language model."""
    return AutoModelForCausalLM.from_config(config)
