"""Finishes that share a transaction: one that is refused is refused alone, and each is counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from sqlalchemy.orm import Session

from service.common.metrics import WAIT_SECONDS
from service.database.models import Sweep
from service.errors import LeaseLostError, NotFoundError, UnprocessableError
from service.events import events
from service.leases import holders, queue
from service.leases import schemas as lease_schemas
from service.leases.row_locks import ChangesTrial, FinishesAndClaims
from tests.service.leases.test_row_locks import held_back
from tests.service.rows import Rows

Answer = lease_schemas.FinishedTrial | BaseException


def _body(latency_ms: float = 1.5, outcome: str = "complete", **more: Any) -> lease_schemas.LeaseFinish:
    metrics = {} if outcome == "failed" else {"latency_ms_p50": latency_ms, "device_seconds": 2.0}
    return lease_schemas.LeaseFinish.model_validate({"outcome": outcome, "metrics": metrics, "claim": True, **more})


COMPLETE = _body()
NOT_MEASURED = COMPLETE.model_copy(update={"metrics": {}})


class Finishes:
    """Leases of workers of one slot each, and finishes that come at once."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.database = rows.database

    def leases(self, count: int) -> list[lease_schemas.Lease]:
        return [self.claim(self.rows.worker(slots=1)) for _ in range(count)]

    def claim(self, worker: str) -> lease_schemas.Lease:
        lease = self.database.write(lambda session: queue.claim(session, worker, 30))
        assert lease is not None
        return lease

    def submit(
        self, lease: lease_schemas.Lease, body: lease_schemas.LeaseFinish
    ) -> Future[lease_schemas.FinishedTrial]:
        finish = queue.FinishThatClaims(lease.trial, lease.attempt, body, 30)
        return self.database.submit_request(queue.finish_and_claim, finish, needs=FinishesAndClaims(lease.trial))

    def at_once(self, *finishes: tuple[lease_schemas.Lease, lease_schemas.LeaseFinish]) -> list[Answer]:
        go_on = held_back(self.database)
        futures = [self.submit(lease, body) for lease, body in finishes]
        go_on()
        return [future.exception(30) or future.result(30) for future in futures]

    def check(self, sweep_id: str, **counts: int) -> None:
        """The sweep's counts, and the numbers of its events; each trial ended and began as often as was counted."""
        sweep = self.rows.find_sweep(sweep_id)
        assert {state: number for state, number in sweep.counts.items() if number} == counts
        assert sweep.running_count == counts.get("running", 0)
        found = self.database.read(lambda session: events.read(session, sweep_id, 0, 1000))
        assert [event.sequence for event in found] == list(range(1, sweep.event_counter + 1))
        ends = Counter(event.data["state"] for event in found if event.kind == "trial.ended")
        assert ends == {state: number for state, number in counts.items() if state not in ("running", "queued")}
        assert max(Counter(event.trial_id for event in found if event.kind == "trial.ended").values(), default=0) <= 1


@pytest.fixture
def finishes(rows: Rows) -> Finishes:
    return Finishes(rows)


def _states(answers: Sequence[Answer]) -> list[object]:
    """How the trials ended; the type of the error where a finish was refused."""
    return [type(answer) if isinstance(answer, BaseException) else answer.state for answer in answers]


def test_trials_of_two_sweeps_that_end_at_once_are_counted_in_theirs(finishes: Finishes) -> None:
    first, second = finishes.rows.sweep(3), finishes.rows.sweep(3)
    leases = finishes.leases(6)
    failed, infeasible = (
        _body(outcome="failed", reason="out of memory"),
        _body(outcome="infeasible", reason="it needs too much memory"),
    )
    bodies = {first: iter([COMPLETE, failed, COMPLETE]), second: iter([infeasible, COMPLETE, COMPLETE])}
    finished = [(lease, next(bodies[lease.sweep])) for lease in leases]
    answers = finishes.at_once(*finished)
    assert _states(answers) == [body.outcome for _, body in finished]
    finishes.check(first, complete=2, failed=1)
    finishes.check(second, complete=2, infeasible=1)
    assert [finishes.rows.find_sweep(sweep).device_seconds for sweep in (first, second)] == [4.0, 6.0]


def test_a_finish_that_is_refused_is_refused_alone(finishes: Finishes) -> None:
    sweep = finishes.rows.sweep(5)
    first, invalid, last = finishes.leases(3)
    unknown = first.model_copy(update={"trial": "0" * len(first.trial)})
    answers = finishes.at_once((first, COMPLETE), (invalid, NOT_MEASURED), (unknown, COMPLETE), (last, COMPLETE))
    assert _states(answers) == ["complete", UnprocessableError, NotFoundError, "complete"]
    finishes.check(sweep, complete=2, running=3)
    held = finishes.rows.trial(invalid.trial)
    assert (held.state, held.attempt, held.metrics) == ("running", 1, {})
    assert _states(finishes.at_once((invalid, COMPLETE))) == ["complete"]
    finishes.check(sweep, complete=3, running=2)


def test_waits_are_counted_once_where_a_neighbour_is_refused(finishes: Finishes) -> None:
    finishes.rows.sweep(2)
    waited, invalid = finishes.leases(2)
    counted = WAIT_SECONDS.labels("build_turn")

    def total() -> float:
        return next(sample.value for sample in counted.collect()[0].samples if sample.name.endswith("_total"))

    before = total()
    body = COMPLETE.model_copy(update={"measurements": {"waits": {"build_turn": 2.0}}})
    assert _states(finishes.at_once((waited, body), (invalid, NOT_MEASURED))) == ["complete", UnprocessableError]
    assert total() - before == 2.0


def test_a_finish_of_a_replaced_attempt_is_lost_and_the_new_one_counts(finishes: Finishes) -> None:
    sweep = finishes.rows.sweep(2)
    old, other = finishes.leases(2)
    finishes.rows.lapse(old.trial)
    new = finishes.claim(finishes.rows.worker(slots=1))
    assert (new.trial, new.attempt) == (old.trial, 2)
    answers = finishes.at_once((old, _body(9.0)), (other, COMPLETE), (new, COMPLETE))
    assert _states(answers) == [LeaseLostError, "complete", "complete"]
    assert finishes.rows.trial(new.trial).metrics["latency_ms_p50"] == 1.5
    finishes.check(sweep, complete=2)


def test_a_finish_of_a_cancelled_sweep_is_lost_alone(finishes: Finishes) -> None:
    cancelled, other = finishes.rows.sweep(1), finishes.rows.sweep(1)
    leases = finishes.leases(2)

    def cancel(session: Session) -> None:
        queue.cancel_open(session, cancelled, "as was asked")
        session.get_one(Sweep, cancelled).state = "cancelled"

    finishes.database.write(cancel)
    answers = finishes.at_once(*((lease, COMPLETE) for lease in leases))
    expected = {cancelled: LeaseLostError, other: "complete"}
    assert _states(answers) == [expected[lease.sweep] for lease in leases]
    finishes.check(cancelled, cancelled=1)
    finishes.check(other, complete=1)


def test_a_finish_that_is_repeated_beside_others_gets_its_lease_again(finishes: Finishes) -> None:
    sweep = finishes.rows.sweep(6)
    first, second, third = finishes.leases(3)
    (answer,) = finishes.at_once((first, COMPLETE))
    repeated, *others = finishes.at_once((first, COMPLETE), (second, COMPLETE), (third, COMPLETE))
    assert not isinstance(answer, BaseException)
    assert not isinstance(repeated, BaseException)
    assert answer.lease is not None
    assert repeated.lease == answer.lease
    assert _states(others) == ["complete"] * 2
    finishes.check(sweep, complete=3, running=3)
    # With other results it is none that was sent again.
    assert _states(finishes.at_once((first, _body(9.0)))) == [LeaseLostError]


def test_a_lapsed_lease_that_is_finished_is_no_neighbours_next_trial(finishes: Finishes) -> None:
    sweep = finishes.rows.sweep(2)
    leases = finishes.leases(2)
    for lease in leases:
        finishes.rows.lapse(lease.trial)
    assert _states(finishes.at_once(*((lease, COMPLETE) for lease in leases))) == ["complete"] * 2
    finishes.check(sweep, complete=2)


def test_a_worker_that_ends_several_trials_at_once_gets_as_many(finishes: Finishes) -> None:
    sweep = finishes.rows.sweep(5)
    worker = finishes.rows.worker(slots=2)
    leases = [finishes.claim(worker) for _ in range(2)]
    answers = finishes.at_once(*((lease, COMPLETE) for lease in leases))
    given = [answer.lease for answer in answers if not isinstance(answer, BaseException)]
    assert len({lease.trial for lease in given if lease is not None}) == 2
    finishes.check(sweep, complete=2, running=2, queued=1)


def test_slots_that_are_freed_at_once_go_to_sweeps_in_turn(finishes: Finishes) -> None:
    first = finishes.rows.sweep(9)
    leases = finishes.leases(4)
    second = finishes.rows.sweep(9)
    answers = finishes.at_once(*((lease, COMPLETE) for lease in leases))
    given = [answer.lease for answer in answers if not isinstance(answer, BaseException)]
    assert Counter(lease.sweep for lease in given if lease is not None) == {first: 2, second: 2}
    finishes.check(first, complete=4, running=2, queued=3)
    finishes.check(second, running=2, queued=7)


def test_a_finish_passes_no_report_of_its_trial(finishes: Finishes) -> None:
    finishes.rows.sweep(2)
    first, second = finishes.leases(2)
    go_on = held_back(finishes.database)
    ended = [finishes.submit(first, COMPLETE)]
    losses = lease_schemas.LeaseReport.model_validate({"losses": [{"step": 1, "tokens": 5}]})
    reported = finishes.database.submit(
        lambda session: holders.report(session, second.trial, second.attempt, losses, 30),
        needs=ChangesTrial(second.trial),
    )
    ended.append(finishes.submit(second, COMPLETE))
    go_on()
    assert [each.result(30).state for each in ended] == ["complete"] * 2
    assert reported.result(30).action == "continue"


def test_workers_that_are_not_alike_get_what_is_theirs(finishes: Finishes) -> None:
    open_to_all = finishes.rows.sweep(9)
    leases = [finishes.claim(finishes.rows.worker(slots=1, labels=labels)) for labels in ({}, {"site": "a"}, {})]
    labelled = finishes.rows.sweep(9)
    finishes.rows.update(Sweep, labelled, labels={"site": "a"}, priority=1)
    answers = finishes.at_once(*((lease, COMPLETE) for lease in leases))
    given = [answer.lease for answer in answers if not isinstance(answer, BaseException)]
    assert [lease.sweep for lease in given if lease is not None] == [open_to_all, labelled, open_to_all]
    finishes.check(open_to_all, complete=3, running=2, queued=4)
    finishes.check(labelled, running=1, queued=8)


def test_a_finish_without_a_claim_counts_beside_those_with_one(finishes: Finishes) -> None:
    sweep = finishes.rows.sweep(3, parallel=2)
    leases = finishes.leases(2)
    without = COMPLETE.model_copy(update={"claim": False})
    ended = finishes.database.submit(
        lambda session: holders.finish(session, leases[0].trial, leases[0].attempt, without),
        needs=FinishesAndClaims(leases[0].trial),
    )
    (answer,) = finishes.at_once((leases[1], COMPLETE))
    assert ended.result(30).state == "complete"
    assert not isinstance(answer, BaseException)
    assert answer.lease is not None
    finishes.check(sweep, complete=2, running=1)
