"""`from src.asr_modeling import ASRModel`, as the course text has it: whisper_lab's ASRModel.

Of the course's own pair, 17 GB in float16, it is a blueprint: every module and shape, no weights, so that looking at it
takes seconds. What transcribes is in the folder speech_llm_model_dir/nano-asr; script 07 shows both.
"""

import sys

import torch

from src.asr_config import PARTS
from whisper_lab import speech_llm
from whisper_lab.speech_llm import parts


class ASRModel(speech_llm.ASRModel):
    """The lab's model; `ASRModel(config)` of the course's pair has no weights."""

    def __init__(self, config, *given):
        """given: encoder and decoder, where they are loaded already."""
        if given or (config.audio_model_id, config.text_model_id) != PARTS:
            super().__init__(config, *given)
            return
        print("note: this ASRModel is a blueprint, without weights; one that transcribes: "
              "python 07-explore-architecture.py media/kitchen.wav", file=sys.stderr)
        with torch.device("meta"):
            super().__init__(config, parts.empty_audio_encoder(config.audio_config),
                             parts.empty_text_decoder(config.text_config))
