"""Small Whisper models in every file format, written by code that shares nothing with the readers under test."""

import json
import struct
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "whisper_model_dir" / "whisper-nano"
VOCABULARY, MEL_BINS, WIDTH, HEADS, AUDIO, TEXT = 1067, 64, 64, 4, 500, 16  # tokens and window are nano's
ENCODER_LAYERS, DECODER_LAYERS, ENCODER_FFN, DECODER_FFN = 2, 1, 96, 128  # all different: a mix-up must show


def model(seed: int = 0, **changes):
    """A transformers Whisper with random numbers in every weight, biases and norms included; float16 can hold them."""
    import torch

    from whisper_lab.checkpoints import import_transformers

    transformers = import_transformers()
    sizes = dict(vocab_size=VOCABULARY, num_mel_bins=MEL_BINS, d_model=WIDTH, encoder_layers=ENCODER_LAYERS,
                 decoder_layers=DECODER_LAYERS, encoder_attention_heads=HEADS, decoder_attention_heads=HEADS,
                 encoder_ffn_dim=ENCODER_FFN, decoder_ffn_dim=DECODER_FFN, max_source_positions=AUDIO,
                 max_target_positions=TEXT, pad_token_id=556, bos_token_id=556, eos_token_id=556,
                 decoder_start_token_id=557, suppress_tokens=None, begin_suppress_tokens=None)
    made = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**(sizes | changes)))
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn(weight.shape, generator=noise).mul(0.2).half().float())
    return made.eval()


def numbers(made) -> dict[str, np.ndarray]:
    """Hugging Face's name -> float32 numbers, the tied head left out."""
    tied = made.config.tie_word_embeddings
    return {name: weight.detach().numpy().copy() for name, weight in made.state_dict().items()
            if not (tied and name == "proj_out.weight")}


# --- CTranslate2 ------------------------------------------------------------------------------------------------------

CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4, "bfloat16": 5}


def ct2_variables(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """CTranslate2's names; query, key and value one below the other, a bias of zeros for the keys."""
    made = {}
    for side, layers in (("encoder", ENCODER_LAYERS), ("decoder", DECODER_LAYERS)):
        made[f"{side}/num_heads"] = np.array(HEADS, np.int16)
        made[f"{side}/position_encodings/encodings"] = values[f"model.{side}.embed_positions.weight"]
        put_norm(made, f"{side}/layer_norm", values, f"model.{side}.layer_norm")
        for i in range(layers):
            put_layer(made, f"{side}/layer_{i}", values, f"model.{side}.layers.{i}", side == "decoder")
    for name in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            made[f"encoder/{name}/{kind}"] = values[f"model.encoder.{name}.{kind}"]
    made["decoder/embeddings/weight"] = values["model.decoder.embed_tokens.weight"]
    if "proj_out.weight" in values:
        made["decoder/projection/weight"] = values["proj_out.weight"]
    return made


def put_norm(made: dict, theirs: str, values: dict, ours: str) -> None:
    made[f"{theirs}/gamma"], made[f"{theirs}/beta"] = values[f"{ours}.weight"], values[f"{ours}.bias"]


def put_linear(made: dict, theirs: str, values: dict, ours: list[str]) -> None:
    made[f"{theirs}/weight"] = np.concatenate([values[f"{name}.weight"] for name in ours])
    zeros = np.zeros(WIDTH, np.float32)
    made[f"{theirs}/bias"] = np.concatenate([values.get(f"{name}.bias", zeros) for name in ours])


def put_layer(made: dict, theirs: str, values: dict, ours: str, decoder: bool) -> None:
    own = f"{ours}.self_attn"
    put_linear(made, f"{theirs}/self_attention/linear_0", values, [f"{own}.{part}_proj" for part in "qkv"])
    put_linear(made, f"{theirs}/self_attention/linear_1", values, [f"{own}.out_proj"])
    put_norm(made, f"{theirs}/self_attention/layer_norm", values, f"{ours}.self_attn_layer_norm")
    if decoder:
        other = f"{ours}.encoder_attn"
        put_linear(made, f"{theirs}/attention/linear_0", values, [f"{other}.q_proj"])
        put_linear(made, f"{theirs}/attention/linear_1", values, [f"{other}.k_proj", f"{other}.v_proj"])
        put_linear(made, f"{theirs}/attention/linear_2", values, [f"{other}.out_proj"])
        put_norm(made, f"{theirs}/attention/layer_norm", values, f"{ours}.encoder_attn_layer_norm")
    put_linear(made, f"{theirs}/ffn/linear_0", values, [f"{ours}.fc1"])
    put_linear(made, f"{theirs}/ffn/linear_1", values, [f"{ours}.fc2"])
    put_norm(made, f"{theirs}/ffn/layer_norm", values, f"{ours}.final_layer_norm")


def ct2_stored(variables: dict[str, np.ndarray], kind: str) -> list[tuple[str, np.ndarray, int]]:
    """(name, stored numbers, type code) as CTranslate2's converter quantizes them."""
    rest = {"int8": "float32", "int16": "float32", "int8_float16": "float16", "int8_bfloat16": "bfloat16"}
    stored = []
    for name, value in variables.items():
        if not value.ndim:
            stored.append((name, value, CODES[str(value.dtype)]))
        elif kind.startswith("int") and name.endswith("/weight"):
            rows = np.abs(value.reshape(len(value), -1)).max(axis=1)
            scale = np.float32(127) / rows if kind != "int16" else np.float32(1024 / rows.max())
            shaped = scale if kind == "int16" else scale.reshape(-1, *[1] * (value.ndim - 1))
            whole = np.rint(value * shaped).astype(np.int16 if kind == "int16" else np.int8)
            stored += [(name, whole, CODES[str(whole.dtype)]), (f"{name}_scale", np.float32(scale), 0)]
        else:
            stored.append((name, *as_type(value, rest.get(kind, kind))))
    return stored


def as_type(value: np.ndarray, dtype: str) -> tuple[np.ndarray, int]:
    if dtype == "bfloat16":  # these numbers are multiples of a bfloat16's step where the test asks for equality
        return (value.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16), CODES[dtype]
    return value.astype(dtype), CODES[dtype]


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def ct2_bytes(stored: list[tuple[str, np.ndarray, int]], aliases: dict[str, str], spec: str = "WhisperSpec",
              version: int = 6) -> bytes:
    """A model.bin."""
    out = struct.pack("<I", version) + string(spec) + struct.pack("<II", 3, len(stored))
    for name, value, code in stored:
        out += string(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        out += struct.pack("<BI", code, value.nbytes) + value.tobytes()
    out += struct.pack("<I", len(aliases))
    return out + b"".join(string(alias) + string(name) for alias, name in aliases.items())


def write_ct2(folder: Path, values: dict[str, np.ndarray], kind: str = "float16") -> Path:
    """A folder as faster-whisper reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    tied = {} if "proj_out.weight" in values else {"decoder/projection/weight": "decoder/embeddings/weight"}
    if tied and kind.startswith("int"):
        tied["decoder/projection/weight_scale"] = "decoder/embeddings/weight_scale"
    (folder / "model.bin").write_bytes(ct2_bytes(ct2_stored(ct2_variables(values), kind), tied))
    (folder / "config.json").write_text(json.dumps({"alignment_heads": [[0, 1], [0, 3]], "suppress_ids": [5, 7],
                                                    "suppress_ids_begin": [220, 556], "lang_ids": [558, 559]}))
    (folder / "tokenizer.json").write_text((NANO / "tokenizer.json").read_text())
    return folder


# --- openai-whisper and whisper.cpp -----------------------------------------------------------------------------------

ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}


def openai_names(decoder_layers: int = DECODER_LAYERS, encoder_layers: int = ENCODER_LAYERS) -> dict[str, str]:
    """OpenAI's name -> Hugging Face's, all written out."""
    made = {"decoder.token_embedding.weight": "model.decoder.embed_tokens.weight"}
    for side, layers, last in (("encoder", encoder_layers, "ln_post"), ("decoder", decoder_layers, "ln")):
        made[f"{side}.positional_embedding"] = f"model.{side}.embed_positions.weight"
        pairs = {f"{side}.{last}": f"model.{side}.layer_norm"}
        for i in range(layers):
            theirs, ours = f"{side}.blocks.{i}", f"model.{side}.layers.{i}"
            pairs |= {f"{theirs}.attn.{a}": f"{ours}.self_attn.{b}" for a, b in ATTENTION.items()}
            pairs |= {f"{theirs}.attn_ln": f"{ours}.self_attn_layer_norm", f"{theirs}.mlp.0": f"{ours}.fc1",
                      f"{theirs}.mlp.2": f"{ours}.fc2", f"{theirs}.mlp_ln": f"{ours}.final_layer_norm"}
            if side == "decoder":
                pairs |= {f"{theirs}.cross_attn.{a}": f"{ours}.encoder_attn.{b}" for a, b in ATTENTION.items()}
                pairs[f"{theirs}.cross_attn_ln"] = f"{ours}.encoder_attn_layer_norm"
        made |= {f"{a}.{kind}": f"{b}.{kind}" for a, b in pairs.items() for kind in ("weight", "bias")
                 if not (kind == "bias" and a.endswith(".key"))}
    made |= {f"encoder.{name}.{kind}": f"model.encoder.{name}.{kind}" for name in ("conv1", "conv2")
             for kind in ("weight", "bias")}
    return made


def dims(**changes) -> dict[str, int]:
    """openai-whisper's ModelDimensions of the small model."""
    return {"n_mels": MEL_BINS, "n_vocab": VOCABULARY, "n_audio_ctx": AUDIO, "n_audio_state": WIDTH,
            "n_audio_head": HEADS, "n_audio_layer": ENCODER_LAYERS, "n_text_ctx": TEXT, "n_text_state": WIDTH,
            "n_text_head": HEADS, "n_text_layer": DECODER_LAYERS} | changes


def write_openai(path: Path, values: dict[str, np.ndarray], dtype: str = "float16", **changes) -> Path:
    """A `.pt` with nano's tokenizer beside it."""
    import torch

    state = {theirs: torch.from_numpy(values[ours]).to(getattr(torch, dtype))
             for theirs, ours in openai_names().items()}
    torch.save({"dims": dims(**changes), "model_state_dict": state}, path)
    path.with_name("tokenizer.json").write_text((NANO / "tokenizer.json").read_text())
    return path


GGML_CODES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8}


def ggml_bytes(values: dict[str, np.ndarray], kind: str = "f16", sizes: list[int] | None = None) -> bytes:
    """A ggml file of whisper.cpp's: matrices and convolutions in f16, or matrices in blocks; the rest in float32."""
    header = sizes or [VOCABULARY, AUDIO, WIDTH, HEADS, ENCODER_LAYERS, TEXT, WIDTH, HEADS, DECODER_LAYERS, MEL_BINS,
                       GGML_CODES[kind]]
    out = [b"lmgg", struct.pack("<11i", *header), filters_bytes(), tokens_bytes()]
    for theirs, ours in openai_names().items():
        value = values[ours][:, None] if theirs in ("encoder.conv1.bias", "encoder.conv2.bias") else values[ours]
        plain = value.ndim < 2 or theirs.endswith((".bias", "positional_embedding")) or kind == "f32"
        stored = "f32" if plain else "f16" if value.ndim > 2 else kind
        out.append(struct.pack(f"<3i{value.ndim}i", value.ndim, len(theirs), GGML_CODES[stored], *value.shape[::-1]))
        out += [theirs.encode(), blocks(value, stored)]
    return b"".join(out)


def filters_bytes() -> bytes:
    from whisper_lab.checkpoints import import_transformers

    filters = import_transformers().WhisperFeatureExtractor(feature_size=MEL_BINS).mel_filters.T.astype(np.float32)
    return struct.pack("<2i", *filters.shape) + np.ascontiguousarray(filters).tobytes()


def tokens_bytes() -> bytes:
    """nano's text tokens as bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    vocabulary = json.loads((NANO / "tokenizer.json").read_text())["model"]["vocab"]
    raw = [bytes(byte_of[letter] for letter in token) for token in sorted(vocabulary, key=vocabulary.get)]
    return struct.pack("<i", len(raw)) + b"".join(struct.pack("<i", len(token)) + token for token in raw)


def blocks(value: np.ndarray, kind: str) -> bytes:
    """Numbers in ggml's block formats, quantized one block at a time as ggml's reference quantizer defines them."""
    if kind in ("f32", "f16"):
        return value.astype({"f32": "<f4", "f16": "<f2"}[kind]).tobytes()
    return b"".join(block(numbers, kind) for numbers in value.reshape(-1, 32))


def block(x: np.ndarray, kind: str) -> bytes:
    """One block of 32 numbers."""
    if kind == "q8_0":
        d = np.float16(np.abs(x).max() / 127)
        return d.tobytes() + np.rint(x / np.float32(d)).clip(-127, 127).astype(np.int8).tobytes()
    top = {"q4": 15, "q5": 31}[kind[:2]]
    if kind.endswith("_0"):
        d, m = np.float16(x[np.abs(x).argmax()] / -((top + 1) // 2)), None
        codes = np.rint(x / np.float32(d)) + (top + 1) // 2
    else:
        d, m = np.float16((x.max() - x.min()) / top), np.float16(x.min())
        codes = np.rint((x - np.float32(m)) / np.float32(d))
    codes = codes.clip(0, top).astype(int)
    out = d.tobytes() + (m.tobytes() if m is not None else b"")
    if top == 31:
        out += struct.pack("<I", sum((int(code) >> 4) << i for i, code in enumerate(codes)))
    return out + bytes((int(codes[i]) & 15) | (int(codes[i + 16]) & 15) << 4 for i in range(16))
