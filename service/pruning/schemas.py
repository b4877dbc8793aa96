"""Pruning as it crosses HTTP."""

from __future__ import annotations

from pydantic import Field

from service.common.schemas import Schema


class Pruning(Schema):
    """How trainings are stopped before their end, what that has saved, and what it may have lost."""

    pruner: str = Field(description="none, pareto or asha")
    reason: str
    judged: int = Field(description="trials that were trained as far as the first rung, and have ended")
    pruned: int = Field(description="of these, the ones that were stopped")
    saved_share: float | None = Field(description="of the steps that they would have taken in all")
    expected_front_loss: float | None = Field(
        description="share of the front that is expected to be among those that were stopped, by what each was "
        "expected to come to; null where none was stopped, or one was without a prediction"
    )
    spared: int = Field(
        description="trials that would have been stopped, but were trained to their end to show what that loses"
    )
    spared_on_front: int
