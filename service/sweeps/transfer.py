"""What a sweep starts from: complete trials of earlier sweeps of its project, on the same task, data and target.

They are chosen when the sweep gets its target, and kept with it by value: what becomes of the earlier sweeps afterwards
changes nothing, and a study that is rebuilt finds the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.declarations import per_layer
from layers.parameter import Scalar
from layers.results_version import UNSAID
from layers.space.document import PointError, Rejection, Space, SweepDocument
from layers.space.evaluation import evaluate_entry, is_active
from service.common.states import TrialState
from service.database.json_columns import RegisteredTarget, TransferFacts
from service.database.models import IS_SEARCH, Dataset, EarlierTrial, Sweep, Trial
from service.leases.feasibility import judge, named_values
from service.leases.workers import results_version_of

MOST_TRIALS = 500
"""The newest ones are taken. A model of more takes longer to fit and foretells hardly more."""

_LOOKED_AT = 4 * MOST_TRIALS
"""Of the newest trials so many are looked at: some lack metrics, are repetitions, or of another shape."""

_DRAWS = 100


def choose(session: Session, sweep_id: str, document: SweepDocument, target: RegisteredTarget) -> list[EarlierTrial]:
    """What the sweep would start from on this target: rows to be kept. Only reads."""
    sweep = session.get_one(Sweep, sweep_id)
    metrics = [objective["metric"] for objective in document.objectives]
    constraints = [constraint.text for constraint in document.constraints]
    shape = _measured_shape(document.space)
    shapes = [each.document() for each in document.space.shapes]
    seen: set[str] = set()
    rows: list[EarlierTrial] = []
    for trial, earlier in _candidates(session, sweep, target):
        inference = trial.configuration["inference"]
        is_comparable = trial.configuration.get("shapes", []) == shapes and all(
            inference.get(name) == value for name, value in shape.items()
        )
        if trial.reuse_key in seen or not is_comparable or not trial.metrics.keys() >= set(metrics):
            continue
        seen.add(trial.reuse_key)
        rows.append(
            EarlierTrial(
                sweep_id=sweep_id,
                position=len(rows),
                from_sweep=earlier,
                from_trial=trial.id,
                parameters=_parameters(trial, document.space),
                metrics={name: trial.metrics[name] for name in metrics},
                violations=_taught(constraints, trial),
            )
        )
        if len(rows) == MOST_TRIALS:
            break
    return rows


def _taught(constraints: Sequence[str], trial: Trial) -> dict[str, float]:
    """What a sampler is told of the trial under this sweep's constraints."""
    figures = {} if trial.noise is None else trial.noise["figures"]
    return judge(constraints, trial.configuration, trial.metrics, figures).taught


def keep(session: Session, sweep_id: str, rows: Sequence[EarlierTrial]) -> None:
    """Let the sweep start from these rows, whatever becomes of the sweeps that they are of."""
    session.add_all(rows)
    sources = list(dict.fromkeys(row.from_sweep for row in rows))
    facts: TransferFacts = {"trials": len(rows), "sweeps": sources}
    session.execute(
        sa.update(Sweep).where(Sweep.id == sweep_id).values(transfer=facts),
        execution_options={"synchronize_session": False},
    )


def earlier_trials(session: Session, sweep_id: str) -> list[EarlierTrial]:
    """What the sweep starts from, the newest trial first."""
    query = sa.select(EarlierTrial).where(EarlierTrial.sweep_id == sweep_id).order_by(EarlierTrial.position)
    return list(session.scalars(query))


def _candidates(session: Session, sweep: Sweep, target: RegisteredTarget) -> Iterator[tuple[Trial, str]]:
    """Complete trials with the sweeps that they are of, the newest first, whose results are those of this target."""
    same_data = sa.true() if sweep.dataset_id is None else Dataset.sha256 == _sha256(session, sweep.dataset_id)
    version = sa.func.coalesce(Sweep.results_version, UNSAID)
    found = session.execute(
        sa.select(Trial, Sweep.id)
        .join(Sweep, Sweep.id == Trial.sweep_id)
        .join(Dataset, Dataset.id == Sweep.dataset_id, isouter=True)
        .where(
            IS_SEARCH,
            Sweep.project == sweep.project,
            Sweep.task == sweep.task,
            same_data,
            Sweep.id != sweep.id,
            Sweep.target_key == target["key"],
            version == results_version_of(target),
            Trial.state == TrialState.COMPLETE,
            Trial.replicate_of.is_(None),
        )
        .order_by(Trial.id.desc())
        .limit(_LOOKED_AT)
    )
    yield from found.tuples()


def _sha256(session: Session, dataset_id: str) -> str:
    return session.get_one(Dataset, dataset_id).sha256


def _measured_shape(space: Space) -> dict[str, Scalar]:
    """What of `inference` is the same at all points of the space: latencies of other shapes are other quantities."""
    given = {entry.name for entry in space.entries if entry.opening is not None or entry.derived is not None}
    source = random.Random(0)
    for _ in range(_DRAWS):
        try:
            completed = space.complete_or_reject(space.resolve(space.sample(source)))
        except PointError:
            continue
        if not isinstance(completed, Rejection):
            return {name: value for name, value in completed.inference.items() if f"inference.{name}" not in given}
    return {}


def _parameters(trial: Trial, space: Space) -> dict[str, Scalar]:
    """The trial's values of the open parameters that such a point has here, as far as it has them: open, derived or
    fixed there."""
    values: dict[str, Scalar] = {**trial.parameters, **named_values(trial.configuration, {})}
    model = trial.configuration["model"]
    own = per_layer.spelt_out(model) if "num_layers" in model else {}
    environment = space.environment()
    found: dict[str, Scalar] = {}
    for entry in space.entries:
        with suppress(PointError):
            if not is_active(entry, environment):
                continue
            if entry.opening is None:
                evaluate_entry(entry, environment)
                continue
            value = values.get(entry.name, own.get(entry.name))
            value = _of_all_layers(entry.name, own) if value is None else value
            if value is not None:
                found[entry.name] = environment[entry.name] = value
    return found


def _of_all_layers(name: str, own: Mapping[str, Scalar]) -> Scalar | None:
    """The value that all layers have of a block's parameter; None if they differ."""
    values = {value for path, value in own.items() if per_layer.base_path(path) == name}
    return values.pop() if len(values) == 1 else None
