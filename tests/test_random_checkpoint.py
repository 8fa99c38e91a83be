"""A checkpoint of published shape with random weights: tokenizer, configuration and weights, each against a reference.

The references: openai-whisper's own tokenizer code over tiktoken, transformers' Whisper, and the published sizes.
"""

import base64
import gzip
import importlib.metadata
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training import make_random_checkpoint
from whisper_lab import checkpoints
from whisper_lab.console import LabError
from whisper_lab.weights import huggingface, openai_tokenizer, published, vocabulary
from whisper_lab.weights.model import expected_shapes

ROOT = Path(__file__).resolve().parent.parent
try:
    openai_tokenizer.package_file("assets/multilingual.tiktoken")
    INSTALLED = True
except LabError:
    INSTALLED = False
needs_ranks = pytest.mark.skipif(not INSTALLED, reason="openai-whisper's files are not installed: make installs them")

SENTENCES = [
    "Hello world, it's five o'clock; they'll've gone.", " And so my fellow Americans, ask not what your country can do",
    "Wat zeg je? Dat is niet zo'n goed idee, hè, coördinatie en ’s avonds.", "1234567890 3.14 1,000,000 €20 50%",
    "  double  spaces,\ttabs\nand\n\nlines   ", "Ça va très bien, Zürich; ¿qué tal?", "今天天气很好。你好，世界！",
    "Москва слезам не верит", "नमस्ते दुनिया", "مرحبا بالعالم", "🎵 ♪♪ [music] (laughs) 👩‍👩‍👧‍👦 é", "", "a",
    "supercalifragilisticexpialidocious antidisestablishmentarianism", "x" * 500, "\u0000\u00a0\u200b\ufeff",
]
# Parameters in millions: Radford et al. 2022, table 1, and the model cards of large-v3 and turbo.
PUBLISHED = {"tiny": 39, "base": 74, "small": 244, "medium": 769, "large": 1550, "large-v2": 1550, "large-v3": 1550,
             "turbo": 809}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "whisper-tiny"
    assert make_random_checkpoint.main(["--size", "tiny", "--output-dir", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def reference():
    """openai-whisper's tokenizer module, loaded from its file: the package's own import needs numba."""
    pytest.importorskip("tiktoken", reason="tiktoken, the reference, is not installed: make test installs it")
    spec = importlib.util.spec_from_file_location("reference", openai_tokenizer.package_file("tokenizer.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["reference"]


@needs_ranks
def test_it_opens_as_a_checkpoint_that_says_it_is_random(tiny):
    found = checkpoints.resolve(str(tiny))
    assert found.random_weights is True and found.name == "whisper-tiny-own"  # not the published one
    assert (tiny / "model.safetensors").stat().st_mode & 0o044 and tiny.stat().st_mode & 0o055


@needs_ranks
@pytest.mark.parametrize("multilingual", [True, False])
def test_tokenizer_equals_openais(tiny, reference, multilingual):
    if multilingual:
        ours = checkpoints.import_transformers().WhisperTokenizerFast.from_pretrained(tiny)
    else:
        ours = openai_tokenizer.tokens(False, 99, "<|nocaptions|>").build()
    theirs = reference.get_tokenizer(multilingual, num_languages=99).encoding
    assert len(ours) == theirs.n_vocab
    for sentence in SENTENCES:
        ids = ours.encode(sentence, add_special_tokens=False)
        assert ids == theirs.encode(sentence), sentence
        assert ours.decode(ids) == theirs.decode(ids) == sentence
    renamed = {"<|nospeech|>": "<|nocaptions|>"}
    for token in theirs.special_tokens_set:
        assert ours.convert_tokens_to_ids(renamed.get(token, token)) == theirs.encode_single_token(token), token


@needs_ranks
def test_suppressed_tokens_are_openais(tiny, reference):
    config = json.loads((tiny / "generation_config.json").read_text())
    theirs = reference.get_tokenizer(True, num_languages=99)
    special = [theirs.sot, theirs.translate, theirs.transcribe, theirs.sot_lm, theirs.sot_prev, theirs.no_speech]
    assert config["suppress_tokens"] == sorted({*theirs.non_speech_tokens, *special})
    assert config["begin_suppress_tokens"] == [*theirs.encode(" "), theirs.eot]


@needs_ranks
def test_processor_and_generate(tiny):
    import numpy as np

    transformers = checkpoints.import_transformers()
    processor = transformers.WhisperProcessor.from_pretrained(tiny)
    assert processor.tokenizer.prefix_tokens == [50258, 50363]
    model = checkpoints.load_model(checkpoints.resolve(str(tiny)))
    features = processor(np.zeros(16000, np.float32), sampling_rate=16000, return_tensors="pt").input_features
    assert features.shape == (1, 80, 3000)
    tokens = model.generate(features, language="nl", task="transcribe", max_new_tokens=4)
    forbidden = set(model.generation_config.suppress_tokens)
    assert 1 <= tokens.shape[1] <= 8 and not forbidden & set(tokens[0].tolist()[3:])
    processor.tokenizer.decode(tokens[0])


@needs_ranks
def test_no_weight_hides_a_fault(tiny):
    import torch
    from transformers.models.whisper.modeling_whisper import sinusoids

    model = checkpoints.load_model(checkpoints.resolve(str(tiny)))
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert 0.01 < weight.std() < 0.03 and weight.abs().min() < 0.01, name
        elif "layer_norm" in name:
            assert 0.03 < weight.std() < 0.07 and 0.97 < weight.mean() < 1.03, name
    embedding = model.model.decoder.embed_tokens
    assert embedding.weight[embedding.padding_idx].abs().max() > 0.01
    assert torch.equal(model.model.encoder.embed_positions.weight, sinusoids(1500, 384))


@pytest.mark.parametrize("size", make_random_checkpoint.ARCHITECTURES)
def test_parameters_as_published(size):
    """The paper rounds and counts the projection's padding differently from one size to the next: within 4 %."""
    pytest.importorskip("torch")
    sizes = make_random_checkpoint.dimensions(make_random_checkpoint.ARCHITECTURES[size])
    shapes = expected_shapes(sizes)
    length = {"large-v3": 51866, "turbo": 51866}.get(size, 51864 if size.endswith(".en") else 51865)
    millions = sum(math.prod(shape) for shape in shapes.values()) / 1e6
    assert millions == pytest.approx(PUBLISHED[size.removesuffix(".en")], rel=0.04)
    assert shapes["model.encoder.conv1.weight"] == (sizes.width, sizes.mel_bins, 3)
    assert shapes["model.decoder.embed_tokens.weight"] == (length, sizes.width)


@pytest.mark.parametrize("size, no_timestamps, heads", [
    ("base.en", 50362, [[3, 3], [4, 7], [5, 1], [5, 5], [5, 7]]),
    ("base", 50363, [[3, 1], [4, 2], [4, 3], [4, 7], [5, 1], [5, 2], [5, 4], [5, 6]]),
    ("large", 50363, [[9, 19], [11, 2], [11, 4], [11, 17], [22, 7], [22, 11], [22, 17], [23, 2], [23, 15]]),
    ("large-v3", 50364, [[7, 0], [10, 17], [12, 18], [13, 12], [16, 1], [17, 14], [19, 11], [21, 4], [24, 1], [25, 6]]),
    ("turbo", 50364, None),
])
def test_generation_config_as_published(size, no_timestamps, heads):
    """Heads and ids as in the generation_config.json of the model on the Hub."""
    architecture = make_random_checkpoint.ARCHITECTURES[size]
    text = ["Ġ", *(f"t{i}" for i in range(1, published.TEXT_TOKENS[architecture.multilingual]))]
    special = vocabulary.special_tokens(vocabulary.languages()[:architecture.languages],
                                        make_random_checkpoint.no_speech(architecture))
    config = huggingface.generation_config(vocabulary.Tokens(text, [], special), published.alignment_heads(size), 448)
    assert config["no_timestamps_token_id"] == no_timestamps
    assert config["is_multilingual"] == ("lang_to_id" in config) == (not size.endswith(".en"))
    if heads:
        assert config["alignment_heads"] == heads
    else:
        assert all(layer < 4 and head < 20 for layer, head in config["alignment_heads"])
    if architecture.multilingual:
        assert config["lang_to_id"]["<|nl|>"] == 50271 and config["lang_to_id"]["<|en|>"] == 50259
        assert ("<|yue|>" in config["lang_to_id"]) == (architecture.languages == 100)


@needs_ranks
def test_languages_are_those_of_transformers():
    checkpoints.import_transformers()
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    assert openai_tokenizer.languages(100) == list(LANGUAGES)


@needs_ranks
@pytest.mark.parametrize("size", make_random_checkpoint.ARCHITECTURES)
def test_alignment_heads_are_openais(size):
    """The package packs one bit per head of the decoder, compressed, in base 85."""
    packed = openai_tokenizer.assigned("__init__.py", "_ALIGNMENT_HEADS")[{"large": "large-v1"}.get(size, size)]
    marks = gzip.decompress(base64.b85decode(packed))
    architecture = make_random_checkpoint.ARCHITECTURES[size]
    assert len(marks) == architecture.decoder_layers * architecture.heads
    found = [list(divmod(i, architecture.heads)) for i, mark in enumerate(marks) if mark]
    assert published.alignment_heads(size) == found


@pytest.mark.parametrize("size", ["tiny.en", "turbo"])
def test_the_weights_are_those_that_transformers_has(size):
    """From a model on torch's `meta` device, which holds no numbers."""
    torch = pytest.importorskip("torch")
    sizes = make_random_checkpoint.dimensions(make_random_checkpoint.ARCHITECTURES[size])
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"), 1)
    config = huggingface.model_config(sizes, {**ids, "begin_suppress_tokens": [], "suppress_tokens": []})
    with torch.device("meta"):
        model = checkpoints.import_transformers().WhisperForConditionalGeneration(config)
    theirs = {name: tuple(weight.shape) for name, weight in model.state_dict().items() if name != "proj_out.weight"}
    assert expected_shapes(sizes) == theirs


def test_same_seed_same_bytes(tmp_path):
    shapes = {"a.layer_norm.weight": (5,), "a.bias": (5,), "b.weight": (3, 4)}
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        make_random_checkpoint.write_weights(tmp_path / name, shapes, seed, "float16")
    one, two, three = ((tmp_path / name).read_bytes() for name in ("one", "two", "three"))
    assert one == two != three


def test_weights_file_is_safetensors(tmp_path):
    from safetensors.numpy import load_file

    make_random_checkpoint.write_weights(tmp_path / "w.safetensors", {"x.bias": (7,), "y.weight": (3, 5)}, 0, "float32")
    loaded = load_file(tmp_path / "w.safetensors")
    assert {name: array.shape for name, array in loaded.items()} == {"x.bias": (7,), "y.weight": (3, 5)}
    assert (loaded["y.weight"] == make_random_checkpoint.random_weight("y.weight", (3, 5), 0)).all()


def test_what_is_not_a_random_checkpoint_is_never_overwritten(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(LabError, match="will not be overwritten"), make_random_checkpoint.replacing(tmp_path):
        pass
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_interrupted_leaves_the_old_one_whole(tmp_path):
    folder = tmp_path / "whisper-x"
    folder.mkdir()
    (folder / "config.json").write_text('{"whisper_lab_random_weights": true}')
    with pytest.raises(KeyboardInterrupt), make_random_checkpoint.replacing(folder) as temporary:
        (temporary / "half").write_text("x")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["whisper-x"]
    with make_random_checkpoint.replacing(folder) as temporary:
        (temporary / "new").write_text("x")
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_unwritable_place_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "whisper-x"
    with pytest.raises(LabError, match="cannot write"), make_random_checkpoint.replacing(place):
        pass


def test_without_openai_whisper_the_command_is_named(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(LabError) as caught:
        openai_tokenizer.ranks(True)
    assert "pip install --no-deps -r requirements-nodeps.txt" in caught.value.remedy
    assert (ROOT / "requirements-nodeps.txt").read_text().count("openai-whisper==") == 1


def test_help_from_anywhere(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "training" / "make_random_checkpoint.py"), "--help"],
                          cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0 and "large-v3" in done.stdout
