"""MLP, GatedMLP and FusedGatedMLP. Shapes: x_BTD, B batch, T tokens, D width; F feed-forward width."""

from __future__ import annotations

from torch import Tensor, nn

from layers.declarations.mlp import MlpConfig
from layers.modules.activations import ACTIVATIONS
from layers.modules.linear import build_linear


class Mlp(nn.Module):
    """act(x W₁) W₂."""

    def __init__(self, config: MlpConfig) -> None:
        super().__init__()
        self.config = config
        first, last = config.linears
        self.fc = build_linear(first)
        self.proj = build_linear(last)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.proj(self.activation(self.fc(x_BTD)))


class GatedMlp(nn.Module):
    """(act(x Wg) ∘ x Wu) W₂ (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: MlpConfig) -> None:
        super().__init__()
        self.config = config
        gate, up, last = config.linears
        self.gate = build_linear(gate)
        self.up = build_linear(up)
        self.proj = build_linear(last)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.proj(self.activation(self.gate(x_BTD)) * self.up(x_BTD))


class FusedGatedMlp(nn.Module):
    """GatedMlp with one product for [Wg, Wu]: its rows are the gate's, then the up projection's."""

    def __init__(self, config: MlpConfig) -> None:
        super().__init__()
        self.config = config
        fused, last = config.linears
        self.fused_fc = build_linear(fused)
        self.proj = build_linear(last)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x_BTD: Tensor) -> Tensor:
        gate_BTF, up_BTF = self.fused_fc(x_BTD).chunk(2, dim=-1)
        return self.proj(self.activation(gate_BTF) * up_BTF)


_KINDS = {"MLP": Mlp, "GatedMLP": GatedMlp, "FusedGatedMLP": FusedGatedMlp}


def build_mlp(config: MlpConfig) -> Mlp | GatedMlp | FusedGatedMlp:
    return _KINDS[config.kind](config)
