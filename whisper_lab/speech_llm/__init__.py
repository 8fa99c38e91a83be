"""An encoder-projector-decoder model for speech in transformers' style: a Whisper listens, a language model writes.

    from whisper_lab.speech_llm import ASRConfig, ASRModel, ASRProcessor

The modules here import only torch, transformers and each other, because `save_pretrained` copies them beside the
weights: a saved folder loads in a process that has never heard of this lab.
"""

from whisper_lab.checkpoints import import_transformers

_transformers = import_transformers()  # before anything else imports it: see there

from whisper_lab.speech_llm.configuration_asr import ASRConfig  # noqa: E402
from whisper_lab.speech_llm.modeling_asr import ASRModel  # noqa: E402
from whisper_lab.speech_llm.parts import ASRError  # noqa: E402
from whisper_lab.speech_llm.processing_asr import ASRProcessor  # noqa: E402
from whisper_lab.speech_llm.projectors import PROJECTORS  # noqa: E402

_transformers.AutoConfig.register(ASRConfig.model_type, ASRConfig)
_transformers.AutoModel.register(ASRConfig, ASRModel)
_transformers.AutoProcessor.register(ASRConfig, ASRProcessor)

__all__ = ["PROJECTORS", "ASRConfig", "ASRError", "ASRModel", "ASRProcessor"]
