"""openai-whisper's `.pt`: a zip file with a pickle of sizes (`dims`) and a state dict.

A pickle can run any program when it is opened. torch's `weights_only` reader builds tensors and nothing else; a file
that asks for more is refused. Tensors are mapped from the file, not loaded. Source of the names: openai-whisper's
whisper/model.py.
"""

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from whisper_lab import checkpoints, hub
from whisper_lab.console import LabError
from whisper_lab.weights import openai_tokenizer, vocabulary
from whisper_lab.weights.model import Dimensions, Source, Weight, damaged, dimensions_of, shown

LAYER_PARTS = {  # inside a layer: OpenAI -> Hugging Face, longest first
    "cross_attn_ln": "encoder_attn_layer_norm", "attn_ln": "self_attn_layer_norm", "mlp_ln": "final_layer_norm",
    "cross_attn": "encoder_attn", "attn": "self_attn", "mlp.0": "fc1", "mlp.2": "fc2",
}
PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
OUTSIDE = {
    "encoder.ln_post": "model.encoder.layer_norm", "decoder.ln": "model.decoder.layer_norm",
    "encoder.conv1": "model.encoder.conv1", "encoder.conv2": "model.encoder.conv2",
    "decoder.token_embedding": "model.decoder.embed_tokens",
}
POSITIONS = "positional_embedding"
LAYER = re.compile(r"(encoder|decoder)\.blocks\.(0|[1-9]\d{0,3})\.([\w.]+)\.(weight|bias)")
MULTILINGUAL_FROM = 51865  # tokens: openai-whisper's own rule, Whisper.is_multilingual
REFUSED = re.compile(r"GLOBAL ([\w.]+)")


def is_head(head: bytes) -> bool:
    """Whether a file that begins with `head` is what torch.save writes: a zip file whose first entry is data.pkl."""
    return head.startswith(b"PK\x03\x04") and b"/data.pkl" in head


def read(path: Path) -> Source:
    """The Whisper in a .pt file. Raises LabError where it is something else, damaged, or wants to run code."""
    document = load(path)
    sizes, state = document.get("dims"), document.get("model_state_dict")
    if not isinstance(sizes, dict) or not isinstance(state, dict):
        raise LabError(f"{path} is a file of torch's, but not openai-whisper's: it has no dims or no model_state_dict",
                       "pass the .pt that openai-whisper downloads, or the whole Hugging Face folder it belongs to")
    weights = {hf_name(name): weight for name, weight in tensors(state, path).items()}
    heads = sizes.get("n_audio_head"), sizes.get("n_text_head")
    found = dimensions_of(weights, heads, path)
    check_header(path, found, sizes)
    stored = "+".join(sorted({str(value.dtype).removeprefix("torch.") for value in state.values() if value.ndim == 2}))
    return Source("openai", [path], stored, found, weights, tokens_for(path, found), name=path.name)


def load(path: Path) -> dict:
    """What the pickle holds, built by torch's weights-only reader. Raises LabError."""
    import torch

    check_zip(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols that do not exist, in a damaged file
            document = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror or error}", "check the path and its permissions"
                       ) from error
    except Exception as error:  # a damaged pickle raises anything
        if name := REFUSED.search(str(error)):
            raise LabError(f"{path} asks for Python's {shown(name[1])} when it is opened, which no file of weights "
                           "needs: it may run a program, so it is not opened",
                           "fetch the model from a source that you trust, best as safetensors") from error
        raise damaged(path, f"torch cannot open it ({type(error).__name__})") from error
    return document if isinstance(document, dict) else {}


def check_zip(path: Path) -> None:
    """Raise LabError unless `path` is a zip file as torch.save writes it: no entry compressed, all inside the file."""
    try:
        with path.open("rb") as file:
            bare = file.read(1) == b"\x80"
        if bare:
            raise LabError(f"{path} is a pickle as torch saved it before 2020, without the zip file around it",
                           "load it with torch.load(..., weights_only=True), and save it again with torch.save")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        good = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        good = good and sum(entry.file_size for entry in entries) <= path.stat().st_size
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, UnicodeError, EOFError) as error:
        raise damaged(path, f"it is not a whole zip file ({shown(str(error))})") from error
    if not good:
        raise damaged(path, "its entries are compressed, or longer than the file")


def tensors(state: dict, path: Path) -> dict[str, Weight]:
    """Name -> weight of a state dict of torch's. Raises LabError where something in it is not a tensor of floats."""
    import torch

    made = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise damaged(path, f"{shown(str(name))} is not a tensor of floating-point numbers")
        if value.layout != torch.strided or not value.is_contiguous():
            raise damaged(path, f"{shown(name)} is not stored as one block of numbers")
        made[name] = tensor(value)
    return made


def tensor(value) -> Weight:
    """A torch tensor as a weight: float16 stays, bfloat16 and float64 become float32."""
    import torch

    dtype = "float16" if value.dtype == torch.float16 else "float32"
    return Weight(tuple(value.shape), dtype, lambda: value.detach().to(getattr(torch, dtype)).numpy())


def hf_name(name: str) -> str:
    """`encoder.blocks.0.attn.query.weight` -> `model.encoder.layers.0.self_attn.q_proj.weight`; unknown ones stay."""
    if name in (f"encoder.{POSITIONS}", f"decoder.{POSITIONS}"):
        return f"model.{name[:7]}.embed_positions.weight"
    if found := LAYER.fullmatch(name):
        side, number, part, kind = found.groups()
        for theirs, ours in LAYER_PARTS.items():
            if part == theirs:
                return f"model.{side}.layers.{number}.{ours}.{kind}"
            if part.startswith(f"{theirs}.") and part[len(theirs) + 1:] in PROJECTIONS:
                return f"model.{side}.layers.{number}.{ours}.{PROJECTIONS[part[len(theirs) + 1:]]}.{kind}"
    stem, _, kind = name.rpartition(".")
    return f"{OUTSIDE[stem]}.{kind}" if stem in OUTSIDE and kind in ("weight", "bias") else name


def check_header(path: Path, found: Dimensions, header: Mapping[str, int]) -> None:
    """Raise LabError where the sizes that the file states are not those of its weights. Keys as in `dims`."""
    expected = {"n_vocab": found.vocabulary, "n_audio_ctx": found.audio_positions, "n_audio_state": found.width,
                "n_audio_layer": found.encoder_layers, "n_text_ctx": found.text_positions, "n_text_state": found.width,
                "n_text_layer": found.decoder_layers, "n_mels": found.mel_bins}
    for name, value in expected.items():
        if header.get(name) != value:
            raise damaged(path, f"it says {name} {shown(str(header.get(name)))}, and its weights say {value}")


def tokens_for(path: Path, sizes: Dimensions) -> vocabulary.Tokens:
    """The tokenizer of a file that has none: tokenizer.json beside it, Whisper's ranks, or another checkpoint's.

    Raises LabError where none of them is on this machine, or none fits.
    """
    beside = path.with_name("tokenizer.json")
    if beside.is_file():
        return vocabulary.from_document(beside, sizes.vocabulary, sizes.audio_positions)
    multilingual = sizes.vocabulary >= MULTILINGUAL_FROM
    try:
        ranks = openai_tokenizer.ranks(multilingual)
    except LabError as error:
        for document in documents_here():
            if tokens := borrowed(document, sizes):
                return tokens
        raise LabError(f"{path} holds no tokenizer, and Whisper's is not on this machine",
                       f"{error.remedy}; or put the tokenizer.json of the same model beside the file") from error
    return vocabulary.from_ranks(ranks, sizes.vocabulary, sizes.audio_positions, path)


def documents_here() -> Iterator[Path]:
    """The tokenizer.json of every checkpoint on this machine: beside the bundled one, and in the Hub's cache."""
    yield from sorted(checkpoints.BUNDLED.parent.glob("*/tokenizer.json"))
    for repository in checkpoints.PUBLISHED.values():
        folder = hub.cached(repository)
        if folder and (folder / "tokenizer.json").is_file():
            yield folder / "tokenizer.json"


def borrowed(document: Path, sizes: Dimensions) -> vocabulary.Tokens | None:
    """The text tokens of another checkpoint with this model's own special tokens; None where they do not fit."""
    try:
        text = vocabulary.from_document(document, 1 << 30, sizes.audio_positions).text
        ranks = {vocabulary.unspell(token): i for i, token in enumerate(text)}
        return vocabulary.from_ranks(ranks, sizes.vocabulary, sizes.audio_positions, document)
    except (LabError, ValueError):
        return None
