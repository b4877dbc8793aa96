"""What is logged, in which form, and what never is; from where a request comes."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.exc import DBAPIError

from layersweep import logs
from service.app import create_app
from service.auth import tokens
from service.database.sessions import Database
from service.settings import Settings
from tests.service.rows import Rows


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """One kind of database is enough here."""
    return migrated_sqlite_url


@pytest.fixture
def written() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What the service's and the worker's loggers write as JSON."""
    stream = io.StringIO()
    handler = logs.handler("json", stream)
    loggers = [logging.getLogger(name) for name in ("service", "layersweep")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_a_request_is_one_line_with_what_it_was_about(
    client: TestClient, served_rows: Rows, written: Callable[[], list[dict[str, Any]]]
) -> None:
    sweep = served_rows.sweep()
    answer = client.post(f"/v1/sweeps/{sweep}:pause?secret=in-the-query", headers={"X-Request-ID": "from-a-proxy"})
    assert answer.headers["x-request-id"] == "from-a-proxy"
    (line,) = [each for each in written() if each["logger"] == "service.access"]
    assert line["request_id"] == "from-a-proxy"
    assert (line["method"], line["path"], line["status"]) == ("POST", f"/v1/sweeps/{sweep}:pause", 200)
    assert (line["sweep"], line["level"], line["address"]) == (sweep, "info", "testclient")
    assert "in-the-query" not in json.dumps(written())


@pytest.mark.parametrize("given", ["a b", "x" * 65, "a\tb", "{}", ""])
def test_an_id_that_could_break_a_line_is_replaced(client: TestClient, given: str) -> None:
    answer = client.get("/healthz", headers={"X-Request-ID": given})
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])


def test_what_is_logged_inside_a_request_carries_its_id(
    app: FastAPI, client: TestClient, written: Callable[[], list[dict[str, Any]]]
) -> None:
    @app.get("/v1/fails/{trial}")
    def fails(trial: str) -> None:
        logging.getLogger("service.somewhere").warning("about to fail")
        raise sa.exc.OperationalError("SELECT 1", None, RuntimeError("away"))

    # Before the page's last route, which takes every path.
    app.router.routes.insert(0, app.router.routes.pop())
    client.get("/v1/fails/T1", headers={"X-Request-ID": "r1"})
    lines = written()
    assert {line.get("request_id") for line in lines} == {"r1"}
    assert "about to fail" in [line["message"] for line in lines]
    (error,) = [line for line in lines if "exception" in line]
    assert "OperationalError" in error["exception"]
    assert lines[-1]["trial"] == "T1"


@pytest.mark.parametrize("form", logs.FORMS)
def test_a_token_is_cut_wherever_it_comes_from(form: logs.Form) -> None:
    stream = io.StringIO()
    logger = logging.Logger("test")
    logger.addHandler(logs.handler(form, stream))
    token, secret = "lsw_" + "aB3_" * 10, "whsec_" + "aB3+/=" * 7
    try:
        raise ValueError(f"Authorization: Bearer {token}")
    except ValueError:
        logger.exception("%s and %s", token, secret, extra={logs.FACTS: {"path": f"/{token}"}})
    text = stream.getvalue()
    assert token not in text
    assert secret not in text
    assert "lsw_..." in text
    assert "whsec_..." in text


def test_an_error_of_the_database_does_not_tell_what_was_sent(settings: Settings) -> None:
    database = Database(settings.database_url)
    database.upgrade()
    try:
        with pytest.raises(DBAPIError) as failed:
            database.write(
                lambda session: session.execute(sa.text("SELECT * FROM nowhere WHERE x = :x"), {"x": "s3cr3t"}).all()
            )
        assert "nowhere" in str(failed.value)
        assert "s3cr3t" not in str(failed.value)
    finally:
        database.close()


def test_the_work_inside_is_about_all_that_is_around_it(written: Callable[[], list[dict[str, Any]]]) -> None:
    log = logging.getLogger("layersweep.worker")
    with logs.about(sweep="S", trial="T1", attempt=1):
        with logs.about(attempt=2):
            log.info("inside")
        log.info("outside")
    log.info("elsewhere")
    inside, outside, elsewhere = written()
    assert (inside["sweep"], inside["trial"], inside["attempt"]) == ("S", "T1", 2)
    assert outside["attempt"] == 1
    assert "trial" not in elsewhere


def test_what_a_signal_handler_writes_has_the_form_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [logs.handler("text")])
    assert logs.line("stopping") == "stopping"
    monkeypatch.setattr(logging.getLogger(), "handlers", [logs.handler("json")])
    assert json.loads(logs.line("stopping"))["message"] == "stopping"


# --- from where a request comes ---------------------------------------------------------------------------------------


def _client_at(app: FastAPI, address: str) -> TestClient:
    """A client whose connection comes from an address. It shares the application, which is started by another."""
    return TestClient(app, client=(address, 40_000), headers={"Host": "localhost"})


@pytest.fixture
def behind_a_proxy(settings: Settings) -> Iterator[FastAPI]:
    changes = {"trusted_proxies": ["172.30.84.10/32"], "wrong_tokens_per_minute": 2}
    app = create_app(Settings(**settings.model_dump() | changes), start_scheduler=False)
    with TestClient(app):
        yield app


@pytest.mark.parametrize(
    ("connection", "forwarded", "address"),
    [
        ("172.30.84.10", "203.0.113.7", "203.0.113.7"),
        ("172.30.84.10", "6.6.6.6, 203.0.113.7", "203.0.113.7"),
        ("172.30.84.10", "2001:db8::7", "2001:db8::7"),
        ("172.30.84.200", "203.0.113.7", "172.30.84.200"),
        ("127.0.0.1", "203.0.113.7", "127.0.0.1"),
    ],
)
def test_only_the_proxy_is_believed(behind_a_proxy: FastAPI, connection: str, forwarded: str, address: str) -> None:
    client = _client_at(behind_a_proxy, connection)
    made = client.post("/v1/projects", json={"name": "vision"}, headers={"X-Forwarded-For": forwarded})
    assert made.status_code == 201, made.text
    (record,) = client.get("/v1/audit").json()["items"]
    assert record["address"] == address


def test_without_a_trusted_proxy_nobody_is_believed(app: FastAPI, client: TestClient) -> None:
    client.post("/v1/projects", json={"name": "vision"}, headers={"X-Forwarded-For": "203.0.113.7"})
    assert client.get("/v1/audit").json()["items"][0]["address"] == "testclient"


def test_wrong_tokens_are_counted_by_the_client_and_not_by_the_proxy(behind_a_proxy: FastAPI) -> None:
    services = behind_a_proxy.state.services
    services.database.write(lambda session: tokens.create(session, tokens.NewToken("x", ["read"], None), made_by="")[1])
    services.access.forget()

    def ask(connection: str, forwarded: str) -> int:
        headers = {"X-Forwarded-For": forwarded, "Authorization": "Bearer lsw_wrong"}
        return _client_at(behind_a_proxy, connection).get("/v1/sweeps", headers=headers).status_code

    assert [ask("172.30.84.10", f"6.6.6.{last}, 203.0.113.7") for last in range(3)] == [401, 401, 429]
    assert ask("172.30.84.10", "203.0.113.8") == 401
    assert [ask("10.9.9.9", f"203.0.113.{last}") for last in range(20, 23)] == [401, 401, 429], "a forged one"


def test_the_cookie_is_secure_behind_a_proxy_with_tls(behind_a_proxy: FastAPI) -> None:
    services = behind_a_proxy.state.services
    new = tokens.NewToken("x", ["read"], None)
    secret = services.database.write(lambda session: tokens.create(session, new, made_by="")[1])
    services.access.forget()
    for connection, is_secure in (("172.30.84.10", True), ("10.9.9.9", False)):
        entered = _client_at(behind_a_proxy, connection).post(
            "/login", data={"token": secret}, headers={"X-Forwarded-Proto": "https"}, follow_redirects=False
        )
        assert ("secure" in entered.headers["set-cookie"].lower()) == is_secure


# --- the processes ----------------------------------------------------------------------------------------------------


def test_a_service_logs_json_and_nothing_else_and_stops_when_asked_to(tmp_path: Path) -> None:
    environment = os.environ | {"LAYERSWEEP_LOG_FORMAT": "json", "LAYERSWEEP_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "layersweep", "serve", "--port", "0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        try:
            lines = [json.loads(service.stderr.readline())]
            while not (found := re.search(r"The page: (\S+)/ ", lines[-1]["message"])):
                lines.append(json.loads(service.stderr.readline()))
            while "startup complete" not in lines[-1]["message"]:
                lines.append(json.loads(service.stderr.readline()))
            assert httpx2.get(f"{found[1]}/v1/sweeps", timeout=60).status_code == 200
            service.send_signal(signal.SIGTERM)
            lines += [json.loads(line) for line in service.stderr]
        finally:
            service.kill()
    assert service.returncode == 0
    assert [line["path"] for line in lines if line["logger"] == "service.access"] == ["/v1/sweeps"]
    assert "uvicorn.error" in {line["logger"] for line in lines}


def test_a_worker_refuses_a_form_that_there_is_not(tmp_path: Path) -> None:
    environment = os.environ | {"LAYERSWEEP_LOG_FORMAT": "xml"}
    command = [sys.executable, "-m", "layersweep", "worker", "--server", "http://127.0.0.1:9"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "text or json" in ended.stderr
