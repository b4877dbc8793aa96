"""`layersweep dataset`: data to sweep over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from layersweep import files
from layersweep.cli.common import (
    SERVER_DEFAULT,
    AsJson,
    Server,
    Yes,
    ask_before_deleting,
    connect,
    from_standard_inputs,
    out,
    print_json,
    print_json_list,
)
from layersweep.display import units
from layersweep.display.listings import Listing
from layersweep.display.terminal import show_yaml
from layersweep.records.catalog import DatasetDetailRecord, DatasetRecord

datasets = typer.Typer(help="Register and look at datasets.", no_args_is_help=True)


@datasets.command("add")
def add(
    name: Annotated[str, typer.Option(help="What sweep documents will call it.")],
    file: Annotated[
        list[Path],
        typer.Option(
            callback=from_standard_inputs,
            help="A text, several times for several; CSV or NPZ for classification; TSV for seq2seq; - for the "
            "standard input.",
        ),
    ],
    task: Annotated[str, typer.Option(help="causal_lm, classification or seq2seq.")] = "causal_lm",
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="causal_lm: byte, char, bpe:N (N tokens, trained on the training split), checkpoint:NAME (that of a "
            "registered checkpoint) or a tokenizer.json; seq2seq, of the sources: char or whitespace."
        ),
    ] = None,
    target_tokenizer: Annotated[
        str | None, typer.Option(help="seq2seq, of the targets: char or whitespace; default: as of the sources.")
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="causal_lm: the files are JSON Lines or Parquet, and this column is text.")
    ] = None,
    validation: Annotated[float, typer.Option(help="Share of the data kept for validation.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share kept for a test that no sweep sees.")] = 0.0,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Register a file as a dataset.

    causal_lm takes a text, or several one behind the other. classification takes CSV (a header, a column `label`, one
    column a token) or NPZ (arrays tokens [N, T] and labels [N]). seq2seq takes lines of a source, a tab and its target.
    """
    with connect(server) as client:
        record = client.add_dataset(
            name,
            file,
            task=task,
            tokenizer=tokenizer,
            target_tokenizer=target_tokenizer,
            column=column,
            validation=validation,
            test=test,
        )
    if as_json:
        print_json(record)
        return
    out.print(Text(f"Registered {record['name']} ({record['id']}): {_split_sizes(record)}."))
    _print_notes(record)
    out.print(Text(f"Use it in a sweep document: dataset: {record['name']}", style="dim"))


@datasets.command("list")
def list_(as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """List the registered datasets."""
    with connect(server) as client:
        records = client.datasets()
    if as_json:
        print_json_list(records)
        return
    table = Listing(
        "name",
        "task",
        "tokenizer",
        "splits",
        "size",
        whole=("task", "size"),
        right=("size",),
        spare=("tokenizer", "size"),
    )
    for record in records:
        built_in = " (built in)" if record["builtin"] else ""
        table.add_row(
            Text(record["name"] + built_in),
            record["task"],
            _tokenizer(record),
            _split_sizes(record),
            units.bytes_(record["size_bytes"]),
        )
    out.print(table)


@datasets.command("show")
def show(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its name or id.")],
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Show a dataset with its profile: the baselines that a model must beat."""
    with connect(server) as client:
        record = client.dataset(dataset)
    if as_json:
        print_json(record)
        return
    _print_dataset(record)


@datasets.command("tokenizer")
def tokenizer_(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its name or id.")],
    out_file: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    server: Server = SERVER_DEFAULT,
) -> None:
    """Write the tokenizer.json of a dataset whose tokens are parts of words."""
    with connect(server) as client:
        content = client.tokenizer(dataset)
    with files.written(out_file) as stream:
        stream.write(content)
    out.print(Text(f"Wrote {out_file}."), soft_wrap=True)


@datasets.command("delete")
def delete(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its name or id.")],
    yes: Yes = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Delete a dataset that no sweep uses."""
    with connect(server) as client:
        record = client.dataset(dataset)
        ask_before_deleting(f"the dataset {record['name']} ({record['id']})", yes=yes)
        client.delete_dataset(record["id"])
    out.print(Text(f"{record['name']} ({record['id']}) is deleted."))


def _tokenizer(record: DatasetRecord) -> str:
    """The tokenizer; of sources and of targets, where the two differ."""
    names = (record["tokenizer"], record["facts"].get("target_tokenizer"))
    return " → ".join(dict.fromkeys(name for name in names if name))


def _split_sizes(record: DatasetRecord) -> str:
    """How large the splits are: examples, where there are any, else tokens."""
    counted = "examples" if any(split.get("examples") for split in record["parts"].values()) else "tokens"
    sizes = ", ".join(f"{name} {units.count(split.get(counted) or 0)}" for name, split in record["parts"].items())
    return f"{sizes} {counted}"


def _print_notes(record: DatasetDetailRecord) -> None:
    for note in record["profile"].get("notes", []):
        out.print(Text(f"note: {note}", style="yellow"))


def _print_dataset(record: DatasetDetailRecord) -> None:
    out.print(Text(f"{record['name']} ({record['id']})", style="bold"))
    tokenizer = f", tokenizer {_tokenizer(record)}" if record["tokenizer"] else ""
    out.print(Text(f"{record['task']}{tokenizer}, {units.bytes_(record['size_bytes'])}; {_split_sizes(record)}"))
    _print_notes(record)
    facts = {name: value for name, value in record["facts"].items() if not isinstance(value, list | dict)}
    profile = {name: value for name, value in record["profile"].items() if not isinstance(value, list)}
    for title, values in (("Facts", facts), ("Profile (all of it: --json)", profile)):
        if values:
            out.print(f"\n{title}", style="bold")
            show_yaml(_shortened(values))
    if record["implications"]:
        out.print("\nWhat it implies", style="bold")
    for each in record["implications"]:
        source = f" ({each['source']})" if each["source"] else ""
        out.print(Text(f"{each['kind']}: {each['says']}{source}", style="yellow" if each["kind"] == "warning" else ""))


def _shortened(value: Any) -> Any:
    """Numbers to four digits: people read this, programs read --json."""
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
