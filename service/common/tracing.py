"""OpenTelemetry traces, if `Settings.traces` asks for them. While it does not, a span costs the call of a function.

FastAPI makes the spans of requests. Ours lie inside: reads and writes of the database, steps of a sweep, deliveries.
Where they go, and how many of them, is said by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT, ...).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from service.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

NAME = "layersweep"

_NOTHING: AbstractContextManager[Any] = nullcontext()
_tracer: trace.Tracer | None = None


class TracesError(RuntimeError):
    """Traces are asked for and what sends them is not installed."""


def start(settings: Settings) -> TracerProvider | None:
    """Begin to trace this process, if the settings ask for it. Raises TracesError."""
    global _tracer
    if not settings.traces:
        return None
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = make_exporter()
    except ImportError as error:
        raise TracesError(f"LAYERSWEEP_TRACES takes the extra `otel`: pip install -e '.[otel]' ({error})") from error
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        # Neither OTEL_SERVICE_NAME nor OTEL_RESOURCE_ATTRIBUTES says otherwise.
        resource = resource.merge(Resource({SERVICE_NAME: NAME}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer(NAME)
    return provider


def stop(provider: TracerProvider | None) -> None:
    """Send what was not sent yet, and trace nothing more."""
    global _tracer
    if provider is not None:
        _tracer = None
        provider.shutdown()


def span(name: str, **attributes: str | int) -> AbstractContextManager[Any]:
    """A span around a piece of work, below the one that is open."""
    if _tracer is None:
        return _NOTHING
    return _tracer.start_as_current_span(name, attributes=attributes)


def annotate(name: str, value: str) -> None:
    """Give the open span an attribute."""
    if _tracer is not None:
        trace.get_current_span().set_attribute(name, value)


def make_exporter() -> SpanExporter:
    """What sends the spans: OTLP over HTTP."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
