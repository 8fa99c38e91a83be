"""What was said, in every form and encoding that people save it in."""

import codecs
import json
import shutil
from pathlib import Path

import pytest

from whisper_lab import transcripts
from whisper_lab.compare import texts
from whisper_lab.console import LabError
from whisper_lab.energy import samples
from whisper_lab.transcripts import read_reference

ROOT = Path(__file__).resolve().parent.parent
SAID = "één café, s'il vous plaît"
ENCODINGS = {"UTF-8": SAID.encode(), "UTF-8 with a mark": codecs.BOM_UTF8 + SAID.encode(),
             "UTF-16": SAID.encode("utf-16"), "big-endian": codecs.BOM_UTF16_BE + SAID.encode("utf-16-be"),
             "code page 1252": SAID.encode("cp1252")}
OBJECT = {"a.wav": {"text": SAID, "language": "fr"}, "b.wav": "two"}
LIST = [{"file": "a.wav", "text": SAID, "language": "fr", "kind": "short"}, {"file": "b.wav", "text": "two"}]


def saved(path, document, encoding):
    """JSON as a program on Windows saves it, its letters unescaped."""
    text = json.dumps(document, ensure_ascii=False)
    path.write_bytes(text.encode("utf-16-le" if encoding == "no mark" else encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "no mark", "cp1252"])
@pytest.mark.parametrize("document", [OBJECT, LIST], ids=["object", "list"])
def test_every_reader_of_json(tmp_path, document, encoding):
    for name in ("a.wav", "b.wav"):
        shutil.copy(ROOT / "media" / "digits.wav", tmp_path / name)
    path = saved(tmp_path / "references.json", document, encoding)
    clips = [tmp_path / "a.wav", tmp_path / "b.wav"]
    assert read_reference(str(path), clips) == {clips[0]: SAID, clips[1]: "two"}
    assert texts.manifest(path) == {clips[0]: {"text": SAID, "language": "fr"},
                                    clips[1]: {"text": "two", "language": None}}
    assert [clip.reference for clip in texts.read_clips([str(tmp_path)], None, None)] == [SAID, "two"]
    assert [sample.reference for sample in samples.from_files([str(clip) for clip in clips])] == [SAID, "two"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_text_file(tmp_path, encoding):
    path = tmp_path / "said.txt"
    path.write_bytes(ENCODINGS[encoding])
    assert read_reference(str(path), [Path("a.wav")]) == {Path("a.wav"): SAID}


def test_02_with_a_list_saved_on_windows(call_script, nano, tmp_path):
    (tmp_path / "en").mkdir()
    clip = shutil.copy(ROOT / "media" / "digits.wav", tmp_path / "en" / "digits.wav")
    path = saved(tmp_path / "references.json", [{"file": "en/digits.wav", "text": "four", "language": "en"}], "utf-16")
    status, out, _ = call_script("02-whisper-huggingface.py", "--model", "nano", "--threads", 1, "--quiet",
                                 clip, "--reference", path)
    assert status == 0 and "WER" in out and "REF: 4\n" in out  # a number as figures


def test_two_clips_of_one_name_in_two_folders(tmp_path):
    rows = [{"file": "en/1.wav", "text": "one"}, {"file": "nl/1.wav", "text": "een"}]
    path = saved(tmp_path / "r.json", rows, "utf-8")
    clips = [tmp_path / "nl" / "1.wav", tmp_path / "en" / "1.wav"]
    assert read_reference(str(path), clips) == dict(zip(clips, ["een", "one"], strict=True))
    with pytest.raises(LabError, match="no reference for '1.wav'"):  # elsewhere it may be either
        read_reference(str(path), [Path("elsewhere/1.wav")])


@pytest.mark.parametrize("text", ["", "null", "3", '"x"', "{", "[1]", '[{"text": "x"}]', '{"a.wav": 3}',
                                  '{"a.wav": {"text": 3}}', "[" * 100_000, '{"a.wav": {"text": "x", "language": []}}'])
def test_what_is_no_reference_is_two_lines(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    for read in (transcripts.read_references, texts.manifest, lambda path: read_reference(str(path), [Path("a.wav")])):
        with pytest.raises(LabError, match="cannot read references from") as caught:
            read(path)
        assert "\n" not in caught.value.problem and "write JSON" in caught.value.remedy


def test_no_encoding_at_all(tmp_path):
    (tmp_path / "r.json").write_bytes(b'{"a": "\x81\x8d"}')
    with pytest.raises(LabError, match="none of UTF-8, UTF-16 and code page 1252"):
        transcripts.read_references(tmp_path / "r.json")
