"""A sweep's report as JSON: everything that its HTML and its Markdown are written from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from layers.space.normalized_document import NormalizedDocument
from layersweep.json_values import JsonObject
from service.common.schemas import AS_STORED, Schema, Timestamp
from service.confirmation.schemas import Confirmation, RecommendationDetail
from service.database.dataset_columns import Profile, StoredSplit
from service.datasets.schemas import Implication
from service.results.schemas import BrokenConstraint, LeaderboardRow, LoosenedLimits
from service.sweeps.schemas import SweepDetail


class ReportedDataset(Schema):
    name: str
    task: str
    tokenizer: str | None
    sha256: str
    size_bytes: int
    parts: Annotated[dict[str, StoredSplit], AS_STORED]
    profile: Annotated[Profile, AS_STORED]


class Reproduction(Schema):
    """What somebody needs to do it again."""

    layersweep: str
    target: str | None
    environment: JsonObject = Field(description="as it stands beside the recommended trial's measurement")
    worker_versions: Annotated[dict[str, str], AS_STORED]
    search_seed: int
    training_seeds: list[int]
    confirmation_seeds: list[int]
    dataset_sha256: str | None
    document: Annotated[NormalizedDocument, AS_STORED]


class Unrecommended(Schema):
    """What the report says of data and constraints while there is no trial to recommend."""

    implications: list[Implication] = Field(description="what the dataset's profile means for a model of it")
    constraints: list[BrokenConstraint] = Field(description="the constraints that trials broke")
    loosened: list[LoosenedLimits] = Field(description="limits under which some of its trials would be feasible")


class ReportedPoint(Schema):
    """A complete trial in the picture of a trade-off."""

    trial: str
    number: int
    x: float
    y: float
    on_front: bool
    feasible: bool | None


class ReportedTradeoff(Schema):
    """Complete trials by two metrics: the first and the last objective, or what one objective is weighed against."""

    x: str
    y: str
    total: int = Field(description="complete trials that have both")
    points: list[ReportedPoint] = Field(description="the front, then the newest; not all of very many")


class Report(Schema):
    title: str
    made_at: Timestamp
    sweep: SweepDetail
    dataset: ReportedDataset | None
    states: dict[str, int] = Field(description="trials by state")
    summary_metrics: list[str] = Field(description="what a summary shows of a trial; as of the leaderboard")
    front: list[LeaderboardRow]
    tradeoff: ReportedTradeoff
    recommendation: RecommendationDetail | None = Field(description="null while no trial is complete and feasible")
    unrecommended: Unrecommended | None = Field(description="null with a recommendation")
    confirmation: Confirmation | None
    reproduction: Reproduction
