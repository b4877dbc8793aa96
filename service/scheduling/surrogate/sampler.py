"""The surrogate sampler: for tens to hundreds of trials that each take long, with one to four objectives.

    study = optuna.create_study(directions=["minimize", "minimize"], sampler=SurrogateSampler(seed=0))

An ask depends on the trials so far, the seed and its own number alone: a study that is read back from its storage
goes on as if it had never been away. While trials run, one fit gives several points: they are kept in the attributes
of the trial that they were chosen with, and are the next ones that are asked. Constraints are those of
`Trial.set_constraint`; a trial that is pruned without breaking one counts as stopped, which is avoided as well. If
the attribute `attributes.DEVIATIONS` of a trial says how sure its values are, models take that for their noise.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from service.scheduling.surrogate.ahead import count_ahead, leave, take
from service.scheduling.surrogate.columns import Column, Value
from service.scheduling.surrogate.history import History, HistoryReader
from service.scheduling.surrogate.objectives import Objective
from service.scheduling.surrogate.prior import EarlierTrial, Prior
from service.scheduling.surrogate.proposing import Proposer
from service.scheduling.surrogate.space import CodedSpace, SearchSpace

_STARTS = 10


class SurrogateSampler(BaseSampler):
    """Models each objective and constraint by a Gaussian process and asks for what promises the most hypervolume.

    Without a `space` it searches the parameters that all trials have, and draws others at random: conditional
    parameters need one. `logarithmic` says of each objective whether its logarithm is modelled; without it that is
    done if all its values are positive. `earlier` are trials of other studies: they say where to look first, as far
    as what is found here bears them out.
    """

    def __init__(
        self,
        space: SearchSpace | None = None,
        *,
        seed: int | None = None,
        starts: int = _STARTS,
        logarithmic: Sequence[bool] | None = None,
        earlier: Sequence[EarlierTrial] = (),
    ) -> None:
        self._space = space
        self._seed = secrets.randbits(32) if seed is None else seed
        self._starts = starts
        self._logarithmic = logarithmic
        self._earlier = earlier
        self._intersection = IntersectionSearchSpace()
        self._prepared: _FittedStudy | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The space that was given, or what all trials have."""
        if self._space is not None:
            return dict(self._space.distributions)
        found = self._intersection.calculate(study)
        return {name: distribution for name, distribution in found.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Value]:
        """The next point, with those of its parameters that are present."""
        if not search_space:
            return {}
        prepared = self._prepare(study, search_space)
        trials = study.get_trials(deepcopy=False)
        kept = take(prepared.space, trials[: trial.number])
        if kept is not None:
            return kept
        history = prepared.reader.read(trials, trial.number)
        count = count_ahead(int(history.is_waiting.sum()), int(history.is_informative.sum()))
        generator = np.random.default_rng([self._seed, trial.number])
        points = prepared.proposer.propose(self._objectives(study, history), history, generator, count)
        if len(points) > 1:
            leave(study, trial, points.of(slice(1, None)))
        return prepared.space.decode(points.codes[0], points.presence[0]) if len(points) else {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value at random: for parameters outside the searched space."""
        seed = [self._seed, trial.number, *param_name.encode()]
        column = Column(param_distribution)
        return column.value(float(column.draw(np.random.default_rng(seed), 1)[0]))

    def _prepare(self, study: Study, search_space: Mapping[str, BaseDistribution]) -> _FittedStudy:
        known = self._prepared
        if known is None or not known.is_of(study, search_space):
            space = CodedSpace(self._space or SearchSpace(search_space))
            signs = np.where(_is_maximized(study), -1.0, 1.0)
            prior = Prior(space, self._earlier, signs) if self._earlier else None
            proposer = Proposer(space, self._starts, prior)
            known = _FittedStudy(
                study._storage, study._study_id, search_space, space, HistoryReader(space, signs), proposer
            )
            self._prepared = known
        return known

    def _objectives(self, study: Study, history: History) -> list[Objective]:
        complete = history.costs[history.is_complete]
        found: list[Objective] = []
        for index, is_maximized in enumerate(_is_maximized(study)):
            may_be_log = self._logarithmic is None or self._logarithmic[index]
            is_positive = (complete[:, index] < 0 if is_maximized else complete[:, index] > 0).all()
            is_positive &= all(trial.values[index] > 0 for trial in self._earlier)
            found.append(Objective(is_maximized, may_be_log and bool(is_positive)))
        return found


@dataclass(frozen=True, slots=True)
class _FittedStudy:
    """What was read and fitted of one study and space; it would be found again."""

    storage: BaseStorage
    study_id: int
    searched: Mapping[str, BaseDistribution]
    space: CodedSpace
    reader: HistoryReader
    proposer: Proposer

    def is_of(self, study: Study, searched: Mapping[str, BaseDistribution]) -> bool:
        return self.storage is study._storage and self.study_id == study._study_id and self.searched == searched


def _is_maximized(study: Study) -> list[bool]:
    return [direction == StudyDirection.MAXIMIZE for direction in study.directions]
