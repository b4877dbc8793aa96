"""Leaderboards: the trials of a sweep ranked, filtered and paged by keys; the front.

Ranked means: by Pareto rank among feasible complete trials, within a rank by the first objective, then by number. The
scheduler keeps `Trial.pareto_rank`, with the `Ranking` that is offered here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.expressions.metric_names import MetricNames
from layers.expressions.names import VARIABLES
from layers.expressions.summary_metrics import summary_metrics
from layers.sections import SECTIONS, Section, Written
from layers.space.per_layer_expansion import own_names
from service.common.noise import NOISY_CV, shown
from service.common.states import TrialState
from service.database.models import Sweep, Trial
from service.errors import NotFoundError
from service.noise.sweep_noise import NoiseCounts, cv_name, noise_by_counts
from service.noise.ties import tied_with_the_front
from service.results import schemas as result_schemas
from service.results.columns import Columns, ColumnStore
from service.results.pareto import Ranking
from service.results.selection import Condition, Filters, Selection, full_sort, needed, select
from service.sweeps import schemas as sweep_schemas

__all__ = ["Condition", "Filters", "Ranking", "front", "get_sweep", "ordered_ids", "page", "parameter_names", "rows_of"]


_VARYING = {"values", "min", "max", "derived"}


def get_sweep(session: Session, sweep_id: str) -> Sweep:
    """The sweep; raises NotFoundError."""
    sweep = session.get(Sweep, sweep_id)
    if sweep is None:
        raise NotFoundError(f"there is no sweep {sweep_id!r}")
    return sweep


def page(
    session: Session,
    store: ColumnStore,
    sweep: Sweep,
    *,
    sort: str,
    filters: Filters,
    size: int,
    token: str | None,
    first: Sequence[str] | None = None,
) -> result_schemas.Leaderboard:
    """One page of the leaderboard. `first`: the ids with which the sort RECOMMENDED begins.

    `sort` is rank, number, a metric or a parameter's path; a leading '-' turns it. Raises UnprocessableError for a sort
    that is none of these, and for a token that is not this leaderboard's.
    """
    columns, selection = _selected(session, store, sweep, sort, filters, first)
    some, next_token = selection.page(size, token)
    trials = _read(session, [columns.ids[index] for index in some])
    tied = tied_with_the_front(session, sweep, trials)
    return result_schemas.Leaderboard(
        sweep=sweep.id,
        objectives=[sweep_schemas.Objective(**objective) for objective in sweep.objectives],
        summary_metrics=summary_of(sweep),
        items=[to_row(trial, tied=trial.id in tied) for trial in trials],
        next_page_token=next_token,
        total=len(selection.order),
        noise=noise_by_counts(session, sweep, _noise_counts(columns, cv_name(sweep))),
    )


def summary_of(sweep: Sweep) -> list[str]:
    """The metrics that a summary of its trials shows, as far as they have them."""
    return summary_metrics([objective["metric"] for objective in sweep.objectives], sweep.document)


def ordered_ids(session: Session, store: ColumnStore, sweep: Sweep, sort: str, filters: Filters) -> list[str]:
    """The ids of the whole leaderboard's trials, in order. Raises UnprocessableError as `page` does."""
    columns, selection = _selected(session, store, sweep, sort, filters)
    return [columns.ids[index] for index in selection.order]


def rows_of(session: Session, trial_ids: Sequence[str]) -> list[result_schemas.LeaderboardRow]:
    """The rows of these trials, in this order."""
    return [to_row(trial) for trial in _read(session, trial_ids)]


def front(session: Session, sweep: Sweep) -> result_schemas.Front:
    """The trials of rank 1, by the first objective."""
    trials = session.scalars(sa.select(Trial).where(Trial.sweep_id == sweep.id, Trial.pareto_rank == 1))
    first = sweep.objectives[0]
    sign = -1.0 if first["goal"] == "maximize" else 1.0
    ordered = sorted(trials, key=lambda trial: (sign * trial.metrics[first["metric"]], trial.number))
    return result_schemas.Front(
        sweep=sweep.id,
        objectives=[sweep_schemas.Objective(**each) for each in sweep.objectives],
        items=[to_row(trial) for trial in ordered],
    )


def to_row(trial: Trial, *, tied: bool | None = None) -> result_schemas.LeaderboardRow:
    """The trial as a row. `tied`: None if it was not compared with the front."""
    return result_schemas.LeaderboardRow(
        trial=trial.id,
        number=trial.number,
        state=trial.state,  # pyright: ignore[reportArgumentType]
        rank=trial.pareto_rank,
        on_front=trial.pareto_rank == 1,
        tied=tied,
        feasible=trial.feasible,
        parameters=dict(trial.parameters),
        metrics=trial.metrics,
        noise=shown(trial.noise, trial.metrics, trial.feasible),
        reason=trial.reason,
        reused_from=trial.reused_from,
        started_from=trial.started_from,
    )


def parameter_names(sweep: Sweep) -> list[str]:
    """The open and derived parameters of a sweep, as they are named in its trials, in the document's order."""
    names: dict[str, None] = {}
    for section in (VARIABLES, *SECTIONS):
        prefix = "" if section == "model" else f"{section}."
        for path, value in _leaves(sweep.document.get(section) or {}):
            if isinstance(value, dict) and value.keys() & _VARYING:
                name = prefix + path
                names |= dict.fromkeys(own_names(name, _layer_counts(sweep)) if value.get("per_layer") else [name])
    for name in sweep.space.get("open_parameters", []):
        names[name] = None
    return list(names)


def log_parameters(sweep: Sweep) -> set[str]:
    """The parameters of a sweep that are searched on a logarithmic scale."""
    found: set[str] = set()
    for section in (VARIABLES, *SECTIONS):
        prefix = "" if section == "model" else f"{section}."
        for path, value in _leaves(sweep.document.get(section) or {}):
            if isinstance(value, dict) and value.get("log") is True:
                name = prefix + path
                found |= set(own_names(name, _layer_counts(sweep)) if value.get("per_layer") else [name])
    return found


def _layer_counts(sweep: Sweep) -> Section:
    """How many layers a sweep's models may have, as its document writes it."""
    model = sweep.document["model"]
    counts = {"num_layers": model["num_layers"]}
    if sweep.task == "seq2seq":
        counts["num_encoder_layers"] = model.get("num_encoder_layers", model["num_layers"])
    return counts


def _leaves(section: Section, prefix: str = "") -> Iterator[tuple[str, Written]]:
    """Paths and values of a section; a value, {values}, {min, max}, {derived} or {when} is a leaf."""
    for name, value in section.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and not value.keys() & (_VARYING | {"when", "value"}):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _selected(
    session: Session,
    store: ColumnStore,
    sweep: Sweep,
    sort: str,
    filters: Filters,
    first: Sequence[str] | None = None,
) -> tuple[Columns, Selection]:
    metrics = MetricNames.of(sweep.document)
    parameters = parameter_names(sweep)
    sort, filters = full_sort(sort, metrics, parameters), filters.named(metrics, parameters)
    names = needed(sweep.objectives, metrics, parameters, sort, filters, first)
    columns = store.of(session, sweep, [*names, cv_name(sweep)])
    return columns, select(columns, sweep.objectives, sort, filters, first)


def _noise_counts(columns: Columns, cv: str) -> NoiseCounts:
    values = columns.named(cv).values
    noisy = values[values > NOISY_CV]
    not_judged = columns.in_state(TrialState.COMPLETE) & (columns.feasible == -1)
    low, high = (float(noisy.min()), float(noisy.max())) if len(noisy) else (None, None)
    return NoiseCounts(int((~np.isnan(values)).sum()), len(noisy), low, high, int(not_judged.sum()))


def _read(session: Session, trial_ids: Sequence[str]) -> list[Trial]:
    """These trials, in this order; one that was deleted meanwhile is left out."""
    found = {trial.id: trial for trial in session.scalars(sa.select(Trial).where(Trial.id.in_(trial_ids)))}
    return [found[trial_id] for trial_id in trial_ids if trial_id in found]
