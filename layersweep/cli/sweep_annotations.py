"""`layersweep sweep annotate`: what people say of a sweep."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from layersweep.cli.common import SERVER_DEFAULT, AsJson, Server, SweepName, connect, out, print_json
from layersweep.records.sweep_requests import SweepAnnotations


def annotate(
    sweep: SweepName,
    name: Annotated[str | None, typer.Option(help="What it is called from now on.")] = None,
    note: Annotated[str | None, typer.Option(help="What to remember of it; '' removes the note.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="Add a tag; again: several.")] = None,
    untag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="Remove a tag; again: several.")] = None,
    archive: Annotated[
        bool | None, typer.Option("--archive/--unarchive", help="Have lists leave it out, or show it again.")
    ] = None,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Rename, tag or archive a sweep, or keep a note with it."""
    changes: SweepAnnotations = {}
    if name is not None:
        changes["name"] = name
    if note is not None:
        changes["note"] = note
    if archive is not None:
        changes["archived"] = archive
    if not (changes or tag or untag):
        raise typer.BadParameter("say what to change: --name, --note, --tag, --untag, --archive or --unarchive")
    with connect(server) as client:
        found = client.sweep(sweep)
        if tag or untag:
            kept = [each for each in found.record.get("tags", []) if each not in (untag or [])]
            changes["tags"] = list(dict.fromkeys([*kept, *(tag or [])]))
        found.annotate(**changes)
    if as_json:
        print_json(found.record)
        return
    record = found.record
    tags = f", tagged {', '.join(record.get('tags', []))}" if record.get("tags") else ""
    out.print(Text(f"{found.name} ({found.id}){tags} is {'archived' if record.get('archived') else 'listed'}."))
