"""A Whisper small enough to export in seconds, and its graphs in every precision, made once for all export tests."""

import functools
import importlib
import json
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "whisper_model_dir" / "whisper-nano"
LAYERS, WIDTH, MELS, POSITIONS, TEXT = 2, 64, 16, 50, 64  # a window of one second


def script():
    """03 as a module."""
    return importlib.import_module("03-export-encoder-decoder")


def write_checkpoint(folder: Path, **changes) -> Path:
    """A checkpoint of random weights with nano's tokenizer; biases and LayerNorm weights are not trivial.

    Encoder heads of 16 (1/4: folded into q_proj) and decoder heads of 32 (not a power of two: a Mul), and a row of
    zeros in the embedding, as a fresh checkpoint's padding row is.
    """
    if not (NANO / "config.json").is_file():
        pytest.skip("whisper_model_dir/whisper-nano is not there yet: its tokenizer is needed")
    from whisper_lab.checkpoints import import_transformers

    transformers = import_transformers()
    import torch

    torch.manual_seed(7)
    config = transformers.WhisperConfig.from_pretrained(NANO, **{
        "d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": LAYERS, "encoder_attention_heads": 4,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 2 * WIDTH, "decoder_ffn_dim": 2 * WIDTH, "num_mel_bins": MELS,
        "max_source_positions": POSITIONS, "max_target_positions": TEXT, **changes})
    config.whisper_lab_random_weights = True
    model = transformers.WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("layer_norm.weight"):
                weight.copy_(1 + 0.2 * torch.randn_like(weight))
            elif "embed_positions" not in name:
                weight.normal_(0, 0.1)
        model.model.decoder.embed_tokens.weight[7] = 0
    model.save_pretrained(folder)
    shutil.copy(NANO / "tokenizer.json", folder / "tokenizer.json")
    generation = json.loads((NANO / "generation_config.json").read_text())
    generation["alignment_heads"] = [[LAYERS - 1, 1], [0, 0]]  # nano's own heads need not exist here
    (folder / "generation_config.json").write_text(json.dumps(generation))
    sound = json.loads((NANO / "preprocessor_config.json").read_text())
    sound |= {"chunk_length": 1, "n_samples": 16000, "nb_max_frames": 2 * POSITIONS, "feature_size": MELS}
    (folder / "preprocessor_config.json").write_text(json.dumps(sound))
    return folder


@functools.cache
def exported() -> SimpleNamespace:
    """checkpoint, model, runtime, sounds, long run and, per precision, the two graphs; no gate was run on them."""
    from whisper_lab import checkpoints, names
    from whisper_lab.export import parity, reference
    from whisper_lab.torch_whisper import TorchWhisper

    folder = Path(tempfile.mkdtemp(prefix="export-tiny-"))
    (folder / "whisper-tiny-random").mkdir()
    checkpoint = checkpoints.resolve(str(write_checkpoint(folder / "whisper-tiny-random")))
    model = checkpoints.load_model(checkpoint, attn_implementation="eager")
    runtime = TorchWhisper(model, checkpoint.folder)
    sounds = reference.make(runtime)
    fp32 = script().export_fp32(model, folder / "fp32", checkpoint.name, None)
    pairs = {"fp32": fp32}
    for precision in names.PRECISIONS[1:]:
        (folder / precision).mkdir()
        pairs[precision] = names.pair(folder / precision, checkpoint.name, precision)
        script().convert(precision, fp32, pairs[precision], script().recipe(precision, model.config))
    return SimpleNamespace(folder=folder, checkpoint=checkpoint, model=model, runtime=runtime, sounds=sounds,
                           pairs=pairs, long_run=parity.long_run(runtime, sounds))


def copy_pair(pair: dict[str, Path], folder: Path) -> dict[str, Path]:
    """The two graphs copied to a folder of their own, to be broken there."""
    return {part: Path(shutil.copy(path, folder / path.name)) for part, path in pair.items()}
