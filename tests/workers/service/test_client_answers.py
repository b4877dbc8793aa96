"""What a worker makes of answers that are not its service's: a proxy's page, a redirect, another service's errors."""

from __future__ import annotations

import httpx2
import pytest

from workers.service.client import ForeignAnswerError, RefusedError, ServiceClient, UnreachableError


def client_of(answer: httpx2.Response) -> ServiceClient:
    return ServiceClient("http://service", transport=httpx2.MockTransport(lambda request: answer))


def test_a_service_at_another_address_refuses_and_names_it() -> None:
    # As Caddy answers plain HTTP: without this a worker would read the empty body as its registration.
    client = client_of(httpx2.Response(308, headers={"Location": "https://service/v1/leases/T0/1:heartbeat"}))
    with pytest.raises(RefusedError, match=r"sends on to https://service/.*HTTP 308") as refusal:
        client.heartbeat("T0", 1)
    assert not refusal.value.lease_is_lost


@pytest.mark.parametrize("body", ["<html>we are back soon</html>", "[]", '"ok"'])
def test_a_page_in_the_place_of_an_answer_is_waited_out(body: str) -> None:
    client = client_of(httpx2.Response(200, text=body, headers={"Content-Type": "text/html"}))
    with pytest.raises(ForeignAnswerError, match="text/html in place of JSON"):
        client.heartbeat("T0", 1)


@pytest.mark.parametrize("errors", [["no such host"], {"name": ["is required"]}, "several"])
def test_errors_of_another_form_are_passed_by(errors: object) -> None:
    with pytest.raises(UnreachableError, match="gone away"):
        client_of(httpx2.Response(502, json={"detail": "gone away", "errors": errors})).heartbeat("T0", 1)
    with pytest.raises(RefusedError, match="not here"):
        client_of(httpx2.Response(404, json={"detail": "not here", "errors": errors})).queue()
