"""What earlier studies found of the same costs: expected here as well, as far as it foretells what is found here.

For each quantity two models stand beside each other: one of what was found here alone, and one of how far that lies
from what the earlier trials let expect. Each is believed by its evidence, so that a past that misleads is soon dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from service.scheduling.surrogate.acquisition import non_dominated
from service.scheduling.surrogate.columns import Floats
from service.scheduling.surrogate.features import Features, features
from service.scheduling.surrogate.models import Model, Models
from service.scheduling.surrogate.space import CodedSpace, Points

_MOST_MODELLED = 200
_FEWEST_FOUND = 2
_DOUBT = 2.0
"""What was found has to be so much likelier by the earlier trials than alone (a logarithm) for both to count alike."""


@dataclass(frozen=True, slots=True)
class EarlierTrial:
    """A complete trial of an earlier study.

    `parameters`: those of this study's that it had, each as a number of its distribution (of a category its index);
    they may lie between the values, and beyond the bounds. `values` and `constraints`: what this study would be told.
    """

    parameters: Mapping[str, float]
    values: Sequence[float]
    constraints: Mapping[str, float]


class Prior:
    """Earlier trials as points of this study's space, and models of what they found."""

    def __init__(self, space: CodedSpace, trials: Sequence[EarlierTrial], signs: Floats) -> None:
        """`signs` makes costs of values."""
        width = len(space)
        placed = [space.place(trial.parameters) for trial in trials]
        points = Points(
            np.array([codes for codes, _ in placed]).reshape(-1, width),
            np.array([there for _, there in placed], dtype=np.bool_).reshape(-1, width),
        )
        self._seen = features(space, points)
        self.costs = np.array([trial.values for trial in trials]).reshape(-1, len(signs)) * signs
        names = sorted({name for trial in trials for name in trial.constraints})
        self.violations = {name: np.array([trial.constraints.get(name, np.nan) for trial in trials]) for name in names}
        self.parents = space.nearest(points.of(self._front()))
        """The points of this space that are nearest to those of the earlier front."""
        self._models: dict[str, Model] = {}

    def __len__(self) -> int:
        return len(self.costs)

    def model(self, name: str, values: Floats) -> Model:
        """The model of a quantity that has these values at the earlier trials; made once for each name."""
        if name not in self._models:
            known = np.flatnonzero(~np.isnan(values))
            some = known[np.unique(np.linspace(0, len(known) - 1, min(len(known), _MOST_MODELLED)).astype(np.intp))]
            every = np.ones(len(some), dtype=np.bool_)
            numbers = np.arange(len(some))
            self._models[name] = Models().model(name, self._seen.of(some), values[some], numbers, len(some), every)
        return self._models[name]

    def _front(self) -> NDArray[np.intp]:
        kept = np.ones(len(self), dtype=np.bool_)
        for violations in self.violations.values():
            kept &= ~(violations > 0)
        rows = np.flatnonzero(kept)
        return rows[non_dominated(self.costs[rows])]


MakeModel = Callable[[str, Floats], Model]
"""Makes the model of what was found here, of a quantity by its name and its values at all asks."""


class Informed:
    """A model of one quantity that knows what earlier trials let expect of it."""

    def __init__(self, name: str, expected: Model, seen: Features, values: Floats, make: MakeModel) -> None:
        """`values` (NaN: unknown) are those at the points `seen`."""
        self._expected = expected
        self._alone: Model | None = None
        self._apart: Model | None = None
        self.share = 1.0
        """How far what is expected is believed: from 0 to 1."""
        if (~np.isnan(values)).sum() >= _FEWEST_FOUND:
            self._alone = make(name, values)
            self._apart = make(f"{name} beside what is expected", values - expected.mean(seen))
            self.share = float(expit(self._apart.evidence - self._alone.evidence - _DOUBT))

    def predict(self, features: Features) -> tuple[Floats, Floats]:
        """Means and deviations at points."""
        expected, unsure = self._expected.predict(features)
        if self._alone is None or self._apart is None:
            return expected, unsure
        apart, deviations = self._apart.predict(features)
        # If it was seen here how far it lies apart, it does not matter how sure the earlier trials were.
        unseen = np.minimum(deviations / self._apart.scale, 1.0)
        informed, unsure = expected + apart, np.hypot(deviations, unsure * unseen)
        alone, deviations = self._alone.predict(features)
        means = self.share * informed + (1 - self.share) * alone
        squares = self.share * (unsure**2 + informed**2) + (1 - self.share) * (deviations**2 + alone**2)
        return means, np.sqrt(np.maximum(squares - means**2, 1e-20))

    def mean(self, features: Features) -> Floats:
        """Means alone."""
        expected = self._expected.mean(features)
        if self._alone is None or self._apart is None:
            return expected
        informed = expected + self._apart.mean(features)
        return self.share * informed + (1 - self.share) * self._alone.mean(features)

    def expect(self, features: Features) -> None:
        """Count further points as if they had ended as predicted."""
        for model in (self._alone, self._apart):
            if model is not None:
                model.expect(features)
