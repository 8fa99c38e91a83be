"""A Hugging Face folder: safetensors, shards of it, or pytorch_model.bin; with or without the files around them.

Reading one normalises it: one model.safetensors, and what is missing of tokenizer and generation settings is made.
"""

import json
import math
from pathlib import Path

from whisper_lab.console import LabError
from whisper_lab.weights import openai, vocabulary
from whisper_lab.weights.binary import BinaryFile
from whisper_lab.weights.model import EMBEDDING, HEAD, Source, Weight, damaged, dimensions_of, shown

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"
TYPES = {"F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2)}
MOST_HEADER = 100 << 20  # bytes: the limit of the safetensors library
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "normalizer.json",
                   "added_tokens.json", "special_tokens_map.json")
KEPT = (*TOKENIZER_FILES, "preprocessor_config.json", "processor_config.json")
SIZES = {  # config.json's names of what the weights show
    "vocab_size": "vocabulary", "num_mel_bins": "mel_bins", "d_model": "width", "encoder_layers": "encoder_layers",
    "decoder_layers": "decoder_layers", "encoder_ffn_dim": "encoder_ffn", "decoder_ffn_dim": "decoder_ffn",
    "max_source_positions": "audio_positions", "max_target_positions": "text_positions",
}
REMEDY = "fetch the folder again, or choose another model"


def is_folder(folder: Path) -> bool:
    """Whether `folder` has a Whisper's config.json and weights beside it."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(config, dict) or config.get("model_type") != "whisper":
        return False
    return any((folder / name).is_file() or (folder / f"{name}{INDEX}").is_file() for name in WEIGHTS)


def read(path: Path) -> Source:
    """The Whisper in a folder, or in the folder of a file of weights. Raises LabError."""
    folder = path if path.is_dir() else path.parent
    config, files = document(folder / "config.json"), weight_files(folder)
    weights, stored = {}, set()
    for file in files:
        found, types = safetensors(file) if file.suffix == ".safetensors" else torch_file(file)
        weights |= found
        stored |= types
    weights = without_tied_head(plain_names(weights), config, files[0])
    sizes = dimensions_of(weights, (config.get("encoder_attention_heads"), config.get("decoder_attention_heads")),
                          files[0])
    for theirs, ours in SIZES.items():
        if config.get(theirs) != getattr(sizes, ours):
            raise LabError(f"{folder / 'config.json'} says {theirs} {shown(str(config.get(theirs)))}, and the weights "
                           f"say {getattr(sizes, ours)}: they belong to different models", REMEDY)
    generation = document(folder / "generation_config.json", required=False)
    kept = {name: folder / name for name in KEPT if (folder / name).is_file()}
    if "tokenizer.json" not in kept and not {"vocab.json", "merges.txt"} <= kept.keys():
        kept = {name: file for name, file in kept.items() if name not in TOKENIZER_FILES}
    return Source("huggingface", files, "+".join(sorted(stored)), sizes, weights, tokens(folder, sizes, kept),
                  generation.get("alignment_heads"), config={name: value for name, value in config.items()
                  if name not in ("dtype", "torch_dtype", "transformers_version", "tie_word_embeddings")},
                  generation={name: value for name, value in generation.items()
                              if value is not None and name != "alignment_heads"}, kept=kept,
                  name=folder.resolve().name)


def document(path: Path, required: bool = True) -> dict:
    """A JSON object; {} where the file is missing and not required."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not required:
            return {}
        raise LabError(f"{path} is missing", REMEDY) from None
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, shown(str(error))) from error
    if not isinstance(found, dict):
        raise damaged(path, "it is no JSON object")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: one, or the shards that an index names. Raises LabError where one is missing."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}{INDEX}"
        if index.is_file():
            names = document(index).get("weight_map")
            names = set(names.values()) if isinstance(names, dict) else set()
            if not names or not all(isinstance(n, str) and n == Path(n).name for n in names):
                raise damaged(index, "it names no files of this folder")
            shards = [folder / n for n in sorted(names)]
            if missing := [shard.name for shard in shards if not shard.is_file()]:
                raise LabError(f"{folder} lacks {len(missing)} of {len(shards)} weight files, such as "
                               f"{shown(missing[0])}", REMEDY)
            return shards
    raise LabError(f"{folder} has no weights: neither {' nor '.join(WEIGHTS)}", REMEDY)


def safetensors(path: Path) -> tuple[dict[str, Weight], set[str]]:
    """Weights of a safetensors file and the types of its matrices: header length, JSON header, numbers."""
    file = BinaryFile(path)
    length = file.number("Q", "the length of the header")
    if length > MOST_HEADER:
        raise damaged(path, f"its header claims {length} bytes")
    try:
        header = json.loads(file.raw(length, "the header"))
        entries = [(name, entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
                   for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, "its header is no list of tensors") from error
    weights = {name: safetensor(file, *entry) for name, *entry in entries}
    return weights, {TYPES[kind][0] for _, kind, shape, *_ in entries if len(shape) == 2}


def safetensor(file: BinaryFile, kind: object, shape: tuple, begin: object, end: object) -> Weight:
    """One tensor; `begin` and `end` count from the end of the header."""
    if kind not in TYPES:
        raise LabError(f"{file.path} holds numbers of type {shown(str(kind))}: it is quantized, or no Whisper",
                       "choose the float32, float16 or bfloat16 form of the same model")
    dtype, width = TYPES[kind]
    if not all(isinstance(number, int) and number >= 0 for number in (*shape, begin, end)):
        raise damaged(file.path, "a tensor has no plain shape")
    count, start = math.prod(shape), file.at + begin
    if end - begin != width * count or file.at + end > len(file.data):
        raise damaged(file.path, f"a tensor of {list(shape)[:5]} lies outside of it")
    if dtype == "bfloat16":
        return Weight(shape, "float32", lambda: file.bfloat16(start, count).reshape(shape))
    return Weight(shape, dtype, lambda: file.array(dtype, start, count).reshape(shape))


def torch_file(path: Path) -> tuple[dict[str, Weight], set[str]]:
    """Weights of a pytorch_model.bin and the types of its matrices."""
    state = openai.load(path)
    weights = openai.tensors(state, path)
    return weights, {str(value.dtype).removeprefix("torch.") for value in state.values() if value.ndim == 2}


def plain_names(weights: dict[str, Weight]) -> dict[str, Weight]:
    """transformers.WhisperModel alone saves names without the leading `model.`."""
    if "encoder.conv1.weight" not in weights:
        return weights
    return {f"model.{name}": weight for name, weight in weights.items()}


def without_tied_head(weights: dict[str, Weight], config: dict, path: Path) -> dict[str, Weight]:
    """Drop the output head where it is the token embedding again. Raises LabError where it is needed and missing."""
    tied = config.get("tie_word_embeddings", True)
    if HEAD not in weights:
        if not tied:
            raise damaged(path, "config.json says that the output head is not the embedding, and it is missing")
        return weights
    same = EMBEDDING in weights and weights[HEAD].shape == weights[EMBEDDING].shape and (
        weights[HEAD].read() == weights[EMBEDDING].read()).all()
    return {name: weight for name, weight in weights.items() if name != HEAD} if tied or same else weights


def tokens(folder: Path, sizes, kept: dict[str, Path]) -> vocabulary.Tokens:
    """The folder's own tokenizer, or Whisper's where it has none, as the folders that a trainer leaves."""
    if "tokenizer.json" in kept:
        return vocabulary.from_document(folder / "tokenizer.json", sizes.vocabulary, sizes.audio_positions)
    if "vocab.json" in kept:
        return vocabulary.from_files(folder, sizes.vocabulary, sizes.audio_positions)
    return openai.tokens_for(folder / WEIGHTS[0], sizes)
