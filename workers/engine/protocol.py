"""The child's side of the protocol between a worker and its child processes: JSON lines in, JSON lines out.

A request is one JSON object on a line of stdin: `{"id": ..., "verb": "...", ...}`. An answer is one line on a
descriptor of its own, because native libraries print to stdout and stderr as they like:

    {"id": ..., "ok": true, "result": {...}}
    {"id": ..., "ok": false, "error": {"kind": "...", "message": "..."}}
    {"id": ..., "progress": {...}}                  any number of these before the answer

Arrays go by file (`.npz`), never through a line. Requests are worked one after the other, in order. A request that
fails is answered and the process stays; it ends with exit 0 when stdin ends and everything asked for has been answered,
or at once when nobody can read its answers any more (the parent was killed).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, TypeVar

from .lifetime import end_with_parent

JsonObject = dict[str, Any]
"""A JSON object whose members nobody fixed: a message before its verb is known. Client and service have the same in
`layersweep.json_values`; the engine child imports nothing but itself."""

Request = JsonObject
Result = Mapping[str, object]
"""What a verb answers: of the type that its `Verb` names, on the side of whoever asks."""
Progress = Callable[[JsonObject], None]
Handler = Callable[[Request, Progress], Result]

Answer = TypeVar("Answer")


class Verb(str, Generic[Answer]):
    """The name of a verb, with the type of its answer."""

    __slots__ = ()


ErrorKind = Literal["build", "out_of_memory", "unsupported", "invalid", "internal"]
"""`build`: the model cannot become an engine; `out_of_memory`: the device or the machine has too little;
`unsupported`: this runtime, version or device cannot do it; `invalid`: the request or a file it names is wrong;
`internal`: everything else, a defect of the child or of a library."""

MAX_REQUEST_BYTES = 64 * 1024 * 1024
"""A longer line is refused: arrays belong in files."""


class RequestError(Exception):
    """A request that is answered with an error. The message says what was wrong and what to try."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.message = message


def invalid(message: str) -> RequestError:
    """The request, or a file that it names, is wrong."""
    return RequestError("invalid", message)


def serve(
    handlers: Mapping[str, Handler],
    answers_fd: int,
    *,
    immediate: Mapping[str, Callable[[Request], Result]] | None = None,
) -> None:
    """Answer requests from stdin until it ends or the parent does; call from the main thread.

    `handlers`: verb -> function of (request, progress) that returns the result or raises: RequestError is answered as
    it is, MemoryError as `out_of_memory`, anything else as `internal` with its traceback on stderr.
    `immediate`: verbs answered at once, by the reading thread, even while a handler runs (a `stop`, for example); these
    functions must be quick and thread-safe.
    Results and progress must be JSON values with finite numbers.
    Interrupts from the keyboard are left to the parent.
    """
    end_with_parent()
    requests_fd, answers_fd = _private_descriptors(answers_fd)
    answers = _Answers(answers_fd)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    pending: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
    reader = threading.Thread(
        target=_read, args=(requests_fd, answers, handlers, immediate or {}, pending), name="requests", daemon=True
    )
    reader.start()
    while (request := pending.get()) is not None:
        identity = request.get("id")
        handler = handlers[request["verb"]]
        answers.answer(identity, lambda request=request, handler=handler: handler(request, answers.progress(request)))


class RequestProgress:
    """Tells a request's progress. Another process can by `descriptor`, in lines of this form, while this one is
    stopped."""

    def __init__(self, identity: Any, descriptor: int, write: Callable[[Mapping[str, object]], None]) -> None:
        self.identity = identity
        self.descriptor = descriptor
        self._write = write

    def __call__(self, values: JsonObject) -> None:
        self._write(progress_message(self.identity, values))


def progress_message(identity: Any, values: JsonObject) -> JsonObject:
    """What is written of the progress of a request."""
    return {"id": identity, "progress": values}


def as_line(message: Mapping[str, object]) -> bytes:
    """As it is written. Raises ValueError for numbers that are not finite."""
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"


class _Answers:
    """Writes answers, whole lines at a time, from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def answer(self, identity: Any, work: Callable[[], Result]) -> None:
        """Do the work and write its result or its error."""
        try:
            self._write({"id": identity, "ok": True, "result": work()})
        except RequestError as failure:
            self.refuse(identity, failure)
        except MemoryError as failure:
            self.refuse(identity, RequestError("out_of_memory", str(failure) or "the machine is out of memory"))
        except Exception as failure:  # noqa: BLE001 - one failed request must not end the process
            traceback.print_exc()
            self.refuse(identity, RequestError("internal", f"{type(failure).__name__}: {failure}"))

    def refuse(self, identity: Any, failure: RequestError) -> None:
        self._write({"id": identity, "ok": False, "error": {"kind": failure.kind, "message": failure.message}})

    def progress(self, request: Request) -> RequestProgress:
        return RequestProgress(request.get("id"), self._descriptor, self._write)

    def abandoned(self) -> bool:
        """Wait until nobody can read the answers any more; False if this cannot be noticed."""
        poll = select.poll()
        poll.register(self._descriptor, 0)
        return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll())

    def _write(self, message: Mapping[str, object]) -> None:
        line = memoryview(as_line(message))
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except BrokenPipeError:
                os._exit(0)  # The parent is gone: nothing that is still running here is wanted.


def _read(
    descriptor: int,
    answers: _Answers,
    handlers: Mapping[str, Handler],
    immediate: Mapping[str, Callable[[Request], Result]],
    pending: queue.SimpleQueue[Request | None],
) -> None:
    """Take requests from the descriptor: pass them on, answer immediate ones, refuse what is not a request."""
    with os.fdopen(descriptor, "rb") as stream:
        while line := stream.readline(MAX_REQUEST_BYTES + 1):
            if len(line) > MAX_REQUEST_BYTES and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = stream.readline(MAX_REQUEST_BYTES)
                answers.refuse(None, invalid(f"a request is at most {MAX_REQUEST_BYTES} bytes: pass arrays by file"))
                continue
            if not line.strip():
                continue
            try:
                request = _parse(line, {*handlers, *immediate})
            except RequestError as failure:
                answers.refuse(_identity(line), failure)
                continue
            if request["verb"] in immediate:
                work = immediate[request["verb"]]
                answers.answer(request.get("id"), lambda request=request, work=work: work(request))
            else:
                pending.put(request)
    pending.put(None)
    if answers.abandoned():
        os._exit(0)


def _parse(line: bytes, verbs: set[str]) -> Request:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise invalid(f"a request is one JSON object on a line: {problem}") from None
    if not isinstance(request, dict):
        raise invalid(f"a request is a JSON object, not {type(request).__name__}")
    verb = request.get("verb")
    if not isinstance(verb, str) or verb not in verbs:
        raise invalid(f"unknown verb {verb!r}; this process knows: {', '.join(sorted(verbs))}")
    return request


def _identity(line: bytes) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        request = json.loads(line)
        if isinstance(request, dict):
            return request.get("id")
    return None


def _private_descriptors(answers_fd: int) -> tuple[int, int]:
    """Copies of stdin and of the answers' descriptor that neither native code nor a grandchild can touch."""
    requests_copy = os.dup(0)
    answers_copy = os.dup(answers_fd)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if answers_fd <= 2:
        os.dup2(2, answers_fd)
    else:
        os.close(answers_fd)
    sys.stdout.flush()
    return requests_copy, answers_copy
