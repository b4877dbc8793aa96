"""The files of a trial as they cross HTTP."""

from __future__ import annotations

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
