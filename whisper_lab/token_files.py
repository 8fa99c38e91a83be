"""What a checkpoint's files say of its tokens: tokenizer.json, generation_config.json, config.json."""

import functools
import json
import re
from pathlib import Path

import numpy as np

from whisper_lab import console, languages
from whisper_lab.console import LabError
from whisper_lab.features import FeatureSpec
from whisper_lab.files import read_json

ENGLISH_END = 50256  # <|endoftext|> in GPT-2's vocabulary, which the English-only models have unchanged
AGAIN = "download it again, or choose another with --model"


def read(folder: str | Path, tokenizer=None) -> dict:
    """The fields of tokens.TokenRules.

    tokenizer: the folder's tokenizers.Tokenizer, where that is open already: reading 4 MB of JSON once more takes a
    while. Raises LabError where a file is missing or cannot be understood.
    """
    folder = Path(folder)
    spec, model = FeatureSpec.from_folder(folder), _read_json(folder / "config.json")
    generation = {**model, **_read_json(folder / "generation_config.json", required=False)}
    document = tokenizer_document(folder) if tokenizer is None else None
    try:
        if tokenizer is None:
            ids = {token["content"]: token["id"] for token in document["added_tokens"]}
        else:
            ids = {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items()}
        fields = _from_config(generation, model, spec.window_s, ids)
        fields["alignment_heads"] = _heads(folder, generation, model)
        _check_ranges(fields)
        return fields
    except KeyError as error:
        raise LabError(f"{folder} is no complete Whisper checkpoint: no {error}", AGAIN) from error
    except (TypeError, IndexError, ValueError, AttributeError, ArithmeticError) as error:
        raise LabError(f"{folder} is no sound Whisper checkpoint: {error}", AGAIN) from error


def tokenizer_document(folder: str | Path) -> dict:
    """A checkpoint's tokenizer.json; transformers makes it of vocab.json and merges.txt, as transformers 4 saves them.

    Raises LabError where neither is there, or they cannot be read.
    """
    path, vocabulary = Path(folder) / "tokenizer.json", Path(folder) / "vocab.json"
    if path.is_file() or not vocabulary.is_file():
        return _read_json(path)
    from whisper_lab.checkpoints import import_transformers

    try:
        made = import_transformers().WhisperTokenizerFast.from_pretrained(path.parent)
    except Exception as error:
        raise LabError(f"no tokenizer can be made of {vocabulary}: {error}", "download the checkpoint again") from error
    return json.loads(made.backend_tokenizer.to_str())


def _read_json(path: Path, required: bool = True) -> dict:
    try:
        found = read_json(path)
        if not isinstance(found, dict):
            raise ValueError(f"it holds {type(found).__name__}, not an object")
        return found
    except FileNotFoundError:
        if not required:
            return {}
        raise LabError(f"{path.parent} is no Whisper checkpoint: it has no {path.name}",
                       "give --model a folder that has one, or a name such as nano or base") from None
    except (OSError, ValueError) as error:
        raise LabError(f"cannot read {path}: {error}", "download the checkpoint again") from error


def _from_config(generation: dict, model: dict, window_s: float, ids: dict[str, int]) -> dict:
    """generation_config.json first, then the tokenizer's names."""
    no_timestamps = generation.get("no_timestamps_token_id") or ids["<|notimestamps|>"]
    end = generation["eos_token_id"]
    multilingual = generation.get("is_multilingual")
    if multilingual is None:  # the tokenizers of the English-only models name languages too
        multilingual = "<|nl|>" in ids and ids.get("<|endoftext|>", end) != ENGLISH_END
    languages = generation.get("lang_to_id") or _languages(ids)
    tasks = generation.get("task_to_id") or {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    return {
        "start": generation["decoder_start_token_id"],
        "end": end[0] if isinstance(end, list) else end,
        "no_timestamps": no_timestamps,
        "no_speech": ids.get("<|nospeech|>", ids.get("<|nocaptions|>", no_timestamps - 1)),
        "previous": generation.get("prev_sot_token_id") or ids.get("<|startofprev|>"),
        "languages": {name.strip("<|>"): i for name, i in languages.items()} if multilingual else {},
        "tasks": dict(tasks) if multilingual else {},
        "suppress": np.array(generation.get("suppress_tokens") or [], np.int64),
        "begin_suppress": np.array(generation.get("begin_suppress_tokens") or [], np.int64),
        "max_initial_timestamp": generation.get("max_initial_timestamp_index"),
        "max_positions": model["max_target_positions"],
        "vocab_size": model["vocab_size"],
        "timestamp_end": _last_timestamp(no_timestamps + 1, ids) or no_timestamps + 1 + model["max_source_positions"],
        "language": _language(generation, multilingual),
        "condition_on_previous": generation.get("condition_on_prev_tokens") is not False,
        "timestamp_step": window_s / model["max_source_positions"],
        "median_filter_width": model.get("median_filter_width", 7),
    }


def _last_timestamp(first: int, ids: dict[str, int]) -> int | None:
    """The last of the tokens <|0.00|>, <|0.02|>, ... from `first` on; None where the vocabulary does not name them.

    Such a tokenizer (those of 2022) has a timestamp for each position of the encoder, and the end.
    """
    times = {i for name, i in ids.items() if re.fullmatch(r"<\|\d+\.\d\d\|>", name)}
    last = next((i for i in range(first, first + len(times) + 1) if i not in times), first) - 1
    return last if last >= first else None


def _language(generation: dict, multilingual: bool) -> str | None:
    """The language a fine-tuned checkpoint asks for: `dutch`, `nl` and `<|nl|>` are all in use."""
    return languages.code(generation["language"]) if multilingual and generation.get("language") else None


def _languages(ids: dict[str, int]) -> dict[str, int]:
    """Language tokens stand between <|startoftranscript|> and the tasks."""
    first, last = ids["<|startoftranscript|>"], min(ids["<|translate|>"], ids["<|transcribe|>"])
    return {name: i for name, i in ids.items() if first < i < last}


def _heads(folder: Path, generation: dict, model: dict) -> tuple[tuple[int, int], ...]:
    """The checkpoint's alignment heads; those of the upper half where it names none, or some that it does not have."""
    layers, heads, named = model["decoder_layers"], model["decoder_attention_heads"], generation.get("alignment_heads")
    found = valid_heads(named, layers, heads)
    if named and not found:
        _warn_of_heads(str(folder), layers, heads)
    return found or upper_heads(layers, heads)


@functools.cache  # the files of a checkpoint are read more than once
def _warn_of_heads(folder: str, layers: int, heads: int) -> None:
    console.warn(f"the alignment heads in {folder} are not of this decoder of {layers} layers with {heads} heads each "
                 "(perhaps of the model it was distilled from): word times come from all heads of its upper half")


def valid_heads(named: object, layers: int, heads: int) -> tuple[tuple[int, int], ...] | None:
    """Alignment heads as (layer, head), or None where they are no heads of a decoder of this size."""
    try:
        pairs = tuple((int(layer), int(head)) for layer, head in named)
    except (TypeError, ValueError):
        return None
    inside = all(0 <= layer < layers and 0 <= head < heads for layer, head in pairs)
    return pairs if pairs and inside else None


def upper_heads(layers: int, heads: int) -> tuple[tuple[int, int], ...]:
    """Where nobody chose alignment heads: all heads of the upper half of the decoder, as openai-whisper does."""
    return tuple((layer, head) for layer in range(layers // 2, layers) for head in range(heads))


def _check_ranges(fields: dict) -> None:
    """Raises ValueError for ids that the vocabulary does not have: they would be an error at the first window."""
    vocab = fields["vocab_size"]
    named = {name: fields[name] for name in ("start", "end", "no_timestamps", "no_speech")}
    named |= {} if fields["previous"] is None else {"previous": fields["previous"]}
    named |= fields["languages"] | fields["tasks"]
    for name, token in named.items():
        if type(token) is not int or not 0 <= token < vocab:
            raise ValueError(f"token {token!r} of '{name}' is outside the vocabulary of {vocab}")
    for name in ("suppress", "begin_suppress"):
        outside = fields[name][(fields[name] < 0) | (fields[name] >= vocab)]
        if fields[name].ndim != 1 or len(outside):
            raise ValueError(f"{name}_tokens holds {outside[:3].tolist()}, outside the vocabulary of {vocab}")
    most, width, positions = (fields[name] for name in ("max_initial_timestamp", "median_filter_width",
                                                        "max_positions"))
    if not all(type(value) is int and value >= low for value, low in ((most or 0, 0), (width, 1), (positions, 8))):
        raise ValueError(f"max_initial_timestamp_index {most!r}, median_filter_width {width!r} or "
                         f"max_target_positions {positions!r} is no such number")


def byte_alphabet() -> list[str]:
    """How GPT-2's vocabulary files write the bytes 0 .. 255: printable Latin-1 as itself, the rest from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
