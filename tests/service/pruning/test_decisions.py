"""Trainings that are stopped at rungs: which, why, and that a restarted service decides and suggests the same.

A pretend worker measures, reports and finishes by formulas: nothing is trained.
"""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from service.common.rungs import rung_steps
from service.common.states import TrialState
from service.database.models import Trial
from service.database.pruning_models import PruningDecision
from service.database.sessions import Database
from service.errors import InvalidDocumentError
from service.leases import holders
from service.leases import schemas as lease_schemas
from service.pruning import decisions
from service.settings import Settings
from tests.service.sweep_driver import Driver, document

STEPS = 90


@pytest.fixture
def driver(database: Database, settings: Settings) -> Driver:
    driver = Driver(database, settings)
    driver.add_dataset()
    driver.worker = driver.add_worker()
    return driver


def pruned_document(
    pruner: str = "pareto", trials: int = 40, sampler: str = "random", **changes: Any
) -> dict[str, Any]:
    return document(
        training={"steps": STEPS, "dropout": 0.0},
        constraints=[],
        search={"sampler": sampler, "seed": 7, "pruner": pruner, "reuse": True},
        budget={"trials": trials, "parallel": 1},
    )


def _latency(configuration: Any) -> dict[str, float]:
    size = configuration["model"]["num_layers"] * configuration["model"]["hidden_size"]
    return {"latency_ms_p50": size / 32, "memory_bytes": size * 1000.0}


def _loss_at(configuration: Any, fraction: float) -> float:
    """A curve that falls to a loss that only the learning rate and the size decide."""
    size = configuration["model"]["num_layers"] * configuration["model"]["hidden_size"]
    final = 1.0 + 2 / (1 + size / 200) + 40 * abs(configuration["training"]["learning_rate"] - 1e-3)
    return final + 2 * (1 - fraction)


class Trainings:
    """Executes trials as a worker does that asks at each rung whether to go on."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.steps = 0

    def run(self, sweep: str, *, rebuild_every: int = 0) -> None:
        number = 0
        self.driver.step(sweep)
        while (lease := self.driver.claim()) is not None:
            number += 1
            if rebuild_every and number % rebuild_every == 0:
                self.driver.scheduler = self.driver.new_scheduler()
            self.execute(lease)
            self.driver.step(sweep)

    def execute(self, lease: lease_schemas.Lease) -> None:
        known = _latency(lease.configuration)
        self._report(lease, phase="measure", metrics=known)
        self._report(lease, phase="train")
        for step in [*lease.rungs, STEPS]:
            loss = _loss_at(lease.configuration, step / STEPS)
            reason = self._report(lease, losses=[{"step": step, "validation_loss": loss, "training_loss": loss}])
            if reason is not None:
                self.steps += step
                self._finish(lease, outcome="pruned", reason=reason, metrics=known)
                return
        self.steps += STEPS
        metrics = known | {"validation_loss": _loss_at(lease.configuration, 1)}
        self._finish(lease, outcome="complete", metrics=metrics)

    def _report(self, lease: lease_schemas.Lease, **body: Any) -> str | None:
        report = lease_schemas.LeaseReport.model_validate(body)

        def write(session: Any) -> str | None:
            holders.report(session, lease.trial, lease.attempt, report, 30)
            reached = max((point.step for point in report.losses), default=0)
            return decisions.decide(session, lease.trial, lease.attempt, reached)

        return self.driver.database.write(write)

    def _finish(self, lease: lease_schemas.Lease, **body: Any) -> None:
        finish = lease_schemas.LeaseFinish.model_validate(body)
        self.driver.database.write(lambda session: holders.finish(session, lease.trial, lease.attempt, finish).id)


def decided(driver: Driver, sweep: str) -> list[PruningDecision]:
    query = (
        sa.select(PruningDecision)
        .join(Trial, Trial.id == PruningDecision.trial_id)
        .where(PruningDecision.sweep_id == sweep)
        .order_by(Trial.number, PruningDecision.rung)
    )
    return driver.database.read(lambda session: list(session.scalars(query)))


def test_hopeless_trainings_are_stopped_and_none_of_the_front_is(driver: Driver) -> None:
    trainings, sweep = Trainings(driver), driver.post(pruned_document())
    trainings.run(sweep)
    trials = driver.trials(sweep)
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert len(pruned) >= 10
    assert trainings.steps < 0.8 * STEPS * len(trials)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    for trial in pruned:
        latency, loss = _latency(trial.configuration)["latency_ms_p50"], _loss_at(trial.configuration, 1)
        assert any(
            each.metrics["latency_ms_p50"] <= latency and each.metrics["validation_loss"] <= loss for each in complete
        )
    shown = driver.shown(sweep).pruning
    assert (shown.pruner, shown.pruned) == ("pareto", len(pruned))
    assert shown.saved_share == pytest.approx(1 - trainings.steps / (STEPS * len(trials)))
    assert shown.expected_front_loss is not None
    assert shown.expected_front_loss < 0.05


def test_what_is_never_stopped_goes_on_and_says_what_would_have_been(driver: Driver) -> None:
    sweep = driver.post(pruned_document(trials=60))
    Trainings(driver).run(sweep)
    seed = pruned_document()["search"]["seed"]
    controls = [trial for trial in driver.trials(sweep) if decisions.is_control(seed, trial.number)]
    assert controls
    assert all(trial.state == TrialState.COMPLETE for trial in controls)
    spared = {each.trial_id for each in decided(driver, sweep) if each.verdict == decisions.SPARE}
    assert spared <= {trial.id for trial in controls}
    assert driver.shown(sweep).pruning.spared == len(spared)


@pytest.mark.parametrize("pruner", ["pareto", "asha"])
def test_a_stored_decision_comes_out_again_from_the_events_that_it_saw(driver: Driver, pruner: str) -> None:
    sweep = driver.post(pruned_document(pruner))
    Trainings(driver).run(sweep)
    rows = decided(driver, sweep)
    assert any(row.verdict == decisions.PRUNE for row in rows)
    for row in rows:
        again = driver.database.read(lambda session, row=row: decisions.judged_again(session, row))
        assert (again.verdict, again.reason, again.chance) == (row.verdict, row.reason, row.chance)


@pytest.mark.parametrize("sampler", ["random", "tpe", "surrogate"])
def test_a_restarted_service_suggests_and_decides_the_same(driver: Driver, sampler: str) -> None:
    told: list[Any] = []
    for rebuild_every in (0, 3):
        sweep = driver.post(pruned_document(trials=22, sampler=sampler) | {"name": f"{sampler} {rebuild_every}"})
        driver.set(sweep, project=f"of {rebuild_every}")
        Trainings(driver).run(sweep, rebuild_every=rebuild_every)
        decisions_made = [(each.rung, each.verdict, each.predicted, each.chance) for each in decided(driver, sweep)]
        told.append((driver.sequence(sweep), [ask.told for ask in driver.asks(sweep)], decisions_made))
    assert told[0] == told[1]


def test_samplers_learn_what_a_stopped_training_was_expected_to_come_to(driver: Driver) -> None:
    sweep = driver.post(pruned_document())
    Trainings(driver).run(sweep)
    stopped = {each.trial_id: each for each in decided(driver, sweep) if each.verdict == decisions.PRUNE}
    for ask in driver.asks(sweep):
        if ask.trial_id in stopped:
            decision = stopped[ask.trial_id]
            assert ask.told is not None
            assert ask.told["state"] == "pruned"
            assert ask.told["values"] == [decision.known["latency_ms_p50"], decision.predicted]
            assert ask.told.get("spread") == decision.spread


def test_a_stopped_training_is_never_taken_over_by_another_sweep(driver: Driver) -> None:
    first = driver.post(pruned_document())
    Trainings(driver).run(first)
    second = driver.post(pruned_document("none"))
    Trainings(driver).run(second)
    states = {trial.point_hash: trial.state for trial in driver.trials(first)}
    for trial in driver.trials(second):
        assert (trial.reused_from is not None) is (states[trial.point_hash] == TrialState.COMPLETE)


def test_nothing_is_stopped_where_the_hardware_was_not_reported_before(driver: Driver) -> None:
    sweep = driver.post(pruned_document())
    driver.step(sweep)
    lease = driver.claim()
    assert lease is not None
    assert lease.hardware_first
    assert lease.rungs == rung_steps(STEPS)
    report = lease_schemas.LeaseReport.model_validate(
        {"phase": "train", "losses": [{"step": 10, "training_loss": 3.0}]}
    )

    def write(session: Any) -> str | None:
        holders.report(session, lease.trial, lease.attempt, report, 30)
        return decisions.decide(session, lease.trial, lease.attempt, 10)

    assert driver.database.write(write) is None
    assert {each.reason for each in decided(driver, sweep)} == {"not reported before the training: latency_ms_p50"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"search": {"pruner": "auto"}, "budget": {"trials": 14}}, "latency and memory are measured after"),
        ({"search": {"hardware_first": "always"}, "budget": {"trials": 14}}, "14 trials are too few"),
        ({"search": {"pruner": "none"}}, "the document asks for none"),
    ],
)
def test_auto_prunes_only_where_it_pays(driver: Driver, changes: dict[str, Any], why: str) -> None:
    shown = driver.shown(driver.post(document(constraints=[], **changes))).pruning
    assert shown.pruner == "none"
    assert shown.reason.startswith(why)


def test_auto_prunes_where_the_hardware_is_known_first(driver: Driver) -> None:
    shown = driver.shown(driver.post(document(budget={"trials": 60}))).pruning
    assert shown.pruner == "pareto"


@pytest.mark.parametrize(
    "changes",
    [
        {"search": {"pruner": "pareto", "hardware_first": "never"}},
        {"search": {"pruner": "asha"}, "objectives": [{"metric": "latency_ms_p50"}]},
    ],
)
def test_a_pruner_that_cannot_judge_is_refused(driver: Driver, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocumentError) as refusal:
        driver.post(document(constraints=[], **changes))
    assert [problem.pointer for problem in refusal.value.problems] == ["/search/pruner"]
