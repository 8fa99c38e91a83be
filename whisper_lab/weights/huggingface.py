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

from whisper_lab import checkpoints, claims, console, files, token_files
from whisper_lab.console import LabError
from whisper_lab.weights import published, vocabulary
from whisper_lab.weights.model import STEPS_PER_S, Dimensions, Source, Weight, check_weights, damaged, shown
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
        with claims.folder(folder.parent, f".{folder.name}.") as work:
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
    heads = token_files.valid_heads(source.alignment_heads, sizes.decoder_layers, sizes.decoder_heads)
    if heads is None:
        size = published.size_of(sizes, source.name)
        heads = published.alignment_heads(size) if size else token_files.upper_heads(
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
