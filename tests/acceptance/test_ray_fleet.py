"""Workers on a Ray cluster: they come and go with the queue, and no `kill -9` loses a trial or counts one twice."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.deployment import Deployment
from tests.acceptance.fake_nodes import FakeNodes, processor_seconds, wait_until, worker_of

pytest.importorskip("ray", reason="Ray is not installed: `make test-ray` installs it")
logger = logging.getLogger("tests.ray")

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(1200),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]


@pytest.fixture
def small_sweep(small_sweep: dict[str, Any]) -> dict[str, Any]:
    """The same, whose trials are all complete."""
    return {**small_sweep, "search": {**small_sweep["search"], "pruner": "none"}}


@pytest.fixture
def nodes() -> Iterator[FakeNodes]:
    nodes = FakeNodes(most=3)
    try:
        nodes.start_head()
        yield nodes
    finally:
        nodes.close()


def test_workers_and_nodes_go_from_0_to_3_and_back_with_the_queue(
    deployment: Deployment, nodes: FakeNodes, small_sweep: dict[str, Any]
) -> None:
    small_sweep["budget"] = {"trials": 12, "parallel": 3}
    deployment.start_service()
    _start_controller(deployment, nodes)
    assert (_living(deployment), nodes.raylets()) == ([], [])
    sweep = deployment.submit(small_sweep)

    wait_until(lambda: len(_living(deployment)) == 3, "three workers")
    actors, joined = nodes.actors(), nodes.joined_at()
    before = processor_seconds(actors)
    ended = deployment.finish_sweep(sweep)
    hosts = processor_seconds(actors) - before

    _check_every_trial_counts_once(deployment, sweep, ended, 12)
    attempts = _attempts(deployment, sweep)
    first_claims = sorted(
        min(_seconds(attempt["started_at"]) for attempt in attempts if attempt["worker"] == worker)
        for worker in {attempt["worker"] for attempt in attempts}
    )
    seconds = sum(_seconds(attempt["ended_at"]) - _seconds(attempt["started_at"]) for attempt in attempts)
    joins = [f"{claim - join:.1f}" for join, claim in zip(joined, first_claims, strict=True)]
    logger.warning("seconds from a node's socket to its first claim: %s", ", ".join(joins))
    share = hosts / seconds
    logger.warning("processor seconds of the actors: %.2f of %.1f s of trials: %.2f %%", hosts, seconds, 100 * share)
    assert share <= 0.01
    wait_until(lambda: not _living(deployment), "no worker")
    wait_until(lambda: not nodes.raylets(), "no node")


def test_kills_of_controller_raylet_and_head_lose_no_trial(
    deployment: Deployment, nodes: FakeNodes, small_sweep: dict[str, Any]
) -> None:
    small_sweep["budget"] = {"trials": 30, "parallel": 3}
    deployment.start_service()
    controller = _start_controller(deployment, nodes)
    sweep = deployment.submit(small_sweep)
    wait_until(lambda: len(_living(deployment)) == 3, "three workers")

    deployment.kill(controller)
    controller = _start_controller(deployment, nodes)
    _wait_for_trials(deployment, sweep, 3)
    assert len(nodes.actors()) == 3

    lost = nodes.raylets()[0]
    os.kill(lost, signal.SIGKILL)
    recovered = wait_until(lambda: len(set(nodes.raylets()) - {lost}) == 3 and len(nodes.actors()) == 3, "a new node")
    logger.warning("a worker on a new node %.1f s after its raylet was killed", recovered)
    _wait_for_trials(deployment, sweep, 3)

    nodes.kill_head()
    gone = wait_until(lambda: not nodes.raylets(), "nodes without a head end")
    nodes.start_head()
    back = wait_until(lambda: len(nodes.actors()) == 3, "three workers by the new head")
    logger.warning(
        "nodes without a head ended after %.1f s; three workers %.1f s after the new head's start", gone, back
    )

    ended = deployment.finish_sweep(sweep)
    assert controller.poll() is None
    _check_every_trial_counts_once(deployment, sweep, ended, 30)
    logger.warning("attempts: %s", dict(Counter(attempt["outcome"] for attempt in _attempts(deployment, sweep))))


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "its node is preempted"])
def test_an_actor_that_is_taken_away_gives_its_trial_back_uncharged(
    deployment: Deployment, nodes: FakeNodes, small_sweep: dict[str, Any], how: str
) -> None:
    small_sweep["budget"] = {"trials": 1, "parallel": 1}
    small_sweep["training"] |= {"steps": 1000, "learning_rate": 1e-3}
    deployment.start_service()
    _start_controller(deployment, nodes)
    sweep = deployment.submit(small_sweep)
    deployment.events(sweep, until=lambda event: event["kind"] == "trial.report")
    (actor,) = nodes.actors()
    worker = worker_of(actor)

    if how.startswith("SIG"):
        os.kill(actor, signal.Signals[how])
    else:
        nodes.preempt_first_node()

    wait_until(lambda: not Path(f"/proc/{worker}").exists(), "its worker ends")
    ended = deployment.finish_sweep(sweep)
    _check_every_trial_counts_once(deployment, sweep, ended, 1)
    assert [attempt["outcome"] for attempt in _attempts(deployment, sweep)] == ["released", "complete"]


def _start_controller(deployment: Deployment, nodes: FakeNodes) -> subprocess.Popen[bytes]:
    limits = ("--max-cpu-workers", "3", "--idle-seconds", "10")
    return deployment.start("fleet", "fleet", "ray", "--server", deployment.url, "--address", nodes.address, *limits)


def _living(deployment: Deployment) -> list[str]:
    return [worker["name"] for worker in deployment.get("/v1/workers?alive=true")["items"]]


def _wait_for_trials(deployment: Deployment, sweep: str, count: int) -> None:
    """Until so many more trials are complete."""
    done = deployment.get(f"/v1/sweeps/{sweep}")["progress"]["complete"] + count
    wait_until(lambda: deployment.get(f"/v1/sweeps/{sweep}")["progress"]["complete"] >= done, "more trials")


def _attempts(deployment: Deployment, sweep: str) -> list[dict[str, Any]]:
    details = [deployment.get(f"/v1/trials/{trial['id']}") for trial in deployment.trials(sweep)]
    return [attempt for detail in details for attempt in detail["attempts"]]


def _check_every_trial_counts_once(deployment: Deployment, sweep: str, ended: dict[str, Any], count: int) -> None:
    assert (ended["state"], ended["reason"]) == ("completed", "budget_exhausted"), deployment.log("fleet")
    trials = deployment.trials(sweep)
    assert [(trial["number"], trial["state"]) for trial in trials] == [(number, "complete") for number in range(count)]
    outcomes = Counter(attempt["outcome"] for attempt in _attempts(deployment, sweep))
    assert outcomes["complete"] == count
    events = deployment.events(sweep, until=lambda event: event["sequence"] == ended["version"])
    told = [event["trial"] for event in events if event["kind"] == "trial.ended"]
    assert sorted(told) == sorted(trial["id"] for trial in trials)


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
