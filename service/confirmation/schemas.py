"""A confirmation as it crosses HTTP. Losses are in nats; intervals are at 95 %."""

from __future__ import annotations

from pydantic import Field

from service.common.schemas import Count, Integer, Request, Schema, Timestamp
from service.common.states import SweepState
from service.recommendation.schemas import ExplainedRecommendation
from service.results.schemas import LeaderboardRow
from service.sweeps.schemas import Progress


class ConfirmationRequest(Request):
    """`:confirm`: what to retrain, and how often."""

    seeds: Integer = Field(default=3, ge=1, le=20, description="further trainings of each candidate")
    candidates: Integer = Field(
        default=3,
        ge=1,
        le=20,
        description="how many trials: the recommended one, then those nearest to the ideal point",
    )
    trials: list[Count] = Field(
        default=[], max_length=20, description="numbers of the trials to retrain, in place of `candidates`"
    )
    prefer: list[str] = Field(default=[], max_length=20, description="as of the recommendation: it names the first")
    within: list[str] = Field(default=[], max_length=20, description="METRIC:AMOUNT, as of the recommendation")
    weight: list[str] = Field(default=[], max_length=20, description="OBJECTIVE:NUMBER, as of the recommendation")

    @property
    def preferences(self) -> dict[str, list[str]]:
        """What the recommendation is wished to be, as its query has it."""
        return {"prefer": self.prefer, "within": self.within, "weight": self.weight}


class Interval(Schema):
    low: float
    high: float


class Estimate(Schema):
    """A mean over seeds."""

    mean: float
    spread: float | None = Field(description="standard deviation over seeds; null for one seed")
    sampling_error: float | None = Field(description="standard error by blocks of the split")
    expected: Interval | None = Field(
        description="where the expected loss on text like the split lies; null below 3 seeds"
    )
    one_more: Interval | None = Field(
        description="where one further training lands on the same split; null below 3 seeds"
    )


class ConfirmationRun(Schema):
    """One further training."""

    trial: str
    seed: int
    state: str
    reason: str | None
    validation_loss: float | None
    test_loss: float | None
    latency_ms_p50: float | None


class ConfirmedTrial(Schema):
    """One candidate with its further trainings."""

    trial: LeaderboardRow
    recommended: bool
    runs: list[ConfirmationRun]
    validation: Estimate | None = Field(description="of the further seeds, on the split that chose the trial")
    test: Estimate | None = Field(description="of the further seeds, on the split that no sweep has seen")
    optimism_nats: float | None = Field(
        description="validation: mean of the further seeds less the figure that the sweep chose by"
    )
    test_gap_nats: float | None = Field(description="test less validation, both of the further seeds")
    kept_constraints: bool | None = Field(description="whether every further training kept the sweep's constraints")
    says: list[str]


class Confirmation(Schema):
    id: str = Field(description="also a sweep's id: its trials, events, :cancel and :pause are at /v1/sweeps/{id}")
    sweep: str = Field(description="the sweep that is confirmed")
    state: SweepState
    reason: str | None
    seeds: list[int]
    progress: Progress
    candidates: list[ConfirmedTrial] = Field(description="the recommended trial first")
    best: int | None = Field(description="number of the candidate with the lowest mean test loss")
    optimism_nats: float | None = Field(
        description="mean over the candidates of how much too good the sweep's figure was"
    )
    seed_spread_nats: float | None = Field(description="of validation losses over seeds, pooled over the candidates")
    says: list[str]
    method: str
    created_at: Timestamp
    ended_at: Timestamp | None


class Confirmations(Schema):
    sweep: str
    items: list[Confirmation] = Field(description="the newest first")


class RecommendationDetail(ExplainedRecommendation):
    """The recommended trial with the rule, and all that speaks for it."""

    confirmation: Confirmation | None = Field(
        default=None, description="the newest confirmation, one that was cancelled or failed only where no other is"
    )
