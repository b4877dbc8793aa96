"""Turning what a caller has (a path, a mapping, YAML or JSON text) into the body of a request.

A file's bytes are sent as they are: the service reads them once, with its own limits and messages.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layersweep.errors import InvalidUsage

JSON_TYPE = "application/json"
YAML_TYPE = "application/yaml"

Source = str | os.PathLike[str] | Mapping[str, Any]
"""A sweep document: a path, YAML or JSON text (anything with a line break or a brace), or a mapping."""


def read(source: Source) -> tuple[bytes, str]:
    """The body and its content type.

    Raises InvalidUsage where there is no such file, or a mapping holds what JSON cannot say (NaN included).
    """
    if isinstance(source, Mapping):
        try:
            return json.dumps(source, allow_nan=False).encode(), JSON_TYPE
        except (TypeError, ValueError) as problem:
            raise InvalidUsage(f"the sweep document cannot be written as JSON: {problem}") from problem
    if isinstance(source, str) and ("\n" in source or "{" in source):
        return source.encode(), JSON_TYPE if source.lstrip().startswith("{") else YAML_TYPE
    path = Path(source)
    try:
        return path.read_bytes(), JSON_TYPE if path.suffix.lower() == ".json" else YAML_TYPE
    except OSError as problem:
        raise InvalidUsage(f"{path} cannot be read: {problem.strerror}") from problem


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Flat paths as a document nests them: {"mlp.kind": "MLP"} becomes {"mlp": {"kind": "MLP"}}."""
    document: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split(".")
        place = document
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return document
