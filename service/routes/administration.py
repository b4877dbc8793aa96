"""Tokens, projects and the audit record: for the scope `admin`."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from service.auth import audit, projects, tokens
from service.auth import schemas as auth_schemas
from service.auth.scopes import ScopedRoute, needs_scope
from service.common import schemas
from service.fleet import quotas
from service.http.callers import CallerDep
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.http.page_reads import PageReadDep
from service.http.write_requests import UnkeyedWriteRequestDep, WriteRequestDep

router = APIRouter(prefix="/v1", tags=["administration"], route_class=ScopedRoute)


@router.post("/tokens", status_code=201, response_model=auth_schemas.CreatedToken, responses=documented(409))
@needs_scope("admin")
async def create_token(body: auth_schemas.NewToken, call: WriteRequestDep) -> Response:
    """Make a token. The answer holds it; it is stored nowhere, and nobody can read it again."""
    project = body.project
    if "project" not in body.model_fields_set:
        project = call.caller.lists
    call.caller.check_may_make_tokens_of(project)
    new = tokens.NewToken(body.name, body.scopes, project, body.expires_in_days)

    def make(session: Session) -> tuple[auth_schemas.CreatedToken, str]:
        row, secret = tokens.create(session, new, made_by=call.caller.name)
        return auth_schemas.CreatedToken(**auth_schemas.Token.model_validate(row).__dict__, token=None), secret

    answer = await call.answer_with_secret("token.create", make, field="token", status=201)
    call.services.access.forget()
    return answer


@router.get("/whoami")
@needs_scope("read", "work")
def who_am_i(caller: CallerDep) -> auth_schemas.WhoAmI:
    """Say whom the token belongs to, and what it may do. Any valid token may ask."""
    return auth_schemas.WhoAmI(
        name=caller.name, token_id=caller.token_id, project=caller.bound_to, scopes=sorted(caller.scopes)
    )


@router.get("/tokens")
@needs_scope("admin")
def list_tokens(pages: PageReadDep) -> schemas.Page[auth_schemas.Token]:
    """List tokens, the newest first; those that expired or were revoked, too."""
    return pages.answer(
        lambda session: tokens.page(session, project=pages.project, page_size=pages.size, page_token=pages.token),
        auth_schemas.Token.model_validate,
    )


@router.delete("/tokens/{token}", status_code=204)
@needs_scope("admin")
async def revoke_token(token: str, call: UnkeyedWriteRequestDep) -> Response:
    """Revoke a token: it stops working. Other processes of the service know it within two seconds."""
    answer = await call.done(
        "token.revoke", lambda session: tokens.revoke(session, token, call.caller.bound_to), subject=token
    )
    call.services.access.forget()
    return answer


@router.post("/projects", status_code=201, response_model=auth_schemas.Project, responses=documented(409))
@needs_scope("admin")
async def create_project(body: auth_schemas.NewProject, call: WriteRequestDep) -> Response:
    """Make a project. This takes a token of all projects."""
    call.caller.check_reaches_all_projects()
    return await call.answer(
        "project.create",
        lambda session: auth_schemas.Project.model_validate(projects.create(session, body.name)),
        status=201,
        subject=body.name,
    )


@router.get("/projects")
@needs_scope("read")
def list_projects(services: ServicesDep, caller: CallerDep) -> schemas.Page[auth_schemas.Project]:
    """List the projects that the caller reaches."""
    rows = services.database.read(lambda session: projects.every(session, caller.bound_to))
    return schemas.Page(items=[auth_schemas.Project.model_validate(row) for row in rows])


@router.patch("/projects/{project}", response_model=auth_schemas.Project, responses=documented(404))
@needs_scope("admin")
async def change_project(project: str, body: auth_schemas.Quotas, call: UnkeyedWriteRequestDep) -> Response:
    """Change what a project may use. This takes a token of all projects. What runs already goes on."""
    call.caller.check_reaches_all_projects()
    changes = cast("quotas.Change", body.model_dump(exclude_unset=True))
    return await call.answer(
        "project.change",
        lambda session: auth_schemas.Project.model_validate(quotas.change(session, project, changes)),
        subject=project,
    )


@router.delete("/projects/{project}", status_code=204, responses=documented(409))
@needs_scope("admin")
async def delete_project(project: str, call: UnkeyedWriteRequestDep) -> Response:
    """Delete a project that holds no sweep, no dataset and no token. This takes a token of all projects."""
    call.caller.check_reaches_all_projects()
    answer = await call.done("project.delete", lambda session: projects.delete(session, project), subject=project)
    call.services.access.forget()
    return answer


@router.get("/audit")
@needs_scope("admin")
def list_audit_records(pages: PageReadDep) -> schemas.Page[auth_schemas.AuditRecord]:
    """List who changed what, the newest first. What workers do is with the attempts of trials, not here."""
    return pages.answer(
        lambda session: audit.page(session, project=pages.project, page_size=pages.size, page_token=pages.token),
        auth_schemas.AuditRecord.model_validate,
    )
