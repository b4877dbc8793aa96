"""Who changed what: one record a change, written in the transaction of the change itself."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.common.ids import new_id
from service.common.paging import newest_page
from service.database.access_models import AuditRecord
from service.database.sessions import now


def record(
    session: Session,
    *,
    actor: str,
    token_id: str | None,
    project: str | None,
    action: str,
    subject: str,
    request_id: str | None,
    address: str | None = None,
) -> None:
    """Note a change. `action` is `<noun>.<verb>`, `subject` the id or name of what was changed."""
    session.add(
        AuditRecord(
            id=new_id(),
            created_at=now(session),
            actor=actor,
            token_id=token_id,
            project=project,
            action=action,
            subject=subject,
            request_id=request_id,
            address=address,
        )
    )


def page(
    session: Session, *, project: str | None, page_size: int, page_token: str | None
) -> tuple[list[AuditRecord], str | None]:
    """Records, the newest first, and the token of the next page."""
    statement = sa.select(AuditRecord)
    if project is not None:
        statement = statement.where(AuditRecord.project == project)
    return newest_page(session, statement, AuditRecord.id, page_size=page_size, page_token=page_token)
