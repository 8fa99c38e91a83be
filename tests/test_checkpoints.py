"""`--model` to a folder: every name, every way a folder can be wrong, every state of the network and the cache."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from whisper_lab import checkpoints, console, hub, names
from whisper_lab.console import LabError

ROOT = Path(__file__).resolve().parent.parent
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A real Whisper checkpoint of a few thousand weights, as save_pretrained writes it, and a stand-in tokenizer."""
    transformers = checkpoints.import_transformers()
    config = transformers.WhisperConfig(
        vocab_size=64, num_mel_bins=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, d_model=8, max_source_positions=10,
        max_target_positions=8, decoder_start_token_id=1, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        begin_suppress_tokens=[1])
    folder = tmp_path_factory.mktemp("checkpoints") / "whisper-mine"
    transformers.WhisperForConditionalGeneration(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "preprocessor_config.json").write_text("{}")
    return folder


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "whisper-mine"))


@pytest.fixture(autouse=True)
def lonely(monkeypatch, tmp_path):
    """No network, an empty cache, no WHISPER_LAB_MODEL, and notes that caplog can see."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("WHISPER_LAB_MODEL", raising=False)
    monkeypatch.setattr(console.log, "propagate", True)
    hub.out_of_reach.cache_clear()
    yield
    hub.out_of_reach.cache_clear()


def put_in_cache(folder: Path, repository: str) -> Path:
    """Lay a folder out as huggingface_hub's cache does."""
    from huggingface_hub import constants

    home = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    return Path(shutil.copytree(folder, home / "snapshots" / COMMIT))


def test_a_folder(tiny, caplog):
    caplog.set_level(logging.INFO, "whisper_lab")
    found = checkpoints.resolve(str(tiny))
    assert (found.name, found.folder, found.source) == ("whisper-mine", tiny, "folder")
    assert found.revision is None and found.random_weights is False
    notes = [record.getMessage() for record in caplog.records]
    assert notes == ["checkpoint: whisper-mine (asked for; a folder on this machine)"]


def test_the_weights_file_in_a_folder_means_the_folder(tiny):
    found = checkpoints.resolve(str(tiny / "model.safetensors"))
    assert (found.name, found.folder) == ("whisper-mine", tiny)
    assert names.name_for(str(tiny / "model.safetensors")) == "whisper-mine"


def test_an_adapter_says_what_it_is(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "openai/whisper-small"}')
    with pytest.raises(LabError, match=r"is an adapter \(PEFT, LoRA\) for openai/whisper-small"):
        checkpoints.resolve(str(tmp_path))


def test_published_names():
    ids = checkpoints.PUBLISHED
    assert ids["large"] == "openai/whisper-large" and ids["turbo"] == "openai/whisper-large-v3-turbo"
    assert {f"{size}.en" for size in ("tiny", "base", "small", "medium")} <= set(ids) and "large.en" not in ids


def test_cached_copy_is_used_with_its_revision(tiny):
    snapshot = put_in_cache(tiny, "openai/whisper-small")
    for model in ("small", "whisper-small", "openai/whisper-small"):
        found = checkpoints.resolve(model)
        assert (found.name, found.folder, found.source, found.revision) == (
            "whisper-small", snapshot, "cache", COMMIT)
    assert checkpoints.resolve(str(snapshot)).name == "whisper-small"  # not the commit's forty digits


def test_cached_copy_without_weights_does_not_count(tiny):
    (put_in_cache(tiny, "openai/whisper-base") / "model.safetensors").unlink()
    with pytest.raises(LabError, match="whisper-base is not in the local cache"):
        checkpoints.resolve("base")


def test_order_argument_environment_default(tiny, monkeypatch):
    put_in_cache(tiny, "openai/whisper-base")
    put_in_cache(tiny, "openai/whisper-tiny")
    assert checkpoints.resolve(None).name == "whisper-base"
    monkeypatch.setenv("WHISPER_LAB_MODEL", "tiny")
    found = checkpoints.resolve(None)
    assert found.name == "whisper-tiny" and "WHISPER_LAB_MODEL" in found.reason
    assert checkpoints.resolve("base").name == "whisper-base"


def test_default_offline_goes_on_with_nano_and_says_so_once(tiny, monkeypatch, caplog):
    monkeypatch.setattr(checkpoints, "BUNDLED", tiny)
    caplog.set_level(logging.INFO, "whisper_lab")
    found = checkpoints.resolve(None)
    assert (found.name, found.source) == ("whisper-nano", "bundled")
    assert len(caplog.records) == 1
    assert "stands in for base, the default: whisper-base is not in the local cache" in caplog.text \
        and "HF_HUB_OFFLINE=1 is set" in caplog.text


def test_default_offline_without_nano_names_both_troubles(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoints, "BUNDLED", tmp_path / "gone")
    with pytest.raises(LabError, match="whisper-base is not in the local cache.*there is no folder"):
        checkpoints.resolve(None)


@pytest.mark.parametrize("by_environment", [False, True])
def test_explicit_base_offline_stops_and_names_the_ways_out(tiny, monkeypatch, by_environment):
    monkeypatch.setattr(checkpoints, "BUNDLED", tiny)
    if by_environment:
        monkeypatch.setenv("WHISPER_LAB_MODEL", "base")
    with pytest.raises(LabError) as caught:
        checkpoints.resolve(None if by_environment else "base")
    for way_out in ("--model nano", "with a network", "folder"):
        assert way_out in caught.value.remedy


def test_offline_means_no_connection_is_tried(monkeypatch):
    monkeypatch.setattr(hub, "_ask", lambda: pytest.fail("asked the Hub although HF_HUB_OFFLINE=1"))
    assert hub.out_of_reach() == "HF_HUB_OFFLINE=1 is set"


def test_a_silent_network_costs_three_seconds_once(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(hub, "REACH_TIMEOUT", 0.2)
    monkeypatch.setattr(hub, "_ask", lambda: time.sleep(5))  # a name look-up that does not come back
    start = time.monotonic()
    assert hub.out_of_reach() == hub.out_of_reach() == "no answer within 0.2 s"
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("model, problem", [
    ("bsae", "did you mean base"), ("large.en", "no checkpoint called"), ("./missing", "there is no folder"),
    (str(ROOT / "README.md"), "is not a Whisper model in a format"), (str(ROOT / "tests"), "no config.json"),
])
def test_wrong_names(model, problem):
    with pytest.raises(LabError, match=problem):
        checkpoints.resolve(model)


DAMAGE = {
    "has no weights": lambda f: (f / "model.safetensors").unlink(),
    "cut off": lambda f: os.truncate(f / "model.safetensors", (f / "model.safetensors").stat().st_size - 5),
    "is empty": lambda f: os.truncate(f / "model.safetensors", 0),
    "not a safetensors file": lambda f: (f / "model.safetensors").write_bytes(b"\x10" + b"\0" * 7 + b"not JSON" * 4),
    "Git LFS pointer": lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
    "no tokenizer": lambda f: (f / "tokenizer.json").unlink(),
    "no preprocessor_config": lambda f: (f / "preprocessor_config.json").unlink(),
    "no config.json": lambda f: (f / "config.json").unlink(),
    "cannot be read": lambda f: (f / "config.json").write_text("{"),
    'not a Whisper checkpoint: model_type in its config.json is "bert"':
        lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
    "lacks 1 of 2 weight files": lambda f: (
        (f / "model.safetensors").rename(f / "model-00001-of-00002.safetensors"),
        (f / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {
            "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}))),
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_a_folder_that_is_no_checkpoint(copy, problem):
    assert checkpoints.resolve(str(copy))
    DAMAGE[problem](copy)
    with pytest.raises(LabError, match=problem.replace(".", r"\.")) as caught:
        checkpoints.resolve(str(copy))
    assert "\n" not in caught.value.problem and caught.value.remedy


def test_random_weights_are_recognised_and_announced(copy, caplog):
    caplog.set_level(logging.INFO, "whisper_lab")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {checkpoints.RANDOM_WEIGHTS_KEY: True}))
    assert checkpoints.resolve(str(copy)).random_weights is True
    assert "transcripts mean nothing" in caplog.text


def test_load_model(tiny):
    import torch

    model = checkpoints.load_model(checkpoints.resolve(str(tiny)))
    assert not model.training and model.dtype == torch.float32
    assert model.proj_out.weight.data_ptr() == model.model.decoder.embed_tokens.weight.data_ptr()  # tied
    assert checkpoints.load_model(checkpoints.resolve(str(tiny)), dtype=torch.float16).dtype == torch.float16


def change_weights(folder: Path, change) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_weights_are_an_error_not_random_numbers(copy):
    change_weights(copy, lambda t: t.pop("model.encoder.layers.0.fc1.weight"))
    with pytest.raises(LabError, match=r"lacks 1 of its weights, such as model\.encoder\.layers\.0\.fc1\.weight"):
        checkpoints.load_model(checkpoints.resolve(str(copy)))


def test_weights_of_the_wrong_shape_are_an_error(copy):
    name = "model.decoder.layers.0.fc2.weight"
    change_weights(copy, lambda t: t.update({name: t[name][:, :4].clone()}))
    with pytest.raises(LabError, match=r"wrong shape for 1 of its weights, such as model\.decoder\.layers\.0\.fc2"):
        checkpoints.load_model(checkpoints.resolve(str(copy)))


def run_python(code: str, **environment) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120,
                          env={**os.environ, "HF_HUB_OFFLINE": "1", **environment})


def test_importing_this_module_is_light():
    done = run_python("import sys; from whisper_lab import checkpoints, hub, machine; "
                      "print([m for m in ('torch', 'transformers', 'huggingface_hub', 'numpy') if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr
