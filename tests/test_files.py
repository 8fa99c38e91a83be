"""Files that appear whole or not at all, with the rights of any other file."""

import os

from whisper_lab import files


def test_a_written_file_has_the_rights_of_any_other_and_no_other_thread_notices(tmp_path, monkeypatch):
    """The umask belongs to the process: set to be read, it would leave what another thread makes open to all."""
    (tmp_path / "plain").touch()
    monkeypatch.setattr(os, "umask", lambda mask: 1 / 0)
    files.write_text(tmp_path / "atomic", "x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode
