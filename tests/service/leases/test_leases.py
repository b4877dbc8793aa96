"""Leases over HTTP: the worker's side of the contract."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.database.models import Dataset, Sweep
from service.errors import InFlightError
from service.http import idempotency
from service.http.dependencies import Services
from service.leases import queue
from service.routes.leases import MAX_FINISH_BYTES
from tests.service.rows import Rows

FINISH = {"outcome": "complete", "metrics": {"latency_ms_p50": 1.5}}


@pytest.fixture
def worker(served_rows: Rows) -> str:
    return served_rows.worker()


def _claim(client: TestClient, worker: str, **headers: str) -> Any:
    return client.post("/v1/leases", json={"worker": worker}, headers=headers)


def _path(lease: dict[str, Any], verb: str) -> str:
    return f"/v1/leases/{lease['trial']}/{lease['attempt']}:{verb}"


def test_an_attempt_from_claim_to_finish(client: TestClient, served_rows: Rows, worker: str) -> None:
    sweep = served_rows.sweep(1)
    lease = _claim(client, worker).json()
    assert (lease["sweep"], lease["attempt"], lease["lease_seconds"]) == (sweep, 1, 30)
    assert client.post(_path(lease, "heartbeat")).json() == {
        "action": "continue",
        "reason": None,
        "lease_seconds": 30,
        "keep_training_state": False,
    }
    report = {"phase": "build", "progress": {"step": 1}, "losses": [{"step": 1, "training_loss": 2.0}], "log": "a"}
    assert client.post(_path(lease, "report"), json=report).json()["action"] == "continue"
    first = client.post(_path(lease, "finish"), json=FINISH)
    assert first.status_code == 200
    assert first.json()["state"] == "complete"
    again = client.post(_path(lease, "finish"), json=FINISH)
    assert (again.status_code, again.json()) == (200, first.json())
    stale = client.post(_path(lease, "finish"), json={"outcome": "failed", "reason": "broken"})
    assert stale.status_code == 409
    assert stale.json()["type"] == "urn:layersweep:problem:lease-lost"


def test_nothing_to_claim_is_204(client: TestClient, worker: str) -> None:
    answer = _claim(client, worker)
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_waiting_claim_gets_what_is_queued_meanwhile(client: TestClient, served_rows: Rows, worker: str) -> None:
    sweep = served_rows.sweep(0)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(_claim, client, worker, Prefer="wait=30")
        _wait_for_a_waiter(served_rows)
        served_rows.queue(sweep, 1)
        assert waiting.result(30).json()["sweep"] == sweep


def test_a_finish_that_found_nothing_stands_for_the_claim_after_it(
    client: TestClient, served_rows: Rows, worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = served_rows.sweep(1)
    lease = _claim(client, worker).json()
    assert client.post(_path(lease, "finish"), json=FINISH | {"claim": True}).json()["lease"] is None
    claims: list[int] = []
    claim = queue.claim_several

    def counted(session: Session, worker_id: str, lease_seconds: float, at_most: int) -> list[Any]:
        claims.append(at_most)
        return list(claim(session, worker_id, lease_seconds, at_most))

    monkeypatch.setattr(queue, "claim_several", counted)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(_claim, client, worker, Prefer="wait=30")
        _wait_for_a_waiter(served_rows)
        served_rows.queue(sweep, 1)
        assert waiting.result(30).json()["number"] == 1
    assert claims == [1]
    # Once: what was found then says nothing of a later claim.
    served_rows.queue(sweep, 1)
    assert _claim(client, worker, Prefer="wait=30").json()["number"] == 2


def test_more_workers_than_threads_may_wait(client: TestClient, served_rows: Rows, worker: str) -> None:
    sweep = served_rows.sweep(0)
    with ThreadPoolExecutor(60) as threads:
        waiting = [threads.submit(_claim, client, worker, Prefer="wait=30") for _ in range(60)]
        _wait_for_a_waiter(served_rows)
        assert client.get("/healthz").status_code == 200
        served_rows.queue(sweep, 60)
        claimed = {future.result(60).json()["number"] for future in waiting}
    assert claimed == set(range(60))


def test_a_claim_that_waits_in_vain_is_204(client: TestClient, worker: str) -> None:
    assert _claim(client, worker, Prefer="wait=1").status_code == 204


def test_a_worker_that_has_gone_while_it_waited_is_given_nothing(
    app: FastAPI, serve: Any, services: Services, make_rows: type[Rows]
) -> None:
    url = serve(app)
    rows = make_rows(services.database)
    gone, sweep = rows.worker(), rows.sweep(0)
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{url}/v1/leases", json={"worker": gone}, headers={"Prefer": "wait=30"}, timeout=0.5)
    rows.queue(sweep, 1)
    lease = httpx2.post(f"{url}/v1/leases", json={"worker": rows.worker()}, headers={"Prefer": "wait=5"}, timeout=30)
    assert lease.json()["attempt"] == 1


def test_the_test_split_of_a_dataset_is_never_offered(client: TestClient, served_rows: Rows, worker: str) -> None:
    dataset = client.get("/v1/datasets").json()["items"][0]
    sweep = served_rows.sweep(1)
    served_rows.update(Sweep, sweep, dataset_id=dataset["id"])
    split = {"tokens": 1, "sha256": "0" * 64}
    served_rows.update(Dataset, dataset["id"], parts={"training": split, "validation": split, "test": split})
    assert set(_claim(client, worker).json()["dataset"]["parts"]) == {"training", "validation"}


def test_an_unknown_worker_or_trial_is_404(client: TestClient, served_rows: Rows, worker: str) -> None:
    assert _claim(client, "nobody").status_code == 404
    assert client.post("/v1/leases/nothing/1:heartbeat").status_code == 404


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ('{"outcome": "won"}', "/outcome"),
        ('{"outcome": "failed", "surprise": 1}', "/surprise"),
        ('{"outcome": "complete", "metrics": {"latency_ms_p50": NaN}}', "/metrics/latency_ms_p50"),
        ('{"outcome": "complete", "metrics": {"latency_ms_p50": 1e999}}', "/metrics/latency_ms_p50"),
        ('{"outcome": "failed", "reason": "a\\u0000b"}', "/reason"),
        ('{"outcome": "failed", "measurements": {"x": {"y": "a\\u0000b"}}}', "/measurements/x/y"),
        ('{"outcome": "failed", "measurements": {"x": {"y": "\\ud800"}}}', "/measurements/x/y"),
        ('{"outcome": "failed", "measurements": {"x": {"y": [-Infinity]}}}', "/measurements/x/y/0"),
        ('{"outcome": "failed", "measurements": {"x": {"y": 99999999999999999999}}}', "/measurements/x/y"),
        (
            '{"outcome": "failed", "measurements": {"x": ' + '{"y":' * 50 + "1" + "}" * 50 + "}}",
            "/measurements/x" + "/y" * 31,
        ),
        ("[]", ""),
        ("{", ""),
        ('{"outcome": "complete", "metrics": {"speed": 1}}', "/metrics/speed"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_place(
    client: TestClient, served_rows: Rows, worker: str, body: str, place: str
) -> None:
    served_rows.sweep(1)
    lease = _claim(client, worker).json()
    answer = client.post(_path(lease, "finish"), content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert place in [error["pointer"] for error in problem["errors"]], problem
    assert client.post(_path(lease, "heartbeat")).json()["action"] == "continue"


@pytest.mark.parametrize(
    "body", [b"\xff\xfe{", b'{"outcome": "failed", "reason": "' + b"\xff" + b'"}', b"[" * 100_000, b"1" * 10_000]
)
def test_a_body_that_is_no_json_is_a_client_error(
    client: TestClient, served_rows: Rows, worker: str, body: bytes
) -> None:
    served_rows.sweep(1)
    lease = _claim(client, worker).json()
    answer = client.post(_path(lease, "finish"), content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_finish_may_carry_many_samples_but_not_anything(client: TestClient, served_rows: Rows, worker: str) -> None:
    served_rows.sweep(1)
    lease = _claim(client, worker).json()
    too_large = FINISH | {"measurements": {"latency": {"samples": "x" * MAX_FINISH_BYTES}}}
    answer = client.post(_path(lease, "finish"), json=too_large)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    large = FINISH | {"measurements": {"latency": {"samples": "x" * 3_000_000}}}
    assert client.post(_path(lease, "finish"), json=large).status_code == 200
    too_large_report = client.post(_path(lease, "report"), json={"progress": {"x": "x" * 2_000_000}})
    assert too_large_report.status_code == 413


@pytest.mark.parametrize("report", [{"losses": [{"step": -1}]}, {"losses": [{"step": 2**31}]}, {"phase": "lunch"}])
def test_a_report_out_of_range_is_refused(
    client: TestClient, served_rows: Rows, worker: str, report: dict[str, Any]
) -> None:
    served_rows.sweep(1)
    lease = _claim(client, worker).json()
    assert client.post(_path(lease, "report"), json=report).status_code == 422


@pytest.mark.parametrize("attempt", ["0", "-1", "x", str(2**31), str(2**70)])
def test_an_attempt_that_cannot_exist_is_a_client_error(client: TestClient, worker: str, attempt: str) -> None:
    assert client.post(f"/v1/leases/trial/{attempt}:heartbeat").status_code in (404, 422)


def test_a_release_gives_the_trial_to_another_worker(client: TestClient, served_rows: Rows, worker: str) -> None:
    served_rows.sweep(1)
    lease = _claim(client, worker).json()
    released = client.post(_path(lease, "release"), json={"reason": "draining"})
    assert released.json()["state"] == "queued"
    assert _claim(client, served_rows.worker()).json()["attempt"] == 2


def _wait_for_a_waiter(rows: Rows) -> None:
    """Return once somebody waits for the queue."""
    notifications = rows.database.notifications
    pause = threading.Event()
    for _ in range(3000):
        if notifications._wakers.get("queue"):
            return
        pause.wait(0.01)
    raise AssertionError("nobody waits")


def test_a_claim_that_is_sent_again_gets_its_lease_for_as_long_as_that_is_held(
    client: TestClient, served_rows: Rows, worker: str
) -> None:
    served_rows.sweep(3)

    def claim(key: str) -> Any:
        return _claim(client, worker, **{"Idempotency-Key": key}).json()

    first = claim("a")
    assert claim("a") == first
    assert claim("b")["number"] == 1
    finished = {"outcome": "failed", "reason": "broken"}
    assert client.post(f"/v1/leases/{first['trial']}/1:finish", json=finished).status_code == 200
    third = claim("a")
    assert (third["number"], third["attempt"]) == (2, 1)
    assert claim("a") == third
    served_rows.lapse(third["trial"])
    again = claim("a")
    assert (again["number"], again["attempt"]) == (2, 2)
    attempts = [served_rows.trial(lease["trial"]).attempt for lease in (first, third)]
    assert attempts == [1, 2], "an answer that was lost costs none"


def test_a_claim_whose_answer_cannot_be_kept_is_none(
    client: TestClient, served_rows: Rows, worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = served_rows.sweep(1)

    def unkept(*arguments: Any) -> None:
        raise InFlightError("another process works on it")

    with monkeypatch.context() as patch:
        patch.setattr(idempotency, "keep", unkept)
        assert _claim(client, worker, **{"Idempotency-Key": "a"}).status_code == 409
    assert served_rows.find_sweep(sweep).running_count == 0
    assert _claim(client, worker, **{"Idempotency-Key": "a"}).json()["attempt"] == 1
