"""A sweep as an Optuna study: what Optuna itself makes of it."""

from __future__ import annotations

import math
import random
import warnings
from pathlib import Path
from typing import Any, cast

import httpx2
import optuna
import pytest
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from layersweep import Client, InvalidUsageError, Sweep
from layersweep.exports import optuna as optuna_export
from layersweep.exports.optuna import write_study
from layersweep.records.sweeps import SweepDetailRecord
from tests.layersweep.answers import page, row, scripted, sweep_record
from tests.layersweep.finisher import Finisher


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
    assert distribution == FloatDistribution(1e-4, 1e-2, log=True)

    with pytest.raises(InvalidUsageError, match="give another name"):
        write_study(sweep, storage, name="mine")


def test_a_storage_that_will_not_do_is_told(client: Client, document: Path, sqlite_url: str) -> None:
    sweep = client.submit(document)
    for url in ("nonsense", "sqlite:////no/such/folder/study.db"):
        with pytest.raises(InvalidUsageError, match="is not a storage that Optuna can write to"):
            write_study(sweep, url)
    with pytest.raises(InvalidUsageError, match="the database of a service"):
        write_study(sweep, sqlite_url)


VALUES: list[tuple[list[Any], BaseDistribution]] = [
    ([16, 24, 32, 48, 64, 96], IntDistribution(16, 96, log=True)),
    ([2, 4, 6, 8], IntDistribution(2, 8)),
    ([0, 1, 2], IntDistribution(0, 2)),
    ([8, 2, 4], IntDistribution(2, 8, log=True)),
    ([64], IntDistribution(64, 64)),
    ([1e-4, 3e-4, 1e-3], FloatDistribution(1e-4, 1e-3, log=True)),
    ([0, 0.1, 0.2], FloatDistribution(0.0, 0.2)),
    ([-1, 2.5], FloatDistribution(-1.0, 2.5)),
    (["MLP", "GatedMLP"], CategoricalDistribution(["MLP", "GatedMLP"])),
    ([True, False], CategoricalDistribution([True, False])),
    ([None, 2], CategoricalDistribution([None, 2])),
    ([1, "two"], CategoricalDistribution([1, "two"])),
]


@pytest.mark.parametrize(("values", "distribution"), VALUES)
def test_numbers_are_a_range_and_words_are_a_choice(values: list[Any], distribution: BaseDistribution) -> None:
    whole = not any(isinstance(each, float) for each in values)
    assert optuna_export.distribution({"values": values}, whole=whole) == distribution


def test_optuna_finds_the_importances_that_the_service_finds(tmp_path: Path) -> None:
    widths, kinds, rates = (
        [16, 24, 32, 48, 64, 96, 128, 192],
        ["MLP", "GatedMLP", "FusedGatedMLP"],
        [1e-4, 3e-4, 1e-3, 3e-3],
    )
    draw = random.Random(3)
    rows = []
    for number in range(80):
        width, kind, rate = draw.choice(widths), draw.choice(kinds), draw.choice(rates)
        loss = 3 - math.log(width) / 3 + 0.1 * kinds.index(kind) + 0.3 * abs(math.log10(rate) + 3) + draw.gauss(0, 0.1)
        parameters = {"hidden_size": width, "mlp.kind": kind, "training.learning_rate": rate}
        times = {"started_at": None, "ended_at": None, "violations": None, "id": str(number)}
        rows.append(row(number, parameters=parameters, metrics={"validation_loss": loss}) | times)
    model = {"hidden_size": {"values": widths}, "mlp": {"kind": {"values": kinds}}}
    opened = {"open_parameters": ["hidden_size", "mlp.kind", "training.learning_rate"]}
    document = {"model": model, "training": {"learning_rate": {"values": rates}}}
    record = sweep_record(
        document=document,
        space=sweep_record()["space"] | opened,
    )
    client, _, _ = scripted(httpx2.Response(200, json=record), page(rows))
    study = write_study(
        Sweep(client.transport, cast("SweepDetailRecord", record)), f"sqlite:///{tmp_path / 'study.db'}"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    by_order = optuna.create_study()
    orders: dict[str, list[Any]] = {"hidden_size": widths, "training.learning_rate": rates}
    ordered: dict[str, BaseDistribution] = {
        name: IntDistribution(0, len(values) - 1) for name, values in orders.items()
    }
    for each in rows:
        given = each["parameters"]
        by_order.add_trial(
            optuna.trial.create_trial(
                params=given | {name: values.index(given[name]) for name, values in orders.items()},
                distributions=ordered | {"mlp.kind": CategoricalDistribution(kinds)},
                value=each["metrics"]["validation_loss"],
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        services = get_param_importances(by_order, evaluator=PedAnovaImportanceEvaluator())
    assert found["hidden_size"] > 0.7
    assert found == pytest.approx(services, abs=0.1)


def test_what_ended_without_having_begun_is_exported_too(
    client: Client, document: Path, finisher: Finisher, tmp_path: Path
) -> None:
    sweep = client.submit(document)
    finisher.finish_one(finisher.register(), wait_seconds=20)
    sweep.cancel()
    study = write_study(sweep, f"sqlite:///{tmp_path / 'study.db'}")
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "FAIL"}
