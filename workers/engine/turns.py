"""The turn that a request's work has on the device, and how its waits are told."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .arbitration import Turn
from .base import TurnKind
from .protocol import JsonObject, Progress, Request, invalid


class RequestTurn:
    """A turn on the device whose files `turns` of a request names; a context, whose end gives the device up.

    Waits are told as progress: `{waiting: true}` while one lasts, `{waited_seconds}` when it is over. At the end of
    work that had the device alone comes `{alone_seconds}`. A request without `turns`, or work of no kind, waits for
    nobody.
    """

    def __init__(
        self,
        request: Request,
        progress: Progress,
        kind: TurnKind | None,
        *,
        gives_way: bool = True,
        synchronize: Callable[[], None] = lambda: None,
        told: Callable[[], JsonObject] = dict,
    ) -> None:
        """`gives_way`, `synchronize`: as of `Turn`; `told`: what else is told of a wait."""
        self.waited_seconds = 0.0
        self._progress = progress
        self._told = told
        self._turn: Turn | None = None
        self._alone_since: float | None = None
        self._is_alone = kind == "alone"
        if kind is not None and (turns := request.get("turns")) is not None:
            if not isinstance(turns, str) or "\0" in turns:
                raise invalid(f"turns is the path of a device's files, not {turns!r}")
            self._turn = Turn(
                Path(turns), self._say_waiting, alone=self._is_alone, gives_way=gives_way, synchronize=synchronize
            )

    def __enter__(self) -> RequestTurn:
        if self._turn is not None:
            self._turn.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._turn is None:
            return
        self._turn.__exit__(*exception)
        if self._alone_since is not None:
            self._progress({**self._told(), "alone_seconds": time.monotonic() - self._alone_since})

    def give_way(self) -> float:
        """Have the device, after those who wait for it; the seconds that this took."""
        seconds = self._turn.give_way() if self._turn is not None else 0.0
        if seconds:
            self.waited_seconds += seconds
            if self._alone_since is not None:
                self._alone_since += seconds
            self._progress({**self._told(), "waited_seconds": seconds})
        if self._turn is not None and self._is_alone and self._alone_since is None:
            self._alone_since = time.monotonic()
        return seconds

    def _say_waiting(self) -> None:
        self._progress({**self._told(), "waiting": True})
