"""Self-attention with its positions.

Shapes: x_BTD, B batch, T tokens (S of keys), D width; N query heads, K key and value heads, H head size,
R rotated channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from layers.attention import AttentionConfig
from layers.modules.linear import build_linear
from layers.modules.normalization import build_norm


class Rotary(nn.Module):
    """Rotations of pairs of channels by position × base^(-2i / R) (Su et al. 2021, arXiv 2104.09864).

    rope_gpt_neox pairs channel i with i + R/2, rope_gptj with its neighbour. Channels beyond R pass unchanged.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.rotary_dim = config.rotary_dim
        self.interleaved = config.position_embedding_type == "rope_gptj"
        exponents = torch.arange(0, self.rotary_dim, 2, dtype=torch.float64) / self.rotary_dim
        positions = torch.arange(config.max_position_embeddings, dtype=torch.float64)
        angles = torch.outer(positions, config.rotary_embedding_base**-exponents)
        angles = angles.repeat_interleave(2, dim=-1) if self.interleaved else torch.cat((angles, angles), dim=-1)
        self.register_buffer("cosines", angles.cos().float(), persistent=False)
        self.register_buffer("sines", angles.sin().float(), persistent=False)

    def forward(self, x_BNTH: Tensor) -> Tensor:
        length = x_BNTH.shape[-2]
        cosines, sines = self.cosines[:length].to(x_BNTH.dtype), self.sines[:length].to(x_BNTH.dtype)
        if self.rotary_dim == x_BNTH.shape[-1]:
            return x_BNTH * cosines + self._turned(x_BNTH) * sines
        x_BNTR, rest = x_BNTH[..., : self.rotary_dim], x_BNTH[..., self.rotary_dim :]
        return torch.cat((x_BNTR * cosines + self._turned(x_BNTR) * sines, rest), dim=-1)

    def _turned(self, x_BNTR: Tensor) -> Tensor:
        """Each pair (a, b) as (-b, a)."""
        if self.interleaved:
            pairs = x_BNTR.unflatten(-1, (self.rotary_dim // 2, 2))
            return torch.stack((-pairs[..., 1], pairs[..., 0]), dim=-1).flatten(-2)
        first, second = x_BNTR.chunk(2, dim=-1)
        return torch.cat((-second, first), dim=-1)


class Attention(nn.Module):
    """softmax(Q Kᵀ / (q_scaling √H) + mask) V, then the output product.

    Written out when exported, so that a parser of any opset from 17 on reads it; PyTorch's fused kernel otherwise.
    """

    def __init__(self, config: AttentionConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.dropout = dropout
        self.scale = 1.0 / (config.q_scaling * math.sqrt(config.attention_head_size))
        self.causal = config.attention_mask_type == "causal"
        self.qkv = build_linear(config.qkv)
        self.dense = build_linear(config.dense)
        self.q_layernorm = build_norm(config.qk_norm) if config.qk_norm else None
        self.k_layernorm = build_norm(config.qk_norm) if config.qk_norm else None
        self.rotary = Rotary(config) if config.rotary_dim else None

    def forward(self, x_BTD: Tensor) -> Tensor:
        q_BNTH, k_BNSH, v_BNSH = self._heads(x_BTD)
        if torch.compiler.is_exporting():
            out_BNTH = self._written_out(q_BNTH, k_BNSH, v_BNSH)
        else:
            dropout = self.dropout if self.training else 0.0
            out_BNTH = functional.scaled_dot_product_attention(
                q_BNTH, k_BNSH, v_BNSH, dropout_p=dropout, is_causal=self.causal, scale=self.scale
            )
        return self.dense(out_BNTH.transpose(1, 2).flatten(2))

    def _heads(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, the latter two repeated to as many heads as the queries have."""
        n, k, h = self.config.num_attention_heads, self.config.num_kv_heads, self.config.attention_head_size
        q, key, value = self.qkv(x_BTD).split((n * h, k * h, k * h), dim=-1)
        q_BTNH, k_BTKH, v_BTKH = q.unflatten(-1, (n, h)), key.unflatten(-1, (k, h)), value.unflatten(-1, (k, h))
        if self.q_layernorm is not None and self.k_layernorm is not None:
            q_BTNH, k_BTKH = self.q_layernorm(q_BTNH), self.k_layernorm(k_BTKH)
        q_BNTH, k_BKTH, v_BKTH = q_BTNH.transpose(1, 2), k_BTKH.transpose(1, 2), v_BTKH.transpose(1, 2)
        if self.rotary is not None:
            q_BNTH, k_BKTH = self.rotary(q_BNTH), self.rotary(k_BKTH)
        return q_BNTH, self._repeated(k_BKTH), self._repeated(v_BKTH)

    def _repeated(self, x_BKTH: Tensor) -> Tensor:
        groups = self.config.num_attention_heads // self.config.num_kv_heads
        if groups == 1:
            return x_BKTH
        b, k, t, h = x_BKTH.shape
        return x_BKTH.unsqueeze(2).expand(b, k, groups, t, h).reshape(b, k * groups, t, h)

    def _written_out(self, q_BNTH: Tensor, k_BNSH: Tensor, v_BNSH: Tensor) -> Tensor:
        # Queries are scaled before the product: in float16 the unscaled scores of a wide head may overflow.
        scores_BNTS = (q_BNTH * self.scale) @ k_BNSH.transpose(-1, -2)
        if self.causal:
            scores_BNTS = scores_BNTS + causal_mask(scores_BNTS.shape[-1], scores_BNTS.dtype, scores_BNTS.device)
        return torch.softmax(scores_BNTS, dim=-1) @ v_BNSH


def causal_mask(length: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """[T, S] to be added to scores: 0 up to the diagonal, half the lowest finite number above it.

    Finite, and half of it, so that no score can push a sum to infinity and make a row of NaN.
    """
    lowest = torch.finfo(dtype).min / 2
    return torch.full((length, length), lowest, dtype=dtype, device=device).triu(1)


def build_attention(config: AttentionConfig, *, dropout: float = 0.0) -> Attention:
    return Attention(config, dropout=dropout)
