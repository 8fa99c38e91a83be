"""A checkpoint in the layout that sherpa-onnx opens as a Whisper: two graphs in int8, their metadata, tokens.txt.

    benchmarks/.envs/optimum/bin/python benchmarks/sherpa_layout.py CHECKPOINT FOLDER

Its wheel has no exporter, and the one in its repository downloads OpenAI's weights. What its C++ code reads is this:

    encoder   mel [1, n_mels, 2 t] -> n_layer_cross_k, n_layer_cross_v [layers, 1, t, d]
    decoder   tokens [1, n], in_n_layer_self_k_cache, in_n_layer_self_v_cache [layers, 1, 448, d], the two of the
              encoder, offset [1] -> logits [1, n, vocab], out_n_layer_self_k_cache, out_n_layer_self_v_cache

so the caches of the text have their full length from the start, and `offset` says how much of them is filled. The sound
is not 30 s long: sherpa-onnx puts 10 s of silence behind it, unless told otherwise, and the encoder takes what comes.

Quantized as that
exporter does it: onnxruntime's quantize_dynamic, the MatMul nodes alone, int8 weights for a whole tensor.
"""

import base64
import json
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

OPSET = 17


class Encoder(nn.Module):
    """Log-mel of any even length to the cross caches of all decoder layers."""

    def __init__(self, model):
        super().__init__()
        self.encoder = model.model.encoder
        self.cross = nn.ModuleList(layer.encoder_attn for layer in model.model.decoder.layers)

    def forward(self, mel):
        hidden = nn.functional.gelu(self.encoder.conv2(nn.functional.gelu(self.encoder.conv1(mel)))).transpose(1, 2)
        hidden = hidden + self.encoder.embed_positions.weight[:hidden.shape[1]]
        for layer in self.encoder.layers:
            normed = layer.self_attn_layer_norm(hidden)
            attention = layer.self_attn
            hidden = hidden + attend(attention, normed, attention.k_proj(normed), attention.v_proj(normed))
            hidden = hidden + layer.fc2(nn.functional.gelu(layer.fc1(layer.final_layer_norm(hidden))))
        hidden = self.encoder.layer_norm(hidden)
        return (torch.stack([attention.k_proj(hidden) for attention in self.cross]),
                torch.stack([attention.v_proj(hidden) for attention in self.cross]))


class Decoder(nn.Module):
    """One step over caches of full length."""

    def __init__(self, model):
        super().__init__()
        self.decoder, self.head = model.model.decoder, model.proj_out
        length = model.config.max_target_positions
        self.register_buffer("mask", torch.full((length, length), float("-inf")).triu(1))

    def forward(self, tokens, self_k, self_v, cross_k, cross_v, offset):
        begin = offset[0]
        end = begin + tokens.shape[1]
        hidden = self.decoder.embed_tokens(tokens) + self.decoder.embed_positions.weight[begin:end]
        keys, values = [], []
        for i, layer in enumerate(self.decoder.layers):
            normed, attention = layer.self_attn_layer_norm(hidden), layer.self_attn
            key = torch.cat([self_k[i, :, :begin], attention.k_proj(normed)], dim=1)
            value = torch.cat([self_v[i, :, :begin], attention.v_proj(normed)], dim=1)
            hidden = hidden + attend(attention, normed, key, value, self.mask[begin:end, :end])
            normed = layer.encoder_attn_layer_norm(hidden)
            hidden = hidden + attend(layer.encoder_attn, normed, cross_k[i], cross_v[i])
            hidden = hidden + layer.fc2(nn.functional.gelu(layer.fc1(layer.final_layer_norm(hidden))))
            keys.append(torch.cat([key, self_k[i, :, end:]], dim=1))
            values.append(torch.cat([value, self_v[i, :, end:]], dim=1))
        return self.head(self.decoder.layer_norm(hidden)), torch.stack(keys), torch.stack(values)


def attend(attention, hidden, key, value, mask=None):
    """hidden [1, n, d] asks keys and values [1, m, d]."""
    def heads(array):
        return array.unflatten(-1, (attention.num_heads, attention.head_dim)).transpose(1, 2)

    scores = heads(attention.q_proj(hidden)) @ heads(key).transpose(2, 3) * attention.head_dim**-0.5
    scores = scores if mask is None else scores + mask
    return attention.out_proj((scores.softmax(dim=-1) @ heads(value)).transpose(1, 2).flatten(2))


def main(checkpoint: Path, folder: Path) -> None:
    """Trace both parts, write their metadata, quantize; the float32 graphs are not kept."""
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(checkpoint, attn_implementation="eager").float().eval()
    config = model.config
    folder.mkdir(parents=True, exist_ok=True)
    layers, d = config.decoder_layers, config.d_model
    cross = [torch.zeros(layers, 1, config.max_source_positions, d)] * 2
    caches = [torch.zeros(layers, 1, config.max_target_positions, d)] * 2
    tokens, offset = torch.full((1, 3), config.decoder_start_token_id), torch.zeros(1, dtype=torch.int64)
    mel = torch.zeros(1, config.num_mel_bins, 2 * config.max_source_positions)
    names = ["n_layer_cross_k", "n_layer_cross_v"]
    inputs = ["tokens", "in_n_layer_self_k_cache", "in_n_layer_self_v_cache", *names, "offset"]
    outputs = ["logits", "out_n_layer_self_k_cache", "out_n_layer_self_v_cache"]
    with tempfile.TemporaryDirectory(dir=folder) as place, torch.no_grad():
        for part, module, given, taken, made, axes in (
                ("encoder", Encoder(model), (mel,), ["mel"], names, {
                    "mel": {2: "frames"}, **{name: {2: "positions"} for name in names}}),
                ("decoder", Decoder(model), (tokens, *caches, *cross, offset), inputs, outputs, {
                    "tokens": {1: "n"}, **{name: {2: "positions"} for name in names}})):
            path = Path(place) / f"{part}.onnx"
            torch.onnx.export(module, given, path, input_names=taken, output_names=made, dynamic_axes=axes,
                              opset_version=OPSET, dynamo=False)
            quantize(path, folder / f"{part}.int8.onnx", metadata(checkpoint, config))
    write_tokens(checkpoint, folder / "tokens.txt")


def quantize(source: Path, target: Path, notes: dict) -> None:
    """The MatMul nodes in int8, and the metadata."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
    model = onnx.load(target)
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=str(value))
    onnx.save(model, target)


def metadata(checkpoint: Path, config) -> dict:
    """What sherpa-onnx wants to know of the sizes and the special tokens."""
    found = json.loads((checkpoint / "generation_config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    languages = {name.strip("<|>"): number for name, number in found.get("lang_to_id", {}).items()}
    start = found["decoder_start_token_id"]
    sequence = [start, *([min(languages.values()), ids["<|transcribe|>"]] if languages else [])]
    return {
        "model_type": f"whisper-{checkpoint.name}", "version": 1, "maintainer": "whisper-onnx-lab",
        "n_mels": config.num_mel_bins, "n_audio_ctx": config.max_source_positions, "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads, "n_audio_layer": config.encoder_layers,
        "n_vocab": config.vocab_size, "n_text_ctx": config.max_target_positions, "n_text_state": config.d_model,
        "n_text_head": config.decoder_attention_heads, "n_text_layer": config.decoder_layers,
        "sot_sequence": ",".join(map(str, sequence)), "all_language_tokens": ",".join(map(str, languages.values())),
        "all_language_codes": ",".join(languages), "sot": start, "sot_index": 0, "eot": found["eos_token_id"],
        "blank_id": tokenizer["model"]["vocab"]["Ġ"], "is_multilingual": int(bool(languages)),
        "no_speech": ids.get("<|nospeech|>", ids.get("<|nocaptions|>")),
        "non_speech_tokens": ",".join(map(str, found["suppress_tokens"])), "transcribe": ids["<|transcribe|>"],
        "translate": ids["<|translate|>"], "sot_prev": ids["<|startofprev|>"], "sot_lm": ids["<|startoflm|>"],
        "no_timestamps": found["no_timestamps_token_id"]}


def write_tokens(checkpoint: Path, path: Path) -> None:
    """A line for each byte-pair token: its bytes in base64, and its id."""
    vocabulary = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that GPT-2 writes as the character itself
    others = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}
    lines = [f"{base64.b64encode(bytes(byte_of[character] for character in token)).decode()} {number}"
             for token, number in sorted(vocabulary.items(), key=lambda item: item[1])
             if all(character in byte_of for character in token)]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
