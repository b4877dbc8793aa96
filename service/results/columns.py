"""A sweep's trials as columns in memory: what sorting, filtering and pictures are calculated from.

Rows are the truth; columns are a copy that is brought up to date before each use, from the events that happened since.
With 100,000 trials a sort or a picture takes milliseconds, whichever metric or parameter it is by, on both databases.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from layers.expressions.metric_names import MetricNames
from layers.metrics import is_metric
from layers.parameter import Scalar
from service.common.states import TrialState
from service.database.models import Event, Sweep, Trial, TrialMetric
from service.results.pareto import LAST_RANK

T = TypeVar("T")
ParameterValues: TypeAlias = Mapping[str, Scalar | None]
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

MAX_TRIALS = 400_000
"""Of all sweeps together that stay in memory; the one in use always does."""
MANY = 1000
"""Trials that a query names one by one at most."""
MAX_PARTS = 100
"""Of what was calculated from the columns of one version of a sweep."""
_STATE_EVENTS = ("trial.queued", "trial.running", "trial.ended", "trial.replicated")
_FACTS = (Trial.id, Trial.number, Trial.state, Trial.pareto_rank, Trial.feasible, Trial.ended_at)


@dataclass(frozen=True, slots=True)
class Column:
    """One parameter or metric of every trial.

    Numbers are themselves and NaN if a trial has none. Words are the position in `labels`, which are sorted.
    """

    values: Floats
    labels: tuple[str, ...] | None = None

    @classmethod
    def of(cls, values: Sequence[Any]) -> Column:
        """The column of these values, None if there is none. Numbers stay numbers if all of them are."""
        if set(map(type, values)) <= {int, float, type(None)}:
            # NumPy makes NaN of None here.
            return cls(np.array(values, dtype=np.float64))
        words = [None if value is None else _word(value) for value in values]
        labels = sorted({word for word in words if word is not None})
        codes: dict[str | None, float] = {label: float(code) for code, label in enumerate(labels)} | {None: np.nan}
        return cls(np.array([codes[word] for word in words]), tuple(labels))

    @classmethod
    def empty(cls, length: int) -> Column:
        return cls(np.full(length, np.nan))

    def labelled(self, labels: tuple[str, ...]) -> Column:
        """The same words by the positions in other labels, which hold all of them."""
        if self.labels is None or self.labels == labels:
            return self
        codes = np.array([*(labels.index(label) for label in self.labels), np.nan])
        return Column(codes[np.where(np.isnan(self.values), -1, self.values).astype(np.intp)], labels)

    def at(self, index: int) -> Scalar | None:
        """The value of one trial."""
        value = float(self.values[index])
        if np.isnan(value):
            return None
        if self.labels is not None:
            return self.labels[int(value)]
        return int(value) if value.is_integer() and abs(value) < 2**53 else value


_CODES = {state: code for code, state in enumerate(TrialState)}


@dataclass(frozen=True)
class Columns:
    """The trials of one sweep, in the order of their numbers. Nothing in it is changed once it is made."""

    version: tuple[int, int]
    ids: list[str]
    number: NDArray[np.int64]
    state: NDArray[np.int8]
    """The position in TrialState."""
    rank: NDArray[np.int32]
    """The Pareto rank; 0 if a trial has none."""
    feasible: NDArray[np.int8]
    """1, 0, or -1 if it is not known."""
    ended_at: Floats
    values: dict[str, Column]
    """The metrics and parameters that were asked for, by name."""
    _parts: dict[Any, Any] = field(default_factory=dict[Any, Any], repr=False, compare=False)
    _lasting: dict[Any, Any] = field(default_factory=dict[Any, Any], repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    def named(self, name: str) -> Column:
        """The metric or parameter of that name; empty if no trial has it."""
        return self.values.get(name) or Column.empty(len(self))

    def in_state(self, *states: TrialState) -> NDArray[np.bool_]:
        """Which trials are in one of these states."""
        return np.isin(self.state, [_CODES[state] for state in states])

    @property
    def competing(self) -> NDArray[np.bool_]:
        """Which trials are complete and feasible: those that compete."""
        return self.in_state(TrialState.COMPLETE) & (self.feasible == 1)

    def cached(self, key: Any, calculate: Callable[[], T]) -> T:
        """What `calculate` returns, calculated once for these trials."""
        return _once(self._parts, key, calculate)

    def cached_across_versions(self, key: Any, calculate: Callable[[], T]) -> T:
        """As `cached`, kept for later versions, too: for what rests on ended trials alone, which `key` must name."""
        return _once(self._lasting, key, calculate)


def _once(kept: dict[Any, Any], key: Any, calculate: Callable[[], T]) -> T:
    if key not in kept:
        if len(kept) >= MAX_PARTS:
            kept.clear()
        kept[key] = calculate()
    return kept[key]


class ColumnStore:
    """The columns of the sweeps that were looked at last. Threads may share it."""

    def __init__(self, max_trials: int = MAX_TRIALS) -> None:
        self._max_trials = max_trials
        self._kept: OrderedDict[str, Columns] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    def of(self, session: Session, sweep: Sweep, names: Iterable[str]) -> Columns:
        """The sweep's columns with these metrics and parameters, as new as the session's snapshot or newer."""
        with self._lock:
            loading = self._loading.setdefault(sweep.id, threading.Lock())
        # One caller loads, the others take what it found.
        with loading:
            with self._lock:
                known = self._kept.get(sweep.id)
            columns = self._renewed(session, sweep, known)
            missing = [name for name in dict.fromkeys(names) if name not in columns.values]
            if missing:
                columns = replace(columns, values=columns.values | _read_values(session, sweep, columns, missing))
            self._keep(sweep.id, columns)
            return columns

    def _renewed(self, session: Session, sweep: Sweep, known: Columns | None) -> Columns:
        version = (sweep.event_counter, sweep.scheduled_sequence)
        if known is None:
            return _made(version, _read_facts(session, *_points_of(sweep)), {})
        if version[0] <= known.version[0] and version[1] <= known.version[1]:
            return known
        return _renewed(session, sweep, known, version)

    def _keep(self, sweep_id: str, columns: Columns) -> None:
        with self._lock:
            self._kept[sweep_id] = columns
            self._kept.move_to_end(sweep_id)
            while len(self._kept) > 1 and sum(map(len, self._kept.values())) > self._max_trials:
                dropped, _ = self._kept.popitem(last=False)
                self._loading.pop(dropped, None)


def _points_of(sweep: Sweep) -> tuple[sa.ColumnElement[bool], ...]:
    """A sweep's trials less its replicates, whose results are in those of the trials that they train again."""
    return Trial.sweep_id == sweep.id, Trial.replicate_of.is_(None)


def metric_names(session: Session, sweep: Sweep) -> list[str]:
    """The metrics that any ended trial of the sweep has, in the order of their declaration, each at its shapes."""
    of_sweep = sa.select(TrialMetric.trial_id).where(TrialMetric.sweep_id == sweep.id)
    # One look into the index a name: a `distinct` would read every value of a large sweep.
    query = sa.select(
        *[of_sweep.where(TrialMetric.name == name).exists().label(name) for name in MetricNames.of(sweep.document)]
    )
    return [name for name, exists in session.execute(query).one()._mapping.items() if exists]


def _rows(session: Session, query: sa.Executable) -> Sequence[tuple[Any, ...]]:
    """All rows as the driver gives them: made into SQLAlchemy's own, 100,000 of them cost more than to read them."""
    cursor = session.connection().execute(query).cursor
    return [] if cursor is None else cursor.fetchall()


def _read_facts(session: Session, *conditions: sa.ColumnElement[bool]) -> Sequence[tuple[Any, ...]]:
    return _rows(session, sa.select(*_FACTS).where(*conditions).order_by(Trial.number))


def _read_values(session: Session, sweep: Sweep, columns: Columns, names: Sequence[str]) -> dict[str, Column]:
    of_sweep = TrialMetric.sweep_id == sweep.id
    found = {name: _read_metric(session, columns, name, of_sweep) for name in names if is_metric(name)}
    wanted = [name for name in names if not is_metric(name)]
    if wanted:
        # All parameters lie in one value of each row: reading one costs as much as reading all.
        rows = _read_parameters(session, columns, *_points_of(sweep))
        found |= _parameters(rows, dict.fromkeys([*wanted, *_names(rows)]))
    return found


def _read_metric(session: Session, columns: Columns, name: str, among: sa.ColumnElement[bool]) -> Column:
    query = sa.select(TrialMetric.trial_id, TrialMetric.value).where(among, TrialMetric.name == name)
    positions = columns.cached("positions", lambda: {trial_id: at for at, trial_id in enumerate(columns.ids)})
    values = np.full(len(columns), np.nan)
    if found := _rows(session, query):
        ids, those = zip(*found, strict=True)
        at = np.array([positions.get(trial_id, -1) for trial_id in ids], dtype=np.intp)
        values[at[at >= 0]] = np.array(those, dtype=np.float64)[at >= 0]
    return Column(values)


def _read_parameters(
    session: Session, columns: Columns, *conditions: sa.ColumnElement[bool]
) -> list[ParameterValues | None]:
    rows = _rows(session, sa.select(Trial.number, Trial.parameters).where(*conditions))
    # PostgreSQL's driver reads JSON itself, SQLite's leaves the text.
    found: dict[int, ParameterValues] = {n: json.loads(each) if isinstance(each, str) else each for n, each in rows}
    return [found.get(number) for number in columns.number.tolist()]


def _names(rows: Sequence[ParameterValues | None]) -> dict[str, None]:
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row or ()))
    return names


def _parameters(rows: Sequence[ParameterValues | None], names: Iterable[str]) -> dict[str, Column]:
    return {name: Column.of([None if row is None else row.get(name) for row in rows]) for name in names}


def _renewed(session: Session, sweep: Sweep, known: Columns, version: tuple[int, int]) -> Columns:
    """The columns with what changed since: trials that events name, and ranks that may have moved.

    If much changed, all are read afresh, and their values when they are asked for.
    """
    happened = (
        sa.select(Event.trial_id)
        .distinct()
        .where(Event.sweep_id == sweep.id, Event.sequence > known.version[0], Event.kind.in_(_STATE_EVENTS))
    )
    changed = [trial_id for (trial_id,) in _rows(session, happened.limit(MANY + 1))]
    if len(changed) > MANY:
        return _made(version, _read_facts(session, *_points_of(sweep)), {})
    columns = known
    if changed:
        among = sa.and_(Trial.id.in_(changed), Trial.replicate_of.is_(None))
        fresh = _made(version, _read_facts(session, among), {})
        # By their ids alone: with the sweep's beside it SQLite goes through all of the sweep's values instead.
        of_these = TrialMetric.trial_id.in_(changed)
        values = {name: _read_metric(session, fresh, name, of_these) for name in known.values if is_metric(name)}
        wanted = [name for name in known.values if not is_metric(name)]
        if wanted:
            values |= _parameters(_read_parameters(session, fresh, among), wanted)
        columns = _merged(known, replace(fresh, values=values))
    rank = columns.rank if version[1] == known.version[1] else _ranks(session, sweep, columns)
    return replace(columns, version=version, rank=rank, _parts={})


def _ranks(session: Session, sweep: Sweep, columns: Columns) -> NDArray[np.int32]:
    """Every trial's rank. What is in the last one never leaves it, so that most of a large sweep is not read again."""
    unranked = columns.number[columns.competing & (columns.rank == 0)].tolist()
    rank = np.where(columns.rank > 0, np.int32(LAST_RANK), np.int32(0))
    found = sa.select(Trial.number, Trial.pareto_rank).where(Trial.sweep_id == sweep.id)
    queries = [found.where(Trial.pareto_rank < LAST_RANK)]
    if unranked:
        new = Trial.number.in_(unranked) if len(unranked) <= MANY else Trial.pareto_rank == LAST_RANK
        queries.append(found.where(Trial.pareto_rank.is_not(None), new))
    for query in queries:
        rows = np.array(_rows(session, query), dtype=np.int64).reshape(-1, 2)
        at = _positions(columns.number, rows[:, 0])
        rank[at[at >= 0]] = rows[at >= 0, 1]
    return rank


def _positions(ordered: NDArray[np.int64], wanted: NDArray[np.int64]) -> Indices:
    """Where each wanted number lies among the ordered ones; -1 if it does not."""
    at = np.searchsorted(ordered, wanted)
    there = at < len(ordered)
    there[there] = ordered[at[there]] == wanted[there]
    return np.where(there, at, -1)


def _made(version: tuple[int, int], rows: Sequence[tuple[Any, ...]], values: dict[str, Column]) -> Columns:
    by_column = list(zip(*rows, strict=True)) if rows else [()] * len(_FACTS)
    ids, numbers, states, ranks, feasible, ended = by_column
    return Columns(
        version,
        list(ids),
        np.array(numbers, dtype=np.int64),
        np.array([_CODES[state] for state in states], dtype=np.int8),
        np.array([rank or 0 for rank in ranks], dtype=np.int32),
        np.array([-1 if each is None else int(each) for each in feasible], dtype=np.int8),
        np.array([np.nan if each is None else each for each in ended], dtype=np.float64),
        values,
    )


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _merged(known: Columns, fresh: Columns) -> Columns:
    """`known` with the trials of `fresh` in place of theirs, and with those that are new."""
    at = _positions(known.number, fresh.number)
    old, new = at >= 0, np.flatnonzero(at < 0)
    # Numbers are given in order: what is new nearly always comes last.
    places = np.searchsorted(known.number, fresh.number[new])
    ids = list(known.ids)
    for place, position in zip(at[old], np.flatnonzero(old), strict=True):
        ids[place] = fresh.ids[position]
    for place, position in zip(places[::-1], new[::-1], strict=True):
        ids.insert(place, fresh.ids[position])

    def join(before: NDArray[Any], after: NDArray[Any]) -> Any:
        changed = before.copy()
        changed[at[old]] = after[old]
        return np.insert(changed, places, after[new]) if len(new) else changed

    return Columns(
        fresh.version,
        ids,
        join(known.number, fresh.number),
        join(known.state, fresh.state),
        join(known.rank, fresh.rank),
        join(known.feasible, fresh.feasible),
        join(known.ended_at, fresh.ended_at),
        {name: _joined(known.values[name], fresh.values[name], join) for name in known.values},
        _lasting=known._lasting,
    )


def _joined(old: Column, new: Column, join: Callable[[Floats, Floats], Floats]) -> Column:
    nothing = np.isnan(new.values).all()
    if nothing or (old.labels is None and new.labels is None):
        return Column(join(old.values, new.values), old.labels)
    if old.labels is not None and new.labels is not None:
        labels = tuple(sorted({*old.labels, *new.labels}))
        return Column(join(old.labelled(labels).values, new.labelled(labels).values), labels)
    # Numbers became words, or the other way round: what is written of each is looked at again.
    words = np.array([*map(old.at, range(len(old.values))), *map(new.at, range(len(new.values)))], dtype=object)
    return Column.of(join(words[: len(old.values)], words[len(old.values) :]).tolist())
