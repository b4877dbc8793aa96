"""A worker in one file: it times the matrix product of each trial of a probe of `linear`, with NumPy on the CPU.

    python examples/worker.py http://127.0.0.1:8420 [--idle-seconds 60]

What a worker says and is told stands in docs/worker-protocol.md. Nothing of Layersweep is imported: to serve a device
of your own, put it in the place of `measure`. LAYERSWEEP_TOKEN is the token, where the service asks for one.
"""

import argparse
import http.client
import json
import os
import platform
import signal
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np

WARMUP_RUNS, RUNS = 20, 200


class Stop:
    """What signals have asked for, and what the next one does."""

    is_asked = False
    interrupts = False  # whether a signal raises StoppedError: while a claim waits for a trial


class StoppedError(Exception):
    """A signal came while a claim was waiting for a trial."""


class EndedError(Exception):
    """The attempt is not to go on: the service's action, or `lost`, `failed`, `drain`; and why."""


def call(method: str, path: str, body: Any = None, key: str = "", wait: float = 0.0) -> tuple[int, Any]:
    """Status and answer of a call, made until the service decides: with a key or an attempt, none acts twice."""
    headers = {"Content-Type": "application/json"}
    headers |= {"Authorization": f"Bearer {os.environ['LAYERSWEEP_TOKEN']}"} if "LAYERSWEEP_TOKEN" in os.environ else {}
    headers |= ({"Idempotency-Key": key} if key else {}) | ({"Prefer": f"wait={wait:.0f}"} if wait else {})
    while True:
        request = urllib.request.Request(SERVER + path, json.dumps(body).encode(), headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30 + wait) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            problem, later = json.loads(error.read()), float(error.headers.get("Retry-After", 1))
            is_in_flight = problem["type"].endswith("in-flight") and not Stop.is_asked
            if error.code < 500 and error.code != 429 and not is_in_flight:
                return error.code, problem
        except (OSError, http.client.HTTPException) as error:
            problem, later = {"detail": error}, 1.0
        print(f"{path}: {problem['detail']}; again in {later} s", flush=True)
        time.sleep(later)


class Attempt:
    """The right to execute one attempt."""

    def __init__(self, lease: dict[str, Any], heartbeat_seconds: float) -> None:
        self.lease, self.heartbeat_seconds, self.said_at = lease, heartbeat_seconds, 0.0
        self.path = f"/v1/leases/{lease['trial']}/{lease['attempt']}"

    def say(self, **report: Any) -> None:
        """Send a report; without anything to report, a heartbeat. Raises EndedError where the attempt is to end."""
        status, answer = call("POST", f"{self.path}:{'report' if report else 'heartbeat'}", report)
        self.said_at = time.monotonic()
        if status >= 400:
            raise EndedError("lost" if status in (404, 409) else "failed", answer["detail"])
        if answer["action"] != "continue":
            raise EndedError(answer["action"], answer["reason"] or answer["action"])

    def check(self) -> None:
        """Called between short pieces of work. A worker whose pieces are long sends its heartbeats from a thread."""
        if Stop.is_asked:
            raise EndedError("drain", "the worker stops")
        if time.monotonic() - self.said_at > self.heartbeat_seconds:
            self.say()

    def run(self) -> None:
        """Execute it, and say how it ended."""
        result: dict[str, Any] = {"outcome": "complete"}
        try:
            self.say(phase="check")
            shape = shape_of(self.lease["configuration"])
            self.say(phase="measure")
            result |= measure(*shape, self.check)
            self.say(metrics=result["metrics"], log=f"rows, channels in and out: {shape}")
        except EndedError as ended:
            action, reason = ended.args
            print(f"trial {self.lease['number']}: {action}: {reason}", flush=True)
            if action == "lost":
                return
            if action in ("cancel", "drain"):
                call("POST", f"{self.path}:release", {"reason": reason})
                return
            result |= {"outcome": {"prune": "pruned"}.get(action, action), "reason": reason}
        status, answer = call("POST", f"{self.path}:finish", result)
        if status in (413, 422):
            refused = {"outcome": "failed", "reason": f"the result was refused: {answer['detail']}"[:4000]}
            status, answer = call("POST", f"{self.path}:finish", refused)
        print(f"trial {self.lease['number']}: {answer['state'] if status < 400 else answer['detail']}", flush=True)


def shape_of(configuration: dict[str, Any]) -> tuple[int, int, int]:
    """Rows, channels in and channels out of the product. Raises EndedError for what this worker cannot do."""
    model, inference = configuration["model"], configuration["inference"]
    if configuration["task"] != "probe" or model["kind"] != "linear":
        raise EndedError("failed", f"this worker times probes of linear, not {configuration['task']}s of other kinds")
    rows = inference["batch_size"] * inference["sequence_length"]
    return rows, model["linear.in_features"], model["linear.out_features"]


def measure(rows: int, inputs: int, outputs: int, check: Callable[[], None]) -> dict[str, Any]:
    """Metrics of the product in float32, and as a measurement beside them every run's milliseconds."""
    generator = np.random.default_rng(0)
    x, weights = (generator.standard_normal(shape, np.float32) for shape in ((rows, inputs), (inputs, outputs)))
    y, samples_ms = np.empty((rows, outputs), np.float32), []
    for _ in range(WARMUP_RUNS + RUNS):
        check()
        began = time.perf_counter_ns()
        np.matmul(x, weights, out=y)
        samples_ms.append((time.perf_counter_ns() - began) / 1e6)
    samples = np.array(samples_ms[WARMUP_RUNS:])
    metrics = {f"latency_ms_p{share}": float(np.percentile(samples, share)) for share in (50, 90, 99)}
    metrics |= {"latency_ms_mean": float(samples.mean()), "latency_cv": float(samples.std() / samples.mean())}
    metrics |= {"weights_bytes": weights.nbytes, "io_bytes": x.nbytes + y.nbytes}
    metrics["memory_bytes"] = metrics["weights_bytes"] + metrics["io_bytes"]
    return {"metrics": metrics, "measurements": {"latency_samples_ms": {"samples_ms": samples.tolist()}}}


def register() -> dict[str, Any]:
    """This worker with its one target, whose version keeps its figures apart from those of others; the answer."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    model = platform.processor() or platform.machine()
    target = {"runtime": "onnxruntime", "version": f"none, numpy {np.__version__}", "device_model": model}
    target |= {"opset": 23, "dtypes": ["float32"], "device_memory_bytes": memory}
    device = {"kind": "cpu", "uuid": f"cpu-{platform.node()}", "model": model, "memory_bytes": memory}
    versions = {"results": "1", "python": platform.python_version(), "numpy": np.__version__}
    body = {"name": f"example-{os.getpid()}", "device": device, "targets": [target], "versions": versions}
    status, answer = call("POST", "/v1/workers", body, key=uuid.uuid4().hex)
    if status >= 400:
        raise SystemExit(f"the registration was refused: {answer['detail']}")
    return answer


def claim(worker: str, wait: float) -> tuple[int, Any]:
    """Status and answer of a claim. A signal ends its wait."""
    key, body = uuid.uuid4().hex, {"worker": worker}
    try:
        Stop.interrupts = not Stop.is_asked
        answer = call("POST", "/v1/leases", body, key, wait if Stop.interrupts else 0.0)
        Stop.interrupts = False
        return answer
    except StoppedError:
        # With the same key: a trial that was given meanwhile is answered again, and can be given back. In flight: none
        # was, and the service gives none to who does not wait for it any longer.
        status, lease = call("POST", "/v1/leases", body, key)
        return (204, None) if status == 409 else (status, lease)


def stop(number: int, _: object) -> None:
    """The first signal stops the worker in order, a second one at once."""
    signal.signal(number, signal.SIG_DFL)
    Stop.is_asked = True
    if Stop.interrupts:
        Stop.interrupts = False
        raise StoppedError


def work(idle_seconds: float) -> None:
    """Register, then claim and execute until idle for too long or told to stop."""
    worker, idle_since = register(), time.monotonic()
    while not Stop.is_asked and time.monotonic() - idle_since < idle_seconds:
        status, lease = claim(worker["id"], min(20.0, idle_seconds))
        if status == 404:  # the service has forgotten this worker
            worker = register()
        elif status >= 400:
            raise SystemExit(f"a claim was refused: {lease['detail']}")
        elif lease is not None:
            Attempt(lease, worker["heartbeat_seconds"]).run()
            idle_since = time.monotonic()
    call("DELETE", f"/v1/workers/{worker['id']}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("server")
    arguments.add_argument("--idle-seconds", type=float, default=1e9)
    options = arguments.parse_args()
    SERVER = options.server.rstrip("/")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    work(options.idle_seconds)
