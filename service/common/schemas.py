"""What all schemas of HTTP share. Units are in the names; times are RFC 3339 in UTC.

Workers, the client and the page are written against this file and its neighbours `*_schemas.py`; `openapi.json` is
made from them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from layersweep.json_values import JsonObject
from service.common.storable import check_storable

Scalar = bool | int | float | str


class _AsStored:
    """To OpenAPI, validation and serialization a field is an object with any members, whatever its type says."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())


AS_STORED = _AsStored()
"""Annotates the type of what crosses HTTP as a row has it: an older row, or a newer worker, may say more or less."""

Responses: TypeAlias = dict[int | str, JsonObject]
"""What a route may answer, by status, as OpenAPI describes it."""

Timestamp = Annotated[
    float,
    PlainSerializer(
        lambda seconds: datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        return_type=str,
    ),
]
"""Seconds since the epoch inside, RFC 3339 outside."""

Item = TypeVar("Item")


class Schema(BaseModel):
    """Answers: made by the service, from attributes or keywords."""

    model_config = ConfigDict(from_attributes=True)


def whole(value: Any) -> Any:
    """An integer for a float that is one; everything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(whole)]
"""An integer of a `Request` as JSON Schema means it: 1.0 is one. Its field says the bounds."""

MAX_COUNT = 2**53 - 1
"""The largest integer that every reader of JSON keeps as it is."""

Count = Annotated[int, Field(ge=0, le=MAX_COUNT), BeforeValidator(whole)]
"""How many of something, or which one."""


class Request(BaseModel):
    """Bodies that callers send: unknown fields, non-finite numbers and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _can_be_stored(cls, value: Any) -> Any:
        check_storable(value)
        return value


class Page(Schema, Generic[Item]):
    """One page of a list. Pass `next_page_token` as `page_token` for the next; null at the end."""

    items: list[Item]
    next_page_token: str | None = None


class ProblemItem(Schema):
    pointer: str
    detail: str
    remedy: str = ""


class ProblemDocument(Schema):
    """application/problem+json (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str = ""
    errors: list[ProblemItem] = []
