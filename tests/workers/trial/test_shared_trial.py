"""A trial whose model two processes share, with real children: the same losses as of one, and the figures of both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workers.scripted_service import ScriptedService
from tests.workers.trial.test_trial import ALL_PHASES, Bench
from workers.processes.children import Children

TRAINING = {"steps": 20, "batch_size": 4, "eval_every": 10}


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    children = Children(threads=1, rank_devices=("", ""))
    yield children
    children.kill()


@pytest.mark.slow
def test_a_model_that_two_processes_share_is_scored_as_the_whole_one(
    children: Children, capabilities: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    able = {"onnxruntime": {**capabilities["onnxruntime"], "devices": 2}}
    finishes: dict[int, dict[str, Any]] = {}
    for size in (1, 2):
        bench = Bench(ScriptedService(), children, able, tmp_path)
        finish = bench.execute(bench.scripted.lease(model={"tp_size": size}, training=TRAINING))
        assert finish is not None
        assert (finish["outcome"], finish["reason"]) == ("complete", None)
        assert bench.scripted.phases() == ALL_PHASES
        finishes[size] = finish
    whole, shared = (finishes[size]["metrics"] for size in (1, 2))
    assert shared["validation_loss"] == pytest.approx(whole["validation_loss"], rel=1e-5)
    assert shared["reference_loss"] == whole["reference_loss"]
    assert shared["weights_bytes"] < whole["weights_bytes"]
    assert whole["total_memory_bytes"] == whole["memory_bytes"]
    ranks = finishes[2]["measurements"]["ranks"]["ranks"]
    assert len(ranks) == 2
    assert shared["total_memory_bytes"] == sum(each["memory_bytes"] for each in ranks)
    assert shared["memory_bytes"] == max(each["memory_bytes"] for each in ranks)
    environment = finishes[2]["measurements"]["environment"]
    assert environment["ranks"] == 2
    tokens = 4 * 32
    assert shared["device_ms_per_token"] == pytest.approx(2 * shared["latency_ms_p50"] / tokens)
