"""What is certain to be too slow is not built, save one in twenty; a rebuilt sweep leaves out the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.common.states import TrialState
from tests.service.sweep_driver import Driver, Outcome, document

LIMIT = 6.0


def measure(configuration: Mapping[str, Any]) -> Outcome:
    """A latency that follows from the sizes; what breaks the limit is not trained."""
    latency = _latency(configuration["model"])
    metrics = {"latency_ms_p50": latency, "latency_ms_p99": latency}
    return ("complete", {**metrics, "validation_loss": 2.0}) if latency <= LIMIT else ("infeasible", metrics)


def _latency(model: Mapping[str, Any]) -> float:
    return float(model["num_layers"] * model["hidden_size"] / 32 + 0.25 * model["attention.num_attention_heads"])


def _document(**search: Any) -> dict[str, Any]:
    written = {"sampler": "random", "seed": 7, "reuse": False, "device_model": True, **search}
    return document(constraints=[f"latency_ms_p50 <= {LIMIT}"], search=written, budget={"trials": 80, "parallel": 2})


def _left_out(driver: Driver, sweep: str) -> list[str]:
    return [text for ask in driver.asks(sweep) if (text := ask.rejection or "").startswith("predicted")]


def test_points_that_are_certain_to_break_a_limit_are_not_built(driver: Driver) -> None:
    without = driver.post(_document(device_model=False))
    driver.run_to_the_end(without, measure)
    assert not _left_out(driver, without)
    built = sum(trial.state == TrialState.INFEASIBLE for trial in driver.trials(without))
    # It rests on the trials of the sweep before, from its first point on.
    sweep = driver.post(_document(seed=8))
    driver.run_to_the_end(sweep, measure)
    trials = driver.trials(sweep)
    still_built = sum(trial.state == TrialState.INFEASIBLE for trial in trials)
    rejections = _left_out(driver, sweep)
    assert 0 < still_built < built / 2, "some are built to check"
    assert len(rejections) > built / 2
    assert "latency_ms_p50 <= 6.0 is broken: latency_ms_p50 is at least" in rejections[0]
    names = {"num_layers", "hidden_size", "attention.num_attention_heads"}
    rejected = [ask for ask in driver.asks(sweep) if (ask.rejection or "").startswith("predicted")]
    assert all(names <= ask.suggestions.keys() for ask in rejected)
    assert driver.sweep(sweep).rejected_count >= len(rejections)


def test_a_sweep_of_its_own_learns_and_a_rebuilt_one_leaves_out_the_same(driver: Driver) -> None:
    def order(rebuild_every: int) -> list[Any]:
        sweep = driver.post(_document())
        # What an earlier sweep measured must not tell the two apart.
        driver.set(sweep, project=f"p{rebuild_every}")
        driver.run(sweep, 60, measure, rebuild_every=rebuild_every)
        driver.cancel(sweep)
        return driver.sequence(sweep)

    uninterrupted = order(0)
    assert any((rejection or "").startswith("predicted") for _, rejection in uninterrupted)
    assert order(4) == uninterrupted


def test_a_start_is_built_whatever_is_predicted(driver: Driver) -> None:
    before = driver.post(_document(device_model=False))
    driver.run_to_the_end(before, measure)
    start = {
        "num_layers": 8,
        "hidden_size": 96,
        "attention.num_attention_heads": 4,
        "attention.position_embedding_type": "rope_gpt_neox",
        "norm.kind": "LayerNorm",
        "training.learning_rate": 1e-3,
        "training.dropout": 0.3,
    }
    sweep = driver.post(_document() | {"start_from": [start]})
    driver.step(sweep)
    first = driver.trials(sweep)[0]
    assert first.started_from is not None
    assert _latency(first.configuration["model"]) > LIMIT
