"""This lab: two graphs behind OnnxWhisper, its search with all token rules. Setting: precision, optimized, beams."""

import dataclasses
import sys
from pathlib import Path

import harness
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from whisper_lab.decoding import Options, decode_encoded  # noqa: E402
from whisper_lab.features import log_mel  # noqa: E402
from whisper_lab.onnx_whisper import OnnxWhisper  # noqa: E402


class Lab:
    def __init__(self, job: dict):
        setting = job["setting"]
        self.runtime = OnnxWhisper(job["artefact"], Path(job["checkpoint"]).name, setting["precision"], job["threads"],
                                   setting.get("optimized", False), shared_pool=True)
        rules = self.runtime.rules
        forbidden = np.append(rules.suppress, rules.end)
        self.runtime.rules = dataclasses.replace(rules, suppress=forbidden)
        self.options = Options(language="en", beams=setting.get("beams", 1), max_tokens=job["tokens"])

    def features(self, samples):
        return log_mel(samples, self.runtime.spec)[None]

    def encode(self, features):
        return self.runtime.encode(features)

    def decode(self, features, encoded):
        return decode_encoded(self.runtime, encoded, 1, self.options)[0].tokens


harness.main(Lab)
