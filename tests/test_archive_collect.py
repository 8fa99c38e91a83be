"""`archive collect`: one table of an archive, as Parquet and as a CSV that a spreadsheet can be given."""

import csv
import json
import os
import re
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

from whisper_lab import transcripts
from whisper_lab.archive import collect, store

TEXT = "Turn on the lights."


@pytest.fixture
def folder(tmp_path) -> Path:
    """The output folder of an archive, without documents."""
    made = tmp_path / "out"
    (made / store.STATE / store.FAILED).mkdir(parents=True)
    return made


@pytest.fixture
def collected(call_script, folder):
    """A function (options) -> (exit status, stdout, stderr)."""
    return lambda *options: call_script("whisper_lab.__main__", "archive", "collect", folder, *options)


def write(folder: Path, name: str, text: str = TEXT, **more: object) -> Path:
    """A document as the archive writes it."""
    segments = [{"start_s": 0.5, "end_s": 1.75, "text": text, "tokens": [1], "doubtful": False}] if text else []
    clip = {"file": name, "duration_s": 10.0, "language": "en", "language_probability": 0.9, "text": text,
            "segments": segments, "transcribe_s": 0.5, "real_time_factor": 0.05,
            "source": {"bytes": 100, "changed_ns": 1, "sha256": "ab"}, **more}
    place = folder / f"{name}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"schema": transcripts.SCHEMA, "model": {"name": "whisper-nano", "precision": "int8"},
                                 "settings": {}, "clips": [clip]}), encoding="utf-8")
    return place


def fail(folder: Path, name: str, error: str) -> None:
    (folder / store.STATE / store.FAILED / f"{len(name)}.json").write_text(json.dumps(
        {"file": name, "error": error, "remedy": "do this", "source": {"bytes": 3}}), encoding="utf-8")


def tables(folder: Path) -> tuple[list[dict], list[dict]]:
    """The rows of the CSV and of the Parquet file."""
    with (folder / "archive.csv").open(encoding="utf-8-sig", newline="") as opened:
        return list(csv.DictReader(opened)), pyarrow.parquet.read_table(folder / "archive.parquet").to_pylist()


def test_a_row_for_each_recording_with_text_language_times_and_factor(collected, folder):
    write(folder, "b/two.wav", text="", language=None)
    write(folder, "a.wav")
    status, out, _ = collected()
    rows, columns = tables(folder)
    assert status == 0 and [row["file"] for row in columns] == ["a.wav", "b/two.wav"]
    assert columns[0] == {
        "file": "a.wav", "status": "done", "text": TEXT, "language": "en", "language_probability": 0.9,
        "duration_s": 10.0, "transcribe_s": 0.5, "real_time_factor": 0.05, "first_s": 0.5, "last_s": 1.75,
        "doubtful_segments": 0, "noticed": None, "model": "whisper-nano", "precision": "int8", "error": None,
        "remedy": None, "bytes": 100, "sha256": "ab", "document": "a.wav.json",
        "segments": [{"start_s": 0.5, "end_s": 1.75, "text": TEXT}]}
    assert columns[1]["text"] == "" and columns[1]["first_s"] is None and columns[1]["segments"] == []
    for row, made in zip(rows, columns, strict=True):
        assert list(row) == list(collect.COLUMNS)
        assert json.loads(row.pop("segments")) == made.pop("segments")
        assert row == {name: "" if value is None else str(value) for name, value in made.items()}
    assert "0.0500" in out and "en 1, no speech 1" in out and f"wrote {folder / 'archive.parquet'}" in out


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x","y")', "\t=1", "\r=1", " =1",
                                  "\n=1", "＝1+1", "＠x"])
def test_no_cell_of_the_csv_is_computed(collected, folder, text):
    write(folder, "a.wav", text=text, language=text)
    write(folder, "=b.wav")
    fail(folder, "-c.wav", text)
    collected()
    rows, columns = tables(folder)
    cells = [cell for row in rows for name, cell in row.items() if name != "segments"]
    assert not [cell for cell in cells if cell.strip().startswith(("=", "+", "-", "@", "＝", "＠"))]
    assert {row["file"] for row in rows} == {"a.wav", "'=b.wav", "'-c.wav"}
    shown = {row["file"]: row for row in rows}["a.wav"]["text"]
    assert shown.startswith("'") or shown == "\\u000d=1"
    assert {row["file"]: row for row in columns}["a.wav"]["text"] == text  # no spreadsheet reads Parquet


def test_numbers_below_zero_stay_numbers():
    assert [collect.cell(value) for value in (-1.5, 0, None, "a-b", "it's")] == [-1.5, 0, None, "a-b", "it's"]


def test_names_that_are_no_text(collected, folder):
    write(folder, "line\nend.wav")
    if os.name == "posix":
        write(folder, os.fsdecode(b"caf\xe9.wav"))
    assert collected()[0] == 0
    rows, columns = tables(folder)
    assert "line\nend.wav" in {row["file"] for row in rows} & {row["file"] for row in columns}
    if os.name == "posix":
        assert "caf\\udce9.wav" in {row["file"] for row in rows} & {row["file"] for row in columns}


def test_failures_are_rows_too(collected, folder):
    write(folder, "a.wav")
    write(folder, "changed.wav")
    fail(folder, "changed.wav", "it is empty now")
    fail(folder, "b.wav", "b.wav is empty (0 bytes)")
    status, out, _ = collected()
    rows = {row["file"]: row for row in tables(folder)[1]}
    assert status == 1 and "failed: b.wav: b.wav is empty (0 bytes)\n" in out
    assert (rows["b.wav"]["status"], rows["b.wav"]["error"]) == ("failed", "b.wav is empty (0 bytes)")
    assert rows["b.wav"]["text"] is None and rows["b.wav"]["remedy"] == "do this"
    assert rows["changed.wav"]["status"] == "failed" and rows["changed.wav"]["text"] == TEXT
    assert len(rows) == 3 and rows["a.wav"]["status"] == "done"


def test_what_was_noticed_about_a_sound_is_in_the_table_and_counted(collected, folder):
    notes = ["44100 Hz -> 16000 Hz (soxr HQ)", "warning: it is cut short: 0.6 of 3.2 s"]
    write(folder, "cut.wav", sound={"format": "WAV", "notes": notes})
    write(folder, "whole.wav", sound={"format": "WAV", "notes": notes[:1]})
    write(folder, "odd.wav", sound={"notes": [1]})
    status, out, _ = collected()
    assert [row["noticed"] for row in tables(folder)[1]] == ["it is cut short: 0.6 of 3.2 s", None, None]
    assert status == 0 and re.search(r"damaged or unusual \(noticed\)\s+1\s", out)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"clips": []}', '{"schema": "other", "clips": [{}]}',
                                     '{"schema": "whisper-onnx-lab/transcripts/1", "clips": [{"file": "a.wav"}]}'])
def test_a_damaged_document_is_named(collected, folder, content):
    write(folder, "a.wav").write_text(content)
    write(folder, "b.wav")
    status, out, _ = collected()
    rows = {row["file"]: row for row in tables(folder)[1]}
    assert status == 1 and "failed: a.wav: this document is not whole; run the archive again" in out
    assert rows["a.wav"]["status"] == "damaged" and rows["b.wav"]["status"] == "done"


def test_many_rows_and_columns_that_begin_empty(collected, folder, monkeypatch):
    monkeypatch.setattr(collect, "ROWS", 3)
    for i in range(8):
        write(folder, f"{i}.wav", text="" if i < 4 else TEXT)
    collected()
    rows, columns = tables(folder)
    assert [row["file"] for row in columns] == [f"{i}.wav" for i in range(8)] == [row["file"] for row in rows]


def test_one_of_the_two_and_without_pyarrow(collected, folder, tmp_path, monkeypatch):
    write(folder, "a.wav")
    assert collected("--csv", tmp_path / "one.csv")[0] == 0
    assert (tmp_path / "one.csv").exists() and not list(folder.glob("archive.*"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, err = collected()
    assert status == 1 and err.splitlines()[-2] == "error: Parquet needs pyarrow, which cannot be imported"
    assert collected("--csv", tmp_path / "two.csv")[0] == 0 and not list(folder.glob("archive.*"))


def test_a_folder_that_is_none_of_an_archive(call_script, tmp_path):
    status, _, err = call_script("whisper_lab.__main__", "archive", "collect", tmp_path)
    assert status == 1 and "has no transcripts of an archive" in err and "  try: " in err
