"""Weights of every format become the same Hugging Face folder; what is damaged, hostile or foreign is one error."""

import json
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import weight_files
from whisper_lab import checkpoints, console
from whisper_lab.console import LabError
from whisper_lab.weights import formats, ggml, huggingface, openai_tokenizer, published, vocabulary
from whisper_lab.weights.model import check_weights

torch = pytest.importorskip("torch")
NANO = weight_files.NANO
LAB_CODES = ["f32", "f16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]


@pytest.fixture(scope="module")
def original():
    return weight_files.model()


@pytest.fixture(scope="module")
def values(original) -> dict[str, np.ndarray]:
    return weight_files.numbers(original)


def loaded(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def logits(model) -> "torch.Tensor":
    features = torch.randn(1, weight_files.MEL_BINS, 2 * weight_files.AUDIO, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(input_features=features, decoder_input_ids=torch.tensor([[557, 558, 561, 3, 9]])).logits


def assert_same_model(folder: Path, original, exact: bool = True) -> None:
    """Plain transformers loads it, strictly, and it computes what the original does."""
    model, info = checkpoints.import_transformers().WhisperForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True)
    assert not any(info.values()), info
    assert model.dtype == torch.float32
    expected = logits(original)
    if exact:
        assert torch.equal(logits(model.eval()), expected)
    else:
        assert (logits(model.eval()) - expected).norm() < 0.25 * expected.norm()


# --- round trips ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_ctranslate2_floats_are_kept_exactly(tmp_path, original, values, kind):
    source = weight_files.write_ct2(tmp_path / "ct2", values, kind)
    assert formats.kind_of(source) == formats.kind_of(source / "model.bin") == "ctranslate2"
    folder = formats.convert(source, tmp_path / "out")
    assert {str(array.dtype) for array in loaded(folder).values()} == {kind}
    assert_same_model(folder, original)
    assert formats.kind_of(folder) == "huggingface"
    checkpoint = checkpoints.resolve(str(folder))
    assert torch.equal(logits(checkpoints.load_model(checkpoint)), logits(original))


def test_ctranslate2_bfloat16_becomes_float32(tmp_path, values):
    folder = formats.convert(weight_files.write_ct2(tmp_path / "ct2", values, "bfloat16"), tmp_path / "out")
    for name, array in loaded(folder).items():
        assert array.dtype == np.float32
        wide = values[name].view(np.uint32) >> 16 << 16  # as the writer of the test cuts them
        assert np.array_equal(array, wide.view(np.float32)), name


@pytest.mark.parametrize("kind", ["int8", "int16", "int8_float16", "int8_bfloat16"])
def test_ctranslate2_integers_are_within_half_a_step(tmp_path, original, values, kind):
    folder = formats.convert(weight_files.write_ct2(tmp_path / "ct2", values, kind), tmp_path / "out")
    for name, array in loaded(folder).items():
        # int16 has one scale for a whole matrix of CTranslate2's, which may be three of ours, one below the other.
        largest = max(np.abs(values[other]).max() for other in values if kind == "int16" or other == name)
        if array.ndim < 2 or "embed_positions" in name:
            assert np.abs(array - values[name]).max() <= (0 if "bfloat" not in kind else largest / 128), name
        else:
            step = largest / (1024 if kind == "int16" else 127)
            assert 0 < np.abs(array - values[name]).max() <= 0.5001 * step, name
    assert_same_model(folder, original, exact=False)
    assert huggingface.origin_of(folder)["stored"] == ("int16" if kind == "int16" else "int8")


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
def test_openai(tmp_path, original, values, dtype):
    source = weight_files.write_openai(tmp_path / "small.pt", values, dtype)
    assert formats.kind_of(source) == "openai"
    folder = formats.convert(source, tmp_path / "out")
    if dtype == "bfloat16":
        expected = {name: torch.from_numpy(array).bfloat16().float().numpy() for name, array in values.items()}
        assert all(np.array_equal(array, expected[name]) for name, array in loaded(folder).items())
    else:
        assert {str(array.dtype) for array in loaded(folder).values()} == {dtype}
        assert_same_model(folder, original)


@pytest.mark.parametrize("kind", LAB_CODES)
def test_ggml(tmp_path, original, values, kind):
    source = tmp_path / "ggml-small.bin"
    source.write_bytes(weight_files.ggml_bytes(values, kind))
    assert formats.kind_of(source) == "ggml"
    folder = formats.convert(source, tmp_path / "out")
    assert_same_model(folder, original, exact=kind in ("f32", "f16"))
    assert huggingface.origin_of(folder)["stored"] == kind
    steps = {"q4_0": 8, "q4_1": 7.5, "q5_0": 16, "q5_1": 15.5, "q8_0": 127}
    for name, array in loaded(folder).items():
        blocked = kind in steps and array.ndim == 2 and "embed_positions" not in name
        step = np.abs(values[name]).max() / steps[kind] if blocked else 0
        assert np.abs(array - values[name]).max() <= 1.01 * step, name  # a block's end may be clipped: a whole step


@pytest.mark.parametrize("kind", LAB_CODES[2:])
def test_blocks_number_by_number(kind):
    """Against a reading of ggml's structs that takes one number at a time."""
    raw = np.random.default_rng(5).integers(0, 256, (20, ggml.BLOCK_BYTES[kind]), dtype=np.uint8)
    raw[:, 1] &= 0x3F  # a scale of 0 to 2: neither infinite nor NaN
    if kind.endswith("_1"):
        raw[:, 3] &= 0xBF
    found = ggml.dequantize(raw.reshape(-1), kind).reshape(20, 32)
    for block, numbers in zip(raw, found, strict=True):
        d, least = np.frombuffer(block.tobytes()[:4], "<f2").astype(np.float32)
        body = block.tobytes()[4 if kind.endswith("_1") else 2:]
        high = struct.unpack("<I", body[:4])[0] if kind.startswith("q5") else 0
        for i in range(32):
            if kind == "q8_0":
                assert numbers[i] == d * np.float32(struct.unpack("b", body[i:i + 1])[0])
                continue
            code = (body[-16 + i % 16] >> (4 if i >= 16 else 0) & 15) | (high >> i & 1) << 4
            shift = {"q4_0": 8, "q5_0": 16}.get(kind, 0)
            assert numbers[i] == d * np.float32(code - shift) + (least if kind.endswith("_1") else np.float32(0))


def test_the_folder_is_as_the_published_ones_are(tmp_path, values):
    source = weight_files.write_ct2(tmp_path / "ct2", values)
    folder = formats.convert(source, tmp_path / "out", {"package": "made-up==1.0"})
    generation = json.loads((folder / "generation_config.json").read_text())
    published_one = json.loads((NANO / "generation_config.json").read_text())
    same = {"bos_token_id", "decoder_start_token_id", "eos_token_id", "is_multilingual", "lang_to_id", "task_to_id",
            "no_timestamps_token_id", "pad_token_id", "prev_sot_token_id", "return_timestamps"}
    assert {name: generation[name] for name in same} == {name: published_one[name] for name in same}
    assert generation["alignment_heads"] == [[0, 1], [0, 3]] and generation["suppress_tokens"] == [5, 7]
    assert generation["begin_suppress_tokens"] == [220, 556] and generation["max_length"] == weight_files.TEXT
    origin = json.loads((folder / "config.json").read_text())["whisper_lab_origin"]
    assert origin == {"format": "ctranslate2", "file": "model.bin", "stored": "float16", "package": "made-up==1.0",
                      "sha256": formats.sha256(source / "model.bin")}
    processor = checkpoints.import_transformers().WhisperProcessor.from_pretrained(folder)
    theirs = checkpoints.import_transformers().WhisperProcessor.from_pretrained(NANO)
    assert processor.tokenizer.get_vocab() == theirs.tokenizer.get_vocab()
    assert processor.feature_extractor.to_dict() == theirs.feature_extractor.to_dict()
    for text in ("open the door", "doe de deur open", " één, twee!"):
        assert processor.tokenizer.encode(text) == theirs.tokenizer.encode(text)


def test_every_format_gives_the_same_tokenizer(tmp_path, values):
    """Merges are found again from ggml's list of tokens, and from a vocabulary.txt."""
    expected = json.loads((NANO / "tokenizer.json").read_text())["model"]
    pairs = [tuple(pair) for pair in expected["merges"]]
    (tmp_path / "a.bin").write_bytes(weight_files.ggml_bytes(values))
    ct2 = weight_files.write_ct2(tmp_path / "ct2", values)
    by_id = {i: token for token, i in expected["vocab"].items()}
    document = json.loads((ct2 / "tokenizer.json").read_text())
    by_id |= {token["id"]: token["content"] for token in document["added_tokens"]}
    (ct2 / "tokenizer.json").unlink()
    lines = [by_id[i] for i in range(len(by_id))]
    (ct2 / "vocabulary.txt").write_text("\n".join(lines) + "\n")
    listed, ranked = formats.read(ct2).tokens, formats.read(tmp_path / "a.bin").tokens
    assert listed.text == ranked.text == sorted(expected["vocab"], key=expected["vocab"].get)
    assert listed.merges == ranked.merges == pairs
    assert listed.text + listed.added == lines
    assert len(ranked) == weight_files.VOCABULARY and ranked.added[-1] == "<|10.00|>"


def test_a_tokenizer_without_its_first_merge_and_its_timestamps_is_completed(tmp_path, values):
    """As the published multilingual ones are."""
    ct2 = weight_files.write_ct2(tmp_path / "ct2", values)
    document = json.loads((ct2 / "tokenizer.json").read_text())
    pairs = [tuple(pair) for pair in document["model"]["merges"]]
    document["model"]["merges"] = [list(pair) for pair in pairs[1:]]
    document["added_tokens"] = document["added_tokens"][:10]
    (ct2 / "tokenizer.json").write_text(json.dumps(document))
    found = formats.read(ct2).tokens
    assert found.merges == pairs and len(found) == weight_files.VOCABULARY


# --- Hugging Face folders ---------------------------------------------------------------------------------------------

def save(model, folder: Path, **options) -> Path:
    model.save_pretrained(folder, **options)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (folder / name).write_text((NANO / name).read_text())
    return folder


def test_huggingface_one_file_and_shards(tmp_path, original):
    for name, size in (("one", "1GB"), ("many", "200KB")):
        source = save(original, tmp_path / name, max_shard_size=size)
        assert (source / "model.safetensors").is_file() == (name == "one")
        assert formats.kind_of(source) == "huggingface"
        assert_same_model(formats.convert(source, tmp_path / f"out-{name}"), original)
    origin = huggingface.origin_of(tmp_path / "out-many")
    assert len(origin["file"]) == len(origin["sha256"]) > 1


@pytest.mark.parametrize("prefix, dtype", [("model.", torch.float32), ("", torch.bfloat16)])
def test_huggingface_pytorch_bin(tmp_path, original, values, prefix, dtype):
    """Also of the bare WhisperModel, whose names lack the prefix."""
    source = save(original, tmp_path / "source")
    (source / "model.safetensors").unlink()
    state = {name.replace("model.", prefix, 1): torch.from_numpy(array).to(dtype) for name, array in values.items()}
    torch.save(state, source / "pytorch_model.bin")
    assert formats.kind_of(source) == formats.kind_of(source / "pytorch_model.bin") == "huggingface"
    folder = formats.convert(source, tmp_path / "out")
    for name, array in loaded(folder).items():
        assert np.array_equal(array, torch.from_numpy(values[name]).to(dtype).float().numpy()), name


def test_a_trainer_s_folder_without_generation_config_is_completed(tmp_path, original):
    source = save(original, tmp_path / "source")
    (source / "generation_config.json").unlink()
    (source / "preprocessor_config.json").unlink()
    folder = formats.convert(source, tmp_path / "out")
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["lang_to_id"] == {"<|en|>": 558, "<|nl|>": 559} and generation["no_timestamps_token_id"] == 565
    assert json.loads((folder / "preprocessor_config.json").read_text())["chunk_length"] == 10


def test_an_untied_head_is_kept(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(console.log, "propagate", True)
    caplog.set_level("INFO", logger="whisper_lab")
    untied = weight_files.model(tie_word_embeddings=False)
    values = weight_files.numbers(untied)
    for source in (weight_files.write_ct2(tmp_path / "ct2", values), save(untied, tmp_path / "hf")):
        folder = formats.convert(source, tmp_path / f"out-{source.name}")
        assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
        assert np.array_equal(loaded(folder)["proj_out.weight"], values["proj_out.weight"])
        assert_same_model(folder, untied)
        assert "output head: kept beside the token embedding" in caplog.text


def test_a_distilled_model_listens_with_the_upper_half(tmp_path):
    """Sizes of no published model, and no alignment heads in the file."""
    source = save(weight_files.model(decoder_layers=3), tmp_path / "source")
    generation = json.loads((formats.convert(source, tmp_path / "out") / "generation_config.json").read_text())
    assert generation["alignment_heads"] == [[layer, head] for layer in (1, 2) for head in range(weight_files.HEADS)]


@pytest.mark.parametrize("heads", [[[7, 0]], [[0, 99]], [], "x", [[0]], [["a", "b"]], None])
def test_alignment_heads_of_another_decoder_are_not_used(tmp_path, values, heads):
    source = weight_files.write_ct2(tmp_path / "ct2", values)
    (source / "config.json").write_text(json.dumps({"alignment_heads": heads, "suppress_ids": [10**9, "a"]}))
    found = formats.read(source)
    settings = huggingface.generation_settings(found)
    assert settings["alignment_heads"] == [[0, head] for head in range(weight_files.HEADS)]
    assert all(0 <= i < weight_files.VOCABULARY for i in settings["suppress_tokens"])


def test_published_sizes_are_recognised():
    from training.make_random_checkpoint import dimensions

    for size, architecture in published.ARCHITECTURES.items():
        found = published.size_of(dimensions(architecture), f"ggml-{size}.bin")
        assert found == (size if size != "large" else None)
    large = dimensions(published.ARCHITECTURES["large"])
    assert published.size_of(large, "large-v1.pt") == "large" and published.size_of(large, "mine.pt") is None


# --- where it goes ----------------------------------------------------------------------------------------------------

def test_only_a_converted_folder_is_replaced(tmp_path, values):
    source = weight_files.write_ct2(tmp_path / "ct2", values)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "notes.txt").write_text("mine")
    with pytest.raises(LabError, match="will not be overwritten"):
        formats.convert(source, precious)
    assert [path.name for path in precious.iterdir()] == ["notes.txt"]
    first = formats.convert(source, tmp_path / "out")
    (first / "stray").write_text("old")
    assert not (formats.convert(source, tmp_path / "out") / "stray").exists()


def test_what_fails_leaves_nothing(tmp_path, values):
    broken = {**values, "model.encoder.conv2.bias": np.full(weight_files.WIDTH, np.nan, np.float32)}
    source = weight_files.write_ct2(tmp_path / "ct2", broken)
    with pytest.raises(LabError, match="conv2.bias holds numbers that are not finite"):
        formats.convert(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["ct2"]


def test_two_at_once_leave_one_whole_folder(tmp_path):
    """Both began when nothing was there: the second finds the first's, and takes its place."""
    def begin():
        return huggingface.replacing(tmp_path / "out", lambda folder: True, "x", "y")

    with begin() as first:
        (first / "a").write_text("1")
        with begin() as second:
            (second / "a").write_text("2")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (tmp_path / "out" / "a").read_text() == "1"


def test_where_the_move_fails_the_old_folder_stays(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")
    with pytest.raises(LabError, match="cannot write"), huggingface.replacing(
            tmp_path / "out", lambda folder: True, "x", "y") as temporary:
        temporary.rmdir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (tmp_path / "out" / "a").read_text() == "old"


@pytest.mark.parametrize("generation", ['{"eos_token_id": "x"}', '{"temperature": NaN}', '{"bos_token_id": "\\ud800"}'])
def test_a_configuration_that_cannot_be_used_is_one_error(tmp_path, original, generation):
    source = save(original, tmp_path / "source")
    (source / "generation_config.json").write_text(generation)
    with pytest.raises(LabError, match="configuration or tokenizer cannot be used"):
        formats.convert(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_converted_twice_remembers_both(tmp_path, values):
    once = formats.convert(weight_files.write_ct2(tmp_path / "ct2", values), tmp_path / "once")
    origin = huggingface.origin_of(formats.convert(once, tmp_path / "twice"))
    assert origin["format"] == "huggingface" and origin["earlier"] == huggingface.origin_of(once)


def test_a_full_disk_is_one_clear_error(tmp_path, values, monkeypatch):
    source = weight_files.write_ct2(tmp_path / "ct2", values)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface, "write_safetensors", full)
    with pytest.raises(LabError, match="No space left") as caught:
        formats.convert(source, tmp_path / "out")
    assert "free some disk space" in caught.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["ct2"]


# --- what is refused --------------------------------------------------------------------------------------------------

class Evil:
    """A pickle that would write a file when it is opened."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (exec, (f"open({str(self.target)!r}, 'w').write('ran')",))


def test_a_pickle_that_runs_code_is_not_opened(tmp_path):
    torch.save({"dims": weight_files.dims(), "model_state_dict": {"x": Evil(tmp_path / "ran")}}, tmp_path / "evil.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    assert formats.kind_of(tmp_path / "evil.pt") == "openai" and formats.kind_of(tmp_path / "bare.pt") is None
    for name, says in (("evil.pt", "asks for Python's exec"), ("bare.pt", "bare Python pickle")):
        with pytest.raises(LabError, match=says):
            formats.convert(tmp_path / name, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.pt", "evil.pt"]


def test_a_compressed_archive_is_refused_unread(tmp_path, values):
    """A few kilobytes of it could stand for gigabytes."""
    source = weight_files.write_openai(tmp_path / "a.pt", values)
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as copy:
        for entry in archive.namelist():
            copy.writestr(entry, archive.read(entry))
    with pytest.raises(LabError, match="compressed"):
        formats.read(tmp_path / "b.pt")


def test_a_state_dict_in_torch_s_first_form_is_named(tmp_path, original, values):
    source = save(original, tmp_path / "source")
    (source / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1)}, source / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(LabError, match="before 2020"):
        formats.convert(source, tmp_path / "out")


def test_an_adapter_is_called_one(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "openai/whisper-small\\u001b[2J"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    assert formats.kind_of(tmp_path) is None
    with pytest.raises(LabError, match=r"adapter \(PEFT, LoRA\) for openai/whisper-small\?\[2J, not a whole") as caught:
        formats.convert(tmp_path, tmp_path / "out")
    assert "merge_and_unload" in caught.value.remedy


@pytest.mark.parametrize("content, says", [
    (b"GGUF\3\0\0\0", "GGUF"), (b"lmgg" + struct.pack("<11i", 32000, 4096, 256, 32, 32, 128, 1, 0, 0, 0, 2), "Whisper"),
    (b"tjgg\1\0\0\0", "llama"), (b"version https://git-lfs.github.com/spec/v1\n", "LFS"), (b"<!doctype html>", "HTML"),
    (b"PK\3\4something", "zip"), (b"", "not a Whisper model"), (b"RIFF\0\0\0\0WAVE", "not a Whisper model"),
])
def test_foreign_files_are_named(tmp_path, content, says):
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    assert formats.kind_of(path) is None
    with pytest.raises(LabError, match=says) as caught:
        formats.convert(path, tmp_path / "out")
    assert caught.value.remedy and "\n" not in caught.value.problem


def test_foreign_folders_are_named(tmp_path, values):
    with pytest.raises(LabError, match="there is no"):
        formats.convert(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(LabError, match="no config.json"):
        formats.convert(tmp_path, tmp_path / "out")
    (tmp_path / "ggml-x.bin").write_bytes(weight_files.ggml_bytes(values))
    with pytest.raises(LabError, match="holds ggml-x.bin") as caught:
        formats.convert(tmp_path, tmp_path / "out")
    assert str(tmp_path / "ggml-x.bin") in caught.value.remedy
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(LabError, match="model_type"):
        formats.convert(tmp_path / "bert", tmp_path / "out")


def ct2_with(values, change) -> bytes:
    stored = weight_files.ct2_stored(weight_files.ct2_variables(values), "float16")
    return weight_files.ct2_bytes(change(stored), {"decoder/projection/weight": "decoder/embeddings/weight"})


@pytest.mark.parametrize("change, says", [
    (lambda s: [v for v in s if v[0] != "encoder/conv2/bias"], "has no encoder/conv2/bias"),
    (lambda s: [*s, ("encoder/adapter/weight", np.zeros(3, np.float16), 4)], "also holds encoder/adapter/weight"),
    (lambda s: [(n, v if "attention/linear_0/bias" not in n else v + 1, c) for n, v, c in s], "bias for its keys"),
    (lambda s: [(n, v[:, :-1] if n == "encoder/layer_1/ffn/linear_0/weight" else v, c) for n, v, c in s], "shape"),
    (lambda s: [(n, np.array(5, np.int16) if n == "decoder/num_heads" else v, c) for n, v, c in s], "5 heads"),
    (lambda s: [(n, v.view(np.int16) if n == "decoder/layer_0/ffn/linear_0/weight" else v,
                 2 if n == "decoder/layer_0/ffn/linear_0/weight" else c) for n, v, c in s], "weight_scale"),
])
def test_what_is_no_plain_whisper(tmp_path, values, change, says):
    weight_files.write_ct2(tmp_path / "ct2", values)
    (tmp_path / "ct2" / "model.bin").write_bytes(ct2_with(values, change))
    with pytest.raises(LabError, match=says):
        formats.convert(tmp_path / "ct2", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_models_of_ctranslate2_and_other_versions(tmp_path, values):
    stored = weight_files.ct2_stored(weight_files.ct2_variables(values), "float16")
    path = tmp_path / "model.bin"
    for spec, version, says in (("TransformerSpec", 6, "not a Whisper"), ("WhisperSpec", 7, "version 6")):
        path.write_bytes(weight_files.ct2_bytes(stored, {}, spec, version))
        with pytest.raises(LabError, match=says):
            formats.read(path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path, values):
    source = weight_files.write_ct2(tmp_path / "ct2", values)
    document = json.loads((source / "tokenizer.json").read_text())
    document["added_tokens"] += [{"id": weight_files.VOCABULARY, "content": "<|new|>"}]
    (source / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(LabError, match="belongs to another model"):
        formats.read(source)
    for text in ("null", "[]", "{", '{"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": []}', "[" * 100000):
        (source / "tokenizer.json").write_text(text)
        with pytest.raises(LabError, match="tokenizer.json"):
            formats.read(source)


def test_sizes_that_disagree(tmp_path, original, values):
    with pytest.raises(LabError, match="n_text_layer"):
        formats.read(weight_files.write_openai(tmp_path / "a.pt", values, n_text_layer=4))
    with pytest.raises(LabError, match="cannot be divided|where a Whisper has"):
        formats.read(weight_files.write_openai(tmp_path / "b.pt", values, n_text_head=10**12))
    source = save(original, tmp_path / "hf")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"decoder_layers": 10**6}))
    with pytest.raises(LabError, match="decoder_layers 1000000"):
        formats.read(source)


def test_without_any_tokenizer_the_way_out_is_named(tmp_path, values, monkeypatch):
    def missing(_):
        raise LabError("not installed", "install it")

    monkeypatch.setattr(openai_tokenizer, "ranks_file", missing)
    source = weight_files.write_openai(tmp_path / "a.pt", values)
    monkeypatch.setattr("whisper_lab.weights.openai.documents_here", lambda: [NANO / "tokenizer.json"])
    assert formats.read(source).tokens.added[2:4] == ["<|en|>", "<|nl|>"]  # the file beside it
    (tmp_path / "tokenizer.json").unlink()
    assert formats.read(source).tokens.merges == [
        tuple(pair) for pair in json.loads((NANO / "tokenizer.json").read_text())["model"]["merges"]]  # borrowed
    monkeypatch.setattr("whisper_lab.weights.openai.documents_here", lambda: [])
    with pytest.raises(LabError, match="holds no tokenizer") as caught:
        formats.read(source)
    assert "tokenizer.json" in caught.value.remedy and "install it" in caught.value.remedy


# --- damage -----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole(tmp_path_factory, original, values) -> dict[str, Path]:
    """One file of each format, whole."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "ggml").mkdir()
    (folder / "ggml" / "ggml-x.bin").write_bytes(weight_files.ggml_bytes(values, "q5_1"))
    (folder / "openai").mkdir()
    return {"ctranslate2": weight_files.write_ct2(folder / "ct2", values, "int8") / "model.bin",
            "openai": weight_files.write_openai(folder / "openai" / "x.pt", values),
            "ggml": folder / "ggml" / "ggml-x.bin",
            "huggingface": save(original, folder / "hf") / "model.safetensors"}


def read_all(path: Path) -> None:
    """As a conversion does, except that nothing is written."""
    source = formats.read(path)
    check_weights(source)
    for weight in source.weights.values():
        assert weight.read().shape == weight.shape


@pytest.mark.parametrize("kind", ["ctranslate2", "openai", "ggml", "huggingface"])
def test_cut_off_anywhere(whole, kind):
    path, data = whole[kind], whole[kind].read_bytes()
    read_all(path)
    places = np.random.default_rng(1).integers(0, len(data), 40).tolist() + [0, 1, 7, 40, len(data) - 1]
    try:
        for place in places:
            path.write_bytes(data[:place])
            with pytest.raises(LabError) as caught:
                read_all(path)
            assert "\n" not in caught.value.problem and len(caught.value.problem) < 600
    finally:
        path.write_bytes(data)


@pytest.mark.parametrize("kind", ["ctranslate2", "openai", "ggml", "huggingface"])
def test_numbers_that_lie(whole, kind):
    """A huge, negative or random number beside a name, where lengths and shapes are: read or refused, quickly."""
    path, data = whole[kind], whole[kind].read_bytes()
    random, refused = np.random.default_rng(2), 0
    names = [found.start() for found in re.finditer(rb"(en|de)coder[./]\w+|dims|data.pkl|F32", data)]
    try:
        for _ in range(120):
            place = int(random.choice(names) + random.integers(-30, 60))
            changed, place = bytearray(data), max(0, min(place, len(data) - 4))
            lie = random.choice([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\0\0"])
            changed[place:place + 4] = lie if random.random() < 0.7 else random.bytes(4)
            path.write_bytes(bytes(changed))
            try:
                read_all(path)
            except LabError as error:
                refused += 1
                assert "\n" not in error.problem
    finally:
        path.write_bytes(data)
    assert refused > 20


@pytest.mark.parametrize("kind, at", [("ctranslate2", 22), ("ggml", 4 + 44 + 8 + 4 * 64 * 201)])
def test_a_count_beyond_the_file_is_refused_before_anything_is_allocated(whole, kind, at):
    """The number of variables, and of tokens."""
    import tracemalloc

    path, data = whole[kind], whole[kind].read_bytes()
    try:
        path.write_bytes(data[:at] + b"\xff\xff\xff\x7f" + data[at + 4:])
        tracemalloc.start()
        with pytest.raises(LabError, match="2147483647"):
            formats.read(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(data)
    finally:
        tracemalloc.stop()
        path.write_bytes(data)


# --- Whisper's own vocabularies ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("rows, languages, first", [(51864, 99, 50256), (51865, 99, 50257), (51866, 100, 50257)])
def test_a_pt_file_of_a_published_vocabulary(rows, languages, first):
    try:
        ranks = openai_tokenizer.ranks(rows >= 51865)
    except LabError:
        pytest.skip("openai-whisper's files are not installed: make installs them")
    tokens = vocabulary.from_ranks(ranks, rows, 1500, "x.pt")
    assert len(tokens) == rows and len(tokens.text) == first and tokens.added[-1] == "<|30.00|>"
    assert tokens.merges[0] == ("Ġ", "t")
    config = huggingface.generation_config(tokens, [[0, 0]], 448)
    assert config["is_multilingual"] == (rows != 51864) and len(config.get("lang_to_id", [])) in (0, languages)
    with pytest.raises(LabError, match="none of Whisper's vocabularies"):
        vocabulary.from_ranks(ranks, rows + 100, 1500, "x.pt")


# --- the table of the engines -----------------------------------------------------------------------------------------


def test_the_table_of_engines_is_that_of_its_numbers():
    """FORMATS.md is rendered from formats.json; a row whose engine was not there says why."""
    from dataclasses import asdict

    from benchmarks.formats import RESULT, TABLE, Row, markdown

    document = json.loads(RESULT.read_text(encoding="utf-8"))
    assert TABLE.read_text(encoding="utf-8") == markdown(document)
    missing = Row("X", "y", "engine", "float32", note="not measured: no module")
    assert "not measured: no module" in markdown(document | {"rows": [asdict(missing)]})
    measured = [row for row in document["rows"] if row["relative"] is not None]
    assert {row["format"] for row in measured} == {"Hugging Face", "openai-whisper", "CTranslate2", "whisper.cpp"}
    for row in measured:
        if row["arithmetic"] == "float32":  # the same weights in the same precision: rounding is all that may differ
            assert row["relative"] < 10 * document["rounding"] and row["same_tokens"] == row["positions"], row
    assert all(row["weights"] == 0 for row in document["rows"] if row["weights"] is not None)
