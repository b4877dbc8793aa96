"""The client for event loops: the methods of `Client`, to be awaited.

async with AsyncClient() as client:
    sweep = await client.submit("examples/quickstart.yaml")
    await sweep.wait()
    async for trial in sweep.trials(state="failed"):
        print(trial["number"], trial["reason"])
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx2

from layersweep.client.blocking import Client
from layersweep.event_loop import LoopTransport, each, in_loop, sleep
from layersweep.records.sweeps import EventRecord
from layersweep.sweep.asynchronous import AsyncSweep
from layersweep.sweep.blocking import Sweep

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(
    method: Callable[Concatenate[Client, P], T],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    @wraps(method)
    async def awaited(self: AsyncClient, *args: P.args, **keywords: P.kwargs) -> T:
        return await in_loop(method, self.blocking, *args, **keywords)

    return awaited


def _sweep(
    method: Callable[Concatenate[Client, P], Sweep],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, AsyncSweep]]:
    @wraps(method)
    async def awaited(self: AsyncClient, *args: P.args, **keywords: P.kwargs) -> AsyncSweep:
        return AsyncSweep(await in_loop(method, self.blocking, *args, **keywords))

    return awaited


def _each(
    method: Callable[Concatenate[Client, P], Iterator[T]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    @wraps(method)
    def iterated(self: AsyncClient, *args: P.args, **keywords: P.kwargs) -> AsyncIterator[T]:
        return each(lambda: method(self.blocking, *args, **keywords))

    return iterated


def _each_sweep(
    method: Callable[Concatenate[Client, P], Iterator[Sweep]],
) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[AsyncSweep]]:
    @wraps(method)
    async def iterated(self: AsyncClient, *args: P.args, **keywords: P.kwargs) -> AsyncIterator[AsyncSweep]:
        async for sweep in each(lambda: method(self.blocking, *args, **keywords)):
            yield AsyncSweep(sweep)

    return iterated


class AsyncClient:
    """`Client` for an event loop of asyncio: the same arguments and methods, awaited; lists are `async for`.

    Any number of calls may be under way at once. Cancelling one ends it where it waits for the service. Files are read
    and written in the loop's own thread. Needs the extra `layersweep[async]`.
    """

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        *,
        project: str | None = None,
        timeout_seconds: float = 30.0,
        retry_seconds: float = 30.0,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.blocking = Client(
            server,
            token,
            project=project,
            timeout_seconds=timeout_seconds,
            retry_seconds=retry_seconds,
            transport=LoopTransport(transport),
            sleep=sleep,
        )

    @property
    def server(self) -> str:
        """The address of the service."""
        return self.blocking.server

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def events(self, sweep: AsyncSweep | str, *, after: int = 0) -> AsyncIterator[EventRecord]:
        """What happens in a sweep, in order and without gaps, until it has ended."""
        return each(lambda: self.blocking.events(sweep if isinstance(sweep, str) else sweep.blocking, after=after))

    add_checkpoint = _awaited(Client.add_checkpoint)
    add_dataset = _awaited(Client.add_dataset)
    artifacts = _awaited(Client.artifacts)
    audit = _each(Client.audit)
    change_project = _awaited(Client.change_project)
    change_webhook = _awaited(Client.change_webhook)
    checkpoint = _awaited(Client.checkpoint)
    checkpoints = _awaited(Client.checkpoints)
    clone = _sweep(Client.clone)
    close = _awaited(Client.close)
    create_project = _awaited(Client.create_project)
    create_token = _awaited(Client.create_token)
    create_webhook = _awaited(Client.create_webhook)
    dataset = _awaited(Client.dataset)
    datasets = _awaited(Client.datasets)
    delete_checkpoint = _awaited(Client.delete_checkpoint)
    delete_dataset = _awaited(Client.delete_dataset)
    delete_sweep = _awaited(Client.delete_sweep)
    delete_webhook = _awaited(Client.delete_webhook)
    download_artifacts = _awaited(Client.download_artifacts)
    download_transformers = _awaited(Client.download_transformers)
    layers = _awaited(Client.layers)
    leaderboard = _awaited(Client.leaderboard)
    pages = _each(Client.pages)
    ping_webhook = _awaited(Client.ping_webhook)
    presets = _awaited(Client.presets)
    projects = _awaited(Client.projects)
    queue = _awaited(Client.queue)
    resend_webhook_delivery = _awaited(Client.resend_webhook_delivery)
    revoke_token = _awaited(Client.revoke_token)
    rotate_webhook = _awaited(Client.rotate_webhook)
    submit = _sweep(Client.submit)
    sweep = _sweep(Client.sweep)
    sweeps = _each_sweep(Client.sweeps)
    targets = _awaited(Client.targets)
    tokenizer = _awaited(Client.tokenizer)
    tokens = _each(Client.tokens)
    trial = _awaited(Client.trial)
    validate = _awaited(Client.validate)
    webhook_deliveries = _each(Client.webhook_deliveries)
    webhooks = _each(Client.webhooks)
    whoami = _awaited(Client.whoami)
    workers = _awaited(Client.workers)
