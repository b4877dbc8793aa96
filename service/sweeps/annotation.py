"""What people say of a sweep: its name, a note, tags, and whether lists leave it out."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database.json_columns import SweepAnnotated
from service.database.models import Sweep
from service.errors import NotFoundError
from service.events import events
from service.leases import row_locks
from service.sweeps import schemas as sweep_schemas


def annotate(session: Session, sweep_id: str, wanted: sweep_schemas.Annotations) -> Sweep:
    """Change what is given, and keep the rest. Raises NotFoundError."""
    row_locks.take_sweeps(session, [sweep_id])
    sweep = session.get(Sweep, sweep_id, populate_existing=True)
    if sweep is None:
        raise NotFoundError(f"there is no sweep {sweep_id}")
    before = _annotations_of(sweep)
    given = wanted.model_fields_set
    sweep.name = wanted.name if "name" in given else sweep.name
    sweep.note = wanted.note if "note" in given else sweep.note
    sweep.tags = without_repetitions(wanted.tags) if "tags" in given else sweep.tags
    sweep.archived = wanted.archived if "archived" in given else sweep.archived
    after = _annotations_of(sweep)
    if after != before:
        session.flush()
        events.append(session, sweep_id, "sweep.annotated", data=after)
    return session.get_one(Sweep, sweep_id, populate_existing=True)


def without_repetitions(tags: Sequence[str]) -> list[str]:
    """Tags as a sweep has them: in the order in which they were first given."""
    return list(dict.fromkeys(tags))


def has_tag(tag: str) -> sa.ColumnElement[bool]:
    """The condition that a sweep has a tag. Tags hold no quotes, so that they can be found in their text."""
    return sa.cast(Sweep.tags, sa.Text).contains(f'"{tag}"', autoescape=True)


def _annotations_of(sweep: Sweep) -> SweepAnnotated:
    return {"name": sweep.name, "note": sweep.note, "tags": sweep.tags, "archived": sweep.archived}
