"""Collectives of processes of one machine, through the first of them: sockets, in the memory of the CPU.

Sums are made by rank 0 in the order of the ranks, so that every rank has the same bits. A rank that has ended is
noticed at once, one that says nothing after SILENCE_SECONDS.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import contextmanager

import numpy as np

from ..protocol import RequestError

SILENCE_SECONDS = 60.0
"""How long a rank waits for another in one collective."""


class Communicator(ABC):
    """Words between the ranks of a group. Every rank says the same ones in the same order. They raise RequestError."""

    @abstractmethod
    def meet(self) -> None:
        """Return when all ranks are here."""

    @abstractmethod
    def sum(self, part: np.ndarray, whole: np.ndarray) -> None:
        """Write the sum of every rank's part to `whole`, of the same shape."""

    @abstractmethod
    def gather(self, part: np.ndarray, whole: np.ndarray) -> None:
        """Write every rank's part to `whole` [ranks, ..]."""


class Center(Communicator):
    """Rank 0, with a socket to each other rank, in their order."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._rays = [_Line(each, f"rank {rank}") for rank, each in enumerate(sockets, 1)]

    def meet(self) -> None:
        for ray in self._rays:
            ray.receive(memoryview(bytearray(1)))
        for ray in self._rays:
            ray.send(memoryview(b"\0"))

    def sum(self, part: np.ndarray, whole: np.ndarray) -> None:
        whole[...] = part
        other = np.empty_like(whole)
        for ray in self._rays:
            ray.receive(_bytes_of(other))
            whole += other
        self._tell(whole)

    def gather(self, part: np.ndarray, whole: np.ndarray) -> None:
        whole[0] = part
        for place, ray in zip(whole[1:], self._rays, strict=True):
            ray.receive(_bytes_of(place))
        self._tell(whole)

    def _tell(self, whole: np.ndarray) -> None:
        for ray in self._rays:
            ray.send(_bytes_of(whole))


class Ray(Communicator):
    """Any other rank, with its socket to rank 0."""

    def __init__(self, center: socket.socket) -> None:
        self._center = _Line(center, "rank 0")

    def meet(self) -> None:
        self._center.send(memoryview(b"\0"))
        self._center.receive(memoryview(bytearray(1)))

    def sum(self, part: np.ndarray, whole: np.ndarray) -> None:
        self._exchange(part, whole)

    def gather(self, part: np.ndarray, whole: np.ndarray) -> None:
        self._exchange(part, whole)

    def _exchange(self, part: np.ndarray, whole: np.ndarray) -> None:
        self._center.send(_bytes_of(part))
        self._center.receive(_bytes_of(whole))


class _Line:
    """A socket to a rank, whole messages at a time."""

    def __init__(self, line: socket.socket, name: str) -> None:
        line.settimeout(SILENCE_SECONDS)
        self._socket = line
        self._name = name

    def send(self, data: memoryview) -> None:
        with self._explained():
            self._socket.sendall(data)

    def receive(self, room: memoryview) -> None:
        with self._explained():
            while len(room):
                count = self._socket.recv_into(room)
                if not count:
                    raise ConnectionResetError("it has ended")
                room = room[count:]

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except TimeoutError:
            raise RequestError(
                "internal", f"{self._name} has not taken part in a collective for {SILENCE_SECONDS:g} s"
            ) from None
        except OSError as problem:
            raise RequestError("internal", f"{self._name} cannot be reached: {problem}") from problem


def _bytes_of(array: np.ndarray) -> memoryview:
    """The memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data
