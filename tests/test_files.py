"""Files that appear whole or not at all, with the rights of any other file."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from whisper_lab import files


def test_a_written_file_has_the_rights_of_any_other_and_no_other_thread_notices(tmp_path, monkeypatch):
    """The umask belongs to the process: set to be read, it would leave what another thread makes open to all."""
    (tmp_path / "plain").touch()
    monkeypatch.setattr(os, "umask", lambda mask: 1 / 0)
    files.write_text(tmp_path / "atomic", "x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["a.wav", "sub/a.wav", "12:30.wav", "..a", "a..b", " a", "n\u00e9.wav"])
def test_a_list_names_files_of_its_folder(name):
    assert files.inside(Path("folder"), name) == Path("folder") / name


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../../b", "..", "C:\\a", "C:a", "\\\\host\\a", "..\\a",
                                  "a\x00", None, 7, ["a"]])
def test_a_list_names_no_file_elsewhere(name, tmp_path):
    with pytest.raises(ValueError, match="inside its folder"):
        files.inside(tmp_path, name)


def test_references_and_lists_of_weights_stay_in_their_folder(tmp_path, nano):
    from whisper_lab import checkpoints
    from whisper_lab.compare import texts
    from whisper_lab.console import LabError

    (tmp_path / "references.json").write_text(json.dumps({"/etc/passwd": "text"}))
    with pytest.raises(LabError, match="not a place inside its folder"):
        texts.manifest(tmp_path / "references.json")
    folder = shutil.copytree(nano, tmp_path / "checkpoint")
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(LabError, match="not a place inside its folder"):
        checkpoints.resolve(str(folder))


def test_a_private_file_stays_private(tmp_path):
    path = files.write_text(tmp_path / "a.txt", "one")
    assert path.stat().st_mode & 0o777 == 0o666 & ~files.UMASK
    path.chmod(0o600)
    assert files.write_text(path, "two").stat().st_mode & 0o777 == 0o600 and path.read_text() == "two"


def test_what_cannot_be_written_because_of_its_name_says_so(tmp_path):
    from whisper_lab.console import LabError

    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for path, remedy in (("folder", "that is a folder"), ("file/a.json", "is a file, not a folder"),
                         ("file/b/a.json", "is a file, not a folder")):
        with pytest.raises(LabError, match="cannot write") as caught:
            files.write_text(tmp_path / path, "y")
        assert remedy in caught.value.remedy and "disk space" not in caught.value.remedy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link.json").symlink_to("far/report.json")
    for text in ("first", "second"):  # to what is not there yet, and to what is
        files.write_text(tmp_path / "link.json", text)
        assert (tmp_path / "link.json").is_symlink() and (tmp_path / "far" / "report.json").read_text() == text
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["far", "link.json", "report.json"]


def test_a_pipe_is_given_the_whole(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    files.write_json(tmp_path / "pipe", {"a": 1})
    reader.join(10)
    assert json.loads(read[0]) == {"a": 1} and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_nothing_half_done_goes_into_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ZeroDivisionError), files.atomic(tmp_path / "pipe") as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == [tmp_path / "pipe"]


def test_standard_output_is_a_place_to_write_to(tmp_path):
    code = ("from whisper_lab import files\nprint('before')\nfiles.require_place('/dev/stdout')\n"
            "files.write_text('/dev/stdout', 'the report')\nfiles.write_text('/dev/null', 'x')")
    for out in (subprocess.PIPE, (tmp_path / "file").open("w")):
        done = subprocess.run([sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE, text=True, timeout=60,
                              cwd=Path(files.__file__).parent.parent)
        said = done.stdout if out == subprocess.PIPE else (tmp_path / "file").read_text()
        assert done.returncode == 0 and said == "before\nthe report", done.stderr
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode) and os.path.islink("/dev/stdout")


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="Linux has it")
def test_a_file_in_shared_memory_is_a_file():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        for text in ("first", "second"):
            files.write_text(Path(folder) / "x.json", text)
        assert (Path(folder) / "x.json").read_text() == "second"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_a_device_without_room_says_so(tmp_path):
    os.symlink("/dev/full", tmp_path / "full")
    with pytest.raises(files.LabError, match="cannot write .*full: No space left"):
        files.write_text(tmp_path / "full", "x")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
