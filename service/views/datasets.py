"""The pages of datasets."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import charts, datasets
from service.db import now
from service.models import Dataset, Sweep
from service.views.common import baselines_nats


def dataset_list(session: Session) -> dict[str, Any]:
    """The registered datasets by name."""
    rows = list(session.scalars(select(Dataset).order_by(Dataset.name).limit(1000)))
    return {"now": now(session), "rows": rows}


def dataset(session: Session, key: str) -> dict[str, Any]:
    """One dataset with its profile."""
    row = datasets.get(session, key)
    sweeps_of = list(
        session.scalars(select(Sweep).where(Sweep.dataset_id == row.id).order_by(Sweep.id.desc()).limit(20))
    )
    losses = baselines_nats(row)
    highest = max(losses.values(), default=1.0)
    bars = {name: round(1000 * loss / highest, 1) for name, loss in losses.items()}
    return {
        "now": now(session),
        "dataset": row,
        "sweeps": sweeps_of,
        "bars": bars,
        "parts": charts.segments(_sizes(row)),
    }


def _sizes(row: Dataset) -> dict[str, float]:
    return {part: float(facts.get("tokens") or facts.get("examples") or 0) for part, facts in row.parts.items()}
