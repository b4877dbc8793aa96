"""Embedding. Shapes: tokens_BT, B batch, T tokens; E the table's width, D the model's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layers.embedding import EmbeddingConfig
from layers.modules.linear import build_linear


class Embedding(nn.Module):
    """Rows of a table, projected to the model's width where that differs."""

    def __init__(self, config: EmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        self.format: torch.dtype | None = None
        """What comes out of the table, where the table has a format of its own."""
        self.table = nn.Embedding(config.num_embeddings, config.embedding_dim)
        self.projection = build_linear(config.projection) if config.projection else None

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTE = self.table(tokens_BT)
        if self.format is not None:
            x_BTE = x_BTE.to(self.format)
        return x_BTE if self.projection is None else self.projection(x_BTE)


def build_embedding(config: EmbeddingConfig) -> Embedding:
    return Embedding(config)
