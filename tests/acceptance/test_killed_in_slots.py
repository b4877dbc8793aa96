"""`kill -9` of a worker with several slots, or of what runs in one of them, loses no trial and counts none twice."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.deployment import Deployment

SLOTS, TRIALS = 4, 6

PROBES: dict[str, Any] = {
    "name": "probes",
    "task": "probe",
    "model": {
        "kind": "linear",
        "linear": {"in_features": {"min": 8, "max": 256, "step": 8}, "out_features": {"min": 8, "max": 256, "step": 8}},
    },
    "inference": {"batch_size": 1, "sequence_length": 8},
    "objectives": [{"metric": "latency_ms_p50", "goal": "minimize"}],
    "budget": {"trials": TRIALS, "parallel": SLOTS},
    "search": {"sampler": "random", "seed": 0, "reuse": False},
}
"""Trials that are built and measured, and that is all."""


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """One kind of database: no worker sees which it is."""
    return migrated_sqlite_url


def children_of(pid: int) -> dict[int, str]:
    """Process id -> command of what the threads of a process have started."""
    found: dict[int, str] = {}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            with suppress(OSError):
                found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def outcomes(deployment: Deployment, sweep: str) -> list[list[str]]:
    """How the attempts of each trial ended, once the sweep has ended with every trial complete."""
    ended = deployment.finish_sweep(sweep, seconds=150)
    assert ended["progress"]["complete"] == TRIALS, deployment.log("slots") + deployment.log("other")
    trials = deployment.trials(sweep)
    assert [trial["number"] for trial in trials] == list(range(TRIALS))
    details = [deployment.get(f"/v1/trials/{trial['id']}") for trial in trials]
    found = [[attempt["outcome"] for attempt in detail["attempts"]] for detail in details]
    assert [attempts.count("complete") for attempts in found] == [1] * TRIALS
    return found


def start_slots(deployment: Deployment, name: str) -> Any:
    return deployment.start_worker(name, "--slots", str(SLOTS), "--threads", "1")


def measures(event: dict[str, Any]) -> bool:
    return event["kind"] == "trial.phase" and event["data"]["phase"] == "measure"


def test_a_killed_child_costs_its_own_attempt_and_no_neighbour_s(deployment: Deployment) -> None:
    deployment.start_service()
    sweep = deployment.submit(PROBES)
    worker = start_slots(deployment, "slots")
    deployment.events(sweep, until=measures)
    running = children_of(worker.pid)
    killed = [next(pid for pid, command in running.items() if kind in command) for kind in ("torch_child", ".engine")]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)

    lost = [attempts for attempts in outcomes(deployment, sweep) if len(attempts) > 1]
    assert len(lost) <= len(killed)
    assert all(attempts == ["released", "complete"] for attempts in lost)


def test_a_killed_worker_takes_its_children_along_and_another_one_finishes(deployment: Deployment) -> None:
    deployment.start_service()
    sweep = deployment.submit(PROBES)
    first = start_slots(deployment, "slots")
    deployment.events(sweep, until=measures)
    running = list(children_of(first.pid))
    assert running
    deployment.kill(first)
    deployment.wait_until(
        lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in running), "the kernel has ended the children"
    )

    start_slots(deployment, "other")
    found = outcomes(deployment, sweep)
    assert any(attempts == ["lost", "complete"] for attempts in found)
    assert all(attempts in (["complete"], ["lost", "complete"]) for attempts in found)


@pytest.mark.parametrize(
    "phase", [pytest.param("check", marks=pytest.mark.slow), "build", pytest.param("measure", marks=pytest.mark.slow)]
)
def test_sigterm_gives_back_what_every_slot_executes_uncharged(deployment: Deployment, phase: str) -> None:
    deployment.start_service()
    sweep = deployment.submit(PROBES)
    worker = start_slots(deployment, "slots")
    deployment.events(sweep, until=lambda event: event["data"].get("phase") == phase)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0, deployment.log("slots")

    states = [trial["state"] for trial in deployment.trials(sweep)]
    assert set(states) <= {"queued", "complete"}
    for trial in deployment.trials(sweep):
        detail = deployment.get(f"/v1/trials/{trial['id']}")
        assert {attempt["outcome"] for attempt in detail["attempts"]} <= {"released", "complete"}
    told = deployment.events(sweep, until=lambda event: event["kind"] == "trial.queued" and "charged" in event["data"])
    assert told[-1]["data"]["charged"] is False
