"""What every format holds, in one form: sizes, weights under Hugging Face's names, and what is known of the tokens.

A weight is read when it is written, so that the largest weight is all that memory holds: see `Weight`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from whisper_lab.console import LabError

if TYPE_CHECKING:  # numpy is imported when the first weight is read
    import numpy as np

    from whisper_lab.weights.vocabulary import Tokens

HEAD = "proj_out.weight"
EMBEDDING = "model.decoder.embed_tokens.weight"
MOST_LAYERS = 256  # per side; large has 32. Beyond it a file is damaged or means harm
MOST_WIDTH = 16384  # and the same for every other size that is not a vocabulary
MOST_TOKENS = 1 << 20
SHOWN = 100  # characters
STEPS_PER_S = 50  # encoder positions a second
KERNEL = 3  # frames that both convolutions see


@dataclass(frozen=True)
class Weight:
    """One tensor of a file: its shape, how its numbers are kept in the folder, and how to read them.

    `dtype` is float16 where the file holds float16, else float32: both keep every number of the file exactly.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], "np.ndarray"]


@dataclass(frozen=True)
class Dimensions:
    """The sizes of a Whisper. `vocabulary` counts the rows of the token embedding."""

    vocabulary: int
    mel_bins: int
    width: int
    encoder_heads: int
    decoder_heads: int
    encoder_layers: int
    decoder_layers: int
    encoder_ffn: int
    decoder_ffn: int
    audio_positions: int  # 1500 in all published ones: 30 s
    text_positions: int  # 448 in all published ones

    def problem(self) -> str | None:
        """What makes these sizes impossible, or None. Nothing of that size has been allocated yet."""
        limits = {"vocabulary": MOST_TOKENS, "encoder_layers": MOST_LAYERS, "decoder_layers": MOST_LAYERS,
                  "encoder_ffn": 4 * MOST_WIDTH, "decoder_ffn": 4 * MOST_WIDTH}
        for name, value in vars(self).items():
            most = limits.get(name, MOST_WIDTH)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                return f"{name.replace('_', ' ')} is {shown(str(value))}, where a Whisper has 1 to {most}"
        for side in ("encoder", "decoder"):
            if self.width % getattr(self, f"{side}_heads"):
                return f"its width of {self.width} cannot be divided among {getattr(self, f'{side}_heads')} heads"
        if self.audio_positions % STEPS_PER_S:
            return f"{self.audio_positions} audio positions are not a whole number of seconds"
        return None


@dataclass(frozen=True)
class Source:
    """A model as a file holds it. What a format does not say is None, and the writer finds it."""

    format: str  # huggingface, ctranslate2, openai or ggml
    files: list[Path]  # those that hold the weights
    stored: str  # the type of its matrices: float16, int8, q5_0 ...
    dimensions: Dimensions
    weights: Mapping[str, Weight]  # Hugging Face's names
    tokens: "Tokens | None" = None
    alignment_heads: list[list[int]] | None = None
    suppress: list[int] | None = None
    begin_suppress: list[int] | None = None
    config: dict = field(default_factory=dict)  # fields of config.json and generation_config.json that the file knows
    generation: dict = field(default_factory=dict)
    kept: Mapping[str, Path] = field(default_factory=dict)  # files of the folder that are copied as they are
    name: str = ""  # the file's, which may tell large-v1 from large-v2

    @property
    def tied(self) -> bool:
        """Whether the output head is the token embedding again, as in every published Whisper."""
        return HEAD not in self.weights


def shown(text: str) -> str:
    """Text of a file that nobody vouches for, as an error may print it: one short line without control characters."""
    line = " ".join(text.split())[:SHOWN]
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def damaged(path: Path, what: str) -> LabError:
    """The error of a file that cannot be what it claims."""
    return LabError(f"{path} is damaged or cut off: {what}",
                    "fetch the file again from where it came, and compare its size and its SHA-256 digest")


def expected_shapes(sizes: Dimensions) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight of transformers' WhisperForConditionalGeneration, the tied head left out."""
    shapes = {"model.encoder.conv1.weight": (sizes.width, sizes.mel_bins, KERNEL),
              "model.encoder.conv2.weight": (sizes.width, sizes.width, KERNEL),
              "model.encoder.conv1.bias": (sizes.width,), "model.encoder.conv2.bias": (sizes.width,),
              "model.encoder.embed_positions.weight": (sizes.audio_positions, sizes.width),
              "model.decoder.embed_positions.weight": (sizes.text_positions, sizes.width),
              EMBEDDING: (sizes.vocabulary, sizes.width)}
    for side, layers, ffn in (("encoder", sizes.encoder_layers, sizes.encoder_ffn),
                              ("decoder", sizes.decoder_layers, sizes.decoder_ffn)):
        for i in range(layers):
            shapes |= {f"model.{side}.layers.{i}.{name}": shape
                       for name, shape in layer_shapes(side, sizes.width, ffn).items()}
        shapes |= {f"model.{side}.layer_norm.{part}": (sizes.width,) for part in ("weight", "bias")}
    return shapes


def layer_shapes(side: str, width: int, ffn: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape inside one layer. Keys have no bias: softmax does not see what is added to all scores alike."""
    shapes = {"fc1.weight": (ffn, width), "fc1.bias": (ffn,), "fc2.weight": (width, ffn), "fc2.bias": (width,)}
    for attention in ["self_attn", "encoder_attn"][:1 if side == "encoder" else 2]:
        shapes |= {f"{attention}_layer_norm.{part}": (width,) for part in ("weight", "bias")}
        shapes |= {f"{attention}.{part}_proj.weight": (width, width) for part in ("q", "k", "v", "out")}
        shapes |= {f"{attention}.{part}_proj.bias": (width,) for part in ("q", "v", "out")}
    return shapes | {f"final_layer_norm.{part}": (width,) for part in ("weight", "bias")}


def dimensions_of(weights: Mapping[str, Weight], heads: tuple[int, int], path: Path) -> Dimensions:
    """The sizes that the weights themselves show; `heads` of encoder and decoder cannot be seen in them.

    Raises LabError where a weight that every Whisper has is missing or its sizes are impossible.
    """
    try:
        conv, embedding = weights["model.encoder.conv1.weight"].shape, weights[EMBEDDING].shape
        ffn = [weights[f"model.{side}.layers.0.fc1.weight"].shape[0] for side in ("encoder", "decoder")]
        positions = [weights[f"model.{side}.embed_positions.weight"].shape[0] for side in ("encoder", "decoder")]
        sizes = Dimensions(embedding[0], conv[1], conv[0], *heads, *(layers(weights, side)
                           for side in ("encoder", "decoder")), *ffn, *positions)
    except KeyError as error:
        raise LabError(f"{path} holds no whole Whisper: it has no weight {error.args[0]}",
                       "fetch it again, or choose the file of a whole Whisper model") from error
    except IndexError as error:
        raise damaged(path, "a weight has too few dimensions") from error
    if problem := sizes.problem():
        raise damaged(path, problem)
    return sizes


def layers(weights: Mapping[str, Weight], side: str) -> int:
    """How many layers the names count."""
    prefix = f"model.{side}.layers."
    return len({name[len(prefix):].split(".")[0] for name in weights if name.startswith(prefix)})


def check_weights(source: Source) -> None:
    """Raise LabError unless the weights are exactly those of a Whisper of these sizes."""
    path, expected = source.files[0], expected_shapes(source.dimensions)
    if not source.tied:
        expected[HEAD] = expected[EMBEDDING]
    if missing := sorted(expected.keys() - source.weights.keys()):
        raise damaged(path, f"{len(missing)} of {len(expected)} weights are missing, such as {missing[0]}")
    if unknown := sorted(source.weights.keys() - expected.keys()):
        raise LabError(f"{path} is not a plain Whisper: it has {len(unknown)} weights that a Whisper does not have, "
                       f"such as {shown(unknown[0])}",
                       "convert it with the tools of the project that it comes from, then pass the Hugging Face folder")
    for name, shape in expected.items():
        if source.weights[name].shape != shape:
            raise damaged(path, f"{name} has the shape {list(source.weights[name].shape)[:5]}, not {list(shape)}")
