"""A service that is scripted, small data, and leases on it: for tests of the worker that need no real service."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable, Mapping
from pydoc_data.topics import topics
from typing import Any

import httpx2
import numpy as np

from layers.completion import complete
from layers.declarations.inference.parameters import complete_inference
from layers.declarations.training import complete_training
from workers.service.client import ServiceClient

TEXT = np.frombuffer("\n".join(topics[name] for name in sorted(topics)).encode(), np.uint8)


def _labelled(count: int, seed: int) -> dict[str, np.ndarray]:
    """Rows of up to 12 tokens of 9 and padding; the class is the parity of a row's first two tokens."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(4, 13, count)
    tokens = np.where(np.arange(12) < lengths[:, None], generator.integers(0, 9, (count, 12)), 9)
    mask = np.broadcast_to(np.tri(12, dtype=np.uint8), (count, 12, 12))
    return {
        "tokens": tokens.astype(np.uint8),
        "labels": (tokens[:, 0] + tokens[:, 1]) % 2,
        "lengths": lengths.astype(np.int32),
        "attention_mask": np.ascontiguousarray(mask),
    }


def _pairs(count: int, seed: int) -> dict[str, np.ndarray]:
    """Sources of 2 to 7 symbols, and as targets the same ones backwards, two numbers on."""
    generator = np.random.default_rng(seed)
    sources = [generator.integers(1, 9, length) for length in generator.integers(2, 8, count)]
    lengths = np.array([len(source) for source in sources], np.int32)
    return {
        "source": np.concatenate(sources).astype(np.uint8),
        "source_lengths": lengths,
        "target": np.concatenate([source[::-1] + 2 for source in sources]).astype(np.uint8),
        "target_lengths": lengths,
    }


SPLITS: dict[str, dict[str, dict[str, np.ndarray]]] = {
    "causal_lm": {"training": {"tokens": TEXT[:40_000]}, "validation": {"tokens": TEXT[400_000:403_000]}},
    "classification": {"training": _labelled(400, 1), "validation": _labelled(90, 2)},
    "seq2seq": {"training": _pairs(500, 1), "validation": _pairs(70, 2)},
    "probe": {},
}

FACTS: dict[str, dict[str, Any]] = {
    "causal_lm": {"tokenizer": "byte", "vocabulary_size": 256},
    "classification": {
        "vocabulary_size": 10,
        "classes": 2,
        "sequence_length": 12,
        "pad_id": 9,
        "attention_mask": True,
        "labels": ["even", "odd"],
    },
    "seq2seq": {
        "tokenizer": "char",
        "source_vocabulary_size": 9,
        "vocabulary_size": 11,
        "source_length": 7,
        "target_length": 8,
        "pad_id": 0,
        "start_id": 1,
        "end_id": 2,
    },
    "probe": {},
}

_SMALL: dict[str, Any] = {"num_layers": 1, "hidden_size": 16, "attention.num_attention_heads": 2}
_SMALL_BY_TASK = {"probe": {name: value for name, value in _SMALL.items() if name != "num_layers"}}


def configuration(
    model: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    inference: Mapping[str, Any] | None = None,
    task: str = "causal_lm",
) -> dict[str, Any]:
    """A completed configuration of a model so small that a trial takes seconds. None takes a default back."""
    lengths = {"sequence_length": 32} if task in ("causal_lm", "probe") else {}
    facts = FACTS[task]
    of_inference = complete_inference({"batch_size": 4, **lengths, **(inference or {})}, task, facts)
    of_training: dict[str, Any] = {}
    if task != "probe":
        given = {"steps": 20, "batch_size": 4, "learning_rate": 3e-3, **(training or {})}
        values = {name: value for name, value in given.items() if value is not None}
        of_training = complete_training(values, of_inference, task, facts)
    longest = {
        name: [section[name] for section in (of_inference, of_training) if name in section]
        for name in ("sequence_length", "source_length")
    }
    if task == "probe" and not longest["source_length"]:
        longest["source_length"] = longest["sequence_length"]
    chosen = {**_SMALL_BY_TASK.get(task, _SMALL), **(model or {})}
    return {
        "task": task,
        "model": complete(
            task, {name: value for name, value in chosen.items() if value is not None}, {**facts, **longest}
        ),
        "training": of_training,
        "inference": of_inference,
    }


class ScriptedService:
    """Answers a worker's calls about one attempt, and remembers them. `script` may answer in place of it."""

    def __init__(self, task: str = "causal_lm") -> None:
        self.task = task
        self.splits = {name: _npz(arrays) for name, arrays in SPLITS[task].items()}
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
            verb, usual = "download", httpx2.Response(200, content=self.splits["test"])
        elif path.endswith(":offer"):
            verb, usual = "offer", httpx2.Response(200, json={"wanted": self.wanted})
        elif path.endswith("/training-state"):
            verb, usual = "download", _ranged(request, self.uploaded.get("training_state.pt", b""))
        elif path.endswith("/content"):
            verb, usual = "download", _ranged(request, self.splits[request.url.params["part"]])
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
        """A lease on a trial of the scripted service's data."""
        splits: dict[str, dict[str, Any]] = {
            name: {"sha256": hashlib.sha256(content).hexdigest()} for name, content in self.splits.items()
        }
        if self.task == "causal_lm":
            for name, content in self.splits.items():
                splits[name]["tokens"] = len(_tokens(content))
        facts = FACTS[self.task]
        dataset = {"id": "D0", "name": "text", "task": self.task, "sha256": "", "facts": facts, "parts": splits}
        return {
            "trial": "T0",
            "attempt": 1,
            "sweep": "S0",
            "number": 0,
            "runtime": "onnxruntime",
            "target_key": "onnxruntime here",
            "configuration": configuration(**sections, task=self.task),
            "dataset": dataset if self.splits else None,
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


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _ranged(request: httpx2.Request, content: bytes) -> httpx2.Response:
    """The content, or the rest of it that is asked for."""
    wanted, digest = request.headers.get("Range"), hashlib.sha256(content).hexdigest()
    if wanted is None or request.headers.get("If-Range") != f'"{digest}"':
        return httpx2.Response(200, content=content)
    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
    return httpx2.Response(206, content=content[start:]) if start < len(content) else httpx2.Response(416)


def _tokens(content: bytes) -> np.ndarray:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays["tokens"]
