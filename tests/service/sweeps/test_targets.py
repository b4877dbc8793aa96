"""Which worker's target a sweep takes."""

from __future__ import annotations

import pytest

from layers.space.space import Space
from service.database.sessions import Database
from service.settings import Settings
from service.sweeps import targets
from tests.service.sweep_driver import Driver, document

SPARSE = document(
    model={
        "num_layers": {"min": 1, "max": 50},
        "hidden_size": {"values": list(range(32, 672, 32))},
        "attention": {"num_attention_heads": {"values": [1, 2, 4, 8]}},
    },
    training={"learning_rate": 1e-3, "dropout": 0.0},
    constraints=[],
    rules=["num_layers == 3 and hidden_size == 64 and attention.num_attention_heads == 4"],
    search={"sampler": "grid"},
    allow_sparse=True,
)
"""One of 4,000 points keeps the rule: not one of those that are tried on a target."""


def test_a_space_of_which_hardly_a_point_keeps_the_rules_is_no_fault_of_the_target(
    database: Database, settings: Settings
) -> None:
    driver = Driver(database, settings)
    driver.add_dataset()
    sweep = driver.post(SPARSE)
    driver.add_worker("cpu", device_model="CPU")
    driver.step(sweep)
    found = driver.sweep(sweep)
    assert (found.target_key, found.reason) == ("onnxruntime 1.32.0 on CPU", None)
    assert [trial.parameters["hidden_size"] for trial in driver.trials(sweep)] == [64]


def test_targets_are_asked_about_as_many_points_as_there_is_time_for(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(database, settings)
    driver.add_dataset()
    wide = SPARSE | {"rules": [], "model": SPARSE["model"] | {"dtype": "bfloat16"}}
    sweep = driver.post(wide)
    driver.add_worker("cpu", device_model="CPU")
    asked: list[object] = []
    judge = Space.judge

    def counted(space: Space, *arguments: object) -> object:
        asked.append(arguments)
        return judge(space, *arguments)

    monkeypatch.setattr(Space, "judge", counted)
    monkeypatch.setattr(targets, "SECONDS", 0.0)
    driver.step(sweep)
    found = driver.sweep(sweep)
    assert found.target_key is None
    assert "that supports a point of the space, of the few that could be looked at in time (" in found.reason
    assert "bfloat16" in found.reason
    assert len(asked) == targets.FEWEST_PROBED_POINTS
