"""A document's own fields as JSON Schemas: everything but the sections of parameters."""

from __future__ import annotations

from layers.declarations.kinds import KINDS, TASKS, kinds_of
from layers.document_schema.parameters import Schema
from layers.labels import MAX_LABELS
from layers.labels import NAME as LABEL
from layers.metrics import METRICS
from layers.presets import PRESETS
from layers.space.checks.lacking_metrics import lacking_metric
from layers.space.document_fields import (
    AUTO,
    BUDGET,
    HARDWARE_FIRST,
    MAX_EXPRESSIONS,
    MAX_OBJECTIVES,
    MAX_PARALLEL,
    MAX_SECONDS,
    MAX_SEED,
    MAX_STARTS,
    PRUNERS,
    REQUIREMENTS,
    SAMPLERS,
    TITLE_PATTERN,
)
from layers.space.replicates import MAX_REPLICATES
from layers.wanted_target import RUNTIMES

_METRIC_NAMES = "|".join(METRICS)
_OF_SHAPES = "|".join(name for name, metric in METRICS.items() if metric.of_shape)


def field_schemas() -> dict[str, Schema]:
    """The schema of every field of a document that is no section of parameters, by its name."""
    expression: Schema = {"$ref": "#/$defs/expression"}
    return {
        "name": {
            "type": "string",
            "description": "What the sweep is called.",
            "minLength": 1,
            "maxLength": 200,
            "pattern": TITLE_PATTERN,
        },
        "task": {"description": "What the models learn.", "anyOf": [_task(task) for task in TASKS]},
        "dataset": {"type": ["string", "null"], "description": "The name of a registered dataset for this task."},
        "objectives": {
            "type": "array",
            "description": "What is looked for.",
            "items": _objective(),
            "minItems": 1,
            "maxItems": MAX_OBJECTIVES,
            "uniqueItems": True,
        },
        "constraints": _expressions(
            "Limits on metrics: one comparison with <=, <, >= or > each.",
            {
                **expression,
                "allOf": [{"pattern": "[<>]"}, {"pattern": rf"\b({_METRIC_NAMES})\b"}],
                "examples": ["latency_ms_p99 <= 2.0"],
            },
        ),
        "rules": _expressions(
            "Conditions on parameters that every point keeps.",
            {
                **expression,
                "not": {"pattern": rf"\b({_METRIC_NAMES})\b"},
                "examples": ["hidden_size % attention.num_attention_heads == 0"],
            },
        ),
        "budget": _budget(),
        "search": _search(),
        "start_from": {
            "type": "array",
            "description": "Points to try first.",
            "items": _start(),
            "maxItems": MAX_STARTS,
        },
        "require": {"enum": [*REQUIREMENTS, None], "description": "What every point has to be."},
        "target": _target(),
        "allow_sparse": _flag("Accept a space of which no sample could become a trial."),
    }


def _task(task: str) -> Schema:
    kinds = kinds_of(task)
    meanings = [f"{kind}: {KINDS[kind].meaning}" if len(kinds) > 1 else KINDS[kind].meaning for kind in kinds]
    return {"const": task, "description": f"{'; '.join(meanings)}."}


def _objective() -> Schema:
    metrics: list[Schema] = [
        {"const": name, "description": f"{metric.meaning}{f', {metric.unit}' if metric.unit else ''}."}
        for name, metric in METRICS.items()
        if lacking_metric(name, "", None, None, generates=True) is None
    ]
    at_shape: Schema = {"type": "string", "pattern": f"^({_OF_SHAPES})@[A-Za-z_][A-Za-z0-9_]*$"}
    return {
        "type": "object",
        "properties": {
            "metric": {"description": "A metric; METRIC@SHAPE where there are shapes.", "anyOf": [*metrics, at_shape]},
            "goal": {"enum": ["minimize", "maximize", None], "description": "Left out: the metric's own."},
        },
        "required": ["metric"],
        "additionalProperties": False,
    }


def _expressions(description: str, item: Schema) -> Schema:
    return {
        "type": "array",
        "description": description,
        "items": item,
        "maxItems": MAX_EXPRESSIONS,
        "uniqueItems": True,
    }


def _budget() -> Schema:
    seconds: Schema = {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": MAX_SECONDS}
    return _mapping(
        "When the sweep ends, and how many trials may run at once.",
        {
            "trials": {**_count("trials"), "description": "Trials of the sweep."},
            "parallel": {
                "description": "How many trials may run at once; auto: as many as the workers have slots.",
                "anyOf": [{"const": AUTO}, {"type": "integer", "minimum": 1, "maximum": MAX_PARALLEL}],
                "default": AUTO,
            },
            "failures": {**_count("failures"), "description": "How many failed trials end the sweep."},
            "wall_seconds": {**seconds, "description": "Seconds since its first trial began."},
            "device_seconds": {**seconds, "description": "Seconds that its attempts take of their devices."},
        },
    )


def _count(field: str) -> Schema:
    default, least, most = BUDGET[field]
    return {"type": "integer", "minimum": least, "maximum": most, "default": default}


def _search() -> Schema:
    return _mapping(
        "How points are chosen.",
        {
            "sampler": {**_choice(SAMPLERS), "description": "What suggests points."},
            "seed": {
                "type": "integer",
                "minimum": 0,
                "maximum": MAX_SEED,
                "default": 0,
                "description": "Of the sampler.",
            },
            "reuse": {**_flag("Take over results that were measured under the same key."), "default": True},
            "transfer": _flag("Start from what earlier sweeps found."),
            "hardware_first": {
                **_choice(HARDWARE_FIRST),
                "description": "Whether trials are measured before they are trained.",
            },
            "device_model": _flag(
                "Leave out points that are certain to break a hardware constraint; train first those that are certain "
                "to keep all of them."
            ),
            "replicates": {
                "description": "How often a trial is trained again with another seed, at most.",
                "anyOf": [{"const": AUTO}, {"type": "integer", "minimum": 0, "maximum": MAX_REPLICATES}],
                "default": 0,
            },
            "pruner": {**_choice(PRUNERS), "description": "What ends trials early."},
        },
    )


def _choice(choices: tuple[str, ...]) -> Schema:
    return {"enum": list(choices), "default": choices[0]}


def _flag(description: str) -> Schema:
    return {"type": "boolean", "default": False, "description": description}


def _start() -> Schema:
    presets: list[Schema] = [
        {"const": f"preset:{name}", "description": f"{preset.title}. {preset.source}."}
        for name, preset in PRESETS.items()
    ]
    named: Schema = {
        "type": "string",
        "pattern": "^(trial|checkpoint):.+",
        "description": "trial:SWEEP/NUMBER, trial:ID, checkpoint:NAME",
    }
    point: Schema = {"type": "object", "description": "The values of the open parameters."}
    return {"anyOf": [*presets, named, point]}


def _target() -> Schema:
    label: Schema = {"type": "string", "pattern": f"^{LABEL.pattern}$"}
    schema = _mapping(
        "Where trials are built and measured. Left out: that of the first worker that can serve the sweep.",
        {
            "runtime": {"enum": [*RUNTIMES, None], "description": "The inference runtime."},
            "labels": {
                "type": ["object", "null"],
                "description": "What its workers have been started with.",
                "propertyNames": label,
                "additionalProperties": label,
                "minProperties": 1,
                "maxProperties": MAX_LABELS,
            },
        },
    )
    given = ({"required": [field], "properties": {field: {"not": {"const": None}}}} for field in ("runtime", "labels"))
    return {**schema, "anyOf": list(given)}


def _mapping(description: str, properties: dict[str, Schema]) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "additionalProperties": False,
    }
