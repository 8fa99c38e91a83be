"""The layouts in the runtimes that they are for: each writes what this lab's own runtime writes, from the same weights.

The programs are the benchmark's, which asks the same runtimes for benchmarks/RUNTIMES.md.
"""

import shutil
from pathlib import Path

import pytest

from tests.helpers import runtimes
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


@pytest.mark.parametrize("runtime", ["optimum", "transformers.js", "sherpa-onnx"])
def test_a_runtime_hears_what_this_lab_hears_with_real_weights(published, call_script, tmp_path, monkeypatch, runtime):
    monkeypatch.chdir(tmp_path)
    checkpoint, layout = published("base"), LAYOUT[runtime]
    code, _, err = call_script("03-export-encoder-decoder.py", "--model", checkpoint, "--layout", layout, "--no-verify",
                               "--threads", "2", "--output-dir", "graphs", "--quiet")
    assert code == 0, err
    folder, = Path("graphs").glob(f"*_{layout}")
    found = runtimes.texts(runtime, folder.resolve(), CLIPS)
    right = heard_here(Path("graphs"), folder.name.removesuffix(f"_fp32_{layout}"), "fp32", CLIPS)
    if runtime == "sherpa-onnx":  # whose features and padding are its own
        assert sum(word_errors(*pair).errors for pair in zip(right, found, strict=True)) <= 1
    else:
        assert found == right
    shutil.rmtree("graphs")
