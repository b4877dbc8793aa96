"""The states of sweeps and of trials, each named once. A member is its text: as the tables, events and HTTP have it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


class _State(StrEnum):
    """Members that an API's description lists where they are used, not under a name of their own."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.enum_schema(cls, list(cls), sub_type="str")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"enum": [state.value for state in cls], "type": "string"}


class SweepState(_State):
    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


GOING_SWEEPS = (SweepState.ACTIVE, SweepState.PAUSED)
ENDED_SWEEPS = (SweepState.COMPLETED, SweepState.CANCELLED, SweepState.FAILED)


class TrialState(_State):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETE = "complete"
    INFEASIBLE = "infeasible"
    PRUNED = "pruned"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN_TRIALS = (TrialState.QUEUED, TrialState.RUNNING)
ENDED_TRIALS = (
    TrialState.COMPLETE,
    TrialState.INFEASIBLE,
    TrialState.PRUNED,
    TrialState.FAILED,
    TrialState.CANCELLED,
)


class SweepKind(StrEnum):
    """What a sweep is: a search that a sampler leads, or further trainings of trials that are all there at once."""

    SEARCH = "search"
    CONFIRMATION = "confirmation"
    """Also what such a sweep has for a sampler."""

    @staticmethod
    def of(sampler: str) -> SweepKind:
        """The kind of the sweep with this sampler."""
        return SweepKind.CONFIRMATION if sampler == SweepKind.CONFIRMATION else SweepKind.SEARCH
