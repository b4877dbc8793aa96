"""Leaderboards: the trials of a sweep ranked, filtered and paged by keys; the front; the recommended trial.

Ranked means: by Pareto rank among feasible complete trials, within a rank by the first objective, then by number. The
scheduler keeps `Trial.pareto_rank`, with the `Ranking` that is offered here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, cast, false, func, literal, or_, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, aliased

from layers.metrics import METRICS
from service import schemas
from service.errors import NotFound, Unprocessable
from service.models import TRIAL_STATES, Sweep, Trial, TrialMetric
from service.paging import decode_token, encode_token
from service.pareto import Ranking, distances_to_ideal

__all__ = ["Filters", "Ranking", "front", "get_sweep", "metric_names", "page", "parameter_names", "recommend", "rows"]

RULE = (
    "Among the feasible complete trials of Pareto rank 1, the one nearest to the ideal point, which takes the best "
    "value of each objective: Euclidean distance, each objective scaled to the front's range. Ties go to fewer "
    "parameters, then to the earlier trial."
)

_VARYING = {"values", "min", "max", "derived"}
ENDED_SWEEPS = ("completed", "cancelled", "failed")


@dataclass(frozen=True, slots=True)
class Filters:
    """Which trials a leaderboard keeps; None and () keep all."""

    states: tuple[str, ...] = ()
    feasible: bool | None = None
    on_front: bool | None = None

    def __post_init__(self) -> None:
        unknown = [state for state in self.states if state not in TRIAL_STATES]
        if unknown:
            raise Unprocessable(f"state={unknown[0]!r} is not a state of trials: choose from {', '.join(TRIAL_STATES)}")

    def conditions(self, sweep: Sweep) -> list[ColumnElement[bool]]:
        conditions: list[ColumnElement[bool]] = [Trial.sweep_id == sweep.id]
        if self.states:
            conditions.append(Trial.state.in_(self.states))
        if self.feasible is not None:
            conditions.append(Trial.feasible.is_(self.feasible))
        if self.on_front is not None:
            front = Trial.pareto_rank == 1
            conditions.append(front if self.on_front else or_(Trial.pareto_rank.is_(None), Trial.pareto_rank != 1))
        return conditions


@dataclass(frozen=True, slots=True)
class _Key:
    """One expression to sort by. Rows without it come last, whichever way it is sorted."""

    expression: ColumnElement[Any]
    descending: bool = False
    json: bool = False
    """The expression is JSONB: what it is compared with must be, too."""

    def order(self) -> list[ColumnElement[Any]]:
        return [self.expression.is_(None), self.expression.desc() if self.descending else self.expression.asc()]

    def same(self, value: Any) -> ColumnElement[bool]:
        return self.expression.is_(None) if value is None else self.expression == self._bound(value)

    def after(self, value: Any) -> ColumnElement[bool]:
        if value is None:
            return false()
        bound = self._bound(value)
        further = self.expression < bound if self.descending else self.expression > bound
        return or_(further, self.expression.is_(None))

    def _bound(self, value: Any) -> Any:
        return cast(literal(json.dumps(value)), JSONB) if self.json else value


def get_sweep(session: Session, sweep_id: str) -> Sweep:
    """The sweep; raises NotFound."""
    sweep = session.get(Sweep, sweep_id)
    if sweep is None:
        raise NotFound(f"there is no sweep {sweep_id!r}")
    return sweep


def page(
    session: Session, sweep: Sweep, *, sort: str, filters: Filters, size: int, token: str | None
) -> schemas.Leaderboard:
    """One page of the leaderboard.

    `sort` is rank, number, a metric or a parameter's path; a leading '-' turns it. Raises Unprocessable for a sort
    that is none of these, and for a token that is not this leaderboard's.
    """
    keys, query = _sorted(session, sweep, sort, filters)
    after = None if token is None else _read_token(token, sort, filters, len(keys))
    found = _fetch(session, query, keys, after, size + 1)
    more = len(found) > size
    return schemas.Leaderboard(
        sweep=sweep.id,
        objectives=[schemas.Objective(**objective) for objective in sweep.objectives],
        items=[to_row(trial) for trial, _ in found[:size]],
        next_page_token=_token(sort, filters, found[size - 1][1]) if more else None,
        total=session.scalar(select(func.count()).select_from(Trial).where(*filters.conditions(sweep))) or 0,
    )


def rows(session: Session, sweep: Sweep, *, sort: str, filters: Filters) -> Iterator[schemas.LeaderboardRow]:
    """The whole leaderboard: sorted once, then read 1,000 trials at a time."""
    _, query = _sorted(session, sweep, sort, filters)
    ids = list(session.scalars(query.with_only_columns(Trial.id, maintain_column_froms=True)))
    for start in range(0, len(ids), 1000):
        some = ids[start : start + 1000]
        trials = {trial.id: trial for trial in session.scalars(select(Trial).where(Trial.id.in_(some)))}
        yield from (to_row(trials[trial_id]) for trial_id in some)
        for trial in trials.values():
            session.expunge(trial)


def front(session: Session, sweep: Sweep) -> schemas.Front:
    """The trials of rank 1, by the first objective."""
    items = list(rows(session, sweep, sort="rank", filters=Filters(on_front=True)))
    return schemas.Front(
        sweep=sweep.id, objectives=[schemas.Objective(**each) for each in sweep.objectives], items=items
    )


def recommend(session: Session, sweep: Sweep) -> schemas.Recommendation:
    """The recommended trial by `RULE`; raises NotFound with the reason while there is none."""
    trials = list(session.scalars(select(Trial).where(Trial.sweep_id == sweep.id, Trial.pareto_rank == 1)))
    if not trials:
        missing = "ended without a" if sweep.state in ENDED_SWEEPS else "does not yet have a"
        raise NotFound(f"sweep {sweep.id} {missing} trial that is complete and feasible: there is none to recommend")
    metrics = [objective["metric"] for objective in sweep.objectives]
    goals = [objective["goal"] for objective in sweep.objectives]
    distances = distances_to_ideal([[trial.metrics[metric] for metric in metrics] for trial in trials], goals)
    _, _, _, chosen = min(
        (distance, trial.metrics.get("parameter_count", 0), trial.number, trial)
        for distance, trial in zip(distances, trials, strict=True)
    )
    return schemas.Recommendation(
        sweep=sweep.id,
        rule=RULE,
        trial=to_row(chosen),
        configuration=chosen.configuration,
        final=sweep.state in ENDED_SWEEPS,
    )


def best(session: Session, sweep: Sweep) -> dict[str, schemas.BestTrial]:
    """For each objective, the feasible complete trial with the best value; an objective without one is left out."""
    found: dict[str, schemas.BestTrial] = {}
    for objective in sweep.objectives:
        value = TrialMetric.value.desc() if objective["goal"] == "maximize" else TrialMetric.value.asc()
        row = session.execute(
            select(Trial.id, Trial.number, TrialMetric.value)
            .join(TrialMetric, TrialMetric.trial_id == Trial.id)
            .where(TrialMetric.sweep_id == sweep.id, TrialMetric.name == objective["metric"])
            .where(Trial.state == "complete", Trial.feasible.is_(True))
            .order_by(value, Trial.number)
            .limit(1)
        ).first()
        if row is not None:
            found[objective["metric"]] = schemas.BestTrial(trial=row[0], number=row[1], value=row[2])
    return found


def to_row(trial: Trial) -> schemas.LeaderboardRow:
    return schemas.LeaderboardRow(
        trial=trial.id,
        number=trial.number,
        state=trial.state,  # pyright: ignore[reportArgumentType]
        rank=trial.pareto_rank,
        on_front=trial.pareto_rank == 1,
        feasible=trial.feasible,
        parameters=trial.parameters,
        metrics=trial.metrics,
        reason=trial.reason,
        reused_from=trial.reused_from,
        started_from=trial.started_from,
    )


def parameter_names(sweep: Sweep) -> list[str]:
    """The open and derived parameters of a sweep, as they are named in its trials, in the document's order."""
    names: dict[str, None] = {}
    for section in ("model", "training", "inference"):
        prefix = "" if section == "model" else f"{section}."
        for path, value in _leaves(sweep.document.get(section) or {}):
            if isinstance(value, dict) and value.keys() & _VARYING:
                names[prefix + path] = None
    for name in sweep.space.get("open_parameters", []):
        names[name] = None
    return list(names)


def metric_names(session: Session, sweep: Sweep) -> list[str]:
    """The metrics that any trial of the sweep has, in the order of the metrics' declaration."""
    found = set(session.scalars(select(TrialMetric.name).where(TrialMetric.sweep_id == sweep.id).distinct()))
    return [name for name in METRICS if name in found] + sorted(found - METRICS.keys())


def _leaves(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Paths and values of a section; a value, {values}, {min, max}, {derived} or {when} is a leaf."""
    for name, value in section.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and not value.keys() & (_VARYING | {"when", "value"}):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _sorted(
    session: Session, sweep: Sweep, sort: str, filters: Filters
) -> tuple[list[_Key], Select[tuple[Trial, *tuple[Any, ...]]]]:
    """The sort keys, and the query that selects a trial and the keys' values."""
    name, descending = sort.removeprefix("-"), sort.startswith("-")
    number = _Key(Trial.__table__.c.number)
    query: Any = select(Trial).where(*filters.conditions(sweep))
    if name == "number":
        keys = [_Key(Trial.__table__.c.number, descending)]
    elif name == "rank":
        first = sweep.objectives[0]
        query, value = _join_metric(query, first["metric"])
        keys = [_Key(Trial.__table__.c.pareto_rank, descending), _Key(value, first["goal"] == "maximize"), number]
    elif name in METRICS:
        query, value = _join_metric(query, name)
        keys = [_Key(value, descending), number]
    elif name in (known := parameter_names(sweep)):
        keys = [_parameter_key(session, name, descending), number]
    else:
        raise Unprocessable(
            f"sort={sort!r}: sort by rank, number, a metric ({', '.join(list(METRICS)[:4])}, ...) "
            f"or a parameter ({', '.join(known) or 'this sweep has none open'}); a leading '-' turns the order"
        )
    query = query.add_columns(*[key.expression for key in keys])
    return keys, query.order_by(*[part for key in keys for part in key.order()])


def _join_metric(query: Any, name: str) -> tuple[Any, ColumnElement[float]]:
    metric = aliased(TrialMetric)
    joined = query.outerjoin(metric, and_(metric.trial_id == Trial.id, metric.name == name))
    return joined, metric.value  # pyright: ignore[reportReturnType]


def _parameter_key(session: Session, name: str, descending: bool) -> _Key:
    """A parameter's value in its own type: numbers sort as numbers, names as names."""
    if session.get_bind().dialect.name == "sqlite":
        return _Key(func.json_extract(Trial.parameters, f'$."{name}"'), descending)
    value = func.nullif(cast(Trial.parameters, JSONB).op("->")(name), cast(literal("null"), JSONB))
    return _Key(value, descending, json=True)


def _fetch(
    session: Session, query: Any, keys: Sequence[_Key], after: list[Any] | None, limit: int
) -> list[tuple[Trial, list[Any]]]:
    if after is not None:
        steps = [and_(*[keys[j].same(after[j]) for j in range(i)], keys[i].after(after[i])) for i in range(len(keys))]
        query = query.where(or_(*steps))
    return [(row[0], list(row[1:])) for row in session.execute(query.limit(limit))]


def _token(sort: str, filters: Filters, position: list[Any]) -> str:
    return encode_token(_identity(sort, filters), json.dumps(position))


def _read_token(token: str, sort: str, filters: Filters, keys: int) -> list[Any]:
    identity, text = decode_token(token, str, str)
    try:
        position = json.loads(text)
    except (ValueError, RecursionError):
        position = None
    if (
        identity != _identity(sort, filters)
        or not isinstance(position, list)
        or len(position) != keys
        or not all(_is_sortable(each) for each in position)
    ):
        raise Unprocessable("page_token belongs to another sort, other filters or another list: begin again without it")
    return position


def _identity(sort: str, filters: Filters) -> str:
    return json.dumps([sort, filters.states, filters.feasible, filters.on_front])


def _is_sortable(value: Any) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, str):
        return "\0" not in value and value.isprintable()
    return value is None or (isinstance(value, float) and math.isfinite(value))
