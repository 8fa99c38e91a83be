"""ASRModel: a frozen Whisper encoder, a projector that is trained, a frozen language model.

    model = ASRModel(config)                              # loads both frozen parts; the projector starts untrained
    model = ASRModel.blueprint(config)                    # the same modules without numbers
    ids = ASRModel.from_pretrained("speech_llm_model_dir/nano-asr").generate(**processor(samples))

What `save_pretrained` writes is the projector, the configuration that names the two frozen parts, and this code.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import cached_file

from . import parts
from .configuration_asr import ASRConfig
from .parts import ASRError
from .projectors import make_projector

WEIGHTS = "projector.safetensors"
IGNORE = -100  # the label that cross-entropy skips


class ASRModel(PreTrainedModel):
    """`audio_encoder` listens, `audio_projector` translates, `text_decoder` writes; only the translator learns."""

    config_class = ASRConfig
    main_input_name = "input_features"
    base_model_prefix = ""
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True  # the parts decide for themselves

    def __init__(self, config: ASRConfig, audio_encoder: nn.Module | None = None,
                 text_decoder: nn.Module | None = None):
        """Parts that are not given are loaded from the folders or ids that the configuration names."""
        super().__init__(config)
        if config.audio_config is None or config.text_config is None:
            raise ASRError("the configuration names its parts but does not know them",
                           "make it with ASRConfig.from_parts(audio_model_id, text_model_id)")
        self.audio_encoder = audio_encoder or parts.load_audio_encoder(config.audio_model_id, config.audio_config)
        self.audio_projector = make_projector(
            config.projector_type, config.encoder_dim, config.llm_dim, config.audio_downsample_rate,
            hidden_dim=config.projector_hidden_dim, experts=config.projector_experts,
            experts_per_frame=config.projector_experts_per_frame)
        self.text_decoder = text_decoder or parts.load_text_decoder(config.text_model_id, config.text_config)
        self._check_dimensions()
        self._match_loudness()
        for part in (self.audio_encoder, self.text_decoder):
            part.requires_grad_(False)
        self.eval()

    @classmethod
    def blueprint(cls, config: ASRConfig) -> "ASRModel":
        """All modules on PyTorch's meta device: every shape, no numbers, no download and no memory to speak of."""
        with torch.device("meta"):
            return cls(config, parts.empty_audio_encoder(config.audio_config),
                       parts.empty_text_decoder(config.text_config))

    def _check_dimensions(self) -> None:
        heard = self.audio_encoder.config.d_model
        read = self.text_decoder.get_input_embeddings().embedding_dim
        for part, has, says, field in ((self.config.audio_model_id, heard, self.config.encoder_dim, "encoder_dim"),
                                       (self.config.text_model_id, read, self.config.llm_dim, "llm_dim")):
            if has != says:
                raise ASRError(f"{part} has vectors of {has} numbers, but the configuration says {field} {says}",
                               "make the configuration again with ASRConfig.from_parts: it reads the parts")

    def _match_loudness(self) -> None:
        """Start with audio vectors as long as the decoder's own token embeddings: others it has never met."""
        table = self.text_decoder.get_input_embeddings().weight
        if table.device.type != "meta":
            nn.init.constant_(self.audio_projector.ln_post.weight, float(table.detach().float().pow(2).mean().sqrt()))

    def train(self, mode: bool = True) -> "ASRModel":
        """Training mode for the projector; the frozen parts stay in eval mode whatever is asked for."""
        super().train(mode)
        self.audio_encoder.eval()
        self.text_decoder.eval()
        return self

    # Audio in ---------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, input_features: torch.Tensor, audio_attention_mask: torch.Tensor | None = None) -> tuple:
        """The frozen encoder: [batch, mels, frames] -> (states [batch, positions, encoder_dim], positions [batch]).

        The encoder wants a full window, but only positions that the mask covers count as heard. Without a mask the
        whole window does. Raises ASRError for another number of frames or mel bins than the encoder's.
        """
        window, mels = parts.window_frames(self.config.audio_config), self.config.audio_config.num_mel_bins
        if input_features.shape[-1] > window:
            raise ASRError(f"the audio has {input_features.shape[-1]} mel frames, the encoder's window holds {window}",
                           f"cut the audio into pieces of at most {window / 100:g} s")
        if tuple(input_features.shape[1:]) != (mels, window):
            raise ASRError(f"features of shape {list(input_features.shape)} do not fit the encoder",
                           f"pad them to [batch, {mels}, {window}], as the model's own processor does")
        states = self.audio_encoder.encoder(input_features.to(self.audio_encoder.dtype)).last_hidden_state
        frames = torch.full(input_features.shape[:1], window, device=states.device)
        if audio_attention_mask is not None:
            frames = audio_attention_mask.sum(-1)
        positions = parts.encoder_positions(frames)
        longest = window // 2 if positions.device.type == "meta" else int(positions.max())
        return states[:, :longest], positions

    def project(self, states: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder states -> (audio vectors [batch, longest, llm_dim], how many of them count [batch])."""
        heard = torch.arange(states.shape[1], device=states.device) < positions[:, None]
        vectors = self.audio_projector(states.to(self.audio_projector.ln_pre.weight.dtype) * heard[..., None])
        return vectors, self.audio_projector.get_output_length(positions)

    def insert(self, input_ids, attention_mask, vectors, counts, labels=None, pad_left: bool = False) -> dict:
        """Put each sample's audio vectors in the place of its one audio token, then pad the batch again.

        input_ids, attention_mask, labels: [batch, tokens]; vectors: [batch, longest, llm_dim]; counts: [batch].
        """
        embed = self.text_decoder.get_input_embeddings()
        rows, targets = [], []
        for i, ids in enumerate(input_ids):
            kept = attention_mask[i].bool() if attention_mask is not None else torch.ones_like(ids, dtype=torch.bool)
            ids = ids[kept]
            at = self._place_of_audio(ids, i)
            audio = vectors[i, : int(counts[i])].to(embed.weight.dtype)
            rows.append(torch.cat([embed(ids[:at]), audio, embed(ids[at + 1 :])]))
            if labels is not None:
                target = labels[i][kept]
                targets.append(torch.cat([target[:at], target.new_full((len(audio),), IGNORE), target[at + 1 :]]))
        side = "left" if pad_left else "right"
        pad = nn.utils.rnn.pad_sequence
        made = {"inputs_embeds": pad(rows, True, padding_side=side),
                "attention_mask": pad([torch.ones(len(r), dtype=torch.long, device=r.device) for r in rows], True,
                                      padding_side=side)}
        return made | ({"labels": pad(targets, True, IGNORE, side)} if labels is not None else {})

    def _place_of_audio(self, ids: torch.Tensor, sample: int) -> int:
        places = (ids == self.config.audio_token_id).nonzero().flatten().tolist()
        if len(places) != 1:
            raise ASRError(f"sample {sample} has {len(places) or 'no'} {self.config.audio_token} "
                           f"token{'s' if len(places) > 1 else ''} in its prompt",
                           f"put {self.config.audio_token} exactly once where the sound belongs")
        return places[0]

    def _inputs(self, input_ids, input_features, audio_attention_mask, attention_mask, encoder_states,
                encoder_positions, labels=None, pad_left: bool = False) -> dict:
        if encoder_states is None:
            if input_features is None:
                raise ASRError("there is no sound", "pass input_features, as the model's own processor makes them")
            encoder_states, encoder_positions = self.encode(input_features, audio_attention_mask)
        vectors, counts = self.project(encoder_states, encoder_positions)
        return self.insert(input_ids, attention_mask, vectors, counts, labels, pad_left)

    # Text out ---------------------------------------------------------------------------------------------------------

    def forward(self, input_ids, input_features=None, audio_attention_mask=None, attention_mask=None, labels=None,
                encoder_states=None, encoder_positions=None, **kwargs):
        """The decoder's output for prompts with sound in them; with `labels` also its loss.

        input_ids, attention_mask, labels: int64 [batch, tokens], one audio token in each row, labels -100 where
        nothing is to be learnt; input_features: [batch, mels, frames]; audio_attention_mask: [batch, frames].
        Training on sound that was encoded before: encoder_states [batch, positions, encoder_dim] and
        encoder_positions [batch] instead of the features.
        """
        made = self._inputs(input_ids, input_features, audio_attention_mask, attention_mask, encoder_states,
                            encoder_positions, labels)
        output = self.text_decoder(**made, **kwargs)
        extra = getattr(self.audio_projector, "auxiliary_loss", None)
        if output.get("loss") is not None and extra is not None:
            output["loss"] += 0.01 * extra
        return output

    @torch.no_grad()
    def generate(self, input_ids=None, input_features=None, audio_attention_mask=None, attention_mask=None,
                 encoder_states=None, encoder_positions=None, **kwargs) -> torch.Tensor:
        """Token ids of the transcripts alone, [batch, longest]; `kwargs` go to the decoder's own generate."""
        made = self._inputs(input_ids, input_features, audio_attention_mask, attention_mask, encoder_states,
                            encoder_positions, pad_left=True)
        end = self.config.end_token_id
        options = {"max_new_tokens": self.config.max_transcript_tokens, "num_beams": self.config.transcript_beams,
                   "do_sample": False, "eos_token_id": end, "pad_token_id": end}
        return self.text_decoder.generate(**made, **(options | kwargs))

    @torch.no_grad()
    def generate_streaming(self, tokenizer, input_ids=None, input_features=None, audio_attention_mask=None,
                           attention_mask=None, max_new_tokens: int | None = None) -> Iterator[str]:
        """The greedy transcript of one sample, piece by piece (beams would change their mind): yields strings."""
        if len(input_ids) != 1:
            raise ASRError(f"streaming was asked for {len(input_ids)} samples at once", "stream one, or use generate")
        made = self._inputs(input_ids, input_features, audio_attention_mask, attention_mask, None, None)
        embeds, cache, ids, shown = made["inputs_embeds"], None, [], ""
        for _ in range(max_new_tokens or self.config.max_transcript_tokens):
            output = self.text_decoder(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
            ids.append(int(output.logits[0, -1].argmax()))
            if ids[-1] == self.config.end_token_id:
                break
            text = tokenizer.decode(ids, skip_special_tokens=True)
            if not text.endswith("\ufffd"):  # the bytes of one character may be spread over several tokens
                yield text[len(shown) :]
                shown = text
            cache = output.past_key_values
            embeds = self.text_decoder.get_input_embeddings()(torch.tensor([ids[-1:]], device=embeds.device))

    # Files ------------------------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory, dtype: torch.dtype | None = None, **_) -> None:
        """Write config.json, projector.safetensors (in `dtype`, default as it is) and the code to load them."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        for thing, kind in ((self.config, "AutoConfig"), (self, "AutoModel")):
            type(thing).register_for_auto_class(kind)
            custom_object_save(thing, folder, config=self.config)
        self.config.architectures = [type(self).__name__]
        self.config.save_pretrained(folder)
        weights = self.audio_projector.state_dict()
        save_file({name: w.to(dtype or w.dtype).contiguous() for name, w in weights.items()}, folder / WEIGHTS,
                  metadata={"format": "pt"})
        (folder / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *_, config: ASRConfig | None = None, **kwargs):
        """Load both frozen parts from where the configuration says, then the projector.

        Raises ASRError where the projector's file is missing, or its weights are, or they have other shapes.
        """
        allowed = {name: kwargs[name] for name in ("revision", "cache_dir", "local_files_only", "token")
                   if kwargs.get(name) is not None}
        config = config or ASRConfig.from_pretrained(pretrained_model_name_or_path, **allowed)
        try:
            weights = load_file(cached_file(pretrained_model_name_or_path, WEIGHTS, **allowed))
        except Exception as error:
            raise ASRError(f"{pretrained_model_name_or_path} has no readable {WEIGHTS}: {parts.first_line(error)}",
                           "save the model again, or train it with python -m training.train_projector") from error
        model = cls(config)
        model._load_projector(weights, str(pretrained_model_name_or_path))
        return model

    def _load_projector(self, weights: dict[str, torch.Tensor], source: str) -> None:
        expected = self.audio_projector.state_dict()
        missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
        if missing or unknown:
            what = f"lacks {len(missing)} weights, such as {missing[0]}" if missing else f"has unknown {unknown[0]}"
            raise ASRError(f"the projector saved in {source} {what}",
                           f"is projector_type '{self.config.projector_type}' the one that was trained?")
        for name, wanted in expected.items():
            if weights[name].shape != wanted.shape:
                raise ASRError(f"{name} of the projector saved in {source} is {list(weights[name].shape)}, these parts "
                               f"need {list(wanted.shape)}", "a projector fits only the parts it was trained between")
        self.audio_projector.load_state_dict({name: w.to(expected[name].dtype) for name, w in weights.items()})
