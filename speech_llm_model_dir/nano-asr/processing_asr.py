"""ASRProcessor: samples to features with their mask, the prompt around them to tokens, and tokens back to text.

    batch = processor(samples)                      # one clip, or a list of clips: float [n] at 16 kHz
    batch = processor(samples, transcript="hello")  # with labels, for training
    processor.batch_decode(model.generate(**batch))
"""

import numpy as np
import torch
from transformers import ProcessorMixin
from transformers.feature_extraction_utils import BatchFeature

from .configuration_asr import ASRConfig
from .parts import ASRError

IGNORE = -100  # the label that cross-entropy skips


class ASRProcessor(ProcessorMixin):
    """A Whisper feature extractor and a language model's tokenizer that knows the audio token."""

    def __init__(self, feature_extractor, tokenizer, prompt: str | None = None, audio_token: str = "<audio>",
                 end_token: str = "<|im_end|>"):
        super().__init__(feature_extractor, tokenizer)
        self.prompt, self.audio_token, self.end_token = prompt or ASRConfig.prompt, audio_token, end_token
        if audio_token not in tokenizer.get_vocab():
            tokenizer.add_special_tokens({"additional_special_tokens": [audio_token]})
        self.chat_template = None

    @classmethod
    def for_config(cls, config: ASRConfig, feature_extractor, tokenizer) -> "ASRProcessor":
        """A processor for a model, and the token ids that generation needs noted in the model's configuration."""
        made = cls(feature_extractor, tokenizer, config.prompt, config.audio_token, config.end_token)
        config.audio_token_id = tokenizer.convert_tokens_to_ids(config.audio_token)
        config.end_token_id = tokenizer.convert_tokens_to_ids(config.end_token)
        if config.end_token not in tokenizer.get_vocab():
            raise ASRError(f"the tokenizer does not know {config.end_token}", "set end_token to one it knows")
        mels = feature_extractor.feature_size
        if mels != config.audio_config.num_mel_bins:
            raise ASRError(f"the feature extractor makes {mels} mel bins, {config.audio_model_id} hears "
                           f"{config.audio_config.num_mel_bins}", "take both from the same checkpoint")
        return made

    def __call__(self, audio, prompt: str | list[str] | None = None, transcript: str | list[str] | None = None,
                 sampling_rate: int = 16000, **_) -> BatchFeature:
        """Everything that forward and generate want, as tensors.

        audio: float [n] or a list of them; prompt: text with the audio token in it once (default: the model's own);
        transcript: the right answers, which become labels. Raises ASRError for another sampling rate, for sound
        longer than the window or without samples, and for a prompt without its audio token.
        """
        several = isinstance(audio, (list, tuple)) and len(audio) > 0 and np.ndim(audio[0]) > 0
        clips = [np.asarray(clip, np.float32) for clip in (audio if several else [audio])]
        self._check(clips, sampling_rate)
        heard = self.feature_extractor(clips, sampling_rate=sampling_rate, return_tensors="pt",
                                       return_attention_mask=True)
        prompts = self._prompts(prompt, len(clips))
        answers = [transcript] if isinstance(transcript, str) else transcript
        return BatchFeature({"input_features": heard.input_features, "audio_attention_mask": heard.attention_mask,
                             **self.tokens(prompts, answers)})

    def tokens(self, prompts: list[str], answers: list[str] | None = None) -> dict[str, torch.Tensor]:
        """input_ids and attention_mask [batch, tokens]; with answers also labels, which leave the prompt out."""
        ids = [self.tokenizer(text, add_special_tokens=False).input_ids for text in prompts]
        labels = [[IGNORE] * len(row) for row in ids]
        if answers is not None:
            ends = [self.tokenizer(f"{text}{self.end_token}", add_special_tokens=False).input_ids for text in answers]
            ids = [row + end for row, end in zip(ids, ends, strict=True)]
            labels = [row + end for row, end in zip(labels, ends, strict=True)]
        made = {"input_ids": _padded(ids, 0), "attention_mask": _padded([[1] * len(row) for row in ids], 0)}
        return made | ({"labels": _padded(labels, IGNORE)} if answers is not None else {})

    def _check(self, clips: list[np.ndarray], sampling_rate: int) -> None:
        rate, window = self.feature_extractor.sampling_rate, self.feature_extractor.n_samples
        if sampling_rate != rate:
            raise ASRError(f"the sound has {sampling_rate} samples a second, the encoder wants {rate}",
                           "resample it; whisper_lab.audio.load does")
        for clip in clips:
            if clip.ndim != 1 or not len(clip):
                raise ASRError(f"a clip has the shape {list(clip.shape)}", "pass one row of samples, at least one")
            if len(clip) > window:
                raise ASRError(f"the clip lasts {len(clip) / rate:.1f} s, the encoder's window {window / rate:g} s",
                               f"cut it into pieces of at most {window / rate:g} s")

    def _prompts(self, prompt, count: int) -> list[str]:
        prompts = [prompt or self.prompt] * count if prompt is None or isinstance(prompt, str) else list(prompt)
        for text in prompts:
            if (found := text.count(self.audio_token)) != 1:
                raise ASRError(f"the prompt holds {self.audio_token} {found} times: {text!r}",
                               f"put {self.audio_token} exactly once where the sound belongs")
        return prompts

    def save_pretrained(self, save_directory, **kwargs):
        """As in transformers, and this file beside it, so that AutoProcessor finds it anywhere."""
        type(self).register_for_auto_class("AutoProcessor")
        return super().save_pretrained(save_directory, **kwargs)

    def batch_decode(self, ids, **kwargs) -> list[str]:
        """Transcripts of generated ids, without special tokens and outer spaces."""
        kwargs = {"skip_special_tokens": True} | kwargs
        return [text.strip() for text in self.tokenizer.batch_decode(ids, **kwargs)]


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])
