"""Points that were measured before are not measured again.

Trials are run by the pretend worker of `sweep_driver`: nothing is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database.models import Measurement, Trial, TrialMetric
from service.database.sessions import Database
from service.errors import UnprocessableError
from service.leases import workers
from service.settings import Settings
from service.sweeps import sweeps
from tests.service.sweep_driver import Driver, small

REUSING = {"reuse": True, "sampler": "grid"}


@pytest.fixture
def driver(database: Database, settings: Settings) -> Driver:
    driver = Driver(database, settings)
    driver.add_dataset()
    return driver


def _measure(configuration: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    layers = float(configuration["model"]["num_layers"])
    return "complete", {"latency_ms_p50": layers, "latency_ms_p99": layers * 2, "validation_loss": 4 - layers}


def _slow(configuration: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    return "infeasible", {"latency_ms_p50": 9.0, "latency_ms_p99": 10.0}


def _none(configuration: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    raise AssertionError("everything should have been reused")


def test_a_clone_reuses_every_trial(driver: Driver) -> None:
    first, second = driver.post(small(search=REUSING)), driver.post(small(search=REUSING))
    driver.run_to_the_end(first, _measure)
    ended = driver.run_to_the_end(second, _none)
    assert ended.counts == {"complete": 12, "reused": 12}
    originals = {trial.point_hash: trial for trial in driver.trials(first)}
    for trial in driver.trials(second):
        original = originals[trial.point_hash]
        assert (trial.state, trial.reused_from, trial.attempt) == ("complete", original.id, 0)
        assert (trial.metrics, trial.feasible) == (original.metrics, True)
        assert trial.pareto_rank == original.pareto_rank
        assert trial.ended_at is not None
    query = sa.select(sa.func.count()).where(TrialMetric.sweep_id == second)
    assert driver.database.read(lambda session: session.scalar(query)) == sum(
        len(t.metrics) for t in originals.values()
    )


def test_a_reused_trial_says_so_in_its_event(driver: Driver) -> None:
    first, second = driver.post(small(search=REUSING)), driver.post(small(search=REUSING, budget={"trials": 1}))
    driver.run_to_the_end(first, _measure)
    driver.step(second)
    ended = [event for event in driver.events(second) if event.kind == "trial.ended"]
    (trial,) = driver.trials(second)
    assert [(event.trial_id, event.data["reused"], event.data["state"]) for event in ended] == [
        (trial.id, True, "complete")
    ]
    assert driver.sweep(second).reason == "budget_exhausted"
    assert driver.shown(second).progress.reused == 1


def test_a_reused_trial_keeps_its_measurements_when_the_original_is_deleted(driver: Driver) -> None:
    first = driver.post(small(search=REUSING))
    driver.run_to_the_end(first, _measure)
    original = driver.trials(first)[0]
    samples = {"samples_ms": [1.0, 1.1]}
    row = {"trial_id": original.id, "name": "latency_samples_ms", "attempt": 1, "data": samples}
    driver.database.write(lambda session: session.execute(sa.insert(Measurement).values(row)).rowcount)
    second, third = (driver.post(small(search=REUSING)) for _ in range(2))
    driver.run_to_the_end(second, _none)
    driver.database.write(lambda session: sweeps.delete(session, first))
    (copied,) = [trial for trial in driver.trials(second) if trial.reused_from == original.id]
    query = sa.select(Measurement.data).where(Measurement.trial_id == copied.id)
    assert driver.database.read(lambda session: session.scalars(query).all()) == [samples]
    driver.run_to_the_end(third, _none)
    assert original.id in {trial.reused_from for trial in driver.trials(third)}, "the trial that was executed is named"


def test_this_sweeps_constraints_are_judged(driver: Driver) -> None:
    first = driver.post(small(search=REUSING))
    driver.run_to_the_end(first, _measure)
    stricter = driver.post({**small(search=REUSING), "constraints": ["latency_ms_p99 <= 4"]})
    driver.run_to_the_end(stricter, _none)
    for trial in driver.trials(stricter):
        excess = trial.metrics["latency_ms_p99"] - 4
        assert (trial.state, trial.feasible) == ("complete", excess <= 0)
        assert trial.violations == {"latency_ms_p99 <= 4": excess}


def test_an_infeasible_trial_is_reused_only_where_the_constraint_is_broken_too(driver: Driver) -> None:
    limited = {**small(search=REUSING), "constraints": ["latency_ms_p99 <= 4"]}
    first, again = driver.post(limited), driver.post(limited)
    driver.run_to_the_end(first, _slow)
    assert driver.run_to_the_end(again, _none).counts["infeasible"] == 12
    tighter = driver.post({**limited, "constraints": ["latency_ms_p50 <= 2"]})
    assert driver.run_to_the_end(tighter, _none).counts["infeasible"] == 12
    (reason,) = {trial.reason for trial in driver.trials(tighter)}
    assert reason == "latency_ms_p50 <= 2 is broken by 7 (latency_ms_p50 is 9)"
    looser = driver.post({**limited, "constraints": ["latency_ms_p99 <= 40"]})
    ended = driver.run_to_the_end(looser, _measure)
    assert (ended.counts["complete"], ended.counts.get("reused", 0)) == (12, 0)


def test_a_trial_without_a_metric_that_is_asked_for_is_run_again(driver: Driver) -> None:
    first = driver.post(small(search=REUSING))
    driver.run_to_the_end(first, _measure)
    other = small(search=REUSING) | {"objectives": [{"metric": "memory_bytes", "goal": "minimize"}]}
    second = driver.post(other)

    def with_memory(configuration: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
        return "complete", _measure(configuration)[1] | {"memory_bytes": 1000.0}

    assert "reused" not in driver.run_to_the_end(second, with_memory).counts


def test_reuse_can_be_declined(driver: Driver) -> None:
    first, second = driver.post(small(search=REUSING)), driver.post(small(search=REUSING | {"reuse": False}))
    driver.run_to_the_end(first, _measure)
    assert "reused" not in driver.run_to_the_end(second, _measure).counts


def test_failed_and_pruned_trials_are_run_again(driver: Driver) -> None:
    first, second = driver.post(small(search=REUSING)), driver.post(small(search=REUSING))
    driver.run_to_the_end(first, lambda configuration: ("pruned", {"latency_ms_p50": 1.0}))
    assert "reused" not in driver.run_to_the_end(second, _measure).counts


def _add_worker(driver: Driver, **versions: str) -> None:
    """The only worker from now on."""
    if driver.worker:
        driver.database.write(lambda session: workers.deregister(session, driver.worker, None))
    driver.worker = driver.add_worker(versions=versions)


def _reused(driver: Driver, sweep: str) -> int:
    return driver.run_to_the_end(sweep, _measure).counts.get("reused", 0)


def test_results_of_another_version_are_not_reused(driver: Driver) -> None:
    _add_worker(driver)
    assert _reused(driver, driver.post(small(search=REUSING))) == 0
    _add_worker(driver, results="1")
    assert _reused(driver, driver.post(small(search=REUSING))) == 12, "a worker that says no version is of the first"
    _add_worker(driver, results="2")
    assert _reused(driver, driver.post(small(search=REUSING))) == 0
    assert _reused(driver, driver.post(small(search=REUSING))) == 12


@pytest.mark.parametrize("version", ["", "two", "-1", "1.5", "²", "9" * 10])
def test_a_version_of_results_that_is_no_number_is_refused(driver: Driver, version: str) -> None:
    with pytest.raises(UnprocessableError, match="no number") as refused:
        _add_worker(driver, results=version)
    assert [problem.pointer for problem in refused.value.problems] == ["/versions/results"]


def test_what_cannot_be_judged_by_an_earlier_measurement_is_measured_again(driver: Driver) -> None:
    limited = small(search=REUSING) | {"constraints": ["latency_ms_p99 <= 12"]}
    first = driver.post(limited)
    driver.run_to_the_end(first, _measure)
    figures = {"latency_ms_p99": {"low": 1.0, "high": 20.0, "processes": 1, "spread": None, "known": False}}

    def note(session: Session) -> None:
        for trial in session.scalars(sa.select(Trial).where(Trial.sweep_id == first)):
            trial.noise = {"figures": figures, "undecided": []}

    driver.database.write(note)
    again = driver.run_to_the_end(driver.post(limited), _measure)
    assert again.counts["complete"] == 12
    assert "reused" not in again.counts
