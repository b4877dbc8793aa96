"""/v1/sweeps/{id}/recommendation: which trial to take and why; /constraints: what keeps trials from being taken."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from service.auth.scopes import ScopedRoute, needs_scope
from service.confirmation import recommendations
from service.confirmation.schemas import RecommendationDetail
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.recommendation.recommend import preferences_of
from service.results import constraints, leaderboards
from service.results.schemas import ConstraintSummary

router = APIRouter(
    prefix="/v1/sweeps/{sweep_id}", tags=["recommendations"], responses=documented(404, 422), route_class=ScopedRoute
)

Prefer = Annotated[
    list[str] | None,
    Query(description="the metric whose best trial is wanted (latency_ms_p50); given again, it decides ties"),
]
Within = Annotated[
    list[str] | None,
    Query(
        description="METRIC:AMOUNT, as validation_loss:1% or validation_loss:0.02: only trials of the front at most so "
        "much worse than its best"
    ),
]
Weight = Annotated[
    list[str] | None,
    Query(description="OBJECTIVE:NUMBER, as validation_loss:2: how much it counts in the distance; the others count 1"),
]


@router.get("/recommendation")
@needs_scope("read")
def get_recommendation(
    sweep_id: str, services: ServicesDep, prefer: Prefer = None, within: Within = None, weight: Weight = None
) -> RecommendationDetail:
    """The recommended trial with its configuration, the rule that chose it, its neighbours and its evidence.

    404 `no-feasible-trial` while no trial is complete and feasible.
    """

    def read_it(session: Session) -> RecommendationDetail:
        sweep = leaderboards.get_sweep(session, sweep_id)
        wishes = preferences_of(sweep, prefer=prefer or (), within=within or (), weight=weight or ())
        return recommendations.recommendation(session, sweep, wishes)

    return services.database.read(read_it)


@router.get("/constraints")
@needs_scope("read")
def get_constraints(sweep_id: str, services: ServicesDep) -> ConstraintSummary:
    """Which constraints the trials broke, by how little the nearest missed, and limits that more would keep."""
    return services.database.read(
        lambda session: constraints.summary(session, leaderboards.get_sweep(session, sweep_id))
    )
