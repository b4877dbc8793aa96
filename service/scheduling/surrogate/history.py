"""What became of the points that were asked, as arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from service.scheduling.surrogate.columns import Booleans, Floats
from service.scheduling.surrogate.space import CodedSpace, Points

_STOPPED = "stopped"
"""The constraint that a trial is not stopped early for no other reason: 1 where it was, -1 where it came to its end."""


@dataclass(frozen=True, slots=True)
class History:
    """The asks of a study, one a row in the order of their numbers.

    `costs` (smaller is better) and `violations` (<= 0: kept) are NaN where nothing is known.
    """

    numbers: NDArray[np.intp]
    points: Points
    is_ended: Booleans
    is_waiting: Booleans
    """What counts at its prediction: neither ended nor given up."""
    costs: Floats
    violations: dict[str, Floats]

    @property
    def is_complete(self) -> Booleans:
        """Rows whose costs are known."""
        return np.asarray(np.isfinite(self.costs).all(axis=1), dtype=np.bool_)

    @property
    def is_feasible(self) -> Booleans:
        """Rows whose costs are known and that break no constraint."""
        kept = self.is_complete
        for violations in self.violations.values():
            kept &= ~(violations > 0)
        return kept

    @property
    def is_informative(self) -> Booleans:
        """Rows that say anything of costs or constraints."""
        known = self.is_complete
        for violations in self.violations.values():
            known |= ~np.isnan(violations)
        return known


@dataclass(frozen=True, slots=True)
class _Row:
    parameters: int
    is_finished: bool
    codes: Floats
    presence: Booleans


class HistoryReader:
    """Reads a study's trials again and again: what has not changed is not encoded again."""

    def __init__(self, space: CodedSpace) -> None:
        self._space = space
        self._rows: dict[int, _Row] = {}

    def read(self, trials: Sequence[FrozenTrial], signs: Floats) -> History:
        """`signs` makes costs of values."""
        rows = [self._row(trial) for trial in trials]
        width = len(self._space)
        costs = np.full((len(trials), len(signs)), np.nan)
        violations: dict[str, Floats] = {}
        names = sorted({name for trial in trials for name in trial.constraints})
        for name in [*names, _STOPPED]:
            violations[name] = np.full(len(trials), np.nan)
        for index, trial in enumerate(trials):
            given = trial.constraints
            for name, violation in given.items():
                violations[name][index] = violation
            if trial.state == TrialState.COMPLETE and _are_finite(trial.values):
                costs[index] = np.array(trial.values) * signs
                violations[_STOPPED][index] = -1.0
            elif trial.state == TrialState.PRUNED and not any(violation > 0 for violation in given.values()):
                violations[_STOPPED][index] = 1.0
        states = [trial.state for trial in trials]
        return History(
            np.array([trial.number for trial in trials], dtype=np.intp),
            Points(
                np.array([row.codes for row in rows]).reshape(len(rows), width),
                np.array([row.presence for row in rows], dtype=np.bool_).reshape(len(rows), width),
            ),
            np.array([state.is_finished() for state in states], dtype=np.bool_),
            np.array([state == TrialState.RUNNING for state in states], dtype=np.bool_),
            costs,
            violations,
        )

    def _row(self, trial: FrozenTrial) -> _Row:
        known = self._rows.get(trial.number)
        if known is None or (not known.is_finished and known.parameters != len(trial.params)):
            codes, presence = self._space.encode(trial.params)
            known = _Row(len(trial.params), trial.state.is_finished(), codes, presence)
            self._rows[trial.number] = known
        return known


def _are_finite(values: Iterable[float] | None) -> bool:
    return values is not None and all(map(math.isfinite, values))
