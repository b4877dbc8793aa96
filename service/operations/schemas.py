"""The files of a trial as they cross HTTP."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from service.common.schemas import Request, Schema, Timestamp


class ArtifactOffer(Request):
    """What an attempt is about to finish with: whether its files are kept depends on it."""

    metrics: dict[str, float] = Field(examples=[{"latency_ms_p50": 0.41}])


class ArtifactAnswer(Schema):
    wanted: list[str] = Field(description="names of the files to upload; empty: none")


class Artifact(Schema):
    name: str
    size_bytes: int
    sha256: str
    created_at: Timestamp


class CheckpointDescription(Schema):
    """How a trial's model leaves for `transformers`."""

    architecture: str = Field(examples=["Llama"])
    class_name: str = Field(description="the class of transformers that reads it", examples=["LlamaForCausalLM"])
    config: dict[str, Any] = Field(description="its config.json")
    filled: list[str] = Field(description="parameters whose weights the model has not: zeros (scales: ones) there")
