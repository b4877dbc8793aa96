"""What one process counts and times for Prometheus, since it began. What the database knows is in
`service.operations.gauges`.

A process has its own figures: scrape each of them, not a proxy before them. Labels are bounded: routes by template,
never by path.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.types import Scope

REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)

_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SLOW = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

HTTP_REQUESTS = Counter(
    "layersweep_http_requests",
    "Requests that were answered, by method, route (`refused`: before one was chosen) and status.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
HTTP_SECONDS = Histogram(
    "layersweep_http_request_seconds",
    "From a request to the end of its answer; long polls and event streams with the time that they waited.",
    ["method", "route"],
    buckets=_FAST,
    registry=REGISTRY,
)
HTTP_RUNNING = Gauge(
    "layersweep_http_requests_running", "Requests that are being worked on, with those that wait.", registry=REGISTRY
)
PHASE_SECONDS = Histogram(
    "layersweep_phase_seconds",
    "How long the phases of attempts took that were reported to this process.",
    ["phase"],
    buckets=_SLOW,
    registry=REGISTRY,
)
WAIT_SECONDS = Counter(
    "layersweep_wait_seconds",
    "How long the attempts that were finished waited on their devices, by cause.",
    ["cause"],
    registry=REGISTRY,
)
ASK_SECONDS = Histogram(
    "layersweep_ask_seconds", "How long a sampler took to suggest a point.", buckets=_FAST, registry=REGISTRY
)
TELL_SECONDS = Histogram(
    "layersweep_tell_seconds", "How long a sampler took to be told of a trial.", buckets=_FAST, registry=REGISTRY
)
COMMIT_SECONDS = Histogram(
    "layersweep_group_commit_seconds",
    "How long the writer's transactions took, with what they were asked to write and the commit.",
    buckets=_FAST,
    registry=REGISTRY,
)
COMMITTED_WRITES = Counter(
    "layersweep_group_commit_writes", "Writes that the writer put into its transactions.", registry=REGISTRY
)
WEBHOOK_TRIES = Counter(
    "layersweep_webhook_tries",
    "Tries to send a delivery of a webhook, by how they went: delivered, retried, failed, or lost to another process.",
    ["outcome"],
    registry=REGISTRY,
)


def count_request(scope: Scope, status: int, seconds: float) -> None:
    """Count a request that was answered."""
    route = getattr(scope.get("route"), "path", "refused")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    HTTP_REQUESTS.labels(method, route, str(status)).inc()
    HTTP_SECONDS.labels(method, route).observe(seconds)
