"""Damaged checkpoints and graphs, and an output that is full, are two plain lines at once."""

import json
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from whisper_lab import checkpoints, console, features, sessions
from whisper_lab.console import LabError
from whisper_lab.tokens import TokenRules

ROOT = Path(__file__).resolve().parent.parent
DEEP = "[" * 100_000


def with_weights(folder, name, content):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def changed(folder, file, **fields):
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields))


def refused(call, *words):
    with pytest.raises(LabError) as caught:
        call()
    assert "\n" not in caught.value.problem + caught.value.remedy
    for word in words:
        assert word in caught.value.problem


@pytest.mark.parametrize("index", ["[1]", "{", DEEP, "{}", "null", '{"weight_map": [1]}', '{"weight_map": {"a": [1]}}',
                                   '{"weight_map": {}}', '{"weight_map": {"a": 3}}'])
def test_a_list_of_weights_that_is_none(nano_copy, index):
    with_weights(nano_copy, "model.safetensors.index.json", index)
    refused(lambda: checkpoints.resolve(str(nano_copy)), "is not a list of weight files")


@pytest.mark.parametrize("header", ["[  ]", '{"a":[1]}', '{"a":{"data_offsets":["x",[]]}}', DEEP, '{"a":{}}'])
def test_weights_with_a_damaged_header(nano_copy, header):
    with_weights(nano_copy, "model.safetensors", len(header).to_bytes(8, "little") + header.encode() + bytes(100))
    refused(lambda: checkpoints.resolve(str(nano_copy)), "is not a safetensors file")


@pytest.mark.parametrize("content", [DEEP, "null", "[]", "{}", "{", '{"a": "\\ud800'])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "generation_config.json",
                                  "preprocessor_config.json"])
def test_json_that_is_no_such_file(nano_copy, file, content):
    (nano_copy / file).write_text(content)
    if (file, content) != ("generation_config.json", "{}"):  # config.json has all of it
        refused(lambda: TokenRules.from_folder(nano_copy), str(nano_copy))


class Evil:
    """A pickle that would write a file when it is opened."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_weights_that_would_run_code_are_not_opened(nano_copy, tmp_path, name):
    import torch

    (nano_copy / "model.safetensors").unlink()
    torch.save({"x": Evil(tmp_path / "ran")}, nano_copy / "pytorch_model.bin")
    if name != "pytorch_model.bin":
        (nano_copy / "pytorch_model.bin").rename(nano_copy / "shard.bin")
        (nano_copy / name).write_text(json.dumps({"metadata": {}, "weight_map": {"x": "shard.bin"}}))
    refused(lambda: checkpoints.load_model(checkpoints.resolve(str(nano_copy))), "cannot be loaded")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("fields", [
    {"suppress_tokens": [10**7]}, {"suppress_tokens": [-10**7]}, {"suppress_tokens": "abc"},
    {"suppress_tokens": [10**30]}, {"suppress_tokens": [[1]]}, {"begin_suppress_tokens": [10**7]}, {"eos_token_id": []},
    {"eos_token_id": None}, {"decoder_start_token_id": "x"}, {"no_timestamps_token_id": 10**9}, {"lang_to_id": [1]},
    {"task_to_id": [1]}, {"lang_to_id": {"<|en|>": 10**9}}, {"median_filter_width": 0}])
def test_token_rules_out_of_range(nano_copy, fields):
    for file in ("generation_config.json", "config.json"):
        changed(nano_copy, file, **fields)
    refused(lambda: TokenRules.from_folder(nano_copy), str(nano_copy))


@pytest.mark.parametrize("fields", [{"n_fft": 10**9}, {"feature_size": 10**6}, {"chunk_length": 10**9},
                                    {"hop_length": 0}, {"sampling_rate": 1.5}])
def test_features_no_whisper_asks_for(nano_copy, fields):
    changed(nano_copy, "preprocessor_config.json", **fields)
    refused(lambda: features.FeatureSpec.from_folder(nano_copy), "features this lab does not compute")


@pytest.mark.parametrize("fields", [{"encoder_layers": 1_000_000}, {"decoder_layers": 10**9}, {"d_model": "x"},
                                    {"vocab_size": 10**12}, {"max_source_positions": 0},
                                    {"decoder_attention_heads": None}, {"d_model": 10**30}])
def test_sizes_no_whisper_has_are_refused_at_once(nano_copy, fields):
    changed(nano_copy, "config.json", **fields)
    started = time.process_time()
    refused(lambda: checkpoints.resolve(str(nano_copy)), next(iter(fields)), "config.json")
    assert time.process_time() - started < 1.0


def session_with(metadata):
    meta = types.SimpleNamespace(custom_metadata_map=metadata)
    return types.SimpleNamespace(get_modelmeta=lambda: meta)


WHOLE = {"producer": "whisper-onnx-lab", "part": "encoder", "model": "m", "revision": "null", "random_weights": "false",
         "weights_sha256": "1" * 64, "precision": "fp32", "format": "1", "cache_types": '{"cross": "float32"}'}


def test_metadata_that_is_whole():
    facts = sessions._facts(Path("a.onnx"), session_with(WHOLE), "encoder", "command")
    assert facts["revision"] is None and facts["cache_types"] == {"cross": "float32"}


@pytest.mark.parametrize("key", [key for key in WHOLE if key not in ("producer", "part")])
def test_metadata_without_a_key(key):
    found = {name: text for name, text in WHOLE.items() if name != key}
    refused(lambda: sessions._facts(Path("a.onnx"), session_with(found), "encoder", "command"), key)


@pytest.mark.parametrize("text", ["3", "null", "{}", DEEP])
def test_metadata_that_is_another(text):
    refused(lambda: sessions._facts(Path("a.onnx"), session_with(WHOLE | {"cache_types": text}), "encoder", "c"),
            "cache_types")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("flush", [True, False])
def test_an_output_that_is_full(flush):
    program = ("import sys; sys.path.insert(0, '.'); from whisper_lab import console; "
               f"console.run(lambda: print('text', flush={flush}))")
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == ("error: cannot write the output: No space left on device\n"
                           "  try: free some disk space, or print elsewhere\n")


def test_other_faults_of_the_system_are_not_the_output_s(capsys, monkeypatch):
    def main():
        raise OSError(5, "Input/output error", "some-file")

    with pytest.raises(SystemExit):
        console.run(main)
    assert "cannot write the output" not in capsys.readouterr().err
