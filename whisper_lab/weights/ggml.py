"""whisper.cpp's `ggml-*.bin`: float32, float16, and the block formats q4_0, q4_1, q5_0, q5_1, q8_0.

Layout, little-endian: magic; eleven int32 sizes; int32 rows and columns of the mel filters, float32 filters; int32
number of text tokens, each an int32 length and its bytes; then tensors to the end: int32 number of dimensions, length
of the name, type; int32 dimensions in reverse; name; data. Sources: whisper.cpp's src/whisper.cpp (whisper_model_load);
for the blocks ggml's src/ggml-quants.c (dequantize_row_*) and ggml-common.h.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_lab.console import LabError
from whisper_lab.features import mel_filters
from whisper_lab.weights import vocabulary
from whisper_lab.weights.binary import BinaryFile
from whisper_lab.weights.model import Dimensions, Source, Weight, damaged, dimensions_of, shown
from whisper_lab.weights.openai import check_header, hf_name

if TYPE_CHECKING:
    import numpy as np

MAGIC = b"lmgg"  # 0x67676d6c, little-endian
SIZES = ("n_vocab", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer", "n_text_ctx", "n_text_state",
         "n_text_head", "n_text_layer", "n_mels", "ftype")
BLOCK = 32  # numbers that share a scale
TYPES = {0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0"}  # ggml_type
BLOCK_BYTES = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34}
MOST_TENSORS, MOST_RANK = 20_000, 4
SAMPLE_RATE, N_FFT = 16000, 400
FILTER_TOLERANCE = 1e-4  # of filters up to 0.04: the file's were computed in float32 by another library


def is_head(head: bytes) -> bool:
    """Whether a file that begins with `head` is whisper.cpp's: ggml's magic, then sizes that a Whisper can have."""
    return head.startswith(MAGIC) and len(head) >= 48 and header_sizes(head[4:48]) is not None


def header_sizes(raw: bytes) -> dict[str, int] | None:
    """The eleven sizes by name, or None where no Whisper has such sizes."""
    sizes = {name: int.from_bytes(raw[4 * i:4 * i + 4], "little", signed=True) for i, name in enumerate(SIZES)}
    made = Dimensions(sizes["n_vocab"], sizes["n_mels"], sizes["n_audio_state"], sizes["n_audio_head"],
                      sizes["n_text_head"], sizes["n_audio_layer"], sizes["n_text_layer"], 4, 4, sizes["n_audio_ctx"],
                      sizes["n_text_ctx"])
    return sizes if made.problem() is None and sizes["n_audio_state"] == sizes["n_text_state"] else None


def read(path: Path) -> Source:
    """The Whisper in a ggml file. Raises LabError where it is another model, or damaged."""
    file = BinaryFile(path)
    if file.raw(4, "the magic") != MAGIC or (sizes := header_sizes(file.raw(44, "the sizes"))) is None:
        raise LabError(f"{path} is not a Whisper of whisper.cpp's: its sizes are another model's",
                       "choose a Whisper model")
    read_filters(file, sizes["n_mels"])
    ranks = read_ranks(file)
    found = read_tensors(file)
    weights = {hf_name(name): weight for name, (weight, _) in found.items()}
    made = dimensions_of(weights, (sizes["n_audio_head"], sizes["n_text_head"]), path)
    check_header(path, made, sizes)
    stored = "+".join(sorted({kind for weight, kind in found.values() if len(weight.shape) == 2 and kind != "f32"}))
    return Source("ggml", [path], stored or "f32", made, weights, read_tokens(path, ranks, made), name=path.name)


def read_tokens(path: Path, ranks: dict[bytes, int], sizes: Dimensions) -> vocabulary.Tokens:
    """tokenizer.json beside the file, where there is one, else the file's own tokens with Whisper's special ones."""
    beside = path.with_name("tokenizer.json")
    if beside.is_file():
        return vocabulary.from_document(beside, sizes.vocabulary, sizes.audio_positions)
    return vocabulary.from_ranks(ranks, sizes.vocabulary, sizes.audio_positions, path)


def read_filters(file: BinaryFile, mel_bins: int) -> None:
    """Read past the mel filters. Raises LabError where they are not Whisper's: the folder could not say so."""
    import numpy as np

    rows, columns = (file.number("i", "the size of the mel filters") for _ in range(2))
    if (rows, columns) != (mel_bins, N_FFT // 2 + 1):
        raise damaged(file.path, f"its mel filters are {rows} x {columns}, not {mel_bins} x {N_FFT // 2 + 1}")
    begin = file.skip(4 * rows * columns, "the mel filters")
    theirs = file.array("float32", begin, rows * columns).reshape(rows, columns)
    with np.errstate(invalid="ignore"):
        difference = np.abs(theirs - mel_filters(mel_bins, N_FFT, SAMPLE_RATE)).max()
    if not difference <= FILTER_TOLERANCE:  # NaN fails, too
        raise damaged(file.path, "its mel filters are not Whisper's")


def read_ranks(file: BinaryFile) -> dict[bytes, int]:
    """Text token -> id. Older files also list <|endoftext|>: it and what follows are special tokens."""
    count = file.number("i", "the number of tokens")
    tokens = [file.raw(file.number("i", "the length of a token"), "a token")
              for _ in range(count if 0 <= 4 * count <= file.left else -1)]
    if not tokens:
        raise damaged(file.path, f"it claims {count} tokens")
    end = vocabulary.END.encode()
    return {token: i for i, token in enumerate(tokens[:tokens.index(end)] if end in tokens else tokens)}


def read_tensors(file: BinaryFile) -> dict[str, tuple[Weight, str]]:
    """OpenAI's name -> weight and the name of its type, to the end of the file."""
    found = {}
    while file.left:
        rank, length, code = (file.number("i", "the head of a tensor") for _ in range(3))
        if not 1 <= rank <= MOST_RANK or len(found) >= MOST_TENSORS:
            raise damaged(file.path, f"a tensor before byte {file.at} has {rank} dimensions")
        shape = tuple(file.number("i", "a dimension") for _ in range(rank))[::-1]
        name = file.text(length, "the name of a tensor")
        if code not in TYPES:
            raise LabError(f"{file.path} has tensors of ggml's type {code}, which this lab does not read",
                           f"choose a file of one of the types {', '.join(TYPES.values())}")
        if name in found:
            raise damaged(file.path, f"{shown(name)} comes twice")
        found[name] = tensor(file, shape, TYPES[code], name), TYPES[code]
    return found


def tensor(file: BinaryFile, shape: tuple[int, ...], kind: str, name: str) -> Weight:
    """One tensor of the file, its data skipped. The convolutions' biases are columns there."""
    count = math.prod(shape)
    if min(shape) < 1 or (kind in BLOCK_BYTES and shape[-1] % BLOCK):
        raise damaged(file.path, f"{shown(name)} has the impossible shape {list(shape)} of type {kind}")
    if name.endswith(".bias") and shape[-1] == 1:
        shape = shape[:-1]
    if kind in ("f32", "f16"):
        dtype = {"f32": "float32", "f16": "float16"}[kind]
        begin = file.skip(count * int(kind[1:]) // 8, shown(name))
        return Weight(shape, dtype, lambda: file.array(dtype, begin, count).reshape(shape))
    size = count // BLOCK * BLOCK_BYTES[kind]
    begin = file.skip(size, shown(name))
    return Weight(shape, "float32", lambda: dequantize(file.array("uint8", begin, size), kind).reshape(shape))


def dequantize(raw: "np.ndarray", kind: str) -> "np.ndarray":
    """The float32 numbers of blocks of 32: uint8 [bytes] -> float32 [numbers].

    A block: float16 scale d; in the _1 types float16 minimum m; in 5 bits a uint32 with the fifth bit of each number;
    then the numbers, in 4 and 5 bits two a byte: lower halves are the first 16 numbers, upper halves the last 16.
    number = d * q + m, or d * (q - 8) in q4_0, d * (q - 16) in q5_0, d * q with a sign in q8_0.
    """
    import numpy as np

    blocks = raw.reshape(-1, BLOCK_BYTES[kind])
    scale, at = half(blocks, 0), 2
    if kind == "q8_0":
        return scale * blocks[:, at:].view(np.int8)
    least = 0
    if kind.endswith("_1"):
        least, at = half(blocks, 2), 4
    nibbles = blocks[:, -BLOCK // 2:]
    codes = np.concatenate([nibbles & 15, nibbles >> 4], axis=1).astype(np.int8)
    if kind.startswith("q5"):
        codes |= np.unpackbits(blocks[:, at:at + 4], axis=1, bitorder="little").astype(np.int8) << 4
    if kind.endswith("_0"):
        codes -= {"q4_0": 8, "q5_0": 16}[kind]
    return scale * codes + least


def half(blocks: "np.ndarray", at: int) -> "np.ndarray":
    """The float16 at byte `at` of every block, as float32 [blocks, 1]."""
    import numpy as np

    return np.ascontiguousarray(blocks[:, at:at + 2]).view("<f2").astype(np.float32)


