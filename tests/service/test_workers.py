"""Workers register with what they can do, and are listed with what they do."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.models import Worker

REGISTRATION: dict[str, Any] = {
    "name": "bench-1",
    "device": {"kind": "cpu", "uuid": "cpu-1", "model": "Test CPU", "memory_bytes": 2**33},
    "targets": [
        {
            "runtime": "onnxruntime",
            "version": "1.32.0",
            "device_model": "Test CPU",
            "opset": 23,
            "dtypes": ["float32"],
            "device_memory_bytes": 2**33,
        }
    ],
    "versions": {"python": "3.11.7"},
}


def test_a_worker_is_told_how_to_hold_a_lease(client: TestClient) -> None:
    answer = client.post("/v1/workers", json=REGISTRATION)
    assert answer.status_code == 201
    assert answer.json() == {
        "id": answer.json()["id"],
        "lease_seconds": 30,
        "heartbeat_seconds": 10,
        "target_keys": ["onnxruntime 1.32.0 on Test CPU"],
    }


def test_a_registration_wakes_the_scheduler(client: TestClient, services: Any) -> None:
    since = services.notifications.version("scheduler")
    client.post("/v1/workers", json=REGISTRATION)
    assert services.notifications.version("scheduler") > since


def test_workers_are_listed_with_the_trial_that_they_run(client: TestClient, served_rows: Any) -> None:
    busy, idle = served_rows.worker(), served_rows.worker()
    served_rows.sweep(1)
    lease = client.post("/v1/leases", json={"worker": busy}).json()
    listed = {worker["id"]: worker for worker in client.get("/v1/workers").json()["items"]}
    assert (listed[busy]["trial"], listed[idle]["trial"]) == (lease["trial"], None)
    assert listed[busy]["alive"]
    assert listed[busy]["targets"][0]["key"] == "onnxruntime 1.32.0 on Test CPU"


def test_a_silent_worker_is_not_alive_until_it_is_heard_of_again(client: TestClient, served_rows: Any) -> None:
    silent, spoken = served_rows.worker(), served_rows.worker()
    served_rows.update(Worker, silent, last_seen_at=1.0)
    assert [worker["id"] for worker in client.get("/v1/workers?alive=true").json()["items"]] == [spoken]
    assert [worker["alive"] for worker in client.get("/v1/workers").json()["items"]] == [True, False]
    client.post("/v1/leases", json={"worker": silent})
    assert len(client.get("/v1/workers?alive=true").json()["items"]) == 2


def test_pages_hold_every_worker_once(client: TestClient, served_rows: Any) -> None:
    made = [served_rows.worker() for _ in range(5)]
    seen: list[str] = []
    url: str | None = "/v1/workers?page_size=2"
    while url:
        answer = client.get(url)
        seen += [worker["id"] for worker in answer.json()["items"]]
        url = answer.links.get("next", {}).get("url")
    assert seen == made[::-1]


@pytest.mark.parametrize("token", ["x", "bnVsbA", "WzFd", "W10", "W1sxXV0", "%FF", "W" * 1000, "WyJhXHUwMDAwIl0"])
def test_a_page_token_that_is_none_is_422(client: TestClient, token: str) -> None:
    answer = client.get(f"/v1/workers?page_token={token}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"targets": []}, "/targets"),
        ({"targets": REGISTRATION["targets"] * 2}, "/targets/1"),
        ({"name": ""}, "/name"),
        ({"name": "a\0b"}, "/name"),
        ({"device": {"kind": "abacus", "uuid": "1", "model": "m", "memory_bytes": 0}}, "/device/kind"),
    ],
)
def test_a_registration_that_makes_no_sense_is_refused(client: TestClient, changes: dict[str, Any], place: str) -> None:
    answer = client.post("/v1/workers", json=REGISTRATION | changes)
    assert answer.status_code == 422
    assert place in [error["pointer"] for error in answer.json()["errors"]]
