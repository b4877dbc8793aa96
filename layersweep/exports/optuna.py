"""A sweep as an Optuna study in a storage of its own: for `optuna.load_study`, optuna-dashboard and their analyses.

Parameters keep their values and names, and numbers are ranges, whether the document lists or bounds them. Every trial
has the sweep's number, constraints are Optuna's own (<= 0 is kept), and what Optuna has no place for (metrics, derived
parameters, reasons) is in user attributes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from layersweep.errors import InvalidUsageError, MissingDependencyError
from layersweep.json_values import JsonObject
from layersweep.records.catalog import Opening
from layersweep.records.sweeps import Scalar, SweepDetailRecord, TrialRecord
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
    MissingDependencyError without optuna, InvalidUsageError if the storage cannot be used, is a service's own
    database, or has a study of this name.
    """
    try:
        import optuna
    except ImportError as problem:
        raise MissingDependencyError(
            "an export needs optuna, which is not installed: pip install 'layersweep[optuna]'"
        ) from problem
    record = sweep.refresh().record
    trials = sorted(sweep.trials(), key=lambda trial: trial["number"])
    study = _create(storage_url, name or f"{record['name']} ({record['id']})", record)
    distributions = _distributions(record, trials)
    frozen = [_frozen(optuna, trial, record, distributions) for trial in trials]
    with _told(storage_url):
        study.add_trials(frozen)
    return study


def _create(storage_url: str, name: str, record: SweepDetailRecord) -> optuna.Study:
    import optuna
    import sqlalchemy

    with _told(storage_url):
        engine = sqlalchemy.create_engine(storage_url)
        if sqlalchemy.inspect(engine).has_table(SERVICE_TABLE):
            raise InvalidUsageError(f"{storage_url} is the database of a service: export to one of its own")
        engine.dispose()
        try:
            study = optuna.create_study(
                storage=storage_url,
                study_name=name,
                directions=[objective["goal"] for objective in record["objectives"]],
            )
        except optuna.exceptions.DuplicatedStudyError:
            raise InvalidUsageError(f"there is a study {name!r} in {storage_url}: give another name (--name)") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective["metric"] for objective in record["objectives"]])
    for key in ("id", "name", "state", "task", "dataset", "target", "constraints", "document"):
        study.set_user_attr(f"layersweep:{key}", record[key])
    return study


@contextmanager
def _told(storage_url: str) -> Generator[None]:
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as problem:
        reason = str(problem).splitlines()[0]
        raise InvalidUsageError(f"{storage_url} {_UNREADABLE}: {reason}") from problem


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
    if state != states.WAITING:
        # What was answered from an earlier measurement, or cancelled in the queue, ended without having begun.
        frozen.datetime_start = _time(trial["started_at"] or trial["ended_at"] or record["created_at"])
    if state.is_finished():
        frozen.datetime_complete = _time(trial["ended_at"] or record["ended_at"] or record["created_at"])
    return frozen


def _attributes(trial: TrialRecord, parameters: Mapping[str, Scalar]) -> dict[str, Scalar]:
    attributes: dict[str, Scalar] = {"layersweep:trial": trial["id"], "layersweep:state": trial["state"]}
    for name in ("rank", "feasible", "reason", "reused_from", "started_from"):
        if (value := trial[name]) is not None:
            attributes[f"layersweep:{name}"] = value
    derived = {name: value for name, value in trial["parameters"].items() if name not in parameters}
    return attributes | {name: value for name, value in derived.items() if value is not None} | trial["metrics"]


def _distributions(record: SweepDetailRecord, trials: Sequence[TrialRecord]) -> dict[str, BaseDistribution]:
    """The open parameters' ranges, as the sweep's document writes them."""
    written: dict[str, Opening] = {}
    for section in ("variables", "model", "training", "inference"):
        _collect(record["document"].get(section) or {}, "" if section == "model" else f"{section}.", written)
    found: dict[str, BaseDistribution] = {}
    for name in record["space"]["open_parameters"]:
        opening = written.get(name) or written.get(_of_any_layer(name))
        if opening is not None:
            tried = [trial["parameters"].get(name) for trial in trials]
            found[name] = distribution(opening, whole=not any(isinstance(value, float) for value in tried))
    return found


def _collect(section: JsonObject, prefix: str, found: dict[str, Opening]) -> None:
    for name, value in section.items():
        if isinstance(value, dict) and value.keys() & _OPENING:
            found[f"{prefix}{name}"] = cast("Opening", value)
        elif isinstance(value, dict):
            _collect(value, f"{prefix}{name}.", found)


def _of_any_layer(name: str) -> str:
    """layers.3.mlp.ffn_hidden_size is written once for all layers, as mlp.ffn_hidden_size."""
    parts = name.split(".")
    return ".".join(parts[2:]) if parts[0] == "layers" and len(parts) > 2 else name


def distribution(opening: Opening, *, whole: bool) -> BaseDistribution:
    """What Optuna calls a parameter's range or values. `whole`: none of its trials has a fraction."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if "values" in opening:
        values = opening["values"]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if not numbers or len(numbers) < len(values):
            return CategoricalDistribution(values)
        return _range_of(sorted(set(numbers)), whole=whole)
    low, high, log = opening["min"], opening["max"], bool(opening.get("log", False))
    step = opening.get("step")
    if whole and isinstance(low, int) and isinstance(high, int) and isinstance(step, int | None):
        # A step past the top would shorten the range; Optuna refuses a step together with log.
        return IntDistribution(low, high, step=1 if log else step or 1, log=log)
    return FloatDistribution(float(low), float(high), log=log, step=None if log else step)


def _range_of(numbers: Sequence[float], *, whole: bool) -> BaseDistribution:
    """A range with these numbers in it: Optuna takes a choice among them for one among words, without an order.

    Its scale is the one on which they lie more evenly: 32, 64, 128 on that of logarithms.
    """
    from optuna.distributions import FloatDistribution, IntDistribution

    low, high = numbers[0], numbers[-1]
    log = low > 0 and _unevenness([math.log(number) for number in numbers]) < _unevenness(numbers)
    if whole and all(isinstance(number, int) for number in numbers):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _unevenness(numbers: Sequence[float]) -> float:
    """How much wider the widest gap between numbers is than the narrowest; 1 if they lie evenly."""
    gaps = [after - before for before, after in pairwise(numbers)]
    return max(gaps) / min(gaps) if gaps else 1.0


def _time(text: str | None) -> datetime | None:
    """Optuna keeps local time without a zone."""
    return None if text is None else datetime.fromisoformat(text).astimezone().replace(tzinfo=None)
