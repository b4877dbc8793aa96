"""Points of `examples/quickstart.yaml` that were trained once: what a search finds among them.

They are random points that `benchmarks.performance.training_curves` trained for 90 steps, with their first seed. A
point that was not trained costs what the nearest one does that was: by the steps between listed numbers, other choices,
and the learning rate on its logarithmic scale, each counted in its whole range. Losses were measured. `counted_points`
are the first 93, whose operations and parameters stand for latency and memory; `timed_points` are all 200, with the
latency and memory that the same module's `measure` found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from benchmarks.performance.training_curves import HARDWARE, TABLE, architecture, read_table
from benchmarks.support.processes import ROOT
from layers.space.document import OpenParameter, Space

POINTS = ROOT / "benchmarks" / "results" / "quickstart-points.jsonl"
COUNTED = ("flops", "parameter_count", "validation_loss")
TIMED = ("latency_ms_p50", "memory_bytes", "validation_loss")

Costs = tuple[float, float, float]


def quickstart_sections() -> dict[str, Any]:
    """The sections of the example that say what is searched."""
    document = yaml.safe_load((ROOT / "examples" / "quickstart.yaml").read_text())
    return {name: document[name] for name in ("model", "training", "inference")}


def counted_points(space: Space) -> MeasuredPoints:
    rows = [json.loads(line) for line in POINTS.read_text().splitlines()]
    points = [
        (row["parameters"], (float(row["flops"]), float(row["parameter_count"]), float(row["validation_loss"])))
        for row in rows
    ]
    return MeasuredPoints(space, points)


def timed_points(space: Space) -> MeasuredPoints:
    measured = json.loads(TABLE.with_name(HARDWARE).read_text())["measured"]
    points: list[tuple[Mapping[str, Any], Costs]] = []
    for row in read_table(TABLE):
        if row.seed == 0:
            found = measured[architecture(row.parameters)]
            costs = (found["latency_ms_p50"], float(found["memory_bytes"]), row.validation_loss)
            points.append((row.parameters, costs))
    return MeasuredPoints(space, points)


class MeasuredPoints:
    """The trained points of a space with their costs, and the costs of any other by the nearest of them."""

    def __init__(self, space: Space, points: Sequence[tuple[Mapping[str, Any], Costs]]) -> None:
        self._open = space.open
        self._places = np.array([self._place(parameters) for parameters, _ in points])
        self.costs = [costs for _, costs in points]

    def costs_of(self, values: Mapping[str, Any]) -> Costs:
        """The costs of the point with these values; of equally near ones the first."""
        apart = np.abs(self._places - self._place(values)).sum(axis=1)
        return self.costs[int(np.argmin(np.round(apart, 9)))]

    def _place(self, values: Mapping[str, Any]) -> list[float]:
        return [place for parameter in self._open for place in _scaled(parameter, values[parameter.name])]


def _scaled(parameter: OpenParameter, value: Any) -> list[float]:
    """A value in 0 to 1; of a choice without an order one figure for each, so that two lie 1 apart."""
    if parameter.kind != "values":
        assert parameter.low is not None
        assert parameter.high is not None
        return [math.log(value / parameter.low) / math.log(parameter.high / parameter.low)]
    if parameter.ordinal:
        return [parameter.values.index(value) / (len(parameter.values) - 1)]
    return [0.5 * (value == choice) for choice in parameter.values]
