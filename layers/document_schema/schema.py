"""The JSON Schema of a sweep document, draft 2020-12. `python -m layers.document_schema.schema` prints it.

It accepts every document that the service accepts, and refuses what needs no arithmetic to see: names, types, ranges,
choices, and what goes together. That a rule keeps no point, or an expression has no value, only `validate_only` finds.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import cast

from layers.document_schema.conditions import conditions
from layers.document_schema.fields import field_schemas
from layers.document_schema.parameters import EXPRESSION, ONE_FORM, VARIABLE, Schema, parameter_schemas
from layers.document_schema.sections import section_schemas
from layers.sections import SECTIONS
from layers.space.document_fields import FIELDS

DIALECT = "https://json-schema.org/draft/2020-12/schema"

REQUIRED_FIELDS = ("name", "task", "model", "objectives")


def document_schema() -> Schema:
    """The schema, with what it refers to below `$defs`."""
    fields = field_schemas() | {name: {"$ref": f"#/$defs/{name}"} for name in ("variables", *SECTIONS)}
    return {
        "$schema": DIALECT,
        "title": "Layersweep sweep document",
        "description": "What to try, and what to look for: a model with open parameters, objectives and a budget.",
        "type": "object",
        "properties": {name: fields[name] for name in FIELDS},
        "required": list(REQUIRED_FIELDS),
        "additionalProperties": False,
        "allOf": conditions(),
        "$defs": {
            "expression": EXPRESSION,
            "one_form": ONE_FORM,
            "variable": VARIABLE,
            **section_schemas(),
            **parameter_schemas(),
        },
    }


@cache
def as_json() -> str:
    """The schema as JSON, as it is served and shipped: a line each field and each parameter, so that a change shows."""
    return _lines(document_schema(), depth=2) + "\n"


def _lines(value: object, depth: int) -> str:
    """JSON with a line each member of the mappings down to a depth."""
    if not depth or not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    members = (f"{json.dumps(name)}: {_lines(member, depth - 1)}" for name, member in cast("Schema", value).items())
    return "{\n" + ",\n".join(members) + "\n}"


if __name__ == "__main__":
    sys.stdout.write(as_json())
