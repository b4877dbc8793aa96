"""`layersweep webhook`: who is told of a project's sweeps. Works over HTTP, as a token with the scope admin."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from layersweep.cli.common import (
    SERVER_DEFAULT,
    AsJson,
    Server,
    Yes,
    ask_before_deleting,
    connect,
    err,
    hint,
    out,
    print_json,
    print_json_list,
    ready,
)
from layersweep.display.listings import Listing
from layersweep.errors import InvalidUsageError
from layersweep.records.administration import CreatedWebhookRecord, WebhookDeliveryRecord

app = typer.Typer(help="Send the events of a project's sweeps to a URL (docs/webhooks.md).", no_args_is_help=True)

SHOWN_DELIVERIES = 20

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="The webhook's id, as `webhook list` shows it.")]
Event = Annotated[
    list[str] | None,
    typer.Option(
        "--event",
        metavar="EVENT",
        help="sweep.created, .active, .paused, .completed, .cancelled or .failed. Repeatable; default: the ends.",
    ),
]


@app.command("create")
def create(
    url: Annotated[str, typer.Argument(help="https://... or http://..., at a public address.")],
    event: Event = None,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Send the events of the project's sweeps to a URL. The secret is shown only now."""
    with connect(server) as client:
        _print_secret(client.create_webhook(url, event), as_json)


@app.command("list")
def list_(as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """List the webhooks, the newest first."""
    with connect(server) as client:
        records = list(client.webhooks())
    if as_json:
        print_json_list(records)
        return
    table = Listing("id", "project", "url", "events", "enabled", whole=("id", "enabled"), spare=("events", "project"))
    for record in records:
        events = ", ".join(event.removeprefix("sweep.") for event in record["events"])
        enabled = "yes" if record["enabled"] else "no"
        table.add_row(record["id"], record["project"], Text(record["url"]), events, enabled)
    out.print(table if records else "No webhooks yet.")


@app.command("change")
def change(
    webhook: WebhookId,
    url: Annotated[str | None, typer.Option(help="Its new URL.")] = None,
    event: Event = None,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Change a webhook's URL or events."""
    if url is None and event is None:
        raise InvalidUsageError("say what to change: --url or --event")
    with connect(server) as client:
        record = client.change_webhook(webhook, url=url, events=event)
    out.print(Text(f"{webhook}: {record['url']} is told of {', '.join(record['events'])}."))


@app.command("enable")
def enable(webhook: WebhookId, server: Server = SERVER_DEFAULT) -> None:
    """Enable a webhook; pending deliveries are sent."""
    with connect(server) as client:
        client.change_webhook(webhook, enabled=True)
    out.print(Text(f"{webhook} is told again."))


@app.command("disable")
def disable(webhook: WebhookId, server: Server = SERVER_DEFAULT) -> None:
    """Disable a webhook until it is enabled again."""
    with connect(server) as client:
        client.change_webhook(webhook, enabled=False)
    out.print(Text(f"{webhook} is told nothing now."))


@app.command("rotate")
def rotate(webhook: WebhookId, as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """Give a webhook another secret, shown this once."""
    with connect(server) as client:
        _print_secret(client.rotate_webhook(webhook), as_json)


@app.command("ping")
def ping(webhook: WebhookId, as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """Queue a message that only tries the webhook out."""
    with connect(server) as client:
        delivery = client.ping_webhook(webhook)
    if as_json:
        print_json(delivery)
        return
    out.print(Text(f"Queued as {delivery['id']}."))
    hint(f"How it went: {ready(server, 'webhook', 'deliveries', webhook)}")


@app.command("deliveries")
def deliveries(webhook: WebhookId, as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """Show what a webhook was and will be told, the newest first, and how it answered. --json prints all."""
    with connect(server) as client:
        found: list[Any] = []
        for record in client.webhook_deliveries(webhook):
            found.append(record)
            if not as_json and len(found) == SHOWN_DELIVERIES:
                break
    if as_json:
        print_json_list(found)
        return
    table = Listing(
        "id",
        "told",
        "sweep",
        "state",
        "tries",
        "answer",
        whole=("id", "told", "state", "tries"),
        spare=("tries", "sweep"),
    )
    for record in found:
        table.add_row(
            record["id"],
            record["body"]["type"].rpartition(".")[2],
            Text(str(record["body"]["data"].get("name", ""))),
            record["state"],
            str(record["tries"]),
            Text(_answer(record)),
        )
    out.print(table if found else "Nothing was sent yet.")


@app.command("resend")
def resend(
    webhook: WebhookId,
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY", help="Its id, as `webhook deliveries` shows it.")],
    server: Server = SERVER_DEFAULT,
) -> None:
    """Send a delivery that has ended once more."""
    with connect(server) as client:
        client.resend_webhook_delivery(webhook, delivery)
    out.print(Text(f"{delivery} is sent again."))


@app.command("delete")
def delete(webhook: WebhookId, yes: Yes = False, server: Server = SERVER_DEFAULT) -> None:
    """Delete a webhook with its deliveries."""
    ask_before_deleting(f"the webhook {webhook} with its deliveries", yes=yes)
    with connect(server) as client:
        client.delete_webhook(webhook)
    out.print(Text(f"{webhook} is deleted."))


def _print_secret(record: CreatedWebhookRecord, as_json: bool) -> None:
    if as_json:
        print_json(record)
        return
    err.print(
        Text(
            f"The webhook {record['id']} tells {record['url']} of {', '.join(record['events'])} in the project "
            f"{record['project']}. Its secret is not shown again:"
        )
    )
    print(record["secret"])


def _answer(record: WebhookDeliveryRecord) -> str:
    words = [str(each) for each in (record["status"], record["last_error"]) if each]
    if record["state"] == "pending":
        words.append(f"(next try {record['due_at']})")
    return " ".join(words)
