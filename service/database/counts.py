"""How many trials of a sweep are in which state: `Sweep.counts` and `running_count`, kept in the same transaction.

Whoever changes a trial's state has locked its sweep before (`service.leases.row_locks`), and it stays locked until the
transaction ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from service.common.states import TrialState
from service.database.base import Document
from service.database.models import Sweep

REPLICATE = "replicate_"
"""Before the state in which replicates are counted."""

_SWEEPS = cast("sa.Table", Sweep.__table__)

# Not for an update of the key: that would wait for every transaction that inserts a row with the sweep's id.
_COUNTS = sa.select(_SWEEPS.c.counts).where(_SWEEPS.c.id == sa.bindparam("of_sweep")).with_for_update(key_share=True)
_STORE = (
    sa.update(_SWEEPS)
    .where(_SWEEPS.c.id == sa.bindparam("of_sweep"))
    .values(
        counts=sa.bindparam("new_counts"),
        running_count=_SWEEPS.c.running_count + sa.bindparam("running", type_=sa.Integer),
    )
)


class moved(FunctionElement[Any]):  # noqa: N801 - used like a function of SQL
    """`moved(counts, before, after, number)` in a statement: the counts once so many trials went from one state to
    another."""

    type = Document
    inherit_cache = True
    name = "moved"


@compiles(moved, "sqlite")
def _moved_sqlite(element: moved, compiler: SQLCompiler, **options: Any) -> str:
    counts, before, after, number = (compiler.process(clause, **options) for clause in element.clauses)
    return (
        f"json_patch({counts}, json_object("
        f"{before}, coalesce(json_extract({counts}, '$.' || {before}), 0) - {number}, "
        f"{after}, coalesce(json_extract({counts}, '$.' || {after}), 0) + {number}))"
    )


@compiles(moved, "postgresql")
def _moved_postgresql(element: moved, compiler: SQLCompiler, **options: Any) -> str:
    counts, before, after, number = (compiler.process(clause, **options) for clause in element.clauses)
    return (
        f"({counts} || jsonb_build_object("
        f"CAST({before} AS TEXT), coalesce(CAST({counts} ->> {before} AS INTEGER), 0) - {number}, "
        f"CAST({after} AS TEXT), coalesce(CAST({counts} ->> {after} AS INTEGER), 0) + {number}))"
    )


def key(state: str, replicate_of: str | None) -> str:
    """Under which name a trial in a state is counted: replicates are counted apart."""
    return state if replicate_of is None else f"{REPLICATE}{state}"


def queued(counts: Mapping[str, int]) -> int:
    """Trials that wait for a worker, further trainings among them."""
    return sum(int(counts.get(f"{kind}{TrialState.QUEUED}", 0)) for kind in ("", REPLICATE))


def replicates_of(counts: Mapping[str, int]) -> int:
    """Further trainings that were asked for and not cut off by the end of the sweep."""
    kept = (state for state in TrialState if state is not TrialState.CANCELLED)
    return sum(int(counts.get(f"{REPLICATE}{state}", 0)) for state in kept)


def add(session: Session, sweep_id: str, changes: Mapping[str, int]) -> None:
    """Add `changes` (state -> how many more; also "reused")."""
    connection = session.connection()
    counts: dict[str, int] = connection.execute(_COUNTS, {"of_sweep": sweep_id}).scalar_one()
    counts = {state: counts.get(state, 0) + changes.get(state, 0) for state in {**counts, **changes}}
    parameters = {"of_sweep": sweep_id, "new_counts": counts, "running": changes.get("running", 0)}
    connection.execute(_STORE, parameters)
