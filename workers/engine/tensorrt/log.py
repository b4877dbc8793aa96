"""What TensorRT logs. There is one logger a library and process: it keeps the first that it is given."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..protocol import ErrorKind, RequestError

_LOGS: dict[str, Any] = {}

_MEMORY = ("outofmemory", "out of memory", "out_of_memory", "could not be allocated", "memory allocation failed")


@dataclass
class Complaints:
    """Errors that were logged, in order."""

    errors: list[str] = field(default_factory=list)

    def failure(self, kind: ErrorKind, what: str) -> RequestError:
        """The failure that these errors explain; of the kind "out_of_memory" where they say so."""
        said = "; ".join(self.errors) or "it does not say why"
        return RequestError("out_of_memory" if memory_is_short(said) else kind, f"{what}: {said}")


def memory_is_short(text: str) -> bool:
    """Whether a message of the library says that memory was short."""
    lowered = text.lower()
    return any(hint in lowered for hint in _MEMORY)


def log_of(trt: Any) -> Any:
    """The process's logger for this library."""
    if trt.__name__ not in _LOGS:
        _LOGS[trt.__name__] = _make_log(trt)
    return _LOGS[trt.__name__]


@contextmanager
def listening(log: Any) -> Generator[Complaints]:
    """Errors that are logged meanwhile; an inner listener hears them too."""
    complaints = Complaints()
    log.listeners.append(complaints)
    try:
        yield complaints
    finally:
        log.listeners.remove(complaints)


def _make_log(trt: Any) -> Any:
    errors = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.listeners: list[Complaints] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in errors:
                for listener in self.listeners:
                    listener.errors.append(message)
            if severity in errors or severity == trt.ILogger.WARNING:
                sys.stderr.write(f"{trt.__name__}: {severity.name}: {message}\n")

    return Log()
