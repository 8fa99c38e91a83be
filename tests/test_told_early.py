"""What is wrong with a command is told before a model is opened: nobody should wait for it."""

import os
import re

import pytest

from whisper_lab import checkpoints, files, onnx_whisper, torch_whisper
from whisper_lab.console import LabError

CLIP = "media/digits.wav"
TWO_LINES = re.compile(r"(usage: .*\n|checkpoint: .*\n)?error: .*\n  try: .*\n")


@pytest.fixture
def no_model(monkeypatch):
    """Fails where a model is opened."""
    def opened(*arguments, **settings):
        raise AssertionError("a model was opened")

    monkeypatch.setattr(checkpoints, "load_model", opened)
    monkeypatch.setattr(onnx_whisper.OnnxWhisper, "__init__", opened)
    monkeypatch.setattr(torch_whisper.TorchWhisper, "load", opened)


@pytest.fixture
def call(no_model, call_script, capsys, monkeypatch, tmp_path):
    """A function (words of a command) -> (exit status, stderr). `lab` and `archive` are the module's command line."""
    (tmp_path / "text.wav").write_text("this is no sound")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()

    def run(command: str) -> tuple[int, str]:
        script, *words = command.format(t=tmp_path).split()
        if script == "lab":
            import whisper_lab.__main__ as lab
            from whisper_lab import console

            with pytest.raises(SystemExit) as end:
                console.run(lambda: lab.main(words))
            return end.value.code, capsys.readouterr().err
        status, out, err = call_script(next(path for path in SCRIPTS if path.startswith(script)), *words)
        assert out == ""
        return status, err

    return run


SCRIPTS = ("01-record-audio-app.py", "02-whisper-huggingface.py", "03-export-encoder-decoder.py",
           "04-compare-precisions.py", "06-profile-energy.py", "07-explore-architecture.py",
           "08-single-onnx-model.py", "09-stream-microphone.py", "10-who-spoke.py")


@pytest.mark.parametrize("command, words", [
    (f"02 {CLIP} --model nano --language Klingon", "'Klingon' is neither a language's code nor its name"),
    (f"02 {CLIP} --model nano --language Germn", "did you mean german?"),
    (f"02 {CLIP} --model nano --language xx", "does not know the language 'xx'"),
    ("02 nowhere.wav --model nano", "no such file"), ("02 {t}/text.wav --model nano", "not sound"),
    ("06 nowhere.wav --model nano", "no such file"),
    ("06 --model nano --assume-watts many", "'many' is not a number of watts: give one, 15, or a range, 10-25"),
    ("07 nowhere.wav", "no such file"), ("07 --projector magic", "choose from linear, mlp, swiglu, moe, qformer"),
    ("07 --seconds 0", "--seconds: above 0"), ("07 --downsample-rate 0", "starts at 1"),
    ("09 nowhere.wav --model nano", "no such file"), ("09 {t}/text.wav --model nano", "not sound"),
    ("10 nowhere.wav --model nano", "no such file"),
    ("lab nowhere.wav --model nano", "no such file"),
    ("lab archive {t}/empty --output-dir {t}/out --model nano", "no sound file in"),
    ("lab archive collect {t}/empty", "python -m whisper_lab archive RECORDINGS --output-dir {t}/empty"),
    ("01 --model nosuch", "there is no checkpoint called 'nosuch'"),
    ("01 --model ./nowhere", "there is no folder"), ("01 --model tinny", "did you mean tiny?"),
    ("01 --model large-v3", "unset HF_HUB_OFFLINE"),
    ("01 --seconds -3", "--seconds: above 0"), ("01 --seconds 3", "add --cli"), ("01 --microphone 0", "add --cli"),
    ("01 --port 70000", "--port: 0 to 65535"),
])
def test_bad_values_are_told_before_a_model_is_opened(call, tmp_path, monkeypatch, command, words):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    status, err = call(f"{command} --model-dir {{t}}/nowhere" if command.startswith("01") else command)
    assert status in (1, 2) and words.format(t=tmp_path) in err and TWO_LINES.fullmatch(err), err


@pytest.mark.parametrize("command", [
    f"02 {CLIP} --model nano", "03 --model nano", f"04 {CLIP} --model nano", f"06 {CLIP} --model nano", "07",
    "08 --model nano", f"09 {CLIP} --model nano", f"10 {CLIP} --model nano", f"lab {CLIP} --model nano", "01 --cli"])
@pytest.mark.parametrize("place, words", [("{t}/file/x.json", "is a file, not a folder"),
                                          ("{t}/empty", "that is a folder")])
def test_a_report_that_cannot_be_written_is_told_before_the_work(call, command, place, words):
    status, err = call(f"{command} --json {place}")
    assert status == 1 and "cannot write" in err and words in err and "disk space" not in err, err
    assert TWO_LINES.fullmatch(err)


@pytest.mark.parametrize("command", [f"02 {CLIP} --model nano", "03 --model nano", f"04 {CLIP} --model nano", "07",
                                     f"09 {CLIP} --model nano", f"10 {CLIP} --model nano"])
def test_an_output_folder_that_cannot_be_one_is_told_before_the_work(call, command):
    status, err = call(f"{command} --output-dir {{t}}/file")
    assert status == 1 and "is a file, not a folder" in err and TWO_LINES.fullmatch(err), err


def test_a_recording_that_cannot_be_kept_is_told_before_it_is_made(call):
    for place, words in (("{t}/file/speech.wav", "is a file, not a folder"), ("{t}/empty", "that is a folder")):
        status, err = call(f"01 --cli --output {place}")
        assert status == 1 and words in err and TWO_LINES.fullmatch(err)


def test_a_page_with_graphs_needs_no_checkpoint(call, tmp_path, monkeypatch):
    from whisper_lab import precisions
    from whisper_lab.record import app

    monkeypatch.setattr(precisions, "written", lambda folder, name: ["int8"])

    class Built(Exception):
        pass

    def build(*arguments):
        raise Built

    monkeypatch.setattr(app, "build", build)
    with pytest.raises(Built):
        call("01 --model nosuch --model-dir {t}/graphs --port 0")


def test_nothing_is_made_where_a_place_is_only_looked_at(call, tmp_path):
    status, _ = call("02 nowhere.wav --model nano --json {t}/new/folder/x.json --output-dir {t}/other")
    assert status == 1 and sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "text.wav"]


def test_an_option_of_another_script_is_not_taken_for_one_that_looks_alike(call):
    for command, never in (("02 --precision int8", "--version"), ("03 --model-dir x", "--model?")):
        assert never not in call(command)[1]
    assert "did you mean --beams?" in call("02 --bems 3")[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_yours_is_told_before_the_work(call, tmp_path):
    (tmp_path / "empty").chmod(0o500)
    status, err = call(f"02 {CLIP} --model nano --json {{t}}/empty/x.json")
    assert status == 1 and "you may not write in" in err and "one that you may write to" in err


def test_what_may_not_be_written_is_told_without_its_owner(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for require, what in ((files.require_place, tmp_path / "x.json"), (files.require_folder, tmp_path / "new")):
        with pytest.raises(LabError, match="you may not write in") as caught:
            require(what)
        assert "disk space" not in caught.value.remedy
