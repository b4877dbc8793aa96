"""What people say of a sweep: kept beside its document, told to who watches, found in lists."""

from __future__ import annotations

import html
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.http.dependencies import Services
from tests.service.rows import Rows
from tests.service.sweep_driver import Driver, small


def _listed(client: TestClient, **filters: str) -> list[str]:
    return [item["name"] for item in client.get("/v1/sweeps", params=filters).json()["items"]]


def test_a_sweep_is_renamed_noted_tagged_and_archived(client: TestClient, served_rows: Rows) -> None:
    sweep, other = served_rows.sweep(state="completed"), served_rows.sweep()
    path = f"/v1/sweeps/{sweep}"
    before = client.get(path).json()
    assert (before["note"], before["tags"], before["archived"]) == ("", [], False)

    changed = client.patch(path, json={"name": "baseline", "note": "a\nb", "tags": ["paper", "v1_x", "paper"]}).json()
    assert (changed["name"], changed["note"], changed["tags"]) == ("baseline", "a\nb", ["paper", "v1_x"])
    assert changed["version"] > before["version"], "who watches reads it anew"
    assert changed["document"] == before["document"]
    assert _listed(client, tag="paper") == _listed(client, tag="v1_x") == ["baseline"]
    assert _listed(client, tag="v1-x") == _listed(client, tag="pap") == _listed(client, tag='"') == []

    archived = client.patch(path, json={"archived": True}).json()
    assert (archived["archived"], archived["tags"]) == (True, ["paper", "v1_x"]), "what is left out stays"
    assert _listed(client) == ["sweep"]
    assert _listed(client, archived="only") == ["baseline"]
    assert _listed(client, archived="show") == ["sweep", "baseline"]
    assert 'href="/sweeps/' + sweep not in client.get("/").text
    assert 'href="/sweeps/' + sweep in client.get("/?archived=true&tag=paper").text
    assert 'href="/sweeps/' + other not in client.get("/?archived=true").text
    assert "baseline" in client.get(f"/sweeps/{sweep}").text

    same = client.patch(path, json={"archived": True}).json()
    assert same["version"] == archived["version"], "nothing has changed"
    events = [event for event in served_rows.kinds(sweep) if event == "sweep.annotated"]
    assert len(events) == 2


def test_a_sweep_has_tags_from_the_beginning(client: TestClient, services: Services) -> None:
    Driver(services.database, services.settings).add_dataset()
    posted = client.post("/v1/sweeps", params={"tag": ["paper", "v1", "paper"]}, json=small())
    assert (posted.status_code, posted.json()["tags"]) == (201, ["paper", "v1"])
    assert _listed(client, tag="v1") == [posted.json()["name"]]
    for wrong in (["Paper"], [f"t{number}" for number in range(17)]):
        refused = client.post("/v1/sweeps", params={"tag": wrong}, json=small())
        assert (refused.status_code, len(_listed(client))) == (422, 1)


def test_a_clone_has_its_sweeps_tags(client: TestClient, services: Services) -> None:
    Driver(services.database, services.settings).add_dataset()
    sweep = client.post("/v1/sweeps", params={"tag": ["paper", "v1"]}, json=small()).json()["id"]
    assert client.patch(f"/v1/sweeps/{sweep}", json={"tags": ["paper", "v2"], "note": "of that one"}).status_code == 200
    clone = client.post(f"/v1/sweeps/{sweep}:clone").json()
    assert (clone["tags"], clone["note"]) == (["paper", "v2"], "")
    assert 'data-api="/v1/sweeps?tag=paper&tag=v2"' in html.unescape(client.get(f"/new?from=sweep:{sweep}").text)


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": " "},
        {"name": "a\nb"},
        {"name": None},
        {"tags": ["A"]},
        {"tags": ['x"y']},
        {"tags": ["a"] * 17},
        {"note": "x" * 4001},
        {"state": "completed"},
    ],
)
def test_what_is_no_annotation_is_refused(client: TestClient, served_rows: Rows, body: dict[str, Any]) -> None:
    answer = client.patch(f"/v1/sweeps/{served_rows.sweep()}", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith(f"/{next(iter(body))}")
    assert client.patch("/v1/sweeps/none", json={"note": "x"}).status_code == 404
