"""The table of what was decided about trainings that were under way."""

from __future__ import annotations

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from service.database.base import Base, Document


class PruningDecision(Base):
    """What was decided about one attempt at one rung, and from what.

    Everything that decisions rest on is here or never changes: the same events in the same order give the same again.
    """

    __tablename__ = "pruning_decisions"
    __table_args__ = (
        ForeignKeyConstraint(["trial_id", "attempt"], ["attempts.trial_id", "attempts.attempt"], ondelete="CASCADE"),
        Index(None, "sweep_id", "rung"),
    )

    trial_id: Mapped[str] = mapped_column(String(26), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    rung: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Counted from 0."""
    sweep_id: Mapped[str] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"))
    sequence: Mapped[int]
    """The last event of the sweep that was seen."""
    model_version: Mapped[int]
    step: Mapped[int]
    """Of the training, up to which its curve was looked at."""
    steps: Mapped[int]
    """The training's budget."""
    shown: Mapped[str] = mapped_column(String(32))
    """Which loss of the curve: validation_loss, or training_loss if nothing was evaluated up to the step."""
    loss: Mapped[float]
    known: Mapped[dict[str, float]] = mapped_column(Document)
    """The other objectives' values, as far as they were measured before the training, or predicted (`Trial.predicted`):
    then the medians."""
    finished: Mapped[int]
    """Trials of the sweep that had passed the rung and were complete."""
    predicted: Mapped[float | None]
    """What the objective that training decides was expected to be; None if too few trials had finished."""
    spread: Mapped[float | None]
    """Standard deviation of the prediction."""
    chance: Mapped[float | None]
    """Probability to be on the front; None if it was not calculated."""
    verdict: Mapped[str] = mapped_column(String(8))
    """continue, prune, or spare: as prune, but the trial goes on, to show what pruning loses."""
    reason: Mapped[str] = mapped_column(Text)
