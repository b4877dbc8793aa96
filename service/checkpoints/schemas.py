"""Checkpoints as they cross HTTP."""

from __future__ import annotations

from pydantic import Field

from layers.parameter import Scalar
from layersweep.json_values import JsonObject
from service.common.schemas import Schema, Timestamp


class Checkpoint(Schema):
    """An uploaded checkpoint that a sweep can begin with."""

    id: str
    project: str
    name: str
    architecture: str = Field(examples=["Qwen3"])
    task: str = Field(description="of the sweeps that can begin with it")
    sha256: str = Field(description="of its configuration and weights; part of what decides whether a trial is reused")
    size_bytes: int
    parameter_count: int
    has_tokenizer: bool
    created_at: Timestamp


class CheckpointDetail(Checkpoint):
    config: JsonObject = Field(description="config.json as it was uploaded")
    model: dict[str, Scalar] = Field(description="the model that it describes, by flat paths")
