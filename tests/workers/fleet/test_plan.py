"""How many workers the queue needs: decisions from facts, with nobody asked."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from workers.fleet.plan import PATIENCE_SECONDS, RETRY_SECONDS, Fleet, Kind, Unserved, changes, needs_of, wanted_workers
from workers.service.messages import QueueEntry, RegisteredWorker

CPU_TARGET = "onnxruntime 1.32.0 on AMD EPYC, 1 thread"


def entry(
    wanted: int = 3,
    *,
    target: str | None = CPU_TARGET,
    runtime: str | None = "onnxruntime",
    labels: Mapping[str, str] | None = None,
    workers: int = 0,
    slots: int = 0,
) -> QueueEntry:
    return {
        "project": "default",
        "target": target,
        "runtime": runtime,
        "results_version": 1,
        "labels": dict(labels or {}),
        "wanted_slots": wanted,
        "workers": workers,
        "slots": slots,
        "waits_for": None,
    }


def registered(name: str, kind: Kind = "cpu", *, target: str = CPU_TARGET, slots: int = 1) -> RegisteredWorker:
    return {"name": name, "device": {"kind": kind}, "targets": [{"key": target}], "slots": slots}


def fleet(gpus: int = 4, cpus: int = 4, *, slots: int | None = None, labels: Mapping[str, str] | None = None) -> Fleet:
    return Fleet("f", {"gpu": gpus, "cpu": cpus}, labels or {}, slots)


def test_an_empty_queue_needs_nobody() -> None:
    assert wanted_workers([], [], fleet()) == {"gpu": 0, "cpu": 0}


@pytest.mark.parametrize(
    ("queue", "limits", "wanted"),
    [
        ([entry(3)], fleet(), {"gpu": 0, "cpu": 3}),
        ([entry(9)], fleet(), {"gpu": 0, "cpu": 4}),
        ([entry(2), entry(1)], fleet(), {"gpu": 0, "cpu": 3}),
        ([entry(2, runtime="tensorrt", target=None)], fleet(slots=1), {"gpu": 2, "cpu": 0}),
        ([entry(2, runtime="tensorrt_rtx", target=None)], fleet(slots=1), {"gpu": 2, "cpu": 0}),
        ([entry(2, runtime="tensorrt", target=None)], fleet(gpus=0), {"gpu": 0, "cpu": 0}),
        ([entry(2, runtime=None, target=None)], fleet(slots=1), {"gpu": 2, "cpu": 0}),
        ([entry(2, runtime=None, target=None)], fleet(gpus=0), {"gpu": 0, "cpu": 2}),
        ([entry(2, runtime="of tomorrow", target=None)], fleet(), {"gpu": 0, "cpu": 0}),
    ],
    ids=[
        "a worker a slot",
        "the limit",
        "all entries together",
        "TensorRT needs GPUs",
        "and so does TensorRT for RTX",
        "none where there may be none",
        "any runtime: a GPU first",
        "any runtime, without GPUs",
        "a runtime that this version does not know",
    ],
)
def test_the_queue_says_which_workers_are_wanted(
    queue: list[QueueEntry], limits: Fleet, wanted: dict[Kind, int]
) -> None:
    assert wanted_workers(queue, [], limits) == wanted


def test_a_gpu_s_worker_is_expected_to_have_many_slots_until_one_says_how_many() -> None:
    needed = entry(16, runtime="tensorrt", target="tensorrt 10 on H100")
    assert wanted_workers([needed], [], fleet())["gpu"] == 2
    one = registered("f-gpu-0", "gpu", target="tensorrt 10 on H100", slots=4)
    served: QueueEntry = {**needed, "workers": 1, "slots": 4}
    assert wanted_workers([served], [one], fleet())["gpu"] == 4


def test_slots_of_other_workers_count_first() -> None:
    own, other = registered("f-cpu-0"), registered("by hand", slots=2)
    assert wanted_workers([entry(4, workers=2, slots=3)], [own, other], fleet())["cpu"] == 2


def test_workers_of_a_fleet_whose_name_begins_alike_are_others() -> None:
    assert fleet().has(registered("f-gpu-0", "gpu"))
    assert not any(fleet().has(registered(name)) for name in ("f-gpu-cpu-0", "g-cpu-0", "f-cpu-x", "cpu-0", "f"))


def test_a_fleet_without_a_label_is_not_asked_for_what_needs_it() -> None:
    needed = entry(2, labels={"site": "a"})
    assert wanted_workers([needed], [], fleet())["cpu"] == 0
    assert wanted_workers([needed], [], fleet(labels={"site": "a", "gpu": "h100"}))["cpu"] == 2


def test_what_the_workers_turn_out_not_to_serve_is_tried_again_only_after_a_while() -> None:
    needed, unserved = entry(2, target="onnxruntime 1.0 on another"), Unserved()
    here = [registered("f-cpu-0")]
    assert unserved.observe([needed], [], fleet(), 0) == frozenset()
    assert unserved.observe([needed], here, fleet(), 10) == frozenset()
    found = unserved.observe([needed], here, fleet(), 11 + PATIENCE_SECONDS)
    assert found == {needs_of(needed)}
    assert wanted_workers([needed], here, fleet(), found)["cpu"] == 0
    # They have left, idle: the same would happen again.
    assert unserved.observe([needed], [], fleet(), 60 + PATIENCE_SECONDS) == found
    assert unserved.observe([needed], [], fleet(), 10 + RETRY_SECONDS) == frozenset()


def test_a_sweep_that_finds_its_target_soon_after_a_worker_came_is_served() -> None:
    unserved = Unserved()
    without, here = entry(3, target=None, runtime=None), [registered("f-cpu-0")]
    unserved.observe([without], here, fleet(gpus=0), 0)
    served = entry(3, workers=1, slots=1)
    assert unserved.observe([served], here, fleet(gpus=0), 100) == frozenset()
    assert unserved.observe([without], [], fleet(gpus=0), 101) == frozenset()


def test_only_what_is_missing_is_started() -> None:
    limits = fleet(gpus=2, cpus=4)
    assert changes({"gpu": 1, "cpu": 3}, ["cpu-1"], [], limits) == (["gpu-0", "cpu-0", "cpu-2"], [], [])


def test_a_worker_that_is_not_wanted_any_more_leaves_by_itself() -> None:
    working = [registered("f-cpu-1"), registered("f-cpu-2")]
    assert changes({"gpu": 0, "cpu": 0}, ["cpu-1", "cpu-2"], working, fleet()) == ([], [], [])


def test_one_that_never_registered_would_not() -> None:
    members = ["cpu-0", "cpu-1", "cpu-2", "cpu-3"]
    working = [registered("f-cpu-1"), registered("g-cpu-3")]
    assert changes({"gpu": 0, "cpu": 4}, members, working, fleet()).absent == []
    assert changes({"gpu": 0, "cpu": 2}, members, working, fleet()).absent == ["cpu-3", "cpu-2"]
    assert changes({"gpu": 0, "cpu": 0}, members, working, fleet()).absent == ["cpu-3", "cpu-2", "cpu-0"]


def test_more_than_the_limit_are_drained() -> None:
    members = ["cpu-0", "cpu-2", "gpu-0", "somebody else's"]
    assert changes({"gpu": 0, "cpu": 1}, members, [], fleet(gpus=0, cpus=1)) == ([], ["gpu-0", "cpu-2"], [])
