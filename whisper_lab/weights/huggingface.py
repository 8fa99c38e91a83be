"""The folder that transformers opens as a Whisper checkpoint, written from any `model.Source`.

    with replacing(folder, wrote_it, "choose another folder") as temporary:
        write(source, temporary, origin)

Eight files, as the published ones have them: config.json, generation_config.json, preprocessor_config.json, the
tokenizer in four, and model.safetensors. config.json says where they came from under `ORIGIN_KEY`.
"""

import contextlib
import json
import math
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from whisper_lab import checkpoints, console, files, locks
from whisper_lab.console import LabError
from whisper_lab.files import read_json
from whisper_lab.tokens import upper_heads, valid_heads
from whisper_lab.weights import openai, published, vocabulary
from whisper_lab.weights.binary import BinaryFile
from whisper_lab.weights.model import (
    EMBEDDING,
    HEAD,
    STEPS_PER_S,
    Dimensions,
    Source,
    Weight,
    check_weights,
    damaged,
    dimensions_of,
    shown,
)
from whisper_lab.weights.vocabulary import END, START, Tokens

ORIGIN_KEY = "whisper_lab_origin"  # written into config.json: format, file, sha256, stored
ATTEMPTS = 3
MAX_INITIAL_TIMESTAMP = 50  # steps of 20 ms: the published limit of the first timestamp, 1 s


def write(source: Source, folder: Path, origin: dict) -> None:
    """Write all files of the checkpoint into `folder`, which exists and is empty.

    Raises LabError where the weights are not a Whisper's, the tokens do not fit them, or a number is not finite.
    """
    check_weights(source)
    if source.tokens is None:
        raise LabError(f"{source.files[0]} holds no tokenizer", "put the tokenizer.json of the same model beside it")
    if not source.tied:
        console.note("output head", "kept beside the token embedding",
                     "in this file they differ: 02 transcribes with it, and 03 does not export it")
    try:
        write_documents(source, folder, origin)
    except (LabError, OSError):
        raise
    except Exception as error:  # transformers and tokenizers have checks of their own, which a damaged file may meet
        raise damaged(source.files[0].parent, f"its configuration or tokenizer cannot be used: {shown(str(error))}"
                      ) from error
    write_safetensors(folder / "model.safetensors", source.weights, source.files[0])


def write_documents(source: Source, folder: Path, origin: dict) -> None:
    """Everything but the weights."""
    for name, file in source.kept.items():
        shutil.copyfile(file, folder / name)
    if "tokenizer.json" not in source.kept and "vocab.json" not in source.kept:
        vocabulary.save(source.tokens.build(), folder)
    if "preprocessor_config.json" not in source.kept:
        feature_extractor(source.dimensions).save_pretrained(folder)
    settings = generation_settings(source) | source.generation
    files.write_json(folder / "generation_config.json", settings)
    config = model_config(source.dimensions, settings, source.tied).to_dict()
    # float32: what the model is to compute in, as whisper-base's own file says; float16 weights become it exactly.
    files.write_json(folder / "config.json", config | source.config | {"dtype": "float32", ORIGIN_KEY: origin})


@contextlib.contextmanager
def replacing(folder: Path, ours: Callable[[Path], bool], what: str, remedy: str) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when all went well.

    What is there is replaced only where it is empty or `ours` says so; else LabError says that it is no `what`.
    """
    if folder.exists() and not ours(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise LabError(f"{folder} exists and is no {what}: it will not be overwritten", remedy)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locks.folder(folder.parent, f".{folder.name}.") as work:
            temporary = work / folder.name
            temporary.mkdir()
            yield temporary
            put(temporary, folder)
    except OSError as error:
        raise LabError(f"cannot write {folder}: {error.strerror or error}", f"free some disk space or {remedy}"
                       ) from error


def put(temporary: Path, folder: Path) -> None:
    """Rename `temporary` to `folder`; what is there is moved aside first, and comes back where the renaming fails."""
    aside = temporary.with_name("replaced")
    for attempt in range(ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            folder.rename(aside)
        try:
            temporary.rename(folder)
            break
        except OSError:
            if attempt < ATTEMPTS - 1 and folder.exists():  # another process put its own there between the two lines
                shutil.rmtree(aside, ignore_errors=True)
                continue
            if aside.exists() and not folder.exists():
                aside.rename(folder)
            raise
    shutil.rmtree(aside, ignore_errors=True)


def origin_of(folder: Path) -> dict | None:
    """What the config.json of a converted folder says of its origin; None where this lab did not convert it."""
    try:
        origin = json.loads((folder / "config.json").read_text(encoding="utf-8"))[ORIGIN_KEY]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return origin if isinstance(origin, dict) else None


def generation_settings(source: Source) -> dict:
    """generation_config.json; what the file does not say is found from its sizes and its vocabulary."""
    sizes, tokens = source.dimensions, source.tokens
    heads = valid_heads(source.alignment_heads, sizes.decoder_layers, sizes.decoder_heads)
    if heads is None:
        size = published.size_of(sizes, source.name)
        heads = published.alignment_heads(size) if size else upper_heads(
            sizes.decoder_layers, sizes.decoder_heads)
        if not size:
            console.note("alignment heads", "all of the decoder's upper half",
                         "the file names none, and its sizes are of no published model")
    made = generation_config(tokens, [list(pair) for pair in heads], sizes.text_positions)
    for name, ids in (("suppress_tokens", source.suppress), ("begin_suppress_tokens", source.begin_suppress)):
        if ids is not None and all(isinstance(i, int) and 0 <= i < sizes.vocabulary for i in ids):
            made[name] = ids
    return made


def generation_config(tokens: Tokens, heads: list[list[int]], text_positions: int) -> dict:
    """generation_config.json as the published models have it; every id is looked up in the vocabulary."""
    first = len(tokens.text)
    ids = {token: first + i for i, token in enumerate(tokens.added)}
    end, start = ids[END], ids[START]
    translate, transcribe, previous = ids["<|translate|>"], ids["<|transcribe|>"], ids["<|startofprev|>"]
    silence = ids.get("<|nospeech|>", ids.get("<|nocaptions|>", ids["<|notimestamps|>"] - 1))
    never = [start, translate, transcribe, ids.get("<|startoflm|>", previous - 1), previous, silence]
    blank = [i for i, token in enumerate(tokens.text) if token == "Ġ"]
    codes = sorted(token for token, i in ids.items() if start < i < min(translate, transcribe))
    multilingual = bool(codes) and end != published.TEXT_TOKENS[False]  # English-only: GPT-2's vocabulary, unchanged
    made = {
        "alignment_heads": heads, "begin_suppress_tokens": [*blank, end], "bos_token_id": end,
        "decoder_start_token_id": start, "eos_token_id": end, "is_multilingual": multilingual,
        "max_initial_timestamp_index": MAX_INITIAL_TIMESTAMP, "max_length": text_positions,
        "no_timestamps_token_id": ids["<|notimestamps|>"], "pad_token_id": end, "prev_sot_token_id": previous,
        "return_timestamps": False, "suppress_tokens": [*non_speech_tokens(end), *sorted(set(never))],
    }
    if multilingual:
        made["lang_to_id"] = {code: ids[code] for code in codes}
        made["task_to_id"] = {"transcribe": transcribe, "translate": translate}
    return made


def non_speech_tokens(end: int) -> list[int]:
    """Brackets, notes and other marks nobody speaks; transformers lists them, special tokens mixed in.

    Known for Whisper's two vocabularies, which end at different ids; for another one the list is empty.
    """
    checkpoints.import_transformers()
    from transformers.models.whisper.configuration_whisper import NON_SPEECH_TOKENS, NON_SPEECH_TOKENS_MULTI

    known = {published.TEXT_TOKENS[True]: NON_SPEECH_TOKENS_MULTI, published.TEXT_TOKENS[False]: NON_SPEECH_TOKENS}
    return [token for token in known.get(end, []) if token < end]


def model_config(sizes: Dimensions, settings: dict, tied: bool = True):
    """The transformers.WhisperConfig of these sizes; token ids as in generation_config.json."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "begin_suppress_tokens",
             "suppress_tokens")
    return checkpoints.import_transformers().WhisperConfig(
        vocab_size=sizes.vocabulary, num_mel_bins=sizes.mel_bins, d_model=sizes.width,
        encoder_layers=sizes.encoder_layers, decoder_layers=sizes.decoder_layers,
        encoder_attention_heads=sizes.encoder_heads, decoder_attention_heads=sizes.decoder_heads,
        encoder_ffn_dim=sizes.encoder_ffn, decoder_ffn_dim=sizes.decoder_ffn,
        max_source_positions=sizes.audio_positions, max_target_positions=sizes.text_positions,
        tie_word_embeddings=tied, architectures=["WhisperForConditionalGeneration"],
        **{name: settings[name] for name in names})


def feature_extractor(sizes: Dimensions):
    """Whisper's log-mel front end: 30 s at 16 kHz for 1500 positions, 25 ms windows every 10 ms."""
    return checkpoints.import_transformers().WhisperFeatureExtractor(
        feature_size=sizes.mel_bins, chunk_length=sizes.audio_positions // STEPS_PER_S)


def write_safetensors(path: Path, weights: Mapping[str, Weight], source: Path | None = None) -> None:
    """Write a safetensors file one weight at a time, so that the largest weight is all that memory holds.

    Format: 8 bytes header length, JSON header with offsets, then the numbers (safetensors' README). Raises LabError
    where a number is not finite: `source` is damaged then.
    """
    import numpy as np

    width, end, header = {"float32": 4, "float16": 2}, 0, {"__metadata__": {"format": "pt"}}
    for name, weight in weights.items():
        begin, end = end, end + width[weight.dtype] * math.prod(weight.shape)
        header[name] = {"dtype": f"F{8 * width[weight.dtype]}", "shape": weight.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers start at a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, weight in console.progress(weights.items(), description="weights", unit="weight"):
            numbers = np.ascontiguousarray(weight.read(), np.dtype(weight.dtype).newbyteorder("<"))
            if not np.isfinite(numbers).all():
                raise damaged(source or path, f"{name} holds numbers that are not finite")
            file.write(numbers.tobytes())


# Reading such a folder ------------------------------------------------------------------------------------------------

# A Hugging Face folder: safetensors, shards of it, or pytorch_model.bin; with or without the files around them.
#
# Reading one normalises it: one model.safetensors, and what is missing of tokenizer and generation settings is made.

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
        config = read_json(folder / "config.json")
    except (OSError, ValueError):
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
        found = read_json(path)
    except FileNotFoundError:
        if not required:
            return {}
        raise LabError(f"{path} is missing", REMEDY) from None
    except (OSError, ValueError) as error:
        raise damaged(path, shown(str(error))) from error
    if not isinstance(found, dict):
        raise damaged(path, "it is not a JSON object")
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
        raise damaged(path, "its header is not a list of tensors") from error
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
