"""What each page of the web interface shows, gathered in one read. Templates decide only how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlencode

from sqlalchemy import and_, select, true
from sqlalchemy.orm import Session, aliased

from layers.metrics import METRICS, Goal
from service import charts, datasets, leaderboards, schemas, trials
from service.columns import ColumnStore, metric_names
from service.db import now
from service.errors import NotFound, Unprocessable
from service.leaderboards import ENDED_SWEEPS, Filters
from service.models import CONFIRMATION, Attempt, Dataset, Sweep, Trial, TrialMetric, Worker
from service.recommendation.recommend import recommend

BAR_STATES = ("complete", "infeasible", "pruned", "failed", "cancelled", "running", "queued")
"""Trials by state, in the order in which the progress bar shows them."""

SCATTER_POINTS = 1000
"""More are not drawn: the front first, then the newest."""

TRIAL_NUMBER = "number"
"""The axis that is no metric: how a search went on."""

PAGE_ROWS = 50
_LATENCY_MEASUREMENTS = {
    "latency_first": "latency before training",
    "latency_samples_ms": "latency of the final engine",
}
PERCENTILES = ("p50", "p90", "p99")
_COLUMNS = ("validation_loss", "accuracy", "latency_ms_p50", "latency_ms_p99", "memory_bytes", "parameter_count")


@dataclass(frozen=True, slots=True)
class SweepQuery:
    """The state of a sweep's page, all of it in the address."""

    sort: str = "rank"
    states: tuple[str, ...] = ()
    feasible: bool | None = None
    on_front: bool | None = None
    x: str | None = None
    y: str | None = None
    page_token: str | None = None

    @property
    def filters(self) -> Filters:
        return Filters(self.states, self.feasible, self.on_front)

    def pairs(self) -> list[tuple[str, str]]:
        """What differs from the plain page, as query parameters."""
        flags = [("feasible", self.feasible), ("on_front", self.on_front)]
        return [
            *([("sort", self.sort)] if self.sort != "rank" else []),
            *[("state", state) for state in self.states],
            *[(name, "true" if flag else "false") for name, flag in flags if flag is not None],
            *[(name, axis) for name, axis in (("x", self.x), ("y", self.y)) if axis],
            *([("page_token", self.page_token)] if self.page_token else []),
        ]

    def url(self, path: str = "", **changes: Any) -> str:
        """The address with these changes; a changed sort or filter begins at the first page."""
        changed = replace(self, **({"page_token": None} | changes))
        query = urlencode(changed.pairs())
        return f"{path}?{query}" if query else path or "?"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the leaderboard, with the links that its head holds."""

    name: str
    kind: Literal["metric", "parameter"]
    objective: bool
    sort: str
    """What a click on the head sorts by."""
    direction: Literal["ascending", "descending"] | None
    """How the table is sorted by it now."""


def sweeps(session: Session, project: str | None, before: str | None, size: int = 50) -> dict[str, Any]:
    """The newest sweeps of a project (None: of all), each with its best values."""
    query = select(Sweep).where(Sweep.sampler != CONFIRMATION).order_by(Sweep.id.desc()).limit(size + 1)
    if project is not None:
        query = query.where(Sweep.project == project)
    rows = list(session.scalars(query if before is None else query.where(Sweep.id < before)))
    names = _dataset_names(session, {row.dataset_id for row in rows[:size] if row.dataset_id})
    items = [
        {
            "row": row,
            "dataset": names.get(row.dataset_id or ""),
            "target": target_words(row),
            "best": leaderboards.best(session, row),
            "bar": progress_bar(row),
            "ended_trials": ended_trials(row),
        }
        for row in rows[:size]
    ]
    return {
        "now": now(session),
        "items": items,
        "next": rows[size - 1].id if len(rows) > size else None,
        "first": before is None,
        "workers": session.scalar(select(Worker.id).limit(1)) is not None,
        "is_live": any(row.state == "active" for row in rows[:size]),
    }


def sweep(session: Session, store: ColumnStore, sweep_id: str, query: SweepQuery) -> dict[str, Any]:
    """One sweep: progress, running trials, the recommended one, the scatter and the leaderboard."""
    row = leaderboards.get_sweep(session, sweep_id)
    dataset = session.get(Dataset, row.dataset_id) if row.dataset_id else None
    board = leaderboards.page(
        session, store, row, sort=query.sort, filters=query.filters, size=PAGE_ROWS, token=query.page_token
    )
    present = metric_names(session, row)
    recommended = _recommended(session, row)
    axes = [TRIAL_NUMBER, *dict.fromkeys([*(each["metric"] for each in row.objectives), *present])]
    x, y = _axes(row, query, axes)
    points, points_total = _points(session, row, x, y, None if recommended is None else recommended.trial.trial)
    return {
        "now": now(session),
        "sweep": row,
        "query": query,
        "dataset": dataset,
        "target": target_words(row),
        "bar": progress_bar(row),
        "ended_trials": ended_trials(row),
        "ended": row.state in ENDED_SWEEPS,
        "constraints": list(row.document.get("constraints", [])),
        "best": leaderboards.best(session, row),
        "running": _running(session, row),
        "recommended": recommended,
        "board": board,
        "columns": _columns(row, query, present),
        "axes": axes,
        "x": x,
        "y": y,
        "scatter": charts.scatter(points, x, y, _goals(row, (x, y))),
        "points_total": points_total,
    }


def trial(session: Session, trial_id: str) -> dict[str, Any]:
    """One trial with everything that was learnt of it."""
    row = trials.get(session, trial_id)
    sweep_row = leaderboards.get_sweep(session, row.sweep_id)
    detail = trials.detail(session, row)
    dataset = session.get(Dataset, sweep_row.dataset_id) if sweep_row.dataset_id else None
    baselines: Mapping[str, float] = {} if dataset is None else dataset.profile.get("baselines_nats", {})
    executing = select(Worker).where(Worker.id.in_([each.worker for each in detail.attempts]))
    metrics = row.metrics
    percentiles = {name: metrics[f"latency_ms_{name}"] for name in PERCENTILES if f"latency_ms_{name}" in metrics}
    return {
        "now": now(session),
        "sweep": sweep_row,
        "trial": detail,
        "dataset": dataset,
        "workers": {worker.id: worker.name for worker in session.scalars(executing)},
        "phases": _phases(detail.attempts[-1] if detail.attempts else None),
        "metric_names": [name for name in METRICS if name in metrics] + sorted(metrics.keys() - METRICS.keys()),
        "objectives": {each["metric"]: each["goal"] for each in sweep_row.objectives},
        "curve": charts.curve([point.model_dump() for point in detail.curve], baselines),
        "histogram": charts.histogram(_latency_samples(detail.measurements), percentiles),
        "memory": charts.segments(
            {
                name: float(metrics[name])
                for name in ("weights_bytes", "activation_bytes", "io_bytes")
                if name in metrics
            }
        ),
        "facts": _facts(detail.measurements),
        "is_live": row.state in ("queued", "running") and sweep_row.state not in ENDED_SWEEPS,
    }


def dataset_list(session: Session, project: str | None) -> dict[str, Any]:
    """The datasets of a project (None: of all) by name."""
    rows, _ = datasets.page(session, project, None, 1000)
    rows.sort(key=lambda row: row.name)
    return {"now": now(session), "rows": rows}


def dataset(session: Session, key: str, project: str, listed: str | None) -> dict[str, Any]:
    """One dataset with its profile, and the sweeps over it in the project `listed` (None: in all)."""
    row = datasets.get(session, key, project)
    of_project = true() if listed is None else Sweep.project == listed
    sweeps_of = list(
        session.scalars(select(Sweep).where(Sweep.dataset_id == row.id, of_project).order_by(Sweep.id.desc()).limit(20))
    )
    losses: Mapping[str, float] = row.profile.get("baselines_nats", {})
    highest = max(losses.values(), default=1.0)
    bars = {name: round(1000 * loss / highest, 1) for name, loss in losses.items()}
    return {
        "now": now(session),
        "dataset": row,
        "sweeps": sweeps_of,
        "bars": bars,
        "parts": charts.segments(_sizes(row)),
    }


def target_words(row: Sweep) -> str | None:
    """Runtime, version and device of a sweep's target; None until it is resolved."""
    if row.target is None:
        return None
    return f"{row.target['runtime']} {row.target['version']} on {row.target['device_model']}"


def ended_trials(row: Sweep) -> int:
    """How many trials came to an end, whichever."""
    return sum(int(row.counts.get(state, 0)) for state in BAR_STATES[:5])


def progress_bar(row: Sweep) -> list[charts.Segment]:
    """Trials by state against the budget."""
    counts = {state: float(row.counts.get(state, 0)) for state in BAR_STATES}
    return charts.segments(counts, float(row.budget.get("trials", 0)))


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A measurement's values by dotted name; long lists are only counted."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            short = len(value) <= 8 and all(not isinstance(each, list | dict) for each in value)
            found[prefix + name] = ", ".join(map(str, value)) if short else f"{len(value):,} values"
        else:
            found[prefix + name] = value
    return found


def _sizes(row: Dataset) -> dict[str, float]:
    return {part: float(facts.get("tokens") or facts.get("examples") or 0) for part, facts in row.parts.items()}


def _dataset_names(session: Session, ids: set[str]) -> dict[str, str]:
    return {row.id: row.name for row in session.scalars(select(Dataset).where(Dataset.id.in_(ids)))}


def _recommended(session: Session, row: Sweep) -> schemas.Recommendation | None:
    try:
        return recommend(session, row)
    except NotFound:
        return None


def _axes(row: Sweep, query: SweepQuery, axes: list[str]) -> tuple[str, str]:
    objectives = [each["metric"] for each in row.objectives]
    default_x = objectives[0] if len(objectives) > 1 else TRIAL_NUMBER
    x, y = query.x or default_x, query.y or objectives[-1]
    for name, axis in (("x", x), ("y", y)):
        if axis not in axes and axis not in METRICS:
            raise Unprocessable(f"{name}={axis!r} is not a metric: choose from {', '.join(axes)}")
    return x, y


def _goals(row: Sweep, axes: tuple[str, str]) -> dict[str, Goal]:
    objectives = {each["metric"]: each["goal"] for each in row.objectives}
    return {axis: objectives.get(axis, METRICS[axis].goal) for axis in axes if axis in METRICS}


def _points(session: Session, row: Sweep, x: str, y: str, recommended: str | None) -> tuple[list[charts.Point], int]:
    """The trials that have both values: the front, then the newest; and how many there are in all."""
    query: Any = select(Trial.id, Trial.number, Trial.pareto_rank, Trial.feasible, Trial.state)
    for axis in (x, y):
        if axis == TRIAL_NUMBER:
            query = query.add_columns(Trial.number)
        else:
            metric = aliased(TrialMetric)
            query = query.join(metric, and_(metric.trial_id == Trial.id, metric.name == axis)).add_columns(metric.value)
    ordered = query.where(Trial.sweep_id == row.id, Trial.state.in_(("complete", "infeasible"))).order_by(
        (Trial.pareto_rank == 1).is_not(True), Trial.number.desc()
    )
    found: list[Any] = list(session.execute(ordered.limit(SCATTER_POINTS + 1)))
    points = [
        charts.Point(
            trial=trial_id,
            number=number,
            x_value=float(x_value),
            y_value=float(y_value),
            on_front=rank == 1,
            feasible=state == "complete" and feasible is not False,
            recommended=trial_id == recommended,
        )
        for trial_id, number, rank, feasible, state, x_value, y_value in found[:SCATTER_POINTS]
    ]
    total = int(row.counts.get("complete", 0)) + int(row.counts.get("infeasible", 0))
    return points, total if len(found) > SCATTER_POINTS else len(points)


def _columns(row: Sweep, query: SweepQuery, present: list[str]) -> list[Column]:
    """Objectives first, then what constraints name, the usual metrics, and the sweep's parameters."""
    objectives: dict[str, Goal] = {each["metric"]: each["goal"] for each in row.objectives}
    constrained = [name for name in METRICS if any(name in text for text in row.document.get("constraints", []))]
    metrics = [
        name for name in dict.fromkeys([*objectives, *constrained, *_COLUMNS]) if name in objectives or name in present
    ]
    columns: list[Column] = []
    for name in [*metrics, *leaderboards.parameter_names(row)]:
        goal = objectives.get(name, METRICS[name].goal if name in METRICS else "minimize")
        first, second = (f"-{name}", name) if goal == "maximize" else (name, f"-{name}")
        direction = {name: "ascending", f"-{name}": "descending"}.get(query.sort)
        columns.append(
            Column(
                name,
                "metric" if name in METRICS else "parameter",
                name in objectives,
                second if query.sort == first else first,
                direction,  # pyright: ignore[reportArgumentType]
            )
        )
    return columns


def _running(session: Session, row: Sweep) -> list[dict[str, Any]]:
    """The trials that are being executed, with the phase that each is in and for how long."""
    query = (
        select(Trial, Attempt.phases, Worker.name)
        .outerjoin(Attempt, and_(Attempt.trial_id == Trial.id, Attempt.attempt == Trial.attempt))
        .outerjoin(Worker, Worker.id == Trial.worker_id)
        .where(Trial.sweep_id == row.id, Trial.state == "running")
        .order_by(Trial.number)
        .limit(16)
    )
    time = now(session)
    return [
        {
            "trial": running,
            "worker": worker,
            "phases": [phase["phase"] for phase in phases or []],
            "seconds": max(0.0, time - phases[-1]["started_at"]) if phases else None,
        }
        for running, phases, worker in session.execute(query)
    ]


def _phases(attempt: schemas.Attempt | None) -> list[tuple[charts.Segment, schemas.PhaseTime]]:
    """The newest attempt's phases beside one another, in proportion to their time."""
    if attempt is None or not attempt.phases:
        return []
    keyed = {f"{index} {phase.phase}": phase for index, phase in enumerate(attempt.phases)}
    # A sliver is left for what took no time, so that it can be seen and pointed at.
    least = sum(phase.seconds for phase in attempt.phases) / 200 or 1.0
    pieces = charts.segments({key: max(phase.seconds, least) for key, phase in keyed.items()})
    return [(piece, keyed[piece.name]) for piece in pieces]


def _latency_samples(measurements: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """The raw samples behind the reported latencies: of the final engine, or of the first where there is no other."""
    for name in ("latency_samples_ms", "latency_first"):
        samples = measurements.get(name, {}).get("samples_ms")
        if isinstance(samples, list):
            return [float(each) for each in samples if isinstance(each, int | float)]
    return []


def _facts(measurements: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What is kept beside the metrics, less what the page shows elsewhere."""
    facts: dict[str, dict[str, Any]] = {}
    for name, data in measurements.items():
        if name == "memory":
            continue
        if name in _LATENCY_MEASUREMENTS:
            # The environment is a measurement of its own; the final figures are the metrics.
            data = {key: value for key, value in data.items() if key != "environment"}
        facts[_LATENCY_MEASUREMENTS.get(name, name.replace("_", " "))] = flat(data)
    return facts
