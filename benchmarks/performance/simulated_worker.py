"""A worker of the protocol that executes nothing: it claims, reports, finishes and claims again."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from benchmarks.performance.load import ask
from benchmarks.performance.scheduling import REGISTRATION

FINISH = {
    "outcome": "complete",
    "metrics": {"validation_loss": 2.0, "latency_ms_p50": 0.4, "latency_ms_p99": 0.5, "memory_bytes": 1e6},
    "measurements": {
        "latency_samples_ms": {"samples": [round(0.4 + 0.0001 * number, 4) for number in range(200)]},
        "environment": {"device": "benchmark", "driver": "0", "clocks_mhz": [1000, 1000], "temperature_c": 40},
    },
    "claim": True,
}


@dataclass
class Worker:
    """A simulated worker: one connection, and what its slots hold."""

    port: int
    name: str
    id: str = ""
    leases: list[str] = field(default_factory=list[str])
    """Paths of the attempts that it holds."""
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    _alone: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def post(self, path: str, body: Any, **headers: str) -> Any:
        """The decoded answer; None where it has no body. A connection that the service closed is opened again."""
        async with self._alone:
            for _ in range(3):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    status, text, _ = await ask(*self._streams, "POST", path, body, **headers)
                except (asyncio.IncompleteReadError, ConnectionError):
                    self._streams = None
                    continue
                if status >= 300:
                    raise RuntimeError(f"{path}: {status} {text.decode()[:500]}")
                return json.loads(text) if text else None
        raise RuntimeError(f"{path}: the connection was closed three times")

    async def register(self, slots: int) -> None:
        device = REGISTRATION["device"] | {"uuid": f"cpu-{self.name}"}
        body = REGISTRATION | {"name": self.name, "slots": slots, "device": device}
        self.id = (await self.post("/v1/workers", body))["id"]

    async def claim(self, slots: int) -> int:
        """Claim as many trials as slots are free; how many came."""
        body = {"worker": self.id, "at_most": slots - len(self.leases)}
        answer = await self.post("/v1/leases", body, Prefer="wait=5")
        leases = [] if answer is None else answer["leases"]
        self.leases += map(_path, leases)
        return len(leases)

    async def heartbeat(self, lease: str) -> None:
        await self.post(f"{lease}:heartbeat", None)

    async def report(self, lease: str, phase: str) -> None:
        losses = [{"step": step, "training_loss": 2.0, "validation_loss": 2.1} for step in (5, 10)]
        body = {"phase": phase, "progress": {"step": 10, "steps": 10}} | (
            {"losses": losses} if phase == "train" else {}
        )
        await self.post(f"{lease}:report", body)

    async def finish(self, lease: str) -> bool:
        """Finish the attempt; whether the answer had the next one."""
        answer = await self.post(f"{lease}:finish", FINISH)
        self.leases.remove(lease)
        if answer["lease"] is None:
            return False
        self.leases.append(_path(answer["lease"]))
        return True


def _path(lease: Any) -> str:
    return f"/v1/leases/{lease['trial']}/{lease['attempt']}"
