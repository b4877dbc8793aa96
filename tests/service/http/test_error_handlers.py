"""What is refused before a route is reached says what to try."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.routes.sweeps import EXAMPLE

SCOPES = "'read', 'submit', 'work' or 'admin'"


@pytest.mark.parametrize(
    ("path", "body", "pointer", "remedy"),
    [
        ("/v1/sweeps?page_size=0", None, "/page_size", "at least 1"),
        ("/v1/sweeps?page_size=1001", None, "/page_size", "at most 1000"),
        ("/v1/sweeps?page_size=many", None, "/page_size", "a whole number"),
        ("/v1/sweeps/x/leaderboard?feasible=maybe", None, "/feasible", "true or false, or one of 'undecided'"),
        ("/v1/leases", {}, "/worker", "add it"),
        ("/v1/projects", {"name": "Vision!"}, "/name", "use 1 to 63 of a-z, 0-9 and '-', beginning with a letter or"),
        ("/v1/projects", {"name": ""}, "/name", "at least 1 characters"),
        ("/v1/projects", {"name": "x" * 64}, "/name", "at most 63 characters"),
        ("/v1/projects", {"name": 3}, "/name", "a text"),
        ("/v1/projects", {"name": "x", "colour": "red"}, "/colour", "leave it out"),
        ("/v1/projects", [], "", "a mapping"),
        ("/v1/sweeps/x:extend", b"", "", "send one, as application/json"),
        ("/v1/sweeps/x:extend", b"[" * 100_000, "", "send a flatter one"),
        ("/v1/sweeps/x:extend", b"9" * 5_000, "", "integers lie between"),
        ("/v1/sweeps/x:extend", b"\xff", "", "send JSON in UTF-8"),
        ("/v1/sweeps?state=active&na%6De=%00", None, "/name", "leave it out"),
        ("/v1/tokens", {"name": "x", "scopes": ["reads"]}, "/scopes/0", f"one of {SCOPES}"),
        ("/v1/tokens", {"name": "x", "scopes": []}, "/scopes", "at least 1"),
        ("/v1/tokens", {"name": "x", "scopes": ["read"], "expires_in_days": 0}, "/expires_in_days", "more than 0"),
    ],
)
def test_every_refusal_has_a_remedy(client: TestClient, path: str, body: Any, pointer: str, remedy: str) -> None:
    raw = {"content": body, "headers": {"Content-Type": "application/json"}}
    sent: dict[str, Any] = raw if isinstance(body, bytes) else {"json": body}
    answer = client.get(path) if body is None else client.post(path, **sent)
    assert answer.status_code == 422, answer.text
    (problem,) = answer.json()["errors"]
    assert (problem["pointer"], problem["detail"] != "") == (pointer, True)
    assert problem["remedy"].startswith(remedy)
    assert not answer.json()["detail"].startswith(":")


def test_a_body_that_is_sent_as_a_form_is_told_so(client: TestClient) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post("/v1/sweeps/x:extend", content='{"trials": 5}', headers=headers)
    assert answer.status_code == 422
    assert answer.json()["detail"].endswith("its Content-Type is 'application/x-www-form-urlencoded'")
    assert answer.json()["errors"][0]["remedy"] == "send application/json"


def test_what_a_tag_may_be_is_said_in_words(client: TestClient) -> None:
    sweep = client.post("/v1/sweeps", json=EXAMPLE).json()["id"]
    answer = client.patch(f"/v1/sweeps/{sweep}", json={"tags": ["paper", "latency budget"]})
    remedy = "1 to 32 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
    detail = f"'latency budget' is not {remedy}"
    assert answer.json()["errors"] == [{"pointer": "/tags/1", "detail": detail, "remedy": remedy}]
