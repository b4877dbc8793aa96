"""A worker holds no more leases than it has slots, takes several at once, and its next one with a finish."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.database.models import Worker
from service.database.sessions import Database
from service.errors import LeaseLostError
from service.leases import holders, queue
from service.leases import schemas as lease_schemas
from service.leases.row_locks import Claims, FinishesAndClaims
from tests.service.leases.test_row_locks import held_back
from tests.service.leases.test_workers import REGISTRATION
from tests.service.rows import Rows
from tests.service.statements import recorded_statements

FINISH = lease_schemas.LeaseFinish(outcome="complete", metrics={"latency_ms_p50": 1.5}, claim=True)
FINISHED: dict[str, Any] = {"outcome": "complete", "metrics": {"latency_ms_p50": 1.5}, "claim": True}


def _claim(database: Database, worker: str, at_most: int = 1) -> list[lease_schemas.Lease]:
    return database.write(lambda session: queue.claim_several(session, worker, 30, at_most))


def _finish(
    database: Database, lease: lease_schemas.Lease, body: lease_schemas.LeaseFinish = FINISH
) -> lease_schemas.FinishedTrial:
    finish = queue.FinishThatClaims(lease.trial, lease.attempt, body, 30)
    return database.write(lambda session: queue.finish_and_claim(session, [finish])[0])


def _path(lease: dict[str, Any], verb: str = "finish") -> str:
    return f"/v1/leases/{lease['trial']}/{lease['attempt']}:{verb}"


# --- what a worker holds ----------------------------------------------------------------------------------------------


def test_a_worker_that_says_no_slots_has_one(client: TestClient, served_rows: Rows) -> None:
    worker = client.post("/v1/workers", json=REGISTRATION).json()["id"]
    served_rows.sweep(2)
    lease = client.post("/v1/leases", json={"worker": worker}).json()
    assert client.post("/v1/leases", json={"worker": worker}).status_code == 204
    (listed,) = client.get("/v1/workers").json()["items"]
    assert (listed["slots"], listed["trial"], listed["trials"]) == (1, lease["trial"], [lease["trial"]])
    client.post(_path(lease), json=FINISHED | {"claim": False})
    assert client.post("/v1/leases", json={"worker": worker}).json()["number"] == 1


def test_a_worker_is_listed_with_what_its_slots_do(client: TestClient, served_rows: Rows) -> None:
    worker = client.post("/v1/workers", json=REGISTRATION | {"slots": 3}).json()["id"]
    served_rows.sweep(2)
    leases = client.post("/v1/leases", json={"worker": worker, "at_most": 3}).json()["leases"]
    (listed,) = client.get("/v1/workers").json()["items"]
    assert (listed["slots"], listed["trials"]) == (3, [lease["trial"] for lease in leases])
    page = client.get("/workers").text
    assert "2 of 3 busy" in page
    assert page.count('<a href="/trials/') == 2


@pytest.mark.parametrize("slots", [0, 65, 1.5, "8", None])
def test_slots_that_cannot_be_are_refused(client: TestClient, slots: Any) -> None:
    answer = client.post("/v1/workers", json=REGISTRATION | {"slots": slots})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/slots")


def test_claims_at_once_never_exceed_the_slots(rows: Rows) -> None:
    rows.sweep(30)
    worker = rows.worker(slots=5)

    def take(at_most: int) -> list[str]:
        return [lease.trial for lease in _claim(rows.database, worker, at_most)]

    with ThreadPoolExecutor(8) as threads:
        taken = [trial for trials in threads.map(take, [1, 2, 3, 1, 2, 3, 4, 4]) for trial in trials]
    taken += take(5)
    assert len(taken) == len(set(taken)) == 5
    assert take(1) == []


def test_claims_that_share_a_transaction_never_exceed_the_slots(rows: Rows) -> None:
    rows.sweep(30)
    worker, other = rows.worker(slots=3), rows.worker(slots=2)
    database: Database = rows.database
    claims = [
        database.submit(
            lambda session, each=each: queue.claim_several(session, each, 30, 2), needs=Claims(each, at_most=2)
        )
        for each in (worker, other, worker, other, worker)
    ]
    held = [lease.trial for claim in claims for lease in claim.result()]
    held += [lease.trial for each in (worker, other) for lease in _claim(database, each, 5)]
    assert len(held) == len(set(held)) == 5


def test_a_lapsed_lease_fills_no_slot(rows: Rows) -> None:
    rows.sweep(2)
    worker = rows.worker(slots=1)
    (lease,) = _claim(rows.database, worker)
    assert _claim(rows.database, worker) == []
    rows.lapse(lease.trial)
    (again,) = _claim(rows.database, worker)
    assert (again.trial, again.attempt) == (lease.trial, 2)


# --- several at once --------------------------------------------------------------------------------------------------


def test_at_most_so_many_leases_come_at_once(client: TestClient, served_rows: Rows) -> None:
    worker = served_rows.worker(slots=4)
    sweep = served_rows.sweep(6)
    first = client.post("/v1/leases", json={"worker": worker, "at_most": 3}).json()
    second = client.post("/v1/leases", json={"worker": worker, "at_most": 3}).json()
    assert [lease["number"] for lease in first["leases"] + second["leases"]] == [0, 1, 2, 3]
    assert client.post("/v1/leases", json={"worker": worker, "at_most": 3}).status_code == 204
    assert served_rows.find_sweep(sweep).running_count == 4


def test_several_leases_keep_the_parallel_limits_of_their_sweeps(rows: Rows) -> None:
    first, second = rows.sweep(5, parallel=2), rows.sweep(1)
    leases = _claim(rows.database, rows.worker(slots=8), 8)
    assert [lease.sweep for lease in leases] == [first, second, first]


def test_a_claim_of_several_that_is_sent_again_gets_those_that_are_held(client: TestClient, served_rows: Rows) -> None:
    worker = served_rows.worker(slots=2)
    served_rows.sweep(4)
    key = {"Idempotency-Key": "a-claim"}
    body = {"worker": worker, "at_most": 2}
    given = client.post("/v1/leases", json=body, headers=key).json()["leases"]
    assert client.post("/v1/leases", json=body, headers=key).json()["leases"] == given
    client.post(_path(given[0]), json=FINISHED | {"claim": False})
    assert client.post("/v1/leases", json=body, headers=key).json()["leases"] == given[1:]
    client.post(_path(given[1]), json=FINISHED | {"claim": False})
    then = client.post("/v1/leases", json=body, headers=key).json()["leases"]
    assert [lease["number"] for lease in then] == [2, 3]


@pytest.mark.parametrize("at_most", [0, 65, "2", 1.5])
def test_a_number_of_leases_that_cannot_be_is_refused(client: TestClient, served_rows: Rows, at_most: Any) -> None:
    answer = client.post("/v1/leases", json={"worker": served_rows.worker(), "at_most": at_most})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/at_most")


# --- the next with a finish -------------------------------------------------------------------------------------------


def test_a_finish_brings_the_next_lease(client: TestClient, served_rows: Rows) -> None:
    worker = served_rows.worker(slots=1)
    sweep = served_rows.sweep(2, parallel=1)
    lease = client.post("/v1/leases", json={"worker": worker}).json()
    answer = client.post(_path(lease), json=FINISHED).json()
    assert (answer["state"], answer["lease"]["number"], answer["lease"]["attempt"]) == ("complete", 1, 1)
    last = client.post(_path(answer["lease"]), json=FINISHED).json()
    assert (last["state"], last["lease"]) == ("complete", None)
    assert served_rows.find_sweep(sweep).running_count == 0


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "a-finish"}])
def test_the_same_finish_again_answers_the_same_lease_while_it_is_held(
    client: TestClient, served_rows: Rows, key: dict[str, str]
) -> None:
    worker = served_rows.worker(slots=1)
    served_rows.sweep(3)
    lease = client.post("/v1/leases", json={"worker": worker}).json()
    given = client.post(_path(lease), json=FINISHED, headers=key).json()["lease"]
    again = client.post(_path(lease), json=FINISHED, headers=key)
    assert (again.status_code, again.json()["lease"]) == (200, given)
    then = client.post(_path(given), json=FINISHED | {"claim": False})
    assert (then.status_code, then.json()["lease"]) == (200, None)
    again = client.post(_path(lease), json=FINISHED, headers=key)
    assert (again.status_code, again.json()["lease"]) == (200, None)


def test_a_lease_that_lapsed_is_not_answered_again(rows: Rows) -> None:
    rows.sweep(2)
    worker = rows.worker(slots=1)
    (lease,) = _claim(rows.database, worker)
    given = _finish(rows.database, lease).lease
    assert given is not None
    rows.lapse(given.trial)
    assert _finish(rows.database, lease).lease is None


def test_a_finish_of_an_older_version_may_be_sent_again_with_a_claim(rows: Rows) -> None:
    rows.sweep(2)
    (lease,) = _claim(rows.database, rows.worker())
    body = FINISH.model_copy(update={"claim": False})
    rows.database.write(lambda session: holders.finish(session, lease.trial, lease.attempt, body))
    assert _finish(rows.database, lease).lease is None


def test_a_finish_of_a_worker_that_has_signed_off_counts(rows: Rows) -> None:
    rows.sweep(2)
    worker = rows.worker()
    (lease,) = _claim(rows.database, worker)
    rows.update(Worker, worker, signed_off_at=1.0)
    finished = _finish(rows.database, lease)
    assert (finished.state, finished.lease) == ("complete", None)


def test_a_worker_whose_slots_are_full_is_given_nothing_with_a_finish(rows: Rows) -> None:
    """Two hold its one slot: it was registered with more, say."""
    rows.sweep(4)
    worker = rows.worker(slots=3)
    leases = _claim(rows.database, worker, 3)
    rows.update(Worker, worker, slots=2)
    assert _finish(rows.database, leases[0]).lease is None
    assert _finish(rows.database, leases[1]).lease is not None


def test_finishes_that_share_a_transaction_end_and_claim_together(rows: Rows) -> None:
    sweep, database = rows.sweep(5, parallel=3), rows.database
    leases = [_claim(database, rows.worker(slots=1))[0] for _ in range(3)]

    def finish_at_once(
        finishes: Sequence[tuple[lease_schemas.Lease, int]],
    ) -> list[Future[lease_schemas.FinishedTrial]]:
        go_on = held_back(database)
        answers = [
            database.submit_request(
                queue.finish_and_claim,
                queue.FinishThatClaims(lease.trial, attempt, FINISH, 30),
                needs=FinishesAndClaims(lease.trial),
            )
            for lease, attempt in finishes
        ]
        go_on()
        return answers

    with recorded_statements() as sent:
        answers = [answer.result(30) for answer in finish_at_once([(lease, 1) for lease in leases])]
    given = [answer.lease for answer in answers if answer.lease is not None]
    assert [answer.state for answer in answers] == ["complete"] * 3
    assert len({lease.trial for lease in given}) == 2
    assert len([text for text in sent if text.startswith("UPDATE sweeps")]) == 2
    row = rows.find_sweep(sweep)
    assert (row.running_count, row.counts) == (2, {"complete": 3, "running": 2, "queued": 0})

    # A finish that comes twice, beside one of an attempt that is not there.
    first, second = given
    twice = finish_at_once([(first, 1), (second, 9), (first, 1)])
    assert [type(answer.exception(30)) for answer in twice] == [type(None), LeaseLostError, type(None)]
    assert rows.find_sweep(sweep).counts == {"complete": 4, "running": 1, "queued": 0}
    assert rows.trial(second.trial).state == "running"


def test_workers_that_finish_at_once_share_the_queue(rows: Rows) -> None:
    first, second = rows.sweep(20, parallel=4), rows.sweep(20)
    workers = [rows.worker(slots=2) for _ in range(4)]
    database: Database = rows.database

    def work(worker: str) -> list[str]:
        done: list[str] = []
        lease: lease_schemas.Lease | None = _claim(database, worker)[0]
        while lease is not None:
            done.append(lease.trial)
            finish = queue.FinishThatClaims(lease.trial, lease.attempt, FINISH, 30)
            needs = FinishesAndClaims(lease.trial)
            lease = database.submit_request(queue.finish_and_claim, finish, needs=needs).result().lease
        return done

    with ThreadPoolExecutor(4) as threads:
        done = [trial for trials in threads.map(work, workers) for trial in trials]
    while left := _claim(database, workers[0]):
        done.append(left[0].trial)
        _finish(database, left[0], FINISH.model_copy(update={"claim": False}))
    assert len(done) == len(set(done)) == 40
    for sweep in (first, second):
        row = rows.find_sweep(sweep)
        assert (row.running_count, row.counts["complete"]) == (0, 20)
    assert {rows.trial(trial).attempt for trial in done} == {1}
