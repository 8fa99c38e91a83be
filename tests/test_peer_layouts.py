"""The peers' own layouts of a checkpoint compute what the checkpoint computes, and name its tokens."""

import base64
import json

import pytest
import torch

from tests.helpers.benchmark_files import module


@pytest.fixture(scope="module")
def nano_model(nano):
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(nano).float().eval()


def test_sherpas_two_graphs_compute_what_the_model_computes(nano_model):
    """A prompt of three tokens, then one at a time, over caches of full length; the sound shorter than the window."""
    layout, config = module("sherpa_layout"), nano_model.config
    mel = torch.randn(1, config.num_mel_bins, 2 * config.max_source_positions, generator=torch.manual_seed(0))
    tokens = torch.tensor([[5, 9, 2, 7, 30]])
    with torch.no_grad():
        wanted = nano_model(input_features=mel, decoder_input_ids=tokens).logits
        cross = layout.Encoder(nano_model)(mel)
        short = layout.Encoder(nano_model)(mel[:, :, :200])
        caches = [torch.zeros(config.decoder_layers, 1, config.max_target_positions, config.d_model)] * 2
        decoder, found, begin = layout.Decoder(nano_model), [], 0
        for part in (tokens[:, :3], tokens[:, 3:4], tokens[:, 4:]):
            logits, *caches = decoder(part, *caches, *cross, torch.tensor([begin]))
            begin += part.shape[1]
            found.append(logits)
    torch.testing.assert_close(torch.cat(found, 1), wanted, rtol=1e-4, atol=1e-4)
    assert caches[0].shape == (config.decoder_layers, 1, config.max_target_positions, config.d_model)
    assert caches[0][:, :, 5:].abs().max() == 0 and [one.shape[2] for one in short] == [100, 100]


def test_sherpas_metadata_has_the_special_tokens(nano, nano_model):
    found = module("sherpa_layout").metadata(nano, nano_model.config)
    tokenizer = json.loads((nano / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    codes = dict(zip(found["all_language_codes"].split(","), found["all_language_tokens"].split(","), strict=True))
    assert codes["en"] == str(ids["<|en|>"]) and found["sot"] == ids["<|startoftranscript|>"]
    assert found["eot"] == ids["<|endoftext|>"] and found["no_timestamps"] == ids["<|notimestamps|>"]
    assert None not in found.values()


def test_sherpas_tokens_are_the_bytes_of_the_tokenizer(nano, tmp_path):
    from tokenizers import Tokenizer

    module("sherpa_layout").write_tokens(nano, tmp_path / "tokens.txt")
    lines = (tmp_path / "tokens.txt").read_text().splitlines()
    bytes_of = {int(number): base64.b64decode(token) for token, number in map(str.split, lines)}
    tokenizer = Tokenizer.from_file(str(nano / "tokenizer.json"))
    text = " lights, één, 2 keer"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert b"".join(bytes_of[number] for number in ids) == text.encode()


def test_onnx_asrs_tokens_are_those_of_the_tokenizer(nano, tmp_path):
    module("onnx_asr_layout").write_tokens(nano, tmp_path)
    plain, added = (json.loads((tmp_path / name).read_text(encoding="utf-8"))
                    for name in ("vocab.json", "added_tokens.json"))
    from tokenizers import Tokenizer

    assert plain | added == Tokenizer.from_file(str(nano / "tokenizer.json")).get_vocab(with_added_tokens=True)
    assert "<|startoftranscript|>" in added and "Ġ" in plain
