"""The files of a checkpoint that was uploaded: config.json and safetensors. Nothing in them is ever executed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from layers.checkpoints.config_json import CheckpointError, Json
from layers.checkpoints.conversion import ReadConfig, from_transformers, read_config
from layers.checkpoints.tensors import Array
from layers.declarations.kinds import KINDS
from layers.declarations.model import broken_rules, parameter_count
from layers.parameter import Scalar
from service.errors import Problem, UnprocessableError

MOST_CONFIG_BYTES = 1 << 20
CONFIG, WEIGHTS, TOKENIZER = "config", "weights", "tokenizer"
"""The fields of an upload."""

_KINDS: dict[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""The number formats that weights may have, as NumPy reads them; it has none for bfloat16."""


@dataclass(frozen=True, slots=True)
class CheckpointContent:
    """A checkpoint that was read."""

    architecture: str
    task: str
    config: dict[str, Any]
    model: dict[str, Scalar]
    weights: bytes
    """safetensors, by our names, in float32, with the model in its metadata."""
    parameter_count: int

    @property
    def sha256(self) -> str:
        """Of the file: of the weights and of the model that they are of."""
        return hashlib.sha256(self.weights).hexdigest()


def read(config: Path, weights: Path) -> CheckpointContent:
    """Read a checkpoint. Raises UnprocessableError for what is none, or none that Layersweep builds."""
    values = _config(config)
    try:
        found = read_config(values)
    except CheckpointError as error:
        raise _wrong(CONFIG, str(error), "upload one of the architectures that Layersweep builds") from None
    if violations := broken_rules(found.model):
        raise _wrong(CONFIG, violations[0].message, "upload a model that Layersweep builds")
    try:
        ours = from_transformers(found, _tensors(weights))
    except CheckpointError as error:
        raise _wrong(WEIGHTS, str(error), "upload the weights that belong to config.json") from None
    _check_size(found, ours)
    return CheckpointContent(
        architecture=found.architecture.name,
        task=KINDS[found.architecture.kind].task,
        config=values,
        model=found.model,
        weights=save(dict(sorted(ours.items())), {"model": json.dumps(found.model, sort_keys=True)}),
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


def _tensors(path: Path) -> dict[str, Array]:
    """The tensors of a safetensors file in float32."""
    try:
        stored = deserialize(path.read_bytes())
    except (SafetensorError, ValueError):
        remedy = "send model.safetensors; a pickled file (.bin, .pt) is never read: save it with safe_serialization"
        raise _wrong(WEIGHTS, "is not a whole safetensors file", remedy) from None
    found: dict[str, Array] = {}
    for name, tensor in stored:
        kind = str(tensor["dtype"])
        if kind not in _KINDS:
            remedy = f"save the weights in one of {', '.join(_KINDS)}"
            raise _wrong(WEIGHTS, f"has the tensor {name} in {kind}", remedy)
        numbers = np.frombuffer(tensor["data"], _KINDS[kind]).reshape(tensor["shape"])
        if kind == "BF16":
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        found[name] = numbers.astype(np.float32)
    return found


def _check_size(found: ReadConfig, weights: dict[str, Array]) -> None:
    held, described = sum(tensor.size for tensor in weights.values()), parameter_count(found.model)
    if held != described:
        detail = f"holds {held:,} numbers, and config.json describes {described:,}"
        raise _wrong(WEIGHTS, detail, "upload the weights that belong to config.json")
    for name, tensor in weights.items():
        if not np.isfinite(tensor).all():
            raise _wrong(WEIGHTS, f"has numbers in {name} that are not finite", "upload weights that were trained well")


def _wrong(field: str, what: str, remedy: str) -> UnprocessableError:
    return UnprocessableError(f"the field `{field}`: {what} ({remedy})", problems=[Problem(f"/{field}", what, remedy)])
