"""`kill -9` of a worker with several slots, or of what runs in one of them, loses no trial and counts none twice."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.deployment import Deployment

SLOTS, TRIALS = 3, 4

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


def start_slots(deployment: Deployment, name: str, count: int = SLOTS) -> Any:
    return deployment.start_brief_worker(name, "--slots", str(count), "--threads", "1")


def measures(event: dict[str, Any]) -> bool:
    return event["kind"] == "trial.phase" and event["data"]["phase"] == "measure"


def test_killed_children_cost_their_own_attempts_and_a_killed_worker_those_of_all_its_slots(
    deployment: Deployment,
) -> None:
    deployment.start_service()
    sweep = deployment.submit(PROBES)
    first = start_slots(deployment, "slots")
    deployment.events(sweep, until=measures)
    running = children_of(first.pid)
    killed = [next(pid for pid, command in running.items() if kind in command) for kind in ("torch_child", ".engine")]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    # The neighbours go on, and one of them ends first.
    deployment.events(sweep, until=lambda event: event["kind"] == "trial.ended")

    running = children_of(first.pid)
    assert running
    deployment.kill(first)
    deployment.wait_until(
        lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in running), "the kernel has ended the children"
    )
    start_slots(deployment, "other", 1)
    found = outcomes(deployment, sweep)
    given_back = [attempts for attempts in found if "released" in attempts]
    assert len(given_back) <= len(killed)
    assert all(attempts[0] == "released" and attempts.count("released") == 1 for attempts in given_back)
    assert any("lost" in attempts for attempts in found)
    assert all(attempts.count("lost") <= 1 for attempts in found)


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
