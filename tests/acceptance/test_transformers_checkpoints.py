"""A model comes from `transformers`, is trained on by a sweep, and its winner goes back there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from layersweep import Client
from tests.acceptance.deployment import Deployment

DOCUMENT: dict[str, Any] = {
    "name": "there and back",
    "task": "causal_lm",
    "dataset": "python-topics",
    "model": {
        "num_layers": 1,
        "hidden_size": 32,
        "embedding": {"num_embeddings": 256},
        "attention": {
            "num_attention_heads": 4,
            "num_kv_heads": 2,
            "position_embedding_type": "rope_gpt_neox",
            "qk_norm": "RmsNorm",
            "bias": False,
        },
        "mlp": {"kind": "FusedGatedMLP", "ffn_hidden_size": {"values": [48, 64]}, "bias": False},
        "norm": {"kind": "RmsNorm"},
    },
    "training": {"steps": 20, "learning_rate": 1e-3, "initialize_from": "checkpoint:qwen"},
    "inference": {"batch_size": 4, "sequence_length": 32},
    "objectives": [{"metric": "validation_loss"}, {"metric": "parameter_count", "goal": "minimize"}],
    "require": "transformers_export",
    "start_from": ["checkpoint:qwen"],
    "budget": {"trials": 2},
}


@pytest.mark.slow
def test_a_model_is_trained_on_and_goes_back(deployment: Deployment, tmp_path: Path) -> None:
    config = transformers.Qwen3Config(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    transformers.Qwen3ForCausalLM(config).save_pretrained(tmp_path / "qwen")
    deployment.start_service()
    deployment.start_worker()
    client = Client(deployment.url)
    assert client.add_checkpoint("qwen", tmp_path / "qwen")["architecture"] == "Qwen3"
    sweep = client.submit(DOCUMENT).wait(150)
    assert sweep.state == "completed", deployment.log("worker")
    assert sweep.record["progress"]["complete"] == 2, deployment.log("worker")

    first, second = (client.trial(f"{sweep.id}/{number}") for number in (0, 1))
    assert first["configuration"]["model"]["mlp.ffn_hidden_size"] == 48
    assert first["measurements"]["initialization"]["left"] == {}
    assert "stack.layers.0.mlp.fused_fc.weight" in second["measurements"]["initialization"]["left"]

    best = sweep.leaderboard()[0]
    folder = tmp_path / "winner"
    client.download_transformers(best["trial"], folder)
    client.download_artifacts(best["trial"], tmp_path / "artifacts")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    total = count = 0.0
    with np.load(tmp_path / "artifacts" / "validation.npz") as batches, torch.no_grad():
        arrays = (batches[name] for name in ("tokens", "targets", "weights"))
        for tokens, targets, weights in zip(*arrays, strict=True):
            logits = model(torch.from_numpy(tokens).long()).logits.flatten(0, 1)
            losses = torch.nn.functional.cross_entropy(
                logits, torch.from_numpy(targets).long().flatten(), reduction="none"
            )
            total += float((losses * torch.from_numpy(weights).flatten()).sum())
            count += float(weights.sum())
    assert total / count == pytest.approx(best["metrics"]["validation_loss"], abs=1e-5)

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    begun = tokenizer("The ", return_tensors="pt")["input_ids"]
    said = tokenizer.decode(model.generate(begun, max_new_tokens=20, do_sample=False)[0])
    assert said.startswith("The ")
    assert len(said) > len("The ")
