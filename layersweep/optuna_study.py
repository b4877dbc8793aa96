"""A sweep as an Optuna study in a storage of its own: for `optuna.load_study`, optuna-dashboard and their analyses.

Parameters keep their values and names, every trial has the sweep's number, constraints are Optuna's own (<= 0 is kept),
and what Optuna has no place for (metrics, derived parameters, reasons) is in user attributes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from layersweep.errors import InvalidUsage, MissingDependency
from layersweep.records import Scalar, SweepDetailRecord, TrialRecord
from layersweep.sweep import Sweep

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

SERVICE_TABLE = "sweeps"
"""A database that has it is a service's own: Optuna's tables would clash with those there."""

_OPENING = {"values", "min", "max"}
_UNREADABLE = "is not a storage that Optuna can write to"


def write_study(sweep: Sweep, storage_url: str, *, name: str | None = None) -> optuna.Study:
    """Write all trials of a sweep as a new study; return it.

    `storage_url` is an SQLAlchemy URL (sqlite:///study.db); `name` defaults to the sweep's name and id. Raises
    MissingDependency without optuna, InvalidUsage where the storage cannot be used, is a service's own database, or has
    a study of this name.
    """
    try:
        import optuna
    except ImportError as problem:
        raise MissingDependency(
            "an export needs optuna, which is not installed: pip install 'layersweep[optuna]'"
        ) from problem
    record = sweep.refresh().record
    trials = sorted(sweep.trials(), key=lambda trial: trial["number"])
    study = _create(storage_url, name or f"{record['name']} ({record['id']})", record)
    distributions = _distributions(record, trials)
    study.add_trials([_frozen(optuna, trial, record, distributions) for trial in trials])
    return study


def _create(storage_url: str, name: str, record: SweepDetailRecord) -> optuna.Study:
    import optuna
    import sqlalchemy
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = sqlalchemy.create_engine(storage_url)
        if sqlalchemy.inspect(engine).has_table(SERVICE_TABLE):
            raise InvalidUsage(f"{storage_url} is the database of a service: export to one of its own")
        engine.dispose()
        study = optuna.create_study(
            storage=storage_url,
            study_name=name,
            directions=[objective["goal"] for objective in record["objectives"]],
        )
    except optuna.exceptions.DuplicatedStudyError:
        raise InvalidUsage(f"there is a study {name!r} in {storage_url}: give another name (--name)") from None
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as problem:
        reason = str(problem).splitlines()[0]
        raise InvalidUsage(f"{storage_url} {_UNREADABLE}: {reason}") from problem
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective["metric"] for objective in record["objectives"]])
    for key in ("id", "name", "state", "task", "dataset", "target", "constraints", "document"):
        study.set_user_attr(f"layersweep:{key}", record[key])
    return study


def _frozen(
    optuna: Any, trial: TrialRecord, record: SweepDetailRecord, distributions: Mapping[str, BaseDistribution]
) -> optuna.trial.FrozenTrial:
    states = optuna.trial.TrialState
    state = {
        "complete": states.COMPLETE,
        "infeasible": states.PRUNED,
        "pruned": states.PRUNED,
        "running": states.RUNNING,
        "queued": states.WAITING,
    }.get(trial["state"], states.FAIL)
    values = None
    if trial["state"] == "complete":
        values = [trial["metrics"][objective["metric"]] for objective in record["objectives"]]
    parameters = {
        name: value for name, value in trial["parameters"].items() if name in distributions and value is not None
    }
    frozen = optuna.trial.create_trial(
        state=state,
        values=values,
        params=parameters,
        distributions={name: distributions[name] for name in parameters},
        constraints=trial["violations"] or None,
        user_attrs=_attributes(trial, parameters),
    )
    frozen.datetime_start = _time(trial["started_at"])
    frozen.datetime_complete = _time(trial["ended_at"])
    return frozen


def _attributes(trial: TrialRecord, parameters: Mapping[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {"layersweep:trial": trial["id"], "layersweep:state": trial["state"]}
    for name in ("rank", "feasible", "reason", "reused_from", "started_from"):
        if trial[name] is not None:
            attributes[f"layersweep:{name}"] = trial[name]
    derived = {name: value for name, value in trial["parameters"].items() if name not in parameters}
    return attributes | {name: value for name, value in derived.items() if value is not None} | trial["metrics"]


def _distributions(record: SweepDetailRecord, trials: Sequence[TrialRecord]) -> dict[str, BaseDistribution]:
    """The open parameters' ranges, as the sweep's document writes them."""
    written: dict[str, dict[str, Any]] = {}
    for section in ("model", "training", "inference"):
        _collect(record["document"].get(section) or {}, "" if section == "model" else f"{section}.", written)
    found: dict[str, BaseDistribution] = {}
    for name in record["space"]["open_parameters"]:
        opening = written.get(name) or written.get(_of_any_layer(name))
        if opening is not None:
            tried = [trial["parameters"].get(name) for trial in trials]
            found[name] = _distribution(opening, whole=not any(isinstance(value, float) for value in tried))
    return found


def _collect(section: Mapping[str, Any], prefix: str, found: dict[str, dict[str, Any]]) -> None:
    for name, value in section.items():
        if isinstance(value, dict) and value.keys() & _OPENING:
            found[f"{prefix}{name}"] = value
        elif isinstance(value, dict):
            _collect(value, f"{prefix}{name}.", found)


def _of_any_layer(name: str) -> str:
    """layers.3.mlp.ffn_hidden_size is written once for all layers, as mlp.ffn_hidden_size."""
    parts = name.split(".")
    return ".".join(parts[2:]) if parts[0] == "layers" and len(parts) > 2 else name


def _distribution(opening: Mapping[str, Any], *, whole: bool) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "values" in opening:
        values: list[Scalar] = opening["values"]
        return CategoricalDistribution(values)
    low, high, log = opening["min"], opening["max"], bool(opening.get("log", False))
    step = opening.get("step")
    if whole and isinstance(low, int) and isinstance(high, int) and isinstance(step, int | None):
        # A step past the top would shorten the range; Optuna refuses a step together with log.
        return IntDistribution(low, high, step=1 if log else step or 1, log=log)
    return FloatDistribution(float(low), float(high), log=log, step=None if log else step)


def _time(text: str | None) -> datetime | None:
    """Optuna keeps local time without a zone."""
    return None if text is None else datetime.fromisoformat(text).astimezone().replace(tzinfo=None)
