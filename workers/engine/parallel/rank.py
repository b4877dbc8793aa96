"""A rank of a shared engine but the first: does what rank 0 says, until it says no more.

`python -m workers.engine.parallel.rank`; started by peers.py alone.
"""

from __future__ import annotations

import argparse
import signal
import socket
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ..lifetime import end_with_parent
from ..protocol import RequestError
from ..verbs import BuildSizes
from .building import build_rank
from .rank_engine import RankEngine, rank_engine
from .shards import Shards
from .star import Ray


class Rank:
    """The commands of rank 0, by the names of methods."""

    def __init__(self, engine: RankEngine, rank: int, ranks: int, data: socket.socket) -> None:
        self._engine = engine
        self._rank, self._ranks = rank, ranks
        self._communicator = Ray(data)
        self._prepared: list[Any] = []

    def keep_timings(self, folder: Path) -> None:
        # Its own: the devices differ, and two would write the same file at once.
        self._engine.keep_timings(folder / f"rank{self._rank}")

    def build(self, shards: Path, folder: Path, options: dict[str, object]) -> BuildSizes:
        return build_rank(self._engine, Shards.read(shards), self._rank, folder, options)

    def join(self, invitation: bytes) -> None:
        self._engine.join(self._rank, self._ranks, invitation, self._communicator)

    def load(self, shards: Path, options: dict[str, object]) -> None:
        self._engine.load(shards, options)

    def prepare(self, inputs: dict[str, np.ndarray]) -> None:
        self._prepared.append(self._engine.prepare(inputs))

    def timed_run(self, index: int) -> float:
        return self._engine.timed_run(self._prepared[index])

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._engine.run(inputs)

    def run_unread(self, inputs: dict[str, np.ndarray]) -> None:
        self._engine.run(inputs)

    def memory_in_use(self) -> int:
        return self._engine.memory_in_use()

    def close(self) -> None:
        self._prepared.clear()
        self._engine.close()

    def leave_device(self) -> None:
        self._engine.leave_device()


def serve(rank: Rank, control: Connection) -> None:
    """Do what is said, one command after another, until nobody is there who could say more."""
    while True:
        try:
            command, arguments = control.recv()
        except (EOFError, OSError):
            return
        try:
            answer = ("ok", getattr(rank, command)(*arguments))
        except RequestError as failure:
            answer = (failure.kind, failure.message)
        except MemoryError as failure:
            answer = ("out_of_memory", str(failure) or "the machine is out of memory")
        except Exception as failure:  # noqa: BLE001 - rank 0 is told, and decides
            traceback.print_exc()
            answer = ("internal", f"{type(failure).__name__}: {failure}")
        control.send(answer)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.engine.parallel.rank", description=__doc__)
    parser.add_argument("--runtime", required=True)
    for name in ("--rank", "--ranks", "--control-fd", "--data-fd"):
        parser.add_argument(name, type=int, required=True)
    arguments = parser.parse_args()
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(arguments.control_fd) as control, socket.socket(fileno=arguments.data_fd) as data:
        try:
            engine = rank_engine(arguments.runtime)
        except RequestError as failure:
            # The answer to whatever it is asked first.
            control.send((failure.kind, failure.message))
            return
        serve(Rank(engine, arguments.rank, arguments.ranks, data), control)


if __name__ == "__main__":
    main()
