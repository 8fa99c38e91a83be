"""benchmarks/short_windows.py: both ways to hear a clip on whisper-nano, the limits, the table."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.benchmark_files import module
from whisper_lab import files
from whisper_lab.decoding import Result
from whisper_lab.onnx_whisper import OnnxWhisper

MEDIA = Path(__file__).resolve().parent.parent / "media"


@pytest.fixture(scope="module")
def short_windows():
    return module("short_windows")


@pytest.fixture(scope="module")
def measured(short_windows, nano_export, tmp_path_factory):
    folder = tmp_path_factory.mktemp("short")
    with pytest.MonkeyPatch.context() as patch:  # nano needs so much that no clip of media is short enough
        patch.setattr(OnnxWhisper, "silence_s", 4.5)
        assert short_windows.main(["--corpus", str(MEDIA), "--model", "nano", "--graphs", str(nano_export / "graphs"),
                                   "--output-dir", str(folder), "--quiet"]) == 0
    return files.read_json(folder / "short-windows.json")


def test_only_clips_shorter_than_the_window_are_heard_and_cost_less(measured):
    assert measured["corpus"]["clips"] == 3  # of 3 s each; the others fill the window of 10 s with silence
    for row in measured["limits"]:
        for found in row["graphs"].values():
            assert found["all"]["words"] == 13 and found["all"]["wer"] == found["all"]["wer_whole"] == 0
            assert found["brief"]["clips"] == 3


def test_the_table_has_a_line_for_each_limit_and_pair_and_names_the_labs_own(short_windows, measured):
    lines = short_windows.table(measured).splitlines()
    assert len(lines) == 2 + 2 * len(short_windows.LIMITS) + 2
    assert sum("(this lab)" in line for line in lines) == 2
    assert "3 clips, 13 words" in lines[-1]


def test_a_text_below_the_limit_is_heard_again_and_the_whole_windows_counts(short_windows):
    good = short_windows.scoring.Counts(4, 0, 0, 0, 0, ((4, 0),))
    bad = replace(good, substitutions=2, stretches=((4, 2),))
    result = Result([1], "turn on the lights", -0.6, 0.0, 0.0, 1.0, "en", None, text_logprob=-0.6,
                    logprobs=[-0.6, -0.6])
    rows = [{"seconds": 2.0, "short": result, "short_s": 1.0, "whole_s": 3.0, "short_counts": bad,
             "whole_counts": good}]
    warned = short_windows.confidence.limit_of("whisper-base")
    assert -0.6 < warned and -0.6 > 1.5 * warned
    once, twice = (short_windows.judged(rows, times, "whisper-base")["all"] for times in (1.5, 1.0))
    assert (once["heard_again"], once["wer"], once["processor_time"]) == (0, 0.5, pytest.approx(1 / 3))
    assert (twice["heard_again"], twice["wer"], twice["processor_time"]) == (1, 0.0, pytest.approx(4 / 3))
