"""One proposal: of many candidates the one that promises most, by models of what is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from service.scheduling.surrogate.acquisition import (
    Prediction,
    expected_improvement,
    non_dominated,
    reference_point,
)
from service.scheduling.surrogate.candidates import candidates, children, distinct
from service.scheduling.surrogate.columns import Booleans, Floats
from service.scheduling.surrogate.features import Features, crowding, features, squared_distances
from service.scheduling.surrogate.history import History
from service.scheduling.surrogate.level_first import draw_points
from service.scheduling.surrogate.models import Model, Models, refit_count
from service.scheduling.surrogate.objectives import Objective
from service.scheduling.surrogate.space import CodedSpace, Points

_NEAR = 400
_ANYWHERE = 200
_REFINED = 8
_REFINEMENTS = 200
_START_DRAWS = 32
_MOST_START_ROUNDS = 100
_MOST_ROWS = 400
"""Rows that a model is conditioned on: those nearest to the front, and others."""
_MOST_WAITING = 100
_FEWEST_COSTS = 2


class Proposer:
    """Proposes points of a space. It keeps nothing that decides: only what would be computed again."""

    def __init__(self, space: CodedSpace, starts: int) -> None:
        self._space = space
        self._starts = starts
        self._models = Models()

    def propose(
        self, objectives: Sequence[Objective], history: History, generator: np.random.Generator
    ) -> dict[str, Any]:
        """The values of the next point; none where every candidate was asked before."""
        asked = set(history.points.keys())
        if history.is_informative.sum() < self._starts:
            return self._start(history, asked, generator)
        view = _View(self._space, self._models, objectives, history)
        first = candidates(self._space, view.parents, near=_NEAR, anywhere=_ANYWHERE, generator=generator)
        found = _not_asked(first, asked)
        if not len(found):
            return {}
        worth = view.worth(found)
        best = np.argsort(-worth, kind="stable")[:_REFINED]
        further = _not_asked(
            distinct(self._space.points(children(self._space, found.of(best), _REFINEMENTS, generator))), asked
        )
        together = Points(
            np.concatenate([found.codes, further.codes]), np.concatenate([found.presence, further.presence])
        )
        order = np.argsort(-np.concatenate([worth, view.worth(further)]), kind="stable")
        return self._first_allowed(together, order)

    def _start(self, history: History, asked: set[bytes], generator: np.random.Generator) -> dict[str, Any]:
        """A point that is drawn level first: of some the one that is farthest from all before."""
        for _ in range(_MOST_START_ROUNDS):
            drawn = _not_asked(distinct(self._space.points(draw_points(self._space, _START_DRAWS, generator))), asked)
            order = np.arange(len(drawn))
            if len(history.points) and len(drawn):
                known, new = features(self._space, history.points), features(self._space, drawn)
                order = np.argsort(-squared_distances(new.whole, known.whole).min(axis=1), kind="stable")
            found = self._first_allowed(drawn, order)
            if found:
                return found
        return {}

    def _first_allowed(self, points: Points, order: NDArray[np.intp]) -> dict[str, Any]:
        for row in order:
            if self._space.is_allowed(points.codes[row], points.presence[row]):
                return self._space.decode(points.codes[row], points.presence[row])
        return {}


class _View:
    """What the models of one ask say, and where its front is."""

    def __init__(self, space: CodedSpace, models: Models, objectives: Sequence[Objective], history: History) -> None:
        self._space = space
        self._objectives = objectives
        seen = features(space, history.points)
        self._asked = seen
        count = refit_count(history)
        feasible = history.is_feasible
        complete = history.is_complete
        front = np.flatnonzero(feasible)
        front = front[non_dominated(history.costs[front])]
        self.parents = history.points.of(front if len(front) else _least_broken(history))
        rows = _modelled_rows(history, history.costs[front])
        self._constraints = [
            models.model(f"constraint {name}", seen, _squashed(values), history.numbers, count, rows)
            for name, values in history.violations.items()
            if (values > 0).any()
        ]
        self._models: list[Model] = []
        if complete.sum() < _FEWEST_COSTS:
            return
        values = np.stack(
            [objective.modelled(history.costs[:, index]) for index, objective in enumerate(objectives)], axis=1
        )
        # By its logarithm an objective is another quantity.
        self._names = [f"objective {index} {objective.is_log}" for index, objective in enumerate(objectives)]
        self._models = [
            models.model(name, seen, values[:, index], history.numbers, count, rows)
            for index, name in enumerate(self._names)
        ]
        self._front, self._reference = history.costs[front], reference_point(history.costs[complete])
        waiting = np.flatnonzero(history.is_waiting)[-_MOST_WAITING:]
        if len(waiting):
            self._count_at_prediction(models, seen, values, history, count, rows, waiting)

    def worth(self, points: Points) -> Floats:
        """What each point promises: expected improvement times the chance that every constraint holds.

        Less where much was asked: a model expects what lies between two values also where there is a step, for ever.
        """
        seen = features(self._space, points)
        chance = np.ones(len(points))
        for constraint in self._constraints:
            mean, deviation = constraint.predict(seen)
            chance *= ndtr(-mean / deviation)
        if not self._models:
            return chance
        predicted = self._predict(seen)
        gained = expected_improvement(self._objectives, predicted, self._front, self._reference)
        worth = gained * chance / (1.0 + crowding(seen, self._asked))
        return worth if worth.max(initial=0.0) > 0 else chance * predicted.deviations.sum(axis=1)

    def _predict(self, seen: Features) -> Prediction:
        predictions = [model.predict(seen) for model in self._models]
        return Prediction(
            np.stack([mean for mean, _ in predictions], axis=1),
            np.stack([deviation for _, deviation in predictions], axis=1),
        )

    def _count_at_prediction(
        self,
        models: Models,
        seen: Features,
        values: Floats,
        history: History,
        count: int,
        rows: Booleans,
        waiting: NDArray[np.intp],
    ) -> None:
        """What waits is taken as if it had ended as predicted."""
        predicted = self._predict(seen.of(waiting)).means
        costs = np.stack(
            [objective.cost(predicted[:, index]) for index, objective in enumerate(self._objectives)], axis=1
        )
        every = np.concatenate([self._front, costs])
        self._front = every[non_dominated(every)]
        believed = values.copy()
        believed[waiting] = predicted
        more = rows.copy()
        more[waiting] = True
        self._models = [
            models.conditioned(name, seen, believed[:, index], more) for index, name in enumerate(self._names)
        ]


def _not_asked(points: Points, asked: set[bytes]) -> Points:
    keys = points.keys()
    return points.of(np.array([key not in asked for key in keys], dtype=np.bool_))


def _squashed(violations: Floats) -> Floats:
    """Violations so that their sign weighs more than their size."""
    return np.tanh(violations)


def _least_broken(history: History) -> NDArray[np.intp]:
    """Where nothing is feasible: the few rows that break least."""
    broken = np.zeros(len(history.numbers))
    for violations in history.violations.values():
        broken += np.maximum(np.nan_to_num(violations, nan=0.0), 0.0)
    informative = np.flatnonzero(history.is_informative)
    return informative[np.argsort(broken[informative], kind="stable")[:5]]


def _modelled_rows(history: History, front: Floats) -> Booleans:
    """The rows that models are conditioned on: all while they are few, then those near the front and some others."""
    known = np.flatnonzero(history.is_informative)
    rows = np.zeros(len(history.numbers), dtype=np.bool_)
    if len(known) > _MOST_ROWS:
        costs = history.costs[known]
        span = np.nanmax(costs, axis=0) - np.nanmin(costs, axis=0) + 1e-300
        behind = np.full(len(known), np.inf)
        for row in front:
            behind = np.fmin(behind, ((costs - row) / span).max(axis=1))
        order = np.argsort(np.nan_to_num(behind, nan=np.inf), kind="stable")
        near, rest = order[: _MOST_ROWS * 3 // 4], np.sort(order[_MOST_ROWS * 3 // 4 :])
        some = rest[np.linspace(0, len(rest) - 1, _MOST_ROWS // 4).astype(np.intp)]
        known = known[np.concatenate([near, some])]
    rows[known] = True
    return rows
