"""How every script takes its flags and tells of its errors."""

import argparse
import logging
import sys

import pytest

from whisper_lab import console

SCRIPTS = ("02-whisper-huggingface x.wav", "03-export-encoder-decoder", "04-compare-precisions", "06-profile-energy",
           "07-explore-architecture", "08-single-onnx-model", "09-stream-microphone")


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
    assert ended(foreseen, capsys) == (1, "error: a\n  try: b\n")
    assert ended(lambda: None, capsys) == (0, "") and ended(lambda: 1, capsys) == (1, "")
    assert ended(lambda: sys.exit(2), capsys) == (2, "")
