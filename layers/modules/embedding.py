"""Embedding. Shapes: tokens_BT, B batch, T tokens; E the table's width, D the model's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layers.declarations.embedding import EmbeddingConfig
from layers.modules.linear import build_linear


class Embedding(nn.Module):
    """Rows of a table, projected to the model's width if that differs."""

    def __init__(self, config: EmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        self.output_dtype: torch.dtype | None = None
        """What comes out of the table, if the table has a format of its own."""
        self.table = nn.Embedding(config.num_embeddings, config.embedding_dim)
        self.projection = build_linear(config.projection) if config.projection else None

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self._outward(self.table(tokens_BT))

    def prompted(self, tokens_BT: Tensor) -> Tensor:
        """What a model reads: [B, T, D], or [B, P + T, D] with a prompt before the tokens."""
        return self(tokens_BT)

    def _outward(self, x_BTE: Tensor) -> Tensor:
        """From the table's number format and width to the model's."""
        if self.output_dtype is not None:
            x_BTE = x_BTE.to(self.output_dtype)
        return x_BTE if self.projection is None else self.projection(x_BTE)


class PromptTuningEmbedding(Embedding):
    """The same, with ids from `vocab_size` on read from a table of prompts, one a task (as TensorRT-LLM's layer)."""

    def __init__(self, config: EmbeddingConfig) -> None:
        super().__init__(config)
        self.prompts = nn.Embedding(config.num_tasks * config.prompt_length, config.embedding_dim)

    def forward(self, tokens_BT: Tensor, tasks_B: Tensor | None = None) -> Tensor:
        """tokens [B, T], each below vocab_size + prompt_length; whose prompt a sequence reads [B], or the first."""
        virtual_BT = tokens_BT >= self.config.vocab_size
        rows_BT = torch.where(virtual_BT, tokens_BT - self.config.vocab_size, 0)
        if tasks_B is not None:
            rows_BT = rows_BT + tasks_B[:, None] * self.config.prompt_length
        read_BTE = self.table(torch.where(virtual_BT, 0, tokens_BT))
        return self._outward(torch.where(virtual_BT[..., None], self.prompts(rows_BT), read_BTE))

    def prompted(self, tokens_BT: Tensor) -> Tensor:
        first, length = self.config.vocab_size, self.config.prompt_length
        ids = torch.arange(first, first + length, dtype=tokens_BT.dtype, device=tokens_BT.device)
        return self(torch.cat((ids.expand(tokens_BT.shape[0], length), tokens_BT), dim=1))


def build_embedding(config: EmbeddingConfig) -> Embedding:
    return PromptTuningEmbedding(config) if config.prompt_length else Embedding(config)
