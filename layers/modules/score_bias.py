"""What is added to the scores of attention: masks, relative positions and ALiBi.

Shapes: bias_BNTS, B batch (or 1), N heads (or 1), T queries, S keys.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from layers.declarations.score_bias import RelativeConfig, ScoreBiasConfig


class RelativeBias(nn.Module):
    """T5's learned bias for each head and bucket of distances (Raffel et al. 2020, arXiv 1910.10683)."""

    def __init__(self, config: RelativeConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Parameter(torch.empty(config.num_heads, config.num_buckets))
        self._kept: tuple[int, int, Tensor] | None = None

    def forward(self, queries: int, keys: int) -> Tensor:
        """Numbers of tokens -> [1, N, T, S]."""
        # By distance first: there are T + S - 1 of them, and T x S pairs. In a graph the buckets are a constant.
        values_LN = functional.embedding(self._buckets(queries, keys), self.table.t())
        pairs_TS = distances(queries, keys, self.table.device) + (queries - 1)
        return functional.embedding(pairs_TS, values_LN).permute(2, 0, 1).unsqueeze(0)

    def of_past(self, far_S: Tensor, longest: int) -> Tensor:
        """How far keys lie before one token, each from 0 to `longest` -> [1, N, 1, S]."""
        buckets = torch.tensor([self.config.bucket(-far) for far in range(longest + 1)], device=self.table.device)
        # The table by distance is a constant of the graph's weights; keys are looked up in it once.
        values_LN = functional.embedding(buckets, self.table.t())
        return functional.embedding(far_S, values_LN).t()[None, :, None, :]

    def _buckets(self, queries: int, keys: int) -> Tensor:
        """The bucket of each distance, kept from step to step: no CUDA graph takes them out of the host's memory."""
        if torch.compiler.is_exporting():
            return self._made(queries, keys)
        if self._kept is None or (*self._kept[:2], self._kept[2].device) != (queries, keys, self.table.device):
            # A training may be the next to use them: what is made in inference mode, autograd refuses.
            with torch.inference_mode(False):
                self._kept = queries, keys, self._made(queries, keys)
        return self._kept[2]

    def _made(self, queries: int, keys: int) -> Tensor:
        buckets = [self.config.bucket(distance) for distance in range(1 - queries, keys)]
        return torch.tensor(buckets, device=self.table.device)


class ScoreBias(nn.Module):
    """All that a layer adds to its scores; layers of a stack with the same configuration share one."""

    slopes: Tensor

    def __init__(self, config: ScoreBiasConfig) -> None:
        super().__init__()
        self.config = config
        self.relative = RelativeBias(config.relative) if config.relative else None
        self.register_buffer("slopes", torch.tensor(config.alibi_slopes), persistent=False)

    def forward(self, query: Tensor, keys: int, mask: Tensor | None) -> Tensor | None:
        """The bias [B, N, T, S], B and N 1 if it is the same for all, or None if nothing is to be added.

        query: [B, T, D], whose length, number format and device count; keys: how many there are. mask: of a padding
        mask, [B, S]; of a custom one, [B, T, S]; 1 if a key may be seen, else 0.
        A plain causal mask is left to the kernel that attends, except in a graph, which has none.
        """
        if self.config.only_causal and not torch.compiler.is_exporting():
            return None
        queries, dtype, device = query.shape[1], query.dtype, query.device
        bias = self._mask(queries, keys, mask, dtype, device)
        if self.relative is not None:
            bias = _sum(bias, self.relative(queries, keys).to(dtype))
        if self.config.alibi_slopes:
            far_TS = distances(queries, keys, device).abs()
            bias = _sum(bias, -self.slopes.to(dtype)[:, None, None] * far_TS.to(dtype))
        return bias

    def of_token(self, dtype: torch.dtype, position_1: Tensor, positions_S: Tensor, longest: int) -> Tensor:
        """The bias [1, N, 1, S + 1] of one token for past keys and its own, which is the last; N 1 if it is the same
        for all heads.

        positions_S: of the past keys, in any order; -1 if there is none. None is later than the token's own.
        longest: the highest position.
        """
        far_S = position_1 - positions_S
        unseen_S = positions_S < 0
        if self.config.window_size is not None:
            unseen_S = unseen_S | (far_S >= self.config.window_size)
        bias_S = hidden(unseen_S, dtype)
        bias = torch.cat((bias_S, bias_S.new_zeros(1)))[None, None, None]
        far_S = torch.cat((far_S, torch.zeros_like(position_1)))
        if self.relative is not None:
            bias = bias + self.relative.of_past(far_S.clamp(max=longest), longest).to(dtype)
        if self.config.alibi_slopes:
            bias = bias - self.slopes.to(dtype)[:, None, None] * far_S.to(dtype)
        return bias

    def _mask(
        self, queries: int, keys: int, mask: Tensor | None, dtype: torch.dtype, device: torch.device
    ) -> Tensor | None:
        match self.config.mask_type:
            case "bidirectional":
                return None
            case "sliding_window":
                assert mask is not None
                assert self.config.window_size is not None
                far_TS = distances(queries, keys, device).abs() >= self.config.window_size
                return hidden((mask[:, None, None, :] == 0) | far_TS, dtype)
            case "padding":
                assert mask is not None
                return hidden(mask[:, None, None, :] == 0, dtype)
            case "custom_mask":
                assert mask is not None
                return hidden(mask[:, None, :, :] == 0, dtype)
            case _:
                distance_TS = distances(queries, keys, device)
                unseen_TS = distance_TS > 0
                if self.config.window_size is not None:
                    unseen_TS = unseen_TS | (distance_TS <= -self.config.window_size)
                return hidden(unseen_TS[None, None], dtype)


def distances(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """[T, S]: key's position - query's position, both counted from the first token."""
    return torch.arange(keys, device=device) - torch.arange(queries, device=device)[:, None]


def hidden(unseen: Tensor, dtype: torch.dtype) -> Tensor:
    """To be added to scores: 0 if a key is seen, half the lowest finite number if it is not.

    Finite, and half of it, so that no score can push a sum to infinity and make a row of NaN.
    """
    return unseen.to(dtype) * (torch.finfo(dtype).min / 2)


def _sum(bias: Tensor | None, other: Tensor) -> Tensor:
    return other if bias is None else bias + other
