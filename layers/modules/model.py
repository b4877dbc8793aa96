"""The model that a completed declaration describes.

Shapes: B batch, T tokens, D width, V logits a token (rows of the embedding).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from layers.base import Scalar
from layers.model import ModelConfig
from layers.modules.attention import build_attention
from layers.modules.embedding import build_embedding
from layers.modules.linear import build_linear
from layers.modules.mlp import build_mlp
from layers.modules.normalization import build_norm

INITIAL_DEVIATION = 0.02
"""Of every matrix and table at the start (Radford et al. 2019; karpathy/nanoGPT model.py)."""


class Block(nn.Module):
    """Attention and feed-forward, each added to the residual stream; normalized before it (pre) or after (post)."""

    def __init__(self, config: ModelConfig, dropout: float) -> None:
        super().__init__()
        self.pre = config.norm_position == "pre"
        self.input_layernorm = build_norm(config.norm)
        self.attention = build_attention(config.attention, dropout=dropout)
        self.post_layernorm = build_norm(config.norm)
        self.mlp = build_mlp(config.mlp)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.pre:
            x_BTD = x_BTD + self.dropout(self.attention(self.input_layernorm(x_BTD)))
            return x_BTD + self.dropout(self.mlp(self.post_layernorm(x_BTD)))
        x_BTD = self.input_layernorm(x_BTD + self.dropout(self.attention(x_BTD)))
        return self.post_layernorm(x_BTD + self.dropout(self.mlp(x_BTD)))


class Decoder(nn.Module):
    """Tokens to the logits of the token after each of them."""

    def __init__(self, config: ModelConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.embedding = build_embedding(config.embedding)
        self.position_embedding = (
            nn.Embedding(config.position_rows, config.hidden_size) if config.position_rows else None
        )
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Block(config, dropout) for _ in range(config.num_layers))
        self.final_layernorm = build_norm(config.norm) if config.norm_position == "pre" else None
        self.head_projection = build_linear(config.head_projection) if config.head_projection else None
        self.lm_head = None if config.tie_embeddings else build_linear(config.head)
        self._initialize()

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """tokens int32 [B, T], T at most max_position_embeddings -> logits [B, T, V] in the model's number format."""
        length = tokens_BT.shape[1]
        if length > self.config.attention.max_position_embeddings:
            longest = self.config.attention.max_position_embeddings
            raise ValueError(f"{length} tokens are more than max_position_embeddings = {longest}")
        x_BTD = self.embedding(tokens_BT)
        if self.position_embedding is not None:
            x_BTD = x_BTD + self.position_embedding.weight[:length]
        x_BTD = self.dropout(x_BTD)
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        if self.final_layernorm is not None:
            x_BTD = self.final_layernorm(x_BTD)
        if self.head_projection is not None:
            x_BTD = self.head_projection(x_BTD)
        if self.lm_head is not None:
            return self.lm_head(x_BTD)
        return functional.linear(x_BTD, self.embedding.table.weight)

    def _initialize(self) -> None:
        """Normal weights, those that write to the residual stream smaller by √(2 layers), as GPT-2; biases zero."""
        residual_deviation = INITIAL_DEVIATION / math.sqrt(2 * self.config.num_layers)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                writes_residual = name.endswith((".attention.dense", ".mlp.proj"))
                deviation = residual_deviation if writes_residual else INITIAL_DEVIATION
                nn.init.normal_(module.weight, std=deviation)
            if isinstance(module, nn.Linear) and module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
                nn.init.zeros_(module.bias)


_KINDS = {"decoder": Decoder}


def build(model: Mapping[str, Scalar], *, dropout: float = 0.0) -> nn.Module:
    """The module of a completed model (layers.model.complete) that breaks no rule, in float32 and in training mode.

    Its weights are drawn from torch's global generator: call `torch.manual_seed` before for the same ones again.
    """
    return _KINDS[str(model["kind"])](ModelConfig.of(model), dropout=dropout)


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of a declared `dtype`."""
    return {
        "float32": torch.float32,
        "tf32": torch.float32,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
    }[name]
