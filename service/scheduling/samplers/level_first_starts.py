"""Start-up points with layers that differ drawn level first: drawn one by one, their mean hardly leaves the middle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from layers.declarations.per_layer import layer_name
from service.scheduling.surrogate.columns import Column, Value
from service.scheduling.surrogate.level_first import draw_group

Groups = tuple[tuple[str, ...], ...]


def layer_groups(distributions: Mapping[str, BaseDistribution]) -> Groups:
    """The names of each parameter of several layers of a stack that takes the same values in all of them."""
    members: dict[tuple[str, str, str], list[str]] = {}
    for name, distribution in distributions.items():
        found = layer_name(name)
        if found is not None and not distribution.single():
            members.setdefault((found.stack, found.path, repr(distribution)), []).append(name)
    return tuple(tuple(names) for names in members.values() if len(names) > 1)


class LevelFirstStarts(BaseSampler):
    """Another sampler, of which the start-up points have groups of layers that are drawn level first.

    A start-up point is one of which the other sampler suggests nothing from the history: each of random search, and
    the first of others. What it has of a group depends on the seed, the trial's number and the group alone. All layers
    that a point may have are drawn together, and those that it has are taken.
    """

    def __init__(
        self, sampler: BaseSampler, groups: Groups, distributions: Mapping[str, BaseDistribution], seed: int
    ) -> None:
        self._sampler = sampler
        self._groups = {name: group for group in groups for name in group}
        self._distributions = distributions
        self._seed = seed
        self._is_start = True
        self._drawn: dict[str, Value] = {}
        """Of the trial that is sampled."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the other sampler."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the other sampler."""
        suggested = self._sampler.sample_relative(study, trial, search_space)
        self._is_start = not suggested
        self._drawn = {}
        return suggested

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """At a start a layer's share of its group's level; else as the other sampler."""
        group = self._groups.get(param_name)
        if group is None or not self._is_start:
            return self._sampler.sample_independent(study, trial, param_name, param_distribution)
        if param_name not in self._drawn:
            self._drawn.update(self._draw(group, trial.number))
        return self._drawn[param_name]

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """As the other sampler."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """As the other sampler."""
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Nothing: whoever makes it gives each trial a sampler with a seed of its own."""

    def _draw(self, group: tuple[str, ...], number: int) -> dict[str, Value]:
        generator = np.random.default_rng([self._seed, number, *group[0].encode()])
        column = Column(self._distributions[group[0]])
        codes = draw_group(column, 1, len(group), generator)[0]
        return {name: column.value(float(code)) for name, code in zip(group, codes, strict=True)}
