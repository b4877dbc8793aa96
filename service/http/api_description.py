"""What the OpenAPI document says beyond what the framework finds: how callers show who they are, and media types."""

from __future__ import annotations

import re
from collections.abc import Iterable

from layersweep.json_values import JsonObject
from service.auth.scopes import Declaration
from service.http import error_handlers, request_examples

TAGS = {
    "sweeps": "Post a sweep, watch it, and steer it.",
    "leaderboards": "The trials of a sweep, ranked; and its Pareto front.",
    "recommendations": "Which trial to take, why, and what stood in the way; the report.",
    "trials": "One trial: its parameters, phases, measurements, curve and log.",
    "datasets": "Upload data, and read what is known of it.",
    "analyses": "What mattered: importance, effects, trade-offs, hypervolume.",
    "confirmations": "Train the best trials again with further seeds, and score the test split.",
    "assertions": "Measure a trial anew, and judge whether it keeps its limits.",
    "artifacts": "Files of trials: weights, models of transformers, engines.",
    "catalog": "What can be swept: layers, presets, targets, and the JSON Schema of sweep documents.",
    "checkpoints": "Models that sweeps begin with.",
    "workers": "Who executes trials, and what waits for whom.",
    "webhooks": "Be told when something happens.",
    "administration": "Tokens, projects, and the record of changes.",
    "leases": "What workers call: claim a trial, report, finish.",
    "health": "Whether the service works, and its figures for Prometheus.",
}
"""The groups of operations, the most used first."""

_SCHEMES: JsonObject = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API token. Where none was ever made, the service answers its own machine without.",
    }
}
_NEEDED_WITH_BODY = (408, 413)


def complete(document: JsonObject, declarations: Iterable[Declaration]) -> None:
    """Add the order of groups, summaries, examples, security, and the statuses that anything may have before a route
    sees it."""
    document["tags"] = [{"name": name, "description": words} for name, words in TAGS.items()]
    opened_by = {(each.path, method.lower()): each.opened_by for each in declarations for method in each.methods}
    error_handlers.keep_media_type(document)
    document.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            _explain(operation)
            scopes = sorted(opened_by[path, method])
            if not scopes:
                continue
            operation["security"] = [{"token": []}]
            operation["x-scopes"] = scopes
            if "requestBody" in operation:
                for status, answer in error_handlers.documented(*_NEEDED_WITH_BODY).items():
                    answer.pop("model")
                    operation["responses"].setdefault(str(status), answer)


def _explain(operation: JsonObject) -> None:
    """The first sentence of an operation's description sums it up; its body gets the example."""
    sentence = re.match(r"(.*?)(?:[.:;](?=\s|$)|$)", operation.get("description", "").partition("\n\n")[0], re.DOTALL)
    if sentence is not None and sentence[1]:
        operation["summary"] = " ".join(sentence[1].split())
    content = operation.get("requestBody", {}).get("content", {})
    example = request_examples.JSON.get(operation["operationId"])
    if example is not None and "application/json" in content:
        content["application/json"]["example"] = example
    form = request_examples.FORMS.get(operation["operationId"])
    if form is not None:
        content["multipart/form-data"]["example"] = dict(form)
