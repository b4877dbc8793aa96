"""What holds for every path: keys of repetition, pages, limits, and a description that is complete."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.auth.rate_limits import LOOKS_AT_ONCE, Limits
from service.errors import TooManyRequestsError, TooSlowError
from service.http.dependencies import Services
from service.routes.sweeps import EXAMPLE as DOCUMENT
from service.settings import Settings
from tests.service.rows import Rows


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """One kind of database is enough here: what is asked of it is asked on both elsewhere."""
    return migrated_sqlite_url


NO_TOKEN = {"/v1/schemas/sweep.json"}
"""Editors fetch it without one."""


# --- Idempotency-Key --------------------------------------------------------------------------------------------------


def test_the_same_post_with_the_same_key_gets_the_same_answer(client: TestClient) -> None:
    key = {"Idempotency-Key": "one"}
    first, again = (client.post("/v1/sweeps", json=DOCUMENT, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"] == f"/v1/sweeps/{first.json()['id']}"
    other = client.post("/v1/sweeps", json=DOCUMENT | {"name": "other"}, headers=key)
    assert other.status_code == 422
    assert len(client.get("/v1/sweeps").json()["items"]) == 1


def test_an_action_with_a_key_happens_once(client: TestClient, served_rows: Rows) -> None:
    sweep = served_rows.sweep()
    key, path = {"Idempotency-Key": "more"}, f"/v1/sweeps/{sweep}:extend"
    for _ in range(3):
        assert client.post(path, json={"trials": 5}, headers=key).json()["budget"]["trials"] == 1005
    assert client.post(path, json={"trials": 6}, headers=key).status_code == 422
    assert client.post(f"/v1/sweeps/{sweep}:pause", headers=key).status_code == 422


def test_an_upload_with_a_key_happens_once(client: TestClient) -> None:
    def send(text: bytes, key: str = "data") -> Any:
        headers = {"Idempotency-Key": key}
        return client.post("/v1/datasets", data={"name": "t"}, files={"file": ("t", text)}, headers=headers)

    first, again, other = send(b"abc " * 300), send(b"abc " * 300), send(b"xyz " * 300)
    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
    assert first.json() == again.json()
    assert send(b"abc " * 300, "another").status_code == 200


def test_a_claim_that_is_sent_again_gets_its_lease_again(client: TestClient, served_rows: Rows) -> None:
    served_rows.sweep(queued=2)
    worker = served_rows.worker()
    key = {"Idempotency-Key": "claim"}
    first, again = (client.post("/v1/leases", json={"worker": worker}, headers=key) for _ in range(2))
    assert first.json() == again.json()
    assert client.post("/v1/leases", json={"worker": worker}).json()["trial"] != first.json()["trial"]
    path = f"/v1/leases/{first.json()['trial']}/1:release"
    released = [client.post(path, json={"reason": "drained"}, headers={"Idempotency-Key": "r"}) for _ in range(2)]
    assert [answer.status_code for answer in released] == [200, 200]
    assert client.post(path, json={"reason": "drained"}).status_code == 409


def test_a_request_that_is_being_worked_on_is_not_begun_again(client: TestClient, services: Services) -> None:
    services.in_flight.add(("default", "busy"))
    answer = client.post("/v1/sweeps", json=DOCUMENT, headers={"Idempotency-Key": "busy"})
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "1")
    assert answer.json()["type"] == "urn:layersweep:problem:in-flight"
    services.in_flight.clear()
    assert client.post("/v1/sweeps", json=DOCUMENT, headers={"Idempotency-Key": "busy"}).status_code == 201
    assert services.in_flight == set()


# --- lists ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "name", "-name"])
def test_pages_hold_every_sweep_once_while_others_are_posted(client: TestClient, served_rows: Rows, sort: str) -> None:
    before = [served_rows.sweep() for _ in range(7)]
    seen: list[str] = []
    token = None
    while True:
        params = {"sort": sort, "page_size": 2} | ({} if token is None else {"page_token": token})
        page = client.get("/v1/sweeps", params=params).json()
        seen += [item["id"] for item in page["items"]]
        token = page["next_page_token"]
        if token is None or len(seen) > 30:
            break
        if len(seen) < 5:
            served_rows.sweep()
    assert len(seen) == len(set(seen))
    assert set(before) <= set(seen)


def test_sweeps_are_found_by_name_task_and_state(client: TestClient, served_rows: Rows) -> None:
    served_rows.sweep(state="paused")
    client.post("/v1/sweeps", json=DOCUMENT | {"name": "100%_Sure"})

    def count(**params: str) -> int:
        return len(client.get("/v1/sweeps", params=params).json()["items"])

    assert count() == 2
    assert count(name="sure") == count(name="0%_S") == 1
    assert count(name="%") == 1, "a wildcard of SQL is a character"
    assert count(state="paused") == 1
    assert count(task="causal_lm") == 1
    assert client.get("/v1/sweeps", params={"sort": "name; DROP TABLE sweeps"}).status_code == 422


# --- limits -----------------------------------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _limits(**changes: Any) -> tuple[Limits, Clock]:
    clock = Clock()
    return Limits(Settings(**changes), clock), clock


def test_a_caller_that_asks_too_much_is_told_when_to_come_back() -> None:
    limits, clock = _limits(requests_per_second=10)
    for _ in range(40):
        with limits.request("a"):
            pass
    with pytest.raises(TooManyRequestsError) as refused, limits.request("a"):
        pass
    assert refused.value.retry_after_seconds == 1
    with limits.request("b"):
        pass
    clock.now += 0.11
    with limits.request("a"):
        pass


def test_a_caller_has_only_so_many_requests_at_a_time() -> None:
    limits, _ = _limits(concurrent_requests=1)
    with limits.request("a"):
        with pytest.raises(TooManyRequestsError), limits.request("a"):
            pass
        with limits.request("b"):
            pass
    with limits.request("a"):
        pass


def test_tokens_cannot_be_guessed_at_the_login(settings: Settings) -> None:
    limited = Settings(**settings.model_dump() | {"wrong_tokens_per_minute": 3})
    with TestClient(create_app(limited, start_scheduler=False), follow_redirects=False) as client:
        good = client.post("/v1/tokens", json={"name": "x", "scopes": ["read"]}).json()["token"]
        assert client.post("/login", data={"token": good}).status_code == 303
        client.cookies.clear()
        answers = [client.post("/login", data={"token": f"lsw_{guess}"}) for guess in range(6)]
        assert [each.status_code for each in answers] == [401, 401, 401, 429, 429, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert "too many wrong tokens" in answers[-1].text
        # They are counted together, wherever they are sent.
        assert client.get("/v1/sweeps", headers={"Authorization": "Bearer lsw_x"}).status_code == 429
        assert client.post("/login", data={"token": good}).status_code == 303


def test_tokens_cannot_be_guessed_in_a_loop(settings: Settings) -> None:
    limited = Settings(**settings.model_dump() | {"wrong_tokens_per_minute": 3})
    with TestClient(create_app(limited, start_scheduler=False)) as client:
        good = client.post("/v1/tokens", json={"name": "x", "scopes": ["read"]}).json()["token"]
        assert client.get("/v1/sweeps", headers={"Authorization": f"Bearer {good}"}).status_code == 200
        codes = [
            client.get("/v1/sweeps", headers={"Authorization": f"Bearer lsw_{guess}"}).status_code for guess in range(6)
        ]
        assert codes == [401, 401, 401, 429, 429, 429]
        answer = client.get("/v1/sweeps", headers={"Authorization": "Bearer lsw_x"})
        assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/v1/sweeps", headers={"Authorization": f"Bearer {good}"}).status_code == 200


def test_a_right_token_passes_beside_many_wrong_ones_of_its_address(settings: Settings) -> None:
    limited = Settings(**settings.model_dump() | {"wrong_tokens_per_minute": 3})
    with TestClient(create_app(limited, start_scheduler=False)) as client:
        good = client.post("/v1/tokens", json={"name": "x", "scopes": ["read"]}).json()["token"]

        def ask(token: str) -> int:
            return client.get("/v1/sweeps", headers={"Authorization": f"Bearer {token}"}).status_code

        assert [ask(f"lsw_{guess}") for guess in range(5)] == [401, 401, 401, 429, 429]
        assert ask(good) == 200, "this process has not seen it yet"


def test_wrong_tokens_cost_a_bounded_number_of_looks() -> None:
    limits, clock = _limits(wrong_tokens_per_minute=1)
    assert limits.refusal_of("a") is None
    limits.wrong_token("a")
    looked = [limits.refusal_of("a") for _ in range(int(LOOKS_AT_ONCE))]
    assert all(refusal is not None for refusal in looked)
    with pytest.raises(TooManyRequestsError, match="too many wrong tokens"):
        limits.refusal_of("a")
    assert limits.refusal_of("b") is None
    clock.now += 1
    assert limits.refusal_of("a") is not None, "a few more a second"


def test_a_body_that_stops_or_trickles_is_given_up() -> None:
    limits, clock = _limits(body_idle_seconds=0.01)

    async def stops() -> Any:
        await asyncio.Event().wait()

    async def trickles() -> Any:
        clock.now += 5
        return {"type": "http.request", "body": b"x", "more_body": True}

    for receive in (stops, trickles):
        with pytest.raises(TooSlowError):
            asyncio.run(limits.body(receive)())


@pytest.fixture
def impatient(settings: Settings) -> Iterator[TestClient]:
    """A service that waits a moment for a body, and takes a thousand bytes."""
    changes = {"body_idle_seconds": 0.05, "max_document_bytes": 1000, "max_upload_bytes": 1000}
    with TestClient(create_app(Settings(**settings.model_dump() | changes), start_scheduler=False)) as client:
        yield client


def test_a_body_that_is_too_large_is_a_problem_document(impatient: TestClient) -> None:
    large = {"name": "x" * 2000}
    for path in ("/v1/sweeps", "/v1/tokens", "/v1/workers"):
        answer = impatient.post(path, json=large)
        assert answer.status_code == 413, path
        assert answer.headers["content-type"] == "application/problem+json"
    upload = impatient.post("/v1/datasets", data={"name": "t"}, files={"file": ("t", b"x" * 200_000)})
    assert upload.status_code == 413


# --- the description --------------------------------------------------------------------------------------------------


def _examples(schema: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(schema, dict):
        for example in schema.get("examples", []) if isinstance(schema.get("examples"), list) else []:
            yield place, schema, example
        if "example" in schema and "schema" in schema:
            yield place, schema["schema"], schema["example"]
        for name, part in schema.items():
            yield from _examples(part, f"{place}/{name}")
    elif isinstance(schema, list):
        for position, part in enumerate(schema):
            yield from _examples(part, f"{place}/{position}")


def test_every_example_is_valid_by_its_schema(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    found = list(_examples(document["paths"], "paths")) + list(_examples(document["components"], "components"))
    assert len(found) >= 10
    for place, schema, example in found:
        whole = {"components": document["components"], **schema}
        jsonschema.Draft202012Validator(whole).validate(example), place


def test_every_operation_says_who_may_and_what_may_go_wrong(client: TestClient) -> None:
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            if not path.startswith("/v1"):
                continue
            assert operation.get("security") or path in NO_TOKEN, (method, path)
            wanted = {"401", "403", "404", "422", "429", "503"} | ({"413"} if "requestBody" in operation else set())
            assert wanted <= operation["responses"].keys(), (method, path)
            if method == "post":
                names = [parameter["name"] for parameter in operation["parameters"]]
                assert "Idempotency-Key" in names, path


def test_every_body_has_an_example(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is None:
                continue
            schema = content["schema"]
            named = document["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], {})
            parts = json.dumps(named.get("properties", {}))
            assert content.keys() & {"example", "examples"} or named.get("examples") or '"examples"' in parts, path
