"""Attention.

Shapes: x_BTD, B batch, T tokens (S of keys), D width; N query heads, K key and value heads, H head size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from layers.declarations.attention import AttentionConfig
from layers.modules.key_values import KeyValues
from layers.modules.linear import build_linear
from layers.modules.normalization import build_norm
from layers.modules.rotation import Rotary
from layers.modules.score_bias import distances, hidden


class Attention(nn.Module):
    """softmax(Q Kᵀ / (q_scaling √H) + bias) V, then the output product: tokens attend to each other.

    Written out when exported, so that a parser of any opset from 17 on reads it, and if scores are capped; PyTorch's
    fused kernel otherwise.
    """

    def __init__(self, config: AttentionConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.dropout = dropout
        self.scale = 1.0 / (config.q_scaling * math.sqrt(config.attention_head_size))
        self.dense = build_linear(config.dense)
        self.q_layernorm = build_norm(config.query_norm) if config.query_norm else None
        self.k_layernorm = build_norm(config.key_norm) if config.key_norm else None
        self.rotary = Rotary(config.rotation) if config.rotation else None
        self._make_matmuls()

    def _make_matmuls(self) -> None:
        self.qkv = build_linear(self.config.qkv)

    def forward(
        self,
        x_BTD: Tensor,
        bias_BNTS: Tensor | None = None,
        encoded_BSD: Tensor | None = None,
        key_values: KeyValues | None = None,
    ) -> Tensor:
        """Bias None: nothing is added to the scores, but a causal layer is causal all the same.

        `key_values`: takes the keys and values of these tokens; if it holds those of earlier ones, x is one token,
        which attends to them and to itself, and the bias is of them and of itself, in this order.
        """
        position = None if key_values is None else key_values.position
        q_BNTH, k_BKSH, v_BKSH = self._heads(*self._project(x_BTD, encoded_BSD), position)
        if key_values is not None:
            key_values.new = k_BKSH, v_BKSH
        if key_values is not None and key_values.past is not None:
            attended_BNTH = self._attend_to_past(q_BNTH, (k_BKSH, v_BKSH), key_values.past, bias_BNTS)
        else:
            attended_BNTH = self._attend(q_BNTH, self._repeated(k_BKSH), self._repeated(v_BKSH), bias_BNTS)
        return self.dense(attended_BNTH.transpose(1, 2).flatten(2))

    def _project(self, x_BTD: Tensor, encoded_BSD: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, heads not yet apart."""
        width, kv_width = self.config.query.out_features, self.config.key_value.out_features // 2
        q, k, v = self.qkv(x_BTD).split((width, kv_width, kv_width), dim=-1)
        return q, k, v

    def _heads(self, q: Tensor, k: Tensor, v: Tensor, position_1: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Head by head, normalized and rotated. `position_1`: of a single token; None: they are the first tokens."""
        by_width = self.config.qk_norm_scope == "width"
        if by_width:
            q, k = self._normalized(q, k)
        q_BTNH, k_BSKH, v_BSKH = (x.unflatten(-1, (-1, self.config.attention_head_size)) for x in (q, k, v))
        if not by_width:
            q_BTNH, k_BSKH = self._normalized(q_BTNH, k_BSKH)
        q_BNTH, k_BKSH, v_BKSH = q_BTNH.transpose(1, 2), k_BSKH.transpose(1, 2), v_BSKH.transpose(1, 2)
        if self.rotary is not None:
            q_BNTH, k_BKSH = self.rotary(q_BNTH, position_1), self.rotary(k_BKSH, position_1)
        return q_BNTH, k_BKSH, v_BKSH

    def _normalized(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        if self.q_layernorm is None or self.k_layernorm is None:
            return q, k
        return self.q_layernorm(q), self.k_layernorm(k)

    def _repeated(self, x_BKSH: Tensor) -> Tensor:
        """As many heads as the queries have."""
        groups = self.config.num_attention_heads // self.config.num_kv_heads
        if groups == 1:
            return x_BKSH
        b, k, s, h = x_BKSH.shape
        return x_BKSH.unsqueeze(2).expand(b, k, groups, s, h).reshape(b, k * groups, s, h)

    def _attend(self, q_BNTH: Tensor, k_BNSH: Tensor, v_BNSH: Tensor, bias_BNTS: Tensor | None) -> Tensor:
        if torch.compiler.is_exporting() or self.config.softcap is not None:
            return self._written_out(q_BNTH, k_BNSH, v_BNSH, bias_BNTS)
        return functional.scaled_dot_product_attention(
            q_BNTH,
            k_BNSH,
            v_BNSH,
            attn_mask=bias_BNTS,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=bias_BNTS is None and self.config.attention_mask_type == "causal",
            scale=self.scale,
        )

    def _written_out(self, q_BNTH: Tensor, k_BNSH: Tensor, v_BNSH: Tensor, bias_BNTS: Tensor | None) -> Tensor:
        # Queries are scaled before the product: in float16 the unscaled scores of a wide head may overflow.
        scores_BNTS = self._capped((q_BNTH * self.scale) @ k_BNSH.transpose(-1, -2))
        if bias_BNTS is None and self.config.attention_mask_type == "causal":
            unseen_TS = distances(q_BNTH.shape[2], k_BNSH.shape[2], q_BNTH.device) > 0
            bias_BNTS = hidden(unseen_TS[None, None], scores_BNTS.dtype)
        if bias_BNTS is not None:
            scores_BNTS = scores_BNTS + bias_BNTS
        shares_BNTS = functional.dropout(torch.softmax(scores_BNTS, dim=-1), self.dropout, self.training)
        return shares_BNTS @ v_BNSH

    def _capped(self, scores: Tensor) -> Tensor:
        softcap = self.config.softcap
        return scores if softcap is None else torch.tanh(scores / softcap) * softcap

    def _attend_to_past(
        self,
        q_BN1H: Tensor,
        new: tuple[Tensor, Tensor],
        past: tuple[Tensor, Tensor],
        bias_BN1S: Tensor | None,
    ) -> Tensor:
        """One token's attention to past keys and its own. Scores are joined, not keys: no cache is copied, and the
        query heads of a group (G of each of K) share its keys, which are not repeated."""
        (k_BK1H, v_BK1H), (k_BKSH, v_BKSH) = new, past
        q_BKGH = self._in_groups(q_BN1H)
        scores_BKGS = torch.cat((q_BKGH @ k_BKSH.transpose(-1, -2), q_BKGH @ k_BK1H.transpose(-1, -2)), dim=-1)
        shares_BKGS = self._shares_of_token(scores_BKGS, bias_BN1S)
        attended_BKGH = shares_BKGS[..., :-1] @ v_BKSH + shares_BKGS[..., -1:] * v_BK1H
        return attended_BKGH.reshape(q_BN1H.shape)

    def _in_groups(self, q_BN1H: Tensor) -> Tensor:
        """One token's queries, scaled, by the key head that they share: [B, K, G, H]."""
        b, n, _, h = q_BN1H.shape
        kv_heads = self.config.num_kv_heads
        return (q_BN1H * self.scale).reshape(b, kv_heads, n // kv_heads, h)

    def _shares_of_token(self, scores_BKGS: Tensor, bias_BN1S: Tensor | None) -> Tensor:
        scores_BKGS = self._capped(scores_BKGS)
        if bias_BN1S is not None:
            # One bias of all heads is spread over them; one of each head is laid out by groups.
            _, kv_heads, groups, _ = scores_BKGS.shape
            alike = bias_BN1S.shape[1] == 1
            scores_BKGS = scores_BKGS + (bias_BN1S if alike else bias_BN1S.reshape(1, kv_heads, groups, -1))
        return torch.softmax(scores_BKGS, dim=-1)


class CrossAttention(Attention):
    """The same with keys and values of an encoder's output."""

    def _make_matmuls(self) -> None:
        self.query = build_linear(self.config.query)
        self.key_value = build_linear(self.config.key_value)

    def forward(
        self,
        x_BTD: Tensor,
        bias_BNTS: Tensor | None = None,
        encoded_BSD: Tensor | None = None,
        key_values: KeyValues | None = None,
    ) -> Tensor:
        """`key_values`: takes those of the encoder's output; if it holds them, x is one token, and they stand in for
        the output."""
        if key_values is None or key_values.past is None:
            return super().forward(x_BTD, bias_BNTS, encoded_BSD, key_values)
        k_BKSH, v_BKSH = key_values.past
        q_BN1H = self._query_heads(x_BTD)
        shares_BKGS = self._shares_of_token(self._in_groups(q_BN1H) @ k_BKSH.transpose(-1, -2), bias_BNTS)
        attended_BN1H = (shares_BKGS @ v_BKSH).reshape(q_BN1H.shape)
        return self.dense(attended_BN1H.transpose(1, 2).flatten(2))

    def _query_heads(self, x_B1D: Tensor) -> Tensor:
        """Head by head, normalized as `_heads` does; there are no rotations of an encoder's output."""
        by_width = self.config.qk_norm_scope == "width"
        q_B1NH = self.query(x_B1D)
        if self.q_layernorm is not None and by_width:
            q_B1NH = self.q_layernorm(q_B1NH)
        q_B1NH = q_B1NH.unflatten(-1, (-1, self.config.attention_head_size))
        if self.q_layernorm is not None and not by_width:
            q_B1NH = self.q_layernorm(q_B1NH)
        return q_B1NH.transpose(1, 2)

    def _project(self, x_BTD: Tensor, encoded_BSD: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        assert encoded_BSD is not None, "cross attention needs an encoder's output"
        k, v = self.key_value(encoded_BSD).chunk(2, dim=-1)
        return self.query(x_BTD), k, v


def build_attention(config: AttentionConfig, *, dropout: float = 0.0) -> Attention:
    return (CrossAttention if config.cross_attention else Attention)(config, dropout=dropout)
