"""How much there is to compute, counted from the architecture: what a clock and a joule are divided by.

    arch = Architecture.from_folder("whisper_model_dir/whisper-nano")
    arch.parameters, arch.encoder_operations(), arch.decoder_operations(new=1, past=30)

One multiplication with its addition counts as two operations. Counted are convolutions and matrix products
(projections, attention, feed-forward, logits); softmax, normalization, GELU, the Fourier transform and the search are
left out. Attention is counted in full, also what the causal mask throws away.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from whisper_lab.console import LabError


@dataclass(frozen=True)
class Architecture:
    """The sizes of one Whisper; names as in its config.json."""

    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    num_mel_bins: int
    max_source_positions: int  # encoder positions: half as many as frames
    max_target_positions: int
    vocab_size: int

    @classmethod
    def from_folder(cls, folder: str | Path) -> "Architecture":
        """Read config.json of a checkpoint. Raises LabError where it is missing or incomplete."""
        path = Path(folder) / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{name: config[name] for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError) as error:
            raise LabError(f"{path} does not tell the architecture: {error}", "fetch the checkpoint again") from error

    @property
    def parameters(self) -> int:
        """Weights of the model; the embedding, which also makes the logits, is counted once."""
        d, attention = self.d_model, 4 * self.d_model**2 + 3 * self.d_model  # the key projection has no bias
        encoder_layer = attention + 2 * 2 * d + self._feed_forward(self.encoder_ffn_dim)
        decoder_layer = 2 * attention + 3 * 2 * d + self._feed_forward(self.decoder_ffn_dim)
        front = (self.num_mel_bins * d * 3 + d) + (d * d * 3 + d)
        positions = (self.max_source_positions + self.max_target_positions) * d
        return (front + positions + self.encoder_layers * encoder_layer + self.decoder_layers * decoder_layer
                + self.vocab_size * d + 2 * 2 * d)

    def _feed_forward(self, width: int) -> int:
        return 2 * self.d_model * width + width + self.d_model

    def encoder_operations(self) -> int:
        """For one window, with the keys and values that the decoder's cross-attention takes from it."""
        d, n = self.d_model, self.max_source_positions
        convolutions = 2 * (2 * n * 3 * self.num_mel_bins * d + n * 3 * d * d)  # the first at twice the positions
        layer = 2 * (4 * n * d * d + 2 * n * n * d + 2 * n * d * self.encoder_ffn_dim)
        return convolutions + self.encoder_layers * layer + self.decoder_layers * 2 * (2 * n * d * d)

    def decoder_operations(self, new: int, past: int) -> int:
        """For `new` tokens of one row when `past` are in the cache already."""
        d = self.d_model
        attention = 4 * d * d + 2 * (past + new) * d  # per token: four projections; scores and their sum
        cross = 2 * d * d + 2 * self.max_source_positions * d  # keys and values are there already
        layer = attention + cross + 2 * d * self.decoder_ffn_dim
        return 2 * new * (self.decoder_layers * layer + d * self.vocab_size)
