"""Sweeps that start from earlier ones: which trials they take, that these are fixed, and that asks follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from service.database.models import EarlierTrial
from service.database.sessions import Database
from service.errors import InvalidDocumentError
from service.settings import Settings
from service.sweeps import schemas as sweep_schemas
from service.sweeps import sweeps
from tests.databases import POSTGRESQL_IN_SLOW_TESTS
from tests.service.sweep_driver import Driver, Outcome, document, small

SURROGATE = {"sampler": "surrogate", "transfer": True}
RATES = {"min": 1e-3, "max": 1e-1, "log": True}


@pytest.fixture
def driver(database: Database, settings: Settings) -> Driver:
    driver = Driver(database, settings)
    driver.add_dataset()
    return driver


def smooth(configuration: Mapping[str, Any]) -> Outcome:
    """Every trial is complete."""
    model, training = configuration["model"], configuration["training"]
    size = model["num_layers"] * model["hidden_size"]
    loss = 2 / (1 + size / 200) + abs(training["learning_rate"] - 2e-3)
    return "complete", {"latency_ms_p50": size / 64, "latency_ms_p99": size / 60, "validation_loss": loss}


def earlier(driver: Driver, trials: int = 6, **changes: Any) -> str:
    sweep = driver.post(document(name="earlier", **changes))
    driver.run(sweep, trials, smooth)
    driver.cancel(sweep)
    return sweep


def later(driver: Driver, **changes: Any) -> str:
    """A sweep that starts from earlier ones, with its first step done."""
    sweep = driver.post(document(name="later", **{"search": SURROGATE, **changes}))
    driver.worker = driver.worker or driver.add_worker()
    driver.step(sweep)
    return sweep


def rows_of(driver: Driver, sweep: str) -> list[EarlierTrial]:
    query = sa.select(EarlierTrial).where(EarlierTrial.sweep_id == sweep).order_by(EarlierTrial.position)
    return driver.database.read(lambda session: list(session.scalars(query)))


def test_it_starts_from_complete_trials_with_their_values_by_name(driver: Driver) -> None:
    first = earlier(driver, training={"learning_rate": 0.004, "dropout": 0.0})
    sweep = later(driver, training={"learning_rate": RATES})
    shown = driver.shown(sweep).transfer
    assert shown is not None
    assert (shown.trials, shown.sweeps) == (6, [first])
    trials = {trial.id: trial for trial in driver.trials(first)}
    for row in rows_of(driver, sweep):
        trial = trials[row.from_trial]
        assert row.parameters["training.learning_rate"] == 0.004, "fixed there, open here"
        assert row.parameters["hidden_size"] == trial.parameters["hidden_size"]
        assert ("norm.eps" in row.parameters) == (trial.parameters["norm.kind"] == "RmsNorm")
        assert row.metrics == {name: trial.metrics[name] for name in ("latency_ms_p50", "validation_loss")}
        assert row.violations == trial.violations


@POSTGRESQL_IN_SLOW_TESTS
@pytest.mark.parametrize(
    "changes",
    [
        {"inference": {"batch_size": 4, "sequence_length": 16}},
        {"objectives": [{"metric": "memory_bytes"}, {"metric": "latency_ms_p50"}]},
        {"dataset": "others"},
    ],
    ids=["another shape is measured", "another metric", "other data"],
)
def test_what_cannot_be_compared_is_left_out(driver: Driver, changes: dict[str, Any]) -> None:
    driver.add_dataset("others", "c" * 64)
    earlier(driver)
    sweep = later(driver, **changes)
    shown = driver.shown(sweep).transfer
    assert shown is not None
    assert (shown.trials, shown.sweeps) == (0, [])
    assert driver.claim() is not None, "it begins as any other"


def test_trials_of_another_target_or_another_version_of_results_are_left_out(driver: Driver) -> None:
    first = earlier(driver)
    target = driver.sweep(first).target
    assert target is not None
    version = driver.sweep(first).results_version
    driver.set(first, results_version=99)
    assert trials_of(driver, later(driver)) == 0
    driver.set(first, results_version=version, target_key="onnxruntime 1.33.0 on Test CPU")
    assert trials_of(driver, later(driver)) == 0
    driver.set(first, target_key=target["key"])
    assert trials_of(driver, later(driver)) == 6


@POSTGRESQL_IN_SLOW_TESTS
def test_other_projects_sweeps_are_not_seen(driver: Driver) -> None:
    first = earlier(driver)
    driver.set(first, project="others")
    assert trials_of(driver, later(driver)) == 0


@POSTGRESQL_IN_SLOW_TESTS
def test_a_point_that_was_measured_once_counts_once(driver: Driver) -> None:
    first = earlier(driver)
    second = driver.post(document(name="again", search={"reuse": True}))
    driver.run(second, 6, smooth)
    assert driver.shown(second).progress.reused == 6
    shown = driver.shown(later(driver)).transfer
    assert shown is not None
    assert {trial.reuse_key for trial in driver.trials(first)} <= {trial.reuse_key for trial in driver.trials(second)}
    assert shown.trials == driver.shown(second).progress.complete


@POSTGRESQL_IN_SLOW_TESTS
def test_layers_that_differ_are_known_from_layers_that_do_not(driver: Driver) -> None:
    earlier(driver)
    model = {
        "num_layers": {"min": 1, "max": 3},
        "hidden_size": 64,
        "attention": {"num_attention_heads": {"values": [2, 4], "per_layer": True}},
        "mlp": {"ffn_hidden_size": {"values": [64, 128], "per_layer": True}},
    }
    different = later(driver, model=model)
    for row in rows_of(driver, different):
        for layer in range(min(row.parameters["num_layers"], 3)):
            assert row.parameters[f"layers.{layer}.attention.num_attention_heads"] in (2, 4)
            assert row.parameters[f"layers.{layer}.mlp.ffn_hidden_size"] in (128, 192, 256, 384), "as derived there"
    driver.run(different, 4, smooth)
    driver.cancel(different)
    again = later(driver, model={**model, "mlp": {"ffn_hidden_size": {"values": [64, 128]}}})
    of_different = [row for row in rows_of(driver, again) if row.from_sweep == different]
    trials = {trial.id: trial.configuration["model"] for trial in driver.trials(different)}
    for row in of_different:
        widths = {value for name, value in trials[row.from_trial].items() if name.endswith(".mlp.ffn_hidden_size")}
        assert row.parameters.get("mlp.ffn_hidden_size") == (widths.pop() if len(widths) == 1 else None)
    assert len(of_different) == 4


@POSTGRESQL_IN_SLOW_TESTS
def test_it_goes_on_identically_when_it_is_built_again_and_the_earlier_sweep_is_gone(driver: Driver) -> None:
    first = earlier(driver, trials=10)
    whole = later(driver)
    driver.run(whole, 14, smooth)
    asked = driver.sequence(whole)
    driver.cancel(whole)
    driver.database.write(lambda session: sweeps.delete(session, whole))
    rebuilt = later(driver)
    driver.database.write(lambda session: sweeps.delete(session, first))
    driver.run(rebuilt, 14, smooth, rebuild_every=3)
    assert driver.sequence(rebuilt) == asked
    assert driver.shown(rebuilt).transfer == sweep_schemas.Transfer(trials=10, sweeps=[first])
    driver.cancel(rebuilt)
    driver.database.write(lambda session: sweeps.delete(session, rebuilt))
    assert rows_of(driver, rebuilt) == []


@POSTGRESQL_IN_SLOW_TESTS
def test_the_first_points_follow_from_what_is_known(driver: Driver) -> None:
    earlier(driver, trials=30)
    known, unknown = later(driver), later(driver, search={"sampler": "surrogate", "transfer": False})
    assert driver.shown(unknown).transfer is None
    for sweep in (unknown, known):
        driver.run(sweep, 8, smooth)
        driver.cancel(sweep)
    losses = [
        sorted(trial.metrics["validation_loss"] for trial in driver.trials(sweep) if trial.state == "complete")[0]
        for sweep in (unknown, known)
    ]
    assert losses[1] < losses[0]


@pytest.mark.parametrize(
    ("search", "budget", "said"),
    [
        ({"sampler": "tpe"}, {}, "the tree-structured Parzen estimator"),
        ({"sampler": "random"}, {}, "random search"),
        ({"sampler": "auto"}, {"trials": 100}, "the grid"),
    ],
)
def test_other_samplers_cannot_start_from_earlier_sweeps(
    driver: Driver, search: dict[str, Any], budget: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidDocumentError) as refusal:
        driver.post(small(search={**search, "transfer": True}, budget=budget))
    (problem,) = refusal.value.problems
    assert (problem.pointer, problem.remedy) == ("/search/transfer", "give sampler: surrogate, or leave transfer out")
    assert said in problem.detail


def trials_of(driver: Driver, sweep: str) -> int:
    """How many trials it starts from."""
    shown = driver.shown(sweep).transfer
    assert shown is not None
    return shown.trials
