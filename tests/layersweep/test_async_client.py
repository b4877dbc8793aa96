"""AsyncClient: Client's methods, awaited, against a running service and against answers that take their time."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path

import httpx2
import pytest

from layersweep import AsyncClient, AsyncSweep, Client, NotFoundError, Sweep, UnreachableError
from tests.layersweep.finisher import Finisher


@pytest.mark.parametrize(("blocking", "asynchronous"), [(Client, AsyncClient), (Sweep, AsyncSweep)])
def test_every_method_is_there(blocking: type, asynchronous: type) -> None:
    def public(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_")}

    assert public(blocking) <= public(asynchronous)
    for name in public(blocking):
        method = getattr(blocking, name)
        if inspect.isfunction(method):
            found = inspect.signature(method).return_annotation
            iterated = str(found).startswith("Iterator")
            wrapped = inspect.unwrap(getattr(asynchronous, name))
            assert wrapped is method or (name == "events" and iterated), name


def test_a_sweep_from_its_document_to_its_analyses(live_service: str, document: Path, finisher: Finisher) -> None:
    finisher.start()

    async def run() -> None:
        async with AsyncClient(live_service, retry_seconds=5) as client:
            sweep = await client.submit(document)
            kinds: list[str] = []

            async def follow() -> None:
                kinds.extend([event["kind"] async for event in sweep.events()])

            _, waited = await asyncio.gather(follow(), sweep.wait(60))
            assert waited is sweep
            assert (sweep.state, kinds[0]) == ("completed", "sweep.created")
            trials = [trial async for trial in sweep.trials()]
            board = await sweep.leaderboard(feasible=True)
            assert len(trials) == len(board) == 6
            assert [each.id async for each in client.sweeps(name="small")] == [sweep.id]
            assert (await sweep.importance())["total"] == 6
            effect = await sweep.effect("hidden_size", "latency_ms_p50")
            assert [level["low"] for level in effect["levels"]] == [16, 32]
            assert (await sweep.tradeoff("latency_ms_p50", "validation_loss"))["sample"]["total"] == 6
            assert (await sweep.hypervolume())["trials"] == 6
            assert len((await sweep.columns("hidden_size"))["values"]["hidden_size"]) == 6
            with pytest.raises(NotFoundError):
                await client.trial(f"{sweep.id}/99")

    asyncio.run(run())


def test_calls_wait_beside_each_other_and_end_where_they_are_cancelled() -> None:
    async def run() -> None:
        arrived, answer = asyncio.Semaphore(0), asyncio.Event()

        async def slow(request: httpx2.Request) -> httpx2.Response:
            arrived.release()
            await answer.wait()
            return httpx2.Response(200, json={"items": [{"name": request.url.path}], "next_page_token": None})

        client = AsyncClient("http://service", transport=httpx2.MockTransport(slow))

        async def first(path: str) -> str:
            return (await anext(client.pages(path)))["name"]

        calls = [asyncio.create_task(first(path)) for path in ("/v1/workers", "/v1/presets", "/v1/layers")]
        for _ in calls:
            await arrived.acquire()
        calls[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        answer.set()
        assert await asyncio.gather(*calls[1:]) == ["/v1/presets", "/v1/layers"]
        await client.close()

    asyncio.run(run())


def test_a_lost_connection_is_tried_again_without_holding_up_the_loop() -> None:
    tries = 0

    def lost(request: httpx2.Request) -> httpx2.Response:
        nonlocal tries
        tries += 1
        raise httpx2.ConnectError("refused")

    async def run() -> None:
        client = AsyncClient("http://service", transport=httpx2.MockTransport(lost), retry_seconds=0.3)
        with pytest.raises(UnreachableError):
            await client.workers()

    asyncio.run(run())
    assert tries > 1
