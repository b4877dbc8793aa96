"""Sweeps over layers that differ, and over prompts, from HTTP to scores by real engines."""

from typing import Any

import pytest

from tests.acceptance.deployment import Deployment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

COMMON: dict[str, Any] = {
    "task": "causal_lm",
    "dataset": "python-topics",
    "training": {"steps": 30, "batch_size": 8, "learning_rate": 3e-3},
    "inference": {"batch_size": 2, "sequence_length": 32},
    "objectives": [{"metric": "validation_loss"}, {"metric": "latency_ms_p50"}],
    "budget": {"trials": 5},
    "search": {"seed": 1},
}


def run(deployment: Deployment, document: dict[str, Any]) -> list[dict[str, Any]]:
    sweep = deployment.submit(document)
    ended = deployment.finish_sweep(sweep, seconds=1000)
    assert ended["state"] == "completed", ended["reason"]
    assert ended["progress"]["failed"] == 0, deployment.log("worker")
    rows = deployment.get(f"/v1/sweeps/{sweep}/leaderboard?page_size=100")["items"]
    assert len(rows) == 5
    for row in rows:
        assert row["metrics"]["parity_error"] < 1e-4
        assert row["metrics"]["validation_loss"] < 5.5, "guessing scores ln 256 = 5.545"
        row["configuration"] = deployment.get(f"/v1/trials/{row['trial']}")["configuration"]
    return rows


def test_layers_that_differ_and_prompts_are_scored(deployment: Deployment) -> None:
    deployment.start_service()
    deployment.start_worker()
    layers = {
        "num_layers": {"min": 1, "max": 3},
        "hidden_size": 32,
        "attention": {
            "num_attention_heads": 2,
            "position_embedding_type": {"values": ["rope_gpt_neox", "relative", "alibi"], "per_layer": True},
        },
        "mlp": {"ffn_hidden_size": {"values": [32, 64, 128], "per_layer": True}},
        "norm": {"kind": {"values": ["LayerNorm", "RmsNorm"], "per_layer": True}},
    }
    for row in run(deployment, {**COMMON, "name": "layers apart", "model": layers}):
        count = row["parameters"]["num_layers"]
        for name in ("attention.position_embedding_type", "mlp.ffn_hidden_size", "norm.kind"):
            own = [f"layers.{number}.{name}" for number in range(count)]
            assert [each for each in row["parameters"] if each.endswith(name)] == own
            assert all(row["configuration"]["model"][each] == row["parameters"][each] for each in own)

    prompts = {
        "num_layers": 1,
        "hidden_size": 32,
        "attention": {"num_attention_heads": 2},
        "embedding": {"kind": "PromptTuningEmbedding", "prompt_length": {"values": [2, 4, 8, 12, 16]}},
    }
    rows = run(deployment, {**COMMON, "name": "prompts", "model": prompts})
    assert {row["parameters"]["embedding.prompt_length"] for row in rows} == {2, 4, 8, 12, 16}
