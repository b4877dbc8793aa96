"""`layersweep dataset`, `layers`, `presets` and `workers`: what there is to sweep over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.padding import Padding
from rich.text import Text

from layersweep.cli.common import (
    SERVER_DEFAULT,
    AsJson,
    Server,
    connect,
    from_standard_input,
    out,
    print_json,
    print_json_list,
)
from layersweep.display import units
from layersweep.display.terminal import show_text, show_yaml, table_of
from layersweep.errors import InvalidUsageError
from layersweep.records.catalog import DatasetDetailRecord, DatasetRecord, LayerKind, LayerParameter, Preset

datasets = typer.Typer(help="Register and look at datasets.", no_args_is_help=True)


@datasets.command("add")
def add(
    name: Annotated[str, typer.Option(help="What sweep documents will call it.")],
    file: Annotated[
        Path,
        typer.Option(
            callback=from_standard_input,
            help="A text; CSV or NPZ for classification; TSV for seq2seq; - for the standard input.",
        ),
    ],
    task: Annotated[str, typer.Option(help="causal_lm, classification or seq2seq.")] = "causal_lm",
    tokenizer: Annotated[
        str | None, typer.Option(help="causal_lm: byte or char; seq2seq, of the sources: char or whitespace.")
    ] = None,
    target_tokenizer: Annotated[
        str | None, typer.Option(help="seq2seq, of the targets: char or whitespace; default: as of the sources.")
    ] = None,
    validation: Annotated[float, typer.Option(help="Share of the data kept for validation.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share kept for a test that no sweep sees.")] = 0.0,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Register a file as a dataset.

    causal_lm takes a text. classification takes CSV (a header, a column `label`, one column a token) or NPZ (arrays
    tokens [N, T] and labels [N]). seq2seq takes lines of a source, a tab and its target.
    """
    with connect(server) as client:
        record = client.add_dataset(
            name,
            file,
            task=task,
            tokenizer=tokenizer,
            target_tokenizer=target_tokenizer,
            validation=validation,
            test=test,
        )
    if as_json:
        print_json(record)
        return
    out.print(Text(f"Registered {record['name']} ({record['id']}): {_split_sizes(record)}."))
    out.print(Text(f"Use it in a sweep document: dataset: {record['name']}", style="dim"))


@datasets.command("list")
def list_(as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """List the registered datasets."""
    with connect(server) as client:
        records = client.datasets()
    if as_json:
        print_json_list(records)
        return
    table = table_of("name", "task", "tokenizer", "splits", "size", right=("size",))
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


@datasets.command("delete")
def delete(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its name or id.")],
    server: Server = SERVER_DEFAULT,
) -> None:
    """Delete a dataset that no sweep uses."""
    with connect(server) as client:
        record = client.dataset(dataset)
        client.delete_dataset(record["id"])
    out.print(Text(f"{record['name']} ({record['id']}) is deleted."))


def layers(
    layer: Annotated[
        str | None, typer.Argument(metavar="[LAYER]", help="A section (attention, mlp, ...) or a kind (GatedMLP).")
    ] = None,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """What can be swept: every parameter with its range, default, meaning and source."""
    with connect(server) as client:
        sections = client.layers()
    if layer is not None:
        known = sections
        sections = [section for section in known if layer == section["section"] or layer in section["kinds"]]
        if not sections:
            names = ", ".join(name for section in known for name in (section["section"], *section["kinds"]))
            raise InvalidUsageError(f"there is no layer {layer!r}; there are: {names}")
    if as_json:
        print_json_list(sections)
        return
    for section in sections:
        _print_section(section)


def presets(
    preset: Annotated[str | None, typer.Argument(metavar="[PRESET]", help="One of them, with all its values.")] = None,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
) -> None:
    """Published configurations that a sweep can start from."""
    with connect(server) as client:
        records = client.presets()
    if preset is not None:
        known = records
        records = [record for record in known if record["name"] == preset.removeprefix("preset:")]
        if not records:
            names = ", ".join(record["name"] for record in known)
            raise InvalidUsageError(f"there is no preset {preset!r}; there are: {names}")
    if as_json:
        print_json_list(records)
    elif preset is not None:
        _print_preset(records[0])
    else:
        _print_presets(records)


def _print_preset(record: Preset) -> None:
    out.print(Text.assemble((f"preset:{record['name']}", "bold"), f"  {record['title']}"))
    out.print(Text(f"  {record['source']} {record['url']}".rstrip(), style="dim"), soft_wrap=True)
    text = yaml.safe_dump(record["document"], sort_keys=False, default_flow_style=None, width=76)
    show_text("".join(f"  {line}\n" for line in text.splitlines()))


def _print_presets(records: list[Preset]) -> None:
    """One row each, of the shape that makes it what it is; and below, where each is from."""
    columns = ("preset", "task", "layers/heads(kv)/width", "feed-forward", "norm")
    table = table_of(*columns, whole=("preset", "task"))
    for record in records:
        model = record["document"]["model"]
        attention, mlp, norm = (model.get(section, {}) for section in ("attention", "mlp", "norm"))
        heads = str(attention["num_attention_heads"])
        if "num_kv_heads" in attention:
            heads += f"({attention['num_kv_heads']})"
        table.add_row(
            Text(record["name"], style="bold"),
            record["task"],
            f"{model['num_layers']}/{heads}/{model['hidden_size']}",
            f"{mlp['ffn_hidden_size']} {mlp['hidden_act']}" + ("" if mlp["kind"] == "MLP" else ", gated"),
            f"{norm['kind']} {norm['eps']:.0e}".replace("e-0", "e-"),
        )
    out.print(table)
    names = max(len(record["name"]) for record in records)
    for record in records:
        out.print(Text(f"{record['name']:{names}}  {record['source']}", style="dim"), soft_wrap=True)
    out.print(Text('\n`layersweep presets NAME` shows all values; start_from: ["preset:NAME"] begins a sweep there.'))


def workers(as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """The workers that have registered, and what they run now."""
    with connect(server) as client:
        records = client.workers()
    if as_json:
        print_json_list(records)
        return
    table = table_of("name", "device", "runtimes", "alive", "slots", "trials")
    for record in records:
        runtimes = ", ".join(f"{target.get('runtime')} {target.get('version')}" for target in record["targets"])
        alive = "yes" if record["alive"] else "no"
        trials = record.get("trials", [record["trial"]] if record["trial"] else [])
        slots = f"{len(trials)} of {record.get('slots', 1)} busy"
        model = str(record["device"].get("model", ""))
        table.add_row(Text(record["name"]), model, runtimes, alive, slots, "\n".join(trials))
    out.print(table)


def _tokenizer(record: DatasetRecord) -> str:
    """The tokenizer; of sources and of targets, where the two differ."""
    names = (record["tokenizer"], record["facts"].get("target_tokenizer"))
    return " → ".join(dict.fromkeys(name for name in names if name))


def _split_sizes(record: DatasetRecord) -> str:
    """How large the splits are: examples, where there are any, else tokens."""
    counted = "examples" if any(split.get("examples") for split in record["parts"].values()) else "tokens"
    sizes = ", ".join(f"{name} {units.count(split.get(counted) or 0)}" for name, split in record["parts"].items())
    return f"{sizes} {counted}"


def _print_dataset(record: DatasetDetailRecord) -> None:
    out.print(Text(f"{record['name']} ({record['id']})", style="bold"))
    tokenizer = f", tokenizer {_tokenizer(record)}" if record["tokenizer"] else ""
    out.print(Text(f"{record['task']}{tokenizer}, {units.bytes_(record['size_bytes'])}; {_split_sizes(record)}"))
    for note in record["profile"].get("notes", []):
        out.print(Text(f"note: {note}", style="yellow"))
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


def _print_section(section: LayerKind) -> None:
    kinds = f": {', '.join(section['kinds'])}" if section["kinds"] else ""
    out.print(Text(f"{section['section']}{kinds}", style="bold"))
    for parameter in section["parameters"]:
        default = "required" if parameter["required"] else f"default {units.value(parameter['default'])}"
        if not parameter["required"] and parameter["default"] is None:
            default = "may be left out"
        out.print(Text.assemble("  ", (parameter["path"], "cyan"), f"  {_range(parameter)}; {default}"))
        out.print(Padding(Text(parameter["meaning"]), (0, 0, 0, 6)))
        if parameter["source"]:
            out.print(Padding(Text(parameter["source"], style="dim"), (0, 0, 0, 6)))
        for line in _support(parameter):
            out.print(Padding(Text(line, style="dim"), (0, 0, 0, 6)))
    out.print()


def _support(parameter: LayerParameter) -> list[str]:
    """What a reader has to know of runtimes and layers; nothing where every runtime supports all of it."""
    lines = ["may differ from layer to layer: per_layer: true"] if parameter["per_layer"] else []
    for runtime, support in parameter["targets"].items():
        said = ["" if support["supported"] else "no", support["note"]]
        values = [f"{value} {why}" for value, why in support["values"].items()]
        text = "; ".join([": ".join(filter(None, said)), *values]).strip("; ")
        if text:
            lines.append(f"{runtime}: {text}")
    return lines


def _range(parameter: LayerParameter) -> str:
    if parameter["choices"]:
        return " | ".join(parameter["choices"])
    low, high = parameter["minimum"], parameter["maximum"]
    if low is not None and high is not None:
        return f"{parameter['type']} {units.bound(low)} to {units.bound(high)}"
    if low is not None:
        return f"{parameter['type']} ≥ {units.bound(low)}"
    return parameter["type"] if high is None else f"{parameter['type']} ≤ {units.bound(high)}"
