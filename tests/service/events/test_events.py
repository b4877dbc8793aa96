"""A sweep's events: in order, without gaps, replayed from anywhere, and the stream ends with the sweep."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import httpx2
import jsonschema
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from service.app import create_app
from service.database.models import Sweep
from service.database.sessions import Database
from service.errors import NotFoundError
from service.events import events
from service.events.schemas import EventKind
from service.settings import Settings
from tests.service.rows import Rows


def _append(database: Database, sweep: str, kind: EventKind = "trial.report") -> int:
    return database.write(lambda session: events.append(session, sweep, kind, data={"state": "active"}))


def _end(database: Database, sweep: str) -> None:
    def write(session: Session) -> None:
        session.get_one(Sweep, sweep).state = "completed"
        session.flush()
        events.append(session, sweep, "sweep.state", data={"state": "completed"})

    database.write(write)


def _parse(stream: str) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for block in stream.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if fields:
            made.append({"id": int(fields["id"]), "event": fields["event"], "data": json.loads(fields["data"])})
    return made


def test_sequences_of_concurrent_writers_have_no_gap_and_no_double(database: Database, rows: Rows) -> None:
    sweep = rows.sweep(0)
    with ThreadPoolExecutor(8) as threads:
        given = list(threads.map(lambda _: _append(database, sweep), range(40)))
    assert sorted(given) == list(range(2, 42))
    stored = database.read(lambda session: [event.sequence for event in events.read(session, sweep, 0, 100)])
    assert stored == list(range(1, 42))
    assert rows.find_sweep(sweep).event_counter == 41


def test_a_transaction_that_fails_leaves_no_gap(database: Database, rows: Rows) -> None:
    sweep = rows.sweep(0)

    def fail(session: Session) -> None:
        events.append(session, sweep, "trial.report", data={"number": 0})
        raise LookupError

    with pytest.raises(LookupError):
        database.write(fail)
    assert _append(database, sweep) == 2


def test_an_event_of_no_sweep_is_refused(database: Database) -> None:
    with pytest.raises(NotFoundError):
        _append(database, "nothing")


def _kinds_written() -> Iterator[str]:
    """The kinds of events that the service's source names where it makes one."""
    written_by = Path(events.__file__)
    for file in sorted(written_by.parents[1].rglob("*.py")):
        # `events.append` passes on what it is given.
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if file != written_by else ():
            if not isinstance(node, ast.Call):
                continue
            if ast.unparse(node.func).endswith("NewEvent"):
                kind = node.args[0]
            elif ast.unparse(node.func) == "events.append":
                kind = node.args[2]
            else:
                continue
            assert isinstance(kind, ast.Constant), f"{file.name}, line {node.lineno}: the kind is not written out"
            yield str(kind.value)


def test_the_api_description_lists_every_kind_that_is_written(client: TestClient) -> None:
    route = client.get("/openapi.json").json()["paths"]["/v1/sweeps/{sweep}/events"]["get"]
    item = route["responses"]["200"]["content"]["text/event-stream"]["itemSchema"]
    assert item["properties"]["data"]["type"] == "string"
    listed = item["properties"]["data"]["contentSchema"]["properties"]["kind"]["enum"]
    assert listed == list(get_args(EventKind))
    assert set(_kinds_written()) == set(listed)


def test_what_the_stream_sends_is_as_the_api_description_says(client: TestClient, served_rows: Rows) -> None:
    sweep = served_rows.sweep(0)
    _end(served_rows.database, sweep)
    route = client.get("/openapi.json").json()["paths"]["/v1/sweeps/{sweep}/events"]["get"]
    item = route["responses"]["200"]["content"]["text/event-stream"]["itemSchema"]
    sent = [event["data"] for event in _parse(client.get(f"/v1/sweeps/{sweep}/events").text)]
    assert sent
    for data in sent:
        jsonschema.validate(data, item["properties"]["data"]["contentSchema"])


def test_an_event_of_a_kind_that_a_newer_version_wrote_is_read(client: TestClient, served_rows: Rows) -> None:
    sweep = served_rows.sweep(0)
    served_rows.database.write(lambda session: events.append(session, sweep, "sweep.new", data={}))  # type: ignore[arg-type]
    _end(served_rows.database, sweep)
    assert [event["event"] for event in _parse(client.get(f"/v1/sweeps/{sweep}/events").text)][1] == "sweep.new"


@pytest.mark.parametrize(
    ("kind", "topics"),
    [
        ("trial.report", set()),
        ("trial.queued", {"queue"}),
        ("trial.ended", {"queue", "scheduler"}),
        ("sweep.state", {"queue", "scheduler"}),
    ],
)
def test_those_who_act_on_an_event_wake(database: Database, rows: Rows, kind: EventKind, topics: set[str]) -> None:
    sweep = rows.sweep(0)
    notifications = database.notifications
    watched = ("queue", "scheduler", f"sweep:{sweep}")
    before = {topic: notifications.version(topic) for topic in watched}
    _append(database, sweep, kind)
    woken = {topic for topic in watched if notifications.version(topic) > before[topic]}
    assert woken == topics | {f"sweep:{sweep}"}


def test_the_stream_of_an_ended_sweep_replays_all_and_ends(client: TestClient, served_rows: Rows) -> None:
    sweep = served_rows.sweep(2)
    _end(served_rows.database, sweep)
    answer = client.get(f"/v1/sweeps/{sweep}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    sent = _parse(answer.text)
    assert [event["id"] for event in sent] == [1, 2, 3, 4]
    assert [event["event"] for event in sent] == ["sweep.created", "trial.queued", "trial.queued", "sweep.state"]
    assert sent[1]["data"]["data"] == {"number": 0}
    assert sent[1]["data"]["sequence"] == 2


@pytest.mark.parametrize(
    ("headers", "query", "first"),
    [
        ({"Last-Event-ID": "3"}, "", 4),
        ({}, "?after=3", 4),
        ({"Last-Event-ID": "2"}, "?after=3", 3),
        ({"Last-Event-ID": "what"}, "", 1),
        ({"Last-Event-ID": "9" * 30}, "", 1),
    ],
)
def test_a_stream_goes_on_where_it_was_cut(
    client: TestClient, served_rows: Rows, headers: dict[str, str], query: str, first: int
) -> None:
    sweep = served_rows.sweep(2)
    _end(served_rows.database, sweep)
    sent = _parse(client.get(f"/v1/sweeps/{sweep}/events{query}", headers=headers).text)
    assert [event["id"] for event in sent] == list(range(first, 5))


def test_more_events_than_one_read_takes_are_all_sent(
    client: TestClient, served_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.routes.events.BATCH", 3)
    sweep = served_rows.sweep(10)
    _end(served_rows.database, sweep)
    sent = _parse(client.get(f"/v1/sweeps/{sweep}/events").text)
    assert [event["id"] for event in sent] == list(range(1, 13))


def test_a_watcher_sees_events_as_they_happen(settings: Settings, live_rows: Rows, live_url: str) -> None:
    sweep = live_rows.sweep(0, state="paused")
    seen: list[int] = []
    with httpx2.stream("GET", f"{live_url}/v1/sweeps/{sweep}/events", timeout=30) as answer:
        for line in answer.iter_lines():
            if line.startswith("id: "):
                seen.append(int(line.removeprefix("id: ")))
                if len(seen) == 4:
                    _end(live_rows.database, sweep)
                elif len(seen) < 4:
                    _append(live_rows.database, sweep)
    assert seen == [1, 2, 3, 4, 5]


@pytest.fixture
def live_app(settings: Settings) -> Any:
    return create_app(settings, start_scheduler=False)


@pytest.fixture
def live_url(live_app: Any, serve: Any) -> str:
    return serve(live_app)


@pytest.fixture
def live_rows(live_url: str, live_app: Any, make_rows: type[Rows]) -> Any:
    return make_rows(live_app.state.services.database)
