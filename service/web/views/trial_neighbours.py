"""The trials that a trial's page leads to: the recommended one, and those before and after it."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database.models import Sweep, Trial
from service.errors import NotFoundError
from service.recommendation.recommend import recommend
from service.results.schemas import LeaderboardRow


@dataclass(frozen=True, slots=True)
class NearTrial:
    id: str
    number: int


@dataclass(frozen=True, slots=True)
class TrialNeighbours:
    recommended: LeaderboardRow | None
    """None while the sweep has none."""
    previous: NearTrial | None
    """By number; None for the first one, and for a further training, which has none."""
    next: NearTrial | None


def neighbours(session: Session, sweep: Sweep, trial: Trial) -> TrialNeighbours:
    """What stands beside a trial in its sweep."""
    try:
        recommended = recommend(session, sweep).trial
    except NotFoundError:
        recommended = None
    if trial.replicate_of is not None:
        return TrialNeighbours(recommended, None, None)
    # Further trainings have numbers below 0. By number alone, so that one look into its index is enough.
    others = sa.select(Trial.id, Trial.number).where(Trial.sweep_id == sweep.id)
    before = others.where(Trial.number < trial.number, Trial.number >= 0)
    after = others.where(Trial.number > trial.number)
    return TrialNeighbours(
        recommended,
        _first(session, before.order_by(Trial.number.desc())),
        _first(session, after.order_by(Trial.number)),
    )


def _first(session: Session, query: sa.Select[str, int]) -> NearTrial | None:
    found = session.execute(query.limit(1)).first()
    return None if found is None else NearTrial(found[0], found[1])
