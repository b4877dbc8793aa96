"""A worker with several slots: what it claims, how it ends, and what happens when something is killed in it."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from layersweep.cli import app
from tests.workers.faulty_children import FaultyChildren
from tests.workers.scripted_service import ScriptedService
from workers import activity
from workers.devices.time_shares import DeviceTime
from workers.main import drained_by_signals
from workers.processes.children import Children
from workers.settings import CacheSettings, StopConditions, WorkerIdentity
from workers.slots import automatic_count
from workers.trial.context import Limits
from workers.worker import Worker

GIB = 1 << 30


@pytest.mark.parametrize(
    ("gpu_memory_bytes", "cores", "slots"),
    [(141 * GIB, 16, 8), (141 * GIB, 6, 3), (141 * GIB, 1, 1), (16 * GIB, 32, 2), (4 * GIB, 32, 1), (None, 64, 1)],
)
def test_a_gpu_has_slots_by_cores_and_memory_and_a_cpu_one(
    gpu_memory_bytes: int | None, cores: int, slots: int
) -> None:
    assert automatic_count(gpu_memory_bytes=gpu_memory_bytes, cores=cores) == slots


def test_a_device_s_time_is_divided_among_those_at_work_on_it() -> None:
    now = 0.0
    device = DeviceTime(lambda: now)
    first = device.share()
    now = 4.0
    second = device.share()
    now = 10.0
    first.pause()
    now = 15.0
    first.go_on()
    now = 17.0
    assert (first.seconds, second.seconds) == (4.0 + 3.0 + 1.0, 3.0 + 5.0 + 1.0)
    second.pause()
    now = 18.0
    assert first.seconds + second.seconds == 18.0


class LeasingService(ScriptedService):
    """Registers workers, and leases trials until there are no more."""

    def __init__(self, trials: int, *, unknown: tuple[str, ...] = (), at_once: int = 0, task: str = "probe") -> None:
        """`unknown`: fields that it is too old for; `at_once`: nobody goes on before so many have begun."""
        super().__init__(task)
        self.claims: list[dict[str, Any]] = []
        self.registrations: list[dict[str, Any]] = []
        self.most_at_once = 0
        self.on_claim: Callable[[], None] = lambda: None
        self._unknown = unknown
        self._left = list(range(trials))
        self._running: set[str] = set()
        self._lock = threading.Lock()
        self._all_there = threading.Barrier(at_once) if at_once else None
        self.ended: dict[str, str] = {}
        self.reasons: dict[str, str | None] = {}
        self.begun: set[str] = set()
        self.charged: set[str] = set()
        """Trials whose attempt was charged when they were given back."""

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        path, body = request.url.path, json.loads(request.content) if request.content else {}
        if unknown := [name for name in self._unknown if name in body]:
            errors = [{"pointer": f"/{name}", "detail": "Extra inputs are not permitted"} for name in unknown]
            return httpx2.Response(422, json={"detail": "the request is invalid", "errors": errors})
        if path == "/v1/workers":
            self.registrations.append(body)
            answer = {"id": "W1", "lease_seconds": 30, "heartbeat_seconds": 10, "target_keys": ["here"]}
            return httpx2.Response(201, json=answer)
        if request.method == "DELETE":
            return httpx2.Response(204)
        if path == "/v1/leases":
            self.claims.append(body)
            self.on_claim()
            leases = self._leases(body.get("at_most") or 1)
            if not leases:
                return httpx2.Response(204)
            return httpx2.Response(200, json={"leases": leases} if "at_most" in body else leases[0])
        trial, verb = path.split("/")[3], path.rpartition(":")[2]
        if verb in ("finish", "release"):
            with self._lock:
                self._running.discard(trial)
                assert trial not in self.ended
                self.ended[trial] = body.get("outcome", "released")
                self.reasons[trial] = body["reason"]
                if body.get("charge"):
                    self.charged.add(trial)
            lease = self._leases(1) if body.get("claim") else []
            return httpx2.Response(200, json={"lease": lease[0] if lease else None})
        if verb == "report" and body.get("phase") == "check" and self._all_there is not None:
            self._all_there.wait(30)
            self._all_there = None
        return super().handle(request)

    def _leases(self, at_most: int) -> list[dict[str, Any]]:
        with self._lock:
            numbers, self._left = self._left[:at_most], self._left[at_most:]
            self._running |= {f"T{number}" for number in numbers}
            self.begun |= {f"T{number}" for number in numbers}
            self.most_at_once = max(self.most_at_once, len(self._running))
        return [self._lease(number) for number in numbers]

    def _lease(self, number: int) -> dict[str, Any]:
        """Each trial has an engine of its own: none is found in the cache."""
        size = {"hidden_size": 16 * (number + 1)}
        norm = {"kind": "norm", "norm.kind": "RmsNorm", "attention.num_attention_heads": None}
        model = {**norm, **size} if self.task == "probe" else size
        return self.lease(model=model) | {"trial": f"T{number}", "number": number}


def make_worker(
    service: LeasingService, cache_dir: Path, *children: Children, stops: StopConditions | None = None, **options: Any
) -> Worker:
    """A worker with these slots."""
    caches = CacheSettings(cache_dir)
    return Worker(service.client(), WorkerIdentity("here"), children=children, caches=caches, stops=stops, **options)


Slots = Callable[[int], Sequence[Children]]
"""Makes the children of so many slots."""


class Heard(logging.Handler):
    """Hears whether the worker has said what its busy slots do."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.said = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if re.match(r"[12] of 2 slots \w+", line := record.getMessage()):
            self.lines.append(line)
            self.said.set()


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    before = activity.logger.level
    activity.logger.addHandler(handler)
    activity.logger.setLevel(logging.INFO)
    yield handler
    activity.logger.setLevel(before)
    activity.logger.removeHandler(handler)


def test_slots_are_filled_by_one_claim_go_on_with_what_their_finish_brings_and_say_what_they_do(
    cache_dir: Path, heard: Heard, slots: Slots
) -> None:
    service = LeasingService(5, at_once=2)

    def script(verb: str, body: dict[str, Any]) -> None:
        assert body.get("phase") != "build" or heard.said.wait(60), "nothing was said while the slots were busy"

    service.script = script
    make_worker(service, cache_dir, *slots(2), stops=StopConditions(max_trials=4), activity_seconds=0.05).work()
    assert service.registrations[0]["slots"] == 2
    assert service.claims[0] == {"worker": "W1", "at_most": 2}
    assert service.ended == {f"T{number}": "complete" for number in range(4)}
    assert service.most_at_once == 2
    assert len(service.claims) == 1
    assert all("; this worker used the device for " in line for line in heard.lines)


@pytest.mark.slow
@pytest.mark.parametrize("unknown", [("slots", "at_most", "claim"), ("claim",)])
def test_a_service_that_knows_no_slots_is_worked_with_all_the_same(
    cache_dir: Path, slots: Slots, unknown: tuple[str, ...]
) -> None:
    service = LeasingService(3, unknown=unknown, at_once=2)
    make_worker(service, cache_dir, *slots(2), stops=StopConditions(idle_seconds=0.5)).work()
    assert service.ended == {f"T{number}": "complete" for number in range(3)}
    assert service.most_at_once == 2


def test_a_drained_worker_gives_back_what_each_slot_executes(cache_dir: Path, slots: Slots) -> None:
    service = LeasingService(9, at_once=2)
    worker = make_worker(service, cache_dir, *slots(2))

    def script(verb: str, body: dict[str, Any]) -> None:
        if body.get("phase") == "build":
            worker.drain()

    service.script = script
    worker.work()
    assert set(service.ended.values()) == {"released"}
    assert len(service.ended) == service.most_at_once


@pytest.mark.parametrize(
    "phase",
    [
        "train",
        *(
            pytest.param(phase, marks=pytest.mark.slow)
            for phase in ("check", "build", "measure", "rebuild", "remeasure", "evaluate")
        ),
    ],
)
def test_sigterm_in_a_phase_gives_back_what_each_slot_executes_uncharged(
    cache_dir: Path, slots: Slots, phase: str
) -> None:
    service = LeasingService(4, at_once=2, task="causal_lm")
    worker = make_worker(service, cache_dir, *slots(2))
    in_phase: list[str] = []

    def script(verb: str, body: dict[str, Any]) -> None:
        if body.get("phase") == phase and not in_phase:
            in_phase.append(phase)
            os.kill(os.getpid(), signal.SIGTERM)

    service.script = script
    with drained_by_signals(worker):
        worker.work()
    assert in_phase == [phase]
    assert "released" in service.ended.values()
    assert set(service.ended.values()) <= {"released", "complete"}
    assert len(service.ended) == len(service.begun), "each that was begun is told of once"
    assert not service.charged


def test_a_claim_that_is_answered_after_a_drain_is_given_back(cache_dir: Path, slots: Slots) -> None:
    service = LeasingService(1)
    worker = make_worker(service, cache_dir, *slots(1))
    service.on_claim = worker.drain
    worker.work()
    assert service.ended == {"T0": "released"}


def test_a_builder_that_hangs_fails_its_trial_and_disturbs_no_neighbour(
    cache_dir: Path, tmp_path: Path, slots: Slots
) -> None:
    service = LeasingService(3, at_once=2)
    faulty = FaultyChildren(tmp_path, "onnxruntime")
    faulty.arm("hang")
    limits = Limits(build_seconds=1)
    make_worker(service, cache_dir, faulty, *slots(1), limits=limits, stops=StopConditions(idle_seconds=1)).work()
    assert service.ended["T0"] == "failed"
    assert "it hung and was ended" in str(service.reasons["T0"])
    others = {trial: outcome for trial, outcome in service.ended.items() if trial != "T0"}
    assert "complete" in others.values()
    assert set(others.values()) <= {"complete", "failed"}, "the next trial of the faulty slot hangs, too"


@pytest.mark.parametrize("is_enough_alone", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_is_out_of_memory_beside_neighbours_is_tried_again_alone(
    cache_dir: Path, tmp_path: Path, slots: Slots, *, is_enough_alone: bool
) -> None:
    service = LeasingService(2, at_once=2)
    faulty = FaultyChildren(tmp_path, "onnxruntime")
    faulty.arm("memory at build")
    said: list[str] = []

    def script(verb: str, body: dict[str, Any]) -> None:
        said.append(body.get("log", ""))
        if "trying again without other trials on the device" in body.get("log", "") and is_enough_alone:
            faulty.arm("none")

    service.script = script
    make_worker(service, cache_dir, faulty, *slots(1), stops=StopConditions(max_trials=2)).work()
    assert service.ended == {"T0": "complete" if is_enough_alone else "failed", "T1": "complete"}
    assert "".join(said).count("trying again without other trials") == 1
    if not is_enough_alone:
        assert "out of memory: the builder asked for 80 GiB" in str(service.reasons["T0"])


@pytest.mark.parametrize("given", ["0", "65", "-1", "many", "1.5", "²"])
def test_a_number_of_slots_that_cannot_be_is_refused_with_what_can(given: str) -> None:
    refused = CliRunner().invoke(app, ["worker", f"--slots={given}"])
    assert refused.exit_code == 2
    assert "neither auto nor a number from 1 to 64" in " ".join(refused.output.replace("│", " ").split())
