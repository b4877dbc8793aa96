"""`layersweep layers`, `presets`, `workers` and `queue`: what can be swept, on what, and what waits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer
import yaml
from rich.padding import Padding
from rich.text import Text

from layersweep.cli.common import (
    SERVER_DEFAULT,
    AsJson,
    Server,
    connect,
    out,
    print_json_list,
)
from layersweep.display import units
from layersweep.display.listings import Listing
from layersweep.display.terminal import show_text
from layersweep.errors import InvalidUsageError
from layersweep.records.catalog import Execution, LayerKind, LayerParameter, Preset, QueueEntry, WorkerRecord

END = 6
"""Characters of an id that tell apart what has one name, as on the pages."""


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
        sections = [section for section in known if layer == section["section"]]
        sections = sections or [section for section in known if layer in section["kinds"]]
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
    table = Listing(*columns, whole=("preset", "task"), spare=("norm", "feed-forward"))
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
    now = time.time()
    names = Counter(record["name"] for record in records)
    shares = ("device used", "device held")
    columns = ("name", "state", "last seen", "slots", "current trials", "device", "runtimes", *shares)
    whole = ("state", "last seen", "slots", *shares)
    table = Listing(*columns, whole=whole, spare=("device held", "runtimes", "device", "device used"))
    for record in records:
        # One that was killed and started again stands here twice for a while.
        name = record["name"] + (f" · {record['id'][-END:]}" if names[record["name"]] > 1 else "")
        share, use = record.get("device_busy_share"), record.get("device_use")
        table.add_row(
            Text(name),
            "alive" if record["alive"] else "offline",
            units.since(record["last_seen_at"], now),
            f"{_busy_slots(record)} of {record.get('slots', 1)} busy",
            Text("\n".join(_doings(record, now))),
            str(record["device"].get("model", "")),
            ", ".join(f"{target.get('runtime')} {target.get('version')}" for target in record["targets"]),
            units.ABSENT if use is None else units.share(use["busy_share"]),
            units.ABSENT if share is None else units.share(share),
        )
    out.print(table)


def _trials(record: WorkerRecord) -> list[str]:
    return record.get("trials", [record["trial"]] if record["trial"] else [])


def _busy_slots(record: WorkerRecord) -> int:
    return record.get("busy_slots", len(_trials(record)))


def _doings(record: WorkerRecord, now: float) -> list[str]:
    """A line a busy slot; one for all that execute trials of other projects."""
    executions = record.get("executions")
    if executions is None:
        return _trials(record)
    others = _busy_slots(record) - len(executions)
    elsewhere = "a trial of another project" if others == 1 else f"{others} trials of other projects"
    return [*(_doing(each, now) for each in executions), *([elsewhere] if others > 0 else [])]


def _doing(execution: Execution, now: float) -> str:
    """`small/7: build (begun 3 min ago), waits for its turn to build on this device`"""
    line = f"{execution['sweep_name']}/{execution['number']}: {execution['phase'] or 'starting'}"
    line += f" (begun {units.since(execution['since'], now)})"
    return line + (f", waits for {execution['waiting_for']}" if execution["waiting_for"] else "")


def queue(as_json: AsJson = False, server: Server = SERVER_DEFAULT) -> None:
    """What waits for which workers, and why nothing takes it."""
    with connect(server) as client:
        entries = client.queue()
    if as_json:
        print_json_list(entries)
        return
    if not entries:
        out.print("No sweep is active.")
        return
    out.print(queue_table(entries))


def queue_table(entries: Sequence[QueueEntry]) -> Listing:
    """The queue as a table: the narrower the terminal, the less stands beside whose trials wait, and why."""
    columns = ("needs", "project", "priority", "waiting", "running", "oldest", "slots", "waits because")
    whole = ("priority", "waiting", "running", "oldest", "slots")
    right = ("priority", "waiting", "running")
    spare, wrapped = ("oldest", "slots", "priority", "project"), ("needs", "waits because")
    table = Listing(*columns, whole=whole, right=right, spare=spare, wrapped=wrapped)
    for entry in entries:
        oldest = entry["oldest_seconds"]
        table.add_row(
            Text(_needs(entry)),
            entry["project"],
            str(entry["priority"]),
            str(entry["queued"]),
            str(entry["running"]),
            "" if oldest is None else units.duration(oldest),
            f"{entry['busy_slots']} of {entry['slots']} busy",
            Text(entry["waits_for"] or ""),
        )
    return table


def _needs(entry: QueueEntry) -> str:
    """`onnxruntime 1.23.0 on AMD EPYC, site=a`"""
    runtime = " ".join(filter(None, (entry["runtime"] or "any runtime", entry["version"])))
    device = f" on {entry['device_model']}" if entry["device_model"] else ""
    return ", ".join([f"{runtime}{device}", *(f"{key}={value}" for key, value in entry["labels"].items())])


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
        texts = ["" if support["supported"] else "no", support["note"]]
        values = [f"{value} {why}" for value, why in support["values"].items()]
        text = "; ".join([": ".join(filter(None, texts)), *values]).strip("; ")
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
