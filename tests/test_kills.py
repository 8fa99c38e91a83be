"""A few of the kills of kills.py, always the same ones; `make kills` does as many as are asked for."""

import random
import shutil
import signal
from pathlib import Path

import pytest

from tests.helpers import kills, nano_pair


@pytest.fixture(scope="module")
def pair(nano_export, tmp_path_factory) -> Path:
    return nano_pair.take(nano_export, tmp_path_factory.mktemp("kills") / "pair", "_int8")


@pytest.mark.parametrize("name, count", [("01", 4), ("06", 2), ("08", 2), ("09", 2)])
def test_killed_at_any_moment_there_is_no_half_file_no_orphan_and_no_litter(pair, tmp_path, monkeypatch, name, count):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    program, = kills.programs(tmp_path, pair, [name])
    kills.many(program, count, random.Random(7), (signal.SIGKILL, signal.SIGTERM))
    assert program.faults == [] and program.found["kills"] == count


def test_the_looks_see_faults(tmp_path):
    """Half files, litter, a lost recording and a process that goes on are all found."""
    (tmp_path / "01").mkdir()
    program = kills.saving(tmp_path / "01")
    program.command[-1] = "2"
    kills.run(program)
    assert program.faults == []
    (program.folder / "half.json").write_text('{"a": ')
    (program.folder / "half.onnx").write_bytes(b"\x08\x09")
    (program.folder / "half.csv").write_text("a,b\n1,")
    (program.folder / "half.html").write_text("<html>")
    (program.folder / "half.png").write_bytes(b"\x89PNG")
    whole = (program.folder / "speech.wav").read_bytes()
    (program.folder / "speech.wav").write_bytes(whole[:1000])
    (program.folder / ".write-x.partial").mkdir()
    helper = kills.start(program)  # has the program's token, and goes on
    helper.send_signal(signal.SIGSTOP)
    process = kills.start(program)
    process.wait()
    shutil.rmtree(program.folder / "recordings")
    (program.folder / "speech.wav").write_bytes(whole[:1000])
    kills.PATIENCE_S, before = 0.1, kills.PATIENCE_S
    try:
        kills.look(program, process)
    finally:
        kills.PATIENCE_S = before
        helper.kill()
        helper.wait()
    said = " ".join(program.faults)
    for fault in ("half.json", "half.onnx", "half.csv", "half.html", "half.png", "speech.wav", "recording 0 is lost",
                  "still running"):
        assert fault in said, program.faults
    assert kills.litter(program.folder) == [Path(".write-x.partial")]
