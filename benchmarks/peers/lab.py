"""This lab: two graphs behind OnnxWhisper, its search with all token rules.

Setting: precision, optimized, beams, provider, audio_context (of a clip; default auto).
"""

import dataclasses
import sys
from pathlib import Path

import harness
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from whisper_lab import __main__, audio, transcribe, transcripts  # noqa: E402
from whisper_lab.decoding import Options, decode_encoded  # noqa: E402
from whisper_lab.features import log_mel  # noqa: E402
from whisper_lab.names import name_of  # noqa: E402
from whisper_lab.onnx_whisper import OnnxWhisper  # noqa: E402


def open_runtime(job: dict) -> OnnxWhisper:
    setting = job["setting"]
    return OnnxWhisper(job["artefact"], name_of(Path(job["checkpoint"])), setting["precision"], job["threads"],
                       setting.get("optimized", False), shared_pool=True,
                       provider=setting.get("provider", "cpu"), keep=True)


class Lab:
    def __init__(self, job: dict):
        setting, self.runtime = job["setting"], open_runtime(job)
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


def listen(job: dict):
    """Short: no other temperatures. Long: what `python -m whisper_lab` does. With the setting's beams, else greedy."""
    runtime, setting = open_runtime(job), job["setting"]
    beams, context = setting.get("beams", 1), setting.get("audio_context", "auto")

    def hear(samples, clip):
        if clip["long"]:
            return long_text(runtime, clip, beams)
        options = Options(language=clip["language"], beams=beams, no_speech_threshold=None, temperatures=(0.0,),
                          audio_context=context)
        return transcribe.transcribe(runtime, samples, options).text

    return hear


def long_text(runtime: OnnxWhisper, clip: dict, beams: int) -> str:
    """What the command line makes of a recording with its defaults."""
    args = __main__.arguments([clip["wav"], "--language", clip["language"], "--beams", str(beams), "--quiet"])
    return transcribe.transcribe(runtime, audio.load(clip["wav"]).samples, transcripts.options(args),
                                 condition_on_previous=args.condition_on_previous, batch_size=args.batch_size).text


harness.main(Lab, listen)
