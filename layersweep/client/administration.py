"""Calls for tokens, projects, the audit and webhooks: with a token of the scope admin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from layersweep.client.calls import Calls
from layersweep.names import segment
from layersweep.records.administration import (
    AuditRecord,
    CreatedTokenRecord,
    CreatedWebhookRecord,
    ProjectRecord,
    TokenRecord,
    WebhookDeliveryRecord,
    WebhookRecord,
    WhoAmIRecord,
)


class AdministrationCalls(Calls):
    """Who may use the service, and who is told of its sweeps."""

    def whoami(self) -> WhoAmIRecord:
        """Who the service takes this client for, and what it may do. Any valid token may ask."""
        return self.transport.object("GET", "/v1/whoami", named_by="name")

    # who may use the service: with a token of the scope admin

    def tokens(self) -> Iterator[TokenRecord]:
        """The tokens, newest first; never the secrets."""
        yield from self.pages("/v1/tokens")

    def create_token(
        self, name: str, scopes: Sequence[str], *, project: str | None, expires_in_days: float | None = None
    ) -> CreatedTokenRecord:
        """Make a token of one project, or of all (None). The answer's `token` is shown this once."""
        body = {"name": name, "scopes": list(scopes), "project": project, "expires_in_days": expires_in_days}
        return self.transport.object("POST", "/v1/tokens", json=body)

    def revoke_token(self, token: str) -> None:
        """Let a token, named by its id, open nothing any more."""
        self.transport.delete(f"/v1/tokens/{segment(token)}")

    def projects(self) -> list[ProjectRecord]:
        """The projects that the caller reaches."""
        return list(self.pages("/v1/projects"))

    def create_project(self, name: str) -> ProjectRecord:
        """Make a project."""
        return self.transport.object("POST", "/v1/projects", named_by="name", json={"name": name})

    def change_project(self, name: str, changes: Mapping[str, int | None]) -> ProjectRecord:
        """Change what a project may use: `max_running_trials` and `max_priority`; None lifts a limit."""
        return self.transport.object("PATCH", f"/v1/projects/{segment(name)}", named_by="name", json=dict(changes))

    def audit(self) -> Iterator[AuditRecord]:
        """Who changed what, newest first."""
        yield from self.pages("/v1/audit")

    # who is told of its sweeps: with a token of the scope admin

    def webhooks(self) -> Iterator[WebhookRecord]:
        """The webhooks, newest first; never their secrets."""
        yield from self.pages("/v1/webhooks")

    def create_webhook(self, url: str, events: Sequence[str] | None = None) -> CreatedWebhookRecord:
        """Tell a URL of the project's sweeps: of those that have ended, or of `events` ("sweep.paused", ...).

        The answer's `secret` is shown this once: it verifies what arrives (docs/webhooks.md).
        """
        body = {"url": url, **({} if events is None else {"events": list(events)})}
        return self.transport.object("POST", "/v1/webhooks", json=body)

    def change_webhook(
        self,
        webhook: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        enabled: bool | None = None,
    ) -> WebhookRecord:
        """Change what is given; the rest stays as it is."""
        given = {"url": url, "events": None if events is None else list(events), "enabled": enabled}
        body = {name: value for name, value in given.items() if value is not None}
        return self.transport.object("PATCH", f"/v1/webhooks/{segment(webhook)}", json=body)

    def rotate_webhook(self, webhook: str) -> CreatedWebhookRecord:
        """Give a webhook another secret: what is sent from now on is signed with it."""
        return self.transport.object("POST", f"/v1/webhooks/{segment(webhook)}:rotate")

    def ping_webhook(self, webhook: str) -> WebhookDeliveryRecord:
        """Queue a message that only tries the webhook out."""
        return self.transport.object("POST", f"/v1/webhooks/{segment(webhook)}:ping")

    def delete_webhook(self, webhook: str) -> None:
        """Delete a webhook with its deliveries."""
        self.transport.delete(f"/v1/webhooks/{segment(webhook)}")

    def webhook_deliveries(self, webhook: str) -> Iterator[WebhookDeliveryRecord]:
        """What a webhook was and will be told, newest first, with how it answered."""
        yield from self.pages(f"/v1/webhooks/{segment(webhook)}/deliveries")

    def resend_webhook_delivery(self, webhook: str, delivery: str) -> WebhookDeliveryRecord:
        """Send a delivery that has ended once more."""
        path = f"/v1/webhooks/{segment(webhook)}/deliveries/{segment(delivery)}:resend"
        return self.transport.object("POST", path)
