"""Tokens to text from the table that 03 writes, against the tokenizers library."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Library

from whisper_lab import names, seals, tokenizer
from whisper_lab.console import LabError
from whisper_lab.onnx_whisper import OnnxWhisper
from whisper_lab.tokenizer import TABLE, Tokenizer
from whisper_lab.tokens import TokenRules

ROOT, NAME = Path(__file__).resolve().parents[1], "whisper-nano"


@pytest.fixture
def files(nano, tmp_path):
    """The tokenizer's file and the table of it, as beside graphs."""
    shutil.copy(nano / "tokenizer.json", tmp_path)
    tokenizer.write_table(tmp_path, size(nano))
    return tmp_path


@pytest.fixture
def graphs(nano_export, tmp_path):
    """The int8 pair of nano in a folder that a test may change."""
    folder = tmp_path / "graphs"
    shutil.copytree(nano_export / "graphs", folder, ignore=lambda _, found: [name for name in found if any(
        mark in name for mark in ("fp16", "int4", "optimized"))])
    return folder


def size(checkpoint: Path) -> int:
    return json.loads((checkpoint / "config.json").read_text())["vocab_size"]


def same(ours: Tokenizer, theirs: Library, vocabulary: int, end: int) -> None:
    """Every token alone, and rows of random tokens, whose bytes are often no UTF-8."""
    assert [i for i in range(vocabulary)
            if ours.decode([i]) != theirs.decode([i], skip_special_tokens=False)] == []
    generator = np.random.default_rng(3)
    for most in (end, vocabulary):
        for row in generator.integers(0, most, (500, 30)).tolist():
            assert ours.decode(row) == theirs.decode(row, skip_special_tokens=False)


def test_the_library_writes_the_same_text(files, nano):
    theirs, end = Library.from_file(str(files / "tokenizer.json")), TokenRules.from_folder(nano).end
    from_table = Tokenizer.from_folder(files)
    from_json = Tokenizer.from_folder(nano)  # a checkpoint has no table
    for ours in (from_table, from_json):
        same(ours, theirs, size(nano), end)
        assert ours.encode(" Zeg het één keer: naïve €5 🙂") == theirs.encode(
            " Zeg het één keer: naïve €5 🙂", add_special_tokens=False).ids
    assert from_table.special == from_json.special == {
        token.content: i for i, token in theirs.get_added_tokens_decoder().items()}


def test_the_published_vocabulary(published, tmp_path):
    whisper_base = published("base")
    shutil.copy(whisper_base / "tokenizer.json", tmp_path)
    tokenizer.write_table(tmp_path, size(whisper_base))
    theirs = Library.from_file(str(tmp_path / "tokenizer.json"))
    same(Tokenizer.from_folder(tmp_path), theirs, size(whisper_base), 50257)
    assert Tokenizer.from_folder(tmp_path).special["<|30.00|>"] == 51864


def test_its_lines_are_those_of_openai(files):
    """What reads *.tiktoken reads this: base64, a space, the id."""
    from tiktoken.load import load_tiktoken_bpe

    ranks = load_tiktoken_bpe(str(files / TABLE))
    ours = Tokenizer.from_folder(files)
    assert all(ours.word(rank) == word for word, rank in ranks.items()) and ranks[b" the"] > 255


def test_an_id_that_the_vocabulary_lacks(files):
    ours = Tokenizer.from_folder(files)
    assert ours.word(10**6) == ours.word(-1) == b"" and ours.decode([10**6]) == ""


@pytest.mark.parametrize("harm", [lambda line: b"!!! 300", lambda line: line.replace(b" 300", b" 301"),
                                  lambda line: b"", lambda line: line.split()[0]])
def test_a_damaged_table(files, harm):
    path = files / TABLE
    lines = path.read_bytes().splitlines()
    lines[300] = harm(lines[300])
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(LabError) as caught:
        Tokenizer.from_folder(files, "write it: python 03.py").decode([299, 300])
    assert f"{path} is damaged at token 300" in caught.value.problem and caught.value.remedy == "write it: python 03.py"


def test_without_seals_damage_is_told_with_the_command_that_mends_it(graphs):
    """Also what is read no earlier than its token is said, or a prompt given."""
    folder = names.runtime_folder(graphs, NAME)
    path = folder / TABLE
    path.write_bytes(path.read_bytes().replace(b" 300\n", b" 301\n"))
    (folder / "tokenizer.json").unlink()
    ours = OnnxWhisper(graphs, NAME, "int8", threads=1, verify=False)
    for damaged in (lambda: ours.tokenizer.decode([300]), lambda: ours.tokenizer.encode("kitchen")):
        with pytest.raises(LabError) as caught:
            damaged()
        assert caught.value.remedy == f"write them again: {ours.command}"
        assert "Whisper checkpoint" not in caught.value.problem and str(folder) in caught.value.problem


def test_a_changed_table_is_noticed(graphs):
    path = names.runtime_folder(graphs, NAME) / TABLE
    path.write_bytes(path.read_bytes().replace(b" 300\n", b" 301\n"))
    with pytest.raises(LabError) as caught:
        OnnxWhisper(graphs, NAME, "int8", threads=1)
    assert f"{path} is damaged, or was changed" in caught.value.problem


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_table_that_is_not_whole_is_noticed_without_seals_too(graphs, keep):
    """Its missing tokens would be missing in the text."""
    path = names.runtime_folder(graphs, NAME) / TABLE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:keep] if keep >= 0 else [*lines, lines[-1]]))
    with pytest.raises(LabError) as caught:
        OnnxWhisper(graphs, NAME, "int8", threads=1, verify=False)
    assert str(path.parent) in caught.value.problem and "03-export-encoder-decoder.py" in caught.value.remedy


def test_graphs_of_an_earlier_export_have_no_table(graphs, nano_export, noise_features):
    files = names.runtime_folder(graphs, NAME)
    new = OnnxWhisper(graphs, NAME, "int8", threads=1)
    (files / TABLE).unlink()
    listed = json.loads((files / seals.MANIFEST).read_text())
    listed.pop(TABLE)
    (files / seals.MANIFEST).write_text(json.dumps(listed))
    old = OnnxWhisper(graphs, NAME, "int8", threads=1)
    tokens = list(range(new.rules.vocab_size))
    assert old.tokenizer.decode(tokens) == new.tokenizer.decode(tokens)
    assert {key: str(value) for key, value in vars(old.rules).items()} \
        == {key: str(value) for key, value in vars(new.rules).items()}


LOADED = """\
import sys
from whisper_lab import __main__ as program
status = program.main(sys.argv[1:])
print(status, *sorted({"tokenizers", "tqdm", "numpy.random", "numpy.ma", "importlib.metadata"} & {*sys.modules}))
"""


@pytest.mark.parametrize(("more", "loaded"), [([], ""), (["--prompt", "kitchen"], " tokenizers")])
def test_a_transcript_does_without_the_library(nano_export, more, loaded):
    """It takes more memory and time than all else that is imported. A prompt needs it."""
    done = subprocess.run([sys.executable, "-c", LOADED, "media/kitchen.wav", "--model", "nano", "--precision", "int8",
                           "--model-dir", nano_export / "graphs", "--quiet", "--threads", "1", *more],
                          cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == f"0{loaded}", done.stdout + done.stderr
