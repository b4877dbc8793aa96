"""Traces: off without being asked for; asked for, a request with the work inside it, and nothing that a caller sent."""

from __future__ import annotations

import sys

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.app import create_app
from service.common import tracing
from service.settings import Settings

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """One kind of database is enough here."""
    return migrated_sqlite_url


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Keeps in memory what would be sent."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(tracing, "make_exporter", lambda: exporter)
    return exporter


def test_a_request_is_a_span_with_its_work_inside(settings: Settings, exporter: InMemorySpanExporter) -> None:
    traced = Settings(**settings.model_dump() | {"traces": True})
    with TestClient(create_app(traced, start_scheduler=False)) as client:
        sent = {
            "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
            "X-Request-ID": "r1",
            "Authorization": "Bearer lsw_in-the-header",
            "Cookie": "layersweep_token=in-the-cookie",
        }
        made = client.post("/v1/projects", json={"name": "in-the-body"}, headers=sent)
        assert made.status_code == 201, made.text
    spans = [span for span in exporter.get_finished_spans() if f"{span.context.trace_id:032x}" == TRACE]
    (request,) = [span for span in spans if span.attributes and "http.route" in span.attributes]
    assert request.attributes is not None
    assert request.attributes["http.route"] == "/v1/projects"
    assert request.attributes["http.response.status_code"] == 201
    assert request.attributes["layersweep.request_id"] == "r1"
    assert f"{request.parent.span_id:016x}" == "b7ad6b7169203331", "a caller's trace is continued"
    (write,) = [span for span in spans if span.name == "database.write"]
    assert write.parent.span_id == request.context.span_id
    everything = " ".join(span.to_json() for span in exporter.get_finished_spans())
    for word in ("in-the-header", "in-the-cookie", "in-the-body"):
        assert word not in everything
    assert '"layersweep"' in everything


def test_the_steps_of_a_sweep_are_traced(settings: Settings, exporter: InMemorySpanExporter) -> None:
    traced = Settings(**settings.model_dump() | {"traces": True})
    app = create_app(traced, start_scheduler=False)
    with TestClient(app) as client:
        document = {"name": "x", "task": "probe", "model": {"hidden_size": {"values": [64, 128]}}}
        document["model"] |= {"attention": {"num_attention_heads": 2}}
        document |= {"objectives": [{"metric": "latency_ms_p50", "goal": "minimize"}], "budget": {"trials": 1}}
        made = client.post("/v1/sweeps", json=document)
        assert made.status_code == 201, made.text
        app.state.services.scheduler.discover_sweeps()
    advanced = [span.attributes for span in exporter.get_finished_spans() if span.name == "sweep.advance"]
    assert {"layersweep.sweep": made.json()["id"]} in [dict(each or {}) for each in advanced]


def test_off_nothing_is_made(settings: Settings, exporter: InMemorySpanExporter) -> None:
    with TestClient(create_app(settings, start_scheduler=False)) as client:
        assert client.get("/v1/sweeps").status_code == 200
    assert exporter.get_finished_spans() == ()
    assert tracing.span("a") is tracing.span("b"), "one object that does nothing"


def test_what_is_not_installed_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(tracing.TracesError, match="extra `otel`"):
        tracing.start(Settings(**settings.model_dump() | {"traces": True}))
