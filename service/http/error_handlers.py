"""Every error leaves the service as application/problem+json (RFC 9457): the handlers."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from itertools import groupby
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from layers.problems import shown
from layers.space.document_fields import TITLE_PATTERN
from layersweep.json_values import JsonObject
from service.common import schemas
from service.common.storable import UnstorableError
from service.database import outages
from service.errors import (
    ForbiddenError,
    NotFoundError,
    PayloadTooLargeError,
    Problem,
    ServiceError,
    UnauthorizedError,
    UnavailableError,
    UnprocessableError,
    UnsupportedMediaTypeError,
)
from service.sweeps.schemas import TAG_PATTERN

MEDIA_TYPE = "application/problem+json"
SHOWN = 200
"""Characters of a path that an error repeats."""

_log = logging.getLogger(__name__)
_BY_STATUS: Mapping[int, type[ServiceError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    413: PayloadTooLargeError,
    415: UnsupportedMediaTypeError,
    422: UnprocessableError,
    503: UnavailableError,
}


def documented(*statuses: int) -> schemas.Responses:
    """`responses=` of a route or router that may answer with these statuses."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
            "model": schemas.ProblemDocument,
        }
        for status in statuses
    }


def keep_media_type(description: JsonObject) -> None:
    """Take plain JSON out of the problems in an OpenAPI description: the framework adds it beside our media type."""
    for operations in description.get("paths", {}).values():
        for operation in operations.values():
            for response in operation.get("responses", {}).values():
                if MEDIA_TYPE in response.get("content", {}):
                    response["content"].pop("application/json", None)


def respond(error: ServiceError, path: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response that `error` is."""
    extra = {} if error.retry_after_seconds is None else {"Retry-After": str(error.retry_after_seconds)}
    return JSONResponse(
        error.body(path), status_code=error.status, media_type=MEDIA_TYPE, headers=extra | dict(headers or {})
    )


def install(app: FastAPI) -> None:
    """Register the handlers on `app`."""

    @app.exception_handler(ServiceError)
    async def service_error(request: Request, error: ServiceError) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        return respond(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        problems = _problems(error.errors(), request.headers.get("content-type", ""))
        detail = "; ".join(": ".join(filter(None, (each.pointer, each.detail))) for each in problems[:3])
        return respond(UnprocessableError(detail, problems=problems), request.url.path)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        headers = dict(error.headers or {})
        path = request.url.path
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers |= _allow(app.openapi()["paths"], path)
            taken = headers.get("Allow", headers.get("allow", "nothing"))
            error = HTTPException(error.status_code, f"{path[:SHOWN]} takes {taken}, not {request.method[:SHOWN]}")
        if error.status_code == HTTPStatus.NOT_FOUND and error.detail == HTTPStatus.NOT_FOUND.phrase:
            nothing = f"there is nothing at {path[:SHOWN]}: the API is at /v1, and a server is named without a path"
            return respond(NotFoundError(nothing), path, headers)
        return respond(_from_http(error), path, headers)

    @app.exception_handler(PoolTimeoutError)
    @app.exception_handler(OperationalError)
    async def database_unavailable(request: Request, error: Exception) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        answer = outages.answer_to(error) or UnavailableError("the database does not answer")
        outages.log(_log, f"{request.method} {request.url.path} was answered 503", error)
        return respond(answer, request.url.path)

    @app.exception_handler(OSError)
    async def storage_unavailable(request: Request, error: OSError) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        answer = outages.answer_to(error)
        if answer is None:
            raise error
        outages.log(_log, f"{request.method} {request.url.path} was answered 503", error)
        return respond(answer, request.url.path)

    @app.exception_handler(DataError)
    async def unstorable(request: Request, error: DataError) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        _log.warning("a value reached the database that it refuses: %s", error.orig)
        return respond(UnprocessableError("a value in the request cannot be stored"), request.url.path)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        # The server logs the exception itself: it is raised again after this answer.
        return respond(ServiceError("the service's log has the details"), request.url.path)


def _allow(paths: Mapping[str, JsonObject], path: str) -> dict[str, str]:
    """The `Allow` header of a path: every method of the description's nearest path, not those of one route alone."""
    matching = [
        template for template in paths if re.fullmatch(re.sub(r"\\{.*?\\}", "[^/]+", re.escape(template)), path)
    ]
    if not matching:
        return {}
    nearest = max(matching, key=lambda template: len(re.sub(r"\{.*?\}", "", template)))
    return {"Allow": ", ".join(sorted(method.upper() for method in paths[nearest]))}


def _from_http(error: HTTPException) -> ServiceError:
    if error.status_code == HTTPStatus.BAD_REQUEST:
        # The framework says it of bodies alone, and of those that are no text differently from those that are no JSON.
        return UnprocessableError.at("", *_unread(error.__cause__))
    known = _BY_STATUS.get(error.status_code)
    if known is not None:
        return known(str(error.detail))

    class Other(ServiceError):
        status = error.status_code
        type = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        title = HTTPStatus(error.status_code).phrase

    return Other(str(error.detail))


def _unread(cause: BaseException | None) -> tuple[str, str]:
    """Why a body cannot be read, and what to send."""
    match cause:
        case RecursionError():
            return "the body is nested too deeply", "send a flatter one"
        case UnicodeError() | LookupError():
            return "the body is not UTF-8", "send JSON in UTF-8"
        case ValueError():
            # Python reads no integer of so many digits.
            return "the body has a number with too many digits", "integers lie between -2 ** 63 and 2 ** 63 - 1"
        case _:
            return "the body does not match its Content-Type", "send application/json"


def _problems(errors: Sequence[Any], content_type: str) -> list[Problem]:
    """Of what a request was refused for, in the order of the fields."""
    problems: list[Problem] = []
    for error in errors:
        place, *path = error["loc"]
        cause = error.get("ctx", {}).get("error")
        if isinstance(cause, UnstorableError):
            path += cause.path
        if place != "body":
            # What follows the name of a parameter that may be of several types names the type, not a place.
            path = [*path[:1], *(part for part in path[1:] if isinstance(part, int))]
        pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
        if error["type"] == "json_invalid":
            reason = error.get("ctx", {}).get("error", "")
            problems.append(Problem("", f"the body is not JSON: {reason} at character {path[0]}", "send valid JSON"))
        elif error["type"] == "missing" and (place, path) == ("body", []):
            problems.append(Problem("", "the request has no body", "send one, as application/json"))
        elif error["type"] == "model_attributes_type" and "json" not in content_type and not path:
            sent = f"its Content-Type is {content_type[:SHOWN]!r}" if content_type else "it has no Content-Type"
            problems.append(Problem("", f"the body was not read as JSON: {sent}", "send application/json"))
        else:
            where = "" if place == "body" else f"{place}: "
            detail = f"{where}{cause if isinstance(cause, ValueError) else _words(error)}"
            problems.append(Problem(pointer, detail, _remedy(error["type"], error.get("ctx", {}))))
    return [_joined(pointer, list(same)) for pointer, same in groupby(problems, lambda each: each.pointer)]


def _joined(pointer: str, problems: Sequence[Problem]) -> Problem:
    """The problems of one place as one: a value that may be of several types was refused by each."""
    return Problem(
        pointer,
        "; ".join(dict.fromkeys(each.detail for each in problems)),
        ", or ".join(dict.fromkeys(each.remedy for each in problems)),
    )


def _form(context: Mapping[str, Any]) -> str:
    return _FORMS.get(context["pattern"], f"a text of the form {context['pattern']}")


def _words(error: Mapping[str, Any]) -> str:
    """What is wrong, if the library's own words say it in its terms."""
    match error["type"]:
        case "missing":
            return "it is missing"
        case "extra_forbidden":
            return "there is no such field"
        case "string_pattern_mismatch":
            return f"{str(error['input'])[:SHOWN]!r} is not {_form(error['ctx'])}"
        case "string_too_short" | "too_short":
            return "it is too short"
        case "string_too_long" | "too_long":
            return "it is too long"
        case kind if (wanted := _remedy(kind, error.get("ctx", {}))) != _ELSE:
            return f"{shown(error['input'])} is not {wanted}"
        case _:
            return error["msg"]


_FORMS: Mapping[str, str] = {
    TAG_PATTERN: "1 to 32 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit",
    TITLE_PATTERN: "a text of one line that is not blank",
}
"""Patterns in words."""
_REMEDIES: Mapping[str, str] = {
    "missing": "add it",
    "extra_forbidden": "leave it out",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
    "literal_error": "one of {expected}",
    "enum": "one of {expected}",
    "finite_number": "a finite number",
}
_KINDS: Mapping[str, str] = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "dict": "a mapping",
    "model_attributes": "a mapping",
}
_ELSE = "what is accepted stands in /openapi.json"


def _remedy(kind: str, context: Mapping[str, Any]) -> str:
    """What to try, as far as the kind of an error tells it."""
    if kind == "string_pattern_mismatch":
        return _form(context)
    if kind in _REMEDIES:
        return _REMEDIES[kind].format_map(context)
    return _KINDS.get(re.sub("_(type|parsing|from_float|parsing_size)$", "", kind), _ELSE)
