"""The turn that a request's work has on the device, and how its waits are told."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..protocol import JsonObject, Progress, Request, invalid
from .arbitration import DEVICE, Turn

if TYPE_CHECKING:
    # It imports NumPy, which a guard (pausing.py) has no use for.
    from ..base import TurnKind

GUARD = "workers.engine.turns.pausing"
"""The module that has the device for a builder."""

_PROCESSES = Path("/proc")
_LOCKS = _PROCESSES / "locks"


class RequestTurn:
    """A turn on the device whose files `turns` of a request names; a context, whose end gives the device up.

    Waits are told as progress: `{waiting: true}` while one lasts, with `holder` if another worker's process has the
    device; `{waited_seconds}` when it is over. At the end of work that had the device alone comes `{alone_seconds}`. A
    request without `turns`, or work of no kind, waits for nobody.
    """

    def __init__(
        self,
        request: Request,
        progress: Progress,
        kind: TurnKind | None,
        *,
        gives_way: bool = True,
        synchronize: Callable[[], None] = lambda: None,
        details: Callable[[], JsonObject] = dict,
    ) -> None:
        """`gives_way`, `synchronize`: as of `Turn`; `details`: what else is told of a wait."""
        self.waited_seconds = 0.0
        self._progress = progress
        self._details = details
        self._device: Path | None = None
        self._turn: Turn | None = None
        self._alone_since: float | None = None
        self._is_alone = kind == "alone"
        if kind is not None and (device := device_of(request)) is not None:
            self._device = device
            self._turn = Turn(
                device, self._report_wait, alone=self._is_alone, gives_way=gives_way, synchronize=synchronize
            )

    def __enter__(self) -> RequestTurn:
        if self._turn is not None:
            self._turn.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._turn is not None:
            self._turn.__exit__(*exception)
            self._report_alone()

    def give_up(self) -> None:
        """Let the others have the device before the context ends."""
        if self._turn is not None:
            self._turn.give_up()
            self._report_alone()

    def give_way(self) -> float:
        """Have the device, after those who wait for it; the seconds that this took."""
        seconds = self._turn.give_way() if self._turn is not None else 0.0
        if seconds:
            self.waited_seconds += seconds
            if self._alone_since is not None:
                self._alone_since += seconds
            self._progress({**self._details(), "waited_seconds": seconds})
        if self._turn is not None and self._is_alone and self._alone_since is None:
            self._alone_since = time.monotonic()
        return seconds

    def _report_alone(self) -> None:
        if self._alone_since is not None:
            self._progress({**self._details(), "alone_seconds": time.monotonic() - self._alone_since})
            self._alone_since = None

    def _report_wait(self) -> None:
        assert self._device is not None
        self._progress({**self._details(), **waiting_for(self._device, os.getppid())})


class TurnInHand:
    """The turn of something that has the device already: a context, whose end gives the device up."""

    def __init__(self, turn: RequestTurn) -> None:
        self._turn = turn

    def __enter__(self) -> TurnInHand:
        return self

    def __exit__(self, *exception: object) -> None:
        self._turn.give_up()

    def give_way(self) -> None:
        """Nobody has it in between."""


def device_of(request: Request) -> Path | None:
    """What the request's turns are taken by; None if it waits for nobody. Raises RequestError("invalid")."""
    turns = request.get("turns")
    if turns is not None and (not isinstance(turns, str) or "\0" in turns):
        raise invalid(f"turns is the path of a device's files, not {turns!r}")
    return None if turns is None else Path(turns)


def waiting_for(device: Path, worker: int) -> JsonObject:
    """What a process of a worker tells of its wait for a device."""
    holder = holder_elsewhere(device, worker)
    return {"waiting": True, **({} if holder is None else {"holder": holder})}


def holder_elsewhere(device: Path, worker: int) -> int | None:
    """The process whose child has the device, if that is another than `worker`, as far as the kernel shows it.

    None if nobody else has it, in another container, and on systems without /proc.
    """
    try:
        held = Path(f"{device}{DEVICE}").stat().st_ino
        locks = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    # `7: FLOCK  ADVISORY  WRITE 4711 08:01:2163190 0 EOF`; of one who waits for it, `7: -> FLOCK ...`.
    fields = (line.split() for line in locks)
    holders = (int(each[4]) for each in fields if each[1] == "FLOCK" and each[5].endswith(f":{held}"))
    workers = (_worker_of(holder) for holder in holders if holder > 0)
    return next((found for found in workers if found not in (None, worker)), None)


def _worker_of(holder: int) -> int | None:
    """The parent of who has a device; that of a guard is a builder (pausing.py), which has a worker."""
    parent = _parent(holder)
    try:
        command = (_PROCESSES / str(holder) / "cmdline").read_bytes()
    except OSError:
        return parent
    return _parent(parent) if parent is not None and GUARD.encode() in command else parent


def _parent(process: int) -> int | None:
    try:
        return int(stat_fields(_PROCESSES / str(process) / "stat")[1])
    except (OSError, ValueError, IndexError):
        return None


def stat_fields(stat: Path) -> list[str]:
    """What /proc says of a process or a thread: its state, its parent, and so on. Raises OSError when it is gone."""
    # The command before them, in brackets, may hold any character.
    return stat.read_text().rpartition(")")[2].split()
