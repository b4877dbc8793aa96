"""The API's description in the shape in which the page shows it: operations by tag, schemas by name. Works offline."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

METHODS = ("get", "post", "put", "patch", "delete")
JSON = "application/json"
FORM = "multipart/form-data"
STREAM = "text/event-stream"


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
    example: object


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
    security: list[dict[str, list[str]]]


class Tag(TypedDict):
    name: str
    description: str


class Info(TypedDict):
    title: str
    version: str


class Components(TypedDict, total=False):
    schemas: dict[str, JsonSchema]


class OpenApi(TypedDict):
    """An OpenAPI document, as far as the page shows it."""

    info: Info
    tags: NotRequired[list[Tag]]
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
class Example:
    """What a body may hold, as text."""

    media: str
    text: str


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    path: str
    name: str
    summary: str
    description: str
    parameters: list[Field]
    body: list[tuple[str, str]]
    """Media type and schema."""
    answers: list[tuple[str, str, str]]
    """Status, description and schema."""
    example: Example | None
    """Of a body that is text."""
    curl: str
    can_try: bool
    """Whether a browser can send it from a form, and show the answer."""


@dataclass(frozen=True, slots=True)
class Group:
    """Operations of one tag."""

    name: str
    description: str
    operations: list[Operation]


@dataclass(frozen=True, slots=True)
class SchemaFacts:
    name: str
    description: str
    fields: list[Field]


@dataclass(frozen=True, slots=True)
class Api:
    title: str
    version: str
    groups: list[Group]
    """The most used first."""
    schemas: list[SchemaFacts]


def describe(document: OpenApi, address: str, *, needs_token: bool) -> Api:
    """Read an OpenAPI document, for a service at an address that a shell can read."""
    groups = {tag["name"]: Group(tag["name"], tag["description"], []) for tag in document.get("tags", [])}
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            if method in METHODS:
                tag = (operation.get("tags") or ["other"])[0]
                token = needs_token and bool(operation.get("security"))
                described = _operation(method, path, operation, _Caller(address, token))
                groups.setdefault(tag, Group(tag, "", [])).operations.append(described)
    schemas = document.get("components", {}).get("schemas", {})
    return Api(
        document["info"]["title"],
        document["info"]["version"],
        [group for group in groups.values() if group.operations],
        [_schema(name, schema) for name, schema in sorted(schemas.items())],
    )


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who calls from a terminal."""

    address: str
    has_token: bool


def _operation(method: str, path: str, operation: DescribedOperation, caller: _Caller) -> Operation:
    content = operation.get("requestBody", {}).get("content", {})
    answered = {media for answer in operation.get("responses", {}).values() for media in answer.get("content", {})}
    parameters = [
        Field(
            each["name"],
            type_words(each.get("schema", {})),
            bool(each.get("required")),
            each.get("description", "") or each.get("schema", {}).get("description", ""),
            each["in"],
        )
        for each in operation.get("parameters", [])
    ]
    example = _example(content)
    return Operation(
        method=method.upper(),
        path=path,
        name=operation.get("operationId", f"{method} {path}"),
        summary=operation.get("summary", ""),
        description=operation.get("description", ""),
        parameters=parameters,
        body=[(media, type_words(facts.get("schema", {}))) for media, facts in content.items()],
        answers=[
            (status, answer.get("description", ""), _answer_words(answer))
            for status, answer in sorted(operation.get("responses", {}).items())
        ],
        example=example,
        curl=_curl(method.upper(), path, parameters, content, example, caller),
        can_try=STREAM not in answered and (not content or example is not None),
    )


def _example(content: Mapping[str, MediaType]) -> Example | None:
    """The example of a body that is text: as YAML if that is read, else as JSON."""
    for media, facts in sorted(content.items(), key=lambda each: each[0] == JSON):
        example = facts.get("example")
        if example is not None and media != FORM:
            return Example(media, example.rstrip() if isinstance(example, str) else json.dumps(example, indent=2))
    return None


def _curl(
    method: str,
    path: str,
    parameters: Sequence[Field],
    content: Mapping[str, MediaType],
    example: Example | None,
    caller: _Caller,
) -> str:
    """The request as a command. What the reader has to put in is in capitals."""
    address = path
    for parameter in parameters:
        address = address.replace(f"{{{parameter.name}}}", parameter.name.upper())
    needed = [each for each in parameters if each.required]
    query = "&".join(f"{each.name}={each.name.upper()}" for each in needed if each.place == "query")
    if query:
        address = shlex.quote(f"{address}?{query}")
    parts = [f"curl {'' if method == 'GET' else f'-X {method} '}{caller.address}{address}"]
    if caller.has_token:
        parts.append('-H "Authorization: Bearer $LAYERSWEEP_TOKEN"')
    parts += [f"-H '{each.name}: {each.name.upper()}'" for each in needed if each.place == "header"]
    return " \\\n  ".join([*parts, *_sent(content, example)])


def _sent(content: Mapping[str, MediaType], example: Example | None) -> list[str]:
    """The options of curl for a body."""
    if example is not None:
        text = example.text if example.media != JSON else json.dumps(json.loads(example.text))
        return [f"-H 'Content-Type: {example.media}'", f"--data-binary {shlex.quote(text)}"]
    form = content.get(FORM, {}).get("example")
    if isinstance(form, dict):
        return [f"-F {shlex.quote(f'{name}={value}')}" for name, value in form.items()]
    return ["--data-binary @FILE"] if content else []


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
