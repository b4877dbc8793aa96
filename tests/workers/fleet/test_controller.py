"""The controller against a service and a cluster that are scripted: neither Ray nor a worker runs here."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

from tests.workers.fleet.test_plan import entry, fleet, registered
from workers.fleet.controller import Controller
from workers.fleet.messages import Member
from workers.fleet.plan import Kind
from workers.fleet.ray_cluster import ClusterError
from workers.service.messages import QueueEntry, RegisteredWorker


class ScriptedService:
    def __init__(self) -> None:
        self.entries: list[QueueEntry] = []
        self.workers: list[RegisteredWorker] = []

    def queue(self) -> list[QueueEntry]:
        return self.entries

    def living_workers(self) -> list[RegisteredWorker]:
        return self.workers


class FakeCluster:
    """Stands for Ray: remembers what it was asked for."""

    def __init__(self) -> None:
        self.there: dict[str, Member] = {}
        self.requested: Mapping[Kind, int] = {}
        self.drained: list[str] = []
        self.is_lost = False

    def members(self) -> list[Member]:
        if self.is_lost:
            raise ClusterError("the head is gone")
        return list(self.there.values())

    def start(self, name: str) -> None:
        assert name not in self.there
        self.there[name] = {"name": name, "state": "PENDING_CREATION", "is_leaving": False}

    def drain(self, name: str) -> None:
        self.drained.append(name)

    def request_machines(self, wanted: Mapping[Kind, int]) -> None:
        self.requested = wanted


@pytest.fixture
def service() -> ScriptedService:
    return ScriptedService()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def test_workers_and_machines_follow_the_queue(service: ScriptedService, cluster: FakeCluster) -> None:
    controller = Controller(service, cluster, fleet())
    controller.step(0)
    assert (cluster.requested, cluster.there) == ({"gpu": 0, "cpu": 0}, {})
    service.entries = [entry(3)]
    controller.step(5)
    controller.step(10)
    assert (cluster.requested, sorted(cluster.there)) == ({"gpu": 0, "cpu": 3}, ["cpu-0", "cpu-1", "cpu-2"])
    service.entries, service.workers = [], [registered(f"f-cpu-{number}") for number in range(3)]
    controller.step(15)
    # They leave by themselves when they are idle; their machines are not asked for any more.
    assert (cluster.requested, cluster.drained) == ({"gpu": 0, "cpu": 0}, [])


def test_what_was_started_for_a_queue_that_emptied_before_it_came_is_drained(
    service: ScriptedService, cluster: FakeCluster
) -> None:
    service.entries = [entry(1)]
    controller = Controller(service, cluster, fleet())
    controller.step(0)
    service.entries = []
    controller.step(5)
    controller.step(30)
    assert cluster.drained == []
    controller.step(40)
    assert cluster.drained == ["cpu-0"]


def test_another_controller_finds_the_workers_of_the_one_that_was_killed(
    service: ScriptedService, cluster: FakeCluster
) -> None:
    service.entries = [entry(2)]
    Controller(service, cluster, fleet()).step(0)
    Controller(service, cluster, fleet()).step(0)
    assert sorted(cluster.there) == ["cpu-0", "cpu-1"]


def test_it_goes_on_with_a_head_that_comes_back_knowing_nobody(service: ScriptedService, cluster: FakeCluster) -> None:
    service.entries = [entry(1)]
    controller = Controller(service, cluster, fleet())
    controller.step(0)
    cluster.is_lost = True
    with pytest.raises(ClusterError):
        controller.step(5)
    cluster.is_lost, cluster.there, cluster.requested = False, {}, {}
    controller.step(10)
    assert (sorted(cluster.there), cluster.requested) == (["cpu-0"], {"gpu": 0, "cpu": 1})


def test_workers_of_a_machine_that_is_preempted_are_drained(service: ScriptedService, cluster: FakeCluster) -> None:
    cluster.there["cpu-1"] = {"name": "cpu-1", "state": "ALIVE", "is_leaving": True}
    service.entries = [entry(1)]
    Controller(service, cluster, fleet()).step(0)
    assert cluster.drained == ["cpu-1"]


def test_it_says_once_that_a_worker_does_not_register(
    service: ScriptedService, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    service.entries, service.workers = [entry(2, workers=1, slots=1)], [registered("f-cpu-1")]
    for name in ("cpu-0", "cpu-1"):
        cluster.there[name] = {"name": name, "state": "ALIVE", "is_leaving": False}
    controller = Controller(service, cluster, fleet())
    with caplog.at_level(logging.WARNING, "layersweep.fleet"):
        for now in range(0, 300, 5):
            controller.step(now)
    assert [record.getMessage() for record in caplog.records] == [
        "cpu-0 runs and has not registered for 125 s: Ray keeps its log"
    ]


def test_it_says_once_what_its_workers_do_not_serve(
    service: ScriptedService, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    lacking = entry(1, target="onnxruntime 1.0 on another")
    lacking["waits_for"] = "no living worker has onnxruntime 1.0 on another"
    service.entries, service.workers = [lacking], [registered("f-cpu-0")]
    controller = Controller(service, cluster, fleet())
    with caplog.at_level(logging.WARNING, "layersweep.fleet"):
        for now in (0, 20, 40, 60):
            controller.step(now)
    assert [record.getMessage() for record in caplog.records] == [
        "no more workers for onnxruntime 1.0 on another of default: the workers of this fleet do not serve it "
        "(no living worker has onnxruntime 1.0 on another)"
    ]
