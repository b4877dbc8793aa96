"""Downloads: whole files with the bytes that they are listed with, or none."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from layersweep.errors import ServiceFailureError
from tests.layersweep.answers import scripted, sweep_record


def test_an_export_is_not_what_an_address_in_front_answers(tmp_path: Path) -> None:
    moved = httpx2.Response(308, headers={"Location": "https://service.test/"}, html="<p>Moved</p>")
    client, _, _ = scripted(httpx2.Response(200, json=sweep_record()), moved)
    with pytest.raises(ServiceFailureError, match="sends on to https"):
        client.sweep("01J0000000000000000000000A").export(tmp_path / "rows.csv")
    assert list(tmp_path.iterdir()) == []
