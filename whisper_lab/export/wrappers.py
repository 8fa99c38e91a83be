"""Whisper's encoder and decoder as two plain modules whose forward is what the ONNX graphs will contain.

They read the sub-modules of Hugging Face's `WhisperForConditionalGeneration` but none of its attention code and no
Cache object: every key and value is an ordinary input or output, so that a student sees them in Netron. Sub-modules
keep Hugging Face's path (`encoder.layers.0.self_attn.q_proj`); the exporter turns it into the node's name.

Shapes: d = d_model, d_h = d / heads, P = encoder positions, S = new tokens, T = tokens already in the cache (may be 0),
A = recordings, B = A x beams (the beams of a recording are neighbours and share its cross cache).
"""

import math

import torch
from torch import Tensor, nn

from whisper_lab import thinning
from whisper_lab.console import LabError

MASKED = -1e9  # added to a score that must not be seen; exp(-1e9 - max) is exactly 0 in float32


class Linear(nn.Module):
    """x W + b with W stored as [in, out]: a view of the checkpoint's weight, so no Transpose and no copy is needed."""

    def __init__(self, source: nn.Linear, factor: float = 1.0):
        super().__init__()
        weight, bias = source.weight.detach(), source.bias
        self.weight = nn.Parameter(weight.t() if factor == 1 else (weight * factor).t(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach() * factor, requires_grad=False)

    def add_channel(self, heads: int, value: float) -> None:
        """Let every head have a channel more, which is `value` (0 where the layer has no bias) whatever it is given."""
        wider = nn.functional.pad(self.weight.reshape(len(self.weight), heads, -1), (0, 1))
        self.weight = nn.Parameter(wider.flatten(1), requires_grad=False)
        if self.bias is not None:
            wider = nn.functional.pad(self.bias.reshape(heads, -1), (0, 1), value=value)
            self.bias = nn.Parameter(wider.flatten(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        product = torch.matmul(x, self.weight)
        return product if self.bias is None else product + self.bias


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d_h)) v: what self- and cross-attention have in common."""

    def __init__(self, source: nn.Module):
        super().__init__()
        self.heads, self.head_dim = source.num_heads, source.head_dim
        scaling = self.head_dim**-0.5
        # Every published Whisper has heads of 64: 1/8 is a power of two, so it moves into q_proj without rounding.
        # 1/sqrt(32) is not one: there the multiplication stays a node of its own, in PyTorch's order.
        folded = math.frexp(scaling)[0] == 0.5
        self.scaling = 1.0 if folded else scaling
        self.q_proj = Linear(source.q_proj, scaling if folded else 1.0)
        self.out_proj = Linear(source.out_proj)

    def split(self, x: Tensor, rows: int) -> Tensor:
        """[B, S, d] -> [rows, heads, B S / rows, d_h]"""
        return x.reshape(rows, -1, self.heads, x.shape[-1] // self.heads).transpose(1, 2)

    def attend(self, x: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [B, S, d], key and value [A, heads, K, d_h] -> mixed values [B, S, d], weights [A, heads, B S / A, K]"""
        query = self.q_proj(x)
        if self.scaling != 1:
            query = query * self.scaling
        scores = torch.matmul(self.split(query, key.shape[0]), key.transpose(-1, -2))
        weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        mixed = torch.matmul(weights, value).transpose(1, 2)
        return self.out_proj(mixed.reshape(x.shape)), weights


class SelfAttention(Attention):
    """Attention of the tokens to each other and to those before them, which are in the cache."""

    def __init__(self, source: nn.Module):
        super().__init__(source)
        self.k_proj, self.v_proj = Linear(source.k_proj), Linear(source.v_proj)

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor], mask: Tensor):
        """x [B, S, d], past two [B, heads, T, d_h], mask [S, T + S] -> [B, S, d], two caches [B, heads, T + S, d_h]"""
        new = (self.split(project(x), x.shape[0]) for project in (self.k_proj, self.v_proj))
        caches = tuple(torch.cat(pair, dim=2) for pair in zip(past, new, strict=True))
        return self.attend(x, *caches, mask)[0], caches


class SoundAttention(Attention):
    """Attention of the sound's positions to each other, of which some stand for many (thinning.py).

    What is to be added to a position's scores comes in through one more channel of each head: queries are 1 there, keys
    are it. Added to the scores themselves it would cost as much as softmax: of a whole window they are 72 MB a layer.
    """

    def __init__(self, source: nn.Module):
        super().__init__(source)
        self.k_proj, self.v_proj = Linear(source.k_proj), Linear(source.v_proj)
        self.q_proj.add_channel(self.heads, 1 / self.scaling)
        self.k_proj.add_channel(self.heads, 0)  # Whisper's keys have no bias

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """x [A, P, d], weights [P, d + heads]: of the channels that are more, the others 0 -> [A, P, d]"""
        key, value = self.k_proj(x) + weights, self.v_proj(x)
        return self.attend(x, self.split(key, x.shape[0]), self.split(value, x.shape[0]))[0]


class CrossAttention(Attention):
    """Attention of the tokens to the sound; the encoder graph has made its keys and values already."""

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, S, d], key and value [A, heads, P, d_h] -> [B, S, d], weights [A, heads, B S / A, P]"""
        return self.attend(x, key, value)


class EncoderLayer(nn.Module):
    """Self-attention and a two-layer network, each added to the residual stream; normalized before, not after."""

    def __init__(self, source: nn.Module):
        super().__init__()
        self.self_attn_layer_norm, self.final_layer_norm = source.self_attn_layer_norm, source.final_layer_norm
        self.self_attn = SoundAttention(source.self_attn)
        self.fc1, self.activation_fn, self.fc2 = Linear(source.fc1), source.activation_fn, Linear(source.fc2)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """[A, P, d], [P, d + heads] -> [A, P, d]"""
        x = x + self.self_attn(self.self_attn_layer_norm(x), weights)
        return x + self.fc2(self.activation_fn(self.fc1(self.final_layer_norm(x))))


class Thinning(nn.Module):
    """thinning.thin, and the weights where SoundAttention reads them: in the channel that each head has more."""

    def __init__(self, heads: int, width: int):
        super().__init__()
        is_last = torch.arange(heads * (width + 1)) % (width + 1) == width
        self.last_channels = nn.Parameter(is_last.float(), requires_grad=False)

    def forward(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[A, H, d], [W, d] -> [A, P, d], [P, d], [P, d + heads]; H positions of the sound, W of a whole window"""
        x, places, weights = thinning.thin(x, table)
        return x, places, weights[:, None] * self.last_channels


class Encoder(nn.Module):
    """Two convolutions (the second halves the frames), positions, the layers, and the last LayerNorm.

    A shorter window is the beginning of the whole one, and a few positions that stand for its rest (thinning.py).
    """

    def __init__(self, source: nn.Module):
        super().__init__()
        self.conv1, self.conv2, self.layer_norm = source.conv1, source.conv2, source.layer_norm
        self.embed_positions = nn.Parameter(source.embed_positions.weight.detach(), requires_grad=False)
        self.layers = nn.ModuleList(EncoderLayer(layer) for layer in source.layers)
        self.thinning = Thinning(self.layers[0].self_attn.heads, self.layers[0].self_attn.head_dim)

    def forward(self, features: Tensor) -> Tensor:
        """[A, n_mels, frames] -> [A, P, d]; of a whole window P = frames / 2, of a shorter one more: thinning.py"""
        x = nn.functional.gelu(self.conv1(features))
        x = nn.functional.gelu(self.conv2(x)).transpose(1, 2)
        x, places, weights = self.thinning(x, self.embed_positions)
        x = x + places
        for layer in self.layers:
            x = layer(x, weights)
        return self.layer_norm(x)


class CrossCache(nn.Module):
    """One decoder layer's cross-attention keys and values: they depend on the sound alone, so they are made once."""

    def __init__(self, source: nn.Module):
        super().__init__()
        self.k_proj, self.v_proj = Linear(source.k_proj), Linear(source.v_proj)
        self.heads, self.head_dim = source.num_heads, source.head_dim

    def forward(self, hidden: Tensor) -> tuple[Tensor, ...]:
        """[A, P, d] -> two times [A, heads, P, d_h]"""
        shape = hidden.shape[0], -1, self.heads, self.head_dim
        return tuple(project(hidden).reshape(shape).transpose(1, 2) for project in (self.k_proj, self.v_proj))


class EncoderGraph(nn.Module):
    """`whisper_encoder.onnx`: log-mel features -> hidden states and every decoder layer's cross cache."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.encoder = Encoder(model.model.encoder)
        self.decoder = nn.Module()  # only a path: the nodes are called decoder.layers.0.encoder_attn.k_proj/MatMul
        self.decoder.layers = nn.ModuleList(nn.Module() for _ in model.model.decoder.layers)
        for layer, source in zip(self.decoder.layers, model.model.decoder.layers, strict=True):
            layer.encoder_attn = CrossCache(source.encoder_attn)

    def forward(self, input_features: Tensor) -> tuple[Tensor, ...]:
        """[A, n_mels, frames] -> [A, P, d], then key, value [A, heads, P, d_h] for each decoder layer"""
        hidden = self.encoder(input_features)
        return hidden, *(cache for layer in self.decoder.layers for cache in layer.encoder_attn(hidden))


class DecoderLayer(nn.Module):
    """Causal self-attention over the cache, cross-attention to the sound, a two-layer network."""

    def __init__(self, source: nn.Module):
        super().__init__()
        self.self_attn_layer_norm, self.final_layer_norm = source.self_attn_layer_norm, source.final_layer_norm
        self.encoder_attn_layer_norm = source.encoder_attn_layer_norm
        self.self_attn, self.encoder_attn = SelfAttention(source.self_attn), CrossAttention(source.encoder_attn)
        self.fc1, self.activation_fn, self.fc2 = Linear(source.fc1), source.activation_fn, Linear(source.fc2)

    def forward(self, x: Tensor, mask: Tensor, past: tuple[Tensor, Tensor], cross: tuple[Tensor, Tensor]):
        """x [B, S, d], past [B, heads, T, d_h], cross [A, heads, P, d_h] -> x, (key, value), cross-attention weights"""
        attended, present = self.self_attn(self.self_attn_layer_norm(x), past, mask)
        x = x + attended
        attended, weights = self.encoder_attn(self.encoder_attn_layer_norm(x), *cross)
        x = x + attended
        return x + self.fc2(self.activation_fn(self.fc1(self.final_layer_norm(x)))), present, weights


class Decoder(nn.Module):
    """Token and position embeddings, the layers, the last LayerNorm."""

    def __init__(self, source: nn.Module):
        super().__init__()
        self.embed_tokens, self.embed_positions = source.embed_tokens, nn.Embedding.from_pretrained(
            source.embed_positions.weight.detach())
        self.layers = nn.ModuleList(DecoderLayer(layer) for layer in source.layers)
        self.layer_norm = source.layer_norm

    def forward(self, input_ids: Tensor, past_self: tuple[Tensor, ...], past_cross: tuple[Tensor, ...]):
        """-> hidden [B, S, d], the new self caches (2 per layer), the cross-attention weights (1 per layer)"""
        past, end = past_self[0].shape[2], past_self[0].shape[2] + input_ids.shape[1]
        positions = torch.arange(past, end)
        seen = torch.arange(end)[None, :] <= positions[:, None]  # [S, T + S]
        mask = torch.where(seen, 0.0, MASKED)
        x = self.embed_tokens(input_ids) + self.embed_positions(positions)
        presents, attentions = [], []
        for i, layer in enumerate(self.layers):
            both = slice(2 * i, 2 * i + 2)
            x, present, weights = layer(x, mask, past_self[both], past_cross[both])
            presents += present
            attentions.append(weights)
        return self.layer_norm(x), presents, attentions


class TiedOutput(nn.Module):
    """Logits with the token embedding as the output layer's weight: one tensor in the file for both uses."""

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """[B, S, d], [vocabulary, d] -> [B, S, vocabulary]"""
        return torch.matmul(hidden, embedding.t())


class DecoderGraph(nn.Module):
    """`whisper_decoder.onnx`: new tokens and the caches -> logits and the longer self caches.

    `alignment_heads` [(layer, head), ...] adds `cross_attention` [B, len(alignment_heads), S, P], from which word
    timestamps are made (openai/whisper timing.py).
    """

    def __init__(self, model: nn.Module, alignment_heads: list[tuple[int, int]] | None = None):
        super().__init__()
        if model.proj_out.weight is not model.model.decoder.embed_tokens.weight:
            raise LabError("the checkpoint's output layer is not tied to its token embedding, as Whisper's is",
                           "choose a Whisper checkpoint with tie_word_embeddings true in its config.json")
        self.decoder = Decoder(model.model.decoder)
        self.proj_out = TiedOutput()
        self.alignment_heads = alignment_heads

    def forward(self, input_ids: Tensor, past_self: tuple[Tensor, ...], past_cross: tuple[Tensor, ...]):
        """[B, S], 2 per layer [B, heads, T, d_h], 2 per layer [A, heads, P, d_h] -> [B, S, vocabulary], caches"""
        hidden, presents, attentions = self.decoder(input_ids, past_self, past_cross)
        logits = self.proj_out(hidden, self.decoder.embed_tokens.weight)
        if not self.alignment_heads:
            return logits, *presents
        chosen = torch.stack([attentions[layer][:, head] for layer, head in self.alignment_heads], dim=-2)
        positions = past_cross[0].shape[2]
        chosen = chosen.reshape(*input_ids.shape, len(self.alignment_heads), positions)  # from [A, B S / A, heads, P]
        return logits, *presents, chosen.transpose(1, 2)
