"""A sweep as an Optuna study: what Optuna itself makes of it."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import yaml

from layersweep import Client, InvalidUsage
from layersweep.optuna_study import write_study
from tests.layersweep.conftest import Finisher


def test_a_study_shows_the_same_front_constraints_and_attributes(
    client: Client, document: Path, finisher: Finisher, tmp_path: Path
) -> None:
    finisher.start()
    written = yaml.safe_load(document.read_text())
    written["model"]["mlp"]["ffn_hidden_size"] = {"derived": "2 * hidden_size"}
    written["training"]["learning_rate"] = {"min": 1e-4, "max": 1e-2, "log": True}
    written["model"]["num_layers"] = {"min": 1, "max": 3}
    written["constraints"] = ["validation_loss <= 2.8"]
    written["budget"]["trials"] = 12
    sweep = client.submit(written).wait(60)
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    write_study(sweep, storage, name="mine")

    study = optuna.load_study(study_name="mine", storage=storage)
    front = {row["number"] for row in sweep.front()}
    assert 0 < len(front) < 12
    assert {trial.number for trial in study.best_trials} == front
    assert study.metric_names == ["latency_ms_p50", "validation_loss"]
    rows = {row["number"]: row for row in sweep.trials()}
    assert [trial.number for trial in study.trials] == sorted(rows)
    for trial in study.trials:
        row = rows[trial.number]
        assert trial.values == [row["metrics"]["latency_ms_p50"], row["metrics"]["validation_loss"]]
        assert trial.params.keys() == set(sweep.record["space"]["open_parameters"])
        assert all(row["parameters"][name] == value for name, value in trial.params.items())
        assert trial.user_attrs["layersweep:trial"] == row["id"]
        assert trial.user_attrs["mlp.ffn_hidden_size"] == row["parameters"]["mlp.ffn_hidden_size"]
        assert trial.user_attrs["parameter_count"] == row["metrics"]["parameter_count"]
        assert (max(trial.constraints.values()) <= 0) == row["feasible"]
    distribution = study.trials[0].distributions["training.learning_rate"]
    assert (distribution.low, distribution.high, distribution.log) == (1e-4, 1e-2, True)

    with pytest.raises(InvalidUsage, match="give another name"):
        write_study(sweep, storage, name="mine")


def test_a_storage_that_will_not_do_is_told(client: Client, document: Path, finisher: Finisher, tmp_path: Path) -> None:
    sweep = client.submit(document)
    for url in ("nonsense", "sqlite:////no/such/folder/study.db"):
        with pytest.raises(InvalidUsage, match="is not a storage that Optuna can write to"):
            write_study(sweep, url)
    own = next(tmp_path.rglob("*.db"))
    with pytest.raises(InvalidUsage, match="the database of a service"):
        write_study(sweep, f"sqlite:///{own}")
