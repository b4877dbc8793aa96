"""A small sweep, and somebody who finishes its trials."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx2

DOCUMENT = """\
name: small
task: causal_lm
dataset: python-topics
model:
  num_layers: {values: [1, 2]}
  hidden_size: {values: [16, 32]}
  attention: {num_attention_heads: 2}
  mlp: {kind: {values: [MLP, GatedMLP]}}
training: {steps: 10, batch_size: 4}
inference: {batch_size: 1, sequence_length: 32}
objectives:
  - {metric: latency_ms_p50, goal: minimize}
  - {metric: validation_loss, goal: minimize}
budget: {trials: 6, parallel: 1}
search: {sampler: random, seed: 3}
"""


class Finisher:
    """Speaks the workers' side of HTTP; a trial's metrics follow from its parameters."""

    def __init__(self, server: str) -> None:
        self._http = httpx2.Client(base_url=server, timeout=60)
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._work, name="finisher")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let it finish what it has, and break off its wait for more."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(30)
        self._loop.close()
        self._http.close()

    def register(self) -> str:
        body = {
            "name": "finisher",
            "device": {"kind": "cpu", "uuid": "cpu-test", "model": "test processor", "memory_bytes": 8 * 2**30},
            "targets": [
                {
                    "runtime": "onnxruntime",
                    "version": "1.0",
                    "device_model": "test processor",
                    "opset": 18,
                    "dtypes": ["float32"],
                    "device_memory_bytes": 8 * 2**30,
                }
            ],
        }
        answer = self._http.post("/v1/workers", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def finish_one(self, worker: str, wait_seconds: int) -> bool:
        """Claim a trial and finish it; False if there was none."""
        return self._finish(self._http.post("/v1/leases", **claim(worker, wait_seconds)))

    def _finish(self, answer: httpx2.Response) -> bool:
        if answer.status_code == 204 or not answer.content or answer.json() is None:
            return False
        lease = answer.json()
        path = f"/v1/leases/{lease['trial']}/{lease['attempt']}"
        self._http.post(f"{path}:report", json={"phase": "train", "progress": {"step": 5, "steps": 10}})
        found = metrics(lease["configuration"]["model"])
        if "test" in (lease["dataset"] or {}).get("parts", {}):
            found["test_loss"] = found["validation_loss"] + 0.01
        finished = self._http.post(f"{path}:finish", json={"outcome": "complete", "metrics": found})
        assert finished.status_code == 200, finished.text
        return True

    def _work(self) -> None:
        self._loop.run_until_complete(self._finish_all(self.register()))

    async def _finish_all(self, worker: str) -> None:
        async with httpx2.AsyncClient(base_url=self._http.base_url, timeout=60) as http:
            stopped = asyncio.ensure_future(self._stopped.wait())
            while not stopped.done():
                claimed = asyncio.ensure_future(http.post("/v1/leases", **claim(worker, 20)))
                await asyncio.wait([claimed, stopped], return_when=asyncio.FIRST_COMPLETED)
                if claimed.done():
                    self._finish(claimed.result())
                else:
                    claimed.cancel()
                    await asyncio.wait([claimed])


def claim(worker: str, wait_seconds: int) -> dict[str, Any]:
    """What a claim sends."""
    return {"json": {"worker": worker}, "headers": {"Prefer": f"wait={wait_seconds}"}}


def metrics(model: dict[str, Any]) -> dict[str, float]:
    size = model["num_layers"] * model["hidden_size"]
    return {
        "latency_ms_p50": size / 100,
        "memory_bytes": 4096.0 * size,
        "validation_loss": 3 - size / 100 - (0.05 if model["mlp.kind"] == "GatedMLP" else 0),
    }
