"""What onnxruntime prepares of a graph is kept, opened the next time, and never in the way."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import nano_pair
from whisper_lab import audio, files, locks, names, prepared
from whisper_lab.console import LabError
from whisper_lab.features import log_mel
from whisper_lab.onnx_whisper import OnnxWhisper

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Where entries go."""
    monkeypatch.setenv(prepared.PLACE, str(tmp_path / "prepared"))
    return tmp_path / "prepared"


@pytest.fixture
def pair(nano_export, tmp_path) -> Path:
    """A folder with nano's int8 pair."""
    (tmp_path / "graphs").mkdir()
    return nano_pair.take(nano_export, tmp_path / "graphs", "_int8")


def opened(folder: Path, **settings) -> OnnxWhisper:
    return OnnxWhisper(folder, nano_pair.NAME, "int8", 1, keep=True, **settings)


def numbers(runtime: OnnxWhisper) -> list[np.ndarray]:
    """Cross caches and logits of one sound."""
    mel = log_mel(audio.load(ROOT / "media" / "kitchen.wav").samples, runtime.spec)
    cross = runtime.encode(mel[None])
    return [*cross, runtime.step(np.array([[1, 2, 3]]), cross, None)[0]]


def entries(place: Path) -> list[str]:
    return sorted(path.name.rsplit("-", 1)[0] for path in place.glob("*/") if not path.name.startswith("."))


BOTH = ["whisper-nano_decoder_int8", "whisper-nano_encoder_int8"]


def test_the_second_start_opens_what_the_first_has_kept(place, pair, monkeypatch):
    before = numbers(opened(pair))
    assert entries(place) == BOTH and place.stat().st_mode & 0o77 == 0
    monkeypatch.setattr("whisper_lab.sessions._open", None)  # the graphs themselves are not opened again
    again = opened(pair)
    assert all(np.array_equal(a, b) for a, b in zip(before, numbers(again), strict=True))
    assert again.facts["precision"] == "int8" and again.takes_short_windows


@pytest.mark.parametrize("damage", ["a bit of the weights", "a bit of the graph", "half a file", "no sums", "no graph",
                                    "not a graph"])
def test_what_is_damaged_is_made_again(place, pair, damage):
    before = numbers(opened(pair))
    folder = next(place.glob("*decoder*"))
    weights, graph, whole = (folder / name for name in (prepared.WEIGHTS, prepared.GRAPH, prepared.WHOLE))
    if damage.startswith("a bit"):
        path = weights if damage.endswith("weights") else graph
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "half a file":
        os.truncate(weights, weights.stat().st_size // 2)
    elif damage == "no sums":
        whole.write_text("[3")
    elif damage == "no graph":
        graph.unlink()
    else:  # its sum is right
        graph.write_bytes(b"not a graph")
        files.write_json(whole, files.read_json(whole) | {prepared.GRAPH: prepared.checksum(graph)})
    assert all(np.array_equal(a, b) for a, b in zip(before, numbers(opened(pair)), strict=True))
    assert entries(place) == BOTH and files.read_json(folder / prepared.WHOLE) == prepared.sums(folder)


def test_a_graph_that_was_changed_is_refused_though_its_entry_is_whole(place, pair):
    opened(pair)
    path = names.pair(pair, nano_pair.NAME, "int8")["decoder"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(LabError, match="is damaged, or was changed"):
        opened(pair)


@pytest.mark.parametrize("other", ["_processor", "_runtime"])
def test_another_processor_or_onnxruntime_has_its_own(place, pair, monkeypatch, other):
    opened(pair)
    monkeypatch.setattr(prepared, other, lambda: "another")
    opened(pair)
    assert entries(place) == sorted(2 * BOTH)
    monkeypatch.setattr(prepared, other, lambda: None)  # unknown: nothing is kept, nothing is found
    opened(pair)
    assert entries(place) == sorted(2 * BOTH)


def test_nothing_is_kept_where_it_is_not_wanted_or_cannot_be(place, pair, tmp_path, monkeypatch):
    OnnxWhisper(pair, nano_pair.NAME, "int8", 1)
    opened(pair, verify=False)  # what is damaged may be opened so: nothing to keep
    assert not place.exists()
    monkeypatch.setenv(prepared.PLACE, "no")
    opened(pair)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(prepared.PLACE, str(tmp_path / "file" / "prepared"))
    opened(pair)
    monkeypatch.setenv(prepared.PLACE, str(place))
    monkeypatch.setattr(prepared, "ROOM", 1 << 60)
    opened(pair)
    assert not place.exists() or not entries(place)


def test_a_write_that_fails_leaves_nothing_and_the_graphs_open(place, pair, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepared, "checksum", full)
    numbers(opened(pair))
    assert list(place.iterdir()) == []


def test_a_place_that_cannot_be_written_any_more_is_still_read(place, pair, monkeypatch):
    opened(pair)

    def refused(*_):
        raise PermissionError(13, "Read-only file system")

    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr("whisper_lab.sessions._open", None)
    opened(pair)
    assert entries(place) == BOTH


def test_another_users_entry_is_not_opened(place, pair, monkeypatch):
    opened(pair)
    graph = names.pair(pair, nano_pair.NAME, "int8")["encoder"]
    assert prepared.find(graph)
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert prepared.find(graph) is None


def test_room_is_made_of_what_was_longest_unused(place, monkeypatch):
    now = time.time()
    for name, minutes in (("earlier", 20), ("before that", 30), ("now", 1)):  # a day of exports fills it, too
        (place / name).mkdir(parents=True)
        (place / name / prepared.WHOLE).write_text("x" * 100)
        os.utime(place / name, (now, now - 60 * minutes))
    monkeypatch.setattr(prepared, "MOST_BYTES", 300)
    prepared.make_room(place, 100)
    assert sorted(path.name for path in place.iterdir()) == ["earlier", "now"]
    prepared.make_room(place, 1000)
    assert sorted(path.name for path in place.iterdir()) == ["now"]  # too little, and still it stays


def test_two_that_start_at_once(place, pair):
    program = ("import sys; from whisper_lab.onnx_whisper import OnnxWhisper; "
               "OnnxWhisper(sys.argv[1], 'whisper-nano', 'int8', 1, keep=True)")
    running = [subprocess.Popen([sys.executable, "-c", program, str(pair)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
               for _ in range(3)]
    assert [process.communicate()[1].count("Error") for process in running] == [0, 0, 0]
    assert [process.returncode for process in running] == [0, 0, 0] and entries(place) == BOTH


def test_what_another_process_is_writing_is_not_written_too(place, pair):
    target = prepared.entry(names.pair(pair, nano_pair.NAME, "int8")["encoder"])
    place.mkdir()
    with locks.folder(place, f"{prepared.HALF_MADE}{target.name}-"):
        opened(pair)
        assert entries(place) == BOTH[:1]
    (place / f"{prepared.HALF_MADE}{target.name}-{locks.machine()}-abandon1{locks.SUFFIX}").mkdir()  # by a killed one
    opened(pair)
    assert entries(place) == BOTH and len(list(place.iterdir())) == 2


def test_the_command_line_says_it_once(place, pair):
    command = [sys.executable, "-m", "whisper_lab", str(ROOT / "media" / "kitchen.wav"), "--model-dir", str(pair),
               "--precision", "int8"]
    first, second = (subprocess.run(command, cwd=ROOT, capture_output=True, text=True) for _ in range(2))
    assert first.stderr.count("prepared for this processor") == 1 and "prepared" not in second.stderr
    assert first.stdout == second.stdout and first.returncode == second.returncode == 0
