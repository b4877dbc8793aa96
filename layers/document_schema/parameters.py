"""One parameter as a JSON Schema: a value, what to search, or what it is derived from."""

from __future__ import annotations

import math

from layers.declarations.per_layer import BLOCK_PATHS
from layers.expressions.names import DECLARED
from layers.expressions.parser import MAX_CHARACTERS
from layers.parameter import REQUIRED, Parameter
from layers.space.search_parameters import DEFAULT_SPACE, MAX_VALUES

Schema = dict[str, object]
"""A JSON Schema, or a part of one."""

LARGEST_INTEGER = 2**63 - 1

NOT_SEARCHED = ("inference.mode",)
"""Parameters that are the same for all trials of a sweep."""

EXPRESSION: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS}

ONE_FORM: Schema = {
    "description": "One of: value, values, min and max, derived.",
    "properties": {
        "value": {"description": "One value, where a condition or per_layer is given beside it."},
        "values": {"description": "The values to search among. Numbers keep their order."},
        "min": {"description": "The least value to search, itself included."},
        "max": {"description": "The greatest value to search, itself included."},
        "step": {"description": "Values to search are min, min + step, min + 2 step, and so on."},
        "log": {"description": "Search on a logarithmic scale: as much between 1 and 10 as between 10 and 100."},
        "derived": {"description": "An expression of other parameters that gives the value: it is not searched."},
        "when": {"description": "A condition: where it is false, the point has no such parameter."},
        "per_layer": {"description": "Each layer has a value of its own."},
    },
    "oneOf": [{"required": [field]} for field in ("value", "values", "derived", "min")],
    "dependentRequired": {"min": ["max"], "max": ["min"], "step": ["min"], "log": ["min"]},
    "if": {"required": ["log"], "properties": {"log": {"const": True}}},
    "then": {"properties": {"min": {"exclusiveMinimum": 0}, "step": False}},
}
"""What the fields of an open parameter mean, and have to keep. A logarithmic range begins above 0 and has no steps."""

VARIABLE: Schema = {
    "description": "A variable of this document: its values, a range, or one value. Expressions name it.",
    "anyOf": [
        {"type": ["boolean", "number", "string"]},
        {
            "type": "object",
            "allOf": [{"$ref": "#/$defs/one_form"}],
            "properties": {
                "value": {"type": ["boolean", "number", "string"]},
                "values": {
                    "type": "array",
                    "items": {"type": ["boolean", "number", "string"]},
                    "minItems": 1,
                    "maxItems": MAX_VALUES,
                    "uniqueItems": True,
                },
                "min": {"type": "number"},
                "max": {"type": "number"},
                "step": {"type": "number", "exclusiveMinimum": 0},
                "log": {"type": "boolean"},
                "when": {"$ref": "#/$defs/expression"},
                "per_layer": {"type": "boolean"},
            },
            "additionalProperties": False,
        },
    ],
}


def parameter_schemas() -> dict[str, Schema]:
    """The schema of every declared parameter, by its full name."""
    return {path: _parameter(path, parameter) for path, parameter in DECLARED.items()}


def reference(path: str) -> Schema:
    """A reference to the schema of a parameter."""
    return {"$ref": f"#/$defs/{path}"}


def value_of(parameter: Parameter) -> Schema:
    """The plain values that a parameter can have."""
    if parameter.type == "string":
        return {"enum": list(parameter.choices)} if parameter.choices else {"type": "string", "minLength": 1}
    if parameter.type == "boolean":
        return {"type": "boolean"}
    bounds: Schema = {}
    if math.isfinite(parameter.minimum):
        bounds["minimum"] = parameter.minimum
    if math.isfinite(parameter.maximum):
        bounds["maximum"] = parameter.maximum
    elif parameter.type == "integer":
        bounds["maximum"] = LARGEST_INTEGER
    return {"type": parameter.type, **bounds}


def _parameter(path: str, parameter: Parameter) -> Schema:
    value = value_of(parameter)
    forms = [value, _fields(path, parameter, value)]
    if parameter.search is not None and DEFAULT_SPACE not in parameter.choices:
        forms.insert(1, {"const": DEFAULT_SPACE, "description": "Search the range that the declaration recommends."})
    schema: Schema = {"description": _description(parameter), "anyOf": forms}
    if parameter.default is not None and parameter.default is not REQUIRED:
        schema["default"] = parameter.default
    if parameter.search is not None:
        schema["examples"] = [dict(parameter.search)]
    return schema


def _description(parameter: Parameter) -> str:
    meaning = f"{parameter.meaning[:1].upper()}{parameter.meaning[1:]}."
    return f"{meaning} Source: {parameter.source}." if parameter.source else meaning


def _fields(path: str, parameter: Parameter, value: Schema) -> Schema:
    """The parameter as a mapping: what to search, or how to calculate it, and under which condition."""
    properties: Schema = {"value": value, "when": {"$ref": "#/$defs/expression"}}
    if path not in NOT_SEARCHED:
        properties["values"] = _values(parameter, value)
        properties["derived"] = {"$ref": "#/$defs/expression"}
        if parameter.type in ("integer", "number"):
            step: Schema = {"type": parameter.type, "exclusiveMinimum": 0}
            properties |= {"min": value, "max": value, "step": step, "log": {"type": "boolean"}}
    properties["per_layer"] = {"type": "boolean"} if path in BLOCK_PATHS else {"const": False}
    return {
        "type": "object",
        "allOf": [{"$ref": "#/$defs/one_form"}],
        "properties": properties,
        "additionalProperties": False,
    }


def _values(parameter: Parameter, value: Schema) -> Schema:
    listed: Schema = {"type": "array", "items": value, "minItems": 1, "maxItems": MAX_VALUES, "uniqueItems": True}
    return listed if parameter.search is None else {"anyOf": [listed, {"const": DEFAULT_SPACE}]}
