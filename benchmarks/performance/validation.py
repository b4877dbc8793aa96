"""What validating documents of layers that differ takes, and what others wait for meanwhile; of two trees in turn.

Each tree's service validates documents one by one (`validate_only`), then `--together` different ones of 32 layers at
once, while `GET /v1/sweeps` is sent every quarter of a second. What is not answered after `--seconds` is given up.

    python -m benchmarks.performance.validation [--old TREE] [--seconds 60] [--together 45] [--out FILE.json]

TREE is a checkout with a .venv of its own; without it this tree alone is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.support.processes import ROOT, machine, serving

LAYERS = (9, 32, 64)
READ_EVERY_SECONDS = 0.25


def document(layers: int, name: str) -> dict[str, Any]:
    """A document whose layers differ in three parameters each."""
    return {
        "name": name,
        "task": "causal_lm",
        "dataset": "python-topics",
        "model": {
            "num_layers": layers,
            "hidden_size": {"values": [64, 128]},
            "attention": {"num_attention_heads": 4},
            "mlp": {
                "kind": {"values": ["MLP", "GatedMLP"], "per_layer": True},
                "ffn_hidden_size": {"values": [128, 256, 512], "per_layer": True},
                "hidden_act": {"values": ["gelu", "silu"], "per_layer": True},
            },
        },
        "objectives": [{"metric": "latency_ms_p50"}],
    }


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--old", type=Path)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--together", type=int, default=45)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    trees = {"new": ROOT} | ({} if given.old is None else {"old": given.old.resolve()})
    found: dict[str, Any] = {"machine": machine(), "together": given.together, "given_up_after_seconds": given.seconds}
    for name, tree in trees.items():
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder)
            python = str(tree / ".venv" / "bin" / "python")
            with serving(data / "log", {"LAYERSWEEP_DATA_DIR": str(data)}, tree=tree, python=python) as url:
                found[name] = await measured(url, given.seconds, given.together)
        print(name, json.dumps(found[name]))
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


async def measured(url: str, seconds: float, together: int) -> dict[str, Any]:
    """The figures of one service."""
    limits = httpx2.Limits(max_connections=2 * together + 10)
    async with httpx2.AsyncClient(base_url=url, timeout=seconds, limits=limits) as client:
        alone = {
            f"{layers}_layers_seconds": await answered(client, document(layers, f"alone-{layers}"), seconds)
            for layers in LAYERS
        }
        began = time.monotonic()
        tasks = [
            asyncio.ensure_future(answered(client, document(32, f"together-{number}"), seconds))
            for number in range(together)
        ]
        reads = await reads_beside(client, tasks, began + seconds)
        waits = [wait for wait in await asyncio.gather(*tasks) if wait is not None]
    return {
        "alone": alone,
        "together": {
            "validated": len(waits),
            "longest_seconds": max(waits, default=None),
            "reads": len(reads),
            "read_ms_median": None if not reads else round(1000 * statistics.median(reads), 1),
            "read_ms_longest": None if not reads else round(1000 * max(reads), 1),
        },
    }


async def answered(client: httpx2.AsyncClient, written: dict[str, Any], seconds: float) -> float | None:
    """How long a document's validation took; None where it was given up."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            answer = await client.post("/v1/sweeps?validate_only=true", json=written)
    except (TimeoutError, httpx2.TransportError):
        return None
    answer.raise_for_status()
    return round(time.monotonic() - began, 3)


async def reads_beside(client: httpx2.AsyncClient, tasks: list[asyncio.Future[Any]], until: float) -> list[float]:
    """How long each read took that was sent while documents were validated; one that was given up counts, too."""
    waits: list[float] = []
    while not all(task.done() for task in tasks) and time.monotonic() < until:
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(0.1, until - began)):
                (await client.get("/v1/sweeps")).raise_for_status()
        except (TimeoutError, httpx2.TransportError):
            pass
        waits.append(time.monotonic() - began)
        await asyncio.sleep(READ_EVERY_SECONDS)
    return waits


if __name__ == "__main__":
    asyncio.run(main())
