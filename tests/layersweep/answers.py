"""A service for the client's tests that answers from a script."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import httpx2

from layersweep import Client

Answer = httpx2.Response | Exception | Callable[[httpx2.Request], httpx2.Response]


class Script:
    """Answers requests in order and remembers them; an exception in the list is a connection that fails."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx2.Response) else answer(request)


def scripted(*answers: Answer, retry_seconds: float = 30.0) -> tuple[Client, Script, list[float]]:
    """A client of a scripted service, the script, and the delays that the client slept (not really)."""
    script = Script(*answers)
    client = Client("http://service.test", retry_seconds=retry_seconds, transport=httpx2.MockTransport(script))
    delays: list[float] = []
    client.transport._sleep = delays.append
    return client, script, delays


def problem(
    status: int, kind: str, detail: str, errors: Iterable[dict[str, str]] = (), **headers: str
) -> httpx2.Response:
    document: dict[str, Any] = {
        "type": f"urn:layersweep:problem:{kind}",
        "title": "A title",
        "status": status,
        "detail": detail,
        "errors": list(errors),
    }
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, json=document, headers=named)


def page(items: list[Any], token: str | None = None) -> httpx2.Response:
    return httpx2.Response(200, json={"items": items, "next_page_token": token})


def sweep_record(**changes: Any) -> dict[str, Any]:
    counts = dict.fromkeys(
        ("queued", "running", "infeasible", "pruned", "failed", "cancelled", "reused", "rejected"), 0
    )
    record: dict[str, Any] = {
        "id": "01J0000000000000000000000A",
        "name": "tiny",
        "project": "default",
        "task": "causal_lm",
        "dataset": "python-topics",
        "state": "active",
        "reason": None,
        "objectives": [{"metric": "validation_loss", "goal": "minimize"}],
        "constraints": [],
        "budget": {"trials": 4, "parallel": 1, "failures": 4, "wall_seconds": None},
        "sampler": "tpe",
        "sampler_reason": "the space has conditions",
        "space": {
            "points": 12,
            "feasible_share": 1.0,
            "sampled": False,
            "open_parameters": ["hidden_size"],
            "rejections": {},
        },
        "target": None,
        "progress": {"trials": 0, "budget": 4, "complete": 0, **counts},
        "best": {},
        "version": 1,
        "created_at": "2026-01-01T00:00:00.000Z",
        "started_at": None,
        "ended_at": None,
        "document": {"name": "tiny"},
    }
    return record | changes


def row(number: int, **changes: Any) -> dict[str, Any]:
    record: dict[str, Any] = {
        "trial": f"01J0000000000000000000{number:04d}",
        "number": number,
        "state": "complete",
        "rank": 1,
        "on_front": True,
        "feasible": True,
        "parameters": {"hidden_size": 32 * (number + 1), "mlp.kind": "MLP"},
        "metrics": {
            "latency_ms_p50": 0.25,
            "memory_bytes": 2048.0,
            "validation_loss": 1.75,
            "parameter_count": 21000.0,
        },
        "reason": None,
        "reused_from": None,
        "started_from": None,
    }
    return record | changes
