"""Checkpoints whose generation_config.json is old, empty or missing, or names heads that they do not have."""

import json
import re
from pathlib import Path

import pytest

from tests.helpers import export_tiny
from whisper_lab import flags, tokens
from whisper_lab.tokens import TokenRules

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "media" / "kitchen.wav"
SCRIPT = "02-whisper-huggingface.py"
NEW = ("lang_to_id", "task_to_id", "alignment_heads", "is_multilingual", "no_timestamps_token_id", "prev_sot_token_id")


@pytest.fixture(scope="module")
def right(nano, references) -> str:
    return references["kitchen.wav"]["text"]


def aged(folder: Path, how: str) -> None:
    """Leave of generation_config.json what a checkpoint of 2022 has."""
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text())
    if how == "none":
        path.unlink()
    elif how == "empty":
        path.write_text("{}")
    else:
        old = {key: value for key, value in settings.items() if key not in NEW}
        path.write_text(json.dumps(old | {"forced_decoder_ids": [[1, None], [2, settings["task_to_id"]["translate"]]]}))


@pytest.mark.parametrize("options", [("--language", "en"), (), ("--language", "en", "--timestamps", "word"),
                                     ("--language", "en", "--api", "pipeline", "--timestamps", "segment")],
                         ids=["given", "detected", "words", "pipeline"])
@pytest.mark.parametrize("how", ["none", "empty", "old"])
def test_02_transcribes_with_what_the_tokenizer_says(nano_copy, call_script, right, how, options):
    expected = call_script(SCRIPT, "--model", nano_copy, CLIP, "--threads", 1, *options)[1]
    aged(nano_copy, how)
    status, out, err = call_script(SCRIPT, "--model", nano_copy, CLIP, "--threads", 1, *options)
    assert status == 0, err
    if "word" not in options:  # without alignment heads of its own, a checkpoint's word times come from others
        assert out == expected
    assert right.split()[0] in out.lower() and err.count("generation settings: languages, tasks and timestamps") == 1
    assert "lang_to_id" in err and "Traceback" not in err


def test_nothing_is_said_of_a_checkpoint_that_has_all(nano_copy, call_script):
    assert "generation settings" not in call_script(SCRIPT, "--model", nano_copy, CLIP, "--threads", 1)[2]


@pytest.mark.parametrize("how", ["none", "empty", "old"])
def test_the_rules_are_those_of_the_whole_checkpoint(nano_copy, nano, how):
    aged(nano_copy, how)
    ours, theirs = TokenRules.from_folder(nano_copy), TokenRules.from_folder(nano)
    for field in ("start", "end", "no_timestamps", "no_speech", "previous", "languages", "tasks", "timestamp_end"):
        assert getattr(ours, field) == getattr(theirs, field), field


def test_an_english_only_tokenizer_may_name_languages():
    """As those of tiny.en, base.en, ... do."""
    names = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|nl|>", "<|translate|>", "<|transcribe|>",
             "<|startoflm|>", "<|startofprev|>", "<|nocaptions|>", "<|notimestamps|>"]
    model = {"eos_token_id": 50256, "decoder_start_token_id": 50257, "max_target_positions": 448, "vocab_size": 51864,
             "max_source_positions": 1500, "decoder_layers": 4, "decoder_attention_heads": 6}
    ids = {name: 50256 + i for i, name in enumerate(names)}
    assert tokens._from_config(model, model, 30.0, ids)["languages"] == {}
    ids = {name: i + 1 for name, i in ids.items()}
    assert set(tokens._from_config(model | {"eos_token_id": 50257}, model, 30.0, ids)["languages"]) == {"en", "nl"}


# Heads of another decoder ---------------------------------------------------------------------------------------------

def teachers_heads(folder: Path) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"alignment_heads": [[31, 2], [25, 0]]}))


def test_words_with_the_heads_of_a_teacher(nano_copy, call_script):
    teachers_heads(nano_copy)
    status, out, err = call_script(SCRIPT, "--model", nano_copy, CLIP, "--threads", 1,
                                   "--timestamps", "word")
    assert status == 0 and len(re.findall(r"^ +[\d.]+ +[\d.]+  \w+$", out, re.MULTILINE)) > 4, err
    assert err.count("warning: the alignment heads in") == 1 and "upper half" in err


def test_an_export_with_the_heads_of_a_teacher(tmp_path, call_script, monkeypatch):
    folder = tmp_path / "whisper-distilled"
    folder.mkdir()
    teachers_heads(export_tiny.write_checkpoint(folder))
    monkeypatch.chdir(tmp_path)
    status, _, err = call_script("03-export-encoder-decoder.py", "--model", folder, "--alignment-heads", "--no-verify",
                                 "--output-dir", "graphs", "--threads", 1)
    assert status == 0 and "\x1b" not in err and err.count("warning: the alignment heads in") <= 2, err
    from whisper_lab.onnx_whisper import OnnxWhisper

    runtime = OnnxWhisper("graphs", "whisper-distilled", threads=1)
    heads = tuple((layer, head) for layer in (1,) for head in (0, 1))  # two layers of two heads
    assert runtime.has_attention and runtime.rules.alignment_heads == heads


@pytest.mark.parametrize("named", [[[31, 2]], [[0, 99]], 3, [[1]], "ab", [[-1, 0]], [None]])
def test_heads_that_are_none_are_replaced_with_a_warning(nano_copy, capsys, named):
    path = nano_copy / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"alignment_heads": named}))
    flags.parse(flags.parser(""), [])
    config = json.loads((nano_copy / "config.json").read_text())
    rules = TokenRules.from_folder(nano_copy)
    assert rules.alignment_heads == tokens.upper_heads(config["decoder_layers"], config["decoder_attention_heads"])
    assert capsys.readouterr().err.count("alignment heads") == 1
