"""Write a Whisper checkpoint of a published size with random weights, for sizes and speeds without a download.

    python training/make_random_checkpoint.py --size base
    python training/make_random_checkpoint.py --size large-v3 --dtype float16 --output-dir /tmp/whisper-large-v3

Architecture, tokenizer and configuration are those of the published model; the weights are noise, so its transcripts
mean nothing, and config.json says so. Biases are N(0, 0.02) and LayerNorm weights 1 + N(0, 0.05), not zeros and ones:
a graph that drops one of them must give different numbers. The same seed gives the same bytes.

Needs Whisper's byte-pair ranks: pip install --no-deps -r requirements-nodeps.txt
"""

import contextlib
import functools
import json
import math
import sys
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, Python looks in training/ only

from whisper_lab import checkpoints, console, files, flags  # noqa: E402
from whisper_lab.weights import huggingface, openai_tokenizer, published, vocabulary  # noqa: E402
from whisper_lab.weights.model import Dimensions, Weight, expected_shapes  # noqa: E402
from whisper_lab.weights.published import ARCHITECTURES, Architecture  # noqa: E402

FLOAT32_UP_TO = 2e9  # bytes; beyond it float16 is the default, as large-v3 is published
WEIGHT_STD, BIAS_STD, NORM_STD = 0.02, 0.02, 0.05


def main(argv: list[str] | None = None) -> int:
    """Parse, build the folder beside its place, move it there."""
    made = flags.parser(__doc__, "seed", "quiet", "log_level")
    made.add_argument("--size", default="base", choices=list(ARCHITECTURES), help="(default: %(default)s)")
    made.add_argument("--output-dir", metavar="DIR", type=Path,
                      help="the checkpoint's folder (default: whisper_model_dir/whisper-SIZE-random)")
    made.add_argument("--dtype", choices=["float32", "float16"],
                      help="of the weights (default: float32, or float16 where that would pass 2 GB)")
    args = flags.parse(made, argv)
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
    sizes = dimensions(architecture)
    with replacing(folder) as temporary:
        tokens = openai_tokenizer.tokens(architecture.multilingual, architecture.languages, no_speech(architecture))
        vocabulary.save(tokens.build(), temporary)
        settings = huggingface.generation_config(tokens, published.alignment_heads(size), sizes.text_positions)
        files.write_json(temporary / "generation_config.json", settings)
        shapes = expected_shapes(sizes)
        count = sum(math.prod(shape) for shape in shapes.values())
        dtype = dtype or ("float32" if 4 * count <= FLOAT32_UP_TO else "float16")
        console.note("dtype", dtype, f"{count / 1e6:.1f} M parameters")
        config = huggingface.model_config(sizes, settings)
        document = config.to_dict() | {"dtype": dtype, checkpoints.RANDOM_WEIGHTS_KEY: True}
        files.write_json(temporary / "config.json", document)
        huggingface.feature_extractor(sizes).save_pretrained(temporary)
        write_weights(temporary / "model.safetensors", shapes, seed, dtype)
    return count


def replacing(folder: Path) -> contextlib.AbstractContextManager[Path]:
    """A temporary folder beside `folder` that takes its place when all went well. Only its own kind is replaced."""
    return huggingface.replacing(folder, is_random_checkpoint, "random checkpoint", "choose another --output-dir")


def is_random_checkpoint(folder: Path) -> bool:
    """Whether this script wrote it."""
    try:
        return json.loads((folder / "config.json").read_text())[checkpoints.RANDOM_WEIGHTS_KEY] is True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def no_speech(architecture: Architecture) -> str:
    """The architecture's token for silence."""
    return vocabulary.no_speech(architecture.languages)


def dimensions(architecture: Architecture) -> Dimensions:
    """The same sizes, one by one."""
    made = architecture
    return Dimensions(made.vocabulary, made.mel_bins, made.width, made.heads, made.heads, made.encoder_layers,
                      made.decoder_layers, 4 * made.width, 4 * made.width, *published.POSITIONS.values())


def write_weights(path: Path, shapes: dict[str, tuple[int, ...]], seed: int, dtype: str) -> None:
    """Write random weights as a safetensors file, one at a time."""
    weights = {name: Weight(shape, dtype, functools.partial(random_weight, name, shape, seed))
               for name, shape in shapes.items()}
    huggingface.write_safetensors(path, weights)


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
