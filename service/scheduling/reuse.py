"""Points that were measured before: the same configuration, data, target and versions need not be measured again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.configuration import Configuration
from layers.space.document import Constraint
from layers.space.document_fields import Objective
from service.common.noise import StoredNoise
from service.common.states import TrialState
from service.database.models import Measurement, Trial
from service.leases.feasibility import describe_final_violations, describe_violations, judge


@dataclass(frozen=True, slots=True)
class Source:
    """A trial that ended complete or infeasible."""

    id: str
    origin: str
    """The trial that was executed: a source may itself be reused."""
    reuse_key: str
    state: TrialState
    metrics: dict[str, float]
    reason: str | None
    noise: StoredNoise | None


@dataclass(frozen=True, slots=True)
class Reused:
    """A source as this sweep's constraints see it."""

    source: Source
    violations: dict[str, float]
    feasible: bool

    @property
    def reason(self) -> str | None:
        """The constraints that it breaks here; what the other sweep said of its own does not hold for this one."""
        describe = describe_final_violations if self.source.state == TrialState.COMPLETE else describe_violations
        return describe(self.violations, self.source.metrics)


def find(session: Session, project: str, keys: Collection[str], *, other_than: str) -> list[Source]:
    """The ended trials with one of `keys` in the project's other sweeps, the oldest first."""
    rows = session.execute(
        sa.select(Trial.id, Trial.reused_from, Trial.reuse_key, Trial.state, Trial.metrics, Trial.reason, Trial.noise)
        .where(
            Trial.reuse_key.in_(keys),
            Trial.project == project,
            Trial.state.in_((TrialState.COMPLETE, TrialState.INFEASIBLE)),
            Trial.sweep_id != other_than,
        )
        .order_by(Trial.id)
    )
    return [
        Source(each, origin or each, key, state, metrics, why, noise)
        for each, origin, key, state, metrics, why, noise in rows
    ]


def judge_source(
    source: Source,
    configuration: Configuration,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
) -> Reused | None:
    """The source under this sweep's objectives and constraints; None if it does not say enough, so that it must run.

    A complete source needs every metric that is asked for. An infeasible one was not trained: it answers only if a
    hardware constraint of this sweep is broken, too. What cannot be judged by it is measured again: near another
    sweep's limits, or when the machine is quieter, it may come out.
    """
    figures = {} if source.noise is None else source.noise["figures"]
    judgement = judge([constraint.text for constraint in constraints], configuration, source.metrics, figures)
    violations = judgement.violations
    if source.state == TrialState.INFEASIBLE:
        hardware = (constraint.text for constraint in constraints if constraint.stage == "hardware")
        broken = any(judgement.decided.get(text, 0) > 0 for text in hardware)
        return Reused(source, violations, False) if broken else None
    needed = {objective["metric"] for objective in objectives}
    needed.update(*(constraint.metrics for constraint in constraints))
    if not needed <= source.metrics.keys() or judgement.feasible is None:
        return None
    return Reused(source, violations, judgement.feasible)


def copy_measurements(session: Session, source_id: str, trial_id: str) -> None:
    """Give the trial the source's measurements, so that they outlive it."""
    columns = (Measurement.name, Measurement.attempt, Measurement.data)
    session.execute(
        sa.insert(Measurement).from_select(
            ["trial_id", "name", "attempt", "data"],
            sa.select(sa.literal(trial_id), *columns).where(Measurement.trial_id == source_id),
        )
    )
