"""A sweep's gate, read from its rows."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.metrics import STATIC
from service.common.states import TrialState
from service.database.models import Ask, Trial
from service.scheduling.device_model.early_figures import EarlyFigures
from service.scheduling.device_model.features import describe
from service.scheduling.device_model.gate import HardwareGate
from service.scheduling.device_model.measured import MeasuredTrial, at_shapes, measured, measured_trials
from service.scheduling.studies import Attributes
from service.scheduling.sweep_state import History, SweepFacts

BASE = "layersweep:device_model"
"""The attribute of a study that names the trials that its gate rests on."""


def load_gate(session: Session, facts: SweepFacts, history: History, attributes: Attributes) -> HardwareGate:
    """The gate of a sweep as of its last event that was worked in.

    The trials that it rests on are chosen when the sweep starts. One that was deleted since is missing in it. A sweep
    of several shapes has one that spares nothing.
    """
    constraints = [each for each in facts.document.constraints if each.stage == "hardware"]
    early = EarlyFigures.of(facts)
    is_unused = not constraints and early is None
    if not facts.document.search.get("device_model") or is_unused or facts.document.space.shapes:
        return HardwareGate((), (), ())
    gate = HardwareGate(constraints, _base(session, facts, attributes), _own(session, facts.id), early)
    columns = (Trial.id, Trial.configuration, Trial.metrics)
    in_flight = session.execute(sa.select(*columns).where(Trial.id.in_(list(history.outstanding))))
    for trial_id, configuration, metrics in in_flight:
        gate.expect_described(trial_id, describe(configuration, {name: metrics[name] for name in STATIC}))
    return gate


def _base(session: Session, facts: SweepFacts, attributes: Attributes) -> list[MeasuredTrial]:
    ids: list[str] = attributes.get(BASE, [])
    if BASE not in attributes:
        project, task = facts.project, facts.document.task
        found = measured_trials(session, facts.target["key"], project=project, task=task, other_than=facts.id)
        ids = list(dict.fromkeys(trial.id for trial in found))
    # Chosen just now or read again, they are the same rows in the same order.
    rows = session.execute(sa.select(Trial.id, Trial.configuration, Trial.metrics).where(Trial.id.in_(ids)))
    by_id = {trial_id: at_shapes(configuration, metrics) for trial_id, configuration, metrics in rows}
    return [measured(each, *at[1:]) for each in ids for at in by_id.get(each, [])]


def _own(session: Session, sweep_id: str) -> list[MeasuredTrial]:
    """What the sweep's trials have shown, in the order in which the sampler was told of them."""
    rows = session.execute(
        sa.select(Trial.id, Trial.configuration, Trial.metrics)
        .join(Ask, Ask.trial_id == Trial.id)
        .where(Ask.sweep_id == sweep_id, Ask.told_order.is_not(None))
        .where(Trial.state.in_((TrialState.COMPLETE, TrialState.INFEASIBLE)))
        .order_by(Ask.told_order)
    )
    return [trial for row in rows if (trial := measured(*row)).shows_hardware]
