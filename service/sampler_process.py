"""Studies in a process of their own: while a sampler computes, it keeps no request from the interpreter.

The rows are the truth: where the process dies, its studies are built again from them, in a new one.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import traceback
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from layers.base import Scalar
from service.studies import Attributes, Study, Suggestion, Told

_STOP_SECONDS = 5.0


class SamplerProcessError(RuntimeError):
    """A sampler raised in its process, or that process has ended."""


@dataclass(frozen=True, slots=True)
class _Request:
    """A call of a study's method, or of what makes one (`method` None)."""

    study: int
    method: str | None
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict[str, Any])
    forgotten: Sequence[int] = ()
    """Studies that nobody has any more."""


class SamplerProcess:
    """Makes studies that live in one child process. The child ends with this one, however that ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._process: Any = None
        self._made = 0
        self._forgotten: list[int] = []

    def study(self, **arguments: Any) -> RemoteStudy:
        """A study as `OptunaStudy` makes it of these arguments."""
        with self._lock:
            self._made += 1
            number = self._made
            if self._connection is None:
                self._start()
        asked = self.call(number, None, **arguments)
        study = RemoteStudy(self, number, asked)
        weakref.finalize(study, self._forgotten.append, number)
        return study

    def call(self, study: int, method: str | None, *arguments: Any, **keywords: Any) -> Any:
        """What the study's method returns. Raises SamplerProcessError."""
        with self._lock:
            if self._connection is None:
                raise SamplerProcessError("the samplers' process has ended")
            gone, self._forgotten[:] = tuple(self._forgotten), []
            try:
                self._connection.send(_Request(study, method, arguments, keywords, gone))
                error, result = self._connection.recv()
            except (EOFError, OSError) as lost:
                self._end()
                raise SamplerProcessError(
                    "the process of the samplers has ended: their studies are built again"
                ) from lost
        if error is not None:
            raise SamplerProcessError(error)
        return result

    def close(self) -> None:
        """End the process; its studies answer no more."""
        with self._lock:
            self._end()

    def _start(self) -> None:
        # Spawned: a fork would hold this process's locks and connections.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name="samplers", daemon=True)
        self._process.start()
        # Held by the child alone, so that its end is seen here.
        theirs.close()

    def _end(self) -> None:
        if self._connection is None:
            return
        # It ends by itself once nobody can ask it any more.
        self._connection.close()
        self._connection = None
        self._process.join(_STOP_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process = None


class RemoteStudy:
    """A `Study` whose sampler computes in the process."""

    def __init__(self, process: SamplerProcess, number: int, asked: int) -> None:
        self._process = process
        self._number = number
        self.asked = asked

    def ask(self, chosen: Mapping[str, Scalar] | None = None) -> Suggestion:
        suggestion: Suggestion = self._process.call(self._number, "ask", chosen)
        self.asked = suggestion.ask + 1
        return suggestion

    def tell(self, ask: int, told: Told) -> None:
        self._process.call(self._number, "tell", ask, told)

    def take_changed_attributes(self) -> Attributes:
        return self._process.call(self._number, "take_changed_attributes")


def _serve(connection: Connection) -> None:
    """Answer one request after the other until nobody can ask any more."""
    # Ctrl-C reaches every process of a terminal: this one ends when the service has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from service.optuna_study import OptunaStudy

    studies: dict[int, Study] = {}
    while True:
        try:
            request: _Request = connection.recv()
        except EOFError:
            return
        for number in request.forgotten:
            studies.pop(number, None)
        try:
            if request.method is None:
                made = studies[request.study] = OptunaStudy(**request.keywords)
                answer = (None, made.asked)
            else:
                answer = (None, getattr(studies[request.study], request.method)(*request.arguments))
        except Exception as error:  # noqa: BLE001 - raised where the study is asked
            answer = (f"{type(error).__name__}: {error}\n{traceback.format_exc()}", None)
        try:
            connection.send(answer)
        except OSError:
            return
