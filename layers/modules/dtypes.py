"""Dtypes of a module that is to be exported: the model's, and those of single kinds of layers in it.

Modules are made and trained in float32; only the copy that an engine is built from has others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layers.declarations.linear import LinearConfig
from layers.modules.attention import Attention
from layers.modules.embedding import Embedding
from layers.modules.key_values import KeyValues
from layers.modules.mlp import FusedGatedMlp, GatedMlp, Mlp
from layers.modules.model import LayerProbe, torch_dtype
from layers.modules.normalization import Norm


class InDtype(nn.Module):
    """A layer in a dtype of its own: what it takes is brought to it, what it gives brought back."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = layer.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.to(self.dtype)).to(x.dtype)


class AttentionInDtype(InDtype):
    """The same of attention, with its bias and an encoder's output. Keys and values that are kept are in its dtype."""

    def forward(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        encoded: Tensor | None = None,
        key_values: KeyValues | None = None,
    ) -> Tensor:
        if bias is not None:
            # What hides a key is near the lowest number of the other format: here it would be infinite, and a row NaN.
            bias = bias.clamp(min=max(torch.finfo(self.dtype).min, torch.finfo(bias.dtype).min) / 2).to(self.dtype)
        encoded = None if encoded is None else encoded.to(self.dtype)
        return self.layer(x.to(self.dtype), bias, encoded, key_values).to(x.dtype)


def set_dtypes(module: nn.Module, dtype: str) -> nn.Module:
    """Bring a module, in place, to a model's `dtype` and its layers to those that their configurations name."""
    whole = torch_dtype(dtype)
    module.to(whole)
    for name, part in list(module.named_modules()):
        match part:
            case Norm():
                part.compute_dtype = torch_dtype(part.config.dtype)
            case Embedding() if part.config.dtype is not None:
                for table in (each for each in part.children() if isinstance(each, nn.Embedding)):
                    table.to(torch_dtype(part.config.dtype))
                part.output_dtype = whole
            case Attention() if _differs(part.config.dtype, whole):
                module.set_submodule(name, AttentionInDtype(part, torch_dtype(str(part.config.dtype))))
            case Mlp() | GatedMlp() | FusedGatedMlp() if _differs(part.config.dtype, whole):
                module.set_submodule(name, InDtype(part, torch_dtype(str(part.config.dtype))))
            case LayerProbe(config=LinearConfig(dtype=str(own))) if _differs(own, whole):
                module.set_submodule(f"{name}.layer".lstrip("."), InDtype(part.layer, torch_dtype(own)))
            case _:
                pass
    return module


def _differs(own: str | None, whole: torch.dtype) -> bool:
    return own is not None and torch_dtype(own) != whole
