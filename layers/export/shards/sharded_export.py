"""A module → for each rank a schedule of segments and collectives, and the segments as ONNX files.

The schedules are one JSON file (`write_shards` says its form); the segments lie in a folder beside it.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor, nn

from layers.export.onnx_export import exported, save
from layers.export.shards.cutting import Cut
from layers.export.shards.tracing import OpenedModule, TracedGroup
from layers.modules.tensor_parallel import RowLinear, split
from layers.parameter import Scalar


class Step(TypedDict, total=False):
    """A segment to run, or a collective to take part in, by the names of tensors."""

    segment: str
    """ONNX file, relative to the schedules' file."""
    collective: str
    """`sum` or `gather`."""
    source: str
    target: str


class RankSchedule(TypedDict):
    """What one rank does, in order. `io_bytes`: the model's inputs and output; `between_bytes`: the tensors between its
    steps."""

    steps: list[Step]
    io_bytes: int
    between_bytes: int


class Shards(TypedDict):
    """The file: every rank's schedule of one model. `output`: the tensor that is the model's; `output_is_part`: each
    rank has a part of it, which are put one after another along the last dimension."""

    inputs: list[str]
    output: str
    output_is_part: bool
    ranks: list[RankSchedule]


class TakesItsPart(nn.Module):
    """A RowLinear by itself, which is given the whole input: each rank reads its columns."""

    def __init__(self, row: RowLinear, columns: slice) -> None:
        super().__init__()
        self.row = row
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        return self.row(x[..., self.columns])


@dataclass(frozen=True, slots=True)
class ExportForm:
    """How a graph is written: its names, and the highest opset that the target reads."""

    input_names: Sequence[str]
    output_name: str
    opset: int


def write_shards(
    module: nn.Module,
    model: Mapping[str, Scalar],
    inputs: tuple[Tensor, ...],
    path: Path,
    form: ExportForm,
) -> None:
    """Write the shards of a whole module of a completed model with tp_size above 1, cast as it is deployed.

    `path` gets a JSON object of the form `Shards`. Raises ValueError if the ranks cannot share the module.
    """
    folder = path.with_name(f"{path.name}.segments")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    size = int(model["tp_size"])
    ranks = [_write_rank(module, model, inputs, folder, form, rank=rank, size=size) for rank in range(size)]
    shards: Shards = {
        "inputs": list(form.input_names),
        "output": form.output_name,
        "output_is_part": model["kind"] == "linear"
        and model["linear.kind"] != "RowLinear"
        and not model["linear.gather_output"],
        "ranks": ranks,
    }
    path.write_text(json.dumps(shards))


def _write_rank(
    module: nn.Module,
    model: Mapping[str, Scalar],
    inputs: tuple[Tensor, ...],
    folder: Path,
    form: ExportForm,
    *,
    rank: int,
    size: int,
) -> RankSchedule:
    group = TracedGroup(rank, size)
    part = split(copy.deepcopy(module), model, group)
    for name, layer in list(part.named_modules()):
        if isinstance(layer, RowLinear) and model["kind"] == "linear":
            part.set_submodule(name, TakesItsPart(layer, group.share(layer.weight.shape[1] * size)))
    opened = OpenedModule(part, group, inputs)
    count = len(opened.collectives)
    given_back = tuple(torch.zeros(each.shape, dtype=each.dtype) for each in opened.collectives)
    graph = exported(
        opened,
        (*inputs, *given_back),
        opset=form.opset,
        input_names=(*form.input_names, *(f"whole_{index}" for index in range(count))),
        output_names=(*(f"part_{index}" for index in range(count)), form.output_name),
    )
    steps: list[Step] = []
    outputs = [f"part_{index}" for index in range(count)] + [form.output_name]
    cut = Cut(graph, outputs)
    for index, segment in enumerate(cut.models()):
        if segment is not None:
            name = f"rank{rank}_segment{index}.onnx"
            save(segment, folder / name)
            steps.append({"segment": f"{folder.name}/{name}"})
        if index < count:
            kind = opened.collectives[index].kind
            steps.append({"collective": kind, "source": f"part_{index}", "target": f"whole_{index}"})
    outside = {*form.input_names, form.output_name}
    return {
        "steps": steps,
        "io_bytes": sum(map(cut.nbytes, sorted(outside))),
        "between_bytes": sum(map(cut.nbytes, sorted(cut.crossing() - outside))),
    }
