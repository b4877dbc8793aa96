"""Sweeps in MLflow and in Weights & Biases."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from layersweep import Client, InvalidUsageError, MissingDependencyError, Sweep
from layersweep.cli import app
from layersweep.exports.mlflow import write_experiment
from layersweep.exports.runs import finished_runs
from layersweep.exports.wandb import write_runs
from tests.layersweep.finisher import Finisher


@pytest.fixture
def sweep(client: Client, document: Path, finisher: Finisher) -> Sweep:
    finisher.start()
    return client.submit(document).wait(60)


def test_a_run_holds_what_a_trial_is(client: Client, sweep: Sweep) -> None:
    runs = list(finished_runs(sweep))
    assert [run.name for run in runs] == [f"small/{number}" for number in range(6)]
    for run, trial in zip(runs, sweep.trials(), strict=True):
        assert run.parameters == trial["parameters"]
        assert run.metrics == trial["metrics"]
        assert run.tags["layersweep.trial"] == trial["id"]
        assert run.tags["layersweep.on_front"] == str(trial["on_front"])
        assert run.started_ms <= run.ended_ms

    def told(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["sweep", "export", sweep.id, *arguments, "--server", client.server])
        assert result.exit_code == 2, result.output
        return result.output

    assert "--to mlflow" in told()
    assert "--to mlflow" in told("all.csv", "--to", "wandb")
    assert "--project NAME" in told("--to", "wandb")


def test_a_library_that_is_missing_is_named(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"layersweep\[mlflow\]"):
        write_experiment(sweep, "sqlite://")
    with pytest.raises(MissingDependencyError, match=r"layersweep\[wandb\]"):
        write_runs(sweep, "layers")


class TrackingServer(list[SimpleNamespace]):
    """Stands in for the library: its runs, and how many more requests it answers before it is away."""

    requests_left = 1_000

    def __init__(self) -> None:
        super().__init__()
        self.exceptions = SimpleNamespace(MlflowException=ConnectionError)
        self.entities = SimpleNamespace(Param=lambda *given: given, Metric=lambda *given: given)
        self.token = None

    def MlflowClient(self, tracking_uri: str) -> TrackingServer:  # noqa: N802 - the library's own name
        return self

    def get_experiment_by_name(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(experiment_id="1")

    def search_runs(self, experiments: list[str], query: str, page_token: str | None) -> TrackingServer:
        return self

    def create_run(self, experiment: str, *, tags: dict[str, str], **facts: object) -> SimpleNamespace:
        info = SimpleNamespace(run_id=str(len(self)), status="RUNNING")
        self.append(SimpleNamespace(info=info, data=SimpleNamespace(tags=tags)))
        return self[-1]

    def log_batch(self, run_id: str, **logged: object) -> None:
        self.requests_left -= 1
        if self.requests_left < 0:
            raise ConnectionError("the tracking server is away")

    def set_terminated(self, run_id: str, status: str, ended_ms: int) -> None:
        self[int(run_id)].info.status = status


def test_the_run_at_which_an_export_broke_off_is_finished_by_the_next(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = TrackingServer()
    monkeypatch.setitem(sys.modules, "mlflow", server)
    server.requests_left = 3
    with pytest.raises(InvalidUsageError, match="the tracking server is away"):
        write_experiment(sweep, "http://tracking.test")
    assert [run.info.status for run in server] == ["FINISHED", "RUNNING"]
    server.requests_left = 1_000
    assert write_experiment(sweep, "http://tracking.test") == 5
    assert write_experiment(sweep, "http://tracking.test") == 0
    assert [run.info.status for run in server] == ["FINISHED"] * 6


@pytest.mark.slow
def test_an_experiment_of_mlflow_has_each_trial_once(sweep: Sweep, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert write_experiment(sweep, uri, name="layers") == 6
    assert write_experiment(sweep, uri, name="layers") == 0
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("layers").experiment_id])
    trials = {trial["id"]: trial for trial in sweep.trials()}
    assert {run.data.tags["layersweep.trial"] for run in runs} == trials.keys()
    for run in runs:
        trial = trials[run.data.tags["layersweep.trial"]]
        assert run.data.metrics == trial["metrics"]
        assert run.data.params == {name: str(value) for name, value in trial["parameters"].items()}


@pytest.mark.slow
def test_runs_of_wandb_are_written_without_a_network(sweep: Sweep, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    assert write_runs(sweep, "layers", offline=True, folder=tmp_path) == 6
    found = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert {name.rpartition("-")[2] for name in found} == {trial["id"] for trial in sweep.trials()}
