"""transformers on PyTorch: `generate`, the reference of 02. Setting: dtype (float32, bfloat16)."""

import sys
from pathlib import Path

import harness

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def open_model(job: dict):
    """torch and transformers, imported; the model in the dtype asked for."""
    from whisper_lab.checkpoints import import_transformers  # safe beside a torchaudio that cannot load

    transformers = import_transformers()
    import torch

    torch.set_num_threads(job["threads"])
    dtype = getattr(torch, job["setting"]["dtype"])
    model = transformers.WhisperForConditionalGeneration.from_pretrained(job["checkpoint"], dtype=dtype).eval()
    return torch, transformers, model


class Transformers:
    decode_includes_encoder = True  # generate runs it; the encoder is timed on its own before

    def __init__(self, job: dict):
        self.torch, transformers, self.model = open_model(job)
        self.tokens, self.dtype = job["tokens"], self.model.dtype
        self.extractor = transformers.WhisperFeatureExtractor.from_pretrained(job["checkpoint"])

    def features(self, samples):
        return self.extractor(samples, sampling_rate=16000, return_tensors="pt").input_features.to(self.dtype)

    def encode(self, features):
        with self.torch.inference_mode():
            self.model.model.encoder(features)

    def decode(self, features, encoded):
        with self.torch.inference_mode():
            found = self.model.generate(features, language="en", task="transcribe", min_new_tokens=self.tokens,
                                        max_new_tokens=self.tokens, force_unique_generate_call=True)
        return found[0, -self.tokens:].tolist()


def listen(job: dict):
    """`generate`; for a long recording its sequential algorithm, which wants timestamps and the whole recording."""
    torch, transformers, model = open_model(job)
    processor = transformers.WhisperProcessor.from_pretrained(job["checkpoint"])
    several = getattr(model.generation_config, "is_multilingual", True)

    def hear(samples, clip):
        how = {"truncation": False, "padding": "longest", "return_attention_mask": True} if clip["long"] else {}
        inputs = processor(samples, sampling_rate=16000, return_tensors="pt", **how)
        settings = {"language": clip["language"], "task": "transcribe"} if several else {}
        settings |= {"return_timestamps": True} if clip["long"] else {"max_length": model.config.max_target_positions}
        with torch.inference_mode():
            found = model.generate(**inputs.to(model.device, model.dtype), **settings)
        return processor.batch_decode(found, skip_special_tokens=True)[0]

    return hear


harness.main(Transformers, listen)
