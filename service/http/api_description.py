"""What the OpenAPI document says beyond what the framework finds: how callers show who they are, and media types."""

from __future__ import annotations

from collections.abc import Iterable

from layersweep.json_values import JsonObject
from service.auth.scopes import Declaration
from service.http import error_handlers

_SCHEMES: JsonObject = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API token. Where none was ever made, the service answers its own machine without.",
    }
}
_NEEDED_WITH_BODY = (408, 413)


def complete(document: JsonObject, declarations: Iterable[Declaration]) -> None:
    """Add security, and the statuses that anything may have before a route sees it."""
    opened_by = {(each.path, method.lower()): each.opened_by for each in declarations for method in each.methods}
    error_handlers.keep_media_type(document)
    document.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            scopes = sorted(opened_by[path, method])
            if not scopes:
                continue
            operation["security"] = [{"token": []}]
            operation["x-scopes"] = scopes
            if "requestBody" in operation:
                for status, answer in error_handlers.documented(*_NEEDED_WITH_BODY).items():
                    answer.pop("model")
                    operation["responses"].setdefault(str(status), answer)
