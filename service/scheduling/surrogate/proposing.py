"""Proposals: of many candidates those that promise most, by models of what is known."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from service.scheduling.surrogate.acquisition import (
    Improvement,
    Prediction,
    non_dominated,
    reference_point,
)
from service.scheduling.surrogate.candidates import candidates, children, distinct
from service.scheduling.surrogate.columns import Booleans, Floats
from service.scheduling.surrogate.features import Features, features, squared_distances
from service.scheduling.surrogate.history import History
from service.scheduling.surrogate.level_first import draw_points
from service.scheduling.surrogate.models import Model, Models, refit_count
from service.scheduling.surrogate.objectives import Objective
from service.scheduling.surrogate.prior import Informed, Prior
from service.scheduling.surrogate.selection import Selection
from service.scheduling.surrogate.space import CodedSpace, Points

_NEAR = 400
_NEAR_EACH = 4
"""So many candidates are made for each point that is proposed, if that is more."""
_ANYWHERE = 200
_REFINED = 8
_REFINEMENTS = 200
_START_DRAWS = 32
_MOST_START_ROUNDS = 100
_MOST_ROWS = 400
"""Rows that a model is conditioned on: those nearest to the front, and others."""
_MOST_WAITING = 400
"""Points that wait and count for the front: the last ones."""
_MOST_EXPECTED = 100
"""Points that wait and make a model surer there."""
_FEWEST_COSTS = 2
_DRAWN_OF = 2
"""Of so many first points one is drawn, although earlier trials say where to look."""
_TRUSTED = 0.5


class Proposer:
    """Proposes points of a space. It keeps nothing that decides: only what would be computed again."""

    def __init__(self, space: CodedSpace, starts: int, prior: Prior | None = None) -> None:
        self._space = space
        self._starts = starts
        self._prior = prior
        self._models = Models()

    def propose(
        self, objectives: Sequence[Objective], history: History, generator: np.random.Generator, count: int
    ) -> Points:
        """The next points, best first, of one fit of the models: up to `count`, none if all were asked before.

        Before there is anything to model it is one that is drawn.
        """
        started = int(history.is_informative.sum())
        prior = self._prior
        is_starting = started < self._starts
        if is_starting and (prior is None or started % _DRAWN_OF == _DRAWN_OF - 1):
            return self._start(history, generator)
        view = _View(self._space, self._models, objectives, history, prior, is_starting=is_starting)
        if is_starting and view.trust < _TRUSTED:
            return self._start(history, generator)
        near, refined = max(_NEAR, _NEAR_EACH * count), max(_REFINED, count)
        first = candidates(self._space, view.parents, near=near, anywhere=_ANYWHERE, generator=generator)
        found = _not_asked(first, history.asked)
        if not len(found):
            return found
        judged = view.judge(found)
        best = found.of(view.leaders(judged, refined))
        bred = children(self._space, best, max(_REFINEMENTS, _NEAR_EACH * count), generator)
        further = _not_asked(_not_asked(distinct(self._space.points(bred)), history.asked), set(found.keys()))
        return view.choose(judged.with_more(view.judge(further)), count)

    def _start(self, history: History, generator: np.random.Generator) -> Points:
        """A point that is drawn level first: of some the one that is farthest from all before."""
        for _ in range(_MOST_START_ROUNDS):
            drawn = distinct(self._space.points(draw_points(self._space, _START_DRAWS, generator)))
            drawn = _not_asked(drawn, history.asked)
            order = np.arange(len(drawn))
            if len(history.points) and len(drawn):
                new = features(self._space, drawn)
                order = np.argsort(-squared_distances(new.whole, history.seen.whole).min(axis=1), kind="stable")
            for row in order:
                if self._space.is_allowed(drawn.codes[row], drawn.presence[row]):
                    return drawn.of(np.array([row]))
        return history.points.of(slice(0))


@dataclass(frozen=True, slots=True)
class _Judged:
    """Points with what the models say of them."""

    points: Points
    seen: Features
    chance: Floats
    """That every constraint holds."""
    predicted: Prediction

    def with_more(self, other: _Judged) -> _Judged:
        return _Judged(
            self.points.with_more(other.points),
            self.seen.with_more(other.seen),
            np.concatenate([self.chance, other.chance]),
            self.predicted.with_more(other.predicted),
        )


class _View:
    """What the models of one ask say, and where its front is."""

    def __init__(
        self,
        space: CodedSpace,
        models: Models,
        objectives: Sequence[Objective],
        history: History,
        prior: Prior | None,
        *,
        is_starting: bool,
    ) -> None:
        self._space = space
        self._objectives = objectives
        self._asked = history.seen
        complete = history.is_complete
        front = np.flatnonzero(history.is_feasible)
        front = front[non_dominated(history.costs[front])]
        self.parents = history.points.of(front if len(front) else _least_broken(history))
        if prior is not None and is_starting:
            self.parents = self.parents.with_more(prior.parents)
        rows, count = _modelled_rows(history, history.costs[front]), refit_count(history)

        def model(
            name: str, values: Floats, earlier: Floats | None, deviations: Floats | None = None
        ) -> Model | Informed:
            def alone(name: str, values: Floats) -> Model:
                return models.model(name, history.seen, values, history.numbers, count, rows, deviations)

            if prior is None or earlier is None or not len(prior):
                return alone(name, values)
            return Informed(name, prior.model(name, earlier), history.seen, values, alone)

        violations = {} if prior is None else prior.violations
        nothing = np.full(len(history.numbers), np.nan)
        names = sorted({*history.violations, *violations})
        self._constraints: list[Model | Informed] = []
        for name in names:
            found, earlier = history.violations.get(name, nothing), violations.get(name)
            if (found > 0).any() or (earlier is not None and (earlier > 0).any()):
                prior_values = None if earlier is None else _squashed(earlier)
                self._constraints.append(model(f"constraint {name}", _squashed(found), prior_values))
        self._models: list[Model | Informed] = []
        if complete.sum() < _FEWEST_COSTS and prior is None:
            return
        noise = history.deviations
        # By its logarithm an objective is another quantity.
        self._models = [
            model(
                f"objective {index} {objective.is_log}",
                objective.modelled(history.costs[:, index]),
                None if prior is None else objective.modelled(prior.costs[:, index]),
                None if noise is None else objective.deviations(history.costs[:, index], noise[:, index]),
            )
            for index, objective in enumerate(objectives)
        ]
        costs = history.costs[complete]
        if prior is not None and is_starting:
            costs = np.concatenate([costs, prior.costs])
        self._front, self._reference = history.costs[front], reference_point(costs)
        self._count_at_prediction(history.seen, np.flatnonzero(history.is_waiting)[-_MOST_WAITING:])

    @property
    def trust(self) -> float:
        """How far earlier trials are believed: the least of any objective."""
        return min((model.share for model in self._models if isinstance(model, Informed)), default=0.0)

    def judge(self, points: Points) -> _Judged:
        """What the models say of points."""
        seen = features(self._space, points)
        chance = np.ones(len(points))
        for constraint in self._constraints:
            mean, deviation = constraint.predict(seen)
            chance *= ndtr(-mean / deviation)
        predictions = [model.predict(seen) for model in self._models]
        nothing = np.empty((0, len(points)))
        return _Judged(
            points,
            seen,
            chance,
            Prediction(
                np.array([mean for mean, _ in predictions] or nothing).T,
                np.array([deviation for _, deviation in predictions] or nothing).T,
            ),
        )

    def leaders(self, judged: _Judged, count: int) -> NDArray[np.intp]:
        """The rows of so many points that promise most, best first."""
        if not self._models:
            return np.argsort(-judged.chance, kind="stable")[:count]
        return self._selection(judged).leaders(count)

    def choose(self, judged: _Judged, count: int) -> Points:
        """So many points that may be tried and promise most together."""
        points = judged.points

        def is_allowed(row: int) -> bool:
            return self._space.is_allowed(points.codes[row], points.presence[row])

        if self._models:
            return points.of(self._selection(judged).choose(count, is_allowed))
        first = next((row for row in self.leaders(judged, len(points)) if is_allowed(row)), None)
        return points.of(slice(0)) if first is None else points.of(np.array([first]))

    def _selection(self, judged: _Judged) -> Selection:
        improvement = Improvement(self._objectives, self._front, self._reference, judged.predicted)
        return Selection(self._objectives, improvement, judged.predicted, judged.chance, judged.seen, self._asked)

    def _count_at_prediction(self, seen: Features, waiting: NDArray[np.intp]) -> None:
        """What waits is taken as if it had ended as predicted."""
        if not len(waiting):
            return
        of_waiting = seen.of(waiting)
        costs = [
            objective.cost(model.mean(of_waiting))
            for objective, model in zip(self._objectives, self._models, strict=True)
        ]
        every = np.concatenate([self._front, np.stack(costs, axis=1)])
        self._front = every[non_dominated(every)]
        for model in self._models:
            model.expect(seen.of(waiting[-_MOST_EXPECTED:]))


def _not_asked(points: Points, asked: Container[bytes]) -> Points:
    keys = points.keys()
    return points.of(np.array([key not in asked for key in keys], dtype=np.bool_))


def _squashed(violations: Floats) -> Floats:
    """Violations so that their sign weighs more than their size."""
    return np.tanh(violations)


def _least_broken(history: History) -> NDArray[np.intp]:
    """If nothing is feasible: the few rows that break least."""
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
