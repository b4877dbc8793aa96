"""The application as a whole: who may call it, what errors look like, how it starts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from service.app import create_app
from service.database.sessions import Database, OldSchemaError
from service.settings import ExposureError, Settings

# --- who may call: the rest is in test_access.py ----------------------------------------------------------------------


def test_a_page_of_another_origin_changes_nothing(client: TestClient) -> None:
    assert (
        client.post("/v1/leases", json={"worker": "x"}, headers={"Origin": "https://elsewhere.example"}).status_code
        == 403
    )
    assert client.post("/v1/leases", json={"worker": "x"}, headers={"Origin": "null"}).status_code == 403
    assert client.post("/v1/leases", json={"worker": "x"}, headers={"Origin": "http://testserver"}).status_code == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "layersweep.example"])
def test_a_service_that_others_reach_needs_a_token(host: str) -> None:
    with pytest.raises(ExposureError, match="layersweep token create"):
        Settings(host=host).check_exposure(lambda: False)
    Settings(host=host).check_exposure(lambda: True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_loopback_service_needs_none(host: str) -> None:
    Settings(host=host).check_exposure(lambda: False)


def test_a_heartbeat_that_comes_after_the_lease_is_refused_as_a_setting() -> None:
    with pytest.raises(ValueError, match="lapses"):
        Settings(lease_seconds=5, heartbeat_seconds=5)


# --- what errors look like -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/trials/nothing", 404),
        ("GET", "/v1/trials/a%00b", 404),
        ("GET", "/v1/trials/" + "x" * 5000, 404),
        ("GET", "/v1/sweeps/nothing/trials", 404),
        ("GET", "/v1/sweeps/nothing/trials/0", 404),
        ("GET", "/v1/sweeps/nothing/events", 404),
        ("DELETE", "/v1/workers", 405),
        ("GET", "/v1/workers?page_size=0", 422),
        ("GET", "/v1/workers?page_size=99999999999999999999", 422),
        ("GET", "/v1/workers?page_token=%00", 422),
        ("GET", "/v1/sweeps/nothing/trials/99999999999999999999", 422),
        ("POST", "/v1/leases", 422),
    ],
)
def test_every_error_is_a_problem_document(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:layersweep:problem:")
    assert problem["detail"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/sweeps", "GET, POST"),
        ("/v1/datasets/x", "DELETE, GET"),
        ("/v1/sweeps/x:cancel", "POST"),
        ("/v1/leases/x/1:finish", "POST"),
        ("/v1/trials/x/artifacts/y", "GET"),
    ],
)
def test_a_method_that_a_path_lacks_is_answered_with_those_that_it_has(
    client: TestClient, path: str, allowed: str
) -> None:
    answer = client.put(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["detail"] == f"{path} takes {allowed}, not PUT"


@pytest.mark.parametrize("body", [b"{", b"\xff:\x00", b'{"worker": "\xed\xa0\x80"}', b"[" * 100_000])
def test_a_body_that_is_no_json_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/v1/leases", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_of_another_type_is_refused(client: TestClient) -> None:
    answer = client.post("/v1/leases", content="worker=x", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_unexpected_error_tells_the_caller_nothing_of_the_inside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr("service.routes.workers.workers.page", fail)
    answer = client.get("/v1/workers")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_a_database_that_is_away_is_503_with_a_time_to_come_back(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise OperationalError("SELECT 1", {}, Exception("connection refused at 10.0.0.7"))

    monkeypatch.setattr("service.routes.workers.workers.page", fail)
    answer = client.get("/v1/workers")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "10.0.0.7" not in answer.text


def test_the_access_log_has_no_query(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="service.access"):
        client.get("/v1/workers?page_token=a-secret")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "service.access"]
    assert "GET '/v1/workers' 422" in line
    assert "a-secret" not in line


# --- the description -------------------------------------------------------------------------------------------------


def test_every_operation_has_a_plain_name_of_its_own(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    names = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(names) == len(set(names))
    assert all(name.isidentifier() and "v1" not in name for name in names)


def test_every_operation_of_the_api_documents_its_problems(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for operation in methods.values():
            if path.startswith("/v1"):
                assert operation["summary"]
                assert operation["description"]
                content = operation["responses"]["422"]["content"]
                assert content["application/problem+json"]["schema"]["$ref"].endswith("/ProblemDocument"), path
                assert "application/json" not in content, path


# --- start and stop --------------------------------------------------------------------------------------------------


def test_an_embedded_database_is_made_at_the_first_start(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "new")
    with TestClient(create_app(settings, start_scheduler=False)) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
    assert (tmp_path / "new" / "layersweep.db").exists()


def test_an_old_schema_on_a_server_is_refused_with_the_command_that_helps(postgres_url: str, tmp_path: Path) -> None:
    database = Database(postgres_url)
    database.downgrade("base")
    database.close()
    settings = Settings(database_url=postgres_url, data_dir=tmp_path)
    with pytest.raises(OldSchemaError, match="layersweep db upgrade"), TestClient(create_app(settings)):
        pass


def test_a_schema_that_changes_below_a_running_service_is_not_ready(client: TestClient, services: Any) -> None:
    services.database.downgrade("base")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "layersweep db upgrade" in answer.json()["detail"]


def test_a_started_service_schedules_and_stops(live_service: str) -> None:
    import httpx2

    assert httpx2.get(f"{live_service}/readyz").status_code == 200
