"""--provider openvino: the real wheel in an environment of its own, made by typing what the error says.

Where the wheel cannot be had (no index, another processor or system) these tests are skipped, and say why.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.nano_pair import NAME, take
from tests.test_remedies import commands, remedy_of, typed
from whisper_lab import audio, machine, names, onnx_whisper, openvino, sessions, transcribe
from whisper_lab.console import LabError
from whisper_lab.decoding import Options

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "locks" / "openvino.txt"
PROGRAM = ("-m", "whisper_lab", "--threads", "1", "--model", NAME.removeprefix("whisper-"), "--provider", "openvino")
CLIPS = ("media/kitchen.wav", "media/hello.wav", "media/time.wav")
SURE = -0.1  # mean log-probability of a text in which no token is a near tie


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python of .openvino, which the command in the error makes; kept for the next run."""
    from filelock import FileLock

    folder = ROOT / ".openvino"
    made, stamp = folder / "bin" / "python", folder / ".tested"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (stamp.is_file() and stamp.read_text() == LOCK.read_text()):
            with pytest.raises(LabError) as caught:
                openvino.require()
            command = caught.value.remedy.partition(": ")[2].partition(";")[0].replace("python", sys.executable, 1)
            done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=280)
            if "HASH" in done.stderr:
                pytest.fail(done.stderr)
            if done.returncode:
                pytest.skip(f"onnxruntime-openvino cannot be had here: {done.stderr.strip().splitlines()[-1][:300]}")
            stamp.write_text(LOCK.read_text())
    return made


def hear(python: Path, graphs: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([str(python), *PROGRAM, "--model-dir", str(graphs), *arguments], cwd=ROOT, text=True,
                          capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def mixed(nano_export) -> onnx_whisper.OnnxWhisper:
    """The same two graphs on onnxruntime's own kernels: the float32 encoder and the int8 decoder."""
    plain, small = (onnx_whisper.OnnxWhisper(nano_export / "graphs", NAME, precision, threads=1)
                    for precision in ("fp32", "int8"))
    return onnx_whisper.OnnxWhisper.of_sessions(plain.encoder, small.decoder, like=small)


@pytest.mark.parametrize("arguments", [["--precision", "int8"], ["--precision", "fp32"],
                                       ["--precision", "int8", "--optimized"]])
def test_the_text_is_that_of_the_same_graphs_on_onnxruntime(python, nano_export, mixed, tmp_path, arguments):
    done = hear(python, nano_export / "graphs", *CLIPS, *arguments, "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out.json").read_text())
    for name, clip in zip(CLIPS, written["clips"], strict=True):
        wanted = transcribe.transcribe(mixed, audio.load(ROOT / name).samples, Options())
        if min(segment.avg_logprob for segment in wanted.segments) > SURE:
            assert clip["text"] == wanted.text
    assert (written["model"]["provider"], written["model"]["precision"]) == ("openvino", arguments[1])
    assert written["model"]["optimized"] is ("--optimized" in arguments)
    assert written["machine"]["versions"]["onnxruntime"] is None
    assert f"onnxruntime-openvino=={written['machine']['versions']['onnxruntime-openvino']} " in LOCK.read_text()
    assert "encoder: fp32 on OpenVINO, in " in done.stderr and \
        f"decoder: {' '.join(arguments[1:]).replace('--', '')} on onnxruntime" in done.stderr


def test_the_clips_are_ones_that_the_model_is_sure_of(mixed):
    sure = [transcribe.transcribe(mixed, audio.load(ROOT / name).samples, Options()).segments[0].avg_logprob > SURE
            for name in CLIPS]
    assert sum(sure) >= 2


def test_the_encoder_runs_on_openvino_alone_with_the_threads_and_the_type_it_was_given(python, nano_export, tmp_path):
    program = """
import json, sys
import numpy as np, onnxruntime
from whisper_lab import onnx_whisper, sessions
made, opened, asked = sessions.session_options, onnxruntime.InferenceSession, []
def profiled(part, *others):
    options = made(part, *others)
    options.enable_profiling, options.profile_file_prefix = part == "encoder", sys.argv[2]
    return options
def noted(*others, providers, **settings):
    asked.append(providers)
    return opened(*others, providers=providers, **settings)
sessions.session_options, onnxruntime.InferenceSession = profiled, noted
whisper = onnx_whisper.OnnxWhisper(sys.argv[1], "whisper-nano", "int8", 2, provider="openvino")
whisper.encode(np.zeros((1, whisper.spec.n_mels, whisper.spec.n_frames), np.float32))
events = json.load(open(whisper.encoder.end_profiling()))
ran = sorted({event["args"]["provider"] for event in events if event.get("args", {}).get("provider")})
print(json.dumps([ran, asked]))
"""
    done = subprocess.run([str(python), "-c", program, str(nano_export / "graphs"), str(tmp_path / "profile")],
                          text=True, capture_output=True, timeout=120, cwd=ROOT,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    ran, (encoder, decoder) = json.loads(done.stdout.splitlines()[-1])
    assert ran == [openvino.PROVIDER] and decoder == ["CPUExecutionProvider"]
    assert json.loads(encoder[0][1]["load_config"])["CPU"] == {
        "INFERENCE_NUM_THREADS": 2, "INFERENCE_PRECISION_HINT": openvino.multiplies_in()[0]}


def test_09_takes_it_too(python, nano_export, tmp_path):
    done = subprocess.run([str(python), "09-stream-microphone.py", CLIPS[0], "--model", "nano", "--threads", "1",
                           "--provider", "openvino", "--model-dir", str(nano_export / "graphs"),
                           "--output-dir", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "turn on the lights in the kitchen" in done.stdout, done.stderr
    assert "encoder: fp32 on OpenVINO" in done.stderr


def test_a_missing_encoder_names_the_command_that_writes_it(python, nano_export, tmp_path):
    done = hear(python, take(nano_export, tmp_path, "_int8"), CLIPS[0], "--precision", "int8")
    assert done.returncode == 1 and f"there is no encoder {tmp_path}/{NAME}_encoder.onnx\n" in done.stderr
    assert typed(remedy_of(done.stderr)).precision == "fp32"


# Without the wheel ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("script", ["whisper_lab.__main__", "09-stream-microphone.py"])
def test_without_the_wheel_it_is_refused_in_two_lines(nano_export, call_script, script):
    status, out, err = call_script(script, ROOT / CLIPS[0], "--model", "nano", "--precision", "int8", "--provider",
                                   "openvino", "--model-dir", nano_export / "graphs", "--quiet")
    assert (status, out) == (1, "") and len(err.splitlines()) == 2
    assert "needs the wheel onnxruntime-openvino, and this is onnxruntime 1." in err
    assert "-r locks/openvino.txt" in remedy_of(err) and LOCK.is_file()


def test_both_graphs_are_written_again_by_one_line(tmp_path):
    command = sessions.export_command(tmp_path, NAME, "int8", provider="openvino")
    assert [words[-1 if "--precision" not in words else words.index("--precision") + 1] for words in
            commands(command)] == [str(tmp_path), "int8"]
    assert sessions.export_command(tmp_path, NAME, "fp32", provider="openvino").count("python") == 1


def test_graphs_of_two_checkpoints_are_no_pair(nano_export, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(nano_export / "graphs", tmp_path / "graphs"))
    facts = {part: {"weights_sha256": digest, "precision": precision, "format": 2, "cache_types": {"cross": "float32"}}
             for part, digest, precision in (("encoder", "a" * 64, "fp32"), ("decoder", "b" * 64, "int8"))}
    paths = openvino.pair(folder, NAME, "int8")
    with pytest.raises(LabError, match="were not made together: weights"):
        sessions._check_together(facts, paths, "command", "openvino")
    facts["decoder"]["weights_sha256"] = "a" * 64
    sessions._check_together(facts, paths, "command", "openvino")
    with pytest.raises(LabError, match="were not made together: precision"):
        sessions._check_together(facts, paths, "command", "cpu")


@pytest.mark.parametrize("sets, kind, reason", [
    (["AVX2", "AVX512-BF16"], "bf16", "has AVX512-BF16"), (["AMX-INT8", "AMX-BF16"], "bf16", "has AMX-BF16"),
    (["AVX2", "AVX512F"], "f32", "neither AVX512-BF16 nor AMX-BF16"), (None, "f32", "lists no features")])
def test_bfloat16_is_taken_where_the_processor_has_it(monkeypatch, sets, kind, reason):
    monkeypatch.setattr(machine, "instruction_sets", lambda: sets)
    assert openvino.multiplies_in()[0] == kind and reason in openvino.multiplies_in()[1]
    (provider, options), rest = openvino.settings(3)
    assert json.loads(options["load_config"]) == {"CPU": {"INFERENCE_PRECISION_HINT": kind,
                                                          "INFERENCE_NUM_THREADS": 3}}
    assert (provider, rest) == (openvino.PROVIDER, "CPUExecutionProvider")


def test_its_environment_has_the_versions_that_the_lab_has():
    pins, lab = (dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / name).read_text(), re.MULTILINE))
                 for name in ("requirements-openvino.txt", "requirements.txt"))
    version = pins.pop("onnxruntime-openvino")
    assert pins.items() <= lab.items() and "onnxruntime-openvino" not in lab
    assert sessions.version_of(version) >= sessions.OLDEST["int4"]
    assert names.pair("x", NAME)["encoder"] == openvino.pair("x", NAME, "int8")["encoder"]
