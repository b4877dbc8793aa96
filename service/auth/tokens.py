"""API tokens: made, listed, revoked. Only a token's hash is stored: the token itself is shown once, to its maker."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.auth import projects
from service.common.ids import new_id
from service.common.paging import newest_page
from service.database.access_models import Token
from service.database.sessions import now, now_sql
from service.errors import ConflictError, NotFoundError, Problem, UnprocessableError

Scope = Literal["read", "submit", "work", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

PREFIX = "lsw_"
"""What every token begins with, so that scanners for leaked secrets can know it."""

MIN_SECRET_CHARACTERS = 32
_DAY_SECONDS = 86_400.0
_SEEN_EVERY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class NewToken:
    """What a token is to be. `project` None reaches all projects; `expires_in_days` None never expires."""

    name: str
    scopes: Sequence[Scope]
    project: str | None
    expires_in_days: float | None = None
    secret: str | None = None
    """The token itself, if its maker brings it along: a deployment that is described by a file."""


def create(session: Session, new: NewToken, *, made_by: str) -> tuple[Token, str]:
    """Store a token; return its row and the secret, which is nowhere else.

    Raises NotFoundError for an unknown project, UnprocessableError for scopes or a secret that will not do, and
    ConflictError if that secret is a token already.
    """
    if new.project is not None:
        projects.get(session, new.project)
    unknown = [scope for scope in new.scopes if scope not in SCOPES]
    if unknown or not new.scopes:
        remedy = f"choose from {', '.join(SCOPES)}"
        what = f"{unknown[0]!r} is not a scope" if unknown else "a token needs a scope"
        raise UnprocessableError(what, problems=[Problem("/scopes", what, remedy)])
    secret = new.secret or PREFIX + secrets.token_urlsafe(32)
    if len(secret) < MIN_SECRET_CHARACTERS or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise UnprocessableError(
            f"a token has at least {MIN_SECRET_CHARACTERS} visible ASCII characters: openssl rand -hex 24"
        )
    if find(session, secret) is not None:
        raise ConflictError("this token exists already")
    time = now(session)
    token = Token(
        id=new_id(),
        name=new.name,
        project=new.project,
        scopes=[scope for scope in SCOPES if scope in new.scopes],
        sha256=hash_of(secret),
        made_by=made_by,
        created_at=time,
        expires_at=None if new.expires_in_days is None else time + new.expires_in_days * _DAY_SECONDS,
    )
    session.add(token)
    session.flush()
    return token, secret


def get(session: Session, token_id: str, project: str | None) -> Token:
    """The token with this id, as far as somebody bound to `project` (None: to none) sees it. Raises NotFoundError."""
    token = session.get(Token, token_id)
    if token is None or (project is not None and token.project != project):
        raise NotFoundError(f"there is no token {token_id}")
    return token


def revoke(session: Session, token_id: str, project: str | None) -> Token:
    """Let a token open nothing from now on; revoking twice is fine. Raises NotFoundError."""
    token = get(session, token_id, project)
    if token.revoked_at is None:
        token.revoked_at = now(session)
        session.flush()
    return token


def page(
    session: Session, *, project: str | None, page_size: int, page_token: str | None
) -> tuple[list[Token], str | None]:
    """Tokens, the newest first, and the token of the next page."""
    statement = sa.select(Token)
    if project is not None:
        statement = statement.where(Token.project == project)
    return newest_page(session, statement, Token.id, page_size=page_size, page_token=page_token)


def find(session: Session, secret: str) -> Token | None:
    """The token that this secret is, whether it opens anything or not."""
    return session.scalar(sa.select(Token).where(Token.sha256 == hash_of(secret)))


def any_exists(session: Session) -> bool:
    """True once a token was made, even if all of them are revoked by now."""
    return session.scalar(sa.select(Token.id).limit(1)) is not None


def mark_seen(session: Session, token_id: str) -> None:
    """Note that a token was used, to the minute."""
    statement = (
        sa.update(Token)
        .where(
            Token.id == token_id,
            sa.or_(Token.last_used_at.is_(None), Token.last_used_at < now_sql() - _SEEN_EVERY_SECONDS),
        )
        .values(last_used_at=now_sql())
    )
    session.execute(statement, execution_options={"synchronize_session": False})


def hash_of(secret: str) -> str:
    """SHA-256. A token has 256 random bits: a slow hash would protect nothing more."""
    return hashlib.sha256(secret.encode()).hexdigest()
