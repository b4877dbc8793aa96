"""A process that measures the feasibility of one space after the other until its input ends;
`service.sweeps.feasibility.processes` starts it.

Each message is its length in eight bytes, then a pickle: to here a space and the seconds that it may take, from here
the measured feasibility, or the exception that it ended with.
"""

from __future__ import annotations

import pickle
import signal
import sys
from typing import BinaryIO

from layers.space.feasibility import measure_feasibility
from layers.space.space import Space

LENGTH_BYTES = 8


def packed(message: object) -> bytes:
    """The bytes of a message."""
    body = pickle.dumps(message)
    return len(body).to_bytes(LENGTH_BYTES) + body


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer every request."""
    while length := requests.read(LENGTH_BYTES):
        space, seconds = pickle.loads(requests.read(int.from_bytes(length)))
        answers.write(packed(_measured(space, seconds)))
        answers.flush()


def _measured(space: Space, seconds: float) -> object:
    try:
        return measure_feasibility(space, seconds)
    except Exception as error:  # noqa: BLE001 - raised where the measured feasibility is awaited
        return RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    # Ctrl-C reaches every process of a terminal: this one ends when the service has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(sys.stdin.buffer, sys.stdout.buffer)
