"""What a hostile caller may try, as a whole over HTTP. The parts have finer tests beside what they test:
YAML and JSON bombs in test_documents.py, pickles, zip bombs and lying NPZ headers in test_labelled.py, archives that
lead out of their folder in test_backups.py, markup in test_pages.py, rate and wrong tokens in test_conventions.py.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from itertools import product
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx2
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.app import create_app
from service.auth import tokens
from service.database.sessions import Database
from service.http.dependencies import Services
from service.http.middleware import COOKIE
from service.routes.sweeps import EXAMPLE as DOCUMENT
from service.settings import Settings
from tests.service.rows import Rows

ROOT = Path(__file__).parents[2]
HEADERS_OF_OURS = {
    "allow", "cache-control", "content-length", "content-security-policy", "content-type",
    "cross-origin-resource-policy",
    "etag", "link", "location", "referrer-policy", "retry-after", "www-authenticate", "x-content-type-options",
    "x-frame-options", "x-request-id",
}  # fmt: skip


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """One kind of database is enough where what is asked of it is asked on both elsewhere."""
    return migrated_sqlite_url


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def _gets(client: TestClient) -> Iterator[tuple[str, list[str], list[str]]]:
    """The paths that can be read, with their own parameters and those of the query."""
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        parameters = operations.get("get", {}).get("parameters", [])
        if "get" in operations:
            yield path, *([each["name"] for each in parameters if each["in"] == place] for place in ("path", "query"))


# --- paths ------------------------------------------------------------------------------------------------------------

OUTSIDE = (
    "../outside",
    "../../../../etc/passwd",
    "..",
    ".hidden",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "..\\x",
    "a\nb",
    "%2e%2e",
)


def test_a_dataset_is_stored_under_no_name_that_is_a_path(client: TestClient, tmp_path: Path) -> None:
    before = _files(tmp_path)
    for name in OUTSIDE:
        answer = client.post("/v1/datasets", data={"name": name}, files={"file": ("t", b"abc " * 400)})
        assert answer.status_code == 422, name
    assert not {path for path in _files(tmp_path) - before if "layersweep.db" not in path.name}


def test_the_name_of_an_uploaded_file_is_never_used(client: TestClient, tmp_path: Path) -> None:
    answer = client.post("/v1/datasets", data={"name": "text"}, files={"file": ("../../outside", b"abc " * 400)})
    assert answer.status_code == 201
    assert not [path for path in _files(tmp_path) if "outside" in path.name]


def test_a_boundary_or_a_number_that_a_library_refuses_is_refused(client: TestClient) -> None:
    for boundary in ("x" * 257, "x" * 5000, "", "\u00fc"):
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}".encode("latin-1")}
        answer = client.post("/v1/datasets", content=b"--x\r\n", headers=headers)
        assert answer.status_code in (415, 422), boundary
        assert answer.headers["content-type"] == "application/problem+json"
        for path in ("/login", "/new/check"):
            assert client.post(path, content=b"--x\r\n", headers=headers).status_code < 500, (path, boundary)
    digits = "9" * 5000
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": digits}
    assert client.post("/v1/datasets", content=b"--x\r\n", headers=headers).status_code == 413
    for path in ("?page_size=", "/x/trials/", "/x/events?after="):
        headers = {"Prefer": f"wait={digits[:190]}", "Last-Event-ID": digits[:40]}
        assert client.get(f"/v1/sweeps{path}{digits}", headers=headers).status_code in (404, 422), path
    for body in (f'{{"name": {digits}}}', "[" * 100_000):
        answer = client.post("/v1/workers", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422


def test_no_path_leads_to_a_file_that_is_not_offered(client: TestClient) -> None:
    places = ("/static/", "/v1/datasets/", "/v1/trials/x/artifacts/")
    for place, name in product(places, (*OUTSIDE, "service/settings.py", "layersweep.db")):
        for written in {quote(name, safe=""), quote(name)}:
            answer = client.get(place + written)
            # A client may take "/static/.." for "/" before it sends it.
            assert answer.status_code in (404, 405) or answer.request.url.path == "/", place + written
            assert b"root:" not in answer.content


def test_an_artifact_is_stored_under_its_known_names_only(
    client: TestClient, served_rows: Rows, tmp_path: Path
) -> None:
    served_rows.sweep(queued=1)
    lease = client.post("/v1/leases", json={"worker": served_rows.worker()}).json()
    before = _files(tmp_path)
    for name in OUTSIDE:
        path = f"/v1/leases/{lease['trial']}/1/artifacts/{quote(name, safe='')}"
        answer = client.put(path, content=b"x", headers={"Content-Digest": "sha-256=:x:"})
        assert answer.status_code in (404, 405, 422), name
    assert not {path for path in _files(tmp_path) - before if "layersweep.db" not in path.name}


# --- what is put into other languages ---------------------------------------------------------------------------------

SQL = (
    "' OR '1'='1",
    "x'; DROP TABLE sweeps; --",
    '"; DELETE FROM trials; --',
    "%' UNION SELECT sha256 FROM tokens --",
    "\\",
)


@pytest.mark.parametrize("url", ["sqlite_url", pytest.param("postgres_url", marks=pytest.mark.slow)])
def test_no_text_becomes_sql(request: pytest.FixtureRequest, tmp_path: Path, url: str, make_rows: type[Rows]) -> None:
    settings = Settings(database_url=request.getfixturevalue(url), data_dir=tmp_path / "data")
    database = Database(settings.database_url)
    database.upgrade()
    with TestClient(create_app(settings, start_scheduler=False), raise_server_exceptions=False) as client:
        sweep = make_rows(database).sweep(queued=3)
        for template, of_path, of_query in _gets(client):
            for text in SQL:
                known = {"sweep": sweep, "sweep_id": sweep, "number": "0", "attempt": "1"}
                asked = [(template.format(**dict.fromkeys(of_path, quote(text, safe=""))), {})]
                asked += [(template.format(**dict.fromkeys(of_path, "x") | known), {name: text}) for name in of_query]
                for path, query in asked:
                    answer = client.get(path, params=query)
                    assert answer.status_code < 500, (path, query, answer.text)
                    if "name" in query and answer.status_code == 200 and "items" in answer.json():
                        assert answer.json()["items"] == [], "nothing is called so"
        assert len(client.get(f"/v1/sweeps/{sweep}/trials").json()["items"]) == 3
    database.close()


EXPRESSIONS = (
    "__import__('os').system('x')",
    "().__class__.__bases__[0].__subclasses__()",
    "open('/etc/passwd')",
    "hidden_size.__class__",
    "[x for x in (1,)]",
    "(lambda: 1)()",
    "9**9**9**9",
    "'x' * 10000000000",
    "f'{hidden_size}'",
    "exec('1')",
    "(" * 5000 + "1" + ")" * 5000,
    "1 if " * 3000 + "1",
)


def test_no_text_becomes_python(client: TestClient, served_rows: Rows) -> None:
    model, path = DOCUMENT["model"], f"/v1/sweeps/{served_rows.sweep()}/leaderboard"
    for text in EXPRESSIONS:
        for written in (
            DOCUMENT | {"rules": [f"{text} > 0"]},
            DOCUMENT | {"constraints": [f"{text} <= 1"]},
            DOCUMENT | {"model": model | {"mlp": {"ffn_hidden_size": {"derived": text}}}},
            DOCUMENT | {"model": model | {"num_layers": {"min": 1, "max": 2, "when": text}}},
        ):
            answer = client.post("/v1/sweeps", json=written)
            assert answer.status_code == 422, text
            assert answer.json()["errors"][0]["pointer"].startswith(("/rules/0", "/constraints/0", "/model/"))
        assert client.get(path, params={"where": f"{text}>0"}).status_code == 422, text
        assert client.get(path, params={"sort": text[:200]}).status_code == 422, text


def test_no_text_of_a_worker_becomes_a_formula_in_an_export(client: TestClient, served_rows: Rows) -> None:
    formulas = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")']
    sweep, worker = served_rows.sweep(queued=len(formulas)), served_rows.worker()
    for reason in formulas:
        lease = client.post("/v1/leases", json={"worker": worker}).json()
        ended = {"outcome": "failed", "reason": reason}
        assert client.post(f"/v1/leases/{lease['trial']}/1:finish", json=ended).status_code == 200
    rows = list(csv.DictReader(io.StringIO(client.get(f"/v1/sweeps/{sweep}/leaderboard?format=csv").text)))
    assert sorted(row["reason"] for row in rows) == sorted(f"'{reason}" for reason in formulas)
    assert not [cell for row in rows for cell in row.values() if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]


@pytest.mark.parametrize(
    "text", ["x\r\nSet-Cookie: injected=1", "x\nInjected: 1", "x\r\n\r\n<script>", "\u010d\u010ax"]
)
def test_no_text_becomes_a_header(client: TestClient, text: str) -> None:
    answers = [
        client.get(f"/login?next={quote('/' + text)}"),
        client.post("/login", data={"token": "x", "next": "/" + text}),
    ]
    answers += [client.get(f"/{quote(text, safe='')}", headers={"Accept": "text/html"})]
    answers += [client.patch(f"/v1/sweeps/{quote(text, safe='')}")]
    for template, of_path, of_query in _gets(client):
        path = template.format(**dict.fromkeys(of_path, quote(text, safe="")))
        answers.append(client.get(path, params=dict.fromkeys(of_query, text)))
    for answer in answers:
        assert set(answer.headers) <= HEADERS_OF_OURS, (answer.request.url, answer.headers)
        assert "injected" not in str(answer.headers).lower().replace("%0d%0a", "") or "location" in answer.headers
        assert not [value for value in answer.headers.values() if "\n" in value or "\r" in value]


@pytest.mark.parametrize("given", ["a b", "x" * 65, "a;b", "\u00fc", "../x"])
def test_an_id_of_a_request_that_could_forge_a_line_of_a_log_is_not_taken(client: TestClient, given: str) -> None:
    answer = client.get("/v1/sweeps", headers={"X-Request-ID": given.encode()})
    assert answer.headers["x-request-id"].isalnum()


# --- connections ------------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(settings: Settings, serve: Callable[[FastAPI], str]) -> str:
    """The URL of a service that waits a moment for what it is sent, and takes little."""
    changes = {"body_idle_seconds": 0.2, "max_document_bytes": 1000, "max_upload_bytes": 100_000}
    return serve(create_app(Settings(**settings.model_dump() | changes), start_scheduler=False))


def _answer_to(url: str, sent: bytes) -> bytes:
    """All that comes back until the service closes the connection; what is sent never ends by itself."""
    place = urlsplit(url)
    with closing(socket.create_connection((place.hostname, place.port), timeout=60)) as connection:
        connection.sendall(sent)
        received = b""
        while piece := connection.recv(65_536):
            received += piece
        return received


def test_a_head_that_does_not_come_keeps_no_connection(impatient: str) -> None:
    assert _answer_to(impatient, b"") == b""
    assert _answer_to(impatient, b"GET /v1/sweeps HTTP/1.1\r\nHost: localhost\r\nX-Slow: ") == b""
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    # The second of one connection, too.
    assert _answer_to(impatient, whole + b"GET /v1/sweeps HTTP/1.1\r\nX: ").count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/sweeps", "application/json"),
        ("/v1/workers", "application/json"),
        ("/v1/datasets", "multipart/form-data; boundary=x"),
        ("/login", "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_that_does_not_come_is_given_up(impatient: str, path: str, kind: str) -> None:
    with closing(HTTPConnection(urlsplit(impatient).netloc, timeout=60)) as connection:
        connection.putrequest("POST", path)
        connection.putheader("Content-Type", kind)
        connection.putheader("Content-Length", "900")
        connection.endheaders(b"--x\r\n")
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Content-Type")) == (408, "application/problem+json")
        # The connection is not kept for the rest, which may never come.
        answer.read()
        assert connection.sock is None or connection.sock.recv(1) == b""


@pytest.mark.parametrize(
    ("path", "kind", "begin"),
    [
        ("/v1/sweeps", "application/json", b'{"name": "'),
        ("/v1/workers", "application/json", b'{"name": "'),
        (
            "/v1/datasets",
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="t"\r\n\r\n',
        ),
    ],
)
def test_a_body_without_an_end_is_cut_off_at_the_limit(impatient: str, path: str, kind: str, begin: bytes) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
    place = urlsplit(impatient)
    with closing(socket.create_connection((place.hostname, place.port), timeout=60)) as connection:
        connection.sendall(head.encode() + _chunk(begin))
        # Twenty times what is accepted; what the service closes before that, it has read no further.
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                connection.sendall(_chunk(b"x" * 10_000))
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65_536):
                received += piece
    assert not received or received.startswith(b"HTTP/1.1 413 ")


def _chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_running_service_logs_no_token_no_header_and_no_cookie(settings: Settings, tmp_path: Path) -> None:
    """What `layersweep serve` writes at its most talkative, while tokens come in every place that takes one."""
    database = Database(settings.database_url)
    database.upgrade()
    new = tokens.NewToken("all", ("admin", "work"), None)
    secret = database.write(lambda session: tokens.create(session, new, made_by="a test")[1])
    database.close()
    log = tmp_path / "log"
    environment = os.environ | {
        "LAYERSWEEP_DATABASE_URL": settings.database_url,
        "LAYERSWEEP_DATA_DIR": str(settings.data_dir),
    }
    with log.open("wb") as output:
        command = [sys.executable, "-m", "layersweep", "serve", "--port", "0", "--log-level", "debug"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=output, stdout=output)
    try:
        url = _address(log, process)
        bearer = {"Authorization": f"Bearer {secret}"}
        wrong = f"{secret[:-4]}wron"
        with httpx2.Client(base_url=url, timeout=60) as client:
            made = client.post("/v1/tokens", json={"name": "x", "scopes": ["read"]}, headers=bearer).json()["token"]
            client.get(f"/v1/sweeps?page_token={secret}", headers=bearer | {"X-Secret": "a-header-of-mine"})
            client.get("/v1/sweeps", headers={"Authorization": f"Bearer {wrong}"})
            client.get("/v1/sweeps", headers={"Authorization": secret})
            client.get("/", headers={"Cookie": f"{COOKIE}={secret}; other=a-cookie-of-mine"})
            client.post("/login", data={"token": secret})
            client.post("/v1/sweeps", content=secret, headers=bearer | {"Content-Type": "application/json"})
            client.post("/v1/leases", json={"worker": secret}, headers=bearer)
            client.get(f"/v1/sweeps/{'x' * 30}", headers=bearer)
    finally:
        process.terminate()
        process.wait(60)
    written = log.read_text()
    assert "'/v1/leases' 422" in written, "the log was captured"
    assert "x" * 30 in written
    for kept_back in (secret, made, wrong, "Bearer", "a-header-of-mine", "a-cookie-of-mine", tokens.hash_of(secret)):
        assert kept_back not in written


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    while process.poll() is None:
        written = log.read_text()
        if "Application startup complete" in written:
            return written.split("The page: ")[1].split()[0].rstrip("/")
    raise RuntimeError(log.read_text())


def test_a_row_of_a_token_holds_nothing_that_opens(client: TestClient, services: Services) -> None:
    secret = client.post("/v1/tokens", json={"name": "x", "scopes": ["admin"]}).json()["token"]
    row = services.database.read(lambda session: session.execute(sa.text("SELECT * FROM tokens")).one())
    assert secret not in str(row)
    for stored in map(str, row):
        assert client.get("/v1/sweeps", headers={"Authorization": f"Bearer {stored}"}).status_code == 401
