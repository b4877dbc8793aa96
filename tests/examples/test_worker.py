"""examples/worker.py, as whoever writes a worker by docs/worker-protocol.md runs it: against a service, by a sweep."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar, get_args

import httpx2
import pytest

from layers.completion import complete
from layers.declarations import per_layer
from layers.metrics import METRICS
from service.leases import schemas, worker_reports
from service.leases.attempts import LOG_CHARACTERS
from service.routes.leases import MAX_FINISH_BYTES
from service.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "worker-protocol.md").read_text(encoding="utf-8")


def shapes(**changes: Any) -> dict[str, Any]:
    """A sweep over the shapes of one product."""
    return {
        "name": "shapes",
        "task": "probe",
        "model": {
            "kind": {"values": ["linear", "mlp"]},
            "linear": {
                "in_features": {"values": [64, 256], "when": "kind == 'linear'"},
                "out_features": {"values": [64, 256], "when": "kind == 'linear'"},
            },
            "hidden_size": {"value": 64, "when": "kind == 'mlp'"},
        },
        "inference": {"batch_size": 2, "sequence_length": 8},
        "objectives": [{"metric": "latency_ms_p50"}, {"metric": "parameter_count", "goal": "maximize"}],
        "constraints": ["memory_bytes <= 200000", "latency_ms_p99 <= 60000"],
        "budget": {"trials": 5},
        "search": {"sampler": "grid", "seed": 0},
        **changes,
    }


@contextmanager
def running(server: str) -> Iterator[subprocess.Popen[str]]:
    """The example as a process of its own. Nothing of this project can be imported there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LAYERSWEEP", "PYTHON"))}
    command = [sys.executable, "-P", str(ROOT / "examples" / "worker.py"), server, "--idle-seconds", "100"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def http(live_service: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=live_service, timeout=60) as client:
        yield client


def submit(http: httpx2.Client, document: dict[str, Any]) -> str:
    posted = http.post("/v1/sweeps", json=document)
    assert posted.status_code == 201, posted.text
    return posted.json()["id"]


def wait_for(http: httpx2.Client, sweep: str, **expected: Any) -> None:
    """Until the sweep, or its count of trials in a state, is so."""
    etag = ""
    for _ in range(100):
        headers = {"If-None-Match": etag, "Prefer": "wait=20"} if etag else {}
        answer = http.get(f"/v1/sweeps/{sweep}", headers=headers)
        if answer.status_code == 200:
            etag, shown = answer.headers["ETag"], answer.json()
            if all((shown | shown["progress"])[name] == value for name, value in expected.items()):
                return
    raise AssertionError(f"{shown} never had {expected}")


def test_the_example_measures_a_sweep(http: httpx2.Client, live_service: str) -> None:
    sweep = submit(http, shapes())
    with running(live_service) as worker:
        wait_for(http, sweep, state="completed")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    rows = http.get(f"/v1/sweeps/{sweep}/leaderboard").json()["items"]
    linear = {
        (row["parameters"].get("linear.in_features"), row["parameters"].get("linear.out_features")): row for row in rows
    }
    other = linear.pop((None, None))
    for (inputs, outputs), row in linear.items():
        metrics = row["metrics"]
        assert metrics["weights_bytes"] == 4 * inputs * outputs
        assert metrics["memory_bytes"] == metrics["weights_bytes"] + 4 * 16 * (inputs + outputs)
        assert 0 < metrics["latency_ms_p50"] <= metrics["latency_ms_p99"]
    infeasible = linear.pop((256, 256))
    assert {row["state"] for row in linear.values()} == {"complete"}
    assert infeasible["state"] == "infeasible"
    assert "memory_bytes <= 200000 is broken by" in infeasible["reason"], "as the service said it"
    assert (other["state"], other["reason"]) == (
        "failed",
        "this worker times probes of linear, not probes of other kinds",
    )
    detail = http.get(f"/v1/trials/{linear[64, 64]['trial']}").json()
    assert [each["phase"] for each in detail["attempts"][0]["phases"]] == ["check", "measure"]
    assert len(detail["measurements"]["latency_samples_ms"]["samples_ms"]) == 200
    assert not http.get("/v1/workers?alive=true").json()["items"], "it has signed off"


def test_the_example_gives_back_what_it_cannot_end(http: httpx2.Client, live_service: str) -> None:
    large = {"kind": "linear", "linear": {"in_features": {"values": [4096, 8192]}, "out_features": 4096}}
    document = shapes(model=large, inference={"batch_size": 16, "sequence_length": 64}, constraints=[])
    sweep = submit(http, document)
    with running(live_service) as worker:
        wait_for(http, sweep, running=1)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    wait_for(http, sweep, running=0, queued=2)
    trial = http.get(f"/v1/sweeps/{sweep}/leaderboard").json()["items"][0]
    attempts = http.get(f"/v1/trials/{trial['trial']}").json()["attempts"]
    assert {each["outcome"] for each in attempts} <= {"released"}


class Silent(BaseHTTPRequestHandler):
    """A service that answers no claim while a worker waits for it, and answers the same claim again with a lease."""

    calls: SimpleQueue[tuple[str, str]]
    CONFIGURATION: ClassVar[dict[str, Any]] = {
        "task": "probe",
        "model": {"kind": "linear", "linear.in_features": 8, "linear.out_features": 8},
        "inference": {"batch_size": 1, "sequence_length": 1},
    }
    ANSWERS: ClassVar[dict[str, Any]] = {
        "/v1/workers": {"id": "w", "heartbeat_seconds": 5},
        "/v1/leases": {"trial": "t", "attempt": 1, "number": 0, "configuration": CONFIGURATION},
    }

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.calls.put((self.path, self.headers.get("Idempotency-Key", "")))
        if self.path == "/v1/leases" and "Prefer" in self.headers:
            self.rfile.read()
            return
        self.send_response(200)
        self.end_headers()
        answer = self.ANSWERS.get(self.path, {"action": "continue", "reason": None})
        self.wfile.write(json.dumps(answer).encode())

    def do_DELETE(self) -> None:
        self.do_POST()


def test_a_signal_ends_a_wait_for_a_trial_and_loses_none() -> None:
    Silent.calls = calls = SimpleQueue()
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with running(f"http://127.0.0.1:{server.server_port}") as worker:
            assert calls.get()[0] == "/v1/workers"
            path, key = calls.get()
            worker.send_signal(signal.SIGINT)
            assert calls.get(timeout=60) == (path, key), "the claim again"
            assert worker.wait(60) == 0
        server.shutdown()
    paths = [calls.get()[0].removeprefix("/v1/") for _ in range(calls.qsize())]
    assert paths == ["leases/t/1:report", "leases/t/1:report", "leases/t/1:release", "workers/w"]


def test_a_result_without_what_the_sweep_asks_for_is_told_as_failed(http: httpx2.Client, live_service: str) -> None:
    linear = {"kind": "linear", "linear": {"in_features": 64, "out_features": 64}}
    sweep = submit(http, shapes(model=linear, constraints=["parity_error <= 1e-4"], budget={"trials": 1}))
    with running(live_service):
        wait_for(http, sweep, failed=1)
    (row,) = http.get(f"/v1/sweeps/{sweep}/leaderboard").json()["items"]
    assert row["reason"] == "the result was refused: metrics that the sweep needs are missing: parity_error"


def _of_layer(model: dict[str, Any], number: int, name: str, stack: str = "layers") -> Any:
    source = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert source is not None
    namespace: dict[str, Any] = {}
    exec(source[1], namespace)
    return namespace["of_layer"](model, number, name, stack)


def test_a_layer_s_parameters_are_read_as_the_page_says() -> None:
    shared = {"hidden_size": 64, "attention.num_attention_heads": 2}
    of_layers = {"layers.0.mlp.kind": "GatedMLP", "layers.2.norm.kind": "RmsNorm", "layers.1.mlp.ffn_hidden_size": 32}
    for own in ({}, *({name: value} for name, value in of_layers.items()), of_layers):
        model = complete(
            "causal_lm", {"num_layers": 3, **shared, **own}, {"vocabulary_size": 64, "sequence_length": 16}
        )
        for number, view in enumerate(per_layer.views(model)):
            for name in per_layer.BLOCK_PATHS:
                assert _of_layer(model, number, name) == view.get(name), (own, number, name)


def test_the_page_says_what_there_is() -> None:
    words = [*get_args(schemas.Phase), *get_args(schemas.Action), *get_args(schemas.Outcome)]
    words += [
        *schemas.LeaseRequest.model_fields,
        *schemas.LeaseFinish.model_fields,
        *schemas.Lease.model_fields,
        *schemas.LeaseReport.model_fields,
        *schemas.Capabilities.model_fields,
    ]
    own = [name for name, metric in METRICS.items() if metric.source != "worker"]
    optional = {"quantizations", "devices", "compute_capability", "build_only", "build_options", "lacks"}
    missing = [word for word in [*words, *own] if word not in optional and not re.search(rf"\b{word}\b", PAGE)]
    assert missing == []
    limits = Settings()
    assert f"the last {LOG_CHARACTERS:,} of an attempt" in PAGE
    assert f"up to {worker_reports.PROGRESS_CHARACTERS:,} characters of JSON" in PAGE
    assert f"({worker_reports.MOST_TRIES - 1} times at most)" in PAGE
    assert f"{MAX_FINISH_BYTES >> 20} MiB; {limits.max_document_bytes >> 20} MiB" in PAGE
    assert f"{limits.requests_per_second:,.0f} a second, {limits.concurrent_requests:,} at a time" in PAGE
    most = f"{schemas.MOST_METRICS}; {worker_reports.MOST_MEASUREMENTS}"
    assert f"{most}, their names {worker_reports.MEASUREMENT_NAME_CHARACTERS}" in PAGE
