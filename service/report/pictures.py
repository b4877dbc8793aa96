"""The report's drawings, as positions: the template writes them down as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layers.metrics import Goal
from service.report.schemas import Report
from service.results import charts
from service.results.axes import Axis
from service.results.charts import Scatter

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 760, 150, 24, 34, 12, 46


@dataclass(frozen=True, slots=True)
class Whisker:
    """One candidate: its interval, its mean, its runs, and what the sweep had promised; positions across."""

    label: str
    y: float
    low: float
    high: float
    mean: float
    runs: list[float]
    chosen_by: float | None
    recommended: bool


@dataclass(frozen=True, slots=True)
class Whiskers:
    """The candidates' test losses, one below the other."""

    frame: charts.Frame
    rows: list[Whisker]


@dataclass(frozen=True, slots=True)
class Bar:
    """A loss against others, of 1,000 units."""

    name: str
    loss: float
    width: float
    own: bool


def trade_off(report: Report) -> Scatter | None:
    """The complete trials by the first and the last objective, as on the page; one objective by what it costs."""
    found = report.tradeoff
    recommended = None if report.recommendation is None else report.recommendation.trial.trial
    goals: dict[str, Goal] = {objective.metric: objective.goal for objective in report.sweep.objectives}
    points = [
        charts.Point(
            point.trial,
            point.number,
            point.x,
            point.y,
            point.on_front,
            bool(point.feasible),
            point.trial == recommended,
        )
        for point in found.points
    ]
    return charts.scatter(points, found.x, found.y, goals)


def gap_by_size(report: Report) -> Scatter | None:
    """The generalization gap of every complete trial by its parameter count."""
    if report.recommendation is None:
        return None
    recommended = report.recommendation.trial.trial
    points = [
        charts.Point(
            point.trial,
            point.number,
            point.parameter_count,
            point.generalization_gap,
            point.on_front,
            True,
            point.trial == recommended,
        )
        for point in report.recommendation.evidence.complexity.points
    ]
    return charts.scatter(points, "parameter_count", "generalization_gap", {})


def whiskers(report: Report) -> Whiskers | None:
    """What the confirmation says of each candidate's test loss; None without one."""
    if report.confirmation is None:
        return None
    shown = [each for each in report.confirmation.candidates if each.test is not None and each.test.expected]
    if not shown:
        return None
    values: list[float] = []
    for each in shown:
        assert each.test is not None
        assert each.test.expected is not None
        values += [each.test.expected.low, each.test.expected.high, *_tests(each.runs)]
        values += [each.trial.metrics["validation_loss"]] if "validation_loss" in each.trial.metrics else []
    height = TOP + ROW * len(shown) + BOTTOM
    axis = Axis.over("loss", values, LEFT, WIDTH - RIGHT, log=False)
    frame = charts.Frame(axis, Axis("candidates", 0, 1, False, height - BOTTOM, TOP), WIDTH, height)
    rows: list[Whisker] = []
    for index, each in enumerate(shown):
        assert each.test is not None
        assert each.test.expected is not None
        chosen_by = each.trial.metrics.get("validation_loss")
        rows.append(
            Whisker(
                label=f"trial {each.trial.number}",
                y=TOP + ROW * (index + 0.5),
                low=axis.at(each.test.expected.low),
                high=axis.at(each.test.expected.high),
                mean=axis.at(each.test.mean),
                runs=[axis.at(loss) for loss in _tests(each.runs)],
                chosen_by=None if chosen_by is None else axis.at(chosen_by),
                recommended=each.recommended,
            )
        )
    return Whiskers(frame, rows)


def baselines(report: Report) -> list[Bar]:
    """The simple models' validation losses, and the recommended trial's."""
    if report.dataset is None:
        return []
    losses: Mapping[str, float] = report.dataset.profile.get("baselines_nats") or {}
    # Profiles of before have -0.0 if a model is always right.
    bars = [(name, loss + 0.0, False) for name, loss in losses.items()]
    own = None if report.recommendation is None else report.recommendation.trial.metrics.get("validation_loss")
    if own is not None:
        bars.append(("recommended trial", own, True))
    highest = max((loss for _, loss, _ in bars), default=1.0) or 1.0
    return [Bar(name, loss, round(1000 * max(0.0, loss / highest), 1), is_own) for name, loss, is_own in bars]


def _tests(runs: Sequence[object]) -> list[float]:
    return [loss for run in runs if (loss := getattr(run, "test_loss", None)) is not None]
