"""Pruned trials that are trained to their ends after all, by the pretend worker of `test_decisions`."""

from __future__ import annotations

from typing import Any

import pytest

from service.common.states import SweepState, TrialState
from service.database.models import Artifact, Trial
from service.database.sessions import now
from service.errors import ConflictError
from service.leases import curves
from service.leases.statements import TRAINING_STATE
from service.operations import artifacts
from service.promotion import promotion
from service.pruning import promoted
from service.settings import Settings
from tests.databases import POSTGRESQL_IN_SLOW_TESTS
from tests.service.pruning.test_decisions import STEPS, Trainings, come_out_again, decided, pruned_document
from tests.service.sweep_driver import Driver


def _promote(driver: Driver, trial: Trial) -> None:
    driver.database.write(lambda session: promotion.promote(session, trial.id).id)


def _pruned(driver: Driver, sweep: str) -> list[Trial]:
    return [trial for trial in driver.trials(sweep) if trial.state == TrialState.PRUNED]


def test_a_promoted_trial_is_trained_to_its_end_and_ranked(driver: Driver) -> None:
    sweep = driver.post(pruned_document(trials=20))
    Trainings(driver).run(sweep)
    stopped, complete = _pruned(driver, sweep), [t for t in driver.trials(sweep) if t.state == TrialState.COMPLETE]
    saved = driver.shown(sweep).pruning.saved_share
    assert driver.shown(sweep).state == SweepState.COMPLETED
    with pytest.raises(ConflictError, match="only one that a pruner has stopped"):
        _promote(driver, complete[0])
    _promote(driver, stopped[0])
    _promote(driver, stopped[0])
    assert driver.shown(sweep).state == SweepState.ACTIVE
    Trainings(driver).run(sweep)
    shown = driver.shown(sweep)
    (promoted_trial,) = [trial for trial in driver.trials(sweep) if trial.promoted]
    assert (shown.state, shown.reason) == (SweepState.COMPLETED, "budget_exhausted")
    assert promoted_trial.id == stopped[0].id
    assert (promoted_trial.state, promoted_trial.attempt) == (TrialState.COMPLETE, 2)
    assert promoted_trial.pareto_rank is not None
    assert shown.progress.trials == 20, "it counts once"
    assert shown.pruning.pruned == len(stopped) - 1
    assert shown.pruning.saved_share is not None
    assert saved is not None
    assert shown.pruning.saved_share < saved
    spared = {each.trial_id for each in decided(driver, sweep) if each.verdict == "spare"}
    assert promoted_trial.id not in spared, "somebody chose it: it says nothing of what pruning loses"
    come_out_again(driver, decided(driver, sweep))
    told = [ask.told for ask in driver.asks(sweep) if ask.trial_id == promoted_trial.id]
    assert [each["state"] for each in told if each] == ["pruned", "complete"]


@POSTGRESQL_IN_SLOW_TESTS
@pytest.mark.parametrize("sampler", ["random", pytest.param("surrogate", marks=pytest.mark.slow)])
def test_a_restarted_service_goes_on_the_same(driver: Driver, sampler: str) -> None:
    told: list[Any] = []
    for restarts in (False, True):
        sweep = driver.post(pruned_document(trials=16, sampler=sampler) | {"name": f"{sampler} {restarts}"})
        driver.set(sweep, project=f"of {restarts}")
        Trainings(driver).run(sweep)
        for trial in _pruned(driver, sweep)[:2]:
            _promote(driver, trial)
        if restarts:
            # Once before the promotions are worked in, and again and again after.
            driver.scheduler = driver.new_scheduler()
        Trainings(driver).run(sweep, rebuild_every=1 if restarts else 0)
        states = [(trial.number, trial.state, trial.promoted) for trial in driver.trials(sweep)]
        told.append((driver.sequence(sweep), [ask.told for ask in driver.asks(sweep)], states))
    assert {state for _, state, is_promoted in told[0][-1] if is_promoted} == {TrialState.COMPLETE}
    assert told[0] == told[1]


@POSTGRESQL_IN_SLOW_TESTS
def test_it_goes_on_from_the_state_that_was_kept(driver: Driver, settings: Settings) -> None:
    sweep = driver.post(pruned_document(trials=20))
    Trainings(driver).run(sweep)
    trial = _pruned(driver, sweep)[0]
    before = driver.database.read(lambda session: curves.read(session, trial.id, 1))
    _keep_state(driver, trial)
    artifacts.collect_garbage(driver.database, settings)
    _promote(driver, trial)
    driver.step(sweep)
    lease = driver.claim()
    assert lease is not None
    assert (lease.trial, lease.attempt) == (trial.id, 2)
    assert lease.training_state is not None
    assert lease.training_state.sha256 == "c" * 64
    artifacts.collect_garbage(driver.database, settings)
    row = driver.database.read(lambda session: artifacts.training_state(session, trial.id, 2))
    assert row.attempt == 1
    assert driver.database.read(lambda session: curves.read(session, trial.id, 2)) == before
    assert before
    assert before[-1].step < STEPS
    Trainings(driver).execute(lease)
    artifacts.collect_garbage(driver.database, settings)
    assert driver.database.read(lambda session: session.get(Artifact, (trial.id, TRAINING_STATE))) is None


@POSTGRESQL_IN_SLOW_TESTS
def test_states_are_kept_as_far_as_there_is_room(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = driver.post(pruned_document(trials=1))
    driver.step(sweep)
    (trial,) = driver.trials(sweep)

    def is_wanted(stores_artifacts: bool) -> bool:
        return driver.database.read(lambda session: promoted.is_state_wanted(session, trial.id, stores_artifacts))

    assert is_wanted(True)
    assert not is_wanted(False)
    _keep_state(driver, trial)
    assert is_wanted(True)
    monkeypatch.setattr(promoted, "MOST_KEPT_BYTES", 7)
    assert not is_wanted(True)


def _keep_state(driver: Driver, trial: Trial) -> None:
    def write(session: Any) -> None:
        session.add(
            Artifact(
                trial_id=trial.id,
                name=TRAINING_STATE,
                attempt=1,
                size_bytes=7,
                sha256="c" * 64,
                created_at=now(session),
            )
        )

    driver.database.write(write)
