"""Which pair of parts a user asks for: a preset, or one with a part swapped."""

from pathlib import Path

from whisper_lab import hub
from whisper_lab.speech_llm import miniature
from whisper_lab.speech_llm.configuration_asr import ASRConfig


def find(pair: tuple[str, str] | None, folder: Path, swap_encoder: str | None, swap_decoder: str | None,
         **options) -> tuple[ASRConfig, ASRConfig]:
    """(the preset's configuration, the one after the swap); twice the same where nothing is swapped.

    pair: encoder and decoder; None: those of the miniature in `folder`; options: fields of ASRConfig, None for its
    own default. Raises ASRError for parts that do not exist or do not fit, LabError for a missing miniature.
    """
    options = {name: value for name, value in options.items() if value is not None}
    kept = miniature.configuration(folder) if pair is None else None
    if kept is not None and not options and not swap_encoder and not swap_decoder:
        return kept, kept
    if kept is not None:
        pair = kept.audio_model_id, kept.text_model_id
        options = {"audio_downsample_rate": kept.audio_downsample_rate, "projector_type": kept.projector_type} | options
    local = {"local_files_only": bool(hub.offline())}
    before = ASRConfig.from_parts(*pair, **local, **options)
    if not swap_encoder and not swap_decoder:
        return before, before
    return before, ASRConfig.from_parts(swap_encoder or pair[0], swap_decoder or pair[1], **local, **options)
