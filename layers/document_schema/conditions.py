"""What one field of a document asks of others, as conditional JSON Schemas: its task, its target, its mode."""

from __future__ import annotations

from collections.abc import Iterable

from layers.declarations.inference.mode import GENERATE
from layers.declarations.kinds import KINDS, TASKS, Kind, kinds_of
from layers.declarations.model import DECLARATIONS
from layers.declarations.per_layer import BLOCK_PATHS, STACKS
from layers.document_schema.parameters import Schema
from layers.metrics import AT, METRICS
from layers.parameter import REQUIRED
from layers.space.checks.lacking_metrics import lacking_metric
from layers.wanted_target import RUNTIMES

_PROBE = "probe"
_OF_GENERATION = tuple(name for name, metric in METRICS.items() if metric.of_generation)
_DEPENDING_ON_LOAD = tuple(name for name, metric in METRICS.items() if metric.depends_on_load)


def conditions() -> list[Schema]:
    """Each holds for every document."""
    return [
        *(_of_task(task) for task in TASKS),
        _unless({"inference": _has({"mode": {"enum": [GENERATE, {"value": GENERATE}]}})}, _OF_GENERATION),
        _unless({"budget": _has({"parallel": {"const": 1}})}, _DEPENDING_ON_LOAD),
        *(_of_runtime(runtime) for runtime in RUNTIMES if _lacking(runtime=runtime)),
    ]


def _of_task(task: str) -> Schema:
    asked: Schema = {"model": _model_of(task)}
    if task == _PROBE:
        asked |= {"dataset": {"const": None}, "training": {"maxProperties": 0}}
    if lacking := _lacking(task):
        asked |= _without_metrics(lacking)
    then: Schema = {"properties": asked}
    if task != _PROBE:
        then |= {"required": ["dataset"], "properties": {**asked, "dataset": {"type": "string"}}}
    return {"if": _has({"task": {"const": task}}), "then": then}


def _model_of(task: str) -> Schema:
    """The kinds that fit a task, and the parameters that these have, and need."""
    kinds = kinds_of(task)
    schema: Schema = {
        "properties": {
            "kind": {"anyOf": [{"enum": list(kinds)}, {"type": "object"}]},
            **_refused(path for path in DECLARATIONS if not any(KINDS[kind].has(path) for kind in kinds)),
        }
    }
    needs = [_needs(kind, KINDS[kind], is_default=kind == kinds[0]) for kind in kinds]
    return {**schema, "allOf": needs}


def _refused(paths: Iterable[str]) -> Schema:
    """The properties of a model that lacks parameters, nested or dotted."""
    properties: Schema = {}
    sections: dict[str, Schema] = {}
    for path in paths:
        section, _, name = path.rpartition(".")
        properties[path] = False
        if section:
            sections.setdefault(section, {})[name] = False
    return properties | {section: {"properties": below} for section, below in sections.items()}


def _needs(name: str, kind: Kind, *, is_default: bool) -> Schema:
    """What has no default has to be given; of a block's parameter, single layers' values will do."""
    paths = [path for path, each in DECLARATIONS.items() if each.default is REQUIRED and kind.has(path)]
    needed: Schema = {"allOf": [_given(path) for path in paths]}
    is_kind: Schema = {"properties": {"kind": {"const": name}}}
    return {"if": is_kind if is_default else {**is_kind, "required": ["kind"]}, "then": needed}


def _given(path: str) -> Schema:
    section, _, name = path.rpartition(".")
    dotted: Schema = {"required": [path]}
    forms = [dotted]
    if section:
        forms.append({"required": [section], "properties": {section: {"required": [name]}}})
    if path in BLOCK_PATHS:
        forms += [{"required": [stack]} for stack in STACKS]
        # A name such as layers.0.…: any property that does not keep to these is one.
        forms.append({"not": {"propertyNames": {"not": {"pattern": rf"^({'|'.join(STACKS)})\."}}}})
    return {"description": f"{path} has no default.", "anyOf": forms}


def _of_runtime(runtime: str) -> Schema:
    wanted = _has({"target": _has({"runtime": {"const": runtime}})})
    return {"if": wanted, "then": {"properties": _without_metrics(_lacking(runtime=runtime))}}


def _lacking(task: str = "", runtime: str | None = None) -> list[str]:
    """The metrics that a task or a runtime does not have, though another one does."""
    return [
        name
        for name in METRICS
        if lacking_metric(name, "", None, None, generates=True) is None
        and lacking_metric(name, task, None, runtime, generates=True) is not None
    ]


def _unless(fields: Schema, metrics: Iterable[str]) -> Schema:
    return {"if": _has(fields), "else": {"properties": _without_metrics(metrics)}}


def _without_metrics(metrics: Iterable[str]) -> Schema:
    """The objectives and constraints of a document that can have none of these metrics."""
    names = "|".join(metrics)
    objective: Schema = {"properties": {"metric": {"not": {"pattern": f"^({names})({AT}.*)?$"}}}}
    constraint: Schema = {"not": {"type": "string", "pattern": rf"\b({names})\b"}}
    return {"objectives": {"items": objective}, "constraints": {"items": constraint}}


def _has(fields: Schema) -> Schema:
    """Whether a mapping has all of these fields, each as its schema says."""
    return {"type": "object", "required": list(fields), "properties": fields}
