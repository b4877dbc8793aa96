"""Engines that processes of the CPU share compute what the whole model does, and end with any of their processes.

`TOGETHER` are few graphs with many layers, for every run of the suite; `APART` are the layers one by one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from layers.declarations.kinds import KINDS
from layers.export.onnx_export import export_loss
from layers.export.shards.sharded_export import ExportForm, write_shards
from layers.parameter import Scalar
from layers.signature import Signature, signature
from tests.layers.combinations import BATCH_SIZE, LENGTH, SOURCE_LENGTH, drawn, lively
from tests.layers.modules.test_tensor_parallel import CASES, completed
from tests.workers.engine_parent import ENGINE_PYTHON
from workers.engine.latency import measure
from workers.engine.loss import evaluate
from workers.engine.parallel.engine import SharedEngine
from workers.engine.protocol import RequestError
from workers.engine.verbs import BUILD, LOAD, RUN
from workers.processes.child import Child, ChildDiedError, ChildTimeoutError

LARGEST_ERROR = 1e-5
OPSET = 17

Case = tuple[str, dict[str, Scalar]]

DECODER: Case = (
    "decoder",
    {
        "num_layers": 3,
        "layers.1.attention.num_kv_heads": 2,
        "layers.1.mlp.kind": "GatedMLP",
        "layers.2.mlp.kind": "FusedGatedMLP",
    },
)
"""Multi-head and grouped-query attention, every kind of feed-forward, a vocabulary split by rows, a tied head."""

TOGETHER: list[Case] = [
    ("linear", {"linear.kind": "Linear"}),
    ("linear", {"linear.kind": "ColumnLinear", "linear.gather_output": False}),
    ("linear", {"linear.kind": "RowLinear"}),
    ("embedding", {"embedding.sharding_dim": 1, "embedding.embedding_dim": 16}),
]

APART = [case for case in CASES if case not in TOGETHER]


def written(case: Case, folder: Path) -> tuple[Path, Signature, dict[str, np.ndarray], np.ndarray]:
    """The shards of a model for two processes, its inputs, and what the whole module gives for them."""
    kind, changes = case
    model = completed(kind, {"tp_size": 2, **changes})
    whole = lively(model)
    spoken = signature(KINDS[kind].task, model, BATCH_SIZE, LENGTH, SOURCE_LENGTH)
    inputs = tuple(drawn(spec) for spec in spoken.inputs)
    with torch.no_grad():
        expected = whole(*inputs).numpy()
    shards = folder / "model.shards"
    names = [spec.name for spec in spoken.inputs]
    write_shards(whole, model, inputs, shards, ExportForm(names, spoken.outputs[0].name, OPSET))
    return shards, spoken, {name: array.numpy() for name, array in zip(names, inputs, strict=True)}, expected


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedEngine]:
    engine = SharedEngine("onnxruntime", ["", ""])
    yield engine
    engine.leave_device()


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Signature, dict[str, np.ndarray], np.ndarray]:
    return written(DECODER, tmp_path_factory.mktemp("decoder"))


def error_of(engine: SharedEngine, made: tuple[Path, Signature, dict[str, np.ndarray], np.ndarray]) -> float:
    """How far the outputs of a shared engine, which stays loaded, are from the whole module's."""
    shards, spoken, inputs, expected = made
    engine.close()
    engine.build(shards, shards.with_suffix(".engine"), {})
    engine.load(shards.with_suffix(".engine"), {})
    found = engine.run(inputs)[spoken.outputs[0].name]
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_a_shared_decoder_computes_measures_and_scores_as_a_whole_one(
    shared: SharedEngine, decoder: tuple[Path, Signature, dict[str, np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    assert error_of(shared, decoder) <= LARGEST_ERROR
    _, _, inputs, expected = decoder

    measured = measure(shared, inputs, {"warmup_seconds": 0.0, "seconds": 0.0, "min_runs": 5})
    medians = measured["environment"].get("rank_latency_ms_p50", [])
    assert measured["runs"] == 5
    assert len(medians) == 2
    assert all(median > 0 for median in medians)

    export_loss(tmp_path / "loss.onnx", logits_shape=expected.shape, opset=OPSET)
    targets = np.zeros(expected.shape[:2], np.int32)
    batches = {"inputs": inputs["tokens"][None], "targets": targets[None], "weights": np.ones((1, *targets.shape), "f")}
    logits = expected.astype(np.float64)
    nats = np.log(np.exp(logits).sum(axis=-1)) - logits[..., 0]
    sums = evaluate(shared, tmp_path / "loss.onnx", batches, lambda progress: None)
    assert sums.loss_sum == pytest.approx(nats.sum(), rel=1e-5)


def test_memory_is_that_of_the_largest_rank_and_each_is_told(
    shared: SharedEngine, decoder: tuple[Path, Signature, dict[str, np.ndarray], np.ndarray]
) -> None:
    shards, _, inputs, expected = decoder
    shared.close()
    said = shared.build(shards, shards.with_suffix(".engine"), {})
    ranks = said.get("ranks", [])
    assert len(ranks) == 2
    assert said["weights_bytes"] == max(each["weights_bytes"] for each in ranks)
    assert said["io_bytes"] == sum(array.nbytes for array in (*inputs.values(), expected))


@pytest.mark.parametrize("case", TOGETHER, ids=str)
def test_a_layer_that_processes_share_gives_the_result_of_the_whole(
    shared: SharedEngine, case: Case, tmp_path: Path
) -> None:
    assert error_of(shared, written(case, tmp_path)) <= LARGEST_ERROR


@pytest.mark.slow
@pytest.mark.parametrize("case", APART, ids=str)
def test_each_layer_and_model_that_processes_share_gives_the_result_of_the_whole(
    shared: SharedEngine, case: Case, tmp_path: Path
) -> None:
    assert error_of(shared, written(case, tmp_path)) <= LARGEST_ERROR


@pytest.mark.slow
def test_an_engine_of_other_ranks_is_refused_and_the_group_goes_on(
    decoder: tuple[Path, Signature, dict[str, np.ndarray], np.ndarray], shared: SharedEngine, tmp_path: Path
) -> None:
    shared.close()
    (tmp_path / "none.engine").write_text("{}")
    with pytest.raises(RequestError, match="schedules of a shared engine"):
        shared.load(tmp_path / "none.engine", {})
    assert error_of(shared, decoder) <= LARGEST_ERROR


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def loaded(decoder: tuple[Path, Signature, dict[str, np.ndarray], np.ndarray]) -> Iterator[Child]:
    """An engine child whose engine two processes share."""
    shards, *_ = decoder
    engine = shards.with_suffix(".engine")
    asked: dict[str, Any] = {"runtime": "onnxruntime", "devices": ["", ""], "options": {}, "engine": str(engine)}
    child = Child([ENGINE_PYTHON, "-m", "workers.engine"], name="engine")
    try:
        child.request(BUILD, {"onnx": str(shards), **asked}, timeout_seconds=60)
        child.request(LOAD, asked, timeout_seconds=60)
        yield child
    finally:
        child.kill()


def run_of(decoder: tuple[Path, Signature, dict[str, np.ndarray], np.ndarray], folder: Path) -> dict[str, str]:
    """What asks an engine to run the decoder's inputs."""
    _, _, inputs, _ = decoder
    np.savez(folder / "inputs.npz", allow_pickle=False, **inputs)
    return {"inputs": str(folder / "inputs.npz"), "outputs": str(folder / "outputs.npz")}


def test_a_rank_that_is_killed_takes_the_others_with_it(
    loaded: Child, decoder: tuple[Path, Signature, dict[str, np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    (rank,) = children_of(loaded.pid)
    os.kill(rank, signal.SIGKILL)
    with pytest.raises(ChildDiedError) as death:
        loaded.request(RUN, run_of(decoder, tmp_path), timeout_seconds=60)
    assert death.value.killed_from_outside
    assert not is_running(rank)


@pytest.mark.slow
def test_a_rank_that_hangs_is_ended_with_the_others_at_the_limit(
    loaded: Child, decoder: tuple[Path, Signature, dict[str, np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    (rank,) = children_of(loaded.pid)
    os.kill(rank, signal.SIGSTOP)
    with pytest.raises(ChildTimeoutError):
        loaded.request(RUN, run_of(decoder, tmp_path), timeout_seconds=2)
    assert not loaded.alive()
    assert not is_running(rank)
