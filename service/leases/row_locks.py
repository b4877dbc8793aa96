"""The one order in which PostgreSQL's rows are locked. Whoever keeps to it never waits in a circle.

    sweeps, by id  →  quotas of projects, by name  →  trials, by id  →  what belongs to a trial  →  workers, by id

A transaction locks all its sweeps with one ordered statement before anything else, then trials. What waits for no lock
(`SKIP LOCKED`, or a lock that is only tried) may come in any order. Small writes share a transaction
(`service.database.group_commit`), so each says beforehand what it will lock (`Needs`): the locks of all are taken
first, sorted, and the writes run in the order of their trials, though finishes that claim run at once. One that would
have to wait for another process lets the others go first, once.
That a worker lives is written last (`service.database.sessions.at_end`).

A write that runs alone takes its locks when it asks for them here. SQLite has one writer and needs none of this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from service.database.group_commit import HELD, Needs
from service.leases import claimants
from service.leases import statements as sql
from service.leases.claimants import Claimant
from service.leases.claiming import lapses, room
from service.leases.claiming import statements as claiming
from service.leases.claiming.turns import Waiting, turns

_IDS = postgresql.ARRAY(sa.String)


def _locking(how: str) -> sa.TextClause:
    """Sweeps that are given, or have one of the trials that are given: locked, each with these trials of it."""
    return sa.text(
        "SELECT sweeps.id AS sweep, trials.id AS trial FROM sweeps "
        "LEFT JOIN trials ON trials.sweep_id = sweeps.id AND trials.id = ANY(:of_trials) "
        "WHERE sweeps.id = ANY(ARRAY(SELECT sweep_id FROM trials WHERE id = ANY(:of_trials) "
        f"UNION SELECT unnest(CAST(:ids AS VARCHAR[])))) ORDER BY sweeps.id FOR NO KEY UPDATE OF sweeps {how}"
    ).bindparams(sa.bindparam("of_trials", type_=_IDS), sa.bindparam("ids", type_=_IDS))


_LOCK_SWEEPS, _LOCK_FREE_SWEEPS = _locking(""), _locking("SKIP LOCKED")


def _locking_trials(how: str) -> sa.TextClause:
    return sa.text(f"SELECT id FROM trials WHERE id = ANY(:of_trials) ORDER BY id FOR NO KEY UPDATE {how}").bindparams(
        sa.bindparam("of_trials", type_=_IDS)
    )


_LOCK_TRIALS, _LOCK_FREE_TRIALS = _locking_trials(""), _locking_trials("SKIP LOCKED")

_CLAIMING = (
    sa.text(
        "SELECT id, "
        "pg_try_advisory_xact_lock(hashtextextended(id, 1)) AS claims_here_alone, "
        "(SELECT count(*) FROM trials WHERE trials.id = ANY(:finished) AND trials.worker_id = workers.id) AS finished "
        "FROM workers WHERE signed_off_at IS NULL AND id = ANY(ARRAY(SELECT unnest(CAST(:claiming AS VARCHAR[])) "
        "UNION SELECT worker_id FROM trials WHERE id = ANY(:finished)))"
    )
    .bindparams(sa.bindparam("claiming", type_=_IDS), sa.bindparam("finished", type_=_IDS))
    .columns(
        sa.column("id", sa.String),
        sa.column("claims_here_alone", sa.Boolean),
        sa.column("finished", sa.Integer),
    )
)
"""The workers that claim, some of them with the finish of a trial. What a worker holds is counted against its slots, so
its claims come one after the other: one that comes while another transaction claims for it is given nothing."""


_LOCK_QUOTAS = sa.text(
    "SELECT pg_advisory_xact_lock(hashtextextended(name, 2)) FROM unnest(CAST(:names AS VARCHAR[])) AS name"
).bindparams(sa.bindparam("names", type_=_IDS))
"""What a project's sweeps run is counted against its quota: claims in such projects come one after the other."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a transaction has locked for all the writes that share it."""

    sweeps: frozenset[str] = frozenset()
    trials: frozenset[str] = frozenset()
    """Whose sweeps are locked."""
    busy: frozenset[str] = frozenset()
    """The workers for which another transaction claims now."""
    looks_for_lapsed: frozenset[Claimant] = frozenset()
    """Such workers are given lapsed leases, if there are any."""


class _LeaseNeeds(Needs):
    @classmethod
    def lock(cls, connection: sa.Connection, needs: Sequence[Needs]) -> Held:
        held, _ = _locked(connection, needs, _LOCK_SWEEPS, _LOCK_TRIALS)
        # Of a trial that there is not, nothing can be locked.
        trials = frozenset(need.trial for need in needs if isinstance(need, ChangesTrial))
        return replace(held, trials=trials)

    @classmethod
    def lock_free(cls, connection: sa.Connection, needs: Sequence[Needs]) -> tuple[Held, Collection[Needs]]:
        held, covered = _locked(connection, needs, _LOCK_FREE_SWEEPS, _LOCK_FREE_TRIALS)
        return held, covered


def _locked(
    connection: sa.Connection, needs: Sequence[Needs], lock_sweeps: sa.TextClause, lock_trials: sa.TextClause
) -> tuple[Held, Collection[Needs]]:
    """What the statements locked of what is needed, and the needs that they cover."""
    if connection.dialect.name != "postgresql":
        return Held(), needs
    changed = sorted({need.trial for need in needs if isinstance(need, ChangesTrial)})
    finished = sorted({need.trial for need in needs if isinstance(need, FinishesAndClaims)})
    claims = Counter[str]()
    for need in needs:
        if isinstance(need, Claims):
            claims[need.worker] += need.at_most
    wanted, quotas, held = set[str](), set[str](), Held()
    if claims or finished:
        wanted, quotas, held = _claimable_sweeps(connection, claims, finished)
    sweeps, trials = set[str](), set[str | None]()
    if changed or wanted:
        for row in connection.execute(lock_sweeps, {"of_trials": changed, "ids": sorted(wanted)}):
            sweeps.add(row.sweep)
            trials.add(row.trial)
    if quotas:
        connection.execute(_LOCK_QUOTAS, {"names": sorted(quotas)}).close()
    renewed = {need.trial for need in needs if isinstance(need, RenewsLease)}
    if finished and len(needs) > 1:
        # A claim then comes before a change of another trial, which must not wait any more.
        of_trials = sorted(renewed | {trial for trial in trials if trial is not None})
        free = set(connection.scalars(lock_trials, {"of_trials": of_trials}))
        trials, renewed = trials & free, renewed & free
    held = replace(held, sweeps=frozenset(sweeps), trials=frozenset(trial for trial in trials if trial is not None))
    claims_are_covered = not wanted or bool(wanted & sweeps)
    covered = {
        need
        for need in needs
        if (isinstance(need, RenewsLease) and need.trial in renewed)
        or (isinstance(need, ChangesTrial) and need.trial in held.trials)
        or (isinstance(need, Claims) and claims_are_covered)
    }
    return held, covered


@dataclass(frozen=True, slots=True)
class RenewsLease(_LeaseNeeds):
    """The row of one trial; its sweep is only read."""

    trial: str

    @property
    def order(self) -> str:
        return self.trial


@dataclass(frozen=True, slots=True)
class ChangesTrial(_LeaseNeeds):
    """One trial, and its sweep with the counts and the numbers of events."""

    trial: str

    @property
    def order(self) -> str:
        return self.trial


@dataclass(frozen=True, slots=True)
class FinishesAndClaims(ChangesTrial):
    """One trial with its sweep, and a trial that its worker can take then, not yet known which, with its sweep."""


@dataclass(frozen=True, slots=True)
class Claims(_LeaseNeeds):
    """Trials that a worker can take, not yet known which, and their sweeps."""

    worker: str
    at_most: int = 1

    @property
    def order(self) -> str:
        # After what ends trials, and so makes room in their sweeps: no id begins with a letter behind Z.
        return f"~{self.worker}"


def take(session: Session, *needs: RenewsLease | ChangesTrial | Claims) -> Held | None:
    """Hold what `needs` name until the transaction ends; None if the database needs no locks.

    If writes share the transaction that was done before the first of them.
    """
    connection = session.connection()
    if connection.dialect.name != "postgresql":
        return None
    if HELD not in session.info:
        return _LeaseNeeds.lock(connection, needs)
    held = cast("Held | None", session.info[HELD])
    if held is None or any(isinstance(need, ChangesTrial) and need.trial not in held.trials for need in needs):
        raise RuntimeError(
            "a write that shares its transaction says beforehand what it changes: see service.leases.row_locks"
        )
    return held


def take_more(session: Session, need: Claims, held: Held) -> Held | None:
    """Hold the sweeps of what can be claimed by now; None if that is nothing else, or others share the transaction.

    It waits for no sweep: those that it holds may come later in the order.
    """
    if HELD in session.info:
        return None
    more, _ = need.lock_free(session.connection(), [need])
    return more if more.sweeps - held.sweeps else None


def take_sweeps(session: Session, sweep_ids: Collection[str]) -> None:
    """Lock these sweeps, in order, before any of their trials."""
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_SWEEPS, {"of_trials": [], "ids": sorted(sweep_ids)}).close()


def _claimable_sweeps(
    connection: sa.Connection, claims: Mapping[str, int], finished: Sequence[str]
) -> tuple[set[str], set[str], Held]:
    """The sweeps of the trials that workers would take now, the projects of these that have quotas, and the workers."""
    rows = connection.execute(_CLAIMING, {"claiming": list(claims), "finished": finished}).all()
    alike: Counter[Claimant] = Counter()
    for row in rows:
        claimant = claimants.find(connection, row.id)
        assert claimant is not None, "its row was read"
        alike[claimant] += claims.get(row.id, 0) + row.finished
    wanted, quotas = set[str](), set[str]()
    looks = frozenset(claimant for claimant in alike if lapses.are_due(connection, claimant))
    for claimant, count in alike.items():
        given = claimant.parameters() | {"most": count}
        found = set(connection.scalars(claiming.LAPSED_SWEEPS, given)) if claimant in looks else set[str]()
        with_turn = connection.execute(claiming.SWEEPS_WITH_TURN, given).all()
        waiting = [Waiting(row.id, row.priority, row.running_count, room.of_sweep(row)) for row in with_turn]
        found.update(turns(waiting, count))
        quotas.update(row.project_with_quota for row in with_turn if row.project_with_quota and row.id in found)
        if not found and claimant in looks:
            found = set(connection.scalars(sql.LAPSED_SWEEPS_OF_TARGETS, given))
        wanted |= found
    busy = frozenset(row.id for row in rows if not row.claims_here_alone)
    return wanted, quotas, Held(busy=busy, looks_for_lapsed=looks)
