"""The page of one sweep, in parts: each is asked for again by itself when something happened to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from layers.expressions.names import DECLARED
from layers.expressions.summary_metrics import deciding_metrics
from layers.metrics import Goal, is_metric
from layers.metrics import metric as declaration_of
from layersweep.display import units
from layersweep.display.leaderboards import short_names
from service.common import formatting
from service.common.states import ENDED_SWEEPS, GOING_SWEEPS, SweepKind, SweepState, TrialState
from service.confirmation import confirmations
from service.confirmation import results as confirmation_results
from service.confirmation.schemas import Confirmation as ConfirmationRecord
from service.database.models import (
    Artifact,
    Attempt,
    Confirmation,
    Dataset,
    Sweep,
    Trial,
    Worker,
)
from service.database.sessions import now
from service.events.end_codes import end_code
from service.events.schemas import EndCode
from service.fleet import queue_by_needs
from service.leases.phases import PROBE
from service.operations import artifacts, transformers_export
from service.pruning.schemas import Pruning
from service.pruning.summary import summary_of
from service.recommendation import further_trainings
from service.recommendation.choice import goals_of
from service.recommendation.schemas import Recommendation, SmallerTrial
from service.results import constraints as constraint_results
from service.results import leaderboards
from service.results import schemas as result_schemas
from service.results.axes import LOG_RATIO, NICE_STEPS
from service.results.charts import Segment
from service.results.columns import ColumnStore, metric_names
from service.results.plot_selection import TRIAL_NUMBER, full_axes, metrics_of
from service.sweeps.progress import ProgressRate, progress_rate
from service.sweeps.schemas import BestTrial, SparedBuilds, SweepWait
from service.sweeps.spared_builds import spared_builds_of
from service.web.views.common import dataset_of, ended_trials, phases_ahead, progress_bar, target_words
from service.web.views.query import BoardColumn, SweepQuery
from service.web.views.shown_sweep import ShownSweep
from service.web.views.what_if import WhatIf

PAGE_ROWS = 50
FEWEST_FOR_EFFECTS = 8
"""Feasible trials."""
MOST_COLUMNS = 13
"""Beside the trial's own: what fits a leaderboard 1,200 pixels wide."""
_COLUMNS_OF_SHARED = ("total_memory_bytes", "device_ms_per_token")
"""Beside the usual ones if devices share some of the models: what that costs."""


@dataclass(frozen=True, slots=True)
class RunningTrial:
    trial: Trial
    worker: str | None
    """Its name."""
    phases: list[str]
    """Those that have begun."""
    order: Sequence[str]
    """All of its phases, in the order in which they come."""
    seconds: float | None
    """How long the last of them goes on."""
    measured: dict[str, float]
    """What of the sweep's objectives and constraints was measured before the training."""


@dataclass(frozen=True, slots=True)
class LivePart:
    """State, progress, and the trials that run now."""

    now: float
    sweep: Sweep
    dataset: Dataset | None
    target: str | None
    bar: list[Segment]
    ended_trials: int
    ended: bool
    progress_rate: ProgressRate | None
    running: list[RunningTrial]
    waiting: SweepWait | None
    """Why no worker takes its trials."""
    end_code: EndCode | None
    extends: list[str]
    """What can be added to the budget."""
    pruning: Pruning
    spared_builds: SparedBuilds | None


@dataclass(frozen=True, slots=True)
class ResultsPart:
    """The sweep's objectives, the best of each so far, and the recommended trial."""

    sweep: Sweep
    ended: bool
    constraints: list[str]
    best: Mapping[str, BestTrial]
    goals: Mapping[str, Goal]
    summary_metrics: Sequence[str]
    """What is shown of the recommended trial."""
    recommended: Recommendation | None
    smaller: SmallerTrial | None
    unconfirmed_smaller: str | None
    infeasible: Sequence[str]
    """Which constraints the trials broke and what limits they would keep, while none is feasible."""
    artifacts: Sequence[Artifact]
    transformers_architecture: str | None
    """Under which the recommended trial's model can leave."""
    confirmation: ConfirmationRecord | None
    recommended_is_confirmed: bool
    """By this confirmation or one before it, or about to be by this one."""
    confirmable: bool
    confirms: str | None
    """The sweep that this one confirms."""
    what_if: WhatIf | None


@dataclass(frozen=True, slots=True)
class BoardPart:
    """One page of the leaderboard, with the columns to choose from."""

    now: float
    sweep: Sweep
    query: SweepQuery
    board: result_schemas.Leaderboard
    columns: list[BoardColumn]
    offered: Mapping[str, Sequence[str]]
    """Columns to choose from, by what they are."""
    states: Sequence[str]
    recommended_trial: str | None


@dataclass(frozen=True, slots=True)
class PicturesPart:
    """What the pictures can show, and which of it they do show. Their data comes over the API."""

    sweep: Sweep
    query: SweepQuery
    ended: bool
    axes: list[str]
    x: str
    y: str
    usual_x: str
    usual_y: str
    picture: str
    usual_picture: str
    effect_metric: str
    parallel_axes: list[str]
    metrics: list[str]
    picture_facts: str
    """JSON for the script."""


def whole(shown: ShownSweep, store: ColumnStore) -> tuple[LivePart, ResultsPart, BoardPart, PicturesPart]:
    """Everything that the page shows before its pictures are drawn."""
    return live(shown), results(shown), board(shown, store), pictures(shown)


def live(shown: ShownSweep) -> LivePart:
    session, row = shown.session, shown.row
    return LivePart(
        now=now(session),
        sweep=row,
        dataset=dataset_of(session, row),
        target=target_words(row),
        bar=progress_bar(row),
        ended_trials=ended_trials(row),
        ended=row.state in ENDED_SWEEPS,
        progress_rate=progress_rate(session, row),
        running=_running(session, row),
        waiting=queue_by_needs.wait_of(session, row, shown.alive_seconds),
        end_code=end_code(row, feasible=bool(shown.best)),
        extends=_extends(row),
        pruning=summary_of(session, row),
        spared_builds=spared_builds_of(session, row),
    )


def results(shown: ShownSweep) -> ResultsPart:
    session, row = shown.session, shown.row
    decided = shown.decided
    chosen = shown.recommended_trial
    confirmation = further_trainings.current(session, row.id, chosen)
    kept = [] if chosen is None else artifacts.of_trial(session, chosen)
    return ResultsPart(
        sweep=row,
        ended=row.state in ENDED_SWEEPS,
        constraints=list(row.document.get("constraints", [])),
        best=shown.best,
        goals=goals_of(row),
        summary_metrics=leaderboards.summary_of(row),
        recommended=None if decided is None else decided.answer(),
        smaller=None if decided is None else decided.smaller_in_words(),
        unconfirmed_smaller=None if decided is None else decided.unconfirmed_in_words(),
        infeasible=[] if decided else constraint_results.summary(session, row).says,
        artifacts=kept,
        transformers_architecture=None if chosen is None else transformers_export.offered(session, chosen, kept),
        confirmation=(None if confirmation is None else confirmation_results.to_schema(session, confirmation, chosen)),
        recommended_is_confirmed=(
            confirmation is not None
            and chosen is not None
            and (chosen in confirmation.candidates or further_trainings.is_confirmed(session, row.id, chosen))
        ),
        confirmable=confirmations.is_confirmable(session, row),
        what_if=shown.what_if,
        confirms=session.scalar(select(Confirmation.confirms).where(Confirmation.sweep_id == row.id)),
    )


def board(shown: ShownSweep, store: ColumnStore) -> BoardPart:
    session, row, query = shown.session, shown.row, shown.query
    page = leaderboards.page(
        session,
        store,
        row,
        sort=query.sort,
        filters=query.filters,
        size=PAGE_ROWS,
        token=query.page_token,
        first=shown.rule_order,
    )
    present = metric_names(session, row)
    parameters = leaderboards.parameter_names(row)
    chosen = _chosen_columns(row, query, present, parameters)
    if query.differing:
        key = metrics_of(row).known(query.sort.removeprefix("-"))
        chosen = [name for name in chosen if name == key or _differs(page.items, name)]
    short = short_names(parameters)
    return BoardPart(
        now=now(session),
        sweep=row,
        query=query,
        board=page,
        columns=[_column(row, query, name, short) for name in chosen],
        offered={"metrics": present, "parameters": parameters},
        states=tuple(TrialState),
        recommended_trial=shown.recommended_trial,
    )


def pictures(shown: ShownSweep) -> PicturesPart:
    session, row, query = shown.session, shown.row, shown.query
    objectives = [each["metric"] for each in row.objectives]
    metrics = list(dict.fromkeys([*objectives, *metric_names(session, row)]))
    parameters = leaderboards.parameter_names(row)
    usual_x = objectives[0] if len(objectives) > 1 else TRIAL_NUMBER
    x, y = query.x or usual_x, query.y or objectives[-1]
    x, y = full_axes(row, x, y)
    names = [TRIAL_NUMBER, *dict.fromkeys([*metrics, *(each for each in (x, y) if each != TRIAL_NUMBER), *parameters])]
    log = leaderboards.log_parameters(row)
    facts = {name: {**_facts(row, name), "log": name in log} for name in names}
    usual_picture = _usual_picture(session, row)
    return PicturesPart(
        sweep=row,
        query=query,
        ended=row.state in ENDED_SWEEPS,
        axes=list(dict.fromkeys([TRIAL_NUMBER, *metrics, x, y])),
        x=x,
        y=y,
        usual_x=usual_x,
        usual_y=objectives[-1],
        picture=query.picture or usual_picture,
        usual_picture=usual_picture,
        effect_metric=wanted if (wanted := metrics_of(row).known(query.metric or "")) in metrics else objectives[-1],
        parallel_axes=[*row.space.get("open_parameters", []), *objectives],
        metrics=metrics,
        picture_facts=json.dumps(
            {
                "names": facts,
                "axes": {"log_ratio": LOG_RATIO, "nice_steps": NICE_STEPS},
                "objectives": row.objectives,
                "parameters": parameters,
            }
        ),
    )


def _usual_picture(session: Session, row: Sweep) -> str:
    """The picture that shows something: effects once there are trials to compare; until then each trial's values."""
    ranked = select(Trial.id).where(Trial.sweep_id == row.id, Trial.pareto_rank.is_not(None)).limit(FEWEST_FOR_EFFECTS)
    return "effects" if len(session.scalars(ranked).all()) == FEWEST_FOR_EFFECTS else "parallel"


def _facts(row: Sweep, name: str) -> dict[str, object]:
    goals = {each["metric"]: each["goal"] for each in row.objectives}
    goal = goals.get(name) or (declaration_of(name).goal if is_metric(name) else "")
    label = formatting.label(name) if is_metric(name) or name == TRIAL_NUMBER else name
    unit, scale = (units.unit(name), units.scale(name)) if is_metric(name) else ("", units.PLAIN)
    return {"label": label, "unit": unit, "scale": scale, "goal": goal}


def _extends(row: Sweep) -> list[str]:
    """What can be added to the budget so that something comes of it."""
    limit, device_limit = row.budget.get("wall_seconds"), row.budget.get("device_seconds")
    if row.state in GOING_SWEEPS:
        limited = {"wall_seconds": limit, "device_seconds": device_limit}
        return ["trials", *(name for name, most in limited.items() if most is not None)]
    if row.state == SweepState.CANCELLED or row.kind is SweepKind.CONFIRMATION:
        return []
    failed, cut_off = row.counts.get(TrialState.FAILED, 0), row.counts.get(TrialState.CANCELLED, 0)
    if row.reason == "space_exhausted" and not (failed or cut_off):
        return []
    time_is_over = limit is not None and row.ended_at is not None and row.ended_at >= (row.started_at or 0) + limit
    device_is_used_up = device_limit is not None and row.device_seconds >= device_limit
    is_over = time_is_over or device_is_used_up
    lifts = ["failures"] if failed >= row.budget["failures"] else [] if is_over else ["trials"]
    over = {"wall_seconds": time_is_over, "device_seconds": device_is_used_up}
    return [*lifts, *(name for name, is_used_up in over.items() if is_used_up)]


def _chosen_columns(row: Sweep, query: SweepQuery, present: Sequence[str], parameters: Sequence[str]) -> list[str]:
    """Those asked for; else objectives, what the sweep varies and what else a summary shows, as many as fit a screen.
    What the rows are sorted by is always among them."""
    known = metrics_of(row)
    key = known.known(query.sort.removeprefix("-"))
    sorted_by = [key] if is_metric(key) or key in parameters else []
    if query.column:
        chosen = [known.known(name) for name in query.column if name in known or name in parameters]
        return list(dict.fromkeys([*chosen, *sorted_by]))
    objectives = [each["metric"] for each in row.objectives]
    swept = [name for name in row.space.get("open_parameters", []) if name in parameters]
    shared = _COLUMNS_OF_SHARED if "tp_size" in parameters else ()
    usual = [*leaderboards.summary_of(row), *map(known.resolve, shared)]
    found = dict.fromkeys([*objectives, *swept, *(name for name in usual if name in present)])
    # What is derived follows from the others: it is offered, and stands in the hint of each trial.
    return list(dict.fromkeys([*list(found)[: max(MOST_COLUMNS, len(objectives))], *sorted_by]))


def _differs(rows: Sequence[result_schemas.LeaderboardRow], name: str) -> bool:
    return len({row.metrics.get(name) if is_metric(name) else row.parameters.get(name) for row in rows}) > 1


def _column(row: Sweep, query: SweepQuery, name: str, short: Mapping[str, str]) -> BoardColumn:
    objectives: dict[str, Goal] = {each["metric"]: each["goal"] for each in row.objectives}
    goal = objectives.get(name, declaration_of(name).goal if is_metric(name) else "minimize")
    first, second = (f"-{name}", name) if goal == "maximize" else (name, f"-{name}")
    meaning = formatting.meaning(name) or (DECLARED[name].meaning.split("; ")[0] if name in DECLARED else "")
    return BoardColumn(
        name,
        formatting.label(name) if is_metric(name) else short[name],
        f"{name}: {meaning}" if meaning else name,
        "metric" if is_metric(name) else "parameter",
        name in objectives,
        second if query.sort == first else first,
        {name: "ascending", f"-{name}": "descending"}.get(query.sort),  # pyright: ignore[reportArgumentType]
    )


def _running(session: Session, row: Sweep) -> list[RunningTrial]:
    """The trials that are being executed, with the phase that each is in and for how long."""
    query = (
        select(Trial, Attempt.phases, Attempt.early_metrics, Worker.name)
        .outerjoin(Attempt, and_(Attempt.trial_id == Trial.id, Attempt.attempt == Trial.attempt))
        .outerjoin(Worker, Worker.id == Trial.worker_id)
        .where(Trial.sweep_id == row.id, Trial.state == TrialState.RUNNING)
        .order_by(Trial.number)
        .limit(16)
    )
    time, deciding = now(session), deciding_metrics(list(goals_of(row)), row.document)
    return [
        RunningTrial(
            trial=running,
            worker=worker,
            phases=(entered := [phase["phase"] for phase in phases or []]),
            order=PROBE
            if row.task == "probe"
            else phases_ahead(row, entered, is_predicted=running.predicted is not None),
            seconds=max(0.0, time - phases[-1]["started_at"]) if phases else None,
            measured={name: early[name] for name in deciding if name in early} if early else {},
        )
        for running, phases, early, worker in session.execute(query)
    ]
