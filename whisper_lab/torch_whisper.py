"""The runtime of decoding.py over PyTorch: transformers' Whisper as encode, step and reorder.

    runtime = TorchWhisper.load(checkpoints.resolve("nano"))
    print(transcribe.transcribe(runtime, audio.load("speech.wav").samples).text)

This is the reference that the ONNX runtime is compared with; the token rules and the search are the same for both.
"""

from pathlib import Path
from typing import Any

import numpy as np

from whisper_lab import console, decoding
from whisper_lab.console import LabError
from whisper_lab.features import FeatureSpec
from whisper_lab.tokenizer import Tokenizer
from whisper_lab.tokens import TokenRules


class TorchWhisper:
    """A WhisperForConditionalGeneration behind NumPy arrays; no gradients, the model's own device and dtype."""

    takes_short_windows = True
    silence_s: float | None = None  # how much of it a shorter window needs; None: not known, so windows are whole

    def __init__(self, model, folder: str | Path):
        """model: in eval mode, on its device; folder: the checkpoint's, for tokenizer, features and token rules."""
        self.model = model
        self.tokenizer = Tokenizer.from_folder(folder)
        self.rules = TokenRules.from_folder(folder, self.tokenizer)
        self.spec = FeatureSpec.from_folder(folder)

    def complete_settings(self) -> None:
        """Give model.generate what an old or a missing generation_config.json does not say: what our rules say.

        Noted where something was missing. A prompt that an old configuration forces is left out: rules.prompt makes it.
        """
        rules, settings = self.rules, self.model.generation_config
        known = {"is_multilingual": bool(rules.languages), "no_timestamps_token_id": rules.no_timestamps,
                 "decoder_start_token_id": rules.start, "eos_token_id": rules.end, "pad_token_id": rules.end,
                 "prev_sot_token_id": rules.previous, "alignment_heads": [list(pair) for pair in rules.alignment_heads]}
        if rules.languages:
            known |= {"lang_to_id": {f"<|{code}|>": token for code, token in rules.languages.items()},
                      "task_to_id": dict(rules.tasks)}
        missing = [key for key, value in known.items() if value is not None and getattr(settings, key, None) is None]
        for key in missing:
            setattr(settings, key, known[key])
        settings.suppress_tokens = rules.suppress.tolist() or None
        settings.begin_suppress_tokens = rules.begin_suppress.tolist() or None
        settings.forced_decoder_ids = self.model.config.forced_decoder_ids = None
        if {"is_multilingual", "lang_to_id"} & {*missing}:
            console.note("generation settings", "languages, tasks and timestamps from the tokenizer",
                         f"generation_config.json has no {', '.join(missing)}")

    def leave_loops(self, threshold: float | None):
        """What makes model.generate leave a text that goes round, where another search follows (decoding.is_lost)."""
        import torch
        from transformers import StoppingCriteriaList

        def lost(sequences, scores, **kwargs):
            """int64 [batch, tokens] -> bool [batch]."""
            answers = map(self.rules.answer, sequences.tolist())
            return torch.tensor([decoding.is_lost(self, threshold, answer) for answer in answers],
                                device=sequences.device)

        return StoppingCriteriaList([lost])

    @classmethod
    def load(cls, checkpoint, **kwargs) -> "TorchWhisper":
        """Load a checkpoints.Checkpoint; kwargs go to from_pretrained. Raises LabError where it cannot be loaded."""
        from whisper_lab.checkpoints import load_model

        return cls(load_model(checkpoint, **kwargs), checkpoint.folder)

    def encode(self, features: np.ndarray) -> Any:
        """float32 [audio, n_mels, frames] -> encoder states, torch [audio, positions, d_model].

        frames: even, up to the window's. transformers' own forward insists on the whole window: of a shorter one its
        layers are run here, over its positions and those that stand for the rest of the window (thinning.py).
        """
        import torch

        from whisper_lab import thinning

        encoder = self.model.model.encoder
        with torch.inference_mode():
            inputs = torch.from_numpy(np.ascontiguousarray(features)).to(self.model.device, self.model.dtype)
            if inputs.shape[2] == self.spec.n_frames:
                return encoder(inputs).last_hidden_state
            gelu = torch.nn.functional.gelu
            states = gelu(encoder.conv2(gelu(encoder.conv1(inputs)))).transpose(1, 2)
            states, places, weights = thinning.thin(states, encoder.embed_positions.weight)
            states = states + places
            for layer in encoder.layers:
                states = layer(states, weights[None, None, None])  # transformers adds this mask to the scores
                states = states[0] if isinstance(states, tuple) else states  # as transformers 4 returns it
            return encoder.layer_norm(states)

    def step(self, input_ids: np.ndarray, cross: Any, cache: Any) -> tuple[np.ndarray, Any]:
        """int64 [batch, sequence] -> float32 logits [batch, sequence, vocab] and the cache, longer by sequence.

        batch = audio x beams. The keys and values of the encoder states are made at the first step and kept in the
        cache; transformers keeps them once per row, so here, other than in the ONNX graphs, beams hold copies.
        """
        import torch

        with torch.inference_mode():
            beams = len(input_ids) // len(cross)
            states = cross if beams == 1 else cross.repeat_interleave(beams, dim=0)
            output = self.model.model.decoder(input_ids=torch.from_numpy(input_ids).to(self.model.device),
                                              encoder_hidden_states=states, past_key_values=cache, use_cache=True)
            logits = self.model.proj_out(output.last_hidden_state)
            return logits.float().cpu().numpy(), output.past_key_values

    def reorder(self, cache: Any, rows: np.ndarray) -> Any:
        """The cache of these rows; changes `cache` itself."""
        import torch

        with torch.inference_mode():
            cache.reorder_cache(torch.from_numpy(np.asarray(rows, np.int64)).to(self.model.device))
        return cache

    def select(self, cross: Any, audios: np.ndarray) -> Any:
        """The encoder states of these audios."""
        import torch

        return cross[torch.from_numpy(np.asarray(audios, np.int64)).to(cross.device)]

    def attention(self, input_ids: np.ndarray, cross: Any) -> np.ndarray:
        """Cross-attention weights of the alignment heads for one audio: float32 [heads, sequence, positions]."""
        import torch

        chosen = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")  # the fused kernels never form the weights
        try:
            with torch.inference_mode():
                output = self.model.model.decoder(input_ids=torch.from_numpy(input_ids).to(self.model.device),
                                                  encoder_hidden_states=cross, use_cache=False, output_attentions=True)
        finally:
            self.model.set_attn_implementation(chosen)
        weights = output.cross_attentions  # per layer [1, heads, sequence, positions]
        return np.stack([weights[layer][0, head].float().cpu().numpy() for layer, head in self.rules.alignment_heads])


def choose_dtype(wanted: str, device: str) -> str:
    """float32, float16 or bfloat16 for `auto`, noted with its reason."""
    if wanted != "auto":
        console.note("precision", wanted, "--dtype asks for it")
        return wanted
    dtype = "float16" if device == "cuda" else "float32"  # a processor computes in half precision slowly, if at all
    console.note("precision", dtype, f"the usual choice on {device}")
    return dtype


def choose_device(wanted: str) -> str:
    """cpu or cuda, noted with its reason. Raises LabError where cuda is asked for and not there."""
    import torch

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise LabError("this PyTorch finds no CUDA device", "leave out --device, or install a CUDA build of torch")
    device = ("cuda" if there else "cpu") if wanted == "auto" else wanted
    found = torch.cuda.get_device_name() if there else "no CUDA device found"
    reason = found if wanted == "auto" else "--device asks for it"
    threads = f"; {console.count(torch.get_num_threads(), 'thread')}" if device == "cpu" else ""
    console.note("device", device, f"{reason}{threads}")
    return device
