"""A service that is scripted, a small text, and leases on it: for tests of the worker that need no real service."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import httpx2
import numpy as np
import pytest

from layers.model import complete
from layers.training import complete_inference, complete_training
from workers.children import Children
from workers.service_client import ServiceClient

TEXT = np.frombuffer("\n".join(topics[name] for name in sorted(topics)).encode(), np.uint8)


def configuration(
    model: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    inference: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A completed configuration of a model so small that a trial takes seconds. None takes a default back."""
    of_inference = complete_inference({"batch_size": 4, "sequence_length": 32, **(inference or {})})
    given = {"steps": 20, "batch_size": 4, "learning_rate": 3e-3, **(training or {})}
    of_training = complete_training({name: v for name, v in given.items() if v is not None}, of_inference)
    lengths = [of_inference["sequence_length"], of_training["sequence_length"]]
    small = {"num_layers": 1, "hidden_size": 16, "attention.num_attention_heads": 2, **(model or {})}
    return {
        "task": "causal_lm",
        "model": complete("causal_lm", small, {"vocabulary_size": 256, "sequence_length": lengths}),
        "training": of_training,
        "inference": of_inference,
    }


class ScriptedService:
    """Answers a worker's calls about one attempt, and remembers them. `script` may answer in place of it."""

    def __init__(self) -> None:
        self.parts = {"training": _npz(TEXT[:40_000]), "validation": _npz(TEXT[400_000:403_000])}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.wanted: list[str] = []
        self.uploaded: dict[str, bytes] = {}
        self.script: Callable[[str, dict[str, Any]], httpx2.Response | None] = lambda verb, body: None
        self._changed = threading.Condition()

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if request.method == "PUT":
            self.uploaded[path.rpartition("/")[2]] = request.read()
            return httpx2.Response(204)
        body = json.loads(request.content) if request.content else {}
        if path.endswith("/test"):
            verb, usual = "download", httpx2.Response(200, content=self.parts["test"])
        elif path.endswith(":offer"):
            verb, usual = "offer", httpx2.Response(200, json={"wanted": self.wanted})
        elif path.endswith("/content"):
            verb, usual = "download", httpx2.Response(200, content=self.parts[request.url.params["part"]])
        else:
            verb = request.url.path.rpartition(":")[2]
            usual = httpx2.Response(200, json={"action": "continue", "lease_seconds": 30})
        with self._changed:
            self.calls.append((verb, body))
            self._changed.notify_all()
        return self.script(verb, body) or usual

    def client(self) -> ServiceClient:
        return ServiceClient("http://service", transport=httpx2.MockTransport(self.handle))

    def lease(self, *, constraints: tuple[str, ...] = (), **sections: Mapping[str, Any]) -> dict[str, Any]:
        """A lease on a trial of the scripted service's text."""
        parts = {
            name: {"tokens": len(_tokens(content)), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in self.parts.items()
        }
        facts = {"tokenizer": "byte", "vocabulary_size": 256}
        return {
            "trial": "T0",
            "attempt": 1,
            "sweep": "S0",
            "number": 0,
            "runtime": "onnxruntime",
            "target_key": "onnxruntime here",
            "configuration": configuration(**sections),
            "dataset": {"id": "D0", "name": "text", "task": "causal_lm", "sha256": "", "facts": facts, "parts": parts},
            "constraints": list(constraints),
            "lease_seconds": 30,
        }

    def sent(self, verb: str) -> list[dict[str, Any]]:
        with self._changed:
            return [body for name, body in self.calls if name == verb]

    def wait_for(self, condition: Callable[[str, dict[str, Any]], bool], seconds: float = 60) -> None:
        """Wait until a call that satisfies `condition` has been made."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(condition(*call) for call in self.calls), seconds), self.calls

    def phases(self) -> list[str]:
        return [report["phase"] for report in self.sent("report") if "phase" in report]

    def losses(self) -> list[dict[str, Any]]:
        return [loss for report in self.sent("report") for loss in report.get("losses", [])]


@pytest.fixture
def scripted() -> ScriptedService:
    return ScriptedService()


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    """Children with one thread, shared by the tests of a file as by the trials of a worker."""
    children = Children(threads=1)
    yield children
    children.kill()


@pytest.fixture(scope="module")
def capabilities(children: Children) -> dict[str, dict[str, Any]]:
    found = children.builder().request("describe", {"runtime": "onnxruntime"}, timeout_seconds=60)
    return {"onnxruntime": {**found, "device_model": "a processor, 1 thread"}}


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _npz(tokens: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, tokens=tokens)
    return file.getvalue()


def _tokens(content: bytes) -> np.ndarray:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays["tokens"]


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds that nothing announces."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)

    return wait
