"""Record `worker_life.json`: `python -m tests.golden.make_worker_life`, with the worker and service that are to stay.

A real worker runs one trial of a real service. Then the worker's client does what happens seldom: it gives a trial
back, fails one, ends one as infeasible, is told that its lease is lost, and signs off.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx2

from service.app import create_app
from service.settings import Settings
from tests.conftest import serving
from tests.golden.worker_life import LIFE, SWEEPS, Exchange
from workers.processes.children import Children
from workers.service.client import RefusedError, ServiceClient
from workers.settings import CacheSettings, StopConditions, WorkerIdentity
from workers.worker import Worker

KEPT_HEADERS = ("prefer", "idempotency-key", "content-digest")
MOST_ITEMS = 20
"""Of a list: latency samples are many."""


class Recorder(httpx2.BaseTransport):
    """Passes requests on and keeps them with their answers."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self._inner = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        is_file = "content-digest" in request.headers
        sent = request.read()
        answer = self._inner.handle_request(request)
        content = answer.read()
        is_json = bool(content) and "json" in answer.headers.get("content-type", "")
        exchange = Exchange(
            request.method,
            str(request.url.raw_path, "ascii"),
            answer.status_code,
            {name: request.headers[name] for name in KEPT_HEADERS if name in request.headers},
            None if is_file or not sent else _shortened(json.loads(sent)),
            _shortened(json.loads(content)) if is_json else None,
        )
        self.exchanges.append(exchange)
        headers = [(name, value) for name, value in answer.headers.items() if name != "content-encoding"]
        return httpx2.Response(answer.status_code, headers=headers, content=content)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value[:MOST_ITEMS]]
    return value


def live(service: ServiceClient, folder: Path) -> None:
    """What a worker does, from its registration to its end."""
    identity, caches = WorkerIdentity("the worker"), CacheSettings(folder / "cache")
    stops = StopConditions(max_trials=1)
    Worker(service, identity, children=[Children(threads=1)], caches=caches, stops=stops).work()


def live_seldom(service: ServiceClient, registration: dict[str, Any]) -> None:
    """What a worker does seldom, in one life."""
    worker = service.register(registration, "the-second-life")["id"]

    def claim() -> tuple[str, int]:
        (lease,) = service.claim(worker, 20, uuid.uuid4().hex)
        return lease["trial"], lease["attempt"]

    given_back = claim()
    service.heartbeat(*given_back)
    service.release(*given_back, "the worker was asked to stop", charge=False)
    charged = claim()
    service.report(*charged, {"phase": "check", "log": "begun\n"})
    service.release(*charged, "the engine process was ended by SIGKILL, from outside", charge=True)
    with contextlib.suppress(RefusedError):
        service.heartbeat(*charged)
    failed = claim()
    service.finish(*failed, {"outcome": "failed", "reason": "out of memory", "log": "Killed\n"})
    slow = claim()
    metrics = {"latency_ms_p50": 2e4, "latency_ms_p99": 3e4}
    broken = "latency_ms_p50 <= 1e4 is broken by 1e+04"
    service.finish(*slow, {"outcome": "infeasible", "reason": broken, "metrics": metrics})
    pruned = claim()
    losses = [{"step": 10, "training_loss": 5.5}]
    service.report(*pruned, {"phase": "train", "progress": {"step": 10}, "losses": losses})
    service.finish(*pruned, {"outcome": "pruned", "reason": "the training diverged", "metrics": metrics})
    service.claim(worker, 0, uuid.uuid4().hex)
    service.deregister(worker)
    with contextlib.suppress(RefusedError):
        service.claim("00000000000000000000000000", 0, uuid.uuid4().hex)


def main() -> None:
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(database_url=f"sqlite:///{folder}/layersweep.db", data_dir=folder / "data")
        with serving(create_app(settings)) as url:
            for document in SWEEPS.values():
                assert httpx2.post(f"{url}/v1/sweeps", json=document, timeout=60).status_code == 201
            live(ServiceClient(url, transport=recorder), folder)
            live_seldom(ServiceClient(url, transport=recorder), recorder.exchanges[0].body)
    exchanges = [asdict(each) for each in recorder.exchanges]
    LIFE.write_text("[\n" + ",\n".join(json.dumps(each, ensure_ascii=False) for each in exchanges) + "\n]\n")


if __name__ == "__main__":
    main()
