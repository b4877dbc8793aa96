"""The target of a sweep: the one that its document names, on the first living worker that can serve the sweep."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.capabilities import Capabilities
from layers.labels import missing_labels, shown_labels
from layers.parameter import Scalar
from layers.results_version import UNSAID
from layers.space.allowed_time import AllowedTime
from layers.space.document import PointError, Space
from service.common.states import SweepState
from service.database.json_columns import RegisteredTarget
from service.database.models import Sweep, Worker
from service.events import events
from service.leases import workers

MAX_PROBED_POINTS = 1_000
FEWEST_PROBED_POINTS = 20
"""Points that a target is asked about however long that takes."""
SECONDS = 3.0
"""Of this thread's CPU time, after which no further points are looked at for any target."""

WAITING = "waiting for a worker"
_OF_ITS_VERSION = f"{WAITING} with results of version"


@dataclass(frozen=True, slots=True)
class Resolution:
    """A target's capabilities with its `key`; or None and what the sweep waits for."""

    target: RegisteredTarget | None
    waits_for: str | None


def columns(target: RegisteredTarget) -> dict[str, object]:
    """What the row of a sweep has of its target."""
    return {"target": target, "target_key": target["key"], "results_version": target.get("results_version")}


def offered(session: Session, alive_seconds: float, sweep: Sweep) -> list[RegisteredTarget]:
    """The targets of the workers that are alive, serve the sweep's project and have the labels that it asks for, each
    once, those of the first worker first.

    Of workers that differ in their `RESULTS_VERSION` the newest counts: the others are about to be upgraded.
    """
    alive = session.execute(
        sa.select(Worker.targets, Worker.labels)
        .where(workers.is_alive(alive_seconds), workers.serves(sweep.project))
        .order_by(Worker.id)
    )
    found: dict[str, RegisteredTarget] = {}
    for targets, worker_labels in alive:
        for target in () if missing_labels(sweep.labels or {}, worker_labels) else targets:
            if target.get("build_only"):
                continue
            known = found.get(target["key"])
            if known is None or workers.results_version_of(known) < workers.results_version_of(target):
                found[target["key"]] = target
    return list(found.values())


def waits_for(runtime: str | None, labels: Mapping[str, str]) -> str:
    """What a sweep waits for while no worker has the runtime and the labels that it asks for."""
    requested = [f"runtime {runtime}"] if runtime else []
    if labels:
        requested.append(f"the label{'s' if len(labels) > 1 else ''} {shown_labels(labels)}")
    return f"{WAITING} with {' and '.join(requested)}" if requested else WAITING


def explain_missing_workers(session: Session, alive_seconds: float) -> int:
    """Say of active sweeps that only workers of another `RESULTS_VERSION` are left, or no longer; return of how many.

    Those are not given the sweep's trials. Workers without a label that it asks for do not count. Safe to call from
    several processes.
    """
    active = session.execute(
        sa.select(
            Sweep.id,
            Sweep.project,
            sa.func.coalesce(Sweep.target_key, ""),
            Sweep.labels,
            Sweep.results_version,
            Sweep.reason,
        )
        .where(Sweep.state == SweepState.ACTIVE, Sweep.target_key.is_not(None))
        .order_by(Sweep.id)
    ).all()
    if not active:
        return 0
    alive = session.execute(
        sa.select(Worker.project, Worker.labels, Worker.targets).where(workers.is_alive(alive_seconds))
    ).all()

    @cache
    def versions(project: str, key: str, labels: tuple[tuple[str, str], ...]) -> set[int]:
        return {
            workers.results_version_of(target)
            for served, worker_labels, offers in alive
            if served in (None, project) and not missing_labels(dict(labels), worker_labels)
            for target in offers
            if target["key"] == key
        }

    changed = 0
    for sweep_id, project, key, labels, began_with, reason in active:
        # Most sweeps need the same: not each of them is compared with each worker.
        found = versions(project, key, tuple(sorted((labels or {}).items())))
        needed = began_with or UNSAID
        lacks = _lacks_version(needed, found) if found and needed not in found else None
        if lacks != reason and (lacks is not None or (reason or "").startswith(_OF_ITS_VERSION)):
            changed += _write_reason(session, sweep_id, key, lacks)
    return changed


def _lacks_version(needed: int, found: Collection[int]) -> str:
    others = ", ".join(str(version) for version in sorted(found))
    return (
        f"{_OF_ITS_VERSION} {needed}, which it began with: those that are alive measure by version {others}, and one "
        "sweep compares results of one version. Start such a worker, or :clone the sweep to measure it anew"
    )


def _write_reason(session: Session, sweep_id: str, key: str, reason: str | None) -> bool:
    written = session.scalar(
        sa.update(Sweep)
        .where(Sweep.id == sweep_id, Sweep.state == SweepState.ACTIVE, Sweep.reason.is_distinct_from(reason))
        .values(reason=reason)
        .returning(Sweep.id)
        .execution_options(synchronize_session=False)
    )
    if written is not None:
        events.append(session, sweep_id, "sweep.target", data={"target": key, "waits_for": reason})
    return written is not None


def resolve(
    space: Space, runtime: str | None, labels: Mapping[str, str], targets: Sequence[RegisteredTarget]
) -> Resolution:
    """The first of `targets`, of workers with the labels, that has the runtime (None: any) and supports some point of
    the space."""
    wanted = [target for target in targets if runtime is None or target["runtime"] == runtime]
    if not wanted:
        return Resolution(None, waits_for(runtime, labels))
    lacking: list[str] = []
    allowed = AllowedTime(SECONDS)
    for target in wanted:
        reason = _unsupported(space, target, allowed)
        if reason is None:
            return Resolution(target, None)
        lacking.append(f"{target['key']}: {reason}")
    points = "a point of the space" + (", of the few that could be looked at in time" if allowed.is_over else "")
    return Resolution(None, f"{WAITING} that supports {points} ({'; '.join(lacking)})")


def _unsupported(space: Space, target: Capabilities, allowed: AllowedTime) -> str | None:
    """Why the target refuses every point that it was asked about; None if it takes one, or rules refuse them all.

    Of a sparse space perhaps none that is looked at keeps the rules: that says nothing against the target.
    """
    reason = None
    for looked_at, chosen in enumerate(_points(space)):
        if looked_at >= FEWEST_PROBED_POINTS and allowed.is_over:
            break
        try:
            values = space.resolve(chosen)
        except PointError:
            continue
        rejection = space.judge(values, target)
        if rejection is None:
            return None
        if rejection.rule == "target":
            reason = rejection.message
    return reason


def _points(space: Space) -> Iterator[Mapping[str, Scalar]]:
    points = space.points()
    if points is not None and points <= MAX_PROBED_POINTS:
        yield from space.enumerate()
        return
    source = random.Random(0)
    for _ in range(MAX_PROBED_POINTS):
        yield space.sample(source)
