"""Every number and every flag of every body that callers send is of its own type, and its bounds are said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """No body gets as far as a database."""
    return sqlite_url


@dataclass(frozen=True)
class Field:
    """One place in one operation's body."""

    method: str
    path: str
    pointer: tuple[str | int, ...]
    schema: dict[str, Any]

    def told(self, client: TestClient, value: object) -> list[str]:
        """What the service has against `value` in this place."""
        body: object = value
        for key in reversed(self.pointer):
            body = [body] if isinstance(key, int) else {key: body}
        answer = client.request(self.method, self.path, json=body)
        pointer = "".join(f"/{key}" for key in self.pointer)
        return [error["detail"] for error in answer.json().get("errors", []) if error["pointer"] == pointer]


def _fields(client: TestClient, *kinds: str) -> list[Field]:
    document = client.get("/openapi.json").json()
    found: list[Field] = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is None:
                continue
            for pointer, schema in _leaves(content["schema"], document, ()):
                if schema.get("type") in kinds:
                    named = path.replace("{attempt}", "1").replace("{", "").replace("}", "")
                    found.append(Field(method, named, pointer, schema))
    return found


def _leaves(schema: Any, document: Any, pointer: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for name, part in schema.get("properties", {}).items():
        yield from _leaves(part, document, (*pointer, name))
    for part in schema.get("anyOf", []):
        yield from _leaves(part, document, pointer)
    if schema.get("type") == "array":
        yield from _leaves(schema["items"], document, (*pointer, 0))
    elif isinstance(schema.get("additionalProperties"), dict):
        yield from _leaves(schema["additionalProperties"], document, (*pointer, "latency_ms_p50"))
    yield pointer, schema


def test_a_flag_and_a_text_are_no_numbers(client: TestClient) -> None:
    fields = _fields(client, "integer", "number")
    assert {
        ("trials",),
        ("wall_seconds",),
        ("expires_in_days",),
        ("device", "memory_bytes"),
        ("losses", 0, "step"),
    } <= {field.pointer for field in fields}
    taken = [
        (field.path, field.pointer, value) for field in fields for value in (True, "5") if not field.told(client, value)
    ]
    assert taken == []


def test_a_number_and_a_text_are_no_flags(client: TestClient) -> None:
    fields = _fields(client, "boolean")
    assert {("enabled",), ("charge",)} <= {field.pointer for field in fields}
    taken = [
        (field.path, field.pointer, value) for field in fields for value in (1, "true") if not field.told(client, value)
    ]
    assert taken == []


def test_an_integer_may_be_written_as_a_number_without_a_fraction(client: TestClient) -> None:
    for field in _fields(client, "integer"):
        least = field.schema["minimum"]
        assert field.told(client, float(least)) == [], field
        assert field.told(client, least + 0.5) != [], field


def test_a_number_beyond_its_bound_is_told_the_bound(client: TestClient) -> None:
    bounded = [field for field in _fields(client, "integer", "number") if "maximum" in field.schema]
    assert {field.pointer for field in _fields(client, "integer")} <= {field.pointer for field in bounded}
    assert ("wall_seconds",) in {field.pointer for field in bounded}
    for field in bounded:
        (told,) = field.told(client, 1e308)
        said, _, most = told.rpartition(" ")
        sent = "an integer of 1024 bits" if field.schema["type"] == "integer" else "1e+308"
        assert (said, float(most)) == (f"{sent} is not at most", field.schema["maximum"]), field


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"scopes": ["all"]}, "/scopes/0: 'all' is not one of 'read', 'submit', 'work' or 'admin'"),
        ({"scopes": "read"}, "/scopes: 'read' is not a list"),
        ({"name": None}, "/name: null is not a text"),
        ({"name": ["ci"]}, "/name: a list is not a text"),
        ({"name": ""}, "/name: it is too short"),
        ({"expires_in_days": "soon"}, "/expires_in_days: 'soon' is not a number"),
        ({"expires_in_days": True}, "/expires_in_days: true is not a number"),
    ],
)
def test_what_is_refused_is_said_in_words_of_the_api(client: TestClient, body: dict[str, Any], said: str) -> None:
    answer = client.post("/v1/tokens", json={"name": "ci", "scopes": ["read"]} | body)
    assert answer.status_code == 422
    assert answer.json()["detail"] == said
