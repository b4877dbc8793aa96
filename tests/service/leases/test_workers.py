"""Workers register with what they can do, and are listed with what they do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.database.models import Worker
from tests.service.registrations import registration
from tests.service.rows import Rows

REGISTRATION = registration("bench-1", {"python": "3.11.7"})


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


def test_workers_are_listed_with_the_trial_that_they_run(client: TestClient, served_rows: Rows) -> None:
    busy, idle = served_rows.worker(), served_rows.worker()
    served_rows.sweep(1)
    lease = client.post("/v1/leases", json={"worker": busy}).json()
    listed = {worker["id"]: worker for worker in client.get("/v1/workers").json()["items"]}
    assert (listed[busy]["trial"], listed[idle]["trial"]) == (lease["trial"], None)
    assert listed[busy]["alive"]
    assert listed[busy]["targets"][0]["key"] == "onnxruntime 1.32.0 on Test CPU"


def test_the_address_of_a_registration_shows_the_worker_as_the_list_does(client: TestClient, served_rows: Rows) -> None:
    registered = client.post("/v1/workers", json=REGISTRATION)
    served_rows.sweep(1)
    client.post("/v1/leases", json={"worker": registered.json()["id"]})
    shown = client.get(registered.headers["Location"])
    assert shown.status_code == 200
    (listed,) = client.get("/v1/workers").json()["items"]
    assert shown.json().keys() == listed.keys()
    assert shown.json()["executions"] == listed["executions"] != []


def test_a_worker_that_is_not_there_is_404(client: TestClient) -> None:
    answer = client.get("/v1/workers/none")
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no worker none")


def test_a_silent_worker_is_not_alive_until_it_is_heard_of_again(client: TestClient, served_rows: Rows) -> None:
    silent, spoken = served_rows.worker(), served_rows.worker()
    served_rows.update(Worker, silent, last_seen_at=1.0)
    assert [worker["id"] for worker in client.get("/v1/workers?alive=true").json()["items"]] == [spoken]
    assert [worker["alive"] for worker in client.get("/v1/workers").json()["items"]] == [True, False]
    client.post("/v1/leases", json={"worker": silent})
    assert len(client.get("/v1/workers?alive=true").json()["items"]) == 2


def test_pages_hold_every_worker_once(client: TestClient, served_rows: Rows) -> None:
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


GPU_REGISTRATION = {
    **REGISTRATION,
    "device": {"kind": "gpu", "uuid": "GPU-5", "model": "NVIDIA H200", "memory_bytes": 2**37},
    "targets": [REGISTRATION["targets"][0] | {"runtime": "tensorrt", "device_model": "NVIDIA H200"}],
}


def test_a_gpu_has_one_living_worker(client: TestClient) -> None:
    first = client.post("/v1/workers", json=GPU_REGISTRATION)
    second = client.post("/v1/workers", json={**GPU_REGISTRATION, "name": "bench-2"})
    other = {**GPU_REGISTRATION, "device": {**GPU_REGISTRATION["device"], "uuid": "GPU-6"}}
    assert (first.status_code, second.status_code) == (201, 409)
    problem = second.json()
    assert problem["type"].endswith("device-in-use")
    assert "GPU-5 has a living worker already" in problem["detail"]
    assert "bench-1" not in second.text, "whose it is may be another project's secret"
    assert 80 < int(second.headers["Retry-After"]) <= 92
    assert client.post("/v1/workers", json=other).status_code == 201


def test_a_gpu_of_several_has_one_living_worker(client: TestClient) -> None:
    def of(uuid: str) -> int:
        device = {**GPU_REGISTRATION["device"], "uuid": uuid}
        return client.post("/v1/workers", json={**GPU_REGISTRATION, "device": device}).status_code

    assert of("GPU-1+GPU-2") == 201
    assert (of("GPU-2"), of("GPU-2+GPU-3"), of("GPU-1+GPU-2")) == (409, 409, 409)
    assert (of("GPU-3"), of("GPU-22")) == (201, 201)


def test_a_worker_that_signs_off_frees_its_gpu_at_once(client: TestClient) -> None:
    worker = client.post("/v1/workers", json=GPU_REGISTRATION).json()["id"]
    assert client.delete(f"/v1/workers/{worker}").status_code == 204
    assert client.delete(f"/v1/workers/{worker}").status_code == 204
    assert client.get("/v1/workers?alive=true").json()["items"] == []
    assert [each["alive"] for each in client.get("/v1/workers").json()["items"]] == [False]
    assert client.post("/v1/workers", json=GPU_REGISTRATION).status_code == 201


def test_a_worker_that_was_killed_is_forgotten_with_its_heartbeat(client: TestClient, served_rows: Rows) -> None:
    worker = client.post("/v1/workers", json=GPU_REGISTRATION).json()["id"]
    served_rows.update(Worker, worker, last_seen_at=1.0)
    assert client.post("/v1/workers", json=GPU_REGISTRATION).status_code == 201


def test_one_that_was_forgotten_does_not_come_back_beside_the_next(client: TestClient, served_rows: Rows) -> None:
    """A machine that was suspended, say: it registers again, and is refused as long as the other one lives."""
    forgotten = client.post("/v1/workers", json=GPU_REGISTRATION).json()["id"]
    served_rows.update(Worker, forgotten, last_seen_at=1.0)
    assert client.post("/v1/workers", json=GPU_REGISTRATION).status_code == 201
    assert client.post("/v1/leases", json={"worker": forgotten}).status_code == 404
    assert len(client.get("/v1/workers?alive=true").json()["items"]) == 1


def test_a_worker_that_has_signed_off_is_given_nothing(client: TestClient, served_rows: Rows) -> None:
    worker = served_rows.worker()
    served_rows.sweep(1)
    client.delete(f"/v1/workers/{worker}")
    answer = client.post("/v1/leases", json={"worker": worker})
    assert (answer.status_code, "register" in answer.json()["detail"]) == (404, True)


def test_a_registration_whose_answer_was_lost_is_the_same_one(client: TestClient) -> None:
    key = {"Idempotency-Key": "the-first-try"}
    answers = [client.post("/v1/workers", json=GPU_REGISTRATION, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()


def test_of_workers_that_register_at_once_for_a_gpu_one_is_taken(client: TestClient) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.post("/v1/workers", json=GPU_REGISTRATION).status_code, range(8)))
    assert sorted(answers) == [201, *[409] * 7]


def test_nobody_signs_off_a_worker_that_is_not_there(client: TestClient) -> None:
    assert client.delete("/v1/workers/nobody").status_code == 404
