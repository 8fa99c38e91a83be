"""ASRConfig: the blueprint of an encoder-projector-decoder model.

    config = ASRConfig.from_parts("openai/whisper-large-v3", "Qwen/Qwen2-7B-Instruct")
    config.encoder_dim, config.llm_dim, config.audio_downsample_rate        # 1280, 3584, 5

The dimensions are read from the configurations of the two parts, which are kept inside: they are never set by hand.
"""

import os
from pathlib import Path

from transformers import CONFIG_MAPPING, PretrainedConfig

from .parts import ASRError, read_config, width

PARTS = ("audio_model_id", "text_model_id")


class ASRConfig(PretrainedConfig):
    """What the two frozen parts are, what stands between them, and how to ask for a transcript.

    audio_model_id, text_model_id: folder or Hub id of the frozen parts; audio_config, text_config: their
    configurations; audio_downsample_rate: encoder positions to one vector; projector_type: a name in
    projectors.PROJECTORS; prompt: the text around the one `audio_token`; end_token: where the transcript ends;
    max_transcript_tokens and transcript_beams: how long it may get, and how many beginnings the search keeps.
    """

    model_type = "asr_model"

    audio_model_id: str = "openai/whisper-large-v3"
    text_model_id: str = "Qwen/Qwen2-7B-Instruct"
    audio_config: object = None
    text_config: object = None
    encoder_dim: int | None = None
    llm_dim: int | None = None
    audio_downsample_rate: int = 5
    projector_type: str = "linear"
    projector_hidden_dim: int | None = None
    projector_experts: int | None = None
    projector_experts_per_frame: int | None = None
    audio_token: str = "<audio>"
    audio_token_id: int | None = None
    end_token: str = "<|im_end|>"
    end_token_id: int | None = None
    prompt: str = "<|im_start|>user\nTranscribe: <audio><|im_end|>\n<|im_start|>assistant\n"
    max_transcript_tokens: int = 128
    transcript_beams: int = 1

    def __post_init__(self, **kwargs):
        self.audio_config = _as_config(self.audio_config)
        self.text_config = _as_config(self.text_config)
        self.encoder_dim = _derive("encoder_dim", self.encoder_dim, self.audio_config, self.audio_model_id)
        self.llm_dim = _derive("llm_dim", self.llm_dim, self.text_config, self.text_model_id)
        super().__post_init__(**kwargs)

    @classmethod
    def from_parts(cls, audio_model_id: str, text_model_id: str, local_files_only: bool = False, **options):
        """The blueprint of two parts: reads both configurations. Raises ASRError for a part that does not fit."""
        return cls(
            audio_model_id=str(audio_model_id), text_model_id=str(text_model_id),
            audio_config=read_config(str(audio_model_id), "audio", local_files_only),
            text_config=read_config(str(text_model_id), "text", local_files_only), **options)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """As in transformers; parts that are named relative to the saved folder get their place on this machine."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        for part in PARTS:
            named = getattr(config, part)
            if named.startswith("."):
                place = (Path(pretrained_model_name_or_path) / named).resolve()
                setattr(config, part, os.path.relpath(place) if place.is_relative_to(Path.cwd()) else str(place))
        return loaded

    def save_pretrained(self, save_directory, **kwargs):
        """As in transformers; parts that are folders are named relative to `save_directory`."""
        ids = {part: getattr(self, part) for part in PARTS}
        try:
            for part, name in ids.items():
                if Path(name).is_dir():
                    relative = os.path.relpath(Path(name).resolve(), Path(save_directory).resolve())
                    setattr(self, part, relative if relative.startswith(".") else f"./{relative}")
            super().save_pretrained(save_directory, **kwargs)
        finally:
            for part, name in ids.items():
                setattr(self, part, name)

    def to_dict(self) -> dict:
        """A plain dictionary; the parts' configurations as dictionaries of their own."""
        made = super().to_dict()
        for name in ("audio_config", "text_config"):
            config = getattr(self, name)
            made[name] = config.to_diff_dict() | {"model_type": config.model_type} if config is not None else None
        return made


def _as_config(config):
    """A part's configuration from what stands in config.json."""
    return CONFIG_MAPPING[config["model_type"]].from_dict(config) if isinstance(config, dict) else config


def _derive(field: str, claimed: int | None, config, part: str) -> int | None:
    """The dimension as the part has it; an error where something else is claimed."""
    if config is None:
        return claimed
    if claimed is not None and claimed != width(config):
        raise ASRError(f"{field} is given as {claimed}, but {part} has {width(config)}",
                       f"leave {field} out: it follows from the part")
    return width(config)
