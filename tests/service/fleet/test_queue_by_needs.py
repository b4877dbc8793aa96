"""What waits for which workers: by target and labels, for how long, and why nothing takes it."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from service.database.models import Sweep
from service.database.sessions import Database
from service.fleet import queue_by_needs
from service.fleet.schemas import QueueEntry
from service.leases import queue
from service.operations.gauges import Gauges
from service.settings import Settings
from tests.service.registrations import registration
from tests.service.rows import Rows, count_claimable
from tests.service.sweep_driver import Driver, small


@pytest.fixture
def driver(database: Database, settings: Settings) -> Driver:
    driver = Driver(database, settings)
    driver.add_dataset()
    return driver


def _entries(database: Database, project: str | None = None) -> list[QueueEntry]:
    return database.read(lambda session: queue_by_needs.entries(session, project, 90))


def _only(database: Database) -> QueueEntry:
    (entry,) = _entries(database)
    return entry


def test_a_worker_is_given_trials_whose_labels_it_has(driver: Driver) -> None:
    plain = driver.add_worker("plain", labels={"site": "b"})
    labelled = driver.add_worker("labelled", labels={"site": "a", "gpu": "h100"})
    sweep = driver.post(small(target={"labels": {"site": "a"}}))
    driver.step(sweep)
    assert driver.sweep(sweep).labels == {"site": "a"}

    def claim(worker: str) -> str | None:
        lease = driver.database.write(lambda session: queue.claim(session, worker, 30))
        return None if lease is None else lease.sweep

    assert claim(plain) is None
    assert count_claimable(driver.database, plain) == 0
    assert claim(labelled) == sweep


def test_a_sweep_that_no_worker_has_the_labels_of_says_which_are_missing(driver: Driver) -> None:
    driver.add_worker(labels={"site": "a"})
    sweep = driver.post(small(target={"labels": {"gpu": "h100", "site": "a"}}))
    driver.step(sweep)
    assert driver.sweep(sweep).target is None
    assert driver.sweep(sweep).reason == "waiting for a worker with the labels gpu=h100,site=a"
    entry = _only(driver.database)
    assert (entry.cause, entry.target, entry.labels) == ("target", None, {"gpu": "h100", "site": "a"})
    assert entry.waits_for is not None
    assert entry.waits_for.endswith("no living worker is labelled gpu=h100")

    driver.add_worker("the right one", labels={"site": "a", "gpu": "h100"})
    driver.step(sweep)
    entry = _only(driver.database)
    assert (entry.cause, entry.slots, entry.workers) == (None, 64, 1)
    assert entry.queued > 0
    assert entry.oldest_seconds is not None


def test_a_sweep_that_no_worker_supports_says_what_is_missing(driver: Driver) -> None:
    driver.add_worker()
    sweep = driver.post(small(target={"runtime": "tensorrt"}))
    driver.step(sweep)
    entry = _only(driver.database)
    assert (entry.cause, entry.runtime) == ("target", "tensorrt")
    assert entry.waits_for == "waiting for a worker with runtime tensorrt: the living workers have onnxruntime"


def _wait_of(driver: Driver, sweep: str) -> tuple[str, str] | None:
    found = driver.database.read(lambda session: queue_by_needs.wait_of(session, session.get_one(Sweep, sweep), 90))
    return None if found is None else (found.cause, found.reason)


def test_a_sweep_says_what_the_living_workers_lack_for_it(driver: Driver) -> None:
    sweep = driver.post(small(target={"runtime": "onnxruntime", "labels": {"site": "a"}}))
    waiting = "waiting for a worker with runtime onnxruntime and the label site=a"
    assert _wait_of(driver, sweep) == ("target", f"{waiting}: no worker is alive")
    other = driver.add_worker("elsewhere")
    driver.set_worker(other, project="another")
    assert _wait_of(driver, sweep) == ("target", f"{waiting}: no living worker serves the project default")
    driver.set_worker(other, project=None)
    assert _wait_of(driver, sweep) == ("target", f"{waiting}: no living worker is labelled site=a")
    right = driver.add_worker("the right one", labels={"site": "a"})
    assert _wait_of(driver, sweep) is None, "its target is about to be looked up"
    driver.step(sweep)
    assert _wait_of(driver, sweep) is None, "its trials are about to be claimed"
    driver.set_worker(right, labels={})
    assert _wait_of(driver, sweep) == ("label", "no living worker is labelled site=a")
    for gone in (other, right):
        driver.set_worker(gone, signed_off_at=1.0)
    key = driver.sweep(sweep).target_key
    assert _wait_of(driver, sweep) == ("worker", f"no living worker has {key}")


def test_a_sweep_s_answer_has_why_it_waits(client: TestClient, served_rows: Rows) -> None:
    sweep = served_rows.sweep(2)
    waiting = client.get(f"/v1/sweeps/{sweep}").raise_for_status().json()["waiting"]
    assert waiting["cause"] == "worker"
    assert waiting["reason"].startswith("no living worker has ")


def test_it_says_why_nothing_takes_what_waits(driver: Driver) -> None:
    database = driver.database
    worker = driver.add_worker(slots=1)
    sweep = driver.post(small(budget={"trials": 6, "parallel": 2}))
    driver.step(sweep)
    assert _only(database).cause is None
    assert database.write(lambda session: queue.claim(session, worker, 30)) is not None
    entry = _only(database)
    assert (entry.cause, entry.busy_slots, entry.slots, entry.running) == ("slot", 1, 1, 1)
    assert entry.waits_for == "1 slot of 1 worker, and none is free"

    second = driver.add_worker("second")
    assert database.write(lambda session: queue.claim(session, second, 30)) is not None
    assert _only(database).cause == "parallel"
    assert _only(database).waits_for == "2 trials at once is what the budget allows"

    for gone in (worker, second):
        driver.set_worker(gone, signed_off_at=1.0)
    assert _only(database).cause == "worker"
    driver.add_worker("upgraded", {"results": "2"})
    assert _only(database).cause == "results_version"


def test_a_project_sees_its_own_queue(rows: Rows) -> None:
    rows.sweep(2)
    assert _entries(rows.database, "another") == []
    assert [entry.queued for entry in _entries(rows.database, "default")] == [2]


def test_the_metrics_have_the_queue_by_what_it_needs(rows: Rows) -> None:
    rows.worker(labels={"site": "a"})
    rows.sweep(3)
    families = {family.name: family for family in Gauges(rows.database, 90).collect()}
    (sample,) = families["layersweep_queue_trials"].samples
    assert sample.value == 3
    assert sample.labels["runtime"] == "onnxruntime"
    assert sample.labels["cause"] == ""
    (slots,) = families["layersweep_queue_slots"].samples
    assert slots.value == 64


def test_the_queue_is_answered_and_shown(client: TestClient, served_rows: Rows) -> None:
    client.post("/v1/workers", json=registration(labels={"site": "a"})).raise_for_status()
    served_rows.sweep(2)
    (item,) = client.get("/v1/queue").raise_for_status().json()["items"]
    assert (item["queued"], item["device_model"], item["workers"]) == (2, "Test CPU", 1)
    page = client.get("/workers").raise_for_status().text
    assert "waits because" in page
    assert "site=a" in page


@pytest.mark.parametrize("labels", [{"a b": "c"}, {"site": ""}, {f"key{n}": "x" for n in range(17)}])
def test_labels_that_cannot_be_are_refused(client: TestClient, labels: dict[str, str]) -> None:
    answer = client.post("/v1/workers", json=registration(labels=labels))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/labels"


def test_a_sweep_says_how_many_slots_it_could_use(driver: Driver) -> None:
    fixed = driver.post(small(budget={"trials": 20, "parallel": 3}))
    driver.step(fixed)
    # No worker was found yet: nothing was asked for.
    assert (_only(driver.database).queued, _only(driver.database).wanted_slots) == (0, 3)
    driver.add_worker()
    driver.step(fixed)
    entry = _only(driver.database)
    assert entry.queued > entry.wanted_slots == 3


def test_a_sweep_for_as_many_workers_as_there_are_wants_one_first_and_then_all_that_waits(driver: Driver) -> None:
    auto = driver.post(small(budget={"trials": 20, "parallel": "auto"}))
    driver.step(auto)
    assert _only(driver.database).wanted_slots == 1
    driver.add_worker()
    driver.step(auto)
    entry = _only(driver.database)
    assert entry.wanted_slots == entry.queued > 1


def test_further_trainings_wait_for_workers_as_trials_do(driver: Driver) -> None:
    worker = driver.add_worker()
    sweep = driver.post(small(budget={"trials": 20, "parallel": 3}))
    driver.step(sweep)
    driver.set(sweep, counts={"complete": 4, "replicate_queued": 2})
    entry = _only(driver.database)
    assert (entry.queued, entry.wanted_slots) == (2, 2)
    driver.set_worker(worker, signed_off_at=1.0)
    assert (_wait_of(driver, sweep) or ("nothing waits", ""))[0] == "worker"
    families = {family.name: family for family in Gauges(driver.database, 90).collect()}
    assert [sample.value for sample in families["layersweep_queue_depth"].samples] == [2]


def test_a_sweep_for_as_many_workers_as_there_are_waits_for_its_share_of_the_slots(driver: Driver) -> None:
    driver.worker = driver.add_worker(slots=1)
    driver.step(driver.post(small(budget={"trials": 20, "parallel": "auto"})))
    assert driver.claim() is not None
    entry = _only(driver.database)
    assert entry.cause == "parallel"
    assert entry.waits_for == "1 trial at once is what its share of the slots allows (parallel: auto)"
