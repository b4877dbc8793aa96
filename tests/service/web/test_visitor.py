import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from httpx2 import Response

from service.auth import tokens
from service.database.access_models import Token
from service.http.dependencies import Services
from tests.service.rows import Rows


def test_each_page_says_who_is_logged_in_and_leads_out(client: TestClient, services: Services) -> None:
    assert "/logout" not in client.get("/").text, "nobody has to log in while there is no token"
    new = tokens.NewToken("ada", ["submit"], "default")
    _, secret = services.database.write(lambda session: tokens.create(session, new, made_by="test"))
    services.access.forget()
    client.post("/login", data={"token": secret})
    for path in ("/", "/datasets", "/new", "/nothing"):
        shown = client.get(path).text
        assert all(f"<dd>{what}</dd>" in shown for what in ("ada", "default", "read, submit")), path
        assert '<form method="post" action="/logout">' in shown
    assert "<dd>ada</dd>" not in client.get("/login").text, "it needs no token, and asks for none"


@pytest.fixture
def log_in(client: TestClient, services: Services) -> Callable[..., Response]:
    def as_one_with(*scopes: Any) -> Response:
        new = tokens.NewToken("ada", list(scopes), None)
        _, secret = services.database.write(lambda session: tokens.create(session, new, made_by="test"))
        services.access.forget()
        return client.post("/login", data={"token": secret})

    return as_one_with


def test_pages_offer_a_reader_nothing_that_would_be_refused(
    client: TestClient, served_rows: Rows, log_in: Callable[..., Response]
) -> None:
    def offered(path: str) -> set[str]:
        shown = client.get(path, headers={"Accept": "text/html"}).text
        return set(re.findall(r'data-api="([^"]+)"', shown)) | set(re.findall(r'href="(/new[^"]*)"', shown))

    sweep = f"/sweeps/{served_rows.sweep(queued=1)}"
    paths = ("/", sweep, "/datasets")
    before = {path: offered(path) for path in paths}
    assert before[sweep] >= {f"/v1{sweep}:pause", f"/v1{sweep}:cancel", f"/v1{sweep}:extend", f"/v1{sweep}", "/new"}
    log_in("submit")
    assert {path: offered(path) for path in paths} == before
    log_in("read")
    assert {path: offered(path) for path in paths} == {path: set() for path in paths}
    assert "a token with the scope <code>submit</code>" in client.get(sweep).text
    written = client.get("/new").text
    assert "Your token may only read" in written
    assert "Start the sweep" not in written
    assert "/new/check" not in written, "its refusal would say once more that the token may only read"


def test_a_token_that_cannot_open_pages_is_refused_at_the_login(
    client: TestClient, log_in: Callable[..., Response]
) -> None:
    refused = log_in("work")
    assert refused.status_code == 403
    assert "this needs a token with the scope read; this one has work" in refused.text
    assert '<form method="post" action="/login">' in refused.text
    assert not client.cookies


def test_a_page_whose_token_is_revoked_leads_as_a_whole_to_the_login_that_says_so(
    client: TestClient, services: Services, served_rows: Rows, log_in: Callable[..., Response]
) -> None:
    log_in("read")
    sweep = f"/sweeps/{served_rows.sweep(queued=1)}"
    (token,) = services.database.read(lambda session: session.scalars(sa.select(Token)).all())
    services.database.write(lambda session: tokens.revoke(session, token.id, None).id)
    services.access.forget()
    part = client.get(sweep, headers={"Accept": "text/html", "HX-Request": "true", "HX-Target": "div#sweep-live"})
    assert (part.status_code, part.headers["content-type"]) == (401, "application/problem+json")
    again = client.get(sweep, headers={"Accept": "text/html"})
    assert (again.url.path, again.url.params["next"]) == ("/login", sweep)
    assert "this token was revoked" in again.text
    assert 'role="alert"' not in client.get("/login?refused=what+a+link+says").text
