"""Tokens, scopes, projects, the cookie of the page, and the record of who changed what."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.auth import projects, tokens
from service.database.access_models import AuditRecord, Token
from service.database.models import Sweep, Worker
from service.http.dependencies import Services
from service.http.middleware import COOKIE
from tests.service.rows import Rows

MakeToken = Callable[..., str]


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """One kind of database is enough here: what is asked of it is asked on both elsewhere."""
    return migrated_sqlite_url


@pytest.fixture
def make_token(client: TestClient, services: Services) -> MakeToken:
    """Makes a token as `layersweep token create` does on the machine; returns the secret."""

    def make(*scopes: str, project: str | None = None, days: float | None = None) -> str:
        def write(session: Any) -> str:
            if project is not None and projects.find(session, project) is None:
                projects.create(session, project)
            new = tokens.NewToken(f"{'-'.join(scopes)}", scopes, project, days)
            return tokens.create(session, new, made_by="a test")[1]

        secret = services.database.write(write)
        services.access.forget()
        return secret

    return make


def bearer(secret: str, project: str | None = None) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {secret}"}
    return headers if project is None else headers | {"Layersweep-Project": project}


# --- from open to guarded ---------------------------------------------------------------------------------------------


def test_without_a_token_everybody_on_the_machine_may_do_everything(client: TestClient) -> None:
    assert client.get("/v1/sweeps").status_code == 200
    assert client.get("/v1/audit").status_code == 200


def test_without_a_token_a_name_that_leads_here_from_elsewhere_gets_nothing(client: TestClient) -> None:
    # A page at evil.example whose name was pointed at 127.0.0.1 after it was loaded is of the same origin to a browser.
    answer = client.get("/v1/sweeps", headers={"Host": "evil.example:8420"})
    assert answer.status_code == 403
    assert "layersweep token create" in answer.json()["detail"]
    assert client.get("/v1/sweeps", headers={"Host": "localhost:8420"}).status_code == 200
    assert client.get("/v1/sweeps", headers={"Host": "[::1]:8420"}).status_code == 200


def test_from_the_first_token_on_nothing_is_answered_without_one(client: TestClient, make_token: MakeToken) -> None:
    make_token("read")
    for path in ("/v1/workers", "/", "/openapi.json", "/v1/nothing", "/docs"):
        answer = client.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", "Token lsw_x", "Basic eDp5", "Bearer \u00fc"])
def test_what_is_no_token_opens_nothing(client: TestClient, make_token: MakeToken, given: str) -> None:
    make_token("read")
    assert client.get("/v1/workers", headers={"Authorization": given.encode("latin-1")}).status_code == 401


def test_health_needs_no_token(client: TestClient, make_token: MakeToken) -> None:
    make_token("read")
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_is_stored_as_its_hash_only(client: TestClient, services: Services) -> None:
    made = client.post("/v1/tokens", json={"name": "ci", "scopes": ["submit"]})
    assert made.status_code == 201
    secret = made.json()["token"]
    assert secret.startswith("lsw_")
    row = services.database.read(lambda session: session.scalars(sa.select(Token)).one())
    stored = " ".join(str(getattr(row, column.key)) for column in sa.inspect(Token).columns)
    assert secret not in stored
    assert secret not in client.get("/v1/tokens", headers=bearer(secret)).text
    assert client.get("/v1/sweeps", headers=bearer(secret)).status_code == 200


def test_a_repeated_answer_does_not_hold_the_token(client: TestClient, services: Services) -> None:
    headers = {"Idempotency-Key": "once"}
    body = {"name": "ci", "scopes": ["admin"]}
    first = client.post("/v1/tokens", json=body, headers=headers)
    again = client.post("/v1/tokens", json=body, headers=headers | bearer(first.json()["token"]))
    assert again.json() == first.json() | {"token": None}


def test_a_revoked_and_an_expired_token_open_nothing(
    client: TestClient, services: Services, make_token: MakeToken
) -> None:
    admin, reader = make_token("admin"), make_token("read", days=1)
    listed = client.get("/v1/tokens", headers=bearer(admin)).json()["items"]
    (token_id,) = [item["id"] for item in listed if item["scopes"] == ["read"]]
    assert client.get("/v1/sweeps", headers=bearer(reader)).status_code == 200
    assert client.delete(f"/v1/tokens/{token_id}", headers=bearer(admin)).status_code == 204
    answer = client.get("/v1/sweeps", headers=bearer(reader))
    assert (answer.status_code, "revoked" in answer.json()["detail"]) == (401, True)

    old = make_token("read", days=1)
    expire = sa.update(Token).where(Token.sha256 == tokens.hash_of(old)).values(expires_at=1.0)
    services.database.write(lambda session: session.execute(expire).rowcount)
    services.access.forget()
    answer = client.get("/v1/sweeps", headers=bearer(old))
    assert (answer.status_code, "expired" in answer.json()["detail"]) == (401, True)


def test_the_use_of_a_token_is_noted(client: TestClient, make_token: MakeToken) -> None:
    admin = make_token("admin")
    client.get("/v1/sweeps", headers=bearer(admin))
    assert client.get("/v1/tokens", headers=bearer(admin)).json()["items"][0]["last_used_at"] is not None


def test_a_token_without_or_with_an_unknown_scope_is_refused(client: TestClient) -> None:
    for scopes in ([], ["everything"]):
        assert client.post("/v1/tokens", json={"name": "x", "scopes": scopes}).status_code == 422


# --- scopes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "method", "path", "status"),
    [
        ("read", "GET", "/v1/sweeps", 200),
        ("read", "POST", "/v1/sweeps", 403),
        ("read", "POST", "/v1/sweeps/x:cancel", 403),
        ("read", "POST", "/v1/leases", 403),
        ("read", "GET", "/v1/tokens", 403),
        ("submit", "GET", "/v1/sweeps", 200),
        ("submit", "POST", "/v1/sweeps/x:cancel", 404),
        ("submit", "POST", "/v1/workers", 403),
        ("submit", "GET", "/v1/audit", 403),
        ("work", "POST", "/v1/leases", 422),
        ("work", "GET", "/v1/sweeps", 403),
        ("work", "GET", "/v1/datasets/python-topics/content?part=training", 200),
        ("work", "DELETE", "/v1/datasets/python-topics", 403),
        ("admin", "GET", "/v1/sweeps", 200),
        ("admin", "GET", "/v1/tokens", 200),
        ("admin", "POST", "/v1/leases", 403),
        ("read", "GET", "/", 200),
        ("work", "GET", "/", 403),
    ],
)
def test_a_scope_opens_what_it_says(
    client: TestClient, make_token: MakeToken, scope: str, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path, headers=bearer(make_token(scope)))
    assert answer.status_code == status, answer.text


def test_a_scope_is_asked_for_before_the_body_is_read(client: TestClient, make_token: MakeToken) -> None:
    headers = bearer(make_token("read")) | {"Content-Type": "application/json"}
    assert client.post("/v1/sweeps", content=b"{" * 4000, headers=headers).status_code == 403


def test_whoever_logged_in_can_log_out(client: TestClient, make_token: MakeToken) -> None:
    client.cookies.set(COOKIE, make_token("read"))
    assert client.post("/logout", headers={"Sec-Fetch-Site": "same-origin"}, follow_redirects=False).status_code == 303


# --- projects ---------------------------------------------------------------------------------------------------------


def test_a_token_of_one_project_sees_nothing_of_another(
    client: TestClient, make_token: MakeToken, served_rows: Rows
) -> None:
    sweep = served_rows.sweep(queued=1)
    ours, theirs = make_token("submit", project="default"), make_token("submit", project="vision")
    (trial,) = client.get(f"/v1/sweeps/{sweep}/trials", headers=bearer(ours)).json()["items"]
    for path in (f"/v1/sweeps/{sweep}", f"/v1/sweeps/{sweep}/leaderboard", f"/v1/trials/{trial['id']}"):
        assert client.get(path, headers=bearer(ours)).status_code == 200
        answer = client.get(path, headers=bearer(theirs))
        missing = client.get(path.replace(sweep, "0" * 26).replace(trial["id"], "0" * 26), headers=bearer(theirs))
        assert answer.status_code == missing.status_code == 404
        assert answer.json()["title"] == missing.json()["title"]
    assert client.get(f"/sweeps/{sweep}", headers=bearer(theirs)).status_code == 404
    assert sweep not in client.get("/", headers=bearer(theirs)).text
    assert client.get("/v1/sweeps", headers=bearer(theirs)).json()["items"] == []
    assert len(client.get("/v1/sweeps", headers=bearer(ours)).json()["items"]) == 1
    assert client.post(f"/v1/sweeps/{sweep}:cancel", headers=bearer(theirs)).status_code == 404


def _upload(client: TestClient, name: str, text: bytes, headers: dict[str, str]) -> Any:
    return client.post("/v1/datasets", data={"name": name}, files={"file": ("t.txt", text)}, headers=headers)


def test_two_projects_may_use_one_name_for_their_datasets(client: TestClient, make_token: MakeToken) -> None:
    ours, theirs = make_token("submit", project="default"), make_token("submit", project="vision")
    first = _upload(client, "text", b"abc " * 400, bearer(ours)).json()
    second = _upload(client, "text", b"xyz " * 400, bearer(theirs)).json()
    assert first["id"] != second["id"]
    assert client.get("/v1/datasets/text", headers=bearer(theirs)).json()["id"] == second["id"]
    assert client.get(f"/v1/datasets/{first['id']}", headers=bearer(theirs)).status_code == 404
    assert client.delete(f"/v1/datasets/{first['id']}", headers=bearer(theirs)).status_code == 404
    listed = client.get("/v1/datasets", headers=bearer(theirs)).json()["items"]
    assert [item["id"] for item in listed if not item["builtin"]] == [second["id"]]
    assert "python-topics" in [item["name"] for item in listed]


def test_workers_of_a_project_claim_only_its_trials(
    client: TestClient, services: Services, make_token: MakeToken, served_rows: Rows
) -> None:
    served_rows.sweep(queued=1)
    own, all_of_them = make_token("work", project="vision"), make_token("work")
    worker = served_rows.worker()
    shared = client.post("/v1/leases", json={"worker": worker}, headers=bearer(own))
    assert shared.status_code == 404, "a worker of all projects is not this token's"
    served_rows.update(Worker, worker, project="vision")
    assert client.post("/v1/leases", json={"worker": worker}, headers=bearer(own)).status_code == 204
    sweep = sa.update(Sweep).values(project="vision")
    services.database.write(lambda session: session.execute(sweep).rowcount)
    trial = sa.text("UPDATE trials SET project = 'vision'")
    services.database.write(lambda session: session.execute(trial).rowcount)
    lease = client.post("/v1/leases", json={"worker": worker}, headers=bearer(own))
    assert lease.status_code == 200
    path = f"/v1/leases/{lease.json()['trial']}/1:heartbeat"
    other = make_token("work", project="default")
    assert client.post(path, json={}, headers=bearer(other)).status_code == 404
    assert client.post(path, json={}, headers=bearer(all_of_them)).status_code == 200


def test_a_token_of_all_projects_says_where_it_works(client: TestClient, make_token: MakeToken) -> None:
    everywhere, bound = make_token("submit", "admin"), make_token("submit", project="vision")
    _upload(client, "text", b"abc " * 400, bearer(everywhere, "vision"))
    assert client.get("/v1/datasets/text", headers=bearer(bound)).status_code == 200
    assert client.get("/v1/datasets/text", headers=bearer(everywhere)).status_code == 404
    assert client.get("/v1/datasets", headers=bearer(everywhere, "nowhere")).status_code == 404
    assert client.get("/v1/datasets", headers=bearer(bound, "default")).status_code == 403
    assert client.get("/v1/datasets", headers=bearer(bound, "vision")).status_code == 200


def test_projects_are_made_and_deleted_when_empty(client: TestClient) -> None:
    assert client.post("/v1/projects", json={"name": "vision"}).status_code == 201
    assert client.post("/v1/projects", json={"name": "vision"}).status_code == 409
    assert client.post("/v1/projects", json={"name": "Vision!"}).status_code == 422
    assert [item["name"] for item in client.get("/v1/projects").json()["items"]] == ["default", "vision"]
    assert client.delete("/v1/projects/default").status_code == 409
    assert client.delete("/v1/projects/vision").status_code == 204
    assert client.delete("/v1/projects/vision").status_code == 404


def test_an_administrator_of_one_project_reaches_no_other(client: TestClient, make_token: MakeToken) -> None:
    admin, other = make_token("admin", project="vision"), make_token("read", project="default")
    made = client.post("/v1/tokens", json={"name": "x", "scopes": ["read"]}, headers=bearer(admin))
    assert made.json()["project"] == "vision"
    for project in (None, "default"):
        body = {"name": "x", "scopes": ["read"], "project": project}
        assert client.post("/v1/tokens", json=body, headers=bearer(admin)).status_code == 403
    assert client.post("/v1/projects", json={"name": "mine"}, headers=bearer(admin)).status_code == 403
    everywhere = make_token("admin")
    ids = {item["project"]: item["id"] for item in client.get("/v1/tokens", headers=bearer(everywhere)).json()["items"]}
    assert client.delete(f"/v1/tokens/{ids['default']}", headers=bearer(admin)).status_code == 404
    assert client.get("/v1/sweeps", headers=bearer(other)).status_code == 200


# --- the page ---------------------------------------------------------------------------------------------------------


def test_a_browser_logs_in_with_a_token_and_out_again(client: TestClient, make_token: MakeToken) -> None:
    secret = make_token("submit")
    html = {"Accept": "text/html"}
    sent_away = client.get("/datasets", headers=html, follow_redirects=False)
    assert (sent_away.status_code, sent_away.headers["location"]) == (303, "/login?next=/datasets")
    assert client.get("/login?next=/datasets").status_code == 200
    assert client.get("/static/page.css").status_code == 200
    wrong = client.post("/login", data={"token": "lsw_wrong", "next": "/datasets"})
    assert (wrong.status_code, "not known" in wrong.text, "lsw_wrong" in wrong.text) == (401, True, False)
    assert "see <code>layersweep token create</code>" in wrong.text
    entered = client.post("/login", data={"token": secret, "next": "/datasets"}, follow_redirects=False)
    assert (entered.status_code, entered.headers["location"]) == (303, "/datasets")
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert client.get("/datasets", headers=html).status_code == 200
    assert (
        "<code>LAYERSWEEP_TOKEN=TOKEN layersweep worker --server http://testserver</code>"
        in client.get("/workers").text
    )
    client.post("/logout", headers={"Origin": "http://testserver"})
    assert client.get("/datasets", headers=html, follow_redirects=False).status_code == 303


@pytest.mark.parametrize("elsewhere", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:x"])
def test_logging_in_leads_to_no_other_place(client: TestClient, make_token: MakeToken, elsewhere: str) -> None:
    entered = client.post("/login", data={"token": make_token("read"), "next": elsewhere}, follow_redirects=False)
    assert entered.headers["location"] == "/"


def test_the_cookie_is_sent_over_tls_only_where_the_page_came_by_it(app: FastAPI, make_token: MakeToken) -> None:
    with TestClient(app, base_url="https://testserver") as secure:
        entered = secure.post("/login", data={"token": make_token("read")}, follow_redirects=False)
        assert "secure" in entered.headers["set-cookie"].lower()


def test_with_the_cookie_only_our_own_page_changes_anything(
    client: TestClient, make_token: MakeToken, served_rows: Rows
) -> None:
    sweep = served_rows.sweep()
    client.cookies.set(COOKIE, make_token("submit"))
    path = f"/v1/sweeps/{sweep}:pause"
    assert client.post(path).status_code == 403
    assert client.post(path, headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.post(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.post(path, headers={"Sec-Fetch-Site": "same-site"}).status_code == 403
    assert client.post(path, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert client.post(path, headers={"Origin": "http://testserver"}).status_code == 200


def test_every_answer_has_the_headers_that_protect_a_browser(client: TestClient) -> None:
    for path in ("/v1/sweeps", "/v1/nothing", "/", "/static/page.css", "/openapi.json"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-request-id"]


# --- the record -------------------------------------------------------------------------------------------------------


def test_who_changed_what_is_recorded_with_the_change(
    client: TestClient, services: Services, make_token: MakeToken, served_rows: Rows
) -> None:
    sweep = served_rows.sweep()
    submit = make_token("submit", project="default")
    client.post(f"/v1/sweeps/{sweep}:pause", headers=bearer(submit) | {"X-Request-ID": "from-a-proxy"})
    client.post(f"/v1/sweeps/{sweep}:cancel", headers=bearer(submit))
    client.delete(f"/v1/sweeps/{sweep}", headers=bearer(submit))
    assert client.post(f"/v1/sweeps/{sweep}:resume", headers=bearer(submit)).status_code == 404
    dataset = _upload(client, "text", b"abc " * 400, bearer(submit)).json()["id"]
    client.delete("/v1/datasets/text", headers=bearer(submit))
    items = client.get("/v1/audit", headers=bearer(make_token("admin"))).json()["items"]
    assert [(item["action"], item["subject"]) for item in reversed(items)] == [
        ("sweep.pause", sweep),
        ("sweep.cancel", sweep),
        ("sweep.delete", sweep),
        ("dataset.create", dataset),
        ("dataset.delete", dataset),
    ]
    assert {item["actor"] for item in items} == {"submit"}
    assert items[-1]["request_id"] == "from-a-proxy"


def test_what_failed_is_not_recorded(client: TestClient, services: Services) -> None:
    client.post("/v1/sweeps/nothing:cancel")
    client.post("/v1/projects", json={"name": "default"})
    assert services.database.read(lambda session: session.scalars(sa.select(AuditRecord)).all()) == []


def test_no_token_is_ever_logged(client: TestClient, make_token: MakeToken, caplog: pytest.LogCaptureFixture) -> None:
    secret = make_token("admin")
    with caplog.at_level(logging.DEBUG):
        client.get("/v1/sweeps", headers=bearer(secret))
        client.get(f"/v1/sweeps?page_token={secret}", headers=bearer(secret))
        client.get("/v1/sweeps", headers=bearer(f"{secret}x"))
        client.post("/login", data={"token": secret})
        client.get("/")
        client.post("/v1/tokens", json={"name": "x", "scopes": ["read"]}, headers=bearer(secret))
    # The client of this test logs the addresses that it asks: the service must not.
    logged = " ".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    assert "/v1/sweeps" in logged
    assert "lsw_" not in logged


def test_the_audit_says_whose_it_was_that_a_token_of_all_projects_changed(
    client: TestClient, services: Services, served_rows: Rows
) -> None:
    services.database.write(lambda session: projects.create(session, "beta").name)
    sweep = served_rows.sweep(queued=1)
    served_rows.update(Sweep, sweep, project="beta")
    client.post(f"/v1/sweeps/{sweep}:pause")
    made = client.post("/v1/tokens", json={"name": "everywhere", "scopes": ["admin"], "project": None}).json()
    services.access.forget()
    headers = {"Authorization": f"Bearer {made['token']}"}
    bound = client.post("/v1/tokens", json={"name": "b", "scopes": ["read"], "project": "beta"}, headers=headers).json()
    client.delete(f"/v1/tokens/{bound['id']}", headers=headers)
    records = client.get("/v1/audit", headers=headers).json()["items"]
    said = {(record["action"], record["subject"]): record["project"] for record in records}
    assert said == {
        ("sweep.pause", sweep): "beta",
        ("token.create", made["id"]): None,
        ("token.create", bound["id"]): "beta",
        ("token.revoke", bound["id"]): "beta",
    }


@pytest.mark.parametrize("path", ["/v1/sweeps", "/v1/audit", "/v1/workers", "/"])
def test_a_query_that_names_a_project_is_refused_and_says_how_to_name_it(client: TestClient, path: str) -> None:
    answer = client.get(path, params={"project": "beta"})
    assert answer.status_code == 422
    assert "Layersweep-Project" in answer.text


@pytest.mark.parametrize(("scope", "holds"), [("work", ["work"]), ("submit", ["read", "submit"]), ("read", ["read"])])
def test_any_token_is_told_who_it_is(client: TestClient, make_token: MakeToken, scope: str, holds: list[str]) -> None:
    assert client.get("/v1/whoami").json()["name"] == "anonymous"
    told = client.get("/v1/whoami", headers=bearer(make_token(scope, project="vision"))).json()
    assert (told["name"], told["project"], told["scopes"]) == (scope, "vision", holds)
