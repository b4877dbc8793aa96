"""What happens in a sweep, and the webhooks that tell of it, as they cross HTTP."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from service.common.schemas import AS_STORED, Request, Schema, Timestamp
from service.database.json_columns import Delivery, EventData

EndCode = Literal[
    "budget_exhausted",
    "space_exhausted",
    "wall_seconds",
    "device_seconds",
    "failures",
    "all_failed",
    "none_feasible",
    "confirmed",
    "cancelled",
]


EventKind = Literal[
    "sweep.created",
    "sweep.state",
    "sweep.target",
    "sweep.trouble",
    "sweep.extended",
    "sweep.priority",
    "sweep.annotated",
    "sweep.parallel_changed",
    "sweep.confirmation",
    "trial.queued",
    "trial.running",
    "trial.phase",
    "trial.report",
    "trial.ended",
    "trial.replicated",
    "trial.promoted",
]


class Event(Schema):
    sequence: int
    # Text, though the kinds are known: while a service is replaced, the older process reads what the newer one wrote.
    kind: str = Field(
        description="sweep.target: a target was found, or what is waited for; sweep.trouble: scheduling it fails and "
        "is tried again, or (reason null) works again; sweep.extended: it has a larger budget; "
        "sweep.priority: it has another priority; sweep.annotated: its name, note or tags changed, or whether it is "
        "archived; "
        "sweep.parallel_changed: more or fewer of its trials may run at once; sweep.confirmation: a confirmation of it "
        "began or ended; trial.replicated: its figures are means over one more training; trial.promoted: a trial that "
        "a pruner had stopped is trained to its end; trial.report: progress or losses. The other names say what "
        "happened",
        json_schema_extra={"enum": list(get_args(EventKind))},
    )
    trial: str | None
    data: Annotated[EventData, AS_STORED]
    created_at: Timestamp


WebhookEvent = Literal[
    "sweep.created", "sweep.active", "sweep.paused", "sweep.completed", "sweep.cancelled", "sweep.failed"
]
_URL = Field(max_length=2000, description="https://... or http://..., at a public address")
_EVENTS = Field(min_length=1, max_length=6, description="what it is told of", examples=[["sweep.completed"]])
Url = Annotated[str, _URL]
Events = Annotated[list[WebhookEvent], _EVENTS]


class NewWebhook(Request):
    url: Url = Field(examples=["https://example.com/layersweep"])
    events: Events = Field(default=["sweep.completed", "sweep.cancelled", "sweep.failed"])


class WebhookChange(Request):
    """What is left out stays as it is."""

    url: Url | None = None
    events: Events | None = None
    enabled: bool | None = Field(default=None, description="false: nothing is queued or sent", examples=[False])


class Webhook(Schema):
    id: str
    project: str
    url: str
    events: list[str]
    enabled: bool
    made_by: str
    created_at: Timestamp


class CreatedWebhook(Webhook):
    secret: str | None = Field(
        description="what its deliveries are signed with, shown this once; null in a repeated answer to the same key"
    )


class WebhookDelivery(Schema):
    """One message: at least once it was, or will be, sent."""

    id: str = Field(description="its `webhook-id`, the same at every try")
    state: Literal["pending", "delivered", "failed"]
    body: Annotated[Delivery, AS_STORED]
    tries: int
    status: int | None = Field(description="the last answer's HTTP status; null: there was no answer")
    last_error: str | None
    due_at: Timestamp = Field(description="when it is tried next, while it is pending")
    created_at: Timestamp
    ended_at: Timestamp | None
