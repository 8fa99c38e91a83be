"""A Hugging Face checkpoint as the file that whisper.cpp reads: float16 matrices, float32 vectors and positions.

    python benchmarks/ggml.py benchmarks/work/whisper-base-random model.bin

The layout, little-endian: magic; eleven numbers; mel filters; tokens; then tensors with their dimensions in reverse.
Source: the loader in whisper.cpp's src/whisper.cpp (whisper_model_load).
"""

import json
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from whisper_lab import files  # noqa: E402
from whisper_lab.features import FeatureSpec, mel_filters  # noqa: E402
from whisper_lab.tokenizer import bytes_of  # noqa: E402

MAGIC = 0x67676D6C
FLOAT32, FLOAT16 = 0, 1
NAMES = {  # Hugging Face -> OpenAI, longest first
    "encoder_attn_layer_norm": "cross_attn_ln", "self_attn_layer_norm": "attn_ln", "final_layer_norm": "mlp_ln",
    "encoder_attn.": "cross_attn.", "self_attn.": "attn.", "q_proj": "query", "k_proj": "key", "v_proj": "value",
    "out_proj": "out", "fc1": "mlp.0", "fc2": "mlp.2", "layers.": "blocks.", "embed_tokens": "token_embedding",
    "embed_positions.weight": "positional_embedding",
}
LAST_NORM = {"encoder.layer_norm.": "encoder.ln_post.", "decoder.layer_norm.": "decoder.ln."}


def convert(checkpoint: Path, target: Path, ftype: int = FLOAT16,
            encode: Callable[[np.ndarray], tuple[int, bytes]] | None = None) -> None:
    """Write `target` whole or not at all.

    `encode` turns a matrix into its type's number and its bytes (float16 where it is None, float32 for ftype 0);
    `ftype` says in the header which one that is.
    """
    from safetensors.numpy import load_file

    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    spec = FeatureSpec.from_folder(checkpoint)
    with files.atomic(target) as temporary, temporary.open("wb") as out:
        out.write(struct.pack("<I11i", MAGIC, *header(config, ftype)))
        filters = mel_filters(spec.n_mels, spec.n_fft, spec.sampling_rate)
        out.write(struct.pack("<2i", *filters.shape) + filters.tobytes())
        write_tokens(out, checkpoint)
        for name, tensor in load_file(checkpoint / "model.safetensors").items():
            if name != "proj_out.weight":  # the token embedding again
                write_tensor(out, rename(name), tensor, ftype, encode)


def header(config: dict, ftype: int = FLOAT16) -> list[int]:
    """Sizes in the order that the loader wants; the last says what matrices are."""
    return [config["vocab_size"], config["max_source_positions"], config["d_model"], config["encoder_attention_heads"],
            config["encoder_layers"], config["max_target_positions"], config["d_model"],
            config["decoder_attention_heads"], config["decoder_layers"], config["num_mel_bins"], ftype]


def write_tokens(out, checkpoint: Path) -> None:
    """The text tokens as bytes; the loader adds the special ones itself."""
    vocabulary = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    ordered = sorted(vocabulary, key=vocabulary.get)
    out.write(struct.pack("<i", len(ordered)))
    for token in ordered:
        raw = bytes_of(token)
        out.write(struct.pack("<i", len(raw)) + raw)


def rename(name: str) -> str:
    """`model.encoder.layers.0.self_attn.q_proj.weight` -> `encoder.blocks.0.attn.query.weight`"""
    name = name.removeprefix("model.")
    for theirs, ours in {**LAST_NORM, **NAMES}.items():
        name = re.sub(rf"(?<![a-z_]){re.escape(theirs)}", ours, name)
    return name


def write_tensor(out, name: str, tensor: np.ndarray, ftype: int = FLOAT16, encode=None) -> None:
    """One tensor: number of dimensions, length of the name, type, dimensions in reverse, name, values.

    Matrices are what `convert` was asked for; convolutions are float16 beside them, or float32; the rest is float32.
    """
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        tensor = tensor[:, None]
    tensor = np.ascontiguousarray(tensor, dtype=np.float32)
    kind, values = FLOAT32, tensor.tobytes()
    if ftype != FLOAT32 and tensor.ndim > 1 and not name.endswith((".bias", "positional_embedding")):
        as_matrix = encode is not None and tensor.ndim == 2
        kind, values = encode(tensor) if as_matrix else (FLOAT16, tensor.astype(np.float16).tobytes())
    out.write(struct.pack(f"<3i{tensor.ndim}i", tensor.ndim, len(name), kind, *reversed(tensor.shape)))
    out.write(name.encode() + values)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
