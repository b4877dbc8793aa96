"""What the OpenAPI document says beyond what the framework finds: how callers show who they are, and media types."""

from __future__ import annotations

from typing import Any

from service import problems
from service.access import needed_scopes

OPEN_PATHS = ("/healthz", "/readyz")
_SCHEMES: dict[str, Any] = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API token. Where none was ever made, the service answers its own machine without.",
    }
}
_NEEDED_WITH_BODY = (408, 413)


def complete(document: dict[str, Any]) -> None:
    """Add security, and the statuses that anything may have before a route sees it."""
    problems.keep_media_type(document)
    document.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            if path in OPEN_PATHS:
                continue
            scopes = sorted(needed_scopes(method.upper(), path))
            operation["security"] = [{"token": []}]
            operation["x-scopes"] = scopes
            if "requestBody" in operation:
                for status, answer in problems.documented(*_NEEDED_WITH_BODY).items():
                    answer.pop("model")
                    operation["responses"].setdefault(str(status), answer)
