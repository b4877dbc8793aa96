"""The tables of who calls: projects, tokens, their audit, webhooks and the keys of repeated requests."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from layersweep.json_values import JsonObject
from service.database.base import Base, Document
from service.database.json_columns import Delivery


class Project(Base):
    """What separates one team's sweeps and datasets from another's."""

    __tablename__ = "projects"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_at: Mapped[float]
    max_running_trials: Mapped[int | None]
    """Its quota: how many trials of its sweeps may run at once, on all workers together. None: any number."""
    max_priority: Mapped[int | None]
    """The highest priority that its sweeps may have. None: any."""


class Token(Base):
    """What lets a caller in. The token itself is stored nowhere: only its hash."""

    __tablename__ = "tokens"
    __table_args__ = (UniqueConstraint("sha256"), Index(None, "project", "id"))

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    project: Mapped[str | None] = mapped_column(String(64))
    """The project that it is bound to; None reaches all of them."""
    name: Mapped[str] = mapped_column(String(128))
    scopes: Mapped[list[str]] = mapped_column(Document)
    sha256: Mapped[str] = mapped_column(String(64))
    made_by: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    last_used_at: Mapped[float | None]
    """To the minute."""


class AuditRecord(Base):
    """Who changed what."""

    __tablename__ = "audit_records"
    __table_args__ = (Index(None, "project", "id"),)

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    created_at: Mapped[float]
    actor: Mapped[str] = mapped_column(String(128))
    """The name of the token; `anonymous` if the service has none yet."""
    token_id: Mapped[str | None] = mapped_column(String(26))
    project: Mapped[str | None] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(200))
    request_id: Mapped[str | None] = mapped_column(String(64))
    address: Mapped[str | None] = mapped_column(String(64))
    """Where the request came from; None for what was done on the machine itself, by the command line."""


class Webhook(Base):
    """Where a project wants to be told that the state of a sweep has changed."""

    __tablename__ = "webhooks"
    __table_args__ = (Index(None, "project", "id"),)

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    project: Mapped[str] = mapped_column(String(64))
    url: Mapped[str] = mapped_column(Text)
    salt: Mapped[str] = mapped_column(String(64))
    """The secret that signs is made from this and the server's key (`webhooks.secret_of`): it is stored nowhere."""
    events: Mapped[list[str]] = mapped_column(Document)
    """Of what it is told: names in `webhooks.EVENTS`."""
    enabled: Mapped[bool] = mapped_column(Boolean)
    """While it is not, nothing is queued or sent."""
    made_by: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[float]


class WebhookDelivery(Base):
    """One message to a webhook: written with the change that it tells of, sent afterwards until it is taken."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(None, "webhook_id", "id"),
        Index(
            "ix_webhook_deliveries_due",
            "due_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
    )

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    body: Mapped[Delivery] = mapped_column(Document)
    state: Mapped[str] = mapped_column(String(16), default="pending")
    """pending, delivered or failed."""
    tries: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[float]
    """When it is to be tried; while a process tries it, when it may be taken from that one."""
    status: Mapped[int | None]
    """The HTTP status of the last answer; None if there was none."""
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[float]
    ended_at: Mapped[float | None]


class IdempotencyKey(Base):
    """The answer that a POST with this key was given."""

    __tablename__ = "idempotency_keys"

    project: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None]
    body: Mapped[JsonObject | None]
    created_at: Mapped[float]
