"""`layersweep checkpoint`: models that sweeps can begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from layersweep.cli.common import (
    SERVER_DEFAULT,
    AsJson,
    Server,
    Yes,
    ask_before_deleting,
    connect,
    out,
    print_json,
    print_json_list,
)
from layersweep.display import units
from layersweep.display.listings import Listing
from layersweep.display.terminal import show_yaml

checkpoints = typer.Typer(help="Register and look at checkpoints that sweeps can begin with.", no_args_is_help=True)

CheckpointName = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Its name or id.")]


@checkpoints.command("add")
def add(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="With config.json, model.safetensors and, if there is one, tokenizer.json."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="What sweep documents will call it; default: the folder's name.")
    ] = None,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Register a checkpoint that save_pretrained of Hugging Face's transformers wrote."""
    called = name if name is not None else folder.resolve().name.lower()
    with connect(server) as client:
        record = client.add_checkpoint(called, folder)
    if as_json:
        print_json(record)
        return
    size = f"{units.count(record['parameter_count'])} parameters"
    out.print(Text(f"Registered {record['name']} ({record['id']}): {record['architecture']}, {size}."))
    reference = f"checkpoint:{record['name']}"
    out.print(Text(f'Try its parameters first in a sweep: start_from: ["{reference}"]', style="dim"))
    out.print(Text(f'Begin trainings with its weights: training: {{initialize_from: "{reference}"}}', style="dim"))


@checkpoints.command("list")
def list_(as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """List the registered checkpoints."""
    with connect(server) as client:
        records = client.checkpoints()
    if as_json:
        print_json_list(records)
        return
    table = Listing(
        "name",
        "architecture",
        "task",
        "parameters",
        "size",
        whole=("task", "parameters", "size"),
        right=("parameters", "size"),
        spare=("size", "architecture"),
    )
    for record in records:
        table.add_row(
            Text(record["name"]),
            record["architecture"],
            record["task"],
            units.count(record["parameter_count"]),
            units.bytes_(record["size_bytes"]),
        )
    out.print(table)


@checkpoints.command("show")
def show(checkpoint: CheckpointName, as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """Show a checkpoint with the model that it describes."""
    with connect(server) as client:
        record = client.checkpoint(checkpoint)
    if as_json:
        print_json(record)
        return
    out.print(Text(f"{record['name']} ({record['id']})", style="bold"))
    tokenizer = ", with its tokenizer" if record["has_tokenizer"] else ""
    size = f"{units.count(record['parameter_count'])} parameters, {units.bytes_(record['size_bytes'])}"
    out.print(Text(f"{record['architecture']} for {record['task']}, {size}{tokenizer}"))
    out.print("\nModel", style="bold")
    show_yaml(record["model"])


@checkpoints.command("delete")
def delete(checkpoint: CheckpointName, yes: Yes = False, server: Server = SERVER_DEFAULT) -> None:
    """Delete a checkpoint that no sweep needs any more."""
    with connect(server) as client:
        record = client.checkpoint(checkpoint)
        ask_before_deleting(f"the checkpoint {record['name']} ({record['id']})", yes=yes)
        client.delete_checkpoint(record["id"])
    out.print(Text(f"{record['name']} ({record['id']}) is deleted."))
