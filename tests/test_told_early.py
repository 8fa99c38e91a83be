"""What is wrong with a command is told before a model is opened: nobody should wait for it."""

import errno
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from whisper_lab import audio, checkpoints, console, onnx_whisper, torch_whisper
from whisper_lab.console import LabError

ROOT = Path(__file__).resolve().parent.parent
CLIP = "media/digits.wav"
TWO_LINES = re.compile(r"(usage: .*\n|checkpoint: .*\n|port: .*\n)?error: .*\n  try: .*\n")


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
    (tmp_path / "half").mkdir()
    shutil.copyfile(ROOT / "whisper_model_dir" / "whisper-nano" / "config.json", tmp_path / "half" / "config.json")

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
           "04-compare-precisions.py", "05-explore-in-netron.py", "06-profile-energy.py", "07-explore-architecture.py",
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
    ("lab archive collect {t}/empty", "{t}/empty has no transcripts of an archive"),
    ("lab archive collect {t}/file", "is a file"), ("lab archive collect {t}/nowhere", "there is no folder"),
    (f"02 {CLIP} --model nano --reference nofile.txt", "there is no reference file nofile.txt"),
    (f"02 {CLIP} --model nano --reference {{t}}/nofile", "there is no reference file {t}/nofile"),
    (f"02 {CLIP} --model nano --reference {{t}}/empty", "{t}/empty is a folder"),
    (f"02 {CLIP} {CLIP} --model nano --reference hallo", "--reference is one text, and there are 2 clips"),
    (f"02 {CLIP} --model nano --threads 9999", "--threads: 1 to "),
    (f"04 {CLIP} --graphs a.onnx b.onnx", "leave out CLIP"),
    (f"04 {CLIP} --precisions int8 --fail-if fp16.wer>1", "fp16 is not compared here, only int8"),
    ("05 --picture --port 99", "leave out --port"), ("05 --parts --part decoder", "leave it out"),
    (f"07 {CLIP} --preset class", "no other preset"),
    ("08 run nowhere.wav --model nano", "no such file"), ("08 --model foo", "there is no checkpoint called 'foo'"),
    (f"lab {CLIP} --model foo", "there is no checkpoint called 'foo'"),
    ("09 nowhere.wav --model foo", "no such file"),
    (f"lab {CLIP} --model {CLIP}", "media/digits.wav is not a Whisper"),
    (f"lab {CLIP} --model {{t}}/half", "half has no tokenizer"), ("08 --model {t}/half", "half has no tokenizer"),
    ("lab archiv {t}", "there is no file archiv; did you mean archive?"),
    ("06 analyse --model nano", "there is no file analyse; did you mean analyze?"),
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
    from whisper_lab.record import app

    (tmp_path / "graphs").mkdir()
    for part in ("encoder", "decoder"):
        (tmp_path / "graphs" / f"nosuch_{part}_int8.onnx").touch()

    class Built(Exception):
        pass

    def build(*arguments):
        raise Built

    monkeypatch.setattr(app, "build", build)
    with pytest.raises(Built):
        call("01 --model nosuch --model-dir {t}/graphs --port 0")


def test_nothing_is_made_where_a_place_is_only_looked_at(call, tmp_path):
    status, _ = call("02 nowhere.wav --model nano --json {t}/new/folder/x.json --output-dir {t}/other")
    assert status == 1 and sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "half", "text.wav"]


def test_an_option_of_another_script_is_not_taken_for_one_that_looks_alike(call):
    for command, never in (("02 --precision int8", "--version"), ("03 --model-dir x", "--model?")):
        assert never not in call(command)[1]
    assert "did you mean --beams?" in call("02 --bems 3")[1]


def test_what_may_not_be_written_is_told_by_trying(call, monkeypatch, tmp_path):
    def no(*arguments, **settings):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", no)  # root, as in a container, may write nearly everywhere
    status, err = call(f"02 {CLIP} --model nano --json {{t}}/new/x.json")
    assert status == 1 and f"{tmp_path}: Permission denied" in err and "one that you may write to" in err


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="Linux has it")
def test_a_file_system_that_takes_nothing_is_told_before_the_work(call):
    for option in ("--json /proc/nowhere/x.json", "--output-dir /proc/nowhere"):
        status, err = call(f"02 {CLIP} --model nano {option}")
        assert status == 1 and "cannot write" in err and "disk space" not in err, err


@pytest.mark.parametrize("command", ["02 {t}/own.wav --model nano --json {t}/own.wav",
                                     "lab {t}/own.wav --model nano --json {t}/link.wav",
                                     "10 {t}/own.wav --model nano --json {t}/own.wav",
                                     "09 {t}/own.wav --model nano --reference {t}/text.wav --json {t}/text.wav"])
def test_a_report_never_replaces_what_is_to_be_read(call, tmp_path, command):
    shutil.copyfile(ROOT / CLIP, tmp_path / "own.wav")
    (tmp_path / "link.wav").symlink_to(tmp_path / "own.wav")
    status, err = call(command)
    assert status == 1 and "which is to be read" in err and TWO_LINES.fullmatch(err)
    assert (tmp_path / "own.wav").read_bytes() == (ROOT / CLIP).read_bytes()


def test_a_dash_is_no_file(call):
    status, err = call(f"02 {CLIP} --model nano --json -")
    assert status == 1 and "to print it: --json /dev/stdout" in err


@pytest.mark.parametrize("option", ["--json", "--output-dir"])
def test_a_place_without_a_name_is_told(call, option):
    """A shell's variable that is not set: --json "$RESULTS"."""
    status, err = call(f"02 {CLIP} --model nano {option}=")
    assert status == 1 and f"{option} is empty" in err and "leave the option out" in err


def test_a_missing_clip_among_others_is_told_before_they_are_heard(call, capsys, monkeypatch):
    console.set_up_notes(20)
    audio.find([CLIP, "nowhere.wav"])
    assert "warning: no such file: nowhere.wav; the other clips are heard all the same" in capsys.readouterr().err
    with pytest.raises(LabError, match="name of a sound file is empty"):
        audio.find([""])


@pytest.mark.parametrize("kind, said", [("text", True), ("srt", False)])
def test_a_folder_that_text_does_not_go_to_is_told(tmp_path, capsys, kind, said):
    from whisper_lab import flags, transcripts

    parser = flags.parser("x", "audio", "format", "timestamps", "beams", "temperature", "output_dir")
    transcripts.check(parser, flags.parse(parser, ["--format", kind, "--output-dir", str(tmp_path)]))
    assert ("--output-dir: not used" in capsys.readouterr().err) == said


def test_a_name_is_no_file_to_convert(capsys):
    from whisper_lab.weights import __main__ as weights

    with pytest.raises(SystemExit) as end:
        weights.main(["base", "--to", "somewhere"])
    assert end.value.code == 2 and "leave out --to to fetch it" in capsys.readouterr().err
