"""The recommendation as it is answered: the trial with its evidence, and what a confirmation found of it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.common.formatting import sentence
from service.confirmation import results
from service.confirmation.schemas import RecommendationDetail
from service.database.models import Sweep
from service.errors import NoFeasibleTrialError
from service.recommendation import further_trainings
from service.recommendation.evidence import detailed
from service.recommendation.preferences import SelectionPreferences
from service.results import constraints


def recommendation(session: Session, sweep: Sweep, preferences: SelectionPreferences) -> RecommendationDetail:
    """The recommended trial. Raises NoFeasibleTrialError, which says what keeps the trials from being feasible."""
    try:
        found = detailed(session, sweep, preferences)
    except NoFeasibleTrialError as nothing:
        causes = [sentence(line).removesuffix(".") for line in constraints.summary(session, sweep).says]
        raise NoFeasibleTrialError(". ".join([str(nothing), *causes])) from None
    row = further_trainings.current(session, sweep.id, found.trial.trial)
    confirmation = None if row is None else results.to_schema(session, row, found.trial.trial)
    return RecommendationDetail(**found.__dict__, confirmation=confirmation)
