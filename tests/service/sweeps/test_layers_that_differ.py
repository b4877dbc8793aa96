"""A sweep over parameters of single layers, from its document to its leaderboard."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from layers.signature import signature
from service.database.sessions import Database
from service.results import exports, leaderboards
from service.results.columns import ColumnStore
from service.results.selection import Filters
from service.settings import Settings
from tests.service.sweep_driver import TWELVE_POINTS, Driver, document

MODEL: dict[str, Any] = {
    **TWELVE_POINTS,
    "mlp": {
        "ffn_hidden_size": {"values": [32, 64, 128], "per_layer": True},
        "bias": {"derived": "mlp.ffn_hidden_size > 32", "per_layer": True},
    },
}


@pytest.fixture
def driver(database: Database, settings: Settings) -> Driver:
    driver = Driver(database, settings)
    driver.add_dataset()
    return driver


def test_the_layer_is_named_from_the_ask_to_the_leaderboard(driver: Driver) -> None:
    written = document(model=MODEL, constraints=[], rules=["mlp.ffn_hidden_size <= 2 * hidden_size"])
    sweep = driver.post(written)
    driver.run(sweep, trials=12)
    trials = driver.trials(sweep)
    assert len(trials) >= 12
    for trial in trials:
        count = trial.parameters["num_layers"]
        widths = [trial.parameters[f"layers.{number}.mlp.ffn_hidden_size"] for number in range(count)]
        assert all(width <= 2 * trial.parameters["hidden_size"] for width in widths)
        assert f"layers.{count}.mlp.ffn_hidden_size" not in trial.parameters
        model = trial.configuration["model"]
        assert [model[f"layers.{number}.mlp.ffn_hidden_size"] for number in range(count)] == widths
        assert signature("causal_lm", model, 1, 16).outputs[0].shape == (1, 16, 64)
    refused = [rejection for _, rejection in driver.sequence(sweep) if rejection]
    assert any("layers.0.mlp.ffn_hidden_size <= 2 * hidden_size does not hold" in each for each in refused)

    export = driver.database.read(
        lambda session: exports.csv_export(session, ColumnStore(), sweep, "layers.0.mlp.ffn_hidden_size", Filters())
    )
    rows = driver.database.read(lambda session: leaderboards.rows_of(session, export.trial_ids))
    read = list(csv.DictReader(io.StringIO(export.head + export.lines(rows))))
    for name in ("ffn_hidden_size", "bias"):
        assert [each for each in read[0] if each.endswith(name)] == [f"layers.{n}.mlp.{name}" for n in range(3)]
    assert [int(row["layers.0.mlp.ffn_hidden_size"]) for row in read] == sorted(
        trial.parameters["layers.0.mlp.ffn_hidden_size"] for trial in trials
    )
    assert {row["layers.2.mlp.bias"] for row in read if int(row["num_layers"]) < 3} == {""}
