"""Embedding. Shapes: tokens_BT, B batch, T tokens; E the table's width, D the model's."""

from __future__ import annotations

from torch import Tensor, nn

from layers.embedding import EmbeddingConfig
from layers.modules.linear import build_linear


class Embedding(nn.Module):
    """Rows of a table, projected to the model's width where that differs."""

    def __init__(self, config: EmbeddingConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(config.num_embeddings, config.embedding_dim)
        self.projection = build_linear(config.projection) if config.projection else None

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTE = self.table(tokens_BT)
        return x_BTE if self.projection is None else self.projection(x_BTE)


def build_embedding(config: EmbeddingConfig) -> Embedding:
    return Embedding(config)
