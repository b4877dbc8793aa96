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
from service.errors import InvalidDocumentError
from service.leases import holders
from service.leases import schemas as lease_schemas
from service.pruning import decisions
from service.pruning.fronts import HALVING_RUNGS
from tests.databases import POSTGRESQL_IN_SLOW_TESTS
from tests.service.sweep_driver import Driver, document

STEPS = 90


def pruned_document(
    pruner: str = "pareto", trials: int = 40, sampler: str = "random", replicates: int = 0
) -> dict[str, Any]:
    return document(
        training={"steps": STEPS, "dropout": 0.0},
        constraints=[],
        search={"sampler": sampler, "seed": 7, "pruner": pruner, "reuse": True, "replicates": replicates},
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
        if not lease.measure:
            luck = 1e-3 * (lease.number % 3)
            loss = {"validation_loss": _loss_at(lease.configuration, 1) + luck}
            self._report(lease, phase="train")
            self._finish(lease, outcome="complete", metrics=loss)
            return
        known = _latency(lease.configuration)
        if lease.hardware_first:
            self._report(lease, phase="measure", metrics=known)
        self._report(lease, phase="train")
        for step in [*lease.rungs, STEPS]:
            loss = _loss_at(lease.configuration, step / STEPS)
            reason = self._report(lease, losses=[{"step": step, "validation_loss": loss, "training_loss": loss}])
            if reason is not None:
                self.steps += step
                measured = known if lease.hardware_first else {}
                self._finish(lease, outcome="pruned", reason=reason, metrics=measured)
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
    trainings, sweep = Trainings(driver), driver.post(pruned_document(trials=30))
    trainings.run(sweep)
    trials, made = driver.trials(sweep), decided(driver, sweep)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    pruned = {trial.id: trial for trial in trials if trial.state == TrialState.PRUNED}
    assert len(pruned) >= 5
    for trial in pruned.values():
        latency, loss = _latency(trial.configuration)["latency_ms_p50"], _loss_at(trial.configuration, 1)
        assert any(
            each.metrics["latency_ms_p50"] <= latency and each.metrics["validation_loss"] <= loss for each in complete
        )
    controls = {trial.id: trial for trial in trials if decisions.is_control(7, trial.number)}
    assert controls
    assert not controls.keys() & pruned.keys()
    spared = {each.trial_id for each in made if each.verdict == decisions.SPARE}
    assert spared <= controls.keys()
    shown = driver.shown(sweep).pruning
    assert (shown.pruner, shown.pruned, shown.spared) == ("pareto", len(pruned), len(spared))
    assert shown.saved_share == pytest.approx(1 - trainings.steps / (STEPS * len(trials)))
    assert shown.expected_front_loss == pytest.approx(0, abs=0.05)
    come_out_again(driver, made)
    _is_told(driver, sweep, {each.trial_id: each for each in made if each.verdict == decisions.PRUNE})
    _is_not_taken_over(driver, {trial.point_hash: trial.state for trial in trials})


def come_out_again(driver: Driver, made: list[PruningDecision]) -> None:
    """Stored decisions follow from the events that they saw."""
    for row in made:
        again = driver.database.read(lambda session, row=row: decisions.judged_again(session, row))
        assert (again.verdict, again.reason, again.chance) == (row.verdict, row.reason, row.chance)


def _is_told(driver: Driver, sweep: str, stopped: dict[str, PruningDecision]) -> None:
    """Samplers learn what a stopped training was expected to come to."""
    told = {ask.trial_id: ask.told for ask in driver.asks(sweep) if ask.trial_id in stopped}
    assert told.keys() == stopped.keys()
    for trial_id, decision in stopped.items():
        row = told[trial_id]
        assert row is not None
        assert row["state"] == "pruned"
        assert row["values"] == [decision.known["latency_ms_p50"], decision.predicted]
        assert row.get("spread") == decision.spread


def _is_not_taken_over(driver: Driver, states: dict[str, TrialState]) -> None:
    """Another sweep takes over what was trained to its end, and trains what was stopped."""
    sweep = driver.post(pruned_document("none", trials=20))
    Trainings(driver).run(sweep)
    for trial in driver.trials(sweep):
        assert (trial.reused_from is not None) is (states[trial.point_hash] == TrialState.COMPLETE)


def test_asha_stops_what_is_not_among_the_best_third(driver: Driver) -> None:
    sweep = driver.post(pruned_document("asha", trials=20))
    Trainings(driver).run(sweep)
    made = decided(driver, sweep)
    assert any(row.verdict == decisions.PRUNE and row.rung in HALVING_RUNGS for row in made)
    come_out_again(driver, made)


RESTARTED = ["surrogate", pytest.param("random", marks=pytest.mark.slow), pytest.param("tpe", marks=pytest.mark.slow)]


@POSTGRESQL_IN_SLOW_TESTS
@pytest.mark.parametrize("sampler", RESTARTED)
def test_a_restarted_service_suggests_and_decides_the_same(driver: Driver, sampler: str) -> None:
    told: list[Any] = []
    for rebuild_every in (0, 3):
        written = pruned_document(trials=17, sampler=sampler, replicates=2)
        sweep = driver.post(written | {"name": f"{sampler} {rebuild_every}"})
        driver.set(sweep, project=f"of {rebuild_every}")
        Trainings(driver).run(sweep, rebuild_every=rebuild_every)
        made = [(each.rung, each.verdict, each.predicted, each.chance) for each in decided(driver, sweep)]
        told.append((driver.sequence(sweep), [ask.told for ask in driver.asks(sweep)], made))
        assert driver.shown(sweep).progress.replicates == 2
        come_out_again(driver, decided(driver, sweep))
    assert any(chance is not None for *_, chance in told[0][-1])
    assert told[0] == told[1]


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


def test_a_predicted_latency_stands_in_for_a_build_and_favours_its_trial(driver: Driver) -> None:
    Trainings(driver).run(driver.post(pruned_document("none", trials=20)))
    written = pruned_document(trials=30)
    written["search"] |= {"seed": 8, "device_model": True, "reuse": False}
    sweep = driver.post(written)
    Trainings(driver).run(sweep)
    trials, made = {trial.id: trial for trial in driver.trials(sweep)}, decided(driver, sweep)
    predicted = {id_: trial.predicted["figures"]["latency_ms_p50"] for id_, trial in trials.items() if trial.predicted}
    stopped = {each.trial_id: each for each in made if each.verdict == decisions.PRUNE}
    assert len(stopped.keys() & predicted.keys()) >= 3
    for trial_id in stopped.keys() & predicted.keys():
        trial, decision, figure = trials[trial_id], stopped[trial_id], predicted[trial_id]
        assert "latency_ms_p50" not in trial.metrics, "nobody measured it"
        assert decision.known == {"latency_ms_p50": figure["median"]}
        assert "trials at least as good predicted elsewhere" in decision.reason
        rivals = [
            each.metrics["validation_loss"]
            for each in trials.values()
            if each.state == TrialState.COMPLETE and each.metrics["latency_ms_p50"] <= figure["low"]
        ]
        assert min(rivals) < _loss_at(trial.configuration, 1)
    _is_told(driver, sweep, stopped)
    come_out_again(driver, made)
    shown = driver.shown(sweep).spared_builds
    assert shown is not None
    assert (shown.trials, shown.broken) == (len(predicted), 0)


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
