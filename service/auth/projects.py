"""Projects: what separates one team's sweeps, datasets and tokens from another's."""

from __future__ import annotations

import re

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database.access_models import Project, Token, Webhook
from service.database.checkpoint_models import Checkpoint
from service.database.models import Dataset, Sweep
from service.database.sessions import now
from service.errors import ConflictError, ForbiddenError, NotFoundError, Problem, UnprocessableError

DEFAULT = "default"
"""The project of callers who name none. It is always there."""

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def create(session: Session, name: str) -> Project:
    """Store a project. Raises ConflictError if it is there, UnprocessableError for a name that will not do."""
    if not NAME_PATTERN.fullmatch(name):
        remedy = "use 1 to 63 of a-z, 0-9 and '-', beginning with a letter or digit"
        raise UnprocessableError(
            f"{name!r} cannot name a project: {remedy}", problems=[Problem("/name", "not a project's name", remedy)]
        )
    if find(session, name) is not None:
        raise ConflictError(f"there is a project {name!r} already")
    project = Project(name=name, created_at=now(session))
    session.add(project)
    session.flush()
    return project


def find(session: Session, name: str) -> Project | None:
    return session.get(Project, name)


def get(session: Session, name: str) -> Project:
    """The project of this name. Raises NotFoundError."""
    project = find(session, name)
    if project is None:
        raise NotFoundError(f"there is no project {name!r}: `layersweep project create` makes one")
    return project


def allowed_priority(session: Session, name: str, wanted: int | None) -> int:
    """The priority that a sweep of the project gets that asks for one, or for none.

    Raises ForbiddenError if sweeps of the project may not have it.
    """
    project = find(session, name)
    highest = None if project is None else project.max_priority
    if wanted is None:
        return 0 if highest is None else min(0, highest)
    if highest is not None and wanted > highest:
        remedy = f"at most {highest}; an administrator can allow more (`layersweep project limit`)"
        raise ForbiddenError(
            f"sweeps of the project {name!r} have a priority of at most {highest}",
            problems=[Problem("/priority", f"{wanted} is too high for this project", remedy)],
        )
    return wanted


def every(session: Session, only: str | None) -> list[Project]:
    """All projects by name; or `only` that one."""
    statement = sa.select(Project).order_by(Project.name)
    return list(session.scalars(statement if only is None else statement.where(Project.name == only)))


def delete(session: Session, name: str) -> None:
    """Delete an empty project. Raises NotFoundError, and ConflictError if something is in it."""
    project = get(session, name)
    if name == DEFAULT:
        raise ConflictError(f"the project {DEFAULT!r} cannot be deleted: it serves callers who name no project")
    holdings = (
        (Sweep, "sweeps"),
        (Dataset, "datasets"),
        (Checkpoint, "checkpoints"),
        (Token, "tokens"),
        (Webhook, "webhooks"),
    )
    for table, what in holdings:
        if session.scalar(sa.select(table.id).where(table.project == name).limit(1)) is not None:
            raise ConflictError(f"the project {name!r} has {what}: delete or revoke what is in it first")
    session.delete(project)
    session.flush()
