"""The sums of the loss over batches, with an engine that answers what the test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.engine import loss
from workers.engine.base import Engine, LossSums, TensorSpec
from workers.engine.protocol import RequestError

GRAPH = Path(__file__)


class Scripted(Engine):
    """One input `tokens` int32 [2]; the loss of a batch is what `sums` makes of its number."""

    runtime = "scripted"

    def __init__(self, sums: Callable[[int], LossSums]) -> None:
        super().__init__()
        self.inputs = (TensorSpec("tokens", np.dtype(np.int32), (2,)),)
        self._loaded = True
        self._sums = sums
        self.batches: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def _attach_loss(self, loss_graph: Path) -> None:
        assert loss_graph == GRAPH

    def _loss(self, inputs: Mapping[str, np.ndarray], targets: np.ndarray, weights: np.ndarray) -> LossSums:
        self.batches.append((inputs["tokens"], targets, weights))
        return self._sums(len(self.batches) - 1)

    def _unused(self, *_: Any) -> Any:
        raise AssertionError("a loss does not need this")

    describe = _build = _footprint = _load = _prepare = _run = _close = _unused


Scripted.__abstractmethods__ = frozenset()


def batches(count: int, name: str = "tokens") -> dict[str, np.ndarray]:
    numbers = np.arange(2 * count, dtype=np.int32).reshape(count, 2)
    return {name: numbers, "targets": numbers + 1, "weights": np.ones((count, 2), np.float32)}


def silent(_: dict[str, Any]) -> None: ...


def test_each_batch_is_seen_once_with_its_targets_and_weights() -> None:
    engine = Scripted(lambda _: LossSums(1.0, 2.0, 1.0))
    found = loss.evaluate(engine, GRAPH, batches(3), silent)
    assert (found.loss_sum, found.weight_sum, found.correct) == (3.0, 6.0, 3.0)
    assert [list(tokens) for tokens, _, _ in engine.batches] == [[0, 1], [2, 3], [4, 5]]
    assert [list(targets) for _, targets, _ in engine.batches] == [[1, 2], [3, 4], [5, 6]]


def test_small_batches_are_not_lost_beside_a_large_sum() -> None:
    engine = Scripted(lambda index: LossSums(1e8 if index == 0 else 0.25, 1.0, 0.0))
    assert loss.evaluate(engine, GRAPH, batches(1001), silent).loss_sum == 1e8 + 250


def test_blocks_are_consecutive_batches_and_add_up() -> None:
    engine = Scripted(lambda index: LossSums(float(index), 2.0, 0.0))
    found = loss.evaluate(engine, GRAPH, batches(loss.BLOCKS + 1), silent)
    assert found.block_loss_sums[:3] == [0.0 + 1.0, 2.0, 3.0]
    assert sum(found.block_loss_sums) == found.loss_sum
    assert len(found.block_weight_sums) == loss.BLOCKS
    assert sum(found.block_weight_sums) == found.weight_sum


def test_a_single_input_may_be_called_inputs() -> None:
    engine = Scripted(lambda _: LossSums(1.0, 2.0, 1.0))
    loss.evaluate(engine, GRAPH, batches(2, "inputs"), silent)
    assert list(engine.batches[1][0]) == [2, 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_batch(value: float) -> None:
    engine = Scripted(lambda index: LossSums(value if index == 2 else 1.0, 1.0, 0.0))
    with pytest.raises(RequestError, match="the loss of batch 2 is") as failed:
        loss.evaluate(engine, GRAPH, batches(5), silent)
    assert failed.value.kind == "internal"


def test_progress_counts_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "PROGRESS_SECONDS", 0.0)
    seen: list[dict[str, Any]] = []
    loss.evaluate(Scripted(lambda _: LossSums(1.0, 1.0, 0.0)), GRAPH, batches(3), seen.append)
    assert seen == [{"batch": number, "batches": 3} for number in (1, 2, 3)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": None}, "lack targets"),
        ({"weights": None}, "lack weights"),
        ({"tokens": None}, "tokens: int32"),
        ({"weights": np.ones((2, 2), np.float32)}, "same number of batches"),
        ({"weights": np.float32(1)}, "same number of batches"),
        ({"tokens": np.zeros((3, 5), np.int32)}, r"int32 \[5\]; the engine takes tokens"),
        ({"extra": np.zeros((3, 2), np.int32)}, "no input extra"),
    ],
)
def test_batches_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    arrays = {name: array for name, array in {**batches(3), **change}.items() if array is not None}
    with pytest.raises(RequestError, match=message) as failed:
        loss.evaluate(Scripted(lambda _: LossSums(1.0, 1.0, 0.0)), GRAPH, arrays, silent)
    assert failed.value.kind == "invalid"


def test_no_batches_are_refused() -> None:
    with pytest.raises(RequestError, match="at least one"):
        loss.evaluate(Scripted(lambda _: LossSums(1.0, 1.0, 0.0)), GRAPH, batches(0), silent)
