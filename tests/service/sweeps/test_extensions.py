"""What an extended sweep takes up again: points that its end had cut off, and points that had failed.

Trials are run by the pretend worker of `sweep_driver`: nothing is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from service.errors import ConflictError
from service.sweeps import budgets
from service.sweeps import schemas as sweep_schemas
from tests.service.sweep_driver import Driver, document, small


def _measures(configuration: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    size = float(configuration["model"]["num_layers"] * configuration["model"]["hidden_size"])
    return "complete", {"latency_ms_p50": size, "latency_ms_p99": size, "validation_loss": 100 / size}


def _fails(configuration: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    return "failed", {}


def _extend(driver: Driver, sweep: str, **budget: float) -> None:
    extension = sweep_schemas.BudgetExtension.model_validate(budget)
    driver.database.write(lambda session: budgets.extend(session, sweep, extension).id)


def _run_out_of_time(driver: Driver, sweep: str) -> None:
    """The wall clock runs out while a trial runs and others are queued."""
    assert driver.claim() is not None
    limit = driver.sweep(sweep).budget["wall_seconds"]
    started = driver.sweep(sweep).started_at
    assert started is not None
    driver.set(sweep, started_at=started - limit)
    driver.step(sweep)
    driver.step(sweep)
    assert driver.sweep(sweep).reason == "wall_seconds"
    assert driver.sweep(sweep).counts["cancelled"] >= 2


@pytest.mark.parametrize("sampler", ["grid", "tpe", "nsga2", "surrogate", "random", "qmc"])
def test_what_the_wall_clock_cut_off_costs_no_budget_and_is_tried_again(driver: Driver, sampler: str) -> None:
    search = {"sampler": sampler, "seed": 3}
    sweep = driver.post(small(search=search, budget={"trials": 12, "parallel": 2, "wall_seconds": 1000}))
    driver.run(sweep, 4, _measures)
    _run_out_of_time(driver, sweep)
    _extend(driver, sweep, wall_seconds=2000)
    ended = driver.run_to_the_end(sweep, _measures)
    assert ended.reason == "budget_exhausted"
    assert ended.counts["complete"] == 12, "every point of the space is measured"
    assert len({trial.point_hash for trial in driver.trials(sweep)}) == len(driver.trials(sweep)) == 12
    assert ended.running_count == 0


def test_a_start_that_was_cut_off_is_tried_again_and_so_are_those_that_were_not_reached(driver: Driver) -> None:
    starts = [
        {"num_layers": layers, "hidden_size": 64, "attention.num_attention_heads": 4, "training.dropout": 0.1}
        | {"training.learning_rate": 1e-3, "norm.kind": "LayerNorm"}
        | {"attention.position_embedding_type": "rope_gpt_neox"}
        for layers in range(1, 7)
    ]
    budget = {"trials": 20, "parallel": 1, "wall_seconds": 1000}
    sweep = driver.post(document(start_from=starts, constraints=[], budget=budget, search={"sampler": "tpe"}))
    driver.run(sweep, 1, _measures)
    _run_out_of_time(driver, sweep)
    _extend(driver, sweep, wall_seconds=2000)
    driver.run(sweep, 12, _measures)
    started = {trial.started_from: trial.state for trial in driver.trials(sweep) if trial.started_from}
    assert list(started.values()) == ["complete"] * 6


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_what_had_failed_is_tried_once_more_at_the_end_of_an_extension(driver: Driver, sampler: str) -> None:
    budget = {"trials": 12, "parallel": 1, "failures": 3}
    sweep = driver.post(small(search={"sampler": sampler}, budget=budget))
    driver.run(sweep, 3, _fails)
    assert driver.sweep(sweep).state == "failed"
    failed = {trial.id for trial in driver.trials(sweep) if trial.state == "failed"}
    _extend(driver, sweep, failures=2)
    order: list[str] = []
    driver.step(sweep)
    while (lease := driver.claim()) is not None:
        order.append(lease.trial)
        driver.finish(lease, _measures)
        driver.step(sweep)
    ended = driver.sweep(sweep)
    assert (ended.state, ended.reason, ended.counts["complete"]) == ("completed", "budget_exhausted", 12)
    ahead = 1 + driver.settings.scheduler_lookahead
    assert failed <= set(order[-len(failed) - ahead :]), "after new points, save those asked ahead"


def test_a_trial_that_fails_again_is_not_tried_until_the_next_extension(driver: Driver) -> None:
    sweep = driver.post(small(budget={"trials": 3, "parallel": 1, "failures": 10}))
    driver.run(sweep, 2, _measures)
    driver.run(sweep, 1, _fails)
    assert driver.sweep(sweep).counts["failed"] == 1
    for extension in range(2):
        _extend(driver, sweep, failures=1)
        ended = driver.run_to_the_end(sweep, _fails)
        assert (ended.reason, ended.counts["failed"]) == ("budget_exhausted", 1)
        assert max(trial.attempt for trial in driver.trials(sweep)) == extension + 2
    _extend(driver, sweep, failures=1)
    assert driver.run_to_the_end(sweep, _measures).counts["complete"] == 3


def test_a_trial_that_is_tried_again_has_nothing_left_of_its_failure(driver: Driver) -> None:
    sweep = driver.post(small(budget={"trials": 2, "parallel": 1, "failures": 1}))
    driver.run(sweep, 1, _fails)
    _extend(driver, sweep, failures=1)
    driver.run_to_the_end(sweep, _measures)
    first = driver.trials(sweep)[0]
    assert (first.state, first.reason, first.feasible, first.charged_attempts) == ("complete", None, True, 0)
    assert first.pareto_rank is not None


@pytest.mark.parametrize("sampler", ["grid", "tpe", "nsga2", "surrogate", "qmc"])
def test_a_rebuilt_study_takes_up_the_same_points(driver: Driver, sampler: str) -> None:
    def suggestions(rebuild_every: int) -> list[Any]:
        budget = {"trials": 12, "parallel": 2, "failures": 3, "wall_seconds": 1000}
        sweep = driver.post(small(search={"sampler": sampler, "seed": 3}, budget=budget))
        driver.run(sweep, 3, _measures, rebuild_every=rebuild_every)
        driver.run(sweep, 2, _fails, rebuild_every=rebuild_every)
        _run_out_of_time(driver, sweep)
        if rebuild_every:
            driver.scheduler = driver.new_scheduler()
        _extend(driver, sweep, wall_seconds=2000, trials=2)
        driver.run(sweep, 30, _measures, rebuild_every=rebuild_every)
        assert driver.sweep(sweep).counts["complete"] == 12
        return driver.sequence(sweep)

    assert suggestions(2) == suggestions(0)


def test_a_leader_that_comes_after_the_extension_asks_the_same(driver: Driver) -> None:
    """The endings that the end of the sweep brought were not worked in when the leader died."""

    def suggestions(*, late: bool) -> list[Any]:
        sweep = driver.post(small(search={"sampler": "tpe"}, budget={"trials": 12, "parallel": 2, "failures": 2}))
        driver.run(sweep, 2, _measures)
        for _ in range(2):
            lease = driver.claim()
            assert lease is not None
            driver.finish(lease, _fails)
        if late:
            driver.scheduler._advance(driver.scheduler._held.of(sweep))  # pyright: ignore[reportPrivateUsage]
            driver.scheduler = driver.new_scheduler()
        else:
            driver.step(sweep)
        assert driver.sweep(sweep).state == "failed"
        _extend(driver, sweep, failures=3)
        driver.run_to_the_end(sweep, _measures)
        return driver.sequence(sweep)

    assert suggestions(late=True) == suggestions(late=False)


def test_a_sweep_that_has_nothing_left_to_try_is_not_extended(driver: Driver) -> None:
    sweep = driver.post(small(budget={"trials": 100, "parallel": 2}))
    driver.run_to_the_end(sweep, _measures)
    with pytest.raises(ConflictError, match="space_exhausted"):
        _extend(driver, sweep, trials=5)


def test_a_sweep_that_ended_before_points_were_taken_up_again_can_be_extended(driver: Driver) -> None:
    """As versions before this one left it: ended for good, with points that were never measured."""
    sweep = driver.post(small(budget={"trials": 12, "parallel": 2, "wall_seconds": 1000}))
    driver.run(sweep, 4, _measures)
    _run_out_of_time(driver, sweep)
    driver.set(sweep, reason="space_exhausted", budget={**driver.sweep(sweep).budget, "wall_seconds": None})
    _extend(driver, sweep, trials=1)
    assert driver.run_to_the_end(sweep, _measures).counts["complete"] == 12
