"""What became of the points that were asked, as arrays."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from service.scheduling.surrogate.attributes import DEVIATIONS
from service.scheduling.surrogate.columns import Booleans, Floats
from service.scheduling.surrogate.features import Features, features
from service.scheduling.surrogate.space import CodedSpace, Points

_STOPPED = "stopped"
"""The constraint that a trial is not stopped early for no other reason: 1 if it was, -1 if it came to its end."""


@dataclass(frozen=True, slots=True)
class History:
    """The asks of a study, one a row in the order of their numbers.

    `costs` (smaller is better) and `violations` (<= 0: kept) are NaN if nothing is known. So are the `deviations` of
    costs, which are None if none is.
    """

    numbers: NDArray[np.intp]
    points: Points
    seen: Features
    """What models see of the points."""
    asked: Container[bytes]
    """The keys of the points."""
    is_ended: Booleans
    is_waiting: Booleans
    """What counts at its prediction: neither ended nor given up."""
    costs: Floats
    violations: dict[str, Floats]
    deviations: Floats | None = None

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


class HistoryReader:
    """Reads one study's trials again and again: what cannot change any more is read once."""

    def __init__(self, space: CodedSpace, signs: Floats) -> None:
        """`signs` makes costs of values."""
        self._space = space
        self._signs = signs
        self._trials: list[FrozenTrial | None] = []
        self._parameters: list[int] = []
        """How many parameters each trial had when it was encoded."""
        self._keys: list[bytes | None] = []
        self._asked: Counter[bytes] = Counter()
        self._open: list[int] = []
        """Rows of trials that had not ended."""
        width = len(space)
        self._codes, self._presence = np.empty((0, width)), np.empty((0, width), dtype=np.bool_)
        self._seen = features(space, Points(self._codes, self._presence))
        self._is_asked, self._is_waiting = np.empty(0, dtype=np.bool_), np.empty(0, dtype=np.bool_)
        self._costs = np.empty((0, len(signs)))
        self._violations = {_STOPPED: np.empty(0)}
        self._deviations = np.empty((0, len(signs)))

    def read(self, trials: Sequence[FrozenTrial], number: int) -> History:
        """What was asked before the trial with this number; `trials` are all of the study."""
        new = range(len(self._trials), number)
        # A trial that has changed is another object.
        changed = [*(row for row in self._open if trials[row] is not self._trials[row]), *new]
        self._make_room(number)
        self._encode([row for row in changed if self._parameters[row] != len(trials[row].params)], trials)
        ended: set[int] = set()
        for row in changed:
            trial = self._trials[row] = trials[row]
            self._is_asked[row] = trial.state != TrialState.WAITING
            self._is_waiting[row] = trial.state == TrialState.RUNNING
            if trial.state.is_finished():
                self._note_end(row, trial)
                ended.add(row)
        self._open = [row for row in (*self._open, *new) if row not in ended]
        return self._history(number)

    def _history(self, number: int) -> History:
        rows = np.flatnonzero(self._is_asked[:number])
        is_waiting = self._is_waiting[rows]
        return History(
            rows,
            Points(self._codes[rows], self._presence[rows]),
            self._seen.of(rows),
            self._asked,
            ~is_waiting,
            is_waiting,
            self._costs[rows],
            {name: self._violations[name][rows] for name in sorted(self._violations)},
            deviations[rows] if np.isfinite(deviations := self._deviations).any() else None,
        )

    def _encode(self, rows: Sequence[int], trials: Sequence[FrozenTrial]) -> None:
        if not rows:
            return
        for row in rows:
            self._codes[row], self._presence[row] = self._space.encode(trials[row].params)
            self._parameters[row] = len(trials[row].params)
        points = Points(self._codes[rows], self._presence[rows])
        for row, key in zip(rows, points.keys(), strict=True):
            if (former := self._keys[row]) is not None:
                self._asked -= Counter([former])
            self._keys[row] = key
            self._asked[key] += 1
        seen = features(self._space, points)
        self._seen.whole[rows], self._seen.layers[rows] = seen.whole, seen.layers

    def _note_end(self, row: int, trial: FrozenTrial) -> None:
        given = trial.constraints
        for name, violation in given.items():
            if name not in self._violations:
                self._violations[name] = np.full(len(self._costs), np.nan)
            self._violations[name][row] = violation
        if trial.state == TrialState.COMPLETE and _are_finite(trial.values):
            self._costs[row] = np.array(trial.values) * self._signs
            self._deviations[row] = np.array(trial.system_attrs.get(DEVIATIONS, np.nan), dtype=np.float64)
            self._violations[_STOPPED][row] = -1.0
        elif trial.state == TrialState.PRUNED and not any(violation > 0 for violation in given.values()):
            self._violations[_STOPPED][row] = 1.0

    def _make_room(self, count: int) -> None:
        new = max(0, count - len(self._trials))
        self._trials += [None] * new
        self._parameters += [-1] * new
        self._keys += [None] * new
        if count > len(self._costs):
            room = max(count, 2 * len(self._costs))
            self._codes, self._presence = _longer(self._codes, room, 0.0), _longer(self._presence, room, False)
            self._seen = Features(_longer(self._seen.whole, room, 0.0), _longer(self._seen.layers, room, 0.0))
            self._is_asked = _longer(self._is_asked, room, False)
            self._is_waiting = _longer(self._is_waiting, room, False)
            self._costs = _longer(self._costs, room, np.nan)
            self._deviations = _longer(self._deviations, room, np.nan)
            self._violations = {name: _longer(values, room, np.nan) for name, values in self._violations.items()}


def _longer(rows: NDArray[Any], count: int, fill: float) -> NDArray[Any]:
    more = np.full((count - len(rows), *rows.shape[1:]), fill, dtype=rows.dtype)
    return np.concatenate([rows, more])


def _are_finite(values: Iterable[float] | None) -> bool:
    return values is not None and all(map(math.isfinite, values))
