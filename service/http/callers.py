"""Who makes the request that a route answers, and that it reaches what its path names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Depends, Header, Request
from sqlalchemy.orm import Session

from service.auth.access import PROJECT_HEADER, Caller
from service.database.access_models import Token, Webhook
from service.database.checkpoint_models import Checkpoint
from service.database.models import Dataset, Sweep, Trial, Worker
from service.errors import NotFoundError, Problem, UnprocessableError
from service.http.dependencies import Services, services_of

_NamedProject = Annotated[
    str | None,
    Header(
        alias=PROJECT_HEADER,
        max_length=64,
        description="the project to work in; needed only with a token of all projects, for another than `default`",
    ),
]


def get_caller(request: Request) -> Caller:
    """Who makes this request."""
    return request.state.caller


async def _caller(request: Request) -> Caller:
    # Asynchronous, as what is not is sent to a thread.
    return get_caller(request)


CallerDep = Annotated[Caller, Depends(_caller)]
"""The type of a route's parameter that takes the caller."""

_OWNED: Mapping[str, tuple[str, Any]] = {
    "sweep": ("sweep", Sweep),
    "sweep_id": ("sweep", Sweep),
    "trial": ("trial", Trial),
    "dataset": ("dataset", Dataset),
    "checkpoint": ("checkpoint", Checkpoint),
    "webhook": ("webhook", Webhook),
    "worker": ("worker", Worker),
}
"""Parameter of a path -> what it is the id of, and the table that says whose that is."""

_NOT_OWNED = frozenset({"attempt", "number", "name", "path", "project", "token"})
"""Parts of what another parameter names, names of what everybody may see, and what its routes hold apart themselves."""


def project_of(session: Session, request: Request) -> str | None:
    """The project of what the request's path names, or else of its caller; None: what is named belongs to all."""
    caller, named = get_caller(request), request.path_params
    if caller.bound_to is not None:
        return caller.project
    if "project" in named:
        return str(named["project"])
    tables = {**{parameter: table for parameter, (_, table) in _OWNED.items()}, "token": Token}
    for parameter, value in named.items():
        if parameter in tables:
            found = session.execute(sa.select(tables[parameter].project).where(tables[parameter].id == value)).first()
            if found is not None:
                return found[0]
    return caller.project


async def within_project(request: Request, named_project: _NamedProject = None) -> None:
    """A dependency of every router: what a path names must be in the caller's project, or it answers 404.

    A parameter of which nobody has said whose it is answers 404 to every token of one project.
    """
    caller, services = get_caller(request), services_of(request)
    if "project" in request.query_params:
        # Whoever asks so would take the answer, of all projects, for that of one.
        remedy = f"name it by the header {PROJECT_HEADER}, or by LAYERSWEEP_PROJECT"
        problem = Problem("/project", "no query names a project", remedy)
        raise UnprocessableError(f"the query cannot name a project: {remedy}", problems=[problem])
    if caller.named is not None:
        await services.access.check_project(caller.named)
    bound_to = caller.bound_to
    if bound_to is None:
        return
    for parameter, value in request.path_params.items():
        if parameter in _NOT_OWNED:
            continue
        if parameter not in _OWNED:
            raise NotFoundError(f"{parameter} {value} belongs to no project that this token reaches")
        noun, table = _OWNED[parameter]
        query = sa.select(table.project).where(table.id == value)
        owner = await services.read(lambda session, query=query: session.scalar(query))
        if owner not in (None, bound_to) and not await _is_shared(services, table, value):
            raise NotFoundError(f"there is no {noun} {value}")


async def _is_shared(services: Services, table: Any, row_id: str) -> bool:
    if table is not Dataset:
        return False
    query = sa.select(Dataset.builtin).where(Dataset.id == row_id)
    return bool(await services.read(lambda session: session.scalar(query)))
