"""CTranslate2's model.bin, which faster-whisper reads: float32, float16, bfloat16, int16, int8 with scales.

Layout, little-endian: uint32 version; spec name (a string is a uint16 length that counts a final zero byte, then the
bytes); uint32 spec revision; uint32 number of variables; for each its name, uint8 rank, uint32 dimensions, uint8 type,
uint32 number of bytes, the data; uint32 number of aliases, each two strings. Source: CTranslate2's
python/ctranslate2/specs/model_spec.py (_serialize) and src/models/model.cc (Model::load).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_lab import files
from whisper_lab.console import LabError
from whisper_lab.weights import vocabulary
from whisper_lab.weights.binary import BinaryFile
from whisper_lab.weights.model import EMBEDDING, HEAD, Source, Weight, damaged, dimensions_of, shown

if TYPE_CHECKING:
    import numpy as np

FILE, VERSION, SPEC = "model.bin", 6, "WhisperSpec"
TYPES = ["float32", "int8", "int16", "int32", "float16", "bfloat16"]  # in the order of their codes
BYTES = {"float32": 4, "int8": 1, "int16": 2, "int32": 4, "float16": 2, "bfloat16": 2}
MOST_VARIABLES, MOST_RANK = 100_000, 8
HEAD_WIDTH = 64  # of an attention head, in every published size
ATTENTIONS = {"self_attn": "self_attention", "encoder_attn": "attention"}
NOT_PLAIN = "convert it with the tools of the project that it comes from, then pass the Hugging Face folder"


@dataclass(frozen=True)
class Variable:
    """One variable of the file and where its numbers begin."""

    file: BinaryFile
    shape: tuple[int, ...]
    dtype: str
    begin: int

    def numbers(self) -> "np.ndarray":
        """The stored numbers in their shape; bfloat16 as float32."""
        count = math.prod(self.shape)
        if self.dtype == "bfloat16":
            return self.file.bfloat16(self.begin, count).reshape(self.shape)
        return self.file.array(self.dtype, self.begin, count).reshape(self.shape)


def is_head(head: bytes) -> bool:
    """Whether a file that begins with `head` is CTranslate2's: a small version, then a name that ends in Spec."""
    if len(head) < 8 or not 1 <= int.from_bytes(head[:4], "little") <= 32:
        return False
    length = int.from_bytes(head[4:6], "little")
    return 5 <= length <= len(head) - 6 and head[6:6 + length].endswith(b"Spec\0")


def read(path: Path) -> Source:
    """The Whisper in model.bin, or in a folder that holds it. Raises LabError where it is another model, or damaged."""
    path = path / FILE if path.is_dir() else path
    variables = read_variables(BinaryFile(path))
    weights = Names(variables, path).weights()
    sizes = dimensions_of(weights, heads(variables, weights), path)
    config = read_config(path.with_name("config.json"))
    stored = sorted({variables[name].dtype for name in variables
                     if name.endswith("/weight") and len(variables[name].shape) == 2})
    return Source("ctranslate2", [path], "+".join(stored), sizes, weights,
                  read_tokens(path, sizes.vocabulary, sizes.audio_positions), config.get("alignment_heads"),
                  numbers_in(config, "suppress_ids"), numbers_in(config, "suppress_ids_begin"))


def read_variables(file: BinaryFile) -> dict[str, Variable]:
    """Name -> variable; an alias is the variable it stands for."""
    check_head(file)
    count = file.number("I", "the number of variables")
    if count > MOST_VARIABLES:
        raise damaged(file.path, f"it claims {count} variables")
    found = {}
    for _ in range(count):
        name = string(file)
        found[name] = variable(file)
    for _ in range(file.number("I", "the number of aliases")):
        alias, name = string(file), string(file)
        if name not in found:
            raise damaged(file.path, f"{shown(alias)} stands for {shown(name)}, which is missing")
        found[alias] = found[name]
    if file.left:
        raise damaged(file.path, f"{file.left} bytes follow its end")
    return found


def check_head(file: BinaryFile) -> None:
    """Read past version, name and revision of the spec. Raises LabError where it is not Whisper's, version 6."""
    version = file.number("I", "the version")
    if version != VERSION:
        raise LabError(f"{file.path} is not a CTranslate2 model of version {VERSION}: it begins with {version}",
                       "convert the original model again: ct2-transformers-converter of a current ctranslate2")
    name = string(file)
    if name != SPEC:
        raise LabError(f"{file.path} is a CTranslate2 model, but not a Whisper: its spec is {shown(name)}",
                       "choose a Whisper model, such as a folder of faster-whisper's")
    file.number("I", "the revision of the spec")


def string(file: BinaryFile) -> str:
    """A string: its length with the final zero byte, then its bytes."""
    length = file.number("H", "the length of a name")
    text = file.text(length, "a name")
    if not text.endswith("\0"):
        raise damaged(file.path, f"a name before byte {file.at} has no end")
    return text[:-1]


def variable(file: BinaryFile) -> Variable:
    """Shape, type and place of a variable; its numbers are skipped."""
    rank = file.number("B", "the rank of a variable")
    if rank > MOST_RANK:
        raise damaged(file.path, f"a variable before byte {file.at} has {rank} dimensions")
    shape = tuple(file.number("I", "a dimension") for _ in range(rank))
    code, count = file.number("B", "the type of a variable"), file.number("I", "the length of a variable")
    if code >= len(TYPES):
        raise damaged(file.path, f"a variable before byte {file.at} has the unknown type {code}")
    if count != BYTES[TYPES[code]] * math.prod(shape):
        raise damaged(file.path, f"a variable of {list(shape)} {TYPES[code]} claims {count} bytes")
    return Variable(file, shape, TYPES[code], file.skip(count, "a variable"))


class Names:
    """From CTranslate2's variables to weights under Hugging Face's names; remembers which were used."""

    def __init__(self, variables: dict[str, Variable], path: Path):
        self.variables, self.path, self.used = variables, path, set()

    def weights(self) -> dict[str, Weight]:
        """All weights. Raises LabError where the file has more than a Whisper has, or less."""
        made = self.convolutions() | self.outside_layers()
        for side in ("encoder", "decoder"):
            for i in range(self.layers(side)):
                made |= self.layer(f"{side}/layer_{i}/", f"model.{side}.layers.{i}.", side == "decoder")
        # Scalars are settings; the rest must have been used.
        left = sorted(name for name, v in self.variables.items() if v.shape and name not in self.used)
        left = [name for name in left if name not in ("decoder/alignment_heads", "decoder/projection/weight")]
        if left and left != ["decoder/projection/weight_scale"]:
            raise LabError(f"{self.path} is not a plain Whisper: it also holds {shown(left[0])}", NOT_PLAIN)
        return made

    def layers(self, side: str) -> int:
        """How many layers the names count."""
        return len({name.split("/")[1] for name in self.variables if name.startswith(f"{side}/layer_")
                    and name.split("/")[1][6:].isdigit()})

    def convolutions(self) -> dict[str, Weight]:
        """The two convolutions in front of the encoder."""
        made = {}
        for name in ("conv1", "conv2"):
            made[f"model.encoder.{name}.weight"] = self.whole(f"encoder/{name}/weight")
            made[f"model.encoder.{name}.bias"] = self.whole(f"encoder/{name}/bias")
        return made

    def outside_layers(self) -> dict[str, Weight]:
        """Embeddings, positions, last norms, and the output head where it is not the embedding again."""
        made = {EMBEDDING: self.whole("decoder/embeddings/weight")}
        for side in ("encoder", "decoder"):
            made[f"model.{side}.embed_positions.weight"] = self.whole(f"{side}/position_encodings/encodings")
            made |= self.norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        head = self.variables.get("decoder/projection/weight")
        if head is not None and head != self.variables["decoder/embeddings/weight"]:
            made[HEAD] = self.whole("decoder/projection/weight")
        return made

    def layer(self, theirs: str, ours: str, decoder: bool) -> dict[str, Weight]:
        """One layer: attention to itself, in the decoder also to the sound, then the feed-forward part."""
        made = self.norm(f"{theirs}ffn/layer_norm", f"{ours}final_layer_norm")
        made |= self.linear(f"{theirs}ffn/linear_0", f"{ours}fc1") | self.linear(f"{theirs}ffn/linear_1", f"{ours}fc2")
        made |= self.stacked(f"{theirs}self_attention/linear_0", f"{ours}self_attn", "qkv")
        made |= self.linear(f"{theirs}self_attention/linear_1", f"{ours}self_attn.out_proj")
        if decoder:
            made |= self.linear(f"{theirs}attention/linear_0", f"{ours}encoder_attn.q_proj")
            made |= self.stacked(f"{theirs}attention/linear_1", f"{ours}encoder_attn", "kv")
            made |= self.linear(f"{theirs}attention/linear_2", f"{ours}encoder_attn.out_proj")
        for name, attention in list(ATTENTIONS.items())[:2 if decoder else 1]:
            made |= self.norm(f"{theirs}{attention}/layer_norm", f"{ours}{name}_layer_norm")
        return made

    def norm(self, theirs: str, ours: str) -> dict[str, Weight]:
        """gamma and beta of a layer norm."""
        return {f"{ours}.weight": self.whole(f"{theirs}/gamma"), f"{ours}.bias": self.whole(f"{theirs}/beta")}

    def linear(self, theirs: str, ours: str) -> dict[str, Weight]:
        """A linear layer."""
        return {f"{ours}.weight": self.whole(f"{theirs}/weight"), f"{ours}.bias": self.whole(f"{theirs}/bias")}

    def stacked(self, theirs: str, ours: str, parts: str) -> dict[str, Weight]:
        """Projections that are stored one below the other; Whisper's keys have no bias, theirs is zero."""
        made, rows = {}, self.get(f"{theirs}/weight").shape[:1]
        if not rows or rows[0] % len(parts):
            raise damaged(self.path, f"{theirs}/weight cannot be cut into {len(parts)}")
        step = rows[0] // len(parts)
        for i, part in enumerate(parts):
            rows = slice(i * step, (i + 1) * step)
            made[f"{ours}.{part}_proj.weight"] = self.rows(f"{theirs}/weight", rows)
            bias = self.rows(f"{theirs}/bias", rows)
            if part != "k":
                made[f"{ours}.{part}_proj.bias"] = bias
            elif bias.read().any():
                raise LabError(f"{self.path} is not a plain Whisper: {theirs} has a bias for its keys", NOT_PLAIN)
        return made

    def get(self, name: str) -> Variable:
        """A variable by name. Raises LabError where it is missing."""
        if name not in self.variables:
            raise damaged(self.path, f"it has no {name}")
        self.used.add(name)
        return self.variables[name]

    def whole(self, name: str) -> Weight:
        """A variable as a weight."""
        return self.rows(name, slice(None))

    def rows(self, name: str, rows: slice) -> Weight:
        """Some rows of a variable as a weight. int8 has a scale per row, int16 one for all: number = stored / scale."""
        found = self.get(name)
        if not found.shape:
            raise damaged(self.path, f"{name} is a single number")
        shape = (len(range(found.shape[0])[rows]), *found.shape[1:])
        if found.dtype.startswith("float") or found.dtype == "bfloat16":
            dtype = "float16" if found.dtype == "float16" else "float32"
            return Weight(shape, dtype, lambda: found.numbers()[rows])
        if f"{name}_zero" in self.variables or found.dtype == "int32":
            raise LabError(f"{self.path} is quantized to 4 bits, which this lab does not read",
                           "convert the float16 or int8 form of the same model")
        scale = self.get(f"{name}_scale")
        if math.prod(scale.shape) not in (1, found.shape[0]):
            raise damaged(self.path, f"{name} has {math.prod(scale.shape)} scales for {found.shape[0]} rows")
        return Weight(shape, "float32", lambda: dequantized(found, scale, rows))


def dequantized(found: Variable, scale: Variable, rows: slice) -> "np.ndarray":
    """float32 numbers of some rows of an integer variable."""
    import numpy as np

    scales = scale.numbers().astype(np.float32).ravel()
    scales = scales if scales.size == 1 else scales[rows]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # what is not finite is refused when written
        return found.numbers()[rows] / scales.reshape(-1, *[1] * (len(found.shape) - 1))


def heads(variables: dict[str, Variable], weights: dict[str, Weight]) -> tuple[int, int]:
    """Attention heads of encoder and decoder: variables of their own; older files leave them to the width."""
    width = weights[EMBEDDING].shape[-1]
    counts = [variables.get(f"{side}/num_heads") for side in ("encoder", "decoder")]
    return tuple(int(v.numbers().ravel()[0]) if v is not None and math.prod(v.shape) == 1 else width // HEAD_WIDTH
                 for v in counts)


def read_config(path: Path) -> dict:
    """CTranslate2's config.json; {} where it is missing."""
    try:
        config = files.read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise damaged(path, shown(str(error))) from error
    return config if isinstance(config, dict) else {}


def numbers_in(config: dict, name: str) -> list[int] | None:
    """A list of token ids, or None."""
    ids = config.get(name)
    return ids if isinstance(ids, list) and all(isinstance(i, int) for i in ids) else None


def read_tokens(path: Path, rows: int, audio_positions: int) -> "vocabulary.Tokens | None":
    """tokenizer.json, or else the list of tokens that every CTranslate2 folder has; None where there is neither."""
    document, listed, lines = (path.with_name(name) for name in ("tokenizer.json", "vocabulary.json", "vocabulary.txt"))
    if document.is_file():
        return vocabulary.from_document(document, rows, audio_positions)
    try:
        if listed.is_file():
            contents = files.read_json(listed)
        elif lines.is_file():
            listed, contents = lines, files.read_text(lines).removesuffix("\n").split("\n")
        else:
            return None
    except (OSError, ValueError) as error:
        raise damaged(listed, shown(str(error))) from error
    if not isinstance(contents, list) or not all(isinstance(token, str) for token in contents):
        raise damaged(listed, "it is not a list of tokens")
    return vocabulary.from_list(contents, rows, audio_positions, listed)
