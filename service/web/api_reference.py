"""The API's description in the shape in which the page shows it: operations by tag, schemas by name. Works offline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NotRequired, TypedDict

METHODS = ("get", "post", "put", "patch", "delete")


JsonSchema = TypedDict(
    "JsonSchema",
    {
        "$ref": str,
        "anyOf": list["JsonSchema"],
        "oneOf": list["JsonSchema"],
        "const": str,
        "enum": list[str],
        "type": str,
        "format": str,
        "items": "JsonSchema",
        "properties": dict[str, "JsonSchema"],
        "required": list[str],
        "additionalProperties": "JsonSchema | bool",
        "description": str,
    },
    total=False,
)


class MediaType(TypedDict, total=False):
    schema: JsonSchema


class Body(TypedDict, total=False):
    """Of a request or an answer."""

    description: str
    content: dict[str, MediaType]


Parameter = TypedDict(
    "Parameter",
    {
        "name": str,
        "in": str,
        "required": NotRequired[bool],
        "description": NotRequired[str],
        "schema": NotRequired[JsonSchema],
    },
)


class DescribedOperation(TypedDict, total=False):
    operationId: str
    tags: list[str]
    summary: str
    description: str
    parameters: list[Parameter]
    requestBody: Body
    responses: dict[str, Body]


class Info(TypedDict):
    title: str
    version: str


class Components(TypedDict, total=False):
    schemas: dict[str, JsonSchema]


class OpenApi(TypedDict):
    """An OpenAPI document, as far as the page shows it."""

    info: Info
    paths: NotRequired[dict[str, dict[str, DescribedOperation]]]
    components: NotRequired[Components]


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter or a property."""

    name: str
    type: str
    required: bool
    description: str
    place: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    path: str
    name: str
    description: str
    parameters: list[Field]
    body: list[tuple[str, str]]
    """Media type and schema."""
    answers: list[tuple[str, str, str]]
    """Status, description and schema."""


@dataclass(frozen=True, slots=True)
class SchemaFacts:
    name: str
    description: str
    fields: list[Field]


@dataclass(frozen=True, slots=True)
class Api:
    title: str
    version: str
    tags: dict[str, list[Operation]]
    schemas: list[SchemaFacts]


def describe(document: OpenApi) -> Api:
    """Read an OpenAPI document."""
    tags: dict[str, list[Operation]] = {}
    for path, operations in document.get("paths", {}).items():
        for method in METHODS:
            if method in operations:
                operation = operations[method]
                tag = (operation.get("tags") or ["other"])[0]
                tags.setdefault(tag, []).append(_operation(method, path, operation))
    schemas = document.get("components", {}).get("schemas", {})
    return Api(
        document["info"]["title"],
        document["info"]["version"],
        dict(sorted(tags.items())),
        [_schema(name, schema) for name, schema in sorted(schemas.items())],
    )


def _operation(method: str, path: str, operation: DescribedOperation) -> Operation:
    return Operation(
        method=method.upper(),
        path=path,
        name=operation.get("operationId", f"{method} {path}"),
        description=operation.get("description") or operation.get("summary", ""),
        parameters=[
            Field(
                each["name"],
                type_words(each.get("schema", {})),
                bool(each.get("required")),
                each.get("description", "") or each.get("schema", {}).get("description", ""),
                each["in"],
            )
            for each in operation.get("parameters", [])
        ],
        body=[
            (media, type_words(content.get("schema", {})))
            for media, content in operation.get("requestBody", {}).get("content", {}).items()
        ],
        answers=[
            (status, answer.get("description", ""), _answer_words(answer))
            for status, answer in sorted(operation.get("responses", {}).items())
        ],
    )


def _answer_words(answer: Body) -> str:
    words = [type_words(content.get("schema", {})) for content in answer.get("content", {}).values()]
    return ", ".join(dict.fromkeys(each for each in words if each != "any"))


def _schema(name: str, schema: JsonSchema) -> SchemaFacts:
    required = set(schema.get("required", []))
    return SchemaFacts(
        name,
        schema.get("description", ""),
        [
            Field(field, type_words(facts), field in required, facts.get("description", ""))
            for field, facts in schema.get("properties", {}).items()
        ],
    )


def type_words(schema: JsonSchema) -> str:
    """A JSON schema's type in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for several in (schema.get("anyOf"), schema.get("oneOf")):
        if several is not None:
            return " or ".join(dict.fromkeys(type_words(each) for each in several))
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return " | ".join(str(each) for each in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {type_words(schema.get('items', {}))}"
    if kind == "object":
        values = schema.get("additionalProperties")
        if isinstance(values, dict) and values:
            return f"map of {type_words(values)}"
        names = ", ".join(schema.get("properties", {}))
        return f"object ({names})" if names else "object"
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)
