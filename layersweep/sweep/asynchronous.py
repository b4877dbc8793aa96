"""A handle on one sweep for event loops: the methods of `Sweep`, to be awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from layersweep.event_loop import each, in_loop
from layersweep.records.sweeps import SweepDetailRecord, SweepState
from layersweep.sweep.blocking import Sweep

P = ParamSpec("P")
T = TypeVar("T")


def _awaited(
    method: Callable[Concatenate[Sweep, P], T],
) -> Callable[Concatenate[AsyncSweep, P], Coroutine[Any, Any, T]]:
    @wraps(method)
    async def awaited(self: AsyncSweep, *args: P.args, **keywords: P.kwargs) -> T:
        return await in_loop(method, self.blocking, *args, **keywords)

    return awaited


def _sweep(
    method: Callable[Concatenate[Sweep, P], Sweep],
) -> Callable[Concatenate[AsyncSweep, P], Coroutine[Any, Any, AsyncSweep]]:
    @wraps(method)
    async def awaited(self: AsyncSweep, *args: P.args, **keywords: P.kwargs) -> AsyncSweep:
        found = await in_loop(method, self.blocking, *args, **keywords)
        return self if found is self.blocking else AsyncSweep(found)

    return awaited


def _each(
    method: Callable[Concatenate[Sweep, P], Iterator[T]],
) -> Callable[Concatenate[AsyncSweep, P], AsyncIterator[T]]:
    @wraps(method)
    def iterated(self: AsyncSweep, *args: P.args, **keywords: P.kwargs) -> AsyncIterator[T]:
        return each(lambda: method(self.blocking, *args, **keywords))

    return iterated


class AsyncSweep:
    """One sweep. Made by `AsyncClient.submit`, `AsyncClient.sweep` and `AsyncClient.sweeps`.

    `record` is the newest answer of the service about it; `refresh()` asks again.
    """

    def __init__(self, blocking: Sweep) -> None:
        self.blocking = blocking

    @property
    def record(self) -> SweepDetailRecord:
        return self.blocking.record

    @property
    def id(self) -> str:
        return self.blocking.id

    @property
    def name(self) -> str:
        return self.blocking.name

    @property
    def state(self) -> SweepState:
        """As of the newest answer: active, paused, completed, cancelled or failed."""
        return self.blocking.state

    @property
    def ended(self) -> bool:
        return self.blocking.ended

    def __repr__(self) -> str:
        return f"<Async{repr(self.blocking).removeprefix('<')}"

    def _repr_html_(self) -> str:
        return self.blocking._repr_html_()

    cancel = _sweep(Sweep.cancel)
    clone = _sweep(Sweep.clone)
    columns = _awaited(Sweep.columns)
    confirm = _awaited(Sweep.confirm)
    confirmations = _awaited(Sweep.confirmations)
    constraints = _awaited(Sweep.constraints)
    dataframe = _awaited(Sweep.dataframe)
    effect = _awaited(Sweep.effect)
    events = _each(Sweep.events)
    export = _awaited(Sweep.export)
    extend = _sweep(Sweep.extend)
    front = _awaited(Sweep.front)
    hypervolume = _awaited(Sweep.hypervolume)
    importance = _awaited(Sweep.importance)
    judge = _awaited(Sweep.judge)
    leaderboard = _awaited(Sweep.leaderboard)
    leaderboard_csv = _awaited(Sweep.leaderboard_csv)
    pause = _sweep(Sweep.pause)
    prioritize = _sweep(Sweep.prioritize)
    annotate = _sweep(Sweep.annotate)
    promote = _awaited(Sweep.promote)
    recommendation = _awaited(Sweep.recommendation)
    refresh = _sweep(Sweep.refresh)
    remeasure = _sweep(Sweep.remeasure)
    report = _awaited(Sweep.report)
    resume = _sweep(Sweep.resume)
    tradeoff = _awaited(Sweep.tradeoff)
    trial = _awaited(Sweep.trial)
    trials = _each(Sweep.trials)
    wait = _sweep(Sweep.wait)
