"""Errors of the client. Each prints as a sentence: what was wrong and, if known, what to try.

LayersweepError
├── InvalidUsageError          the call itself cannot be carried out: no such file, a server that is no URL, ...
├── MissingDependencyError     an optional package is not installed (also an ImportError)
├── UnreachableError           no answer from the service (also a ConnectionError)
├── WaitTimeoutError           a wait ended before the sweep did (also a TimeoutError)
└── ResponseError              the service answered with a problem document (RFC 9457)
    ├── NotAuthorizedError     401, 403
    ├── NotFoundError          404
    │   └── NoFeasibleTrialError   of a sweep that has no trial which is complete and keeps its constraints
    ├── ConflictError          409
    ├── InvalidDocumentError   422 with a list of problems, each with its place
    ├── RequestRefusedError    any other 4xx
    └── ServiceFailureError    5xx, or an answer that is not Layersweep's
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast


class LayersweepError(Exception):
    """Base class of all errors that this package raises."""


class InvalidUsageError(LayersweepError):
    """The call is invalid; nothing was sent."""


class MissingDependencyError(LayersweepError, ImportError):
    """This needs an optional package that is not installed."""


class UnreachableError(LayersweepError, ConnectionError):
    """The service did not answer, even after retries."""


class WaitTimeoutError(LayersweepError, TimeoutError):
    """The wait timed out; the sweep continues."""


@dataclass(frozen=True, slots=True)
class ProblemItem:
    """One problem in a request: where (a JSON pointer; "" is the whole body), what, and the remedy."""

    pointer: str
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        place = self.pointer or "the whole document"
        return f"{place}: {self.detail}" + (f" (try: {self.remedy})" if self.remedy else "")


class ResponseError(LayersweepError):
    """The service answered with an error. Holds its problem document unchanged.

    `status` is the HTTP status, `type` the last part of the problem's type ("not-found"), `title` and `detail` its
    sentences, `errors` the single problems with their places, `document` the whole answer.
    """

    def __init__(
        self, status: int, document: Mapping[str, object], *, retry_after_seconds: float | None = None
    ) -> None:
        self.status = status
        self.document = dict(document)
        self.type = str(document.get("type", "")).rpartition(":")[2] or "unknown"
        self.title = str(document.get("title", ""))
        self.detail = str(document.get("detail", ""))
        self.errors = tuple(_items(document.get("errors")))
        self.retry_after_seconds = retry_after_seconds
        super().__init__(self.detail or self.title)

    @property
    def unsaid(self) -> tuple[ProblemItem, ...]:
        """The problems that the detail does not say in full, with what to try."""
        said = self.detail
        return tuple(item for item in self.errors if not (item.detail in said and item.remedy in said))

    def __str__(self) -> str:
        sentence = self.detail or self.title or "no reason was given"
        lines = [f"{sentence} (HTTP {self.status}, {self.type})"]
        lines += [f"  - {item}" for item in self.unsaid]
        return "\n".join(lines)

    @staticmethod
    def of(status: int, document: Mapping[str, object], *, retry_after_seconds: float | None = None) -> ResponseError:
        """The error class that fits `status`, made from the problem document."""
        kind = _BY_STATUS.get(status, RequestRefusedError if 400 <= status < 500 else ServiceFailureError)
        kind = _BY_TYPE.get((status, str(document.get("type", "")).rpartition(":")[2]), kind)
        return kind(status, document, retry_after_seconds=retry_after_seconds)


class NotAuthorizedError(ResponseError):
    """The token is missing, wrong, or does not allow this. Set LAYERSWEEP_TOKEN or pass `token=`."""


class NotFoundError(ResponseError):
    """The service has nothing with that name or id."""


class NoFeasibleTrialError(NotFoundError):
    """No trial of the sweep is complete and keeps its constraints; the detail says by how little the nearest do not."""


class ConflictError(ResponseError):
    """The state of the object does not allow this: a sweep that has ended cannot be paused."""


class InvalidDocumentError(ResponseError):
    """A document was refused; `errors` has a pointer and a remedy for every problem."""


class RequestRefusedError(ResponseError):
    """The request was refused for another reason."""


class ServiceFailureError(ResponseError):
    """The service failed, or the answer is not from a Layersweep service."""


_BY_STATUS: dict[int, type[ResponseError]] = {
    401: NotAuthorizedError,
    403: NotAuthorizedError,
    404: NotFoundError,
    409: ConflictError,
}

_BY_TYPE: dict[tuple[int, str], type[ResponseError]] = {
    (404, "no-feasible-trial"): NoFeasibleTrialError,
    (422, "invalid-document"): InvalidDocumentError,
}


def _items(errors: Any) -> Sequence[ProblemItem]:
    if not isinstance(errors, list):
        return ()
    return [
        ProblemItem(str(item.get("pointer", "")), str(item.get("detail", "")), str(item.get("remedy", "")))
        for item in cast("list[Any]", errors)
        if isinstance(item, dict)
    ]
