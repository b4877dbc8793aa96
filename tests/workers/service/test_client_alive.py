"""A worker's health can be seen from outside: by how old a file is."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from workers.service.client import CONNECT_SECONDS, ServiceClient, UnreachableError


@pytest.mark.parametrize("status", [200, 503])
def test_each_call_touches_the_alive_file_whatever_is_answered(tmp_path: Path, status: int) -> None:
    alive = tmp_path / "alive"
    transport = httpx2.MockTransport(lambda _: httpx2.Response(status, json={}))
    client = ServiceClient("http://service", transport=transport, alive_file=alive)
    assert not alive.exists()
    if status == 200:
        client.claim("worker", 1, "key")
    else:
        with pytest.raises(UnreachableError):
            client.claim("worker", 1, "key")
    assert alive.exists()


def test_how_busy_the_device_is_shows_no_life_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    """A thread of its own says it, while the one that claims may hang."""
    alive, timeouts = tmp_path / "alive", list[float]()

    def answer(request: httpx2.Request) -> httpx2.Response:
        timeouts.append(request.extensions["timeout"]["read"])
        return httpx2.Response(200, json={})

    client = ServiceClient("http://service", transport=httpx2.MockTransport(answer), alive_file=alive)
    client.report_device_use("worker", {"busy_share": 0.5, "over_seconds": 60.0, "source": "attempts"})
    assert not alive.exists()
    assert timeouts == [CONNECT_SECONDS]
