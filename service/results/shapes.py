"""A trial at the shapes that it was measured at, side by side: as a table, and latency over batch and length drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layers.configuration import Configuration
from layers.declarations.inference.mode import is_generated
from layers.declarations.inference.shapes import NamedShape, shapes_of
from layers.metrics import named_at
from layers.parameter import Scalar
from service.results.axes import Axis
from service.results.charts import LEFT, RIGHT, TOP, WIDTH, Frame

FORWARD = ("latency_ms_p50", "latency_ms_p99", "throughput_per_s", "memory_bytes")
GENERATED = ("decode_ms_per_token_p50", "decode_ms_per_token_p99", "prefill_ms_p50", "tokens_per_s", "memory_bytes")
"""The columns, if a trial has them: of sequences that are read at once, and if texts are generated. A mark is at
the first of them, and its whisker reaches to the second."""

SERVED = (
    "prefill_ms_p50",
    "prefill_ms_p99",
    "time_to_first_token_ms",
    "decode_ms_per_token_p50",
    "decode_ms_per_token_p99",
    "tokens_per_s",
    "kv_cache_bytes",
)
"""What somebody who waits for a text cares for."""

HEIGHT, BOTTOM = 300, 52
NEAR_THE_EDGE = 0.66
"""Of the width: what lies beyond has its name on the left."""


@dataclass(frozen=True, slots=True)
class ShapeRow:
    """One shape: `size` as people write it (batch × length), `figures` by the metrics' names without the shape."""

    name: str
    size: str
    tokens: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ShapeTable:
    """The shapes in the document's order, and those of the columns that any of them has."""

    metrics: list[str]
    rows: list[ShapeRow]


@dataclass(frozen=True, slots=True)
class ShapeMark:
    """A shape where it is drawn; `whisker` is how high its slow runs lie."""

    row: ShapeRow
    x: float
    y: float
    whisker: float
    is_named_left: bool


@dataclass(frozen=True, slots=True)
class ShapePicture:
    """The latency of each shape by the tokens of one inference."""

    frame: Frame
    marks: list[ShapeMark]


def shape_table(configuration: Configuration, metrics: Mapping[str, float]) -> ShapeTable | None:
    """The figures of a trial at each shape; None if its sweep names none."""
    shapes = shapes_of(configuration.get("shapes", []))
    if not shapes:
        return None
    columns = GENERATED if any(named_at(GENERATED[0], shape.name) in metrics for shape in shapes) else FORWARD
    return _table(shapes, columns, metrics)


def served_table(configuration: Configuration, metrics: Mapping[str, float]) -> ShapeTable | None:
    """Prompts and steps of a trial that generates, at each of its shapes, or in a row without a name if it has one;
    None if sequences are read at once."""
    inference = configuration["inference"]
    if not is_generated(inference):
        return None
    return _table(shapes_of(configuration.get("shapes", [])) or (NamedShape("", inference),), SERVED, metrics)


def _table(shapes: Sequence[NamedShape], columns: Sequence[str], metrics: Mapping[str, float]) -> ShapeTable:
    """A row for each shape, and those of the columns that are known of any."""
    rows: list[ShapeRow] = []
    for shape in shapes:
        names = {name: named_at(name, shape.name) if shape.name else name for name in columns}
        figures = {name: metrics[full] for name, full in names.items() if full in metrics}
        rows.append(ShapeRow(shape.name, size_in_words(shape.values), _tokens(shape), figures))
    return ShapeTable([name for name in columns if any(name in row.figures for row in rows)], rows)


def shape_picture(table: ShapeTable | None) -> ShapePicture | None:
    """The picture of a table; None if fewer than two shapes were measured."""
    drawn = [] if table is None else [name for name in table.metrics if name in (*FORWARD[:2], *GENERATED[:2])]
    if table is None or not drawn:
        return None
    at, reach = drawn[0], drawn[-1]
    rows = [row for row in table.rows if at in row.figures]
    if len(rows) < 2:
        return None
    latencies = [row.figures[name] for row in rows for name in drawn if name in row.figures]
    x = Axis.over("tokens_of_shape", [float(row.tokens) for row in rows], LEFT, WIDTH - RIGHT, log=True)
    y = Axis.over(at, latencies, HEIGHT - BOTTOM, TOP, log=True)
    frame = Frame(x, y, height=HEIGHT)
    marks = [
        ShapeMark(
            row,
            (across := x.at(row.tokens)),
            y.at(row.figures[at]),
            y.at(row.figures.get(reach, row.figures[at])),
            across > LEFT + NEAR_THE_EDGE * (WIDTH - LEFT - RIGHT),
        )
        for row in rows
    ]
    return ShapePicture(frame, marks)


def size_in_words(values: Mapping[str, Scalar]) -> str:
    """A shape as people write it: 32 × 128; with a source, 32 × 64 → 128; of a prompt and its answer, 1 × 64 + 32."""
    lengths = f"{values['sequence_length']}"
    if "prompt_tokens" in values:
        lengths = f"{values['prompt_tokens']} + {values['new_tokens']}"
    if "source_length" in values:
        lengths = f"{values['source_length']} → {lengths}"
    return f"{values['batch_size']} × {lengths}"


def _tokens(shape: NamedShape) -> int:
    """Of one inference, those of its sources included."""
    lengths = int(shape.values["sequence_length"]) + int(shape.values.get("source_length", 0))
    return int(shape.values["batch_size"]) * lengths
