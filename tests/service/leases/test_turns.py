"""Whose trials a worker is given: by priority, fairly between equal sweeps, and within the quotas of projects."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.auth import projects
from service.database.access_models import Project
from service.database.models import Sweep, Trial, Worker
from service.database.sessions import Database
from service.errors import ForbiddenError
from service.fleet import quotas
from service.leases import holders, queue
from service.leases import schemas as lease_schemas
from service.leases.claiming import lapses
from service.leases.claiming.turns import Waiting
from service.leases.claiming.turns import turns as turns_of
from service.leases.row_locks import Claims
from service.sweeps import sweeps
from tests.service.rows import Rows, count_claimable

FINISH = lease_schemas.LeaseFinish(outcome="complete", metrics={"latency_ms_p50": 1.5}, claim=True)


class Turns:
    """Sweeps of priorities and projects, and one worker of many slots."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.database = rows.database
        self.worker = rows.worker(slots=64)

    def sweep(self, queued: int, *, priority: int = 0, project: str = "default", parallel: int = 100) -> str:
        sweep = self.rows.sweep(queued, parallel=parallel)
        self.rows.update(Sweep, sweep, priority=priority, project=project)
        moved = sa.update(Trial).where(Trial.sweep_id == sweep).values(project=project)
        self.database.write(lambda session: session.execute(moved).close())
        return sweep

    def project(self, name: str, **limits: int | None) -> None:
        def write(session: Session) -> None:
            if projects.find(session, name) is None:
                projects.create(session, name)
            quotas.change(session, name, quotas.Change(**limits))

        self.database.write(write)

    def claim(self, at_most: int) -> list[str]:
        """The sweeps of the trials that the worker is given."""
        leases = self.database.write(lambda session: queue.claim_several(session, self.worker, 30, at_most))
        return [lease.sweep for lease in leases]


@pytest.fixture
def turns(rows: Rows) -> Turns:
    return Turns(rows)


# --- priorities and fairness ------------------------------------------------------------------------------------------


def test_a_higher_priority_comes_first(turns: Turns) -> None:
    low, none, high = turns.sweep(2, priority=-1), turns.sweep(2), turns.sweep(2, priority=3)
    assert turns.claim(6) == [high, high, none, none, low, low]


def test_sweeps_of_equal_priority_run_equally_many_trials(turns: Turns) -> None:
    first = turns.sweep(9)
    assert turns.claim(3) == [first] * 3
    second, third = turns.sweep(9), turns.sweep(9, parallel=1)
    assert Counter(turns.claim(6)) == Counter({second: 4, first: 1, third: 1})
    assert turns.rows.find_sweep(first).running_count == turns.rows.find_sweep(second).running_count == 4


def test_the_slot_that_a_finish_frees_goes_to_the_sweep_that_runs_fewer(turns: Turns) -> None:
    first = turns.sweep(9)
    leases = turns.database.write(lambda session: queue.claim_several(session, turns.worker, 30, 3))
    second = turns.sweep(2)
    given: list[str] = []
    for lease in leases:
        finish = queue.FinishThatClaims(lease.trial, lease.attempt, FINISH, 30)
        (finished,) = turns.database.write(lambda session, finish=finish: queue.finish_and_claim(session, [finish]))
        assert finished.lease is not None
        given.append(finished.lease.sweep)
    assert given == [second, first, first]


def test_what_lapsed_is_taken_before_what_never_ran(turns: Turns) -> None:
    low = turns.sweep(1, priority=-5)
    (lease,) = turns.database.write(lambda session: queue.claim_several(session, turns.worker, 30, 1))
    turns.sweep(1, priority=5)
    turns.rows.lapse(lease.trial)
    assert turns.claim(1) == [low]


def test_another_priority_counts_from_the_next_claim_on(turns: Turns) -> None:
    first, second = turns.sweep(2), turns.sweep(2)
    turns.database.write(lambda session: sweeps.prioritize(session, second, 1).id)
    assert turns.claim(3) == [second, second, first]
    assert turns.rows.kinds(second).count("sweep.priority") == 1
    turns.database.write(lambda session: sweeps.prioritize(session, second, 1).id)
    assert turns.rows.kinds(second).count("sweep.priority") == 1


# --- quotas -----------------------------------------------------------------------------------------------------------


def test_a_project_runs_no_more_than_its_quota(turns: Turns) -> None:
    turns.project("small", max_running_trials=2)
    ours, more, other = (turns.sweep(5, project=project) for project in ("small", "small", "default"))
    assert Counter(turns.claim(7)) == Counter({ours: 1, more: 1, other: 5})
    assert turns.claim(1) == []
    assert count_claimable(turns.database, turns.worker) == 0
    turns.project("small", max_running_trials=3)
    assert turns.claim(5) == [ours]
    turns.project("small", max_running_trials=None)
    assert len(turns.claim(20)) == 7


def test_a_quota_with_room_changes_no_turn(turns: Turns) -> None:
    turns.project("small", max_running_trials=9)
    ours, other = turns.sweep(9, project="small"), turns.sweep(9)
    assert turns.claim(6) == [ours, other] * 3
    first = turns.sweep(9, project="small", priority=1)
    assert turns.claim(4) == [first] * 4


def test_an_ended_trial_makes_room_in_the_quota(turns: Turns) -> None:
    turns.project("default", max_running_trials=1)
    turns.sweep(2)
    (lease,) = turns.database.write(lambda session: queue.claim_several(session, turns.worker, 30, 5))
    assert turns.claim(1) == []
    turns.database.write(lambda session: holders.finish(session, lease.trial, lease.attempt, FINISH))
    assert len(turns.claim(5)) == 1


def test_a_lapsed_lease_needs_no_room_in_the_quota(turns: Turns) -> None:
    turns.project("default", max_running_trials=1)
    turns.sweep(2)
    (lease,) = turns.database.write(lambda session: queue.claim_several(session, turns.worker, 30, 5))
    turns.rows.lapse(lease.trial)
    again = turns.database.write(lambda session: queue.claim_several(session, turns.worker, 30, 5))
    assert [each.trial for each in again] == [lease.trial]


def test_processes_that_claim_at_once_keep_the_quota(postgres_url: str, make_rows: type[Rows]) -> None:
    both = (Database(postgres_url), Database(postgres_url))
    turns = Turns(make_rows(both[0]))
    workers = [turns.rows.worker(slots=64) for _ in range(8)]
    turns.project("default", max_running_trials=5)
    for _ in range(8):
        turns.sweep(3)

    def take(which: int) -> int:
        database, worker = both[which % 2], workers[which]
        need = Claims(worker, 3)
        return len(database.submit(lambda session: queue.claim_several(session, worker, 30, 3), needs=need).result())

    with ThreadPoolExecutor(8) as threads:
        taken = sum(threads.map(take, range(8)))
    taken += sum(take(which) for which in range(8))
    assert taken == 5
    for database in both:
        database.close()


def test_a_lower_limit_of_priorities_lowers_those_above_it(turns: Turns) -> None:
    turns.project("small")
    high, low = (turns.sweep(1, priority=priority, project="small") for priority in (4, -2))
    turns.project("small", max_priority=1)
    assert [turns.rows.find_sweep(sweep).priority for sweep in (high, low)] == [1, -2]
    with pytest.raises(ForbiddenError, match="at most 1"):
        turns.database.write(lambda session: sweeps.prioritize(session, low, 2))


def test_limits_that_are_not_named_stay(turns: Turns) -> None:
    turns.project("small", max_running_trials=3, max_priority=1)
    turns.project("small", max_priority=None)
    project = turns.database.read(lambda session: session.get_one(Project, "small"))
    assert (project.max_running_trials, project.max_priority) == (3, None)


# --- which sweeps are locked ------------------------------------------------------------------------------------------


def test_only_those_sweeps_are_locked_that_give_trials() -> None:
    waiting = [Waiting("b", 0, 1, 9), Waiting("a", 0, 0, 9), Waiting("c", 0, 4, 9), Waiting("d", 1, 3, 1)]
    assert turns_of(waiting, 1) == ["d"]
    assert turns_of(waiting, 4) == ["d", "a", "a", "b"]
    assert len(turns_of(waiting, 99)) == 28
    assert turns_of([], 3) == []
    with_quota = [each._replace(quota="p") if each.id in "ab" else each for each in waiting]
    assert turns_of(with_quota, 4) == ["d", "a"]


# --- what has lapsed --------------------------------------------------------------------------------------------------


def test_lapsed_leases_are_looked_for_now_and_then(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lapses, "LOOK_SECONDS", 3600.0)
    turns.sweep(3)
    (lease,) = turns.database.write(lambda session: queue.claim_several(session, turns.worker, 30, 1))
    turns.rows.lapse(lease.trial)
    assert len(turns.claim(3)) == 2
    assert turns.claim(1) == []
    assert count_claimable(turns.database, turns.worker) == 0
    # Another kind of worker has not looked yet.
    other = turns.rows.worker(slots=1, labels={"site": "a"})
    (again,) = turns.database.write(lambda session: queue.claim_several(session, other, 30, 1))
    assert again.trial == lease.trial


def test_a_worker_without_a_free_slot_sees_nothing_that_lapsed(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    turns.sweep(2)
    lapsed, held = turns.database.write(lambda session: queue.claim_several(session, turns.worker, 30, 2))
    turns.rows.lapse(lapsed.trial)
    monkeypatch.setattr(lapses, "LOOK_SECONDS", 3600.0)
    other = turns.rows.worker(slots=1, labels={"site": "a"})
    turns.rows.update(Trial, held.trial, worker_id=other)
    assert turns.database.write(lambda session: queue.claim(session, other, 30)) is None
    turns.rows.update(Worker, other, slots=2)
    again = turns.database.write(lambda session: queue.claim(session, other, 30))
    assert again is not None
    assert again.trial == lapsed.trial
