"""A sweep as an experiment of MLflow: a run for each trial that has ended."""

from __future__ import annotations

from typing import Any

from layersweep.errors import InvalidUsageError
from layersweep.exports.runs import FinishedRun, finished_runs, needed
from layersweep.sweep import Sweep

MOST_PARAMETERS = 100
"""That MLflow takes in one request."""

UNFINISHED = "RUNNING"
"""The status of a run that was begun and not ended."""

STATUSES = {"failed": "FAILED", "cancelled": "KILLED"}


def write_experiment(sweep: Sweep, tracking_uri: str | None, *, name: str | None = None) -> int:
    """Write the trials that have ended as runs of an experiment; how many are new there.

    `tracking_uri` is a tracking server or a database (None: MLFLOW_TRACKING_URI), `name` the experiment's (default:
    the sweep's). A trial that is there already is left as it is, so an export may be repeated while a sweep goes on;
    the run at which one broke off is finished.
    Metrics of a shape are named latency_ms_p50/chat: MLflow has no @. Raises MissingDependencyError without mlflow,
    InvalidUsageError if MLflow refuses.
    """
    mlflow = needed("mlflow", "mlflow")
    try:
        client = mlflow.MlflowClient(tracking_uri=tracking_uri)
        experiment = _experiment(client, name or sweep.name)
        known = _known(client, experiment, sweep.id)
        written = 0
        for run in finished_runs(sweep):
            info = known.get(run.trial["id"])
            if info is None:
                info = _begin(client, experiment, run)
            elif info.status != UNFINISHED:
                continue
            _write(client, mlflow.entities, info.run_id, run)
            written += 1
    except (mlflow.exceptions.MlflowException, ImportError, OSError) as problem:
        message = str(problem).partition("\n")[0]
        raise InvalidUsageError(
            f"MLflow cannot write to {tracking_uri or 'its tracking server'}: {message}"
        ) from problem
    return written


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _known(client: Any, experiment: str, sweep: str) -> dict[str, Any]:
    """The trials of the sweep that have a run -> what MLflow says of it."""
    known: dict[str, Any] = {}
    token: str | None = None
    while True:
        page = client.search_runs([experiment], f"tags.`layersweep.sweep` = '{sweep}'", page_token=token)
        known |= {run.data.tags.get("layersweep.trial", ""): run.info for run in page}
        token = page.token
        if not token:
            return known


def _begin(client: Any, experiment: str, run: FinishedRun) -> Any:
    return client.create_run(experiment, start_time=run.started_ms, tags=run.tags, run_name=run.name).info


def _write(client: Any, entities: Any, run_id: str, run: FinishedRun) -> None:
    parameters = [entities.Param(name, str(value)) for name, value in run.parameters.items()]
    for first in range(0, len(parameters), MOST_PARAMETERS):
        client.log_batch(run_id, params=parameters[first : first + MOST_PARAMETERS])
    metrics = {name.replace("@", "/"): value for name, value in run.metrics.items()}
    client.log_batch(run_id, metrics=[entities.Metric(name, value, run.ended_ms, 0) for name, value in metrics.items()])
    client.set_terminated(run_id, STATUSES.get(run.trial["state"], "FINISHED"), run.ended_ms)
