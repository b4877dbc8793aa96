"""The sections `variables`, `model`, `training` and `inference` as JSON Schemas: paths nested or dotted, single layers,
shapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from layers.declarations.inference.mode import PARAMETERS as MODE_PARAMETERS
from layers.declarations.inference.parameters import INFERENCE
from layers.declarations.inference.shape_reader import MAX_NAME as MAX_SHAPE_NAME
from layers.declarations.inference.shapes import MAX_SHAPES, NAME, SHAPE_PARAMETERS, SHAPES
from layers.declarations.model import DECLARATIONS
from layers.declarations.per_layer import BLOCK_PATHS, STACKS
from layers.declarations.training import LENGTHS, TRAINING
from layers.document_schema.parameters import Schema, reference, value_of
from layers.expressions.names import DECLARED, RELATIVE_ATTENTION, VARIABLES
from layers.space.variables import MAX_LENGTH

VARIABLE_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_NUMBER = "(0|[1-9][0-9]{0,3})"
"""Of a layer."""
_SHAPE_NAME = rf"[A-Za-z_][A-Za-z0-9_]{{0,{MAX_SHAPE_NAME - 1}}}"
_RELATIVE: Schema = {
    "type": "boolean",
    "description": "Another spelling of position_embedding_type: relative.",
}
_FORWARD_OR_GENERATE = value_of(MODE_PARAMETERS["mode"])


def section_schemas() -> dict[str, Schema]:
    """What the schema of a document refers to: its sections, one layer, the layers of a stack, a shape."""
    return {
        "variables": {
            "type": "object",
            "description": "Parameters of your own, for the expressions of others.",
            "propertyNames": {"pattern": f"^{VARIABLE_NAME}$", "maxLength": MAX_LENGTH},
            "additionalProperties": {"$ref": "#/$defs/variable"},
        },
        "layer": _layer(),
        "stack": {
            "type": "object",
            "description": "Single layers by their number, counted from 0.",
            "patternProperties": _of_layers(f"^{_NUMBER}"),
            "additionalProperties": False,
        },
        "shape": _shape(),
        "model": _model(),
        "training": _training(),
        "inference": _inference(),
    }


def _model() -> Schema:
    parameters = {path: reference(path) for path in DECLARATIONS}
    return {
        "type": "object",
        "description": "The parameters of the model: a value each, or what to search.",
        "properties": {
            **_nested_or_dotted({**parameters, RELATIVE_ATTENTION: _RELATIVE}),
            **{stack: {"$ref": "#/$defs/stack"} for stack in STACKS},
        },
        "patternProperties": _of_layers(rf"^({'|'.join(STACKS)})\.{_NUMBER}"),
        "additionalProperties": False,
    }


def _layer() -> Schema:
    return {
        "type": "object",
        "description": "One layer's own parameters.",
        "properties": {
            **_nested_or_dotted({path: reference(path) for path in BLOCK_PATHS}),
            VARIABLES: {"$ref": "#/$defs/variables"},
        },
        "patternProperties": {rf"^{VARIABLES}\.{VARIABLE_NAME}$": {"$ref": "#/$defs/variable"}},
        "additionalProperties": False,
    }


def _nested_or_dotted(parameters: Mapping[str, Schema]) -> dict[str, Schema]:
    """The properties of a mapping that has parameters by their paths: each below its section, or with all its path."""
    sections: dict[str, dict[str, Schema]] = {}
    for path, schema in parameters.items():
        section, _, name = path.rpartition(".")
        if section:
            sections.setdefault(section, {})[name] = schema
    nested: dict[str, Schema] = {
        section: {"type": "object", "properties": below, "additionalProperties": False}
        for section, below in sections.items()
    }
    return {path: schema for path, schema in parameters.items() if "." not in path} | nested | dict(parameters)


def _of_layers(beginning: str) -> Schema:
    """What can be said of one layer whose name matches `beginning`, by the pattern of the whole name."""
    patterns: Schema = {f"{beginning}$": {"$ref": "#/$defs/layer"}}
    for section in dict.fromkeys(path.partition(".")[0] for path in BLOCK_PATHS if "." in path):
        patterns[rf"{beginning}\.{section}$"] = {"$ref": f"#/$defs/layer/properties/{section}"}
    patterns |= {rf"{beginning}\.{re.escape(path)}$": reference(path) for path in BLOCK_PATHS}
    patterns[rf"{beginning}\.{VARIABLES}$"] = {"$ref": "#/$defs/variables"}
    patterns[rf"{beginning}\.{VARIABLES}\.{VARIABLE_NAME}$"] = {"$ref": "#/$defs/variable"}
    return patterns


def _training() -> Schema:
    betas = ("beta1", "beta2")
    properties: Schema = {name: reference(f"training.{name}") for name in TRAINING}
    properties["betas"] = {
        "description": "beta1 and beta2.",
        "type": "array",
        "prefixItems": [reference(f"training.{name}") for name in betas],
        "minItems": len(betas),
        "maxItems": len(betas),
    }
    return {
        "type": "object",
        "description": f"How each trial is trained: one of {', '.join(LENGTHS)}, and the optimizer's parameters.",
        "properties": properties,
        "additionalProperties": False,
        "dependentSchemas": {
            "betas": _without(betas),
            **{name: _without(other for other in LENGTHS if other != name) for name in LENGTHS},
        },
    }


def _inference() -> Schema:
    properties: Schema = {name: reference(f"inference.{name}") for name in INFERENCE}
    listed: Schema = {"type": "array", "items": {"$ref": "#/$defs/shape", "required": [NAME]}}
    named: Schema = {
        "type": "object",
        "propertyNames": {"pattern": f"^{_SHAPE_NAME}$"},
        "additionalProperties": {"$ref": "#/$defs/shape", "not": {"required": [NAME]}},
    }
    properties[SHAPES] = {
        "description": "Shapes by their names: every trial is built and measured at each.",
        "anyOf": [
            {**named, "minProperties": 1, "maxProperties": MAX_SHAPES},
            {**listed, "minItems": 1, "maxItems": MAX_SHAPES, "uniqueItems": True},
        ],
    }
    beside_shapes: Schema = {"properties": {**dict.fromkeys(SHAPE_PARAMETERS, False), "mode": _FORWARD_OR_GENERATE}}
    return {
        "type": "object",
        "description": "The shape that is measured, or several, and what the engine's builder is told.",
        "properties": properties,
        "additionalProperties": False,
        "dependentSchemas": {SHAPES: beside_shapes},
    }


def _shape() -> Schema:
    own: Schema = {
        name: {"description": DECLARED[f"inference.{name}"].meaning, **value_of(DECLARED[f"inference.{name}"])}
        for name in SHAPE_PARAMETERS
    }
    return {
        "type": "object",
        "description": "A batch size and lengths: fixed, not searched.",
        "properties": {NAME: {"type": "string", "pattern": f"^{_SHAPE_NAME}$"}, **own},
        "additionalProperties": False,
    }


def _without(names: Iterable[str]) -> Schema:
    return {"properties": dict.fromkeys(names, False)}
