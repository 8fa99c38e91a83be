"""What the published Whisper models are: their sizes, and the attention heads that follow the speech.

A file that says neither (openai-whisper's and whisper.cpp's) is recognised here by its sizes.
"""

from dataclasses import dataclass

from whisper_lab.weights.model import Dimensions


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

    @property
    def vocabulary(self) -> int:
        """Rows of the token embedding: text tokens, special tokens with one per language, timestamps."""
        return TEXT_TOKENS[self.multilingual] + self.languages + NAMED_TOKENS + TIMESTAMPS


# GPT-2's vocabulary in the English-only models; a multilingual one with an empty token, which only holds a place.
TEXT_TOKENS = {True: 50257, False: 50256}
NAMED_TOKENS = 8  # endoftext, startoftranscript, translate, transcribe, startoflm, startofprev, nospeech, notimestamps
TIMESTAMPS = 1501  # <|0.00|> to <|30.00|> in steps of 20 ms, one per encoder position, both ends included
POSITIONS = {"max_source_positions": 1500, "max_target_positions": 448}

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

# layer.head of the cross-attention heads whose attention follows the speech in time: _ALIGNMENT_HEADS in
# openai-whisper's whisper/__init__.py (MIT), there as packed bits; a test compares the two.
ALIGNMENT_HEADS = {
    "tiny.en": "1.0 2.0 2.5 3.0 3.1 3.2 3.3 3.4",
    "tiny": "2.2 3.0 3.2 3.3 3.4 3.5",
    "base.en": "3.3 4.7 5.1 5.5 5.7",
    "base": "3.1 4.2 4.3 4.7 5.1 5.2 5.4 5.6",
    "small.en": "6.6 7.0 7.3 7.8 8.2 8.5 8.7 9.0 9.4 9.8 9.10 10.0 10.1 10.2 10.3 10.6 10.11 11.2 11.4",
    "small": "5.3 5.9 8.0 8.4 8.7 8.8 9.0 9.7 9.9 10.5",
    "medium.en": "11.4 14.1 14.12 14.14 15.4 16.0 16.4 16.9 17.12 17.14 18.7 18.10 18.15 20.0 20.3 20.9 20.14 21.12",
    "medium": "13.15 15.4 15.15 16.1 20.0 23.4",
    "large": "9.19 11.2 11.4 11.17 22.7 22.11 22.17 23.2 23.15",
    "large-v2": "10.12 13.17 16.11 16.12 16.13 17.15 17.16 18.4 18.11 18.19 19.11 21.2 21.3 22.3 22.9 22.12 23.5 23.7 "
                "23.13 25.5 26.1 26.12 27.15",
    "large-v3": "7.0 10.17 12.18 13.12 16.1 17.14 19.11 21.4 24.1 25.6",
    "turbo": "2.4 2.11 3.3 3.6 3.11 3.14",
}


def alignment_heads(size: str) -> list[list[int]]:
    """[layer, head] of a published size's alignment heads."""
    return [[int(number) for number in pair.split(".")] for pair in ALIGNMENT_HEADS[size].split()]


def same_sizes(size: str, dimensions: Dimensions) -> bool:
    """Whether `dimensions` are those of the published model of that size."""
    made = ARCHITECTURES[size]
    return (made.width, made.heads, made.encoder_layers, made.decoder_layers, made.mel_bins, made.vocabulary) == (
        dimensions.width, dimensions.decoder_heads, dimensions.encoder_layers, dimensions.decoder_layers,
        dimensions.mel_bins, dimensions.vocabulary)


def size_of(dimensions: Dimensions, file_name: str = "") -> str | None:
    """The published size with these dimensions, or None. large and large-v2 are alike: the file's name decides."""
    sizes = [size for size in ARCHITECTURES if same_sizes(size, dimensions)]
    if len(sizes) < 2:
        return sizes[0] if sizes else None
    if "large-v2" in file_name:
        return "large-v2"
    return "large" if "large-v1" in file_name else None
