"""Embedding: look-up, and the projection of a narrower table."""

from __future__ import annotations

import torch

from layers.declarations.embedding import EmbeddingConfig
from layers.modules.embedding import build_embedding

TOKENS = torch.tensor([[0, 3, 9], [9, 1, 1]], dtype=torch.int32)


def test_tokens_read_their_rows():
    module = build_embedding(EmbeddingConfig(num_embeddings=10, embedding_dim=8, hidden_size=8))
    assert torch.equal(module(TOKENS)[0, 1], module.table.weight[3])
    assert module.projection is None


def test_a_narrower_table_is_projected_without_a_bias():
    module = build_embedding(EmbeddingConfig(num_embeddings=10, embedding_dim=4, hidden_size=8))
    assert module.projection is not None
    expected = module.table.weight[TOKENS.long()] @ module.projection.weight.T
    torch.testing.assert_close(module(TOKENS), expected)
    assert module.projection.bias is None


def test_a_tied_head_projects_back_to_the_table(completed):
    from layers.modules.model import build

    module = build(completed({"embedding.embedding_dim": 16}))
    assert module.head.projection.weight.shape == (16, 32)
    assert build(completed({"embedding.embedding_dim": 16, "tie_embeddings": False})).head.projection is None
