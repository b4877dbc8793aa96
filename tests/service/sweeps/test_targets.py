"""Which worker's target a sweep takes."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from layers.space.space import Space
from service.database.models import Trial, Worker
from service.database.sessions import Database
from service.leases import queue, workers
from service.settings import Settings
from service.sweeps import targets
from tests.service.rows import count_claimable
from tests.service.sweep_driver import Driver, document, small

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

    def counted(space: Space, *arguments: Any) -> object:
        asked.append(arguments)
        return judge(space, *arguments)

    monkeypatch.setattr(Space, "judge", counted)
    monkeypatch.setattr(targets, "SECONDS", 0.0)
    driver.step(sweep)
    found = driver.sweep(sweep)
    assert found.target_key is None
    assert "that supports a point of the space, of the few that could be looked at in time (" in str(found.reason)
    assert "bfloat16" in str(found.reason)
    assert len(asked) == targets.FEWEST_PROBED_POINTS


# --- results of one version -------------------------------------------------------------------------------------------


@pytest.fixture
def driver(database: Database, settings: Settings) -> Driver:
    driver = Driver(database, settings)
    driver.add_dataset()
    return driver


def _claims(driver: Driver, worker: str) -> bool:
    may = count_claimable(driver.database, worker) > 0
    lease = driver.database.write(lambda session: queue.claim(session, worker, 30))
    assert may == (lease is not None)
    return lease is not None


def test_a_sweep_is_measured_by_workers_of_one_version_of_results(driver: Driver) -> None:
    old = driver.add_worker("old", {"results": "2"})
    begun = driver.post(small())
    driver.step(begun)
    new = driver.add_worker("new", {"results": "3"})
    assert not _claims(driver, new)
    assert _claims(driver, old)
    # A lapsed attempt is no other matter.
    lapse = sa.update(Trial).where(Trial.state == "running").values(lease_expires_at=1.0)
    driver.database.write(lambda session: session.execute(lapse) and None)
    driver.set(begun, budget=driver.sweep(begun).budget | {"parallel": 1})
    assert not _claims(driver, new)
    assert _claims(driver, old)


def test_a_sweep_takes_the_newest_version_of_results_that_is_there(driver: Driver) -> None:
    old, new = driver.add_worker("old"), driver.add_worker("new", {"results": "3"})
    sweep = driver.post(small())
    driver.step(sweep)
    assert (_claims(driver, old), _claims(driver, new)) == (False, True)


def test_a_sweep_says_that_its_workers_were_upgraded_until_one_is_back(driver: Driver) -> None:
    old = driver.add_worker("old", {"results": "2"})
    sweep = driver.post(small())
    driver.step(sweep)
    driver.add_worker("new", {"results": "3"})
    driver.new_scheduler().discover_sweeps()
    assert driver.sweep(sweep).reason is None, "the old one goes on with it"

    driver.database.write(lambda session: workers.deregister(session, old, None))
    driver.new_scheduler().discover_sweeps()
    reason = driver.sweep(sweep).reason or ""
    assert reason.startswith("waiting for a worker with results of version 2, which it began with")
    assert "version 3" in reason
    assert ":clone" in reason
    assert driver.events(sweep)[-1].data == {"target": driver.sweep(sweep).target_key, "waits_for": reason}
    told = len(driver.events(sweep))
    driver.new_scheduler().discover_sweeps()
    assert len(driver.events(sweep)) == told, "it is said once"

    driver.set(sweep, labels={"site": "a"})
    driver.database.write(lambda session: session.execute(sa.update(Worker).values(labels={"site": "a"})) and None)
    driver.add_worker("old elsewhere", {"results": "2"})
    driver.new_scheduler().discover_sweeps()
    assert driver.sweep(sweep).reason == reason, "it asks for a label that this one has not"

    driver.add_worker("old again", {"results": "2"}, labels={"site": "a"})
    driver.new_scheduler().discover_sweeps()
    assert driver.sweep(sweep).reason is None


def test_sweeps_with_the_same_needs_are_compared_with_the_workers_once(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.add_worker()
    for _ in range(3):
        driver.step(driver.post(small()))
    looked: list[Any] = []
    compare = targets.missing_labels
    monkeypatch.setattr(targets, "missing_labels", lambda *asked: looked.append(asked) or compare(*asked))
    driver.database.write(lambda session: targets.explain_missing_workers(session, alive_seconds=90))
    assert len(looked) == 1
