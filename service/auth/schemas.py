"""Projects, tokens and the audit as they cross HTTP."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from service.common.priorities import Priority
from service.common.schemas import Request, Schema, Timestamp, whole

RunningTrials = Annotated[int, Field(ge=0, le=1_000_000), BeforeValidator(whole)]


class Project(Schema):
    name: str
    max_running_trials: int | None = Field(
        description="its quota: how many trials of its sweeps may run at once; null: any number"
    )
    max_priority: int | None = Field(description="the highest priority that its sweeps may have; null: any")
    created_at: Timestamp


class NewProject(Request):
    # What breaks the pattern is refused where projects are made, in words.
    name: str = Field(
        min_length=1,
        max_length=63,
        json_schema_extra={"pattern": "^[a-z0-9][a-z0-9-]{0,62}$"},
        examples=["vision"],
    )


class Quotas(Request):
    """What a project may use. What is left out stays as it is."""

    max_running_trials: RunningTrials | None = Field(
        default=None,
        description="trials of its sweeps that may run at once; 0: none begins; null: any number",
        examples=[16],
    )
    max_priority: Priority | None = Field(
        default=None,
        description="the highest priority that its sweeps may have: those above it are lowered; null: any",
        examples=[0],
    )


class NewToken(Request):
    name: str = Field(min_length=1, max_length=128, description="for whom or what it is", examples=["ci"])
    scopes: list[Literal["read", "submit", "work", "admin"]] = Field(
        min_length=1, max_length=4, description="submit holds read; admin holds both", examples=[["submit"]]
    )
    project: str | None = Field(
        default=None,
        max_length=64,
        description="the project that it is bound to; null reaches all projects. Left out: the caller's",
        examples=["default"],
    )
    expires_in_days: float | None = Field(default=None, gt=0, le=3650, description="null: never", examples=[90])


class Token(Schema):
    id: str
    name: str
    project: str | None = Field(description="null: all projects")
    scopes: list[str]
    made_by: str
    created_at: Timestamp
    expires_at: Timestamp | None
    revoked_at: Timestamp | None
    last_used_at: Timestamp | None = Field(description="to the minute")


class WhoAmI(Schema):
    """Who the service takes the caller for, and what it may do."""

    name: str = Field(description="of the token; anonymous where the service has none")
    token_id: str | None
    project: str | None = Field(description="the project that the token is bound to; null: it reaches all")
    scopes: list[str] = Field(description="with those that they hold: submit holds read, admin both")


class CreatedToken(Token):
    token: str | None = Field(
        description="the token itself, shown this once; null in a repeated answer to the same Idempotency-Key"
    )


class AuditRecord(Schema):
    """One change, and who made it."""

    id: str
    created_at: Timestamp
    actor: str = Field(description="the name of the token; anonymous where the service had none")
    token_id: str | None
    project: str | None
    action: str = Field(description="<noun>.<verb>, for example sweep.cancel")
    subject: str = Field(description="the id or name of what was changed")
    request_id: str | None
    address: str | None = Field(description="where the request came from; null: the command line on the machine itself")
