"""Two API processes on one PostgreSQL: who leads a sweep when the leader sleeps, wakes and dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from service.database.models import Ask, Event, Sweep, Trial
from service.database.sessions import Database
from tests.acceptance.deployment import Deployment
from tests.service.registrations import CAPABILITIES

SWEEP: dict[str, Any] = {
    "name": "led",
    "task": "probe",
    "model": {
        "kind": "linear",
        "linear": {
            "in_features": {"min": 8, "max": 256, "step": 8},
            "out_features": {"min": 8, "max": 256, "step": 8},
        },
    },
    "inference": {"batch_size": 1, "sequence_length": 8},
    "objectives": [{"metric": "latency_ms_p50", "goal": "minimize"}],
    "budget": {"trials": 30, "parallel": 2},
    "search": {"sampler": "random", "seed": 0, "reuse": False},
}
SCORES = {"latency_ms_p50": 1.0, "memory_bytes": 1000.0}


class Led(NamedTuple):
    leader: str | None
    epoch: int


class Team:
    """Two API processes, one sweep, and a pretend worker that claims and finishes at whichever process it is told."""

    def __init__(self, database: Database, database_url: str, folder: Path) -> None:
        self.database = database
        self.services: list[Deployment] = []
        for name in ("first", "second"):
            (folder / name).mkdir()
            self.services.append(Deployment(database_url, folder / name))
        self.first = self.services[0].start_service()
        device = {"kind": "cpu", "uuid": "cpu-1", "model": "Test CPU", "memory_bytes": 2**33}
        registration = {"name": "worker", "device": device, "targets": [CAPABILITIES]}
        self.worker = self._post(0, "/v1/workers", registration)["id"]
        self.sweep = self._post(0, "/v1/sweeps", SWEEP)["id"]
        self.services[0].wait_until(lambda: self.led().leader is not None, "the first process leads")
        self.second = self.services[1].start_service()

    def _post(self, at: int, path: str, body: dict[str, Any]) -> Any:
        answer = self.services[at].http.post(path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def led(self) -> Led:
        columns = sa.select(Sweep.leader_id, Sweep.leader_epoch).where(Sweep.id == self.sweep)
        return Led(*self.database.read(lambda session: session.execute(columns).one()))

    def asked(self) -> int:
        count = sa.select(sa.func.count()).select_from(Ask).where(Ask.sweep_id == self.sweep)
        return self.database.read(lambda session: session.scalars(count).one())

    def end_a_trial(self, at: int) -> None:
        """Claim and finish one, when there is one to claim."""
        lease = None

        def claimed() -> bool:
            nonlocal lease
            lease = self._post(at, "/v1/leases", {"worker": self.worker})
            return lease is not None

        self.services[at].wait_until(claimed, "a trial can be claimed")
        assert lease is not None
        path = f"/v1/leases/{lease['trial']}/{lease['attempt']}:finish"
        self._post(at, path, {"outcome": "complete", "metrics": SCORES})

    def wait(self, condition: Any, what: str) -> None:
        self.services[0].wait_until(condition, what)


@pytest.fixture
def team(postgres_url: str, tmp_path: Path) -> Iterator[Team]:
    database = Database(postgres_url)
    team = Team(database, postgres_url, tmp_path)
    yield team
    os.kill(team.first.pid, signal.SIGCONT)
    for service in team.services:
        service.close()
    database.close()


@pytest.mark.slow
def test_a_leader_that_sleeps_loses_the_sweep_and_one_that_dies_gives_it_back(team: Team) -> None:
    team.end_a_trial(1)
    first, before = team.led(), team.asked()

    os.kill(team.first.pid, signal.SIGSTOP)
    # What ended while it slept is the work that it would do twice.
    for _ in range(3):
        team.end_a_trial(1)
    team.wait(lambda: team.led().epoch > first.epoch and team.asked() > before, "the second process leads and asks")
    second = team.led()
    assert second.leader != first.leader

    os.kill(team.first.pid, signal.SIGCONT)
    # Its scheduler is told of each, and has the sweep in memory as it was.
    for _ in range(6):
        team.end_a_trial(0)
    assert _is_whole(team)

    team.services[1].kill(team.second)
    before = team.asked()
    for _ in range(4):
        team.end_a_trial(0)
    team.wait(lambda: team.asked() > before, "the first process leads again and asks")
    third = team.led()
    assert (third.leader, third.epoch > second.epoch) == (first.leader, True)

    for _ in range(SWEEP["budget"]["trials"] - 14):
        team.end_a_trial(0)
    team.wait(lambda: team.database.read(lambda s: s.get_one(Sweep, team.sweep).state) == "completed", "it completes")
    assert _is_whole(team)


def _is_whole(team: Team) -> bool:
    """Nothing was written by two leaders: numbers, asks and events each once, no point twice, one ending a trial."""

    def look(session: Any) -> bool:
        trials = session.scalars(sa.select(Trial).where(Trial.sweep_id == team.sweep).order_by(Trial.number)).all()
        asks = session.scalars(sa.select(Ask.ask).where(Ask.sweep_id == team.sweep).order_by(Ask.ask)).all()
        events = session.scalars(sa.select(Event).where(Event.sweep_id == team.sweep).order_by(Event.sequence)).all()
        ended = [event.trial_id for event in events if event.kind == "trial.ended"]
        assert [trial.number for trial in trials] == list(range(len(trials)))
        assert asks == list(range(len(asks)))
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert len({str(sorted(trial.parameters.items())) for trial in trials}) == len(trials)
        assert sorted(ended) == sorted(trial.id for trial in trials if trial.state == "complete")
        return True

    return team.database.read(look)
