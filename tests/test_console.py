"""How every script takes its flags and tells of its errors."""

import argparse
import io
import json
import logging
import shutil
import signal
import sys

import pytest
from conftest import NANO

import whisper_lab
from whisper_lab import console

SCRIPTS = ("02-whisper-huggingface x.wav", "03-export-encoder-decoder", "04-compare-precisions", "06-profile-energy",
           "07-explore-architecture", "08-single-onnx-model", "09-stream-microphone", "10-who-spoke x.wav")


# Flags ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("script", SCRIPTS)
def test_no_script_starts_without_a_thread(script, call_script):
    status, out, err = call_script(*script.split(), "--threads", "0")
    assert (status, out) == (2, "") and "argument --threads: starts at 1" in err


@pytest.mark.parametrize("wrong, words", [(("--threads", "-1"), "starts at 1"), (("--seed", "-1"), "starts at 0"),
                                          (("--threads", "two"), "invalid number value: 'two'"),
                                          (("--seed", "0.5"), "invalid number value: '0.5'")])
def test_numbers_that_are_none(wrong, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        console.parse(console.parser("", "threads", "seed"), list(wrong))
    assert f"argument {wrong[0]}: {words}" in capsys.readouterr().err


def test_numbers_that_are():
    made = console.parser("", "threads", "seed")
    assert console.parse(made, []) == argparse.Namespace(threads=None, seed=0)
    assert console.parse(made, ["--threads", "2", "--seed", "7"]) == argparse.Namespace(threads=2, seed=7)


# Errors --------------------------------------------------------------------------------------------------------------

def ended(main, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        console.run(main)
    return end.value.code, capsys.readouterr().err


def broken() -> int:
    raise ValueError("no window 3..2\nin 0..2")


def test_what_nobody_foresaw_is_two_lines(capsys, monkeypatch):
    monkeypatch.setattr(console.log, "level", logging.ERROR)  # --quiet
    status, err = ended(broken, capsys)
    assert status == 1 and err.splitlines()[0].startswith("error: ValueError: no window 3..2 (test_console.py, line ")
    assert err.count("\n") == 2 and "\n  try: " in err and "--log-level DEBUG" in err
    status, err = ended({}.popitem, capsys)
    assert status == 1 and err.startswith("error: KeyError: 'popitem(): dictionary is empty' (")
    assert ended(lambda: [][0:0].index(None), capsys)[0] == 1


def test_debug_shows_where_it_happened(monkeypatch):
    monkeypatch.setattr(console.log, "level", logging.DEBUG)
    with pytest.raises(ValueError, match="no window"):
        console.run(broken)


def test_other_ends(capsys):
    def stopped():
        raise KeyboardInterrupt

    def foreseen():
        raise console.LabError("a", "b")

    status, err = ended(stopped, capsys)
    assert status == 130 and "stopped by Ctrl-C" in err
    for number, name, status in ((signal.SIGTERM, "SIGTERM", 143), (signal.SIGHUP, "SIGHUP", 129)):
        line = f"\nstopped by {name}; files are either complete or as they were before\n"
        assert ended(lambda number=number: signal.raise_signal(number), capsys) == (status, line)
        assert signal.getsignal(number) == signal.SIG_DFL
    assert ended(foreseen, capsys) == (1, "error: a\n  try: b\n")
    assert ended(lambda: None, capsys) == (0, "") and ended(lambda: 1, capsys) == (1, "")
    assert ended(lambda: sys.exit(2), capsys) == (2, "")


def test_a_signal_that_is_ignored_stays_so(capsys):
    """As after nohup: the terminal may be closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert ended(lambda: signal.raise_signal(signal.SIGHUP), capsys) == (0, "")
    finally:
        signal.signal(signal.SIGHUP, before)


# Foreign text --------------------------------------------------------------------------------------------------------

EVIL = "a\x1b[2J\x1b]0;title\x07\r\x9b31m\u202etxt\u2028b\x00\x7f\udc80"
SHOWN = r"a\u001b[2J\u001b]0;title\u0007\u000d\u009b31m\u202etxt\u2028b\u0000\u007f\udc80"


def test_what_a_terminal_obeys_is_written_out():
    assert console.plain(EVIL) == SHOWN and json.loads(f'"{SHOWN}"') == EVIL
    assert console.plain("a\nb\tc") == "a\nb\tc" and console.plain("a\nb\tc", one_line=True) == r"a\nb\tc"
    kept = "Nérine, \u4f60\u597d, \u0645\u0631\u062d\u0628\u0627\u200f, e\u0301, \U0001f600, \u00a0, \u200d"
    assert console.plain(kept, one_line=True) == kept


@pytest.mark.parametrize("say", [
    lambda text: console.note(text, text, text), console.warn, console.result,
    lambda text: console.error(console.LabError(text, text)), lambda text: console.log.error("error: %s", text),
    lambda text: console.table(text, [text, "b"], [[text, text]]),
    lambda text: console.parser("", "seed").error(text)])
def test_it_never_reaches_a_terminal(say, capsys):
    console.parse(console.parser("", "seed"), [])
    try:
        say(EVIL)
    except SystemExit as end:
        assert end.code == 2
    both = "".join(capsys.readouterr())
    assert SHOWN[:12] in both.replace("\n", "") and not console.OBEYED.search(both)


@pytest.mark.parametrize("say", [
    lambda text: console.note(text, text, text), console.warn, lambda text: console.error(console.LabError(text, text)),
    lambda text: console.table(text, [text], [[text]]), lambda text: console.parser("", "seed").error(text)])
def test_a_name_with_a_line_end_makes_no_line(say, capsys):
    console.parse(console.parser("", "seed"), [])
    try:
        say("x.wav\nerror: fake")
    except SystemExit:
        pass
    assert not any(line.startswith("error: fake") for line in "".join(capsys.readouterr()).splitlines())


def test_an_error_that_nobody_foresaw_is_written_out_too(capsys, monkeypatch):
    def fails():
        raise ValueError(EVIL)

    monkeypatch.setattr(console.log, "level", logging.ERROR)
    err = ended(fails, capsys)[1]
    assert r"ValueError: a\u001b[2J" in err and not console.OBEYED.search(err)
    monkeypatch.setattr(console.log, "level", logging.DEBUG)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(ValueError) as caught:
        console.run(fails)
    sys.excepthook(caught.type, caught.value, caught.tb)
    assert SHOWN in (err := capsys.readouterr().err) and not console.OBEYED.search(err) and "Traceback" in err


def test_scripts_show_names_as_text(run_script, tmp_path, nano):
    clip = tmp_path / "a\x1b[31m\nerror: fake.wav"
    shutil.copy(NANO.parent.parent / "media" / "kitchen.wav", clip)
    done = run_script("02-whisper-huggingface.py", "--model", "nano", "--threads", "1", "--audio", clip,
                      tmp_path / "no\x1b", cwd=tmp_path)
    again = run_script("02-whisper-huggingface.py", "--model", "nano", "--threads", "1", "--audio", clip, cwd=tmp_path)
    for said in (done.stdout + done.stderr, again.stdout + again.stderr):
        assert "\x1b" not in said and not any(line.startswith("error: fake") for line in said.splitlines())
    assert "turn on the lights" in again.stdout


def test_live_text_is_text():
    from types import SimpleNamespace

    from whisper_lab.stream.screen import Screen

    out = io.StringIO()
    Screen(out).close([SimpleNamespace(text="a\x1b[2J")])
    assert out.getvalue() == "a\\u001b[2J\n"


@pytest.mark.parametrize("script", ("01-record-audio-app", "05-explore-in-netron",
                                    *(script.split()[0] for script in SCRIPTS)))
def test_every_script_tells_its_version(script, call_script):
    status, out, _ = call_script(script, "--version")
    assert status == 0 and out == f"Whisper ONNX Lab {whisper_lab.__version__}\n"


@pytest.mark.parametrize("script", ("01-record-audio-app", "05-explore-in-netron",
                                    *(script.split()[0] for script in SCRIPTS)))
def test_help_fits_eighty_columns(script, call_script, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = call_script(script, "--help")
    assert status == 0 and [line for line in out.splitlines() if len(line) > 80] == []
