"""One rule for all programs: without --precision the fastest graphs that are there, and a note says which."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.nano_pair import NAME, take
from whisper_lab import console, names, precisions, sessions

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "media" / "kitchen.wav"
TEXT = "turn on the lights in the kitchen"


@pytest.fixture
def both(nano_export, tmp_path, monkeypatch) -> Path:
    """A folder with the pairs fp32 and int8 alone. Reports go beside it."""
    monkeypatch.chdir(tmp_path)
    folder = take(nano_export, tmp_path / "graphs", "_int8")
    for path in names.pair(nano_export / "graphs", NAME).values():
        shutil.copy(path, folder)
    return folder


def empty(folder: Path, *precisions_there: str) -> Path:
    """Files of these names, with nothing in them."""
    for precision in precisions_there:
        for path in names.pair(folder, NAME, precision).values():
            path.touch()
    return folder


# The rule -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("there, taken, reason", [
    (names.PRECISIONS, "int8", "the fastest in"), (("fp32", "fp16"), "fp32", "no int8 graphs in"),
    (("int4", "fp16"), "fp16", "which would be faster"), (("int4",), "int4", "no int8 graphs in")])
def test_the_fastest_that_is_there(tmp_path, capsys, there, taken, reason):
    console.set_up_notes(20)
    assert precisions.choose(empty(tmp_path, *there), NAME, None) == taken
    assert f"precision: {taken} (" in (said := capsys.readouterr().err) and reason in said


def test_what_is_asked_for_is_taken_without_a_note(tmp_path, capsys):
    console.set_up_notes(20)
    assert precisions.choose(empty(tmp_path, "int8", "fp32"), NAME, "fp32") == "fp32" and capsys.readouterr().err == ""


@pytest.mark.parametrize("asked", ["fp16", "int8_optimized"])
def test_what_is_asked_for_and_not_there_is_told_with_what_is(tmp_path, asked):
    with pytest.raises(console.LabError, match="there is no encoder") as caught:
        precisions.choose(empty(tmp_path, "fp32", "int4"), NAME, asked)
    assert caught.value.remedy.startswith("take --precision fp32, which is there; or write them: ") == (asked == "fp16")


def test_the_optimized_pair_is_of_int8(tmp_path):
    assert precisions.choose(empty(tmp_path, "fp32"), NAME, None, optimized=True) == "int8"


def test_openvino_takes_a_decoder_beside_the_float32_encoder(tmp_path):
    assert precisions.choose(empty(tmp_path, "fp32", "int8"), NAME, None, provider="openvino") == "int8"
    names.pair(tmp_path, NAME, "int8")["decoder"].unlink()
    assert precisions.choose(tmp_path, NAME, None, provider="openvino") == "fp32"


def test_a_pair_of_which_neither_graph_is_there_misses_both(tmp_path):
    with pytest.raises(console.LabError) as caught:
        sessions.find_pair(tmp_path, NAME, "int8")
    assert caught.value.problem.endswith(f"{NAME}_encoder_int8.onnx and no {NAME}_decoder_int8.onnx")
    assert caught.value.remedy.startswith("write them: python 03-export-encoder-decoder.py --model nano")


def test_openvino_without_a_float32_encoder_misses_that(tmp_path):
    precision = precisions.choose(empty(tmp_path, "int8"), NAME, None, provider="openvino")
    with pytest.raises(console.LabError, match=f"no encoder .*{NAME}_encoder.onnx"):
        sessions.find_pair(tmp_path, NAME, precision, provider="openvino")


def test_nothing_there_names_the_command_that_writes_some(tmp_path):
    with pytest.raises(console.LabError, match=f"there are no graphs of {NAME} in ") as caught:
        precisions.choose(tmp_path, NAME, None)
    assert caught.value.remedy == ("write them: python 03-export-encoder-decoder.py --model nano --precision int8 "
                                   f"--output-dir {shlex.quote(str(tmp_path))}")


def test_half_a_pair_is_named(tmp_path):
    lost = names.pair(empty(tmp_path, "int4"), NAME, "int4")["decoder"]
    lost.unlink()
    with pytest.raises(console.LabError, match=f"half of {NAME}'s int4 pair is missing: {lost}") as caught:
        precisions.choose(tmp_path, NAME, None)
    assert "--model nano --precision int4 --output-dir" in caught.value.remedy


@pytest.mark.parametrize("program, first", [({"optimized": False}, "add --optimized; or write the plain pair: python "),
                                            ({}, "write the plain pair: python 03-")])
def test_the_optimized_pair_alone_is_opened_by_its_flag(tmp_path, program, first):
    for path in names.pair(tmp_path, NAME, "int8", optimized=True).values():
        path.touch()
    with pytest.raises(console.LabError, match="nothing but the optimized int8 pair in") as caught:
        precisions.choose(tmp_path, NAME, None, **program)
    assert caught.value.remedy.startswith(first)


def test_openvino_with_the_optimized_pair_misses_what_it_runs(tmp_path):
    """The float32 encoder, and the optimized decoder."""
    assert precisions.choose(empty(tmp_path, "fp32"), NAME, None, optimized=True, provider="openvino") == "int8"
    with pytest.raises(console.LabError, match="no decoder .*_optimized") as caught:
        sessions.find_pair(tmp_path, NAME, "int8", optimized=True, provider="openvino")
    assert "--precision int8 --optimize" in caught.value.remedy and "--model nano" in caught.value.remedy
    names.pair(tmp_path, NAME, "fp32")["encoder"].unlink()
    with pytest.raises(console.LabError, match="no encoder") as caught:
        sessions.find_pair(tmp_path, NAME, "int8", optimized=True, provider="openvino")
    assert "--optimize" not in caught.value.remedy and "--model nano" in caught.value.remedy


# The programs ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("given, taken", [((), "int8"), (("--precision", "fp32"), "fp32")])
def test_the_transcriber(both, call_script, given, taken):
    status, out, err = call_script("whisper_lab.__main__", CLIP, "--model", "nano", "--model-dir", both, "--threads", 1,
                                   "--json", "out.json", *given)
    assert (status, out.strip()) == (0, TEXT), err
    assert ("precision: int8 (the fastest in" in err) == (not given) and f"graphs: {NAME} {taken} (" in err
    assert json.loads(Path("out.json").read_text())["model"]["precision"] == taken


def test_the_optimized_pair_needs_no_precision(nano_export, call_script):
    status, out, err = call_script("whisper_lab.__main__", CLIP, "--model", "nano", "--model-dir",
                                   nano_export / "graphs", "--threads", 1, "--optimized")
    assert (status, out.strip()) == (0, TEXT), err
    assert f"graphs: {NAME} int8 optimized (" in err


def test_the_live_script_takes_the_same(both, call_script):
    status, out, err = call_script("09-stream-microphone.py", CLIP, "--model", "nano", "--model-dir", both, "--threads",
                                   1, "--no-batch")
    assert status == 0 and TEXT in out and f"graphs: {NAME} int8 (" in err, err


def test_the_profiler(both, call_script):
    status, _, err = call_script("06-profile-energy.py", CLIP, "--model", "nano", "--model-dir", both, "--backend",
                                 "onnx", "--repeats", 1, "--threads", 1, "--meter", "none", "--json", "out.json")
    assert status == 0 and "precision: int8 (the fastest in" in err, err
    assert json.loads(Path("out.json").read_text())["precision"] == "int8"


def test_the_single_graph_is_made_of_them_and_found_again(both, call_script):
    given = ("--model", "nano", "--model-dir", both, "--threads", 1)
    status, out, err = call_script("08-single-onnx-model.py", *given, "--no-verify")
    assert "MB more than the pair" in out and "time, pair = 1" in out
    assert status == 0 and (both / f"{NAME}_end_to_end_int8.onnx").is_file(), err
    status, out, err = call_script("08-single-onnx-model.py", "run", CLIP, *given, "--quiet")
    assert (status, out.strip()) == (0, TEXT), err


def test_without_a_single_graph_the_command_for_the_fastest_pair_is_named(both, call_script):
    names.pair(both, NAME, "int8")["decoder"].unlink()
    status, _, err = call_script("08-single-onnx-model.py", "run", CLIP, "--model", "nano", "--model-dir", both)
    assert status == 1 and "08-single-onnx-model.py --model nano --precision fp32" in err


def test_an_archive_goes_on_in_the_precision_that_it_has(both, call_script, tmp_path):
    """int8 graphs that are written meanwhile are not taken for those of the transcripts that are there."""
    sounds, out = tmp_path / "sounds", tmp_path / "out"
    sounds.mkdir()
    shutil.copy(CLIP, sounds)
    given = ("archive", sounds, "--output-dir", out, "--model", "nano", "--model-dir", both, "--threads", 1)
    kept = names.pair(both, NAME, "int8")["decoder"].rename(tmp_path / "kept.onnx")
    assert call_script("whisper_lab.__main__", *given)[0] == 0
    assert json.loads((out / "kitchen.wav.json").read_text())["model"]["precision"] == "fp32"
    kept.rename(names.pair(both, NAME, "int8")["decoder"])
    status, _, err = call_script("whisper_lab.__main__", *given)
    assert status == 1 and "has transcripts made with precision fp32, not int8" in err
    typed = shlex.split(err.splitlines()[-1].partition("to add to those: ")[2].partition(";")[0])
    assert typed.count("--precision") == 1
    assert typed[-2:] == ["--precision", "fp32"]
    done = subprocess.run([sys.executable, *typed[1:]], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "1 done before" in done.stdout, done.stderr
