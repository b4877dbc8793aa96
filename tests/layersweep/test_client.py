"""The client's methods: what they send and what they make of answers, against a scripted service."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import httpx2
import pytest

from layersweep import InvalidUsageError, MissingDependencyError, NotFoundError, Sweep, WaitTimeoutError
from layersweep.documents import nested
from layersweep.sweep import blocking as sweep_module
from tests.layersweep.answers import page, problem, row, scripted, sweep_record


def versioned(version: int, **changes: object) -> httpx2.Response:
    return httpx2.Response(200, json=sweep_record(version=version, **changes), headers={"ETag": f'"{version}"'})


def board(items: list[dict], token: str | None = None, total: int | None = None) -> httpx2.Response:
    body = {
        "items": items,
        "next_page_token": token,
        "sweep": "01J0000000000000000000000A",
        "objectives": [{"metric": "validation_loss", "goal": "minimize"}],
        "total": len(items) if total is None else total,
    }
    return httpx2.Response(200, json=body)


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(b"name: t\xc3\xadny\n")
    return path


def test_a_document_is_sent_as_it_is_whatever_it_comes_as(yaml_file: Path) -> None:
    json_file = yaml_file.with_suffix(".json")
    json_file.write_text('{"name": "tiny"}')
    sources = [
        yaml_file,
        str(yaml_file),
        "name: tiny\ntask: causal_lm\n",
        '{"name": "tiny"}',
        {"name": "tiny"},
        json_file,
    ]
    client, script, _ = scripted(*[httpx2.Response(201, json=sweep_record())] * len(sources))
    for source in sources:
        assert isinstance(client.submit(source), Sweep)
    kinds = [request.headers["Content-Type"].removeprefix("application/") for request in script.requests]
    assert kinds == ["yaml", "yaml", "yaml", "json", "json", "json"]
    assert script.requests[0].content == yaml_file.read_bytes()
    assert json.loads(script.requests[4].content) == {"name": "tiny"}


@pytest.mark.parametrize("source", ["missing.yaml", {"x": float("nan")}, {"x": object()}])
def test_a_document_that_cannot_be_sent_is_told_before_anything_is(source: object) -> None:
    client, script, _ = scripted()
    with pytest.raises(InvalidUsageError):
        client.submit(source)  # type: ignore[arg-type]
    assert script.requests == []


def test_validating_stores_nothing() -> None:
    client, script, _ = scripted(httpx2.Response(200, json={"valid": True}))
    assert client.validate({"name": "tiny"})["valid"] is True
    assert script.requests[0].url.params["validate_only"] == "true"


def test_lists_are_paged_by_themselves_and_only_as_far_as_needed() -> None:
    client, script, _ = scripted(page([sweep_record(name="a")], "next"), page([sweep_record(name="b")], "more"))
    names = [sweep.name for _, sweep in zip(range(2), client.sweeps(), strict=False)]
    assert names == ["a", "b"]
    assert script.requests[1].url.params["page_token"] == "next"
    assert len(script.requests) == 2


def test_waiting_polls_with_the_etag_and_tells_every_change(monkeypatch: pytest.MonkeyPatch) -> None:
    client, script, _ = scripted(
        httpx2.Response(201, json=sweep_record()),
        versioned(1),
        httpx2.Response(304, headers={"ETag": '"1"'}),
        versioned(2),
        versioned(3, state="completed"),
    )
    seen: list[int] = []
    sweep = client.submit({"name": "tiny"}).wait(on_progress=lambda record: seen.append(record["version"]))
    assert seen == [1, 2, 3]
    assert sweep.state == "completed"
    assert "If-None-Match" not in script.requests[1].headers
    assert [request.headers["If-None-Match"] for request in script.requests[2:]] == ['"1"', '"1"', '"2"']
    assert all(request.headers["Prefer"].startswith("wait=") for request in script.requests[2:])


def test_waiting_survives_a_service_that_restarts() -> None:
    client, _, delays = scripted(
        httpx2.Response(201, json=sweep_record()),
        versioned(1),
        *[httpx2.ConnectError("refused")] * 20,
        versioned(2, state="completed"),
        retry_seconds=5,
    )
    assert client.submit({"name": "tiny"}).wait().state == "completed"
    assert sum(delays) > 5


def test_waiting_has_an_end_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(sweep_module.time, "monotonic", lambda: float(next(clock)))
    answers = [httpx2.Response(304, headers={"ETag": '"1"'})] * 50
    client, _, _ = scripted(httpx2.Response(201, json=sweep_record()), versioned(1), *answers)
    with pytest.raises(WaitTimeoutError, match="has not ended within 30 s"):
        client.submit({"name": "tiny"}).wait(timeout_seconds=30)


def test_sweeps_are_filtered_by_the_service() -> None:
    client, script, _ = scripted(page([sweep_record(name="a")]), page([sweep_record(name="a")]))
    assert [sweep.name for sweep in client.sweeps(state=["active", "paused"], name="a", sort="-name")] == ["a"]
    params = script.requests[0].url.params
    assert (params.get_list("state"), params["name"], params["sort"]) == (["active", "paused"], "a", "-name")
    assert "task" not in params
    assert list(client.sweeps(state="failed"))
    assert script.requests[1].url.params.get_list("state") == ["failed"]


def test_the_leaderboard_is_filtered_by_the_service() -> None:
    client, script, _ = scripted(httpx2.Response(200, json=sweep_record()), board([row(0)], total=1))
    conditions = ["latency_ms_p50<=2", "mlp.kind=GatedMLP"]
    found = client.leaderboard("01J0000000000000000000000A", state=["complete", "pruned"], where=conditions)
    assert len(found) == 1
    params = script.requests[1].url.params
    assert (params.get_list("state"), params.get_list("where")) == (["complete", "pruned"], conditions)


def test_the_leaderboard_has_the_rows_of_all_pages() -> None:
    client, script, _ = scripted(
        httpx2.Response(200, json=sweep_record()), board([row(0), row(1)], "next", total=3), board([row(2)], total=3)
    )
    found = client.sweep("01J0000000000000000000000A").leaderboard(sort="-latency_ms_p50", feasible=True)
    assert [item["number"] for item in found] == [0, 1, 2]
    assert (len(found), found.total, found[-1]["number"]) == (3, 3, 2)
    assert [item["number"] for item in found[:2]] == [0, 1]
    params = script.requests[2].url.params
    assert (params["sort"], params["feasible"], params["page_token"]) == ("-latency_ms_p50", "true", "next")
    assert "on_front" not in params


def test_a_limit_cuts_the_leaderboard_and_fetches_no_more() -> None:
    client, script, _ = scripted(httpx2.Response(200, json=sweep_record()), board([row(0), row(1)], "next", total=9))
    found = client.sweep("01J0000000000000000000000A").leaderboard(limit=2)
    assert (len(found), found.total) == (2, 9)
    assert script.requests[1].url.params["page_size"] == "2"


def test_the_dataframe_has_a_column_for_each_parameter_and_metric() -> None:
    pytest.importorskip("pandas")
    both = row(1, parameters={"flops": 3}, metrics={"flops": 7.0}, state="failed", rank=None)
    client, _, _ = scripted(httpx2.Response(200, json=sweep_record()), board([row(0), both]))
    frame = client.sweep("01J0000000000000000000000A").dataframe()
    assert list(frame.index) == [0, 1]
    assert frame.loc[0, "hidden_size"] == 32
    assert frame.loc[0, "validation_loss"] == 1.75
    assert frame.loc[1, "parameters.flops"] == 3
    assert frame.loc[1, "metrics.flops"] == 7.0


def test_the_dataframe_without_pandas_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    client, _, _ = scripted(httpx2.Response(200, json=sweep_record()), board([row(0)]))
    with pytest.raises(MissingDependencyError, match=r"pip install 'layersweep\[pandas\]'"):
        client.sweep("01J0000000000000000000000A").dataframe()


@pytest.mark.parametrize(("action", "path"), [("cancel", ":cancel"), ("pause", ":pause"), ("resume", ":resume")])
def test_steering_a_sweep(action: str, path: str) -> None:
    client, script, _ = scripted(
        httpx2.Response(200, json=sweep_record()), httpx2.Response(200, json=sweep_record(state="paused"))
    )
    sweep = getattr(client.sweep("01J0000000000000000000000A"), action)()
    assert script.requests[1].url.path.endswith(path)
    assert sweep.state == "paused"


def test_a_dataset_is_uploaded_with_its_fields(tmp_path: Path) -> None:
    text = tmp_path / "poem.txt"
    text.write_text("to be or not to be")
    client, script, _ = scripted(httpx2.Response(201, json={"id": "1", "name": "poem"}))
    client.add_dataset("poem", text, tokenizer="char", validation=0.2)
    body = script.requests[0].content.decode()
    assert script.requests[0].headers["Content-Type"].startswith("multipart/form-data")
    for part in ('name="name"', "poem", 'name="tokenizer"', "char", 'name="validation"', "0.2", "to be or not to be"):
        assert part in body


def test_a_dataset_file_that_is_missing_is_told(tmp_path: Path) -> None:
    client, _, _ = scripted()
    with pytest.raises(InvalidUsageError, match=r"missing\.txt cannot be read"):
        client.add_dataset("x", tmp_path / "missing.txt")


def stream(*sequences: int) -> httpx2.Response:
    lines = "".join(
        f"id: {number}\nevent: trial.queued\ndata: {json.dumps({'sequence': number, 'kind': 'trial.queued'})}\n\n"
        for number in sequences
    )
    return httpx2.Response(200, text=lines, headers={"Content-Type": "text/event-stream"})


def test_events_reconnect_from_the_last_one_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module.time, "sleep", lambda seconds: None)

    client, script, _ = scripted(
        httpx2.Response(200, json=sweep_record()),
        stream(1, 2),
        versioned(3),
        httpx2.ConnectError("refused"),
        stream(3, 4),
        versioned(4, state="completed"),
    )
    events = client.sweep("01J0000000000000000000000A").events()
    assert [event["sequence"] for event in events] == [1, 2, 3, 4]
    streams = [request for request in script.requests if request.url.path.endswith("/events")]
    assert [request.headers["Last-Event-ID"] for request in streams] == ["0", "2", "2"]


def test_events_go_on_after_a_service_that_stopped_and_ended_its_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module.time, "sleep", lambda seconds: None)
    client, _, _ = scripted(
        httpx2.Response(200, json=sweep_record()),
        stream(1, 2),
        httpx2.ConnectError("refused"),
        stream(3),
        versioned(3, state="completed"),
        retry_seconds=0,
    )
    events = client.sweep("01J0000000000000000000000A").events()
    assert [event["sequence"] for event in events] == [1, 2, 3]


def test_events_of_a_sweep_whose_newest_ones_were_deleted_by_age_come_to_their_end() -> None:
    ended = versioned(9, state="completed")
    client, script, _ = scripted(ended, stream(1, 2), ended, stream(), ended)
    events = client.sweep("01J0000000000000000000000A").events()
    assert [event["sequence"] for event in events] == [1, 2]
    assert script.answers == []


def test_events_of_a_sweep_that_is_not_there() -> None:
    client, _, _ = scripted(httpx2.Response(200, json=sweep_record()), problem(404, "not-found", "there is no sweep"))
    with pytest.raises(NotFoundError):
        next(client.sweep("01J0000000000000000000000A").events())


def test_flat_paths_become_a_document() -> None:
    assert nested({"hidden_size": 64, "mlp.kind": "MLP", "mlp.hidden_act": "gelu"}) == {
        "hidden_size": 64,
        "mlp": {"kind": "MLP", "hidden_act": "gelu"},
    }
