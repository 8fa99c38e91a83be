"""transformers on PyTorch: `generate`, the reference of 02. Setting: dtype (float32, bfloat16)."""

import sys
from pathlib import Path

import harness

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


class Transformers:
    decode_includes_encoder = True  # generate runs it; the encoder is timed on its own before

    def __init__(self, job: dict):
        from whisper_lab.checkpoints import import_transformers  # safe beside a torchaudio that cannot load

        transformers = import_transformers()
        import torch

        torch.set_num_threads(job["threads"])
        self.torch, self.tokens = torch, job["tokens"]
        self.dtype = getattr(torch, job["setting"]["dtype"])
        self.extractor = transformers.WhisperFeatureExtractor.from_pretrained(job["checkpoint"])
        self.model = transformers.WhisperForConditionalGeneration.from_pretrained(job["checkpoint"],
                                                                                 dtype=self.dtype).eval()

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


harness.main(Transformers)
