"""A small checkpoint as `save_pretrained` would write it, made without it."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors.torch import save

from layers.checkpoints.conversion import to_transformers
from layers.checkpoints.matching import match
from layers.completion import complete
from layers.modules.model import build

VALUES: dict[str, Any] = {
    "num_layers": 1,
    "hidden_size": 16,
    "attention.num_attention_heads": 2,
    "attention.position_embedding_type": "rope_gpt_neox",
    "attention.max_position_embeddings": 64,
    "attention.bias": False,
    "mlp.kind": "GatedMLP",
    "mlp.ffn_hidden_size": 32,
    "mlp.bias": False,
    "norm.kind": "RmsNorm",
}


def checkpoint_files(*, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> dict[str, bytes]:
    """The fields of an upload."""
    model = complete("causal_lm", {**VALUES, **changes}, {"vocabulary_size": 256, "sequence_length": 64})
    torch.manual_seed(seed)
    weights = {name: value.numpy() for name, value in build(model).state_dict().items()}
    found = match(model)
    tensors = to_transformers(model, found, weights)
    return {
        "config": json.dumps(found.config).encode(),
        "weights": save({name: torch.from_numpy(tensor).to(dtype) for name, tensor in tensors.items()}),
    }
