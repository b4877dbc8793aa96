"""A sweep for one answer: what several parts of its page need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

from sqlalchemy.orm import Session

from service.errors import NotFoundError, UnprocessableError
from service.recommendation.preferences import SelectionPreferences
from service.recommendation.recommend import Recommended, decide, preferences_of
from service.results import leaderboards
from service.results.plot_selection import metrics_of
from service.results.selection import full_sort
from service.sweeps.best_trials import best_trials
from service.sweeps.schemas import BestTrial
from service.web.views.query import SweepQuery
from service.web.views.what_if import WhatIf, front_candidates, what_if, within_of


class ShownSweep:
    """A sweep for one answer: what several parts of its page need is found once. Raises NotFoundError."""

    def __init__(self, session: Session, sweep_id: str, query: SweepQuery, alive_seconds: float) -> None:
        self.session = session
        self.alive_seconds = alive_seconds
        self.row = leaderboards.get_sweep(session, sweep_id)
        query = replace(query, sort=full_sort(query.sort, metrics_of(self.row), leaderboards.parameter_names(self.row)))
        if query.limits:
            within = within_of(query.limits, front_candidates(session, self.row), self.row)
            query = replace(query, within=(*query.within, *within), limits=())
        self.query = query

    @cached_property
    def best(self) -> Mapping[str, BestTrial]:
        return best_trials(self.session, self.row)

    @cached_property
    def wishes(self) -> SelectionPreferences:
        """What is wished of the recommendation. Raises UnprocessableError."""
        query = self.query
        return preferences_of(self.row, prefer=query.prefer, within=query.within, weight=query.weight)

    @cached_property
    def _decided(self) -> Recommended | UnprocessableError | None:
        wishes = self.wishes
        try:
            return decide(self.session, self.row, wishes)
        except NotFoundError:
            return None
        except UnprocessableError as nothing_within:
            return nothing_within

    @property
    def decided(self) -> Recommended | None:
        """The recommended trial and what it was chosen from; None while there is none."""
        return self._decided if isinstance(self._decided, Recommended) else None

    @property
    def what_if(self) -> WhatIf | None:
        decided, refused = self.decided, self._decided if isinstance(self._decided, UnprocessableError) else None
        choice = None if decided is None else decided.choice
        if choice is None and refused is None:
            return None
        front = front_candidates(self.session, self.row) if choice is None else choice.front
        return what_if(self.row, self.query, self.wishes, front, choice, refused)

    @property
    def recommended_trial(self) -> str | None:
        return None if self.decided is None else self.decided.candidate.id

    @property
    def rule_order(self) -> list[str]:
        """The ids of the recommended trial and of those that the rule puts next."""
        if self.decided is None:
            return []
        return list(dict.fromkeys([self.decided.candidate.id, *(each.id for each in self.decided.choice.kept)]))
