"""optimum-onnx: its own three graphs under transformers' `generate`."""

import harness


class Optimum:
    decode_includes_encoder = True

    def __init__(self, job: dict):
        import onnxruntime
        import torch
        from optimum.onnxruntime import ORTModelForSpeechSeq2Seq
        from transformers import WhisperFeatureExtractor

        torch.set_num_threads(job["threads"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job["threads"]
        self.tokens = job["tokens"]
        self.extractor = WhisperFeatureExtractor.from_pretrained(job["artefact"])
        self.model = ORTModelForSpeechSeq2Seq.from_pretrained(job["artefact"], session_options=options)

    def features(self, samples):
        return self.extractor(samples, sampling_rate=16000, return_tensors="pt").input_features

    def encode(self, features):
        self.model.encoder(features, None)

    def decode(self, features, encoded):
        found = self.model.generate(features, language="en", task="transcribe", min_new_tokens=self.tokens,
                                    max_new_tokens=self.tokens, force_unique_generate_call=True)
        return found[0, -self.tokens:].tolist()


harness.main(Optimum)
