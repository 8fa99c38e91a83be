"""benchmarks/prompts.py: Debian's packages of telephone prompts become a corpus as any other."""

import gzip
import json
import shutil

import numpy as np
import pytest

from tests.helpers.benchmark_files import module
from whisper_lab import audio
from whisper_lab.console import LabError

TEXTS = """\ufeff; Core sounds in English
activated: Activated.
agent-pass: Please enter your password, then press the pound key.
dir/intro: “Welcome to the directory …”
conf-count: There are [number] people in this conference.
vm-gone: This sentence has lost its sound.
vm-hello: Hello. This is your mailbox.
not a line of the list
"""


@pytest.fixture
def packages(tmp_path):
    """What dpkg -x makes of the two packages of English prompts."""
    texts, voice = tmp_path / "x/usr/share/doc/core-en", tmp_path / "x/usr/share/asterisk/sounds/en_US_f_Allison"
    (voice / "dir").mkdir(parents=True)
    texts.mkdir(parents=True)
    (texts / "core-sounds-en.txt.gz").write_bytes(gzip.compress(TEXTS.encode()))
    for number, name in enumerate(("activated", "agent-pass", "dir/intro", "conf-count", "vm-hello")):
        audio.write_wav(voice / f"{name}.wav", np.full(1600 + number, 0.1, np.float32))
    return tmp_path / "x"


def made(packages, *options: str) -> list:
    """The clips of the corpus."""
    folder = packages.parent / "corpus"
    assert module("prompts").main([str(packages), "--output-dir", str(folder), *options]) == 0
    return module("corpora").read(str(folder))[0]


def test_sentences_with_their_sounds_and_nothing_else(packages):
    clips = made(packages)
    assert {clip.id: clip.text for clip in clips} == {
        "en_prompts/en_US_f_Allison-agent-pass.wav": "Please enter your password, then press the pound key",
        "en_prompts/dir-intro.wav": "Welcome to the directory",
        "en_prompts/en_US_f_Allison-vm-hello.wav": "Hello. This is your mailbox"}
    assert [len(audio.load(clip.path).samples) for clip in clips] == [1601, 1602, 1604]
    assert {(clip.language, clip.kind) for clip in clips} == {("en", "telephone")}


def test_what_another_corpus_has_is_left_out_and_every_second_is_taken(packages, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    audio.write_wav(other / "a.wav", np.zeros(1600, np.float32))
    (other / "references.json").write_text(json.dumps([{"file": "a.wav", "text": "Welcome, to the DIRECTORY!"}]))
    assert [clip.id for clip in made(packages, "--except", str(other), "--every", "2")] == [
        "en_prompts/en_US_f_Allison-agent-pass.wav"]


@pytest.mark.parametrize("missing", ["usr", "usr/share/asterisk"])
def test_a_folder_without_prompts_says_what_to_unpack(packages, missing):
    shutil.rmtree(packages / missing)
    with pytest.raises(LabError, match="no prompts") as error:
        made(packages)
    assert "dpkg -x" in error.value.remedy
