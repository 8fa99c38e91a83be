"""This lab: two graphs behind OnnxWhisper, its search with all token rules.

Setting: precision, optimized, beams, provider, audio_context (of a clip; default auto).
"""

import dataclasses
import sys
from pathlib import Path

import harness
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from whisper_lab import __main__, audio, lanes, transcribe, transcripts  # noqa: E402
from whisper_lab.decoding import Options, decode_encoded  # noqa: E402
from whisper_lab.features import log_mel  # noqa: E402
from whisper_lab.names import name_of  # noqa: E402
from whisper_lab.onnx_whisper import OnnxWhisper  # noqa: E402


def open_runtime(job: dict, number: int = 1) -> OnnxWhisper:
    """number: of lanes."""
    setting = job["setting"]
    return OnnxWhisper(job["artefact"], name_of(Path(job["checkpoint"])), setting["precision"], job["threads"],
                       setting.get("optimized", False), shared_pool=True,
                       provider=setting.get("provider", "cpu"), keep=True, lanes=number)


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
    setting = job["setting"]
    runtime = open_runtime(job, lanes_of(job))
    beams, context = setting.get("beams", 1), setting.get("audio_context", "auto")

    def hear(samples, clip):
        if clip["long"]:
            return long_text(runtime, command_line(job, clip))
        options = Options(language=clip["language"], beams=beams, no_speech_threshold=None, temperatures=(0.0,),
                          audio_context=context)
        return transcribe.transcribe(runtime, samples, options).text

    return hear


def lanes_of(job: dict) -> int:
    """As many as the command line takes for a long recording. Short clips, which are heard one by one, take longer on
    lanes: where there are some in the job, it has none."""
    clips = harness.read_json(*job["clips"].rsplit("/", 1))
    if not all(clip["long"] for clip in clips):
        return 1
    return min(lanes.wanted(command_line(job, clip), [Path(clip["wav"])]) for clip in clips)


def command_line(job: dict, clip: dict):
    """The arguments of the command line about a clip: its defaults, with the setting's beams, else greedy."""
    setting = job["setting"]
    return __main__.arguments([clip["wav"], "--language", clip["language"], "--beams", str(setting.get("beams", 1)),
                               "--threads", str(job["threads"]), "--provider", setting.get("provider", "cpu"),
                               "--quiet"])


def long_text(runtime: OnnxWhisper, args) -> str:
    """What the command line makes of a recording."""
    return transcribe.transcribe(runtime, audio.load(args.audio[0]).samples, transcripts.options(args),
                                 condition_on_previous=args.condition_on_previous, batch_size=args.batch_size).text


harness.main(Lab, listen)
