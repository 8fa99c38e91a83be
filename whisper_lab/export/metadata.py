"""What a graph says about itself in `metadata_props`: what was done, never where. Same input, same text.

Values are strings, as ONNX wants; lists and numbers are JSON. Key names follow sherpa-onnx's where they mean the same.
"""

import contextlib
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable
from pathlib import Path

import onnx

from whisper_lab import external_data, seals
from whisper_lab.console import LabError
from whisper_lab.export import wire
from whisper_lab.export.graphs import IR_VERSION, OPSET
from whisper_lab.features import FeatureSpec
from whisper_lab.tokens import TokenRules

FORMAT = 2  # of these keys; from 2 on a finished graph has a seal as well (seals.py)
TOOLS = ("torch", "transformers", "onnx", "onnxruntime", "onnxscript", "optimum")
CHECKED = "parity gates passed at export"


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the checkpoint's weight files in order of name."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def of_files(paths: Iterable[Path], more: str = "") -> str:
    """A digest of files, and of `more`: by which a graph says how something about it was found or made."""
    digest = hashlib.sha256(more.encode())
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def of_checkpoint(checkpoint, config, folder: Path) -> dict[str, str]:
    """The part that all graphs of a checkpoint share. `folder`: its runtime files. Raises LabError where one is bad."""
    rules, spec = TokenRules.from_folder(folder), FeatureSpec.from_folder(folder)
    facts = {
        "format": FORMAT, "producer": seals.PRODUCER, "model": checkpoint.name, "revision": checkpoint.revision,
        "random_weights": checkpoint.random_weights, "weights_sha256": weights_sha256(checkpoint.folder),
        "opset": OPSET, "ir_version": IR_VERSION,
        **{f"version_{tool}": importlib.metadata.version(tool) for tool in TOOLS},
        "sample_rate": spec.sampling_rate, "n_fft": spec.n_fft, "hop_length": spec.hop_length, "n_mels": spec.n_mels,
        **_sizes(config), **_tokens(rules),
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def _sizes(config) -> dict[str, int]:
    """Under openai-whisper's names, as far as it has them."""
    return {
        "n_audio_ctx": config.max_source_positions, "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads, "n_audio_layer": config.encoder_layers,
        "n_text_ctx": config.max_target_positions, "n_text_state": config.d_model,
        "n_text_head": config.decoder_attention_heads, "n_text_layer": config.decoder_layers,
        "n_vocab": config.vocab_size, "head_dim": config.d_model // config.decoder_attention_heads,
    }


def _tokens(rules: TokenRules) -> dict[str, object]:
    """The tokens that a runtime has to know, and what it must not write."""
    return {
        "is_multilingual": bool(rules.languages), "sot": rules.start, "eot": rules.end, "sot_prev": rules.previous,
        **rules.tasks, "no_speech": rules.no_speech, "no_timestamps": rules.no_timestamps,
        "timestamp_begin": rules.timestamp_begin, "timestamp_step": rules.timestamp_step,
        "all_language_codes": list(rules.languages), "all_language_tokens": list(rules.languages.values()),
        "suppress_tokens": rules.suppress.tolist(), "begin_suppress_tokens": rules.begin_suppress.tolist(),
        "alignment_heads": [list(pair) for pair in rules.alignment_heads],
    }


def write(path: Path, shared: dict[str, str], part: str, precision: str, recipe: dict, verified: bool) -> None:
    """Replace a graph's metadata on disk. `recipe` says how it was made; `verified` whether the gates are run on it."""
    model = wire.skim(path)
    facts = {key: text for key, text in shared.items() if key != seals.KEY} | {
        "part": part, "precision": precision, "recipe": json.dumps(recipe),
        "cache_types": json.dumps(cache_types(model)),
        "cross_attention": json.dumps(any(output.name == "cross_attention" for output in model.graph.output)),
        "verification": CHECKED if verified else "skipped with --no-verify"}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, facts)
    model.producer_name, model.producer_version, model.doc_string = "whisper-onnx-lab", "", ""
    model.ir_version = IR_VERSION
    wire.write_around(model, path)


def cache_types(model: onnx.ModelProto) -> dict[str, str]:
    """{"self": "float32", "cross": "float32"}: the element types of the caches that enter or leave a graph."""
    return {kind: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
            for value in [*model.graph.input, *model.graph.output] for kind in ("self", "cross")
            if f"_key_{kind}_" in value.name}


def read(path: Path) -> dict[str, str]:
    """The metadata of a graph on disk; its weights are not loaded."""
    model = onnx.load(path, load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}


def agreeing(path: Path, wanted: dict[str, str]) -> dict[str, str] | None:
    """What a graph says of itself, where that holds all of `wanted` and no bit of the graph has changed since; or None.
    """
    with contextlib.suppress(OSError, LabError, ValueError, KeyError):  # whatever else is there under such a name
        noted = external_data.metadata(path)
        if wanted.items() <= noted.items() and seals.sealed(path) and not seals.fault(path):
            return noted
    return None
