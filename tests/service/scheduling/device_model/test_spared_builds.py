"""What is certain to keep its limits is not built before its training; a rebuilt sweep spares the same builds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from service.common.states import TrialState
from service.database.models import Trial
from service.scheduling.device_model.gate import BUILT_TO_CHECK
from tests.service.sweep_driver import Driver, Measure, Outcome, document

LIMIT = 6.0
KNOWN = 16


def latency_of(configuration: Mapping[str, Any]) -> float:
    model = configuration["model"]
    return float(model["num_layers"] * model["hidden_size"] / 32 + 0.25 * model["attention.num_attention_heads"])


def measure(configuration: Mapping[str, Any]) -> Outcome:
    metrics = {"latency_ms_p50": latency_of(configuration), "validation_loss": 2.0}
    return "complete", metrics


def written(**search: Any) -> dict[str, Any]:
    asked = {"sampler": "random", "seed": 7, "reuse": False, "device_model": True, **search}
    limits = [f"latency_ms_p50 <= {LIMIT}", "validation_loss <= 3"]
    return document(constraints=limits, search=asked, budget={"trials": 45, "parallel": 1})


def _measure_some(driver: Driver, worker: Measure = measure) -> None:
    """Enough for a model, in a sweep that is over then."""
    sweep = driver.post(written(device_model=False))
    driver.run(sweep, 24, worker)
    driver.cancel(sweep)


def _spared(trials: list[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.predicted is not None]


def test_what_is_certain_to_keep_its_limits_is_trained_first(driver: Driver) -> None:
    sweep = driver.post(written())
    asked: dict[int, bool] = {}
    driver.step(sweep)
    while (lease := driver.claim()) is not None:
        asked[lease.number] = lease.hardware_first
        driver.finish(lease, measure)
        driver.step(sweep)
    trials = driver.trials(sweep)
    assert all(asked[trial.number] is (trial.predicted is None) for trial in trials)
    assert not _spared(trials[:KNOWN])
    spared = _spared(trials)
    assert len(spared) > 10
    for trial in spared:
        assert trial.predicted is not None
        figure = trial.predicted["figures"]["latency_ms_p50"]
        assert figure["low"] <= figure["median"] <= figure["high"] <= LIMIT
        assert figure["median"] == pytest.approx(latency_of(trial.configuration), rel=0.05)
        # A prediction is never shown as what was measured.
        assert trial.metrics["latency_ms_p50"] == latency_of(trial.configuration)
        assert "which keeps latency_ms_p50 <= 6.0" in trial.predicted["reason"]
        assert int(trial.point_hash[:8], 16) % BUILT_TO_CHECK, "one in twenty is built to check"
    said = {each.trial_id for each in driver.events(sweep) if each.kind == "trial.queued" and "predicted" in each.data}
    assert said == {trial.id for trial in spared}
    shown = driver.shown(sweep).spared_builds
    assert shown is not None
    assert (shown.trials, shown.broken) == (len(spared), 0)


def test_a_rebuilt_sweep_spares_the_same(driver: Driver) -> None:
    def order(rebuild_every: int) -> list[Any]:
        sweep = driver.post(written(sampler="tpe"))
        # What an earlier sweep measured must not tell the two apart.
        driver.set(sweep, project=f"p{rebuild_every}")
        driver.run(sweep, 30, measure, rebuild_every=rebuild_every)
        driver.cancel(sweep)
        return [(trial.point_hash, trial.predicted) for trial in driver.trials(sweep)]

    uninterrupted = order(0)
    assert any(predicted is not None for _, predicted in uninterrupted)
    assert order(5) == uninterrupted


def test_a_wrong_prediction_makes_no_trial_feasible(driver: Driver) -> None:
    _measure_some(driver)
    sweep = driver.post(written(seed=8))
    # The device got slower: its predictions are all wrong.
    driver.run(sweep, 12, lambda of: ("complete", measure(of)[1] | {"latency_ms_p50": 2 * LIMIT}))
    spared = _spared(driver.trials(sweep)[:12])
    assert spared
    for trial in spared:
        assert (trial.state, trial.feasible) == (TrialState.COMPLETE, False)
        assert trial.metrics["latency_ms_p50"] == 2 * LIMIT
        assert (trial.reason or "").startswith("latency_ms_p50 <= 6.0 is broken by 6 (latency_ms_p50 is 12)")
    shown = driver.shown(sweep).spared_builds
    assert shown is not None
    assert (shown.trials, shown.broken) == (len(spared), len(spared))


@pytest.mark.parametrize(
    ("search", "constraint"),
    [
        ({"hardware_first": "always"}, None),
        ({"device_model": False}, None),
        # Nothing predicts it.
        ({}, "throughput_per_s >= 1"),
    ],
)
def test_all_else_is_built_first(driver: Driver, search: dict[str, Any], constraint: str | None) -> None:
    def both(of: Mapping[str, Any]) -> Outcome:
        return "complete", measure(of)[1] | {"throughput_per_s": 10.0}

    _measure_some(driver, both)
    asked = written(seed=8, **search)
    driver.run(sweep := driver.post(asked | {"constraints": [constraint]} if constraint else asked), 12, both)
    assert not _spared(driver.trials(sweep))


def test_a_start_is_built_first(driver: Driver) -> None:
    _measure_some(driver)
    point = {
        "num_layers": 1,
        "hidden_size": 32,
        "attention.num_attention_heads": 2,
        "attention.position_embedding_type": "rope_gpt_neox",
        "norm.kind": "LayerNorm",
        "training.learning_rate": 1e-3,
        "training.dropout": 0.3,
    }
    driver.run(sweep := driver.post(written(seed=8) | {"start_from": [point]}), 8, measure)
    first, *others = driver.trials(sweep)
    assert (first.started_from is None, first.predicted) == (False, None)
    assert _spared(others)
