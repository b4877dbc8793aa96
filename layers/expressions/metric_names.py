"""The names of one sweep's metrics: what users write becomes what is kept here, and nowhere else.

A sweep that is measured at several shapes has `latency_ms_p50@chat` of each; without a shape the name means the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from layers.declarations.inference.shapes import NAME, SHAPES, ShapeDocument
from layers.metrics import AT, METRICS, named_at, split_name
from layers.parameter import Scalar
from layers.problems import did_you_mean, shown


class MetricNameError(ValueError):
    """A name that is no metric of the sweep."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}: {remedy}")
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class MetricNames:
    """The metrics of a sweep. `shapes` are the names of its shapes, the first one first; empty if it names none."""

    shapes: tuple[str, ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, object]) -> MetricNames:
        """Of a normalized document."""
        inference = cast("Mapping[str, object]", document.get("inference", {}))
        return cls.of_shapes(cast("list[ShapeDocument]", inference.get(SHAPES, [])))

    @classmethod
    def of_shapes(cls, shapes: Sequence[Mapping[str, Scalar]]) -> MetricNames:
        """Of the shapes of a configuration."""
        return cls(tuple(str(shape[NAME]) for shape in shapes))

    def __iter__(self) -> Iterator[str]:
        """Every name in full, in the order of the declarations."""
        for name, declared in METRICS.items():
            if declared.of_shape and self.shapes:
                yield from (named_at(name, shape) for shape in self.shapes)
            else:
                yield name

    def __contains__(self, name: object) -> bool:
        """Whether a user may write that name here."""
        base, shape = split_name(str(name))
        declared = METRICS.get(base)
        return declared is not None and (shape is None or (declared.of_shape and shape in self.shapes))

    def resolve(self, name: str) -> str:
        """The name in full of what a user calls `name`. Raises MetricNameError."""
        base, shape = split_name(name)
        if base not in METRICS:
            near = did_you_mean(base, METRICS)
            listed = f"one of: {', '.join(METRICS)}"
            raise MetricNameError(
                f"{shown(name)} is not a metric", f"{near} {listed}" if near.startswith("did") else listed
            )
        if shape is None:
            return named_at(base, self.first)
        if not METRICS[base].of_shape:
            raise MetricNameError(f"{base} has no shape: it is the same at each", f"write {base}")
        if not self.shapes:
            remedy = f"write {base}, or name several shapes in inference.shapes"
            raise MetricNameError(f"{name}: the sweep names no shapes", remedy)
        if shape not in self.shapes:
            written = [f"{base}{AT}{known}" for known in self.shapes]
            raise MetricNameError(f"{name}: there is no shape {shape!r}", f"one of: {', '.join(written)}")
        return name

    def wrong_shape(self, name: str) -> MetricNameError | None:
        """What is wrong with the shape in the name of a metric; None if nothing is, and for what is no metric."""
        try:
            self.resolve(name)
        except MetricNameError as error:
            return error if split_name(name)[0] in METRICS else None
        return None

    def known(self, name: str) -> str:
        """`name` in full if it is a metric of the sweep, else as it is."""
        return self.resolve(name) if name in self else name

    @property
    def first(self) -> str | None:
        """The shape that a name without one means."""
        return self.shapes[0] if self.shapes else None
