"""A worker's health can be seen from outside: by how old a file is."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from workers.service.client import ServiceClient, UnreachableError


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
