"""nn.Linear from its declaration."""

from __future__ import annotations

from torch import nn

from layers.declarations.linear import LinearConfig


def build_linear(config: LinearConfig) -> nn.Linear:
    return nn.Linear(config.in_features, config.out_features, bias=config.bias)
