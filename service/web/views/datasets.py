"""The pages of datasets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select, true
from sqlalchemy.orm import Session

from service.database.models import Dataset, Sweep
from service.database.sessions import now
from service.datasets import datasets
from service.datasets.implications import implications
from service.datasets.schemas import Implication
from service.results import charts
from service.web.views.common import baselines_nats


@dataclass(frozen=True, slots=True)
class DatasetList:
    now: float
    rows: list[Dataset]


@dataclass(frozen=True, slots=True)
class DatasetPage:
    now: float
    dataset: Dataset
    sweeps: list[Sweep]
    """The newest over it."""
    implications: list[Implication]
    bars: Mapping[str, float]
    """Baseline -> how long its bar is, in thousandths of the longest."""
    splits: list[charts.Segment]


def dataset_list(session: Session, project: str | None) -> DatasetList:
    """The datasets of a project (None: of all) by name."""
    rows, _ = datasets.page(session, project=project, page_size=1000, page_token=None)
    rows.sort(key=lambda row: row.name)
    return DatasetList(now(session), rows)


def dataset(session: Session, key: str, project: str, listed: str | None) -> DatasetPage:
    """One dataset with its profile, and the sweeps over it in the project `listed` (None: in all)."""
    row = datasets.get(session, key, project)
    of_project = true() if listed is None else Sweep.project == listed
    sweeps_of = list(
        session.scalars(select(Sweep).where(Sweep.dataset_id == row.id, of_project).order_by(Sweep.id.desc()).limit(20))
    )
    losses = baselines_nats(row)
    highest = max(losses.values(), default=1.0) or 1.0
    bars = {name: round(1000 * loss / highest, 1) for name, loss in losses.items()}
    return DatasetPage(
        now=now(session),
        dataset=row,
        sweeps=sweeps_of,
        implications=implications(row).implications,
        bars=bars,
        splits=charts.segments(_sizes(row)),
    )


def _sizes(row: Dataset) -> dict[str, float]:
    return {split: float(facts.get("tokens") or facts.get("examples") or 0) for split, facts in row.parts.items()}
