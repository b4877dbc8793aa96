"""Webhooks: a project's addresses that are told of its sweeps' states, and the outbox of what they are told.

A delivery is written in the transaction of the change that it tells of (`enqueue`, called by `service.events.events`),
so none is lost and none tells of what did not happen. Whoever sends it takes it for a while first (`take`): a process
that dies meanwhile has not lost it, another sends it later. So each is delivered *at least* once.

Signatures are those of the Standard Webhooks specification, version 1: HMAC-SHA256 of `<id>.<timestamp>.<body>`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layersweep.retries import Backoff
from service.auth import projects
from service.common.ids import new_id
from service.common.notifications import WEBHOOKS
from service.common.paging import newest_page
from service.common.states import SweepState
from service.database.access_models import Webhook, WebhookDelivery
from service.database.json_columns import DeliveredPing, DeliveredSweep, Delivery, EventData, SweepChanged
from service.database.models import Confirmation, Sweep
from service.database.sessions import UNSYNCHRONIZED, announce, now, now_sql
from service.errors import ConflictError, NotFoundError, Problem, UnprocessableError
from service.events import addresses
from service.events.addresses import AddressError, Network
from service.events.end_codes import end_code, has_feasible

EVENTS = ("sweep.created", *(f"sweep.{state}" for state in SweepState))
"""What may be subscribed to. `sweep.active`: a sweep was resumed, or a larger budget made it go on."""
TOLD_OF = frozenset({"sweep.created", "sweep.state"})
"""The kinds of a sweep's events that are deliveries."""
PING = "webhook.ping"

SECRET_PREFIX = "whsec_"
MAX_OF_A_PROJECT = 20
BACKOFF = Backoff(first_seconds=10.0, most_seconds=6 * 3600.0, factor=3.0, jitter=0.2)
"""Between the tries of a delivery."""
ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Taken:
    """A delivery that this process may send, until its time is over."""

    id: str
    webhook_id: str
    url: str
    salt: str
    body: bytes
    tries: int
    """With this one: what it is fenced by."""


# --- webhooks ---------------------------------------------------------------------------------------------------------


def create(
    session: Session, *, project: str, url: str, events: Sequence[str], made_by: str, allowed: Sequence[Network]
) -> Webhook:
    """Store a webhook. Raises NotFoundError for an unknown project, UnprocessableError for an address that is not
    called, and ConflictError if the project has as many as it may."""
    projects.get(session, project)
    check(url, allowed)
    have = session.scalar(sa.select(sa.func.count()).select_from(Webhook).where(Webhook.project == project)) or 0
    if have >= MAX_OF_A_PROJECT:
        raise ConflictError(f"the project {project!r} has {have} webhooks, the most that it may: delete one first")
    webhook = Webhook(
        id=new_id(),
        project=project,
        url=url,
        events=_in_order(events),
        enabled=True,
        salt=secrets.token_hex(32),
        made_by=made_by,
        created_at=now(session),
    )
    session.add(webhook)
    session.flush()
    return webhook


def check(url: str, allowed: Sequence[Network]) -> None:
    """Raise UnprocessableError for a URL that would never be called. A name is looked up when it is called, not
    here."""
    try:
        host, _ = addresses.check_url(url)
        address = addresses.literal(host)
        if address is not None:
            addresses.check_address(address, allowed)
    except AddressError as error:
        problem = Problem("/url", str(error), "a URL such as https://example.com/layersweep that the internet reaches")
        raise UnprocessableError("this URL is not called", problems=[problem]) from None


def get(session: Session, webhook_id: str) -> Webhook:
    """Raises NotFoundError."""
    webhook = session.get(Webhook, webhook_id, populate_existing=True)
    if webhook is None:
        raise NotFoundError(f"there is no webhook {webhook_id}")
    return webhook


def change(
    session: Session,
    webhook_id: str,
    *,
    url: str | None,
    events: Sequence[str] | None,
    enabled: bool | None,
    allowed: Sequence[Network],
) -> Webhook:
    """Change what is given. What is pending for a webhook goes to where it points when it is sent."""
    webhook = get(session, webhook_id)
    if url is not None:
        check(url, allowed)
        webhook.url = url
    if events is not None:
        webhook.events = _in_order(events)
    if enabled is not None:
        webhook.enabled = enabled
    session.flush()
    announce(session, WEBHOOKS)
    return webhook


def rotate(session: Session, webhook_id: str) -> Webhook:
    """Give a webhook another secret: everything that is sent from now on is signed with it."""
    webhook = get(session, webhook_id)
    webhook.salt = secrets.token_hex(32)
    session.flush()
    return webhook


def delete(session: Session, webhook_id: str) -> None:
    """Delete a webhook with its deliveries; nothing more is sent to it."""
    session.delete(get(session, webhook_id))
    session.flush()


def page(
    session: Session, *, project: str | None, page_size: int, page_token: str | None
) -> tuple[list[Webhook], str | None]:
    """Webhooks, the newest first, and the token of the next page."""
    statement = sa.select(Webhook)
    if project is not None:
        statement = statement.where(Webhook.project == project)
    return newest_page(session, statement, Webhook.id, page_size=page_size, page_token=page_token)


def any_exist(session: Session) -> bool:
    """Whether there is a webhook, of any project, enabled or not."""
    return session.scalar(sa.select(Webhook.id).limit(1)) is not None


# --- signing ----------------------------------------------------------------------------------------------------------


def secret_of(server_key: bytes, webhook_id: str, salt: str) -> str:
    """The webhook's secret. It is stored nowhere: whoever has the database alone cannot sign."""
    made = hmac.digest(server_key, f"layersweep webhook {webhook_id} {salt}".encode(), hashlib.sha256)
    return SECRET_PREFIX + base64.b64encode(made).decode()


def headers_of(secret: str, delivery_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of one try: who signs what, and when."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signature = hmac.digest(key, f"{delivery_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


# --- the outbox -------------------------------------------------------------------------------------------------------


def enqueue(session: Session, sweep_id: str, sequence: int, kind: str, data: EventData) -> None:
    """Write the deliveries that an event of a kind in `TOLD_OF` calls for, in the transaction of the event."""
    told_as = kind if kind == "sweep.created" else f"sweep.{cast('SweepChanged', data)['state']}"
    webhooks = session.execute(
        sa.select(Webhook.id, Webhook.events)
        .join(Sweep, Sweep.project == Webhook.project)
        .where(Sweep.id == sweep_id, Webhook.enabled)
    ).all()
    subscribed = [webhook_id for webhook_id, events in webhooks if told_as in events]
    if subscribed:
        body = _body(told_as, now(session), _delivered(session, sweep_id, sequence))
        _insert(session, subscribed, body)


def ping(session: Session, webhook_id: str) -> WebhookDelivery:
    """Queue a message that only tries the webhook out."""
    webhook = get(session, webhook_id)
    if not webhook.enabled:
        raise ConflictError("the webhook is not enabled: nothing is sent to it")
    body = _body(PING, now(session), {"webhook": webhook.id, "project": webhook.project})
    (made,) = _insert(session, [webhook_id], body)
    return made


def resend(session: Session, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """Send a delivery again that has ended, with the same id. Raises NotFoundError, ConflictError if it is
    pending."""
    delivery = session.get(WebhookDelivery, delivery_id, populate_existing=True)
    if delivery is None or delivery.webhook_id != webhook_id:
        raise NotFoundError(f"webhook {webhook_id} has no delivery {delivery_id}")
    if delivery.state == "pending":
        raise ConflictError("the delivery is pending: it is sent without being asked for")
    delivery.state, delivery.tries, delivery.due_at, delivery.ended_at = "pending", 0, now(session), None
    session.flush()
    announce(session, WEBHOOKS)
    return delivery


def deliveries(
    session: Session, webhook_id: str, *, page_size: int, page_token: str | None
) -> tuple[list[WebhookDelivery], str | None]:
    """What a webhook was and will be told, the newest first, and the token of the next page."""
    statement = sa.select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    return newest_page(session, statement, WebhookDelivery.id, page_size=page_size, page_token=page_token)


def any_due(session: Session, busy: Collection[str]) -> bool:
    """Whether `take` would find something: a cheap look before the write."""
    return session.scalar(_due(busy)) is not None


def take(session: Session, busy: Collection[str], seconds: float) -> Taken | None:
    """Take the delivery that is due for longest, of a webhook that is not `busy`; nobody else has it for `seconds`."""
    due = _due(busy).with_for_update(of=WebhookDelivery, skip_locked=True).scalar_subquery()
    row = session.execute(
        sa.update(WebhookDelivery)
        .where(WebhookDelivery.id == due)
        .values(tries=WebhookDelivery.tries + 1, due_at=now_sql() + seconds)
        .returning(WebhookDelivery.id, WebhookDelivery.webhook_id, WebhookDelivery.body, WebhookDelivery.tries)
        .execution_options(**UNSYNCHRONIZED)
    ).one_or_none()
    if row is None:
        return None
    webhook = session.execute(sa.select(Webhook.url, Webhook.salt).where(Webhook.id == row.webhook_id)).one()
    return Taken(row.id, row.webhook_id, webhook.url, webhook.salt, _encoded(row.body), row.tries)


def record_try(session: Session, taken: Taken, *, status: int | None, error: str | None, most_tries: int) -> str | None:
    """Write how a try went; return the delivery's new state, None if it is no longer this try's.

    `error` None: it was delivered. Else it is tried again later, less and less often, `most_tries` times in all.
    """
    change = sa.update(WebhookDelivery).values(
        status=status, last_error=None if error is None else error[:ERROR_CHARACTERS]
    )
    if error is None:
        change = change.values(state="delivered", ended_at=now_sql())
    elif taken.tries >= most_tries:
        change = change.values(state="failed", ended_at=now_sql())
    else:
        change = change.values(due_at=now_sql() + BACKOFF.seconds(taken.tries))
    return session.scalar(
        change.where(
            WebhookDelivery.id == taken.id,
            WebhookDelivery.state == "pending",
            WebhookDelivery.tries == taken.tries,
        )
        .returning(WebhookDelivery.state)
        .execution_options(**UNSYNCHRONIZED)
    )


def _due(busy: Collection[str]) -> sa.Select[str]:
    return (
        sa.select(WebhookDelivery.id)
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .where(
            # Word for word the condition of the index: what has ended costs nothing.
            sa.text("webhook_deliveries.state = 'pending'"),
            WebhookDelivery.due_at <= now_sql(),
            WebhookDelivery.webhook_id.not_in(list(busy)),
            Webhook.enabled,
        )
        .order_by(WebhookDelivery.due_at, WebhookDelivery.id)
        .limit(1)
    )


def _insert(session: Session, webhook_ids: Sequence[str], body: Delivery) -> list[WebhookDelivery]:
    time = now(session)
    rows = [
        WebhookDelivery(
            id=new_id(), webhook_id=webhook_id, body=body, state="pending", tries=0, due_at=time, created_at=time
        )
        for webhook_id in webhook_ids
    ]
    session.add_all(rows)
    session.flush()
    announce(session, WEBHOOKS)
    return rows


def _body(kind: str, time: float, data: DeliveredSweep | DeliveredPing) -> Delivery:
    return {
        "type": kind,
        "timestamp": datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds"),
        "data": data,
    }


def _delivered(session: Session, sweep_id: str, sequence: int) -> DeliveredSweep:
    sweep, confirms = session.execute(
        sa.select(Sweep, Confirmation.confirms)
        .join(Confirmation, Confirmation.sweep_id == Sweep.id, isouter=True)
        .where(Sweep.id == sweep_id)
        .execution_options(populate_existing=True)
    ).one()
    feasible = sweep.state == SweepState.COMPLETED and has_feasible(session, sweep_id)
    return {
        "sweep": sweep_id,
        "name": sweep.name,
        "project": sweep.project,
        "state": sweep.state,
        "reason": sweep.reason,
        "end_code": end_code(sweep, feasible=feasible),
        "sequence": sequence,
        "counts": sweep.counts,
        "confirms": confirms,
    }


def _encoded(body: Delivery) -> bytes:
    """The same bytes at every try: a JSON column may give the names in another order."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _in_order(events: Sequence[str]) -> list[str]:
    return [event for event in EVENTS if event in events]
