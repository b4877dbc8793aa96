"""What decides which trials a worker may be given. It never changes: a worker that starts again is another one."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from service.database.constant_rows import ConstantRows
from service.database.models import Worker
from service.leases.workers import results_version_of

_MOST = 4096


@dataclass(frozen=True, slots=True)
class Claimant:
    """A worker that claims. Workers that are equal here may be given the same trials."""

    project: str | None
    """The project whose trials it claims; None: those of all."""
    results_version: int
    target_keys: tuple[str, ...]
    """The targets for which it claims."""
    labels: tuple[tuple[str, str], ...]

    def parameters(self) -> dict[str, object]:
        """What statements of `service.leases.statements` are given of it."""
        return {
            "of_project": self.project,
            "results_version": self.results_version,
            "target_keys": self.target_keys,
            "worker_labels": dict(self.labels),
        }


def find(connection: sa.Connection, worker_id: str) -> Claimant | None:
    """The worker, even one that has signed off; None if there is none."""
    return _CLAIMANTS.get(connection, worker_id)


def known(worker_id: str) -> Claimant | None:
    """The worker, if this process has read it before."""
    return _CLAIMANTS.known(worker_id)


def _read(connection: sa.Connection, worker_id: str) -> Claimant | None:
    row = connection.execute(
        sa.select(Worker.project, Worker.targets, Worker.labels).where(Worker.id == worker_id)
    ).one_or_none()
    if row is None:
        return None
    keys = tuple(target["key"] for target in row.targets if not target.get("build_only"))
    return Claimant(row.project, results_version_of(row.targets[0]), keys, tuple(sorted(row.labels.items())))


_CLAIMANTS = ConstantRows(_read, _MOST)
