"""What each rank of a shared engine does: a schedule of segments, and of collectives between them.

Written by `layers/export/shards` with graphs as segments, and by a build with built segments in their place.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Union

from ..protocol import JsonObject, invalid


@dataclass(frozen=True)
class Segment:
    """What is computed between one collective and the next: the file of a graph, or of what was built of it."""

    path: Path


@dataclass(frozen=True)
class Collective:
    """A word between the ranks. `sum`: the `source` of every rank, added up; `gather`: they, one after another along a
    new first dimension. Each has the result as `target`."""

    kind: str
    source: str
    target: str


Step = Union[Segment, Collective]  # noqa: UP007 - evaluated by Python 3.10 as it stands


@dataclass(frozen=True)
class Schedule:
    """What one rank does. `io_bytes`: the model's inputs and output; `between_bytes`: the tensors between its steps."""

    steps: tuple[Step, ...]
    io_bytes: int
    between_bytes: int


@dataclass(frozen=True)
class Shards:
    """The schedules of all ranks, the names of the model's inputs, and of its output. `output_is_part`: every rank has
    a part of it, along the last dimension; else all have the same."""

    inputs: tuple[str, ...]
    output: str
    output_is_part: bool
    ranks: tuple[Schedule, ...]

    @classmethod
    def read(cls, path: Path) -> Shards:
        """Raises RequestError("invalid") if the file is none."""
        try:
            written = json.loads(path.read_text())
            return cls(
                tuple(written["inputs"]),
                written["output"],
                written["output_is_part"],
                tuple(_schedule(each, path.parent) for each in written["ranks"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise invalid(f"{path} does not hold the schedules of a shared engine: {problem!r}") from problem

    def write(self, path: Path) -> None:
        """Segments are named relative to the file's folder, in which they lie."""
        described = {
            "inputs": list(self.inputs),
            "output": self.output,
            "output_is_part": self.output_is_part,
            "ranks": [
                {
                    "steps": [_written(step, path.parent) for step in each.steps],
                    "io_bytes": each.io_bytes,
                    "between_bytes": each.between_bytes,
                }
                for each in self.ranks
            ],
        }
        path.write_text(json.dumps(described))

    def built(self, folder: Path) -> Shards:
        """The same, of the segments that are built into a folder."""

        def moved(step: Step) -> Step:
            return Segment(folder / f"{step.path.stem}.engine") if isinstance(step, Segment) else step

        return replace(self, ranks=tuple(replace(each, steps=tuple(map(moved, each.steps))) for each in self.ranks))


def _schedule(written: JsonObject, folder: Path) -> Schedule:
    steps = tuple(_step(each, folder) for each in written["steps"])
    return Schedule(steps, written["io_bytes"], written["between_bytes"])


def _step(written: JsonObject, folder: Path) -> Step:
    if "segment" in written:
        return Segment(folder / written["segment"])
    if written["collective"] not in ("sum", "gather"):
        raise ValueError(f"{written['collective']!r} is no collective")
    return Collective(written["collective"], written["source"], written["target"])


def _written(step: Step, folder: Path) -> JsonObject:
    if isinstance(step, Segment):
        return {"segment": str(step.path.relative_to(folder))}
    return {"collective": step.kind, "source": step.source, "target": step.target}
