"""Retries, addresses and errors of the client's HTTP, against a scripted service."""

from __future__ import annotations

import httpx2
import pytest

from layersweep import (
    Client,
    ConflictError,
    InvalidDocumentError,
    InvalidUsageError,
    LayersweepError,
    NotAuthorizedError,
    NotFoundError,
    RequestRefusedError,
    ServiceFailureError,
    UnreachableError,
)
from layersweep.transport import BACKOFF
from tests.layersweep.answers import page, problem, scripted, sweep_record


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_read_is_retried_when_the_service_cannot_answer_now(status: int) -> None:
    client, script, delays = scripted(httpx2.Response(status), httpx2.ConnectError("refused"), page([]))
    assert client.datasets() == []
    assert len(script.requests) == 3
    assert len(delays) == 2


def test_the_delay_that_the_service_asks_for_is_kept() -> None:
    client, _, delays = scripted(problem(429, "too-many-requests", "slow down", Retry_After="7"), page([]))
    client.datasets()
    assert delays == [7.0]


def test_a_delay_beyond_patience_raises_at_once() -> None:
    client, script, delays = scripted(problem(503, "unavailable", "later", Retry_After="3600"), retry_seconds=30)
    with pytest.raises(ServiceFailureError) as raised:
        client.datasets()
    assert raised.value.status == 503
    assert raised.value.retry_after_seconds == 3600
    assert (len(script.requests), delays) == (1, [])


def test_retrying_ends_when_patience_does() -> None:
    client, _, delays = scripted(*[httpx2.ConnectError("refused")] * 200, retry_seconds=20)
    with pytest.raises(UnreachableError, match=r"http://service\.test.*layersweep serve"):
        client.datasets()
    # The real time that each try takes is a part of it.
    assert 19 < sum(delays) <= 20


@pytest.mark.parametrize("status", [404, 405, 501])
def test_what_is_no_layersweep_is_named_with_its_address(status: int) -> None:
    page = httpx2.Response(status, html="<!DOCTYPE HTML><title>Error</title>")
    client, _, _ = scripted(page, httpx2.Response(status, json={"detail": "Not Found"}))
    for _ in range(2):
        with pytest.raises(
            ServiceFailureError, match=r"http://service\.test/v1/\S+ answered .*is not a Layersweep"
        ) as raised:
            client.datasets()
        assert "DOCTYPE" not in str(raised.value)


def test_a_proxy_in_front_may_refuse_or_be_busy() -> None:
    client, script, _ = scripted(httpx2.Response(502, html="<html>"), httpx2.Response(403, html="<html>"))
    with pytest.raises(NotAuthorizedError, match="a proxy in front") as raised:
        client.datasets()
    assert len(script.requests) == 2
    assert any("http://service.test" in note and "LAYERSWEEP_TOKEN" in note for note in raised.value.__notes__)


@pytest.mark.parametrize(
    ("variable", "token", "says"),
    [
        ("secret", None, "the token is that of LAYERSWEEP_TOKEN"),
        ("other", "secret", "the token is the given one, not that of LAYERSWEEP_TOKEN"),
        ("", None, "no token was sent"),
    ],
)
def test_a_refused_token_is_told_with_the_service_that_refused_it(
    variable: str, token: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERSWEEP_TOKEN", variable)
    refuse = httpx2.MockTransport(lambda request: problem(401, "unauthorized", "no"))
    with pytest.raises(NotAuthorizedError) as raised:
        Client("http://service.test", token, transport=refuse).datasets()
    (note,) = raised.value.__notes__
    assert note.startswith("The service is http://service.test ")
    assert says in note
    assert "secret" not in note


def test_a_server_is_named_without_the_path_of_its_api() -> None:
    with pytest.raises(InvalidUsageError, match="without /v1"):
        Client("http://service.test/v1/")


def test_delays_double_up_to_a_limit() -> None:
    for tries in range(1, 40):
        whole = min(10.0, 0.2 * 2 ** (tries - 1))
        assert whole / 2 <= BACKOFF.seconds(tries) <= whole


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 500])
def test_answers_that_would_be_the_same_again_are_not_retried(status: int) -> None:
    client, script, _ = scripted(problem(status, "some", "no"))
    with pytest.raises(LayersweepError):
        client.datasets()
    assert len(script.requests) == 1


def test_a_submission_is_retried_under_one_idempotency_key() -> None:
    client, script, _ = scripted(
        httpx2.ReadError("lost"), httpx2.Response(503), httpx2.Response(201, json=sweep_record())
    )
    client.submit({"name": "tiny"})
    keys = {request.headers["Idempotency-Key"] for request in script.requests}
    assert (len(script.requests), len(keys)) == (3, 1)
    assert len(keys.pop()) >= 16


def test_two_submissions_have_two_keys() -> None:
    client, script, _ = scripted(*[httpx2.Response(201, json=sweep_record())] * 2)
    client.submit({"name": "tiny"})
    client.submit({"name": "tiny"})
    assert len({request.headers["Idempotency-Key"] for request in script.requests}) == 2


def test_a_post_without_a_key_is_sent_once() -> None:
    client, script, _ = scripted(httpx2.ReadError("lost"))
    with pytest.raises(UnreachableError):
        client.create_token("ci", ["read"], project=None)
    assert [request.method for request in script.requests] == ["POST"]


def test_a_budget_is_extended_once_though_its_answer_was_lost_and_the_service_still_works_on_it() -> None:
    busy = httpx2.Response(409, json={"type": "urn:layersweep:problem:in-flight", "detail": "being worked on"})
    record = httpx2.Response(200, json=sweep_record())
    client, script, _ = scripted(record, httpx2.ReadError("lost"), busy, record)
    client.sweep("01J0000000000000000000000A").extend(trials=5)
    keys = [request.headers["Idempotency-Key"] for request in script.requests[1:]]
    assert len(keys) == 3
    assert len(set(keys)) == 1


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (401, "unauthorized", NotAuthorizedError),
        (403, "forbidden", NotAuthorizedError),
        (404, "not-found", NotFoundError),
        (409, "conflict", ConflictError),
        (413, "payload-too-large", RequestRefusedError),
        (422, "invalid-document", InvalidDocumentError),
        (422, "unprocessable", RequestRefusedError),
        (500, "internal", ServiceFailureError),
    ],
)
def test_an_error_carries_the_problem_document(status: int, kind: str, error: type[LayersweepError]) -> None:
    item = {"pointer": "/model/num_layers", "detail": "min 8 is above max 2", "remedy": "min <= max"}
    client, _, _ = scripted(problem(status, kind, "it was not accepted", [item]))
    with pytest.raises(error) as raised:
        client.validate({"model": {}})
    found = raised.value
    assert type(found) is error
    assert (found.status, found.type, found.detail) == (status, kind, "it was not accepted")
    assert found.errors[0].pointer == "/model/num_layers"
    assert found.document["title"] == "A title"
    for part in ("it was not accepted", "/model/num_layers", "min 8 is above max 2", "min <= max"):
        assert part in str(found)


def test_an_error_that_is_no_problem_document_keeps_its_text() -> None:
    client, _, _ = scripted(httpx2.Response(500, text="proxy\n  trouble"))
    with pytest.raises(ServiceFailureError, match="proxy trouble"):
        client.datasets()


def test_something_else_than_the_service_is_recognized() -> None:
    client, _, _ = scripted(httpx2.Response(200, html="<html>hello</html>"))
    with pytest.raises(ServiceFailureError, match="this is not a Layersweep service"):
        client.datasets()


def test_server_and_token_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERSWEEP_SERVER", "http://elsewhere.test:9000/")
    monkeypatch.setenv("LAYERSWEEP_TOKEN", "secret")
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return page([])

    with Client(transport=httpx2.MockTransport(answer)) as client:
        client.datasets()
    assert str(seen[0].url).startswith("http://elsewhere.test:9000/v1/datasets")
    assert seen[0].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("server", ["localhost:8420", "ftp://x", "http://", "http://[::1"])
def test_a_server_that_is_no_url_is_refused_with_an_example(server: str) -> None:
    with pytest.raises(InvalidUsageError, match="is not a URL"):
        Client(server)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a?b", "a#b"])
def test_a_name_cannot_reach_another_address(name: str) -> None:
    client, script, _ = scripted()
    with pytest.raises(InvalidUsageError):
        client.dataset(name)
    assert script.requests == []


@pytest.mark.parametrize("name", ["..", "a/b", "a?b&page_size=1", "a#b"])
def test_a_sweep_of_any_name_is_looked_for_among_names(name: str) -> None:
    client, script, _ = scripted(page([{"id": "2", "name": f"{name} and more"}]))
    with pytest.raises(NotFoundError):
        client.sweep(name)
    assert script.requests[0].url.path == "/v1/sweeps"
    assert script.requests[0].url.params["name"] == name


@pytest.mark.parametrize("token", ["secret\n", " secret", "secret\r\n"])
def test_a_token_is_taken_as_a_file_has_it(token: str) -> None:
    client, script, _ = scripted(page([]))
    given = Client("http://service.test", token, transport=httpx2.MockTransport(script))
    given.datasets()
    assert script.requests[0].headers["Authorization"] == "Bearer secret"
    client.close()


@pytest.mark.parametrize("token", ["se\ncret", "schlüssel", "\x1b[0m", "\n"])
def test_what_is_no_token_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(InvalidUsageError, match="LAYERSWEEP_TOKEN") as raised:
        Client("http://service.test", token)
    assert token.strip() == "" or token not in str(raised.value)


def test_what_was_not_sent_is_sent_again_until_it_was() -> None:
    refused, made = httpx2.ConnectError("refused"), httpx2.Response(201, json={"id": "1"})
    client, script, _ = scripted(refused, refused, made)
    client.create_webhook("https://example.com/hook")
    assert len(script.requests) == 3
    client, script, _ = scripted(refused, httpx2.ReadError("lost"), made)
    with pytest.raises(UnreachableError):
        client.create_webhook("https://example.com/hook")
    assert len(script.requests) == 2, "it may have acted, though the first try did not"


@pytest.mark.parametrize(("name", "value"), [("HTTPS_PROXY", "nonsense://x"), ("SSL_CERT_FILE", "/nowhere/ca.pem")])
def test_an_environment_that_cannot_be_used_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidUsageError, match="HTTPS_PROXY, SSL_CERT_FILE"):
        Client("https://service.test")


def test_nothing_is_deleted_by_an_answer_of_another_server() -> None:
    client, _, _ = scripted(httpx2.Response(200, html="<p>Welcome</p>"))
    with pytest.raises(ServiceFailureError, match="this is not a Layersweep service"):
        client.revoke_token("1")
