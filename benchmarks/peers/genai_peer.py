"""onnxruntime-genai with the graphs of its own builder. Setting: none; the precision is the artefact's."""

import json
import time

import harness


class GenAI:
    """The first token includes the encoder: what it takes beyond a later token is given as the encoder's time."""

    def __init__(self, job: dict):
        import onnxruntime_genai as og

        config = og.Config(job["artefact"])
        options = {"session_options": {"intra_op_num_threads": job["threads"]}}
        config.overlay(json.dumps({"model": {"encoder": options, "decoder": options}}))
        self.og, self.job = og, job
        self.model = og.Model(config)
        self.processor = self.model.create_multimodal_processor()

    def features(self, samples):
        audios = self.og.Audios.open(self.job["clip"])
        names = "<|startoftranscript|><|en|><|transcribe|><|notimestamps|>"
        return self.processor([names], audios=audios)

    def encode(self, features):
        return None

    def decode(self, features, encoded):
        length = len(harness.prompt(self.job)) + self.job["tokens"]
        settings = self.og.GeneratorParams(self.model)
        settings.set_search_options(do_sample=False, num_beams=1, min_length=length, max_length=length, batch_size=1)
        start = time.perf_counter()
        generator = self.og.Generator(self.model, settings)
        generator.set_inputs(features)
        generator.generate_next_token()
        first = time.perf_counter()
        while not generator.is_done():
            generator.generate_next_token()
        each = (time.perf_counter() - first) / (self.job["tokens"] - 1)
        self.times = {"encode_s": first - start - each, "decode_s": each * self.job["tokens"]}
        return generator.get_sequence(0)[-self.job["tokens"]:]

    def parted(self) -> dict:
        return self.times


harness.main(GenAI)
