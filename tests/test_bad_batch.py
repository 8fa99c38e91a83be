"""One bad file costs one line: the others are transcribed, the results are written, the exit status is 1."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.bad_sound import bad_file

ROOT = Path(__file__).resolve().parent.parent
BAD = ("bits33", "cut_m4a", "empty", "missing", "nan", "one_hertz")
ODD = os.fsdecode(b"caf\xe9.wav")  # as an old disk or an archive has it: Latin-1, no UTF-8


@pytest.fixture
def batch(tmp_path):
    """Bad files and, in between and at the end, two good ones; the name of one is not UTF-8."""
    if os.name == "nt":
        pytest.skip("names are UTF-16 there")
    good = [tmp_path / ODD, tmp_path / "good.wav"]
    for path in good:
        shutil.copy(ROOT / "media" / "digits.wav", path)
    bad = [bad_file(kind, tmp_path) for kind in BAD]
    odd = tmp_path / os.fsdecode(b"\xff.wav")
    odd.write_text("no sound")
    return [*bad[:3], good[0], *bad[3:], odd, good[1]]


def check_errors(status, err):
    assert status == 1 and "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == len(BAD) + 1
    for name in (*(f"{kind}.wav" for kind in BAD), "\\udcff.wav"):
        assert sum(name in line for line in lines) == 1
    assert err.count("\n  try: ") == len(lines)


def test_02(call_script, nano, batch, tmp_path):
    status, out, err = call_script("02-whisper-huggingface.py", "--model", "nano", "--threads", 1, "--quiet",
                                   *batch, "--json", tmp_path / "o.json")
    check_errors(status, err)
    clips = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))["clips"]
    assert [clip["file"] for clip in clips] == [ODD, "good.wav"]
    assert clips[0]["text"] == clips[1]["text"] != "" and out.count(clips[0]["text"]) == 2
    assert "caf\\udce9.wav" in out


@pytest.mark.parametrize("options", [("--explain",), ("--format", "srt"), ("--format", "json")])
def test_02_files_of_a_name_that_is_no_utf8(call_script, nano, batch, tmp_path, options):
    status, out, err = call_script("02-whisper-huggingface.py", "--model", "nano", "--threads", 1, "--quiet",
                                   tmp_path / ODD, tmp_path / "good.wav", *options, "--output-dir", tmp_path / "out")
    assert status == 0 and err == ""
    if options != ("--format", "json"):
        assert len({path.stem for path in (tmp_path / "out").glob("[!.]*")}) == 2
    else:
        assert json.loads(out)["clips"][0]["file"] == ODD


def test_graphs(call_script, nano_export, batch, tmp_path):
    status, out, err = call_script("whisper_lab.__main__", *batch, "--model", "nano", "--model-dir",
                                   nano_export / "graphs", "--quiet", "--json", tmp_path / "o.json")
    check_errors(status, err)
    clips = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))["clips"]
    assert [clip["file"] for clip in clips] == [ODD, "good.wav"] and out.count(clips[0]["text"]) == 2


def test_09(call_script, nano_export, batch, tmp_path):
    status, out, err = call_script("09-stream-microphone.py", "--model", "nano", "--model-dir", nano_export / "graphs",
                                   "--no-batch", "--quiet", "--output-dir", tmp_path / "reports", *batch,
                                   "--json", tmp_path / "o.json")
    check_errors(status, err)
    clips = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))["clips"]
    assert [clip["source"] for clip in clips] == [ODD, "good.wav"] and clips[0]["text"] == clips[1]["text"] != ""
    assert "# caf\\udce9.wav" in (tmp_path / "reports" / "stream-whisper-nano.txt").read_text(encoding="utf-8")


def test_06(call_script, nano, batch, tmp_path):
    status, _, err = call_script("06-profile-energy.py", "--model", "nano", "--threads", 1, "--repeats", 1, "--warm-up",
                                 0, "--idle-seconds", 0, "--quiet", "--audio-file", tmp_path, "--output-file",
                                 tmp_path / "o.json")
    bad = [f"{kind}.wav" for kind in BAD if kind != "missing"] + ["\\udcff.wav"]
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 1 and sorted(line.split()[2].rstrip(":") for line in lines) == sorted(bad)
    document = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    assert document["failed_samples"] == len(bad) and document["total_samples"] == 2


def test_all_bad_is_one_error(call_script, nano, batch, tmp_path):
    status, out, err = call_script("02-whisper-huggingface.py", "--model", "nano", "--quiet",
                                   tmp_path / "empty.wav", tmp_path / "missing.wav")
    assert (status, out) == (1, "") and err.count("error: ") == 1 and "empty.wav" in err
