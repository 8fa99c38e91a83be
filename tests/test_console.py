"""How every script takes its flags and tells of its errors."""

import argparse

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
