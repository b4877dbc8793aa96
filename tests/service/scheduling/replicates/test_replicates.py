"""Trials that could be on the front are trained again with further seeds, within a share of the budget."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from service.common.states import SweepState, TrialState
from service.database.models import Measurement, Trial
from service.leases import trials as lease_trials
from tests.service.sweep_driver import Driver, Outcome, document

ONE = [{"metric": "validation_loss", "goal": "minimize"}]
SPREAD = 0.2


def noisy(configuration: Mapping[str, Any]) -> Outcome:
    """A loss that differs by the seed of its training."""
    model, training = configuration["model"], configuration["training"]
    size = model["num_layers"] * model["hidden_size"]
    text = f"{sorted(model.items())}/{sorted(training.items())}"
    noise = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32 - 0.5
    loss = 2 - size / 2000 + abs(training["learning_rate"] - 1e-3) * 20 + SPREAD * noise
    latency = size / 100
    return "complete", {"latency_ms_p50": latency, "latency_ms_p99": latency, "validation_loss": loss}


def only_learnt(configuration: Mapping[str, Any]) -> Outcome:
    """What a replicate's attempt says: latency is not measured again."""
    outcome, metrics = noisy(configuration)
    return outcome, {"validation_loss": metrics["validation_loss"]} if _is_further(configuration) else metrics


def _is_further(configuration: Mapping[str, Any]) -> bool:
    return bool(configuration["training"]["seed"] > 100_000)


def _document(replicates: Any = 3, trials: int = 20, **changes: Any) -> dict[str, Any]:
    search = {"sampler": "random", "seed": 7, "reuse": False, "replicates": replicates}
    budget = {"trials": trials, "parallel": 2}
    return document(search=search, budget=budget, **{"constraints": [], "objectives": ONE, **changes})


def _split(trials: list[Trial]) -> tuple[list[Trial], list[Trial]]:
    return [each for each in trials if each.replicate_of is None], [each for each in trials if each.replicate_of]


def test_a_share_of_the_budget_trains_the_best_trials_again_and_their_figures_are_means(driver: Driver) -> None:
    sweep = driver.post(_document())
    row = driver.run_to_the_end(sweep, only_learnt)
    points, replicates = _split(driver.trials(sweep))
    assert (row.state, row.reason) == (SweepState.COMPLETED, "budget_exhausted")
    assert (len(points), len(replicates)) == (17, 3)
    assert [point.number for point in points] == list(range(17))
    assert row.counts[TrialState.COMPLETE] == 17
    progress = driver.shown(sweep).progress
    assert (progress.trials, progress.replicates, progress.budget) == (17, 3, 20)
    for point in points:
        again = [each for each in replicates if each.replicate_of == point.id]
        losses = [noisy(each.configuration)[1]["validation_loss"] for each in (point, *again)]
        assert point.metrics["validation_loss"] == pytest.approx(statistics.fmean(losses))
        if again:
            assert point.metrics["trainings"] == len(losses)
            error = statistics.stdev(losses) / len(losses) ** 0.5
            assert point.metrics["validation_loss_stderr"] == pytest.approx(error)
            assert len({each.configuration["training"]["seed"] for each in (point, *again)}) == len(losses)
            kept = driver.database.read(
                lambda session, of=point.id: session.get_one(Measurement, (of, "first_training"))
            )
            assert kept.data["metrics"]["validation_loss"] == pytest.approx(losses[0])
        else:
            assert "trainings" not in point.metrics
    best = min(points, key=lambda each: each.metrics["validation_loss"])
    assert best.pareto_rank == 1
    assert best.metrics["trainings"] > 1
    assert all(each.pareto_rank is None for each in replicates)


def test_a_rebuilt_scheduler_trains_the_same_trials_again(driver: Driver) -> None:
    def order(rebuild_every: int) -> list[Any]:
        sweep = driver.post(_document(trials=40, objectives=[{"metric": "latency_ms_p50"}, *ONE]))
        driver.run(sweep, 60, only_learnt, rebuild_every=rebuild_every)
        trials = driver.trials(sweep)
        number = {each.id: each.number for each in trials}
        assert driver.sweep(sweep).state == SweepState.COMPLETED
        return [
            (each.number, number.get(each.replicate_of or ""), each.point_hash, each.metrics, each.pareto_rank)
            for each in trials
        ]

    uninterrupted = order(0)
    assert sum(each[1] is not None for each in uninterrupted) == 6
    assert order(3) == uninterrupted


def test_what_was_killed_is_claimed_again_and_counted_once(driver: Driver) -> None:
    sweep = driver.post(_document())
    driver.step(sweep)
    lost = 0
    while (lease := driver.claim()) is not None:
        if lease.number < 0 and lease.attempt == 1:
            # Its worker was killed: the lease lapses, and the next claim takes the trial.
            driver.database.write(lambda session, of=lease.trial: _lapse(session, of))
            lost += 1
            continue
        driver.finish(lease, only_learnt)
        driver.step(sweep)
    points, replicates = _split(driver.trials(sweep))
    assert lost == len(replicates) == 3
    assert {each.attempt for each in replicates} == {2}
    trained = Counter(each.replicate_of for each in replicates)
    assert {each.id: each.metrics["trainings"] - 1 for each in points if "trainings" in each.metrics} == trained


def _lapse(session: Any, trial_id: str) -> str:
    trial = session.get_one(Trial, trial_id)
    trial.lease_expires_at = 0.0
    return trial_id


def test_a_replicate_is_leased_to_be_trained_and_not_measured(driver: Driver) -> None:
    sweep = driver.post(_document(constraints=["latency_ms_p50 <= 100"]))
    driver.step(sweep)
    while (lease := driver.claim()) is not None and lease.number >= 0:
        assert lease.measure
        assert lease.hardware_first
        driver.finish(lease, only_learnt)
        driver.step(sweep)
    assert lease is not None
    assert (lease.measure, lease.hardware_first, lease.constraints) == (False, False, [])


def test_a_failed_replicate_costs_no_failure_and_changes_no_figure(driver: Driver) -> None:
    def fails(configuration: Mapping[str, Any]) -> Outcome:
        return ("failed", {}) if _is_further(configuration) else noisy(configuration)

    sweep = driver.post(_document() | {"budget": {"trials": 20, "parallel": 2, "failures": 1}})
    row = driver.run_to_the_end(sweep, fails)
    assert row.state == SweepState.COMPLETED
    assert all("trainings" not in each.metrics for each in driver.trials(sweep))


def test_a_mean_that_breaks_a_constraint_leaves_the_front(driver: Driver) -> None:
    def lucky(configuration: Mapping[str, Any]) -> Outcome:
        outcome, metrics = noisy(configuration)
        return outcome, metrics | {"validation_loss": 3.0} if _is_further(configuration) else metrics

    sweep = driver.post(_document(constraints=["validation_loss <= 2.3"]))
    driver.run_to_the_end(sweep, lucky)
    points, _ = _split(driver.trials(sweep))
    broken = [each for each in points if each.metrics["validation_loss"] > 2.3 and "trainings" in each.metrics]
    assert broken
    for each in broken:
        assert (each.feasible, each.pareto_rank) == (False, None)
        assert "validation_loss <= 2.3 is broken" in (each.reason or "")
    assert any(each.pareto_rank == 1 for each in points)


def test_a_replicate_is_no_point_of_lists(driver: Driver) -> None:
    sweep = driver.post(_document())
    driver.run_to_the_end(sweep, only_learnt)
    rows, _ = driver.database.read(
        lambda session: lease_trials.page(session, sweep, states=(), page_size=100, page_token=None)
    )
    assert [each.number for each in rows] == list(range(17))


def test_an_extended_sweep_goes_on_with_points_and_then_with_replicates(driver: Driver) -> None:
    from service.sweeps import budgets
    from service.sweeps.schemas import BudgetExtension

    sweep = driver.post(_document())
    driver.run_to_the_end(sweep, only_learnt)
    driver.database.write(lambda session: budgets.extend(session, sweep, BudgetExtension(trials=10)).id)
    driver.run_to_the_end(sweep, only_learnt)
    points, replicates = _split(driver.trials(sweep))
    assert (len(points), len(replicates)) == (26, 4)
