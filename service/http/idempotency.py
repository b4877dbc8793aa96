"""A POST that is sent again with the same `Idempotency-Key` is answered as it was the first time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated

import sqlalchemy as sa
from fastapi import Header
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from layersweep.json_values import JsonObject
from service.auth.projects import DEFAULT
from service.database.access_models import IdempotencyKey
from service.database.sessions import now_sql
from service.errors import InFlightError, Problem, UnprocessableError

KEPT_SECONDS = 7 * 24 * 3600.0

Answer = tuple[int, JsonObject]
"""A status and a JSON body."""

IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="the same key with the same body gets the same answer for a week; nothing is done twice",
    ),
]


def request_hash(*parts: bytes | str) -> str:
    """A hash of what makes a request the same: its path and query, its body, ..."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part if isinstance(part, bytes) else part.encode()
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


def once(
    session: Session, key: str | None, hash_of_request: str, make: Callable[[], Answer], *, project: str = DEFAULT
) -> Answer:
    """Return `make()`'s answer, made at most once a key; without a key it is simply made.

    Works inside the transaction that `make` writes in: the answer is kept if and only if its effects are. Errors are
    not kept, as they undo the transaction. Raises UnprocessableError if the key was used for another request,
    InFlightError if another process works on the same one.
    """
    if key is None:
        return make()
    answer = kept(session, project, key, hash_of_request)
    if answer is None:
        answer = make()
        keep(session, project, key, hash_of_request, answer)
    return answer


def kept(session: Session, project: str, key: str, hash_of_request: str) -> Answer | None:
    """The answer that a request with this key was given, if there was one. Raises UnprocessableError, InFlightError."""
    row = session.get(IdempotencyKey, (project, key), populate_existing=True)
    if row is None:
        return None
    if row.request_hash != hash_of_request:
        problem = Problem("", "the Idempotency-Key was used for another request", "use a new key for a new request")
        raise UnprocessableError("this Idempotency-Key was used for another request", problems=[problem])
    if row.status is None or row.body is None:
        raise _in_flight()
    return row.status, row.body


def keep(session: Session, project: str, key: str, hash_of_request: str, answer: Answer) -> None:
    """Keep an answer for whoever sends the same request again. Raises InFlightError if somebody else answers it
    now."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    # On PostgreSQL this waits for the end of a transaction that has inserted the same key.
    created = session.scalar(
        insert(IdempotencyKey)
        .values(
            project=project,
            key=key,
            request_hash=hash_of_request,
            status=answer[0],
            body=answer[1],
            created_at=now_sql(),
        )
        .on_conflict_do_nothing()
        .returning(IdempotencyKey.key)
    )
    if created is None:
        raise _in_flight()


def forget(session: Session, project: str, key: str) -> None:
    """Let the key be used anew: what was answered does not hold any more."""
    chosen = sa.delete(IdempotencyKey).where(IdempotencyKey.project == project, IdempotencyKey.key == key)
    session.execute(chosen, execution_options={"synchronize_session": False})


def forget_old(session: Session) -> int:
    """Delete the keys that are no longer kept; return how many."""
    key = sa.tuple_(IdempotencyKey.project, IdempotencyKey.key)
    # Two processes may do this at once: what one deletes, the other passes by.
    old = _old().with_for_update(skip_locked=True)
    return session.connection().execute(sa.delete(IdempotencyKey).where(key.in_(old))).rowcount


def count_old(session: Session) -> int:
    """How many keys `forget_old` would delete now."""
    return session.scalars(sa.select(sa.func.count()).select_from(_old().subquery())).one()


def _old() -> sa.Select[str, str]:
    return sa.select(IdempotencyKey.project, IdempotencyKey.key).where(
        IdempotencyKey.created_at < now_sql() - KEPT_SECONDS
    )


def _in_flight() -> InFlightError:
    return InFlightError("a request with this Idempotency-Key is in progress: send it again later")
