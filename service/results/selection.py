"""Which trials of a sweep are looked at, and in which order: filters, sorts and the places where pages begin."""

from __future__ import annotations

import bisect
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from layers.expressions.metric_names import MetricNames
from layers.expressions.names import declaration
from layers.metrics import METRICS
from layers.problems import shown
from layers.space.document_fields import Objective
from service.common.paging import decode_token, encode_token
from service.common.states import TrialState
from service.errors import UnprocessableError
from service.results.columns import Column, Columns, Floats, Indices

Mask = NDArray[np.bool_]

_CONDITION = re.compile(r"\s*([A-Za-z_][\w.]*(?:@\w*)?)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*", re.DOTALL)
_COMPARE: dict[str, Callable[[Floats, float], Mask]] = {
    "<=": np.less_equal,
    ">=": np.greater_equal,
    "<": np.less,
    ">": np.greater,
    "=": np.equal,
    "!=": np.not_equal,
}
MAX_CONDITIONS = 20
MAX_CONDITION = 300


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of a metric or parameter with a value: `latency_ms_p50 <= 2`, `mlp.kind = GatedMLP`.

    A trial without that metric or parameter fails it.
    """

    name: str
    operator: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Raises UnprocessableError for what is not a name, an operator and a value."""
        match = _CONDITION.fullmatch(text) if len(text) <= MAX_CONDITION else None
        if match is None or not match.group(3):
            detail = f"where={text[:80]!r} is not a condition"
            remedy = "a name, one of <= >= < > = !=, and a value: latency_ms_p50<=2 or mlp.kind=GatedMLP"
            raise UnprocessableError.at("/where", detail, f"write {remedy}")
        return cls(*match.groups())

    def _check_choice(self) -> None:
        """Raise UnprocessableError for a value that the parameter never has: no trial would keep the condition, or
        all."""
        declared = declaration(self.name)
        choices = () if declared is None else declared.choices
        if declared is not None and declared.type == "boolean":
            choices = ("false", "true")
        if choices and self.value not in choices:
            detail = f"where={str(self)!r}: {self.value!r} is not a value of {self.name}"
            remedy = f"one of: {', '.join(choices)}"
            raise UnprocessableError.at("/where", detail, remedy)

    def named(self, name: str) -> Condition:
        """The same by the full name. Raises UnprocessableError for a value that it never has."""
        condition = replace(self, name=name)
        condition._check_choice()
        return condition

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{self.value}"

    def mask(self, columns: Columns) -> Mask:
        """Which trials keep it."""
        column = columns.named(self.name)
        present = ~np.isnan(column.values)
        if column.labels is not None:
            return present & self._compare_words(column.values, column.labels)
        try:
            bound = float(self.value)
        except ValueError:
            if not present.any():
                # No trial has told yet whether it is a number.
                return present
            detail = f"where={str(self)!r}: {self.name} is a number here"
            raise UnprocessableError.at("/where", detail, "compare it with a number") from None
        return present & _COMPARE[self.operator](column.values, bound)

    def _compare_words(self, values: Floats, labels: Sequence[str]) -> Mask:
        if self.operator not in ("=", "!="):
            detail = f"where={str(self)!r}: {self.name} is one of {', '.join(labels[:20])}"
            raise UnprocessableError.at("/where", detail, "compare it by = or !=")
        code = labels.index(self.value) if self.value in labels else -1
        return _COMPARE[self.operator](values, float(code))


Feasible: TypeAlias = bool | Literal["undecided"]
"""Whether a trial keeps every constraint; undecided: it is complete, and a limit lies within the noise."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which trials a leaderboard keeps; None and () keep all."""

    states: tuple[str, ...] = ()
    feasible: Feasible | None = None
    on_front: bool | None = None
    where: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        unknown = [state for state in self.states if state not in set(TrialState)]
        if unknown:
            detail = f"state={shown(unknown[0])} is not a state of trials"
            raise UnprocessableError.at("/state", detail, f"choose from {', '.join(TrialState)}")
        if len(self.where) > MAX_CONDITIONS:
            raise UnprocessableError.at(
                "/where", f"where is given {len(self.where)} times", f"at most {MAX_CONDITIONS}"
            )

    def mask(self, columns: Columns) -> Mask:
        """Which trials are kept."""
        kept = np.ones(len(columns), dtype=bool)
        if self.states:
            kept &= columns.in_state(*map(TrialState, self.states))
        if self.feasible == "undecided":
            kept &= columns.in_state(TrialState.COMPLETE) & (columns.feasible == -1)
        elif self.feasible is not None:
            kept &= columns.feasible == int(self.feasible)
        if self.on_front is not None:
            kept &= (columns.rank == 1) == self.on_front
        for condition in self.where:
            kept &= condition.mask(columns)
        return kept

    def named(self, metrics: MetricNames, parameters: Sequence[str]) -> Filters:
        """The same with full names. Raises UnprocessableError for a value that the parameter never has."""
        return replace(
            self, where=tuple(each.named(full_name("where", each.name, metrics, parameters)) for each in self.where)
        )

    def identity(self) -> list[Any]:
        return [self.states, self.feasible, self.on_front, [str(condition) for condition in self.where]]


@dataclass(frozen=True, slots=True)
class _Key:
    """Values to sort by, so that smaller comes first; what is absent is infinite and comes last."""

    values: Floats
    column: Column
    descending: bool

    @classmethod
    def of(cls, column: Column, descending: bool) -> _Key:
        turned = -column.values if descending else column.values
        return cls(np.where(np.isnan(turned), np.inf, turned), column, descending)

    def token(self, index: int) -> Any:
        return self.column.at(index)

    def place(self, value: Any) -> float:
        """Where a token's value lies among `values`."""
        if value is None:
            return math.inf
        if self.column.labels is not None:
            position: float = bisect.bisect_left(self.column.labels, str(value))
            if str(value) not in self.column.labels:
                position -= 0.5
        elif isinstance(value, int | float):
            position = float(value)
        else:
            raise _other_list()
        return -position if self.descending else position


@dataclass(frozen=True, slots=True)
class Selection:
    """The kept trials, as positions in the columns, in order."""

    order: Indices
    keys: tuple[_Key, ...]
    _identity: str

    def page(self, size: int, token: str | None) -> tuple[Indices, str | None]:
        """The next `size` trials after a token's, and the token of the page after; UnprocessableError for another
        list's."""
        start = 0 if token is None else self._after(token)
        some = self.order[start : start + size]
        more = start + size < len(self.order)
        return some, self._token(int(some[-1])) if more and len(some) else None

    def _token(self, index: int) -> str:
        return encode_token(self._identity, json.dumps([key.token(index) for key in self.keys]))

    def _after(self, token: str) -> int:
        identity, text = decode_token(token, str, str)
        try:
            position = json.loads(text)
        except (ValueError, RecursionError):
            position = None
        if identity != self._identity or not isinstance(position, list) or len(position) != len(self.keys):
            raise _other_list()
        before = np.zeros(len(self.order), dtype=bool)
        level = np.ones(len(self.order), dtype=bool)
        for key, value in zip(self.keys, position, strict=True):
            place = key.place(value)
            values = key.values[self.order]
            before |= level & (values < place)
            level &= values == place
        return int((before | level).sum())


def full_name(query: str, name: str, metrics: MetricNames, parameters: Sequence[str]) -> str:
    """A metric's name with its shape, or a parameter's path, whose last parts are enough if they fit no other.

    Raises UnprocessableError, at the query's parameter `query`, if they fit several.
    """
    if name in parameters or name in metrics or name in ("rank", "number"):
        return metrics.known(name)
    fitting = [each for each in parameters if each.endswith(f".{name}")]
    if len(fitting) > 1:
        raise UnprocessableError.at(f"/{query}", f"{name!r} may be {', '.join(fitting[:20])}", "write one of them")
    return fitting[0] if fitting else name


def full_sort(sort: str, metrics: MetricNames, parameters: Sequence[str]) -> str:
    """The same sort with the full name."""
    name = sort.removeprefix("-")
    return f"{'-' * sort.startswith('-')}{full_name('sort', name, metrics, parameters)}"


RECOMMENDED = "recommended"
"""The sort that begins with the recommended trial. It takes the rule's order, which the caller must give."""


def needed(
    objectives: Sequence[Objective],
    metrics: MetricNames,
    names: Sequence[str],
    sort: str,
    filters: Filters,
    first: Sequence[str] | None = None,
) -> list[str]:
    """The metrics and parameters that `select` looks at. `names` are the parameters of the sweep.

    Raises UnprocessableError for a sort or a condition by anything else.
    """
    name = sort.removeprefix("-")
    if sort == RECOMMENDED and first is not None:
        return [*(each["metric"] for each in objectives), *_conditioned(metrics, names, filters)]
    if name not in {*names, "rank", "number"} and name not in metrics:
        raise _unknown("sort", sort, name, metrics, names)
    sorted_by = {"rank": [objectives[0]["metric"]], "number": []}.get(name, [name])
    return [*sorted_by, *_conditioned(metrics, names, filters)]


def _conditioned(metrics: MetricNames, names: Sequence[str], filters: Filters) -> list[str]:
    for condition in filters.where:
        if condition.name not in names and condition.name not in metrics:
            raise _unknown("where", condition.name, condition.name, metrics, names)
    return [condition.name for condition in filters.where]


def select(
    columns: Columns, objectives: Sequence[Objective], sort: str, filters: Filters, first: Sequence[str] | None = None
) -> Selection:
    """The trials that `filters` keep, by `sort`: rank, number, a metric or a parameter; a '-' before it turns it.

    RECOMMENDED: the trials `first` (ids) in that order, the others by rank and within a rank by their distance to the
    front's ideal point. Ties go to the first objective if ranks are equal, then to the lower number. What lacks the
    value comes last, whichever way it is sorted. `columns` have what is `needed`.
    """
    name, descending = sort.removeprefix("-"), sort.startswith("-")
    number = _Key.of(Column(columns.number.astype(np.float64)), descending and name == "number")
    if name == "number":
        keys = (number,)
    elif name == "rank":
        objective = objectives[0]
        rank = Column(np.where(columns.rank > 0, columns.rank, np.nan))
        by_first = _Key.of(columns.named(objective["metric"]), objective["goal"] == "maximize")
        keys = (_Key.of(rank, descending), by_first, number)
    elif sort == RECOMMENDED:
        rank = Column(np.where(columns.rank > 0, columns.rank, np.nan))
        by_rule = (
            _places(columns, first or ()),
            rank,
            columns.cached("distance", lambda: _distance(columns, objectives)),
        )
        keys = (*(_Key.of(column, False) for column in by_rule), number)
    else:
        keys = (_Key.of(columns.named(name), descending), number)
    kept = np.flatnonzero(filters.mask(columns))
    order = kept[np.lexsort([key.values[kept] for key in reversed(keys)])]
    return Selection(order, keys, json.dumps([sort, *filters.identity()]))


def _places(columns: Columns, first: Sequence[str]) -> Column:
    """The place of each trial in `first`, by its id: of the front, but for a smaller trial that leads it."""
    places = {trial_id: float(place) for place, trial_id in enumerate(first)}
    values = np.full(len(columns), np.nan)
    for index in np.flatnonzero(columns.rank == 1):
        values[index] = places.pop(columns.ids[index], np.nan)
    for trial_id, place in places.items():
        if trial_id in columns.ids:
            values[columns.ids.index(trial_id)] = place
    return Column(values)


def _distance(columns: Columns, objectives: Sequence[Objective]) -> Column:
    """How far each trial lies from the front's ideal point, each objective scaled to the front's range."""
    squares = np.zeros(len(columns))
    front = columns.rank == 1
    if not front.any():
        return Column(squares)
    for objective in objectives:
        values = columns.named(objective["metric"]).values
        costs = -values if objective["goal"] == "maximize" else values
        # Halves first: the range of two huge values is not itself a number.
        best, span = costs[front].min(), costs[front].max() / 2 - costs[front].min() / 2
        if span > 0:
            squares += np.square((costs / 2 - best / 2) / span)
    return Column(np.sqrt(squares))


def _unknown(query: str, given: str, name: str, metrics: MetricNames, parameters: Sequence[str]) -> UnprocessableError:
    """Of the query's parameter `query`, which was `given` with a `name` that the sweep does not have."""
    if (wrong := metrics.wrong_shape(name)) is not None:
        return UnprocessableError.at(f"/{query}", wrong.message, wrong.remedy)
    fitting = f"a metric ({', '.join(list(METRICS)[:4])}, ...) or a parameter "
    fitting += f"({', '.join(parameters) or 'this sweep has none open'})"
    remedy = f"compare by {fitting}"
    if query == "sort":
        remedy = f"sort by rank, number, {fitting}; a leading '-' turns the order"
    detail = f"{query}={shown(given)} names neither a metric nor a parameter of this sweep"
    return UnprocessableError.at(f"/{query}", detail, remedy)


def _other_list() -> UnprocessableError:
    detail = "page_token belongs to another sort, other filters or another list"
    return UnprocessableError.at("/page_token", detail, "begin again without it")
