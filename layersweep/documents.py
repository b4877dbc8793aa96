"""Turning what a caller has (a path, a mapping, YAML or JSON text) into the body of a request.

A file's bytes are sent as they are: the service reads them once, with its own limits and messages.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from layersweep import files
from layersweep.json_values import JsonObject, plain
from layersweep.records.sweeps import Configuration

MOST_BYTES = 64 * 2**20
"""More than any service takes as a document: a data set that was named by mistake is not read into memory."""

JSON_TYPE = "application/json"
YAML_TYPE = "application/yaml"

Source = str | os.PathLike[str] | Mapping[str, object]
"""A sweep document: a path, YAML or JSON text (anything with a line break or a brace), or a mapping."""


def read(source: Source) -> tuple[bytes, str]:
    """The body and its content type.

    Raises InvalidUsageError if the file cannot be read, or a mapping holds what JSON cannot say (NaN included).
    """
    if isinstance(source, Mapping):
        return json.dumps(plain(source, "the sweep document")).encode(), JSON_TYPE
    if isinstance(source, str) and ("\n" in source or "{" in source):
        # What is no Unicode text is refused by the service, with its place.
        return source.encode(errors="surrogatepass"), JSON_TYPE if source.lstrip().startswith("{") else YAML_TYPE
    path = Path(source)
    return files.read(path, MOST_BYTES), JSON_TYPE if path.suffix.lower() == ".json" else YAML_TYPE


def of_configuration(configuration: Configuration | JsonObject, dataset: str | None = None) -> JsonObject:
    """A trial's complete configuration as the parts of a sweep document, ready to paste."""
    document: JsonObject = {"task": configuration["task"]}
    if dataset is not None:
        document["dataset"] = dataset
    for section in ("model", "training", "inference"):
        if configuration.get(section):
            document[section] = nested(configuration[section])
    if shapes := configuration.get("shapes"):
        # Of several shapes the section has the first one's parameters, which stand in the list.
        of_shapes = {name for shape in shapes for name in shape}
        shared = {name: value for name, value in configuration["inference"].items() if name not in of_shapes}
        document["inference"] = {"shapes": [dict(shape) for shape in shapes], **nested(shared)}
    if "training" in document and _is_rounding_of_tenth(document["training"]):
        # The service computes 0.00030000000000000003 again; 0.0003 would be another configuration.
        del document["training"]["min_learning_rate"]
    return document


def _is_rounding_of_tenth(training: JsonObject) -> bool:
    """Whether the lowest learning rate is the tenth that it is when left out, and only rounding makes it long."""
    highest, lowest = training.get("learning_rate"), training.get("min_learning_rate")
    if not isinstance(highest, float) or not isinstance(lowest, float) or lowest != highest / 10:
        return False
    return repr(lowest) != repr(float(f"{lowest:.12g}")) and repr(highest) == repr(float(f"{highest:.12g}"))


def nested(flat: Mapping[str, object]) -> JsonObject:
    """Flat paths as a document nests them: {"mlp.kind": "MLP"} becomes {"mlp": {"kind": "MLP"}}."""
    document: JsonObject = {}
    for path, value in flat.items():
        *parents, leaf = path.split(".")
        place = document
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return document
