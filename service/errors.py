"""The tree of errors, each with its HTTP status and problem type; rendered as application/problem+json by one handler.

    ServiceError
    ├── UnauthorizedError          401
    ├── ForbiddenError             403
    ├── NotFoundError              404
    │   └── NoFeasibleTrialError   404  a sweep has no trial that is complete and keeps its constraints
    ├── ConflictError              409
    │   ├── InFlightError          409  the same request is in progress: send it again later
    │   ├── BaselineMismatchError  409  a baseline was measured elsewhere, or by something else
    │   ├── DeviceInUseError       409  a living worker has this GPU
    │   └── LeaseLostError         409  the attempt is stale: throw its result away
    ├── InvalidDocumentError       422  a list of problems, each with a pointer and a remedy
    ├── UnprocessableError         422
    ├── PayloadTooLargeError       413
    ├── UnsupportedMediaTypeError  415
    ├── TooSlowError               408
    ├── URITooLongError            414
    ├── HeadTooLargeError          431
    ├── TooManyRequestsError       429
    ├── CallerGoneError            499  nobody reads the answer: for the log
    └── UnavailableError           503
        └── CannotStoreError       503  a disk is full or read-only: an operator has to see to it

Errors of `layers.space.document` (`DocumentError`) are turned into `InvalidDocumentError` where a document enters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from layersweep.json_values import JsonObject


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and what to try."""

    pointer: str
    """A JSON pointer into what was sent ("" is all of it)."""
    detail: str
    remedy: str = ""


class ServiceError(Exception):
    """An error that a caller can act on."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong inside the service"
    retry_after_seconds: int | None = None
    """After how long the same request may do better; None: never, as it stands."""

    def __init__(self, detail: str, *, problems: Sequence[Problem] = (), **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problems = tuple(problems)
        self.extra = extra

    def body(self, instance: str) -> JsonObject:
        """The problem document (RFC 9457) of this error for the request path `instance`."""
        body: JsonObject = {
            "type": f"urn:layersweep:problem:{self.type}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
        }
        if self.problems:
            body["errors"] = [
                {"pointer": problem.pointer, "detail": problem.detail, "remedy": problem.remedy}
                for problem in self.problems
            ]
        return body | self.extra


class UnauthorizedError(ServiceError):
    status = 401
    type = "unauthorized"
    title = "A valid token is needed"


class ForbiddenError(ServiceError):
    status = 403
    type = "forbidden"
    title = "This is not allowed"


class NotFoundError(ServiceError):
    status = 404
    type = "not-found"
    title = "Not found"


class NoFeasibleTrialError(NotFoundError):
    type = "no-feasible-trial"
    title = "No trial is complete and feasible"


class ConflictError(ServiceError):
    status = 409
    type = "conflict"
    title = "The state of the resource does not allow this"


class InFlightError(ConflictError):
    type = "in-flight"
    title = "The same request is in progress"
    retry_after_seconds = 1


class BaselineMismatchError(ConflictError):
    type = "baseline-mismatch"
    title = "The baseline is not of the same device, runtime, version of results or shape"


class DeviceInUseError(ConflictError):
    type = "device-in-use"
    title = "A living worker has this GPU"

    def __init__(self, detail: str, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class LeaseLostError(ConflictError):
    type = "lease-lost"
    title = "This attempt no longer holds the lease"


class InvalidDocumentError(ServiceError):
    status = 422
    type = "invalid-document"
    title = "The document was not accepted"


class UnprocessableError(ServiceError):
    status = 422
    type = "unprocessable"
    title = "The request cannot be carried out as it stands"

    @classmethod
    def at(cls, pointer: str, detail: str, remedy: str) -> UnprocessableError:
        """Of one thing that is wrong."""
        return cls(f"{detail}: {remedy}", problems=[Problem(pointer, detail, remedy)])


class PayloadTooLargeError(ServiceError):
    status = 413
    type = "payload-too-large"
    title = "The body is too large"


class TooSlowError(ServiceError):
    status = 408
    type = "too-slow"
    title = "The body did not arrive in time"


class URITooLongError(ServiceError):
    status = 414
    type = "uri-too-long"
    title = "The address is too long"


class HeadTooLargeError(ServiceError):
    status = 431
    type = "head-too-large"
    title = "The headers are too many or too long"


class TooManyRequestsError(ServiceError):
    status = 429
    type = "too-many-requests"
    title = "Too many requests"

    def __init__(self, detail: str, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class CallerGoneError(ServiceError):
    status = 499
    type = "caller-gone"
    title = "The caller has closed the connection"


class UnsupportedMediaTypeError(ServiceError):
    status = 415
    type = "unsupported-media-type"
    title = "The body is of a type that is not read here"


class UnavailableError(ServiceError):
    status = 503
    type = "unavailable"
    title = "The service cannot answer now"
    retry_after_seconds = 1


class CannotStoreError(UnavailableError):
    type = "cannot-store"
    title = "The service cannot store anything now"
    retry_after_seconds = 10
