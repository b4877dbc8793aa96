"""The files of a checkpoint that was uploaded: config.json and safetensors. Nothing in them is ever executed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from layers.checkpoints.config_json import CheckpointError, Json
from layers.checkpoints.conversion import ReadConfig, from_transformers, read_config
from layers.checkpoints.tensor_files import SpilledTensors, TensorFile
from layers.checkpoints.tensors import Array
from layers.declarations.kinds import KINDS
from layers.declarations.model import broken_rules, parameter_count
from layers.parameter import Scalar
from service.common.hashing import file_hash
from service.errors import Problem, UnprocessableError

MOST_CONFIG_BYTES = 1 << 20
CONFIG, WEIGHTS, TOKENIZER = "config", "weights", "tokenizer"
"""The fields of an upload."""


@dataclass(frozen=True, slots=True)
class CheckpointContent:
    """A checkpoint that was read."""

    architecture: str
    task: str
    config: dict[str, Any]
    model: dict[str, Scalar]
    weights: Path
    """safetensors, by our names, in float32, with the model in its metadata."""
    sha256: str
    """Of that file: of the weights and of the model that they are of."""
    parameter_count: int


def read(config: Path, weights: Path, scratch: Path) -> CheckpointContent:
    """Read a checkpoint: one tensor after the other, into files of the folder `scratch`, which lasts as long as what is
    read. Raises UnprocessableError for what is none, or none that Layersweep builds."""
    values = _config(config)
    try:
        found = read_config(values)
    except CheckpointError as error:
        raise _wrong(CONFIG, str(error), "upload one of the architectures that Layersweep builds") from None
    if violations := broken_rules(found.model):
        raise _wrong(CONFIG, violations[0].message, "upload a model that Layersweep builds")
    theirs = _tensors(weights)
    converted = scratch / "converted.safetensors"
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        try:
            ours = SpilledTensors(Path(folder))
            from_transformers(found, theirs, ours)
        except CheckpointError as error:
            raise _wrong(WEIGHTS, str(error), "upload the weights that belong to config.json") from None
        _check_size(found, ours)
        ours.save(converted, {"model": json.dumps(found.model, sort_keys=True)})
    return CheckpointContent(
        architecture=found.architecture.name,
        task=KINDS[found.architecture.kind].task,
        config=values,
        model=found.model,
        weights=converted,
        sha256=file_hash(converted),
        parameter_count=parameter_count(found.model),
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise _wrong(CONFIG, "is not JSON", "send the checkpoint's config.json") from None
    if not isinstance(values, dict):
        raise _wrong(CONFIG, "is not a mapping", "send the checkpoint's config.json")
    return cast("dict[str, Json]", values)


def _tensors(path: Path) -> TensorFile:
    """The tensors of a safetensors file in float32."""
    try:
        return TensorFile(path)
    except CheckpointError as error:
        remedy = "send model.safetensors; a pickled file (.bin, .pt) is never read: save it with safe_serialization"
        raise _wrong(WEIGHTS, str(error), remedy) from None


def _check_size(found: ReadConfig, weights: Mapping[str, Array]) -> None:
    held, described = sum(tensor.size for tensor in weights.values()), parameter_count(found.model)
    if held != described:
        detail = f"holds {held:,} numbers, and config.json describes {described:,}"
        raise _wrong(WEIGHTS, detail, "upload the weights that belong to config.json")
    for name, tensor in weights.items():
        if not np.isfinite(tensor).all():
            raise _wrong(WEIGHTS, f"has numbers in {name} that are not finite", "upload weights that were trained well")


def _wrong(field: str, what: str, remedy: str) -> UnprocessableError:
    return UnprocessableError(f"the field `{field}`: {what} ({remedy})", problems=[Problem(f"/{field}", what, remedy)])
