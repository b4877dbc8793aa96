"""What one parameter does to one metric: the spread of the metric at each of its values, or in ranges of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from layers.metrics import metric as declaration_of
from service.database.models import Sweep
from service.results import schemas as result_schemas
from service.results.columns import Columns, Floats

MOST_VALUES = 24
"""A parameter with more different values is put into ranges."""
RANGES = 12


def effect(columns: Columns, sweep: Sweep, parameter: str, metric: str) -> result_schemas.Effect:
    """Quartiles and best value of `metric` over the feasible complete trials, by `parameter`."""
    goals = {objective["metric"]: objective["goal"] for objective in sweep.objectives}
    goal = goals.get(metric, declaration_of(metric).goal)
    column, scores = columns.named(parameter), columns.named(metric).values
    shown = columns.competing & ~np.isnan(column.values) & ~np.isnan(scores)
    values, scores = column.values[shown], scores[shown]
    levels = [
        result_schemas.EffectLevel(
            low=low if column.labels is None else column.labels[int(low)],
            high=high if column.labels is None else column.labels[int(high)],
            trials=len(some),
            best=float(some.max() if goal == "maximize" else some.min()),
            **dict(zip(("quartile_1", "median", "quartile_3"), np.quantile(some, [0.25, 0.5, 0.75]), strict=True)),
        )
        for low, high, some in _levels(values, scores)
    ]
    return result_schemas.Effect(
        sweep=sweep.id,
        parameter=parameter,
        metric=metric,
        trials=len(values),
        levels=levels,
        constant=len(scores) > 1 and bool(scores.min() == scores.max()),
    )


def _levels(values: Floats, scores: Floats) -> Iterator[tuple[float, float, Floats]]:
    """Lowest and highest value of each level, and the scores there."""
    order = np.argsort(values, kind="stable")
    values, scores = values[order], scores[order]
    starts: NDArray[np.intp] = np.unique(values, return_index=True)[1]
    if len(starts) > MOST_VALUES:
        # Ranges with as many trials each; equal values stay together.
        bounds = np.searchsorted(values, np.quantile(values, np.linspace(0, 1, RANGES + 1)[:-1]))
        starts = np.unique(bounds)
    for start, end in zip(starts, [*starts[1:], len(values)], strict=False):
        if end > start:
            yield float(values[start]), float(values[end - 1]), scores[start:end]
