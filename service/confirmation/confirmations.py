"""Confirmations: the front's candidates trained again with further seeds, and scored on the split no sweep has seen.

A confirmation is a sweep of its own kind: its trials are all there from the beginning, no sampler is asked, and its
attempts alone are given the test split. Claims, leases, attempts, events, `:pause` and `:cancel` are those of any
sweep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.checkpoints import checkpoints
from service.common.formatting import plural
from service.common.hashing import canonical_hash
from service.common.ids import new_id
from service.common.states import ENDED_SWEEPS, GOING_SWEEPS, OPEN_TRIALS, SweepKind, SweepState, TrialState
from service.database import counts
from service.database.json_columns import RegisteredTarget
from service.database.models import Confirmation, Dataset, Sweep, Trial
from service.database.sessions import now
from service.datasets import datasets
from service.errors import ConflictError, ForbiddenError, LeaseLostError, Problem, UnprocessableError
from service.events import events
from service.events.events import NewEvent
from service.leases import row_locks
from service.leases.worker_reports import own_figures
from service.recommendation.further_trainings import TEST_LOSS
from service.recommendation.preferences import SelectionPreferences
from service.recommendation.recommend import preferences_of, ranked
from service.settings import Settings
from service.sweeps import sweeps, targets

TASKS_WITH_A_TEST_SPLIT = ("causal_lm", "classification", "seq2seq")
FIRST_SEED = 1_001
"""Further seeds are counted from here, past those that a sweep usually names; those that it used are left out."""


def create(
    session: Session,
    sweep_id: str,
    *,
    seeds: int,
    candidates: int,
    numbers: Sequence[int] = (),
    preferences: Mapping[str, Sequence[str]] | None = None,
    max_attempts: int,
    alive_seconds: float,
) -> Confirmation:
    """Queue the further trainings. Raises NotFoundError, ConflictError if the sweep still goes on,
    UnprocessableError.

    `preferences` are the wishes of a recommendation: without `numbers`, its trial is the first candidate.
    """
    # Nobody deletes or extends it meanwhile.
    row_locks.take_sweeps(session, [sweep_id])
    sweep = sweeps.get(session, sweep_id)
    _refuse_unless_confirmable(session, sweep)
    checkpoints.check_kept(session, sweep.document, sweep.project)
    wishes = preferences_of(sweep, **(preferences or {}))
    chosen = _chosen(session, sweep, numbers) if numbers else ranked(session, sweep, candidates, wishes)
    further = _further_seeds(session, sweep, seeds)
    child = _child(session, sweep, len(chosen) * len(further), wishes, _target_now(session, sweep, alive_seconds))
    confirmation = Confirmation(
        sweep_id=child.id, confirms=sweep.id, seeds=further, candidates=[trial.id for trial in chosen]
    )
    session.add(confirmation)
    session.flush()
    events.append(session, child.id, "sweep.created", data={"name": child.name, "confirms": sweep.id})
    rows = [
        _row(child, trial, seed, number, max_attempts, now(session))
        for number, (seed, trial) in enumerate((seed, trial) for seed in further for trial in chosen)
    ]
    session.add_all(rows)
    session.flush()
    counts.add(session, child.id, {TrialState.QUEUED: len(rows)})
    events.append_all(session, child.id, [NewEvent("trial.queued", row.id, {"number": row.number}) for row in rows])
    events.append(session, sweep.id, "sweep.confirmation", data={"confirmation": child.id, "state": SweepState.ACTIVE})
    return confirmation


def of_sweep(session: Session, sweep_id: str) -> list[Confirmation]:
    """A sweep's confirmations, the newest first."""
    query = sa.select(Confirmation).where(Confirmation.confirms == sweep_id)
    return list(session.scalars(query.order_by(Confirmation.sweep_id.desc())))


def is_confirmable(session: Session, sweep: Sweep) -> bool:
    """Whether `create` would accept the sweep, if the checkpoints that its trainings begin with are there."""
    try:
        _refuse_unless_confirmable(session, sweep)
    except ConflictError:
        return False
    return True


def test_split(session: Session, settings: Settings, trial_id: str, attempt: int) -> Path:
    """The file of the test split, for a running attempt of a confirmation. Raises ForbiddenError, LeaseLostError,
    NotFoundError."""
    trial = session.get(Trial, trial_id)
    if trial is None or trial.attempt != attempt or trial.state != TrialState.RUNNING:
        raise LeaseLostError(f"attempt {attempt} of trial {trial_id} does not run")
    sweep = session.get_one(Sweep, trial.sweep_id)
    if sweep.kind is not SweepKind.CONFIRMATION or sweep.dataset_id is None:
        raise ForbiddenError("the test split is held back: what chooses a configuration must not see it")
    return datasets.split_path(settings, session.get_one(Dataset, sweep.dataset_id), "test")


def end_finished(session: Session) -> int:
    """End the confirmations of which every trial has ended; return how many. Safe to call from several processes."""
    open_states = OPEN_TRIALS
    waiting = sa.select(Trial.id).where(Trial.sweep_id == Sweep.id, Trial.state.in_(open_states)).exists()
    due = session.execute(
        sa.select(Sweep.id, Confirmation.confirms)
        .join(Confirmation, Confirmation.sweep_id == Sweep.id)
        .where(Sweep.state.in_(GOING_SWEEPS), ~waiting)
        .order_by(Sweep.id)
    ).all()
    row_locks.take_sweeps(session, {sweep_id for pair in due for sweep_id in pair})
    count = 0
    for child_id, parent_id in due:
        ended = _outcome(session, child_id)
        try:
            sweeps.end(session, child_id, *ended)
        except ConflictError:
            # Another process was first.
            continue
        events.append(session, parent_id, "sweep.confirmation", data={"confirmation": child_id, "state": ended[0]})
        count += 1
    return count


def delete_of_sweep(session: Session, sweep_id: str) -> None:
    """Delete a sweep's confirmations, before the sweep itself. Raises ConflictError while one goes on."""
    # First the sweep, which is older than they: one that is being created is waited for.
    row_locks.take_sweeps(session, [sweep_id])
    children = session.scalars(sa.select(Confirmation.sweep_id).where(Confirmation.confirms == sweep_id)).all()
    row_locks.take_sweeps(session, children)
    going = session.scalar(sa.select(Sweep.id).where(Sweep.id.in_(children), Sweep.state.in_(GOING_SWEEPS)).limit(1))
    if going is not None:
        raise ConflictError(f"its confirmation {going} goes on: cancel that first (POST /v1/sweeps/{going}:cancel)")
    session.execute(sa.delete(Sweep).where(Sweep.id.in_(children)).execution_options(synchronize_session=False))


def _outcome(session: Session, child_id: str) -> tuple[Any, str]:
    counts: Mapping[str, int] = session.scalars(sa.select(Sweep.counts).where(Sweep.id == child_id)).one()
    if counts.get(TrialState.COMPLETE):
        lost = sum(int(counts.get(state, 0)) for state in (TrialState.FAILED, TrialState.INFEASIBLE, TrialState.PRUNED))
        return (
            SweepState.COMPLETED,
            "confirmed" if not lost else f"confirmed; {plural(lost, 'further training')} gave no loss",
        )
    ended = Trial.sweep_id == child_id, Trial.reason.is_not(None)
    last = session.scalar(sa.select(Trial.reason).where(*ended).order_by(Trial.ended_at.desc(), Trial.id).limit(1))
    return "failed", "no further training came to its end" + (f"; the last one: {last}" if last else "")


def _refuse_unless_confirmable(session: Session, sweep: Sweep) -> None:
    if session.get(Confirmation, sweep.id) is not None:
        raise ConflictError(f"{sweep.id} is a confirmation itself: confirm the sweep that it confirms")
    if sweep.state not in ENDED_SWEEPS:
        raise ConflictError(
            f"the sweep is {sweep.state}: its front may still change. Confirm it when it has ended, or :cancel it first"
        )
    if sweep.task not in TASKS_WITH_A_TEST_SPLIT or sweep.dataset_id is None:
        raise ConflictError(f"a sweep for {sweep.task} has no dataset, and so no test split to be confirmed on")
    dataset = session.get_one(Dataset, sweep.dataset_id)
    if "test" not in dataset.parts:
        remedy = (
            "register the data again under another name with a test split (`layersweep dataset add --test 0.1`), and "
            "sweep that: what was trained on may be in any split cut now"
        )
        problem = Problem("/dataset", f"{dataset.name} has no test split", remedy)
        raise ConflictError(f"the dataset {dataset.name!r} has no test split: {remedy}", problems=[problem])


def _chosen(session: Session, sweep: Sweep, numbers: Sequence[int]) -> list[Trial]:
    found = {
        trial.number: trial
        for trial in session.scalars(
            sa.select(Trial).where(Trial.sweep_id == sweep.id, Trial.number.in_(list(numbers)))
        )
    }
    problems = [
        Problem(f"/trials/{index}", _lack(found.get(number), number), "a complete trial that keeps every constraint")
        for index, number in enumerate(numbers)
        if number not in found or found[number].state != TrialState.COMPLETE or not found[number].feasible
    ]
    if problems:
        raise UnprocessableError("; ".join(problem.detail for problem in problems), problems=problems)
    return [found[number] for number in dict.fromkeys(numbers)]


def _lack(trial: Trial | None, number: int) -> str:
    if trial is None:
        return f"there is no trial {number} in the sweep"
    return f"trial {number} is {trial.state}" + (" but not feasible" if trial.state == TrialState.COMPLETE else "")


def _further_seeds(session: Session, sweep: Sweep, count: int) -> list[int]:
    """Seeds that neither a trial of the sweep nor an earlier confirmation was trained with."""
    seed = Trial.configuration[("training", "seed")].as_integer()
    used = set(session.scalars(sa.select(seed).where(Trial.sweep_id == sweep.id).distinct()))
    for earlier in of_sweep(session, sweep.id):
        used.update(earlier.seeds)
    found: list[int] = []
    candidate = FIRST_SEED
    while len(found) < count:
        if candidate not in used:
            found.append(candidate)
        candidate += 1
    return found


def _target_now(session: Session, sweep: Sweep, alive_seconds: float) -> RegisteredTarget | None:
    """The sweep's target as workers measure on it now: its further trainings are compared among each other."""
    offered = targets.offered(session, alive_seconds, sweep)
    return next((target for target in offered if target["key"] == sweep.target_key), sweep.target)


def _child(
    session: Session, sweep: Sweep, count: int, wishes: SelectionPreferences, target: RegisteredTarget | None
) -> Sweep:
    child = Sweep(
        id=new_id(),
        project=sweep.project,
        name=f"confirmation of {sweep.name}"[:200],
        task=sweep.task,
        dataset_id=sweep.dataset_id,
        # Nothing stops a further training early: whether it keeps the constraints is a result.
        document={**sweep.document, "constraints": []},
        objectives=[{"metric": TEST_LOSS, "goal": "minimize"}],
        budget={"trials": count, "parallel": sweep.effective_parallel, "failures": count, "wall_seconds": None},
        effective_parallel=sweep.effective_parallel,
        sampler=SweepKind.CONFIRMATION,
        sampler_reason=f"every further training is known beforehand{f'; chosen by {wishes}' if wishes else ''}",
        space={"points": count, "feasible_share": 1.0, "sampled": False, "open_parameters": ["training.seed"]},
        priority=sweep.priority,
        target_runtime=sweep.target_runtime,
        labels=sweep.labels,
        target=target,
        target_key=sweep.target_key,
        state=SweepState.ACTIVE,
        counts={},
        created_at=now(session),
    )
    session.add(child)
    session.flush()
    return child


def _row(child: Sweep, trial: Trial, seed: int, number: int, max_attempts: int, time: float) -> Trial:
    configuration = {**trial.configuration, "training": {**trial.configuration["training"], "seed": seed}}
    return Trial(
        id=new_id(),
        sweep_id=child.id,
        project=child.project,
        number=number,
        state=TrialState.QUEUED,
        parameters={**trial.parameters, "training.seed": seed},
        configuration=configuration,
        point_hash=canonical_hash(configuration),
        # No sweep may reuse it: its scores are of the test split.
        reuse_key="",
        started_from=f"trial:{trial.id}",
        target_key=trial.target_key,
        max_attempts=max_attempts,
        metrics=own_figures(trial.metrics),
        created_at=time,
    )
