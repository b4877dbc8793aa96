"""What the page's drawings show, as positions: the templates only write them down as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from layers.metrics import LARGEST, Goal
from service.leases.schemas import CurvePoint
from service.results.axes import Axis
from service.results.pareto import Ranking

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 84, 20, 16, 52
SLOW_RATIO = 4.0
"""A latency histogram ends at so many medians: on a busy machine its tail would hide the rest."""


@dataclass(frozen=True, slots=True)
class Point:
    """One trial on the scatter."""

    trial: str
    number: int
    x_value: float
    y_value: float
    on_front: bool
    feasible: bool
    recommended: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """A point where it is drawn. `kind`: plain, infeasible, front or recommended."""

    point: Point
    x: float
    y: float
    kind: str


@dataclass(frozen=True, slots=True)
class Frame:
    """Two axes and the plot between them."""

    x: Axis
    y: Axis
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def left(self) -> float:
        return self.x.start

    @property
    def right(self) -> float:
        return self.x.end

    @property
    def bottom(self) -> float:
        return self.y.start

    @property
    def top(self) -> float:
        return self.y.end


@dataclass(frozen=True, slots=True)
class Scatter:
    """Trials by two metrics, and the steps along the best trade-offs between these two."""

    frame: Frame
    marks: list[Mark]
    front_path: str


def scatter(points: Sequence[Point], x: str, y: str, goals: Mapping[str, Goal]) -> Scatter | None:
    """The scatter of `points` by the metrics `x` and `y`; None if there are no points.

    `goals` holds those of the two that have one; without both there is nothing to trade off and no line is drawn.
    """
    if not points:
        return None
    frame = _frame(x, [point.x_value for point in points], y, [point.y_value for point in points])
    order = {"plain": 0, "infeasible": 1, "front": 2, "recommended": 3}
    marks = [Mark(point, frame.x.at(point.x_value), frame.y.at(point.y_value), _kind(point)) for point in points]
    return Scatter(frame, sorted(marks, key=lambda mark: order[mark.kind]), _front_path(frame, points, goals))


def _kind(point: Point) -> str:
    if point.recommended:
        return "recommended"
    if point.on_front:
        return "front"
    return "plain" if point.feasible else "infeasible"


def _frame(x: str, xs: Sequence[float], y: str, ys: Sequence[float]) -> Frame:
    return Frame(Axis.over(x, xs, LEFT, WIDTH - RIGHT), Axis.over(y, ys, HEIGHT - BOTTOM, TOP))


def _front_path(frame: Frame, points: Sequence[Point], goals: Mapping[str, Goal]) -> str:
    """Steps through the feasible points that none betters in these two metrics: the edge of what was reached."""
    if frame.x.name not in goals or frame.y.name not in goals:
        return ""
    ranking = Ranking([goals[frame.x.name], goals[frame.y.name]])
    for point in points:
        if point.feasible:
            ranking.add(point.trial, [point.x_value, point.y_value])
    edge = set(ranking.front)
    corners = sorted({(frame.x.at(p.x_value), frame.y.at(p.y_value)) for p in points if p.trial in edge})
    if len(corners) < 2:
        return ""
    # Between two of the points nothing was measured: what is certain is the worse value of each, hence steps.
    steps = [f"M{corners[0][0]:g} {corners[0][1]:g}"]
    for x, y in corners[1:]:
        steps.append(f"H{x:g}V{y:g}" if goals[frame.x.name] == "minimize" else f"V{y:g}H{x:g}")
    return "".join(steps)


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    label: str
    path: str
    dots: list[tuple[float, float, str]]


@dataclass(frozen=True, slots=True)
class Curve:
    """Losses by step."""

    frame: Frame
    lines: list[Line]
    baselines: list[tuple[str, float]] = field(default_factory=list)
    """Name and height of the reference losses that lie in the picture."""


def curve(points: Sequence[CurvePoint], baselines: Mapping[str, float]) -> Curve | None:
    """Training and validation loss by step, with the `baselines` that lie in their range; None without two points."""
    series = {
        name: [(point.step, loss) for point in points if _is_measurable(loss := getattr(point, name))]
        for name in ("training_loss", "validation_loss")
    }
    values = [pair for pairs in series.values() for pair in pairs]
    if len(values) < 2:
        return None
    frame = Frame(
        Axis.over("step", [step for step, _ in values], LEFT, WIDTH - RIGHT, log=False, zero=True),
        Axis.over("loss", [loss for _, loss in values], HEIGHT - BOTTOM, TOP, log=False),
    )
    lines: list[Line] = []
    for name, pairs in series.items():
        if not pairs:
            continue
        thinned = pairs[:: math.ceil(len(pairs) / 600)]
        dots = [(frame.x.at(step), frame.y.at(loss), f"step {step}: {loss:.4f} nats") for step, loss in thinned]
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y, _ in dots)
        lines.append(Line(name, name.replace("_", " "), path, dots if len(dots) <= 80 else []))
    inside = [(name, frame.y.at(loss)) for name, loss in baselines.items() if frame.y.low <= loss <= frame.y.high]
    return Curve(frame, lines, inside)


@dataclass(frozen=True, slots=True)
class Series:
    """One of several lines in a picture: a curve, or a front, whose corners are joined by steps."""

    label: str
    points: list[tuple[float, float]]
    stepped: bool = False


def overlaid(series: Sequence[Series], x: str, y: str) -> Curve | None:
    """Lines over one another by `x` ("step" begins at 0) and `y`; None without two points in all."""
    able = [
        replace(each, points=[point for point in each.points if all(map(_is_measurable, point))]) for each in series
    ]
    points = [point for each in able for point in each.points]
    if len(points) < 2:
        return None
    log = False if x == "step" else None
    frame = Frame(
        Axis.over(x, [across for across, _ in points], LEFT, WIDTH - RIGHT, log=log, zero=x == "step"),
        Axis.over(y, [up for _, up in points], HEIGHT - BOTTOM, TOP, log=log),
    )
    lines: list[Line] = []
    for index, each in enumerate(able):
        thinned = each.points[:: math.ceil(len(each.points) / 600) or 1]
        dots = [(frame.x.at(across), frame.y.at(up), f"{across:g}, {up:.4g}") for across, up in thinned]
        path = _stepped(dots) if each.stepped else "L".join(f"{across:g} {up:g}" for across, up, _ in dots)
        shown = dots if len(dots) <= 80 else []
        lines.append(Line(f"series-{index % SERIES}", each.label, f"M{path}" if dots else "", shown))
    return Curve(frame, lines)


def _stepped(dots: Sequence[tuple[float, float, str]]) -> str:
    return "".join(f"H{x:g}V{y:g}" if place else f"{x:g} {y:g}" for place, (x, y, _) in enumerate(dots))


SERIES = 10
"""Looks of lines that the stylesheet has."""


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often each latency was measured, with the percentiles marked."""

    frame: Frame
    bars: list[Bar]
    lines: list[tuple[str, float]]
    beyond: int
    """Samples that are slower than what is shown."""
    slowest_shown_ms: float


def histogram(samples_ms: Sequence[float], percentiles: Mapping[str, float]) -> Histogram | None:
    """The histogram of latency samples. The slowest 0.5 % may lie outside: the picture is of the rest.

    If the slowest are many times slower than the median, all beyond SLOW_RATIO medians lie outside and are counted.
    """
    samples = np.asarray([sample for sample in samples_ms if _is_measurable(sample)], dtype=float)
    if len(samples) < 2:
        return None
    slowest = min(float(np.quantile(samples, 0.995)), SLOW_RATIO * float(np.median(samples)))
    shown = samples[samples <= slowest]
    # Samples that are all but equal still need a range to be drawn in.
    least, most = float(shown.min()), float(shown.max())
    room = max(5e-4 * most - (most - least) / 2, 1e-9 - (most - least) / 2, 0.0)
    bins = max(10, min(60, round(math.sqrt(len(shown)) * 1.5)))
    counts, edges = np.histogram(shown, bins=bins, range=(least - room, most + room))
    x = Axis("latency_ms", float(edges[0]), float(edges[-1]), False, LEFT, WIDTH - RIGHT)
    frame = Frame(x, Axis.over("samples", [0.0, float(counts.max())], 240 - BOTTOM, TOP, zero=True), height=240)
    bars = [
        Bar(
            x.at(low),
            frame.y.at(float(count)),
            max(0.5, round(x.at(high) - x.at(low) - 0.7, 1)),
            round(frame.bottom - frame.y.at(float(count)), 1),
            f"{low:.4g} to {high:.4g} ms: {count} samples",
        )
        for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
        if count
    ]
    lines = [(name, x.at(value)) for name, value in percentiles.items() if x.low <= value <= x.high]
    return Histogram(frame, bars, lines, len(samples) - len(shown), slowest)


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece of a bar of 1,000 units."""

    name: str
    value: float
    x: float
    width: float


def segments(values: Mapping[str, float], total: float | None = None) -> list[Segment]:
    """Pieces side by side in proportion to their values; `total` is what the whole bar stands for."""
    whole = max(total or 0.0, sum(values.values()))
    pieces: list[Segment] = []
    position = 0.0
    for name, value in values.items():
        width = 1000 * value / whole if whole > 0 else 0.0
        if value > 0:
            pieces.append(Segment(name, value, round(position, 2), round(width, 2)))
        position += width
    return pieces


def _is_measurable(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= LARGEST
