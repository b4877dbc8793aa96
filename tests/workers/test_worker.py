"""The worker against the real service: whole trials, a drain, a restart of the service."""

from __future__ import annotations

import itertools
import json
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.app import create_app
from service.settings import Settings
from tests.conftest import serving
from workers.devices.device import DeviceChoice
from workers.processes.child import ROOT
from workers.processes.children import Children
from workers.registration import TOKEN_SECONDS, DeviceTakenError, WorkerError
from workers.service.client import ServiceClient, TokenRefusedError
from workers.service.messages import RegistrationAnswer
from workers.settings import CacheSettings, StopConditions, WorkerIdentity
from workers.worker import Worker

SWEEP: dict[str, Any] = {
    "name": "tiny",
    "task": "causal_lm",
    "dataset": "python-topics",
    "model": {
        "num_layers": 1,
        "hidden_size": {"values": [16, 32]},
        "attention": {"num_attention_heads": 2},
    },
    "training": {"steps": 20, "batch_size": 4, "eval_every": 10},
    "inference": {"batch_size": 16, "sequence_length": 64},
    "objectives": [{"metric": "validation_loss", "goal": "minimize"}, {"metric": "latency_ms_p50", "goal": "minimize"}],
    "budget": {"trials": 2, "parallel": 1},
    "search": {"sampler": "random", "seed": 1},
}


class Switch(httpx2.BaseTransport):
    """A network on which the service can go away and come back at another address."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.refused = threading.Event()
        self._inner = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.url is None:
            self.refused.set()
            raise httpx2.ConnectError("connection refused")
        here = httpx2.URL(self.url)
        request.url = request.url.copy_with(host=here.host, port=here.port)
        return self._inner.handle_request(request)


class User:
    """Somebody who posts sweeps and looks at trials."""

    def __init__(self, url: str) -> None:
        self.http = httpx2.Client(base_url=url, timeout=60)

    def submit(self, **changes: Any) -> str:
        answer = self.http.post("/v1/sweeps", json={**SWEEP, **changes})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def trials(self, sweep: str) -> list[dict[str, Any]]:
        items = self.get(f"/v1/sweeps/{sweep}/trials")["items"]
        return [self.get(f"/v1/trials/{item['id']}") for item in sorted(items, key=lambda item: item["number"])]

    def wait_for_event(self, sweep: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        with self.http.stream("GET", f"/v1/sweeps/{sweep}/events") as answer:
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    event = json.loads(line.removeprefix("data:"))
                    if condition(event):
                        return event
        raise AssertionError("the stream ended")


def has_losses(event: dict[str, Any]) -> bool:
    return event["kind"] == "trial.report" and "losses" in event["data"]


@pytest.fixture
def database_url(migrated_sqlite_url: str) -> str:
    """One kind of database: the worker does not see which it is."""
    return migrated_sqlite_url


@pytest.fixture
def user(live_service: str) -> User:
    return User(live_service)


@contextmanager
def working(worker: Worker) -> Generator[threading.Thread]:
    thread = threading.Thread(target=worker.work)
    thread.start()
    try:
        yield thread
    finally:
        worker.drain()
        thread.join(60)
        assert not thread.is_alive()


def make_worker(
    service: ServiceClient, cache_dir: Path, children: Sequence[Children] | None = None, **options: Any
) -> Worker:
    return Worker(
        service,
        WorkerIdentity("here"),
        children=children or [Children(threads=1)],
        caches=CacheSettings(cache_dir),
        **options,
    )


@pytest.fixture
def worker_process(live_service: str, cache_dir: Path) -> Iterator[subprocess.Popen[str]]:
    program = f"""
import sys
from pathlib import Path
from workers.main import run
from workers.settings import CacheSettings, ProcessSettings, WorkerIdentity
caches = CacheSettings(Path({str(cache_dir)!r}))
sys.exit(run({live_service!r}, identity=WorkerIdentity("process"), caches=caches, processes=ProcessSettings(threads=1)))
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


def test_a_sweep_of_two_trials_ends_with_scores_by_the_engine(user: User, live_service: str, cache_dir: Path) -> None:
    sweep = user.submit()
    make_worker(ServiceClient(live_service), cache_dir, stops=StopConditions(max_trials=2)).work()
    trials = user.trials(sweep)
    assert [trial["state"] for trial in trials] == ["complete", "complete"]
    assert {trial["parameters"]["hidden_size"] for trial in trials} == {16, 32}
    for trial in trials:
        metrics = trial["metrics"]
        assert trial["feasible"] is True
        assert 2.0 < metrics["validation_loss"] < 5.5
        assert abs(metrics["precision_gap"]) < 1e-3
        assert metrics["parity_error"] < 1e-4
        assert metrics["latency_ms_p50"] > 0
        assert metrics["memory_bytes"] > metrics["weights_bytes"] > 0
        assert [phase["phase"] for phase in trial["attempts"][0]["phases"]] == [
            *("check", "train", "build", "measure", "evaluate", "finish")
        ]
        assert [point["step"] for point in trial["curve"] if point["validation_loss"] is not None] == [10, 20]
        assert trial["measurements"]["latency_samples_ms"]["samples_ms"]
    (worker,) = user.get("/v1/workers")["items"]
    assert worker["device"]["kind"] == "cpu"
    assert worker["targets"][0]["runtime"] == "onnxruntime"
    assert worker["targets"][0]["device_model"].endswith("1 thread")


def test_a_quantized_trial_is_scored_through_its_quantized_engine(
    user: User, live_service: str, cache_dir: Path, slots: Callable[[int], Sequence[Children]]
) -> None:
    model = {**SWEEP["model"], "hidden_size": 32, "quantization": {"values": ["int8"]}}
    sweep = user.submit(model=model, budget={"trials": 1})
    make_worker(ServiceClient(live_service), cache_dir, slots(1), stops=StopConditions(max_trials=1)).work()
    (trial,) = user.trials(sweep)
    assert (trial["state"], trial["parameters"]) == ("complete", {"quantization": "int8"})
    assert [phase["phase"] for phase in trial["attempts"][0]["phases"]] == [
        *("check", "train", "quantize", "build", "measure", "evaluate", "finish")
    ]
    metrics = trial["metrics"]
    assert 0 < abs(metrics["precision_gap"]) < 0.1
    # An engine holds a tied table twice, and a mask; the block's products take a byte for each of their 12 * 32 * 32
    # weights.
    in_floats = 4 * (metrics["parameter_count"] + 256 * 32 + 64 * 64)
    assert metrics["weights_bytes"] < in_floats - 2.5 * 12 * 32 * 32
    # Against the graph that was asked for, not against what it rounds.
    assert metrics["parity_error"] < 3e-2
    assert trial["measurements"]["quantization"] == {"products": 4}
    (target,) = user.get("/v1/targets")["items"]
    assert target["capabilities"]["quantizations"] == ["int8"]
    assert "fp8" in target["capabilities"]["lacks"]["quantization fp8"]


def test_sigterm_gives_the_trial_back_uncharged(user: User, worker_process: subprocess.Popen[str]) -> None:
    sweep = user.submit(training={"steps": 1_000_000, "batch_size": 4, "eval_every": 10})
    user.wait_for_event(sweep, has_losses)
    worker_process.send_signal(signal.SIGTERM)
    assert worker_process.wait(30) == 0
    trial = user.trials(sweep)[0]
    assert (trial["state"], trial["attempt"]) == ("queued", 1)
    assert trial["attempts"][0]["outcome"] == "released"
    assert trial["attempts"][0]["reason"] == "the worker was asked to stop"
    queued = user.wait_for_event(sweep, lambda event: event["kind"] == "trial.queued" and "charged" in event["data"])
    assert queued["data"]["charged"] is False


def test_sigint_stops_an_idle_worker_at_once(
    user: User, worker_process: subprocess.Popen[str], wait_until: Callable[[Callable[[], bool]], None]
) -> None:
    wait_until(lambda: bool(user.get("/v1/workers")["items"]))
    worker_process.send_signal(signal.SIGINT)
    # A claim waits for 20 seconds; a drain does not.
    assert worker_process.wait(15) == 0
    assert [worker["alive"] for worker in user.get("/v1/workers")["items"]] == [False]


@pytest.mark.slow
def test_a_service_that_restarts_in_the_middle_loses_nothing(
    settings: Settings, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "layersweep.worker")
    switch = Switch()
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        url = first.enter_context(serving(create_app(settings)))
        user, switch.url = User(url), url
        budget = {"trials": 1, "parallel": 1}
        sweep = user.submit(training={"seconds": 3, "batch_size": 4, "eval_every": 10}, budget=budget)
        worker = make_worker(
            ServiceClient("http://localhost", transport=switch), cache_dir, stops=StopConditions(max_trials=1)
        )
        thread = stack.enter_context(working(worker))
        user.wait_for_event(sweep, has_losses)
        switch.url = None
        user.http.close()
        first.close()
        assert switch.refused.wait(30)
        switch.url = stack.enter_context(serving(create_app(settings)))
        user = User(switch.url)
        thread.join(120)
        trials = user.trials(sweep)
    assert [(trial["state"], trial["attempt"]) for trial in trials] == [("complete", 1)]
    curve = [point["step"] for point in trials[0]["curve"]]
    assert curve == sorted(curve)
    assert trials[0]["measurements"]["training"]["steps"] == curve[-1]
    assert "does not answer" in caplog.text
    assert "the service answers again" in caplog.text


class Registry:
    """A service that only registers workers and has nothing for them."""

    def __init__(self, *, forgets: int = 0, status: int = 201, in_use: int = 0) -> None:
        """`in_use`: how many registrations find the device in use."""
        self.registrations: list[dict[str, Any]] = []
        self.claims: list[str] = []
        self.signed_off: list[str] = []
        self._in_use = in_use
        self._forgets = forgets
        self._status = status

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "DELETE":
            self.signed_off.append(request.url.path.rpartition("/")[2])
            return httpx2.Response(204)
        body = json.loads(request.content)
        if request.url.path == "/v1/workers":
            self.registrations.append(body)
            if len(self.registrations) <= self._in_use:
                problem = {
                    "type": "urn:layersweep:problem:device-in-use",
                    "detail": "GPU-1 has a living worker already",
                }
                return httpx2.Response(409, json=problem, headers={"Retry-After": "0"})
            answer = {"id": f"W{len(self.registrations)}", "lease_seconds": 30, "heartbeat_seconds": 10}
            return httpx2.Response(self._status, json={**answer, "target_keys": ["here"], "detail": "who are you?"})
        self.claims.append(body["worker"])
        if len(self.registrations) <= self._forgets:
            return httpx2.Response(404, json={"detail": "there is no such worker: register again"})
        return httpx2.Response(204)


def test_a_worker_that_the_service_has_forgotten_registers_again(cache_dir: Path) -> None:
    registry = Registry(forgets=1)
    service = ServiceClient("http://service", transport=httpx2.MockTransport(registry))
    make_worker(service, cache_dir, stops=StopConditions(idle_seconds=0.2)).work()
    assert len(registry.registrations) == 2
    assert registry.registrations[0] == registry.registrations[1]
    assert registry.claims[:2] == ["W1", "W2"]
    assert registry.signed_off == ["W2"]


def test_a_claim_whose_answer_was_lost_is_sent_again_with_its_key(cache_dir: Path) -> None:
    registry = Registry()
    keys: list[str] = []

    def loses_answers(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/leases":
            keys.append(request.headers["idempotency-key"])
            if len(keys) == 1:
                raise httpx2.ReadError("the connection was lost")
            if len(keys) == 2:
                problem = {"type": "urn:layersweep:problem:in-flight", "detail": "it is being worked on"}
                return httpx2.Response(409, json=problem, headers={"Retry-After": "0"})
        return registry(request)

    service = ServiceClient("http://service", transport=httpx2.MockTransport(loses_answers))
    make_worker(service, cache_dir, stops=StopConditions(idle_seconds=0.2)).work()
    assert len(registry.registrations) == 1
    assert keys[0] == keys[1] == keys[2]
    assert len({*keys[2:]}) == len(keys[2:]), "the next claim is another one"


def test_a_worker_waits_once_for_a_device_whose_worker_may_have_been_killed(cache_dir: Path) -> None:
    registry = Registry(in_use=1)
    service = ServiceClient("http://service", transport=httpx2.MockTransport(registry))
    make_worker(service, cache_dir, stops=StopConditions(idle_seconds=0.2)).work()
    assert registry.claims[0] == "W2"


def test_a_worker_whose_device_another_one_has_says_so_and_ends_with_a_status_of_its_own(cache_dir: Path) -> None:
    registry = Registry(in_use=9)
    service = ServiceClient("http://service", transport=httpx2.MockTransport(registry))
    with pytest.raises(DeviceTakenError, match="GPU-1 has a living worker already") as taken:
        make_worker(service, cache_dir).work()
    assert taken.value.status == 3
    assert len(registry.registrations) == 2
    assert registry.signed_off == []


def test_a_worker_that_may_wait_registers_until_its_device_is_free(cache_dir: Path) -> None:
    registry = Registry(in_use=5)
    service = ServiceClient("http://service", transport=httpx2.MockTransport(registry))
    make_worker(service, cache_dir, stops=StopConditions(idle_seconds=0.2, if_device_is_taken=False)).work()
    assert registry.claims[0] == "W6"


def test_a_worker_of_a_gpu_without_tensorrt_says_what_is_missing(cache_dir: Path) -> None:
    service = ServiceClient("http://service", transport=httpx2.MockTransport(Registry()))
    gpu = {"kind": "gpu", "uuid": "GPU-1", "model": "NVIDIA H200", "memory_bytes": 1 << 37}
    with pytest.raises(WorkerError, match=r"no runtime works on NVIDIA H200\. tensorrt: .*--doctor.* what to install"):
        make_worker(service, cache_dir, choice=DeviceChoice(gpu)).work()


def test_a_worker_without_the_right_token_says_what_to_give(cache_dir: Path) -> None:
    service = ServiceClient("http://service", transport=httpx2.MockTransport(Registry(status=401)))
    with pytest.raises(WorkerError, match=r"who are you\?.*LAYERSWEEP_TOKEN"):
        make_worker(service, cache_dir).work()


def test_a_worker_whose_token_is_revoked_waits_for_another_one_before_it_ends(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("workers.registration.TOKEN_SECONDS", 1.0)
    registry = Registry()
    refused = 0

    def revoked(request: httpx2.Request) -> httpx2.Response:
        nonlocal refused
        if request.url.path == "/v1/leases":
            refused += 1
            return httpx2.Response(401, json={"detail": "this token was revoked"})
        return registry(request)

    service = ServiceClient("http://service", transport=httpx2.MockTransport(revoked))
    with pytest.raises(WorkerError, match=r"this token was revoked.*LAYERSWEEP_TOKEN_FILE"):
        make_worker(service, cache_dir).work()
    assert refused > 1
    assert "refuses the token" in caplog.text


def test_a_token_that_stays_refused_ends_a_worker_that_hears_other_answers_too(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where several workers of one address try again, some are told that these are too many wrong tokens.
    statuses = itertools.cycle([401, 429])
    transport = httpx2.MockTransport(lambda _: httpx2.Response(next(statuses), json={"detail": "no"}))
    service = ServiceClient("http://service", transport=transport)
    registration = make_worker(service, cache_dir)._registration
    registration._answer = RegistrationAnswer(id="W0", lease_seconds=60.0, heartbeat_seconds=20.0, target_keys=[])
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        assert len(waited) < 1000, "it would wait for ever"

    monkeypatch.setattr(registration._draining, "wait", wait)
    monkeypatch.setattr("workers.registration.time.monotonic", lambda: 1.0 + sum(waited))
    with pytest.raises(TokenRefusedError):
        registration.retry_until_drained(service.queue)
    assert abs(sum(waited) - TOKEN_SECONDS) < 60


def test_a_worker_whose_engine_interpreter_is_missing_says_so(cache_dir: Path) -> None:
    service = ServiceClient("http://service", transport=httpx2.MockTransport(Registry()))
    children = [Children(threads=1, engine_python="/no-such-python")]
    worker = Worker(service, WorkerIdentity("here"), children=children, caches=CacheSettings(cache_dir))
    with pytest.raises(WorkerError, match=r"/no-such-python.*LAYERSWEEP_ENGINE_PYTHON"):
        worker.work()


def test_the_worker_s_own_process_stays_free_of_torch_and_runtimes() -> None:
    program = "import sys, workers.main; print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
