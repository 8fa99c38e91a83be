"""The translators between an audio encoder and a language model, by name; each knows how many vectors it makes.

    projector = make_projector("linear", encoder_dim=1280, llm_dim=3584, downsample_rate=5)
    projector(states)                     # [batch, positions, 1280] -> [batch, get_output_length(positions), 3584]

All of them do both jobs of the lecture: another width, and fewer vectors. They differ in what they can compute on the
way. `linear` is the one of the class.
"""

import torch
from torch import nn

from .parts import ASRError


class RMSNorm(nn.Module):
    """Scale every vector to a root mean square of 1, times a learnt weight (arXiv 1910.07467)."""

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., dim] -> [..., dim]; the mean in float32, whatever the input is."""
        power = x.float().pow(2).mean(-1, keepdim=True)
        return (x.float() * torch.rsqrt(power + self.eps)).to(x.dtype) * self.weight


class StackingProjector(nn.Module):
    """Job 2 of every projector but the Q-Former: `downsample_rate` neighbouring vectors become one long vector."""

    def __init__(self, downsample_rate: int):
        super().__init__()
        self.downsample_rate = downsample_rate

    def get_output_length(self, positions):
        """Vectors that come out for `positions` (int or integer tensor): the last stack may be part silence."""
        return (positions + self.downsample_rate - 1) // self.downsample_rate

    def stack(self, states: torch.Tensor) -> torch.Tensor:
        """[batch, positions, dim] -> [batch, ceil(positions / rate), rate * dim]; zeros fill up the last one."""
        batch, positions, dim = states.shape
        missing = self.get_output_length(positions) * self.downsample_rate - positions
        states = nn.functional.pad(states, (0, 0, 0, missing))
        return states.reshape(batch, -1, self.downsample_rate * dim)


class AudioProjector(StackingProjector):
    """`linear`, the projector of the class: RMSNorm, one Linear on stacked frames, RMSNorm."""

    def __init__(self, encoder_dim: int, llm_dim: int, downsample_rate: int, **_):
        super().__init__(downsample_rate)
        self.ln_pre = RMSNorm(encoder_dim * downsample_rate)
        self.proj = nn.Linear(encoder_dim * downsample_rate, llm_dim)
        self.ln_post = RMSNorm(llm_dim)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.ln_post(self.proj(self.ln_pre(self.stack(states))))


class MLPProjector(StackingProjector):
    """`mlp`: two Linears with a GELU between them, so that a feature may be present only in combination."""

    def __init__(self, encoder_dim: int, llm_dim: int, downsample_rate: int, hidden_dim: int | None = None, **_):
        super().__init__(downsample_rate)
        hidden_dim = hidden_dim or 2 * llm_dim
        self.ln_pre = RMSNorm(encoder_dim * downsample_rate)
        self.up = nn.Linear(encoder_dim * downsample_rate, hidden_dim)
        self.down = nn.Linear(hidden_dim, llm_dim)
        self.ln_post = RMSNorm(llm_dim)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.gelu(self.up(self.ln_pre(self.stack(states))))
        return self.ln_post(self.down(hidden))


class SwiGLU(nn.Module):
    """Feed-forward block in which one half opens and closes the other (arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden_dim: int, out_dim: int):
        super().__init__()
        self.gate = nn.Linear(dim, hidden_dim, bias=False)
        self.up = nn.Linear(dim, hidden_dim, bias=False)
        self.down = nn.Linear(hidden_dim, out_dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class SwiGLUProjector(StackingProjector):
    """`swiglu`: the feed-forward block of today's language models as translator."""

    def __init__(self, encoder_dim: int, llm_dim: int, downsample_rate: int, hidden_dim: int | None = None, **_):
        super().__init__(downsample_rate)
        self.ln_pre = RMSNorm(encoder_dim * downsample_rate)
        self.block = SwiGLU(encoder_dim * downsample_rate, hidden_dim or 2 * llm_dim, llm_dim)
        self.ln_post = RMSNorm(llm_dim)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.ln_post(self.block(self.ln_pre(self.stack(states))))


class MoEProjector(StackingProjector):
    """`moe`: a shared block for all frames, and for each frame the `per_frame` experts that a router likes best.

    `auxiliary_loss` of the last forward pass wants the work spread evenly (Switch Transformer, arXiv 2101.03961,
    equation 4): 1 when it is, up to the number of experts when one does it all. `ASRModel` adds it to the loss.
    """

    def __init__(self, encoder_dim: int, llm_dim: int, downsample_rate: int, hidden_dim: int | None = None,
                 experts: int = 4, experts_per_frame: int = 2, **_):
        super().__init__(downsample_rate)
        dim, hidden_dim = encoder_dim * downsample_rate, hidden_dim or llm_dim
        self.per_frame = min(experts_per_frame, experts)
        self.ln_pre = RMSNorm(dim)
        self.router = nn.Linear(dim, experts, bias=False)
        self.shared = SwiGLU(dim, hidden_dim, llm_dim)
        self.experts = nn.ModuleList(SwiGLU(dim, hidden_dim, llm_dim) for _ in range(experts))
        self.ln_post = RMSNorm(llm_dim)
        self.auxiliary_loss: torch.Tensor | None = None

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        x = self.ln_pre(self.stack(states))
        share = self.router(x).float().softmax(-1)  # [batch, vectors, experts]
        best, index = share.topk(self.per_frame, dim=-1)
        kept = torch.zeros_like(share).scatter(-1, index, best / best.sum(-1, keepdim=True)).to(x.dtype)
        used = (kept > 0).float().mean((0, 1)) / self.per_frame
        self.auxiliary_loss = len(self.experts) * (used * share.mean((0, 1))).sum()
        # Every expert sees every frame and most results are thrown away: simple, and at this size no slower.
        mixed = sum(kept[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))
        return self.ln_post(self.shared(x) + mixed)


class QFormerProjector(nn.Module):
    """`qformer`: in every window of 3 x rate positions, 3 learnt questions look for their answers (arXiv 2301.12597).

    The same reduction as stacking, but what is kept of a window is a matter of attention, not of place.
    """

    QUERIES = 3

    def __init__(self, encoder_dim: int, llm_dim: int, downsample_rate: int, hidden_dim: int | None = None,
                 heads: int = 4, layers: int = 2, **_):
        super().__init__()
        width = hidden_dim or encoder_dim
        self.window = self.QUERIES * downsample_rate
        self.ln_pre = RMSNorm(encoder_dim)
        self.inward = nn.Linear(encoder_dim, width)
        self.places = nn.Parameter(torch.randn(self.window, width) * 0.02)
        self.queries = nn.Parameter(torch.randn(self.QUERIES, width) * 0.5)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True,
                                       norm_first=True) for _ in range(layers))
        self.outward = nn.Linear(width, llm_dim)
        self.ln_post = RMSNorm(llm_dim)

    def get_output_length(self, positions):
        """Vectors that come out for `positions` (int or integer tensor): three for every window begun."""
        return (positions + self.window - 1) // self.window * self.QUERIES

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        batch, positions, dim = states.shape
        states = nn.functional.pad(states, (0, 0, 0, -positions % self.window))
        windows = self.inward(self.ln_pre(states)).reshape(-1, self.window, self.inward.out_features) + self.places
        answers = self.queries.expand(len(windows), -1, -1)  # [batch * windows, 3, width]
        for layer in self.layers:
            answers = layer(answers, windows)
        return self.ln_post(self.outward(answers)).reshape(batch, -1, self.outward.out_features)


PROJECTORS: dict[str, type[nn.Module]] = {
    "linear": AudioProjector, "mlp": MLPProjector, "swiglu": SwiGLUProjector, "moe": MoEProjector,
    "qformer": QFormerProjector,
}


def make_projector(kind: str, encoder_dim: int, llm_dim: int, downsample_rate: int, **options) -> nn.Module:
    """A projector by its name in PROJECTORS; options that are None take that projector's own default.

    Raises ASRError for a wrong name, with the right ones, and for a rate below 1.
    """
    if kind not in PROJECTORS:
        raise ASRError(f"there is no projector '{kind}'", f"choose from {', '.join(PROJECTORS)}")
    if downsample_rate < 1:
        raise ASRError(f"a downsample rate of {downsample_rate} makes no vectors", "use 1 or more; the class uses 5")
    options = {name: value for name, value in options.items() if value is not None}
    return PROJECTORS[kind](encoder_dim, llm_dim, downsample_rate, **options)
