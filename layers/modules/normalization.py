"""LayerNorm, RmsNorm and GroupNorm over the channels of each token.

They compute in the format that they declare, float32 by default, whatever the model's number format is, and answer in
the format that they were given. eps is added in float32 in any case.
Shapes: x_BTD, B batch, T tokens, D channels (or any number of leading dimensions); G groups, C channels of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from layers.declarations.normalization import NormConfig

_LEAST_ADDED = 1e-7
_SCALE = 4096.0


class Norm(nn.Module):
    """What the kinds share: learned scale and shift, one for each channel."""

    def __init__(self, config: NormConfig) -> None:
        super().__init__()
        self.config = config
        self.compute_dtype = torch.float32
        """In which it computes; in an engine that of its configuration."""
        self.width = config.width
        self.eps = config.eps
        self.num_groups = config.num_groups
        self.weight = nn.Parameter(torch.ones(config.width)) if config.elementwise_affine else None
        self.bias = nn.Parameter(torch.zeros(config.width)) if config.bias else None

    def _affine(self, x_BTD: Tensor) -> Tensor:
        if self.weight is not None:
            x_BTD = x_BTD * self.weight.to(self.compute_dtype)
        if self.bias is not None:
            x_BTD = x_BTD + self.bias.to(self.compute_dtype)
        return x_BTD


def _inverse_root(mean_BTG1: Tensor, eps: float) -> Tensor:
    """1 / √(mean + eps), in float32.

    The exporter takes an addition of 1e-8 or less for one of nothing and leaves it out. A tiny eps is therefore added
    to the mean at a larger scale: by a power of two, which changes no digit of the result.
    """
    if eps >= _LEAST_ADDED:
        return torch.rsqrt(mean_BTG1 + eps)
    return torch.rsqrt(mean_BTG1 * _SCALE**2 + eps * _SCALE**2) * _SCALE


class LayerNorm(Norm):
    """(x - mean) / √(variance + eps) (Ba et al. 2016, arXiv 1607.06450)."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        weight = None if self.weight is None else self.weight.to(self.compute_dtype)
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        return functional.layer_norm(x_BTD.to(self.compute_dtype), (self.width,), weight, bias, self.eps).to(
            x_BTD.dtype
        )


class RmsNorm(Norm):
    """x / √(mean of squares + eps), the mean taken over each group (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTGC = x_BTD.to(self.compute_dtype)
        if self.num_groups > 1:
            x_BTGC = x_BTGC.unflatten(-1, (self.num_groups, self.width // self.num_groups))
        mean_BTG1 = (x_BTGC * x_BTGC).mean(dim=-1, keepdim=True)
        # eps, and what a row of zeros is multiplied by, lie beyond what float16 holds.
        x_BTGC = (x_BTGC.float() * _inverse_root(mean_BTG1.float(), self.eps)).to(self.compute_dtype)
        return self._affine(x_BTGC.reshape(x_BTD.shape)).to(x_BTD.dtype)


class GroupNorm(Norm):
    """LayerNorm over each group of a token's channels (Wu & He 2018, arXiv 1803.08494), never over time."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        size = self.width // self.num_groups
        x_BTGC = x_BTD.to(self.compute_dtype).unflatten(-1, (self.num_groups, size))
        x_BTGC = functional.layer_norm(x_BTGC, (size,), None, None, self.eps)
        return self._affine(x_BTGC.reshape(x_BTD.shape)).to(x_BTD.dtype)


_KINDS: dict[str, type[Norm]] = {"LayerNorm": LayerNorm, "RmsNorm": RmsNorm, "GroupNorm": GroupNorm}


def build_norm(config: NormConfig) -> Norm:
    return _KINDS[config.kind](config)
