"""A worker's life over HTTP as it was recorded: replayed to today's service, and answered to today's worker.

`python -m tests.golden.make_worker_life` recorded it, with worker and service as they were then; it stays as it is. A
recorded exchange is what was sent and what was answered; files that were sent or fetched are left out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

LIFE = Path(__file__).with_name("worker_life.json")

FILE = b"a file"
"""What is sent and answered in place of a file that was left out."""

_ID = re.compile(r"\b0[0-9A-HJKMNP-TV-Z]{25}\b")

MODEL: dict[str, Any] = {"num_layers": 1, "hidden_size": 16, "attention": {"num_attention_heads": 2}}
SWEEPS: dict[str, dict[str, Any]] = {
    "trained": {
        "name": "trained",
        "task": "causal_lm",
        "dataset": "python-topics",
        "model": MODEL,
        "training": {"steps": 20, "batch_size": 4, "eval_every": 10, "seed": {"values": [1, 2, 3, 4]}},
        "inference": {"batch_size": 4, "sequence_length": 32},
        "objectives": [
            {"metric": "validation_loss", "goal": "minimize"},
            {"metric": "latency_ms_p50", "goal": "minimize"},
        ],
        "constraints": ["latency_ms_p50 <= 1e4"],
        "budget": {"trials": 4, "parallel": 1, "failures": 4},
        "search": {"sampler": "grid", "seed": 1},
    },
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request of a worker and the service's answer."""

    method: str
    path: str
    status: int
    headers: dict[str, str] = field(default_factory=dict[str, str])
    """Of the request, those that the service acts on."""
    body: Any = None
    """Of the request; None where there was none, or a file."""
    answer: Any = None
    """None where there was none, or a file."""


def recorded_life() -> list[Exchange]:
    return [Exchange(**each) for each in json.loads(LIFE.read_text())]


class Replay:
    """Sends a recorded life to a service. Identifiers that the service gives out stand for the recorded ones."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http
        self._ids: dict[str, str] = {}

    def send(self, exchange: Exchange) -> list[str]:
        """What of the answer an old worker would not find as it was; it may hold more."""
        what = f"{exchange.method} {exchange.path}"
        content, headers = self._content(exchange)
        answer = self._http.request(exchange.method, self._translated(exchange.path), content=content, headers=headers)
        if answer.status_code != exchange.status:
            return [f"{what}: {answer.status_code} {answer.text[:500]}, not {exchange.status}"]
        if exchange.answer is None:
            return []
        found = answer.json()
        self._learn(exchange.answer, found)
        return [f"{what}: {each}" for each in lacking(exchange.answer, found)]

    def _content(self, exchange: Exchange) -> tuple[bytes, dict[str, str]]:
        headers = dict(exchange.headers)
        if "content-digest" in headers:
            headers["content-digest"] = f"sha-256=:{base64.b64encode(hashlib.sha256(FILE).digest()).decode()}:"
            return FILE, headers
        if exchange.body is None:
            return b"", headers
        return self._translated(json.dumps(exchange.body)).encode(), headers | {"content-type": "application/json"}

    def _translated(self, text: str) -> str:
        return _ID.sub(lambda found: self._ids.get(found.group(), found.group()), text)

    def _learn(self, recorded: Any, found: Any) -> None:
        for path, value in leaves(recorded):
            if isinstance(value, str) and _ID.fullmatch(value):
                other = dict(leaves(found)).get(path)
                if isinstance(other, str):
                    self._ids[value] = other


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar of a JSON value with its pointer; of a list, its items."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, f"{path}/{name}")
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from leaves(item, f"{path}/{position}")
    else:
        yield path, value


def lacking(recorded: Any, found: Any, path: str = "") -> list[str]:
    """Where `found` lacks a field of `recorded`, or has another type of value there."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        return [
            each
            for name, item in recorded.items()
            for each in (lacking(item, found[name], f"{path}/{name}") if name in found else [f"{path}/{name} is gone"])
        ]
    if isinstance(recorded, list) and isinstance(found, list) and recorded:
        return lacking(recorded[0], found[0], f"{path}/0") if found else [f"{path} is empty"]
    before, now = type_of(recorded), type_of(found)
    return [] if before == now else [f"{path} is {now}, not {before}"]


def type_of(value: Any) -> str:
    """The name of a JSON value's type."""
    names: dict[type, str] = {
        bool: "boolean",
        int: "number",
        float: "number",
        str: "text",
        type(None): "null",
        dict: "object",
        list: "list",
    }
    return names[type(value)]
