"""Which constraints kept every trial of a sweep from being recommended, and by how little the nearest one missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.expressions.constraints import Constraint, parse_constraint
from layers.metrics import is_metric
from service.common import formatting
from service.database.models import Sweep, Trial
from service.report.schemas import BrokenConstraint

MOST_TRIALS = 10_000
"""Judged trials that are looked at, the newest first."""

_Judged = tuple[int, Mapping[str, float]]
"""A trial's number, and by how much it breaks each constraint: at most 0 where it fulfils it."""


def broken_constraints(session: Session, sweep: Sweep) -> list[BrokenConstraint]:
    """One entry for each constraint that a trial broke, in the document's order."""
    rows = session.execute(
        sa.select(Trial.number, Trial.violations)
        .where(Trial.sweep_id == sweep.id, Trial.replicate_of.is_(None), Trial.feasible.is_not(None))
        .order_by(Trial.number.desc())
        .limit(MOST_TRIALS)
    )
    judged = [(number, violations or {}) for number, violations in rows]
    found = (_broken(text, judged) for text in sweep.document.get("constraints", []))
    return [each for each in found if each is not None]


def _broken(text: str, judged: Sequence[_Judged]) -> BrokenConstraint | None:
    missed = [(violations[text], number) for number, violations in judged if violations.get(text, 0.0) > 0]
    if not missed:
        return None
    by, nearest = min(missed)
    of = sum(text in violations for _, violations in judged)
    says = f"{len(missed):,} of {formatting.plural(of, 'trial')} broke {text}; the nearest, trial {nearest}, by "
    return BrokenConstraint(
        constraint=text,
        broken=len(missed),
        judged=of,
        nearest=nearest,
        by=by,
        says=says + _amount(parse_constraint(text), by),
    )


def _amount(constraint: Constraint, by: float) -> str:
    """In the metric's unit where the constraint is a metric against a limit; else a bare number."""
    names = constraint.expression.names
    if len(names) != 1 or not is_metric(names[0]):
        return formatting.number(by)
    at_0, at_1 = constraint.violation({names[0]: 0.0}), constraint.violation({names[0]: 1.0})
    in_its_unit = at_0 is not None and at_1 is not None and abs(abs(at_1 - at_0) - 1) < 1e-6
    return formatting.metric(names[0], by) if in_its_unit else formatting.number(by)
