"""The layouts in the runtimes that they are for: each writes what this lab's own runtime writes, from the same weights.

The programs are the benchmark's, which asks the same runtimes for benchmarks/RUNTIMES.md.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import browser, runtimes
from tests.test_layouts import job_over
from tests.test_layouts import make_job as make_job  # the fixture
from whisper_lab import audio, transcribe
from whisper_lab.decoding import Options
from whisper_lab.export import layouts
from whisper_lab.metrics import word_errors
from whisper_lab.onnx_whisper import OnnxWhisper

NAME, MEDIA = "whisper-nano", Path(__file__).resolve().parent.parent / "media"
# sherpa-onnx stops at half as many tokens as the decoder has positions; nano's short ones are not enough for hello.wav.
CLIPS = [{"id": name, "wav": str(MEDIA / f"{name}.wav"), "language": language}
         for name, language in (("kitchen", "en"), ("nederlands", "nl"), ("digits", "en"))]
LAYOUT = {"optimum": "optimum", "transformers.js": "optimum", "sherpa-onnx": "sherpa"}
DTYPES = {"fp32": "fp32", "fp16": "fp16", "int8": "q8", "int4": "q4"}


def heard_here(folder: Path, name: str, precision: str, clips: list[dict]) -> list[str]:
    """What this lab's runtime hears, in whole windows as the others."""
    runtime = OnnxWhisper(folder, name, precision, threads=1)
    return [transcribe.transcribe(runtime, audio.load(clip["wav"]).samples,
                                  Options(language=clip["language"], audio_context="full", no_speech_threshold=None,
                                          temperatures=(0.0,))).text.strip() for clip in clips]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
@pytest.mark.parametrize("runtime", ["optimum", "transformers.js", "sherpa-onnx"])
def test_a_runtime_hears_what_this_lab_hears(make_job, runtime, precision):
    job = make_job(precision)
    layouts.write(LAYOUT[runtime], job)
    found = runtimes.texts(runtime, job.folder(LAYOUT[runtime]), CLIPS, DTYPES[precision])
    assert found == heard_here(job.pair["encoder"].parent, NAME, precision, CLIPS)


# Times of words ------------------------------------------------------------------------------------------------------

SHERPA = """
import json, sys
import sherpa_onnx
from harness import read_wav
encoder, decoder, tokens, clip = sys.argv[1:]
recognizer = sherpa_onnx.OfflineRecognizer.from_whisper(encoder=encoder, decoder=decoder, tokens=tokens, language="en",
                                                        enable_token_timestamps=True)
stream = recognizer.create_stream()
stream.accept_waveform(16000, read_wav(clip))
recognizer.decode_stream(stream)
print(json.dumps([stream.result.tokens, stream.result.timestamps]))
"""


def spoken(references) -> tuple[float, float]:
    """When kitchen.wav begins and ends to speak, s; as far as attention can tell."""
    segment, = references["kitchen.wav"]["segments"]
    return segment["start_s"] - 0.4, segment["end_s"] + 0.4


def test_transformers_js_times_words_with_the_alignment_heads(make_job, references):
    job = make_job()
    layouts.write("optimum", job)
    row, = runtimes.heard("transformers.js", job.folder("optimum"), CLIPS[:1], dtype="fp32", return_timestamps="word")
    starts, ends = zip(*(chunk["timestamp"] for chunk in row["chunks"]), strict=True)
    assert [chunk["text"].strip() for chunk in row["chunks"]] == references["kitchen.wav"]["text"].split()
    assert list(starts) == sorted(starts) and len(set(starts)) == len(starts)
    begin, end = spoken(references)
    assert begin <= starts[0] and ends[-1] <= end


def test_sherpa_times_tokens_with_the_alignment_heads(make_job, references):
    job = make_job()
    layouts.write("sherpa", job)
    files = [next(job.folder("sherpa").glob(f"*{name}")) for name in ("-encoder.onnx", "-decoder.onnx", "tokens.txt")]
    place = os.pathsep.join([str(runtimes.packages("sherpa-onnx")), str(runtimes.ROOT / "benchmarks" / "peers")])
    done = subprocess.run([sys.executable, "-c", SHERPA, *files, CLIPS[0]["wav"]], capture_output=True, text=True,
                          timeout=120, env=os.environ | {"PYTHONPATH": place})
    assert done.returncode == 0, done.stderr
    tokens, times = json.loads(done.stdout.splitlines()[-1])
    assert "".join(tokens).strip() == references["kitchen.wav"]["text"] and len(times) == len(tokens)
    begin, end = spoken(references)
    assert times == sorted(times) and len(set(times)) == len(times) and max(times) <= end and min(times[1:]) >= begin


# In a browser --------------------------------------------------------------------------------------------------------

@pytest.mark.browser
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_transformers_js_in_a_browser_hears_what_this_lab_hears(make_job, precision):
    """By the benchmark's own page, which loads nothing from elsewhere."""
    if not browser.executable():
        pytest.skip("no Chromium here: apt-get install chromium")
    runtimes.transformers_js()
    job = make_job(precision)
    layouts.write("optimum", job)
    found = runtimes.heard("transformers.js in Chromium", job.folder("optimum"), CLIPS[1:2], dtype=DTYPES[precision])
    assert [row["text"] for row in found] == heard_here(job.pair["encoder"].parent, NAME, precision, CLIPS[1:2])
    assert found[0]["seconds"] > 0 and found[0]["cpu_s"] > 0


# Real weights --------------------------------------------------------------------------------------------------------

@pytest.fixture
def real(published, tiny_en_export) -> layouts.Job:
    """The pair of whisper-tiny.en in float32: real weights, and an English-only vocabulary; with both layouts."""
    return job_over(tiny_en_export, "whisper-tiny.en", "fp32", published("tiny.en"))


@pytest.mark.parametrize("runtime", ["optimum", "transformers.js", "sherpa-onnx"])
def test_a_runtime_hears_what_this_lab_hears_with_real_weights(real, runtime):
    english = [{"id": name, "wav": str(MEDIA / f"{name}.wav"), "language": "en"} for name in ("kitchen", "hello")]
    found = runtimes.texts(runtime, real.folder(LAYOUT[runtime]), english)
    right = heard_here(real.pair["encoder"].parent, real.checkpoint.name, "fp32", english)
    if runtime == "sherpa-onnx":  # whose features and padding are its own
        assert sum(errors_between(*pair) for pair in zip(right, found, strict=True)) <= 1
    else:
        assert found == right


def errors_between(right: str, found: str) -> int:
    """How many words differ."""
    errors = word_errors(right, found)
    return errors.substitutions + errors.insertions + errors.deletions
