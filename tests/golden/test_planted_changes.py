"""The comparison fails where what users and programs see is another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layersweep.cli import app, common
from service import errors
from service.common import formatting, metrics
from service.events import events, webhooks
from service.events.schemas import Event
from service.http import middleware
from service.results import exports
from service.settings import Settings
from service.web import rendering
from tests.golden import answers, command_line, notices, surface
from tests.golden.recordings import RENEWS, ChangedError, compare
from tests.golden.world import World

pytestmark = [
    pytest.mark.skipif(RENEWS, reason="nothing planted is recorded"),
    pytest.mark.parametrize("filled", ["sqlite"], indirect=True),
]

Plant = Callable[[pytest.MonkeyPatch], None]


def set_item(mapping: Any, key: str, value: str) -> Plant:
    return lambda patch: patch.setitem(mapping, key, value)


def set_attribute(owner: Any, name: str, value: Any) -> Plant:
    return lambda patch: patch.setattr(owner, name, value)


def another_event(row: Any) -> Event:
    return to_event(row).model_copy(update={"kind": "trial.moved"})


to_event = events.to_schema

CHANGES: dict[str, tuple[str, Plant, str]] = {
    "page": ("/datasets/digits", set_attribute(formatting, "bytes_", lambda value: f"{value} octets"), "octets"),
    "header of a page": ("/layers", set_item(rendering.HEADERS, "Referrer-Policy", "origin"), "referrer-policy"),
    "header": ("/v1/targets", set_item(middleware._HEADERS, "X-Frame-Options", "SAMEORIGIN"), "x-frame-options"),
    "status": ("/v1/sweeps/nothing", set_attribute(errors.NotFoundError, "status", 410), "410"),
    "problem": ("/v1/sweeps/nothing", set_attribute(errors.NotFoundError, "title", "It is gone"), "It is gone"),
    "column of a CSV": (
        "/v1/sweeps/shapes/leaderboard?format=csv",
        set_attribute(exports, "FACTS", exports.FACTS[:-1]),
        "feasible",
    ),
    "report": ("/v1/sweeps/shapes/report?format=markdown", set_attribute(formatting, "metric", lambda *_: "~"), "~"),
    "event": ("/v1/sweeps/shapes/events", set_attribute(events, "to_schema", another_event), "trial.moved"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_another_answer_is_noticed(filled: World, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, plant, seen = CHANGES[kind]
    recording = f"answers/{answers.file_name(name)}"
    compare(recording, answers.of(filled, name))
    plant(monkeypatch)
    with pytest.raises(ChangedError, match="make golden") as noticed:
        compare(recording, answers.of(filled, name))
    assert f"--- recorded/{recording}" in str(noticed.value)
    assert seen in str(noticed.value)


def test_another_exit_code_and_another_error_are_noticed(
    filled: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "sweep show nothing"
    before = command_line.told(filled, tmp_path, line)
    monkeypatch.setattr(common, "EXIT_REFUSED", 4)
    after = command_line.told(filled, tmp_path, line)
    recorded = (compare.__globals__["FOLDER"] / "command_line" / "reading.txt").read_text()
    assert before in recorded
    assert after not in recorded


def test_another_request_to_a_webhook_is_noticed(filled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sign = webhooks.headers_of
    monkeypatch.setattr(webhooks, "headers_of", lambda *given: {f"x-{k}": v for k, v in sign(*given).items()})
    with pytest.raises(ChangedError, match="x-webhook-signature"):
        compare("notices/request.txt", notices.request())


def test_another_command_setting_or_metric_is_noticed(filled: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "registered_commands", app.registered_commands[1:])
    with pytest.raises(ChangedError, match="demo"):
        compare("commands.json", surface.commands())
    monkeypatch.setattr(Settings.model_fields["lease_seconds"], "default", 31)
    with pytest.raises(ChangedError, match="31"):
        compare("settings.json", surface.settings())
    monkeypatch.setattr(metrics.HTTP_REQUESTS, "_name", "layersweep_requests")
    with pytest.raises(ChangedError, match="layersweep_requests"):
        compare("metrics.txt", surface.metrics(filled.client.get("/metrics").text))
