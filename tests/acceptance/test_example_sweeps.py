"""The example sweeps, run as a user runs them: a service, a worker, HTTP between them, and scores that make sense."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.sweeps import documents
from tests.acceptance.deployment import ROOT, Deployment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

CMUDICT = os.environ.get("LAYERSWEEP_TEST_CMUDICT", "")
"""A file of the CMU Pronouncing Dictionary: it is not in the repository."""

LOSSES = {"validation_loss", "reference_loss", "training_loss", "accuracy", "train_seconds"}


def example(name: str) -> dict[str, Any]:
    return documents.read((ROOT / "examples" / name).read_bytes(), "application/yaml")


def run(deployment: Deployment, document: dict[str, Any]) -> list[dict[str, Any]]:
    """The leaderboard of a sweep that completes."""
    sweep = deployment.submit(document)
    deployment.start_worker()
    ended = deployment.finish_sweep(sweep, seconds=2300)
    assert ended["state"] == "completed", ended["reason"]
    assert ended["progress"]["failed"] == 0, deployment.log("worker")
    rows = deployment.get(f"/v1/sweeps/{sweep}/leaderboard?page_size=100")["items"]
    for row in rows[:20]:
        sys.stdout.write(f"{row['rank']} {row['parameters']} {row['metrics']}\n")
    return rows


def test_digits_are_read(deployment: Deployment) -> None:
    document = example("digits.yaml")
    assert document["budget"]["trials"] <= 20
    deployment.start_service()
    rows = run(deployment, document)
    assert max(row["metrics"].get("accuracy", 0) for row in rows) >= 0.95
    assert all(abs(row["metrics"]["precision_gap"]) < 1e-3 for row in rows if row["state"] == "complete")


@pytest.mark.skipif(not Path(CMUDICT).is_file(), reason="LAYERSWEEP_TEST_CMUDICT names no file of cmudict")
def test_spelling_is_pronounced_far_better_than_by_the_most_frequent_phoneme(
    deployment: Deployment, tmp_path: Path
) -> None:
    words = tmp_path / "pronunciation.tsv"
    subprocess.run([sys.executable, "examples/cmudict.py", CMUDICT, words, "--words", "5000"], cwd=ROOT, check=True)
    deployment.start_service()
    fields = {"name": "pronunciation", "task": "seq2seq", "tokenizer": "char", "target_tokenizer": "whitespace"}
    added = deployment.http.post("/v1/datasets", data=fields, files={"file": words.read_bytes()})
    assert added.status_code == 201, added.text
    profile = added.json()["profile"]
    rows = run(deployment, example("pronunciation.yaml"))
    best = min(rows, key=lambda row: row["metrics"].get("validation_loss", 99.0))["metrics"]
    assert best["accuracy"] > 3 * profile["baselines_accuracy"]["majority"]
    assert best["validation_loss"] < 0.5 * profile["baselines_nats"]["unigram"]
    assert abs(best["precision_gap"]) < 1e-3


def test_layers_are_probed_without_data_or_training(deployment: Deployment) -> None:
    deployment.start_service()
    rows = run(deployment, example("probe.yaml"))
    assert len(rows) == 12
    assert {row["state"] for row in rows} == {"complete"}
    assert not any(LOSSES & set(row["metrics"]) for row in rows)
    assert {row["parameters"]["kind"] for row in rows} == {"linear", "mlp"}
    front = [row for row in rows if row["on_front"]]
    assert max(row["metrics"]["parameter_count"] for row in rows) in [
        row["metrics"]["parameter_count"] for row in front
    ]
    assert min(row["metrics"]["latency_ms_p50"] for row in rows) in [row["metrics"]["latency_ms_p50"] for row in front]


def test_answers_are_generated_within_their_limits(deployment: Deployment) -> None:
    document = example("chat.yaml")
    document["budget"]["trials"] = 3
    # Of a processor that others use: what is asked for is that steps are measured and judged.
    document["constraints"] = ["decode_ms_per_token_p99 <= 1e4", "prefill_ms_p50 <= 1e4", "kv_cache_bytes <= 100000"]
    deployment.start_service()
    rows = run(deployment, document)
    assert len(rows) == 3
    for metrics in (row["metrics"] for row in rows):
        assert metrics["kv_cache_bytes"] <= 100_000
        assert metrics["memory_bytes"] > metrics["kv_cache_bytes"]
        assert 0 < metrics["decode_ms_per_token_p50"] <= metrics["decode_ms_per_token_p99"]
        assert metrics["tokens_per_s"] < 64_000 / metrics["prefill_ms_p50"]
        assert abs(metrics["precision_gap"]) < 1e-3


def test_a_decoder_is_measured_at_both_of_its_shapes(deployment: Deployment) -> None:
    document = example("serving-shapes.yaml")
    document["budget"] = {"trials": 4}
    document["training"]["steps"] = 40
    deployment.start_service()
    rows = run(deployment, document)
    complete = [row["metrics"] for row in rows if row["state"] == "complete"]
    assert len(complete) == 4
    for metrics in complete:
        assert metrics["latency_ms_p50@chat"] < metrics["latency_ms_p50@bulk"]
        assert metrics["flops@bulk"] > 16 * metrics["flops@chat"]
        assert metrics["parity_error"] < 1e-4
    sweep = deployment.get("/v1/sweeps")["items"][0]["id"]
    ordered = deployment.get(f"/v1/sweeps/{sweep}/leaderboard?sort=latency_ms_p50")["items"]
    latencies = [row["metrics"]["latency_ms_p50@chat"] for row in ordered]
    assert latencies == sorted(latencies), "a name without a shape means the first"
