"""Datasets as they cross HTTP."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from service.common.schemas import AS_STORED, Schema, Timestamp
from service.database.dataset_columns import Facts, Profile


class Part(Schema):
    tokens: int | None = None
    examples: int | None = None
    bytes: int | None = Field(default=None, description="of a text: how many bytes of UTF-8 the split is")
    sha256: str


class Dataset(Schema):
    id: str
    name: str
    project: str
    task: str
    tokenizer: str | None
    builtin: bool
    sha256: str
    size_bytes: int
    facts: Annotated[Facts, AS_STORED]
    parts: dict[str, Part]
    created_at: Timestamp


class Implication(Schema):
    """What a dataset's profile means for a model of it."""

    kind: str = Field(description="range, warning or note")
    says: str
    source: str | None = None


class DataEvidence(Schema):
    """What the dataset's profile implies for a model of it."""

    dataset: str | None
    parameters_low: float | None
    parameters_high: float | None
    implications: list[Implication]


class DatasetDetail(Dataset):
    profile: Annotated[Profile, AS_STORED]
    implications: list[Implication] = Field(default=[], description="what the profile means for a model of it")
