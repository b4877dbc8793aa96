"""The surrogate sampler: for tens to hundreds of trials that each take long, with one to four objectives.

    study = optuna.create_study(directions=["minimize", "minimize"], sampler=SurrogateSampler(seed=0))

An ask depends on the trials so far, the seed and its own number alone: a study that is read back from its storage
goes on as if it had never been away. Constraints are those of `Trial.set_constraint`; a trial that is pruned without
breaking one counts as stopped, which is avoided as well.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from service.scheduling.surrogate.columns import Column
from service.scheduling.surrogate.history import HistoryReader
from service.scheduling.surrogate.objectives import Objective
from service.scheduling.surrogate.proposing import Proposer
from service.scheduling.surrogate.space import CodedSpace, SearchSpace

_STARTS = 10


class SurrogateSampler(BaseSampler):
    """Models each objective and constraint by a Gaussian process and asks for what promises the most hypervolume.

    Without a `space` it searches the parameters that all trials have, and draws others at random: conditional
    parameters need one. `logarithmic` says of each objective whether its logarithm is modelled; without it that is
    done where all its values are positive.
    """

    def __init__(
        self,
        space: SearchSpace | None = None,
        *,
        seed: int | None = None,
        starts: int = _STARTS,
        logarithmic: Sequence[bool] | None = None,
    ) -> None:
        self._space = space
        self._seed = secrets.randbits(32) if seed is None else seed
        self._starts = starts
        self._logarithmic = logarithmic
        self._intersection = IntersectionSearchSpace()
        self._searched: Mapping[str, BaseDistribution] = {}
        self._reader: HistoryReader | None = None
        self._proposer: Proposer | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The space that was given, or what all trials have."""
        if self._space is not None:
            return dict(self._space.distributions)
        found = self._intersection.calculate(study)
        return {name: distribution for name, distribution in found.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next point, with those of its parameters that are present."""
        if not search_space:
            return {}
        reader, proposer = self._prepared(search_space)
        trials = [
            known
            for known in study.get_trials(deepcopy=False)
            if known.number != trial.number and known.state != TrialState.WAITING
        ]
        maximized = [direction == StudyDirection.MAXIMIZE for direction in study.directions]
        history = reader.read(trials, np.where(maximized, -1.0, 1.0))
        objectives = [
            Objective(is_maximized, self._is_logarithmic(index, trials)) for index, is_maximized in enumerate(maximized)
        ]
        return proposer.propose(objectives, history, np.random.default_rng([self._seed, trial.number]))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value at random: for parameters outside the searched space."""
        seed = [self._seed, trial.number, *param_name.encode()]
        column = Column(param_distribution)
        return column.value(float(column.draw(np.random.default_rng(seed), 1)[0]))

    def _prepared(self, search_space: Mapping[str, BaseDistribution]) -> tuple[HistoryReader, Proposer]:
        if self._reader is None or self._proposer is None or search_space != self._searched:
            space = CodedSpace(self._space or SearchSpace(search_space))
            self._searched = search_space
            self._reader, self._proposer = HistoryReader(space), Proposer(space, self._starts)
        return self._reader, self._proposer

    def _is_logarithmic(self, objective: int, trials: Sequence[FrozenTrial]) -> bool:
        if self._logarithmic is not None and not self._logarithmic[objective]:
            return False
        return all(trial.values[objective] > 0 for trial in trials if trial.state == TrialState.COMPLETE)
