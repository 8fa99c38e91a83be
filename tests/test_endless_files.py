"""Pipes, devices and files of one hole in place of the small files that the lab reads whole: refused, and at once."""

import json
import os
import struct
import time

import pytest

from whisper_lab import checkpoints, files, transcripts
from whisper_lab.console import LabError
from whisper_lab.speakers import turns
from whisper_lab.sweeps import layout
from whisper_lab.weights import ctranslate2, formats, huggingface, store, vocabulary

HOLE = 30 * 10**9  # bytes
SOON_S = 2.0


def put(path, kind):
    """In place of a file: a pipe that nobody writes into, a device without an end, a hole that takes no room."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            try:
                file.truncate(HOLE)
            except OSError:
                pytest.skip("this file system has no large sparse files")


@pytest.fixture(params=["pipe", "device", "hole"])
def kind(request):
    """What stands in place of the file; the test has to be over soon."""
    started = time.monotonic()
    yield request.param
    assert time.monotonic() - started < 10 * SOON_S


READERS = {
    "read_json": lambda path: files.read_json(path),
    "references": lambda path: transcripts.read_references(path),
    "rttm": lambda path: turns.read_rttm(path),
    "checkpoint": lambda path: huggingface.document(path),
    "ctranslate2": lambda path: ctranslate2.read_config(path),
    "tokenizer": lambda path: vocabulary.from_document(path, 51865, 1500),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", READERS)
def test_readers_of_whole_files(tmp_path, kind, name):
    put(tmp_path / "a.json", kind)
    with pytest.raises((LabError, ValueError)):
        READERS[name](tmp_path / "a.json")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "preprocessor_config.json",
                                  "tokenizer.json", "vocab.json", "added_tokens.json"])
def test_files_of_a_checkpoint(nano_copy, kind, name):
    put(nano_copy / name, kind)
    with pytest.raises(LabError):
        checkpoints.resolve(str(nano_copy))


@pytest.mark.timeout(60)
def test_a_checkpoint_folder_is_told_from_others_without_waiting(tmp_path, kind):
    put(tmp_path / "config.json", kind)
    assert formats.kind_of(tmp_path) is None


def test_files_of_results_are_as_if_they_were_broken_off(tmp_path, kind):
    put(tmp_path / "a_status.json", kind)
    assert layout.read_json(tmp_path / "a_status.json") is None


def test_a_header_that_is_most_of_the_file_is_not_read(nano_copy):
    put(nano_copy / "model.safetensors", "hole")
    with (nano_copy / "model.safetensors").open("r+b") as file:
        file.write(struct.pack("<Q", HOLE - 100))
    with pytest.raises(LabError, match="not a safetensors file"):
        checkpoints.resolve(str(nano_copy))


def test_weights_that_were_never_written(nano_copy, tmp_path, monkeypatch):
    """A header that fits the file, and a hole behind it; and a file of another runtime, which would be hashed first."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, HOLE]}}).encode()
    put(nano_copy / "model.safetensors", "hole")
    with (nano_copy / "model.safetensors").open("r+b") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + HOLE)
    with pytest.raises(LabError, match="never written"):
        checkpoints.resolve(str(nano_copy))
    monkeypatch.setenv(store.PLACE, str(tmp_path / "store"))
    put(tmp_path / "ggml-base.bin", "hole")
    started = time.process_time()
    with pytest.raises(LabError, match="never written"):
        store.converted(tmp_path / "ggml-base.bin", "ggml", "base", lambda folder: False)
    assert time.process_time() - started < SOON_S


def test_ordinary_files_are_read_as_before(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a":\r\n "\xc3\xa9"}')
    assert files.read_json(tmp_path / "a.json") == {"a": "é"}
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\rthree\n")
    assert files.read_text(tmp_path / "a.txt") == "one\ntwo\nthree\n"
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "none.json")
    with pytest.raises(OSError):
        files.read_json(tmp_path)
