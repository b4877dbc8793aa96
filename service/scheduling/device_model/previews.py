"""What a document would become: its space, what it would cost, and what trials that were measured say of its points."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.database.sessions import Database
from service.scheduling.device_model import space_predictions
from service.scheduling.device_model.space_predictions import MeasuredTarget
from service.sweeps import estimates
from service.sweeps.drafts import ValidatedDocument
from service.sweeps.schemas import CostEstimate, SweepPreview


def preview(database: Database, prepared: ValidatedDocument, *, project: str, alive_seconds: float) -> SweepPreview:
    """The answer to `validate_only=true`. It takes up to two seconds, so that event loops call it in a thread."""

    def read(session: Session) -> tuple[CostEstimate | None, MeasuredTarget | None]:
        cost = estimates.estimate(session, prepared, alive_seconds=alive_seconds, project=project)
        return cost, space_predictions.read_measured(session, prepared.document, project=project)

    cost, measured = database.read(read)
    predictions = space_predictions.predict_space(prepared.document, measured)
    unpredicted = space_predictions.unpredicted_metrics(prepared.document, measured, predictions)
    found = {"estimate": cost, "predictions": predictions, "unpredicted": unpredicted}
    return prepared.preview().model_copy(update=found)
