"""Studies in processes of their own: while a sampler computes, it keeps no request from the interpreter.

The rows are the truth: if a process dies, or is stopped because a call took too long, its studies are built again
from them, in a new one.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import signal
import threading
import traceback
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any, Unpack

from layers.parameter import Scalar
from service.scheduling.studies import Attributes, Study, StudyArguments, Suggestion, TrialResult

_STOP_SECONDS = 5.0
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of `mallopt` in glibc's malloc.h."""
_KEPT_BYTES = 2**25


class SamplerProcessError(RuntimeError):
    """A sampler raised in its process, or that process has ended."""


class SamplerTimeoutError(SamplerProcessError):
    """A sampler took too long over a call: its process was stopped."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What to do with a study, in this order: make it, tell it results, ask it."""

    study: int
    made_of: StudyArguments | None = None
    tells: Sequence[tuple[int, TrialResult]] = ()
    asks: bool = False
    chosen: Mapping[str, Scalar] | None = None
    """Of an ask."""
    forgotten: Sequence[int] = ()
    """Studies that nobody has any more."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of a request."""

    asked: int = 0
    """How often the study has been asked by then."""
    changed: Attributes = field(default_factory=Attributes)
    """Its attributes that are new or different since the request before."""
    suggestion: Suggestion | None = None
    error: str | None = None


class SamplerProcess:
    """Makes studies that live in one child process. The child ends with this one, however that ends."""

    def __init__(self, call_seconds: float) -> None:
        """`call_seconds`: how long a call may take. Making a study of many trials may take longer."""
        self._call_seconds = call_seconds
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._process: Any = None
        self._numbers = itertools.count(1)
        self._living: set[int] = set()
        self._forgotten: list[int] = []

    def reserve(self) -> int:
        """The number of a study that is to be made here; it counts among the studies from now on."""
        number = next(self._numbers)
        self._living.add(number)
        return number

    def study(
        self, number: int | None = None, *, make_seconds: float | None = None, **arguments: Unpack[StudyArguments]
    ) -> RemoteStudy:
        """A study as `OptunaStudy` makes it of these arguments; `number` is one that was reserved."""
        number = self.reserve() if number is None else number
        seconds = self._call_seconds if make_seconds is None else make_seconds
        try:
            with self._lock:
                if self._connection is None:
                    self._start()
            made = self._call(seconds, _Request(number, made_of=arguments))
        except BaseException:
            self._living.discard(number)
            raise
        study = RemoteStudy(self, number, made)
        weakref.finalize(study, self._forget, number)
        return study

    def call(self, request: _Request) -> _Answer:
        """Do it. Raises SamplerProcessError."""
        return self._call(self._call_seconds, request)

    @property
    def studies(self) -> int:
        """How many studies live in it."""
        return len(self._living)

    @property
    def is_busy(self) -> bool:
        """Whether a study computes now: others of this process wait for it."""
        return self._lock.locked()

    def close(self) -> None:
        """End the process, also while it computes; its studies answer no more."""
        process = self._process
        if self.is_busy and process is not None:
            process.kill()
        with self._lock:
            self._end()

    def _forget(self, number: int) -> None:
        self._living.discard(number)
        self._forgotten.append(number)

    def _call(self, seconds: float, request: _Request) -> _Answer:
        with self._lock:
            if self._connection is None:
                raise SamplerProcessError("the sampler's process has ended")
            gone, self._forgotten[:] = tuple(self._forgotten), []
            try:
                self._connection.send(replace(request, forgotten=gone))
                if not self._connection.poll(seconds):
                    self._kill()
                    raise SamplerTimeoutError(f"a sampler took more than {seconds:g} seconds over a call")
                answer: _Answer = self._connection.recv()
            except (EOFError, OSError) as lost:
                self._end()
                raise SamplerProcessError("a process of samplers has ended: its studies are built again") from lost
        if answer.error is not None:
            raise SamplerProcessError(answer.error)
        return answer

    def _start(self) -> None:
        # Spawned: a fork would hold this process's locks and connections.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name="samplers", daemon=True)
        self._process.start()
        # Held by the child alone, so that its end is seen here.
        theirs.close()

    def _kill(self) -> None:
        self._process.kill()
        self._end()

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
    """A `Study` whose sampler computes in the process.

    Results go with the next ask, and changed attributes come with its suggestion: a trial costs one call. So what a
    sampler raises when it is told is raised by the call after it.
    """

    def __init__(self, process: SamplerProcess, number: int, made: _Answer) -> None:
        self._process = process
        self._number = number
        self._tells: list[tuple[int, TrialResult]] = []
        self._changed = made.changed
        self.asked = made.asked

    def ask(self, chosen: Mapping[str, Scalar] | None = None) -> Suggestion:
        suggestion = self._send(asks=True, chosen=chosen).suggestion
        assert suggestion is not None, "an ask is answered or raises"
        return suggestion

    def tell(self, ask: int, result: TrialResult) -> None:
        self._tells.append((ask, result))

    def take_changed_attributes(self) -> Attributes:
        if self._tells:
            self._send()
        changed, self._changed = self._changed, {}
        return changed

    def _send(self, *, asks: bool = False, chosen: Mapping[str, Scalar] | None = None) -> _Answer:
        tells, self._tells = self._tells, []
        answer = self._process.call(_Request(self._number, None, tells, asks, chosen))
        self.asked = answer.asked
        self._changed |= answer.changed
        return answer


def _serve(connection: Connection) -> None:
    """Answer one request after the other until nobody can ask any more."""
    # Ctrl-C reaches every process of a terminal: this one ends when the service has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep_freed_memory()
    studies: dict[int, Study] = {}
    while True:
        try:
            request: _Request = connection.recv()
        except EOFError:
            return
        for number in request.forgotten:
            studies.pop(number, None)
        try:
            answer = _answer(studies, request)
        except Exception as error:  # noqa: BLE001 - raised where the study is asked
            answer = _Answer(error=f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        try:
            connection.send(answer)
        except OSError:
            return


def _keep_freed_memory() -> None:
    """Keep the memory of arrays that models free and soon make again: the system clears each page that it gives."""
    # Other C libraries have no such function.
    with suppress(AttributeError):
        for threshold in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(threshold, _KEPT_BYTES)


def _answer(studies: dict[int, Study], request: _Request) -> _Answer:
    from service.scheduling.optuna_study import OptunaStudy

    if request.made_of is not None:
        studies[request.study] = OptunaStudy(**request.made_of)
    study = studies[request.study]
    for ask, result in request.tells:
        study.tell(ask, result)
    suggestion = study.ask(request.chosen) if request.asks else None
    return _Answer(study.asked, study.take_changed_attributes(), suggestion)
