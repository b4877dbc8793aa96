"""Webhooks and their deliveries: for the scope `admin`."""

from __future__ import annotations

from collections.abc import Callable

from anyio import to_thread
from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from service.auth.scopes import ScopedRoute, needs_scope
from service.common import schemas
from service.database.access_models import Webhook, WebhookDelivery
from service.events import schemas as event_schemas
from service.events import server_key, webhooks
from service.http.dependencies import ServicesDep
from service.http.error_handlers import documented
from service.http.page_reads import PageReadDep
from service.http.write_requests import UnkeyedWriteRequestDep, WriteRequest, WriteRequestDep

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=ScopedRoute)


@router.post("", status_code=201, response_model=event_schemas.CreatedWebhook, responses=documented(409))
@needs_scope("admin")
async def create_webhook(body: event_schemas.NewWebhook, call: WriteRequestDep) -> Response:
    """Tell a URL of the states of a project's sweeps. The answer holds the secret, which is shown this once."""
    allowed = call.services.settings.webhook_allowed_networks

    def make(session: Session) -> Webhook:
        return webhooks.create(
            session,
            project=call.project,
            url=body.url,
            events=body.events,
            made_by=call.caller.name,
            allowed=allowed,
        )

    return await _with_secret(call, "webhook.create", make, status=201, subject=None)


@router.get("")
@needs_scope("admin")
def list_webhooks(pages: PageReadDep) -> schemas.Page[event_schemas.Webhook]:
    """List webhooks, the newest first."""
    return pages.answer(
        lambda session: webhooks.page(session, project=pages.project, page_size=pages.size, page_token=pages.token),
        event_schemas.Webhook.model_validate,
    )


@router.get("/{webhook}")
@needs_scope("admin")
def get_webhook(webhook: str, services: ServicesDep) -> event_schemas.Webhook:
    """One webhook."""
    return event_schemas.Webhook.model_validate(services.database.read(lambda session: webhooks.get(session, webhook)))


@router.patch("/{webhook}", response_model=event_schemas.Webhook)
@needs_scope("admin")
async def change_webhook(webhook: str, body: event_schemas.WebhookChange, call: UnkeyedWriteRequestDep) -> Response:
    """Change a webhook's URL, what it is told of, or whether it is told."""
    allowed = call.services.settings.webhook_allowed_networks

    def make(session: Session) -> event_schemas.Webhook:
        row = webhooks.change(session, webhook, url=body.url, events=body.events, enabled=body.enabled, allowed=allowed)
        return event_schemas.Webhook.model_validate(row)

    return await call.answer("webhook.change", make, subject=webhook)


@router.delete("/{webhook}", status_code=204)
@needs_scope("admin")
async def delete_webhook(webhook: str, call: UnkeyedWriteRequestDep) -> Response:
    """Delete a webhook with its deliveries; nothing more is sent to it."""
    return await call.done("webhook.delete", lambda session: webhooks.delete(session, webhook), subject=webhook)


@router.post("/{webhook}:rotate", response_model=event_schemas.CreatedWebhook)
@needs_scope("admin")
async def rotate_webhook(webhook: str, call: WriteRequestDep) -> Response:
    """Give a webhook another secret, shown this once. Whatever is sent from now on is signed with it."""
    return await _with_secret(
        call, "webhook.rotate", lambda session: webhooks.rotate(session, webhook), status=200, subject=webhook
    )


@router.post("/{webhook}:ping", response_model=event_schemas.WebhookDelivery, responses=documented(409))
@needs_scope("admin")
async def ping_webhook(webhook: str, call: WriteRequestDep) -> Response:
    """Send a message of the type `webhook.ping`, to try a webhook out. Its deliveries say how it went."""
    return await call.answer(
        "webhook.ping",
        lambda session: event_schemas.WebhookDelivery.model_validate(webhooks.ping(session, webhook)),
        subject=webhook,
    )


@router.get("/{webhook}/deliveries")
@needs_scope("admin")
def list_webhook_deliveries(webhook: str, pages: PageReadDep) -> schemas.Page[event_schemas.WebhookDelivery]:
    """List what a webhook was and will be told, the newest first, with how it answered."""

    def read(session: Session) -> tuple[list[WebhookDelivery], str | None]:
        webhooks.get(session, webhook)
        return webhooks.deliveries(session, webhook, page_size=pages.size, page_token=pages.token)

    return pages.answer(read, event_schemas.WebhookDelivery.model_validate)


@router.post(
    "/{webhook}/deliveries/{delivery}:resend", response_model=event_schemas.WebhookDelivery, responses=documented(409)
)
@needs_scope("admin")
async def resend_webhook_delivery(webhook: str, delivery: str, call: WriteRequestDep) -> Response:
    """Send a delivery that has ended once more, with the same id: a receiver that has seen it knows it."""
    return await call.answer(
        "webhook.resend",
        lambda session: event_schemas.WebhookDelivery.model_validate(webhooks.resend(session, webhook, delivery)),
        subject=delivery,
    )


async def _with_secret(
    call: WriteRequest, action: str, make: Callable[[Session], Webhook], *, status: int, subject: str | None
) -> Response:
    """Answer with a webhook and its secret."""
    services = call.services
    key = await to_thread.run_sync(
        server_key.read, services.settings, lambda: services.database.read(webhooks.any_exist)
    )

    def made(session: Session) -> tuple[event_schemas.CreatedWebhook, str]:
        row = make(session)
        created = event_schemas.CreatedWebhook(**event_schemas.Webhook.model_validate(row).__dict__, secret=None)
        return created, webhooks.secret_of(key, row.id, row.salt)

    return await call.answer_with_secret(action, made, field="secret", status=status, subject=subject)
