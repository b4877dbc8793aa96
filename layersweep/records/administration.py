"""The shapes of what administrators are answered, as in `records`: projects, tokens, the audit, webhooks."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from layersweep.json_values import JsonObject


class ProjectRecord(TypedDict):
    name: str
    max_running_trials: NotRequired[int | None]
    max_priority: NotRequired[int | None]
    created_at: str


class TokenRecord(TypedDict):
    id: str
    name: str
    project: str | None
    scopes: list[str]
    made_by: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class WhoAmIRecord(TypedDict):
    """`project` is null if the token reaches all of them."""

    name: str
    token_id: str | None
    project: str | None
    scopes: list[str]


class CreatedTokenRecord(TokenRecord):
    token: str | None


class AuditRecord(TypedDict):
    id: str
    created_at: str
    actor: str
    token_id: str | None
    project: str | None
    action: str
    subject: str
    request_id: str | None
    address: str | None


class WebhookRecord(TypedDict):
    id: str
    project: str
    url: str
    events: list[str]
    enabled: bool
    made_by: str
    created_at: str


class CreatedWebhookRecord(WebhookRecord):
    secret: str | None


class WebhookDeliveryRecord(TypedDict):
    """`state` is pending, delivered or failed; `id` is what the receiver sees as `webhook-id`."""

    id: str
    state: Literal["pending", "delivered", "failed"]
    body: JsonObject
    tries: int
    status: int | None
    last_error: str | None
    due_at: str
    created_at: str
    ended_at: str | None
