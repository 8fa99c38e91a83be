"""optimum-onnx: graphs in its layout, its own or those of 03 --layout optimum, under transformers' `generate`.

Setting: none.
"""

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


def listen(job: dict):
    """One greedy pass without timestamps."""
    import onnxruntime
    import torch
    from optimum.onnxruntime import ORTModelForSpeechSeq2Seq
    from transformers import AutoProcessor
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(job["threads"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    model = ORTModelForSpeechSeq2Seq.from_pretrained(job["artefact"], session_options=options)
    processor = AutoProcessor.from_pretrained(job["artefact"])
    multilingual = model.generation_config.is_multilingual

    def hear(samples, clip):
        features = processor(samples, sampling_rate=16000, return_tensors="pt").input_features
        asked = {"language": clip["language"], "task": "transcribe"} if multilingual else {}
        found = model.generate(features, num_beams=1, **asked)
        return processor.batch_decode(found, skip_special_tokens=True)[0]

    return hear


harness.main(Optimum, listen)
