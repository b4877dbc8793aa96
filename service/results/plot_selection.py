"""Which trials a picture shows when there are too many to draw: the whole front, and the rest evenly by number."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from layers.expressions.constraints import parse_constraint
from layers.expressions.metric_names import MetricNames
from layers.metrics import METRICS, Goal, is_metric
from layers.metrics import metric as declaration_of
from layers.problems import shown
from service.common.states import TrialState
from service.database.models import Sweep
from service.errors import UnprocessableError
from service.results import leaderboards
from service.results import schemas as result_schemas
from service.results.columns import Columns, Indices

TRIAL_NUMBER = "number"
"""The axis that is no metric: how a search went on."""


def full_names(sweep: Sweep, names: Sequence[str]) -> dict[str, str]:
    """The full name of each; raises UnprocessableError for one that is neither a metric nor a parameter of the
    sweep."""
    parameters, known = leaderboards.parameter_names(sweep), metrics_of(sweep)
    for name in names:
        if name not in parameters and name not in known:
            few = f"a metric ({', '.join(list(METRICS)[:6])}, ...) or a parameter ({', '.join(parameters)})"
            detail = f"{shown(name)} is neither a metric nor a parameter of this sweep"
            raise _unknown("name", known, name, detail, few)
    return {name: known.known(name) for name in names}


def metrics_of(sweep: Sweep) -> MetricNames:
    """The names of a sweep's metrics."""
    return MetricNames.of(sweep.document)


def evenly(indices: Indices, most: int) -> Indices:
    """At most `most` of these, evenly spread, the same ones each time."""
    if len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).round().astype(np.intp)]


def select_for_plot(columns: Columns, shown: NDArray[np.bool_], most: int) -> Indices:
    """The trials to draw of those in `shown`: the front first, then the rest evenly; in the order of their numbers."""
    front = evenly(np.flatnonzero(shown & (columns.rank == 1)), most)
    rest = evenly(np.flatnonzero(shown & (columns.rank != 1)), most - len(front))
    return np.sort(np.concatenate([front, rest]))


def sample(columns: Columns, sweep: Sweep, names: Mapping[str, str], most: int) -> result_schemas.ColumnSample:
    """These metrics and parameters of the measured trials that have all the metrics among them.

    `names`: what each is called in the answer, and its full name.
    """
    shown = columns.in_state(TrialState.COMPLETE, TrialState.INFEASIBLE)
    for name in names.values():
        if is_metric(name):
            shown &= ~np.isnan(columns.named(name).values)
    some = select_for_plot(columns, shown, most)
    states = tuple(TrialState)
    numbers, ranks, feasible = (each[some].tolist() for each in (columns.number, columns.rank, columns.competing))
    return result_schemas.ColumnSample(
        sweep=sweep.id,
        total=int(shown.sum()),
        trial=[columns.ids[index] for index in some],
        number=numbers,
        state=[states[code] for code in columns.state[some]],
        rank=[rank or None for rank in ranks],
        feasible=feasible,
        values={asked: [columns.named(name).at(int(index)) for index in some] for asked, name in names.items()},
    )


def tradeoff(
    columns: Columns, sweep: Sweep, x: str, y: str, most: int, tied: Collection[str]
) -> result_schemas.Tradeoff:
    """Two axes of a sweep: the trials to draw, the best trade-offs between the two, and the constraints on either.

    `tied`: the trials that are tied with the front.
    """
    names = list(dict.fromkeys([x, y]))
    goals: dict[str, Goal] = {name: _goal(sweep, name) for name in names if name != TRIAL_NUMBER}
    metrics = [name for name in names if name != TRIAL_NUMBER]
    best = edge(columns, goals) if len(goals) == 2 else np.zeros(0, dtype=np.intp)
    return result_schemas.Tradeoff(
        x=x,
        y=y,
        sample=sample(columns, sweep, dict(zip(metrics, metrics, strict=True)), most),
        edge=[{name: float(columns.named(name).values[index]) for name in metrics} for index in best],
        limits=_limits(sweep, metrics),
        tied=sorted(tied),
    )


def full_axes(sweep: Sweep, x: str, y: str) -> list[str]:
    """The axes by their full names; raises UnprocessableError for one that is neither a metric nor the trials'
    numbers."""
    known = metrics_of(sweep)
    for axis, name in (("x", x), ("y", y)):
        if name != TRIAL_NUMBER:
            check_metric(axis, name, known, TRIAL_NUMBER)
    return [known.known(name) for name in (x, y)]


def check_metric(query: str, name: str, known: MetricNames, *others: str) -> None:
    """Raise UnprocessableError, at the query's parameter `query`, if the sweep has no metric `name`; `others` may be
    given in its place."""
    if name not in known:
        detail = f"{query}={shown(name)} is not a metric"
        raise _unknown(query, known, name, detail, f"choose from {', '.join([*others, *known])}")


def _unknown(query: str, known: MetricNames, name: str, detail: str, remedy: str) -> UnprocessableError:
    if (wrong := known.wrong_shape(name)) is not None:
        detail, remedy = wrong.message, wrong.remedy
    return UnprocessableError.at(f"/{query}", detail, remedy)


def edge(columns: Columns, goals: Mapping[str, Goal]) -> Indices:
    """The competing trials that no other betters in two metrics, in the order of the first: the best trade-offs."""
    (x, x_goal), (y, y_goal) = goals.items()
    across, up = columns.named(x).values, columns.named(y).values
    some = np.flatnonzero(columns.competing & ~np.isnan(across) & ~np.isnan(up))
    costs_x = across[some] * (-1 if x_goal == "maximize" else 1)
    costs_y = up[some] * (-1 if y_goal == "maximize" else 1)
    order = np.lexsort((costs_y, costs_x))
    best = np.minimum.accumulate(costs_y[order])
    improves = np.concatenate([[True], best[1:] < best[:-1]]) if len(best) else np.zeros(0, dtype=bool)
    return some[order[improves]]


def _goal(sweep: Sweep, name: str) -> Goal:
    goals: dict[str, Goal] = {objective["metric"]: objective["goal"] for objective in sweep.objectives}
    return goals.get(name, declaration_of(name).goal)


def _limits(sweep: Sweep, metrics: Sequence[str]) -> list[result_schemas.Limit]:
    """Where a constraint on one of these metrics alone lies, if it is linear in it."""
    found = ((text, parse_constraint(text).metric_limit()) for text in sweep.document.get("constraints", []))
    return [
        result_schemas.Limit(constraint=text, metric=limit.metric, value=limit.value)
        for text, limit in found
        if limit is not None and limit.metric in metrics
    ]
