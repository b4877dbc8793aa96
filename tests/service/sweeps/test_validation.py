"""Documents are validated beside all else: in processes, in order, in time, and only while somebody waits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from layers.space.document import PointError, Rejection, Space
from layers.space.feasibility import FEWEST_SAMPLES, SAMPLES, FeasibilityReport, expected_seconds, measure_feasibility
from service.app import create_app
from service.errors import UnavailableError
from service.settings import Settings
from service.sweeps import drafts
from service.sweeps.feasibility import processes as feasibility_processes
from service.sweeps.feasibility.process import packed
from service.sweeps.feasibility.processes import FeasibilityProcesses
from service.sweeps.validation import SMALL_SECONDS
from tests.layers.sweep_documents import parsed

PER_LAYER = {
    "mlp": {
        "kind": {"values": ["MLP", "GatedMLP"], "per_layer": True},
        "ffn_hidden_size": {"values": [128, 256, 512], "per_layer": True},
        "hidden_act": {"values": ["gelu", "silu"], "per_layer": True},
    }
}


def deep(layers: int) -> dict[str, Any]:
    """A document whose layers differ in three parameters each."""
    return {
        "name": f"deep-{layers}",
        "task": "causal_lm",
        "dataset": "python-topics",
        "model": {
            "num_layers": layers,
            "hidden_size": {"values": [64, 128]},
            "attention": {"num_attention_heads": 4},
            **PER_LAYER,
        },
        "objectives": [{"metric": "latency_ms_p50"}],
    }


SMALL = deep(1)
DEEP = deep(32)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go on until something is so."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def settings(sqlite_url: str, tmp_path: Path) -> Settings:
    """On one kind of database: it has no part in this."""
    return Settings(database_url=sqlite_url, data_dir=tmp_path / "data", validation_processes=1)


@asynccontextmanager
async def processes(most: int = 1) -> AsyncGenerator[FeasibilityProcesses]:
    made = FeasibilityProcesses(most)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.subprocess.Process]:
    """The processes that were started."""
    found: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def started(*arguments: Any, **keywords: Any) -> asyncio.subprocess.Process:
        found.append(await start(*arguments, **keywords))
        return found[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started)
    return found


def large(layers: int = 32) -> Space:
    return parsed({"/model/num_layers": layers, "/model/mlp": PER_LAYER["mlp"]}).space


# --- the processes --------------------------------------------------------------------------------------------------


def test_a_measurement_of_feasibility_is_the_same_in_a_process(started: list[asyncio.subprocess.Process]) -> None:
    changes = {"/rules": ["hidden_size != 96"], "/model/mlp/ffn_hidden_size": {"derived": "4096 // (num_layers - 2)"}}

    async def run() -> FeasibilityReport:
        async with processes() as pool:
            await pool.measure(parsed().space)
            return await pool.measure(parsed(changes).space)

    found, here = asyncio.run(run()), measure_feasibility(parsed(changes).space)
    assert len(started) == 1
    assert [str(error) for error in found.errors] == [str(error) for error in here.errors] != []
    assert (found.points, found.judged, found.rejections) == (here.points, here.judged, here.rejections)
    assert found.examples == here.examples
    assert found.examples["hidden_size != 96"] == Rejection("hidden_size != 96", *_broken(here))
    assert isinstance(found.errors[0], PointError)


def _broken(feasibility: FeasibilityReport) -> tuple[str, float]:
    example = feasibility.examples["hidden_size != 96"]
    return example.message, example.violation


def test_a_process_that_was_killed_is_made_again(started: list[asyncio.subprocess.Process]) -> None:
    async def run() -> None:
        async with processes() as pool:
            await pool.measure(parsed().space)
            # While it has nothing to do, and while it computes.
            started[0].kill()
            assert (await pool.measure(parsed().space)).judged == 24
            awaited = asyncio.ensure_future(pool.measure(large(6)))
            await until(lambda: not pool._idle)
            os.kill(started[-1].pid, signal.SIGKILL)
            assert (await awaited).sampled

    asyncio.run(run())
    assert len(started) == 3


def test_a_measurement_of_feasibility_that_kills_its_processes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with processes() as pool:
            with pytest.raises(UnavailableError, match="twice") as refused:
                await pool.measure(parsed().space)
            assert refused.value.retry_after_seconds

    monkeypatch.setattr(feasibility_processes, "packed", lambda message: packed("no space"))
    asyncio.run(run())


def test_a_measurement_of_feasibility_that_nobody_awaits_ends_with_its_process(
    started: list[asyncio.subprocess.Process],
) -> None:
    async def run() -> None:
        async with processes() as pool:
            awaited = asyncio.ensure_future(pool.measure(large()))
            await until(lambda: started)
            awaited.cancel()
            with pytest.raises(asyncio.CancelledError):
                await awaited
            assert started[0].returncode == -signal.SIGKILL
            assert (await pool.measure(parsed().space)).judged == 24

    asyncio.run(run())


def test_a_measurement_of_feasibility_is_shorter_while_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feasibility_processes, "HURRIED_SECONDS", 0.0)

    async def run() -> list[FeasibilityReport]:
        async with processes() as pool:
            return await asyncio.gather(*(pool.measure(large(6)) for _ in range(3)))

    # Of these the second alone begins while another waits.
    assert [feasibility.judged for feasibility in asyncio.run(run())] == [SAMPLES, FEWEST_SAMPLES, SAMPLES]


def test_too_many_documents_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feasibility_processes, "MOST_WAITING", 2)

    async def run() -> None:
        async with processes() as pool:
            waiting = [asyncio.ensure_future(pool.measure(parsed().space)) for _ in range(3)]
            await asyncio.sleep(0)
            with pytest.raises(UnavailableError, match="2 documents wait") as refused:
                await pool.measure(parsed().space)
            assert refused.value.retry_after_seconds == 2
            assert [feasibility.judged for feasibility in await asyncio.gather(*waiting)] == [24, 24, 24]

    asyncio.run(run())


def test_a_process_without_work_ends(
    monkeypatch: pytest.MonkeyPatch, started: list[asyncio.subprocess.Process]
) -> None:
    monkeypatch.setattr(feasibility_processes, "IDLE_SECONDS", 0.0)

    async def run() -> None:
        async with processes() as pool:
            await pool.measure(parsed().space)
            async with asyncio.timeout(60):
                assert await started[0].wait() == 0

    asyncio.run(run())


# --- what is validated where ----------------------------------------------------------------------------------------


def test_the_time_of_a_measurement_is_told_before() -> None:
    assert expected_seconds(parsed().space) < 0.01 < SMALL_SECONDS < expected_seconds(large())
    continuous = {"/training/learning_rate": {"min": 1e-4, "max": 1e-2}}
    assert expected_seconds(parsed(continuous).space) < SMALL_SECONDS
    # Conditions that see two ranges: to count the points alone takes seconds.
    branching = {
        "/training/steps": {"min": 1, "max": 1000},
        "/training/batch_size": {"min": 1, "max": 500},
        "/training/dropout": {"values": [0.0, 0.1], "when": "training.steps * training.batch_size > 100"},
    }
    assert expected_seconds(parsed(branching).space) > SMALL_SECONDS


def test_small_documents_start_no_process(client: TestClient, started: list[asyncio.subprocess.Process]) -> None:
    answer = client.post("/v1/sweeps?validate_only=true", json=SMALL)
    assert (answer.status_code, answer.json()["space"]["judged"]) == (200, 24)
    assert started == []


def test_a_large_document_is_answered_as_it_would_be_here(
    client: TestClient, started: list[asyncio.subprocess.Process]
) -> None:
    document = {**deep(6), "constraints": ["parameter_count <= 4e5"]}
    answer = client.post("/v1/sweeps?validate_only=true", json=document)
    here = drafts.prepare(client.app.state.services.database, document)  # type: ignore[attr-defined]
    assert answer.json()["space"] == here.preview().space.model_dump(mode="json")
    assert answer.json()["space"]["judged"] == SAMPLES
    refused = client.post("/v1/sweeps", json={**document, "constraints": ["parameter_count <= 10"]})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/constraints/0"
    assert len(started) == 1


# --- beside all else ------------------------------------------------------------------------------------------------


@pytest.fixture
def url(settings: Settings, serve: Callable[[FastAPI], str]) -> str:
    """A running service."""
    return serve(create_app(settings, start_scheduler=False))


def test_others_are_answered_while_large_documents_are_validated(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feasibility_processes, "HURRIED_SECONDS", 0.0)
    monkeypatch.setattr(feasibility_processes, "SECONDS", 0.5)
    # More than the threads that plain routes share.
    documents = [{**deep(32), "name": f"deep-{number}"} for number in range(45)]

    async def run() -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=120, limits=httpx2.Limits(max_connections=100)) as client:
            tasks = [asyncio.ensure_future(validated(client, document)) for document in documents]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for path in ("/v1/sweeps", "/new", "/v1/layers"):
                assert (await client.get(path)).status_code == 200
            assert (await client.post("/v1/sweeps?validate_only=true", json=SMALL)).json()["space"]["judged"] == 24
            assert sum(not task.done() for task in tasks) > 10
            last = await validated(client, {**deep(32), "name": "the last"})
            spaces = [*await asyncio.gather(*tasks), last]
            assert all(space["feasible_share"] == 1 and space["sampled"] for space in spaces)
            assert sum(space["judged"] == FEWEST_SAMPLES for space in spaces) > 10

    asyncio.run(run())


async def validated(client: httpx2.AsyncClient, document: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post("/v1/sweeps?validate_only=true", json=document)
    assert answer.status_code == 200, answer.text
    return answer.json()["space"]


@pytest.mark.parametrize("path", ["/v1/sweeps?validate_only=true", "/v1/sweeps", "/new/check"])
def test_a_document_is_validated_as_long_as_its_caller_waits(
    path: str, url: str, started: list[asyncio.subprocess.Process]
) -> None:
    body: dict[str, Any] = {"data": {"document": json.dumps(DEEP)}} if path == "/new/check" else {"json": DEEP}

    async def run() -> None:
        async with httpx2.AsyncClient(base_url=url, timeout=120) as client:
            left = asyncio.ensure_future(client.post(path, **body))
            await until(lambda: started)
            left.cancel()
            with suppress(asyncio.CancelledError):
                await left
            await until(lambda: started[0].returncode is not None)
            assert started[0].returncode == -signal.SIGKILL
            assert (await client.get("/v1/sweeps")).json()["items"] == []

    asyncio.run(run())
