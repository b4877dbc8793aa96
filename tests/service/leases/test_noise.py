"""A latency near its limit: decided by what is known of it, or said to be undecided."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import UnprocessableError
from service.leases import schemas as lease_schemas
from tests.service.leases.test_queue import Worker
from tests.service.rows import Rows

LIMIT = "latency_ms_p99 <= 2.0"


@pytest.fixture
def worker(rows: Rows) -> Worker:
    return Worker(rows)


def finish(p99: float, low: float, high: float, **more: Any) -> lease_schemas.LeaseFinish:
    return lease_schemas.LeaseFinish(
        outcome="complete",
        metrics={"latency_ms_p50": 1, "latency_ms_p99": p99, "latency_cv": 0.3},
        noise={"latency_ms_p99": lease_schemas.FigureNoise(low=low, high=high, **more)},
    )


@pytest.mark.parametrize(
    ("body", "feasible", "judged"),
    [
        (finish(1.8, 1.7, 1.9), True, "yes"),
        (finish(2.5, 2.2, 2.8), False, "yes"),
        (finish(2.1, 1.8, 2.8), None, "cannot"),
        (finish(1.9, 1.5, 2.3), None, "cannot"),
        (finish(1.9, 1.5, 2.3, known=True), True, "yes"),
        (finish(2.1, 1.8, 2.8, known=True), False, "yes"),
    ],
)
def test_a_limit_within_the_noise_is_not_judged(
    rows: Rows, worker: Worker, body: lease_schemas.LeaseFinish, feasible: bool | None, judged: str
) -> None:
    rows.sweep(1, constraints=(LIMIT,))
    finished = worker.finish(worker.must_claim(), body)
    assert (finished.state, finished.feasible, finished.rank) == ("complete", feasible, None)
    assert finished.noise is not None
    assert (finished.noise.judged, finished.noise.noisy) == (judged, True)
    assert finished.noise.undecided == ([LIMIT] if judged == "cannot" else [])
    assert ("cannot be judged here" in (finished.reason or "")) == (judged == "cannot")


def test_what_is_broken_for_certain_is_infeasible_whatever_else_is_undecided(rows: Rows, worker: Worker) -> None:
    rows.sweep(1, constraints=(LIMIT, "latency_ms_p50 <= 0.5"))
    finished = worker.finish(worker.must_claim(), finish(2.1, 1.8, 2.8))
    assert finished.feasible is False
    assert finished.reason is not None
    assert "latency_ms_p50 <= 0.5 is broken by 0.5" in finished.reason
    assert f"{LIMIT} cannot be judged here" in finished.reason


def test_a_report_before_the_training_ends_only_what_is_broken_for_certain(rows: Rows, worker: Worker) -> None:
    rows.sweep(2, constraints=(LIMIT,), parallel=2)
    near, beyond = worker.must_claim(), Worker(rows).must_claim()
    metrics = {"latency_ms_p99": 2.1}
    assert worker.report(near, metrics=metrics, noise={"latency_ms_p99": {"low": 1.8, "high": 2.4}}) == "continue"
    assert worker.report(beyond, metrics=metrics, noise={"latency_ms_p99": {"low": 2.05, "high": 2.2}}) == "infeasible"


@pytest.mark.parametrize(
    ("noise", "place"),
    [
        ({"latency_ms_p90": {"low": 1.0, "high": 2.0}}, "/noise/latency_ms_p90"),
        ({"latency_ms_p99": {"low": 3.0, "high": 2.0}}, "/noise/latency_ms_p99"),
    ],
)
def test_noise_that_cannot_be_is_refused(rows: Rows, worker: Worker, noise: dict[str, Any], place: str) -> None:
    rows.sweep(1, constraints=(LIMIT,))
    body = lease_schemas.LeaseFinish(
        outcome="complete", metrics={"latency_ms_p50": 1.0, "latency_ms_p99": 2.1}, noise=noise
    )
    with pytest.raises(UnprocessableError) as refused:
        worker.finish(worker.must_claim(), body)
    assert [problem.pointer for problem in refused.value.problems] == [place]
