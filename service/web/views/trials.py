"""The page of one trial."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from layers.expressions.constraints import parse_constraint
from layers.expressions.metric_names import MetricNames
from layers.expressions.names import DECLARED
from layers.metrics import AT, Goal, split_name
from layers.parameter import Scalar
from layersweep.json_values import JsonObject
from service.common.states import ENDED_SWEEPS, OPEN_TRIALS
from service.database.models import Artifact, Dataset, Sweep, Worker
from service.database.sessions import now
from service.leases import schemas as lease_schemas
from service.leases import trials
from service.operations import artifacts, transformers_export
from service.pruning.promoted import is_stopped
from service.results import charts, leaderboards
from service.results.shapes import ShapePicture, ShapeTable, shape_picture, shape_table
from service.web.views.common import Fact, baselines_nats, dataset_of, flat, phases_ahead
from service.web.views.trial_neighbours import TrialNeighbours, neighbours

_LATENCY_MEASUREMENTS = {
    "latency_first": "latency before training",
    "latency_samples_ms": "latency of the final engine",
}
GAPS = ("generalization_gap", "precision_gap")
MEMORY = ("weights_bytes", "activation_bytes", "io_bytes")
LATENCY = ("latency_ms_p50", "latency_ms_p90", "latency_ms_p99", "latency_cv", "throughput_per_s")
GENERATION = (
    "prefill_ms_p50",
    "prefill_ms_p99",
    "decode_ms_per_token_p50",
    "decode_ms_per_token_p90",
    "decode_ms_per_token_p99",
    "time_to_first_token_ms",
    "tokens_per_s",
    "kv_cache_bytes",
)
_DETAILS = re.compile(r"; | \(")
"""Where the meaning of a parameter goes into details."""
BRIEF = 90
"""Characters."""
PERCENTILES = ("p50", "p90", "p99")


@dataclass(frozen=True, slots=True)
class VariedParameter:
    """What the sweep varies, with what it is and where its recommendation comes from."""

    name: str
    value: Scalar | None
    origin: Literal["swept", "derived"]
    meaning: str
    source: str

    @property
    def brief(self) -> str:
        """The meaning without its details."""
        brief = _DETAILS.split(self.meaning, maxsplit=1)[0]
        return brief if len(brief) <= BRIEF else brief.partition(":")[0]


@dataclass(frozen=True, slots=True)
class GeneratedSteps:
    """Steps of a text whose caches have the same capacity."""

    capacity: int
    steps: int
    latency_ms_p50: float
    latency_ms_p99: float


@dataclass(frozen=True, slots=True)
class JudgedConstraint:
    """A constraint, with the trial's values of the metrics that it names."""

    text: str
    values: Mapping[str, float]
    broken_by: float
    """0 or less if it is kept."""
    is_undecided: bool


@dataclass(frozen=True, slots=True)
class TrialPage:
    now: float
    sweep: Sweep
    trial: lease_schemas.TrialDetail
    reference: str
    """What commands and `start_from` call it."""
    dataset: Dataset | None
    workers: Mapping[str, str]
    """Names by id."""
    phases: list[tuple[charts.Segment, lease_schemas.PhaseTime]]
    metric_names: list[str]
    objectives: Mapping[str, Goal]
    summary_metrics: list[str]
    """What the head shows: those of every summary, and gaps."""
    constraints: list[JudgedConstraint]
    curve: charts.Curve | None
    histogram: charts.Histogram | None
    """Of several shapes that of the first."""
    latency_names: list[str]
    """The metrics below the histogram."""
    generation_names: list[str]
    """Those of generating."""
    generated: list[GeneratedSteps]
    memory: list[charts.Segment]
    memory_bytes: float | None
    shapes: ShapeTable | None
    shape_picture: ShapePicture | None
    parameters: list[VariedParameter]
    artifacts: list[Artifact]
    transformers_architecture: str | None
    """Under which its model can leave; None if it cannot, or left no weights."""
    facts: Mapping[str, Mapping[str, Fact]]
    is_live: bool
    can_promote: bool
    """Whether a pruner has stopped it, and nobody has asked for its end yet."""
    not_measured: str
    """What stands where a latency will be."""
    neighbours: TrialNeighbours


def trial(session: Session, trial_id: str) -> TrialPage:
    """One trial with everything that was learnt of it."""
    row = trials.get(session, trial_id)
    sweep_row = leaderboards.get_sweep(session, row.sweep_id)
    detail = trials.detail(session, row)
    dataset = dataset_of(session, sweep_row)
    executing = select(Worker).where(Worker.id.in_([each.worker for each in detail.attempts]))
    metrics = row.metrics
    is_live = row.state in OPEN_TRIALS and sweep_row.state not in ENDED_SWEEPS
    kept = artifacts.of_trial(session, trial_id)
    names = MetricNames.of_shapes(row.configuration.get("shapes", []))
    full = {name: names.resolve(f"latency_ms_{name}") for name in PERCENTILES}
    percentiles = {name: metrics[metric] for name, metric in full.items() if metric in metrics}
    shapes = shape_table(row.configuration, metrics)
    return TrialPage(
        now=now(session),
        sweep=sweep_row,
        trial=detail,
        reference=trials.reference_of(session, row),
        dataset=dataset,
        workers={worker.id: worker.name for worker in session.scalars(executing)},
        phases=_phases(detail.attempts[-1] if detail.attempts else None),
        metric_names=(known := [name for name in names if name in metrics]) + sorted(metrics.keys() - set(known)),
        objectives={each["metric"]: each["goal"] for each in sweep_row.objectives},
        summary_metrics=list(
            dict.fromkeys([*leaderboards.summary_of(sweep_row), *(name for name in GAPS if name in metrics)])
        ),
        constraints=_constraints(detail),
        curve=charts.curve(detail.curve, baselines_nats(dataset)),
        histogram=charts.histogram(_latency_samples(detail.measurements, names.first), percentiles),
        latency_names=[full for name in LATENCY if (full := names.resolve(name)) in metrics],
        generation_names=[full for name in GENERATION if (full := names.resolve(name)) in metrics],
        generated=_generated(detail.measurements, names.first),
        memory=charts.segments(
            {name: float(metrics[full]) for name in MEMORY if (full := names.resolve(name)) in metrics}
        ),
        memory_bytes=metrics.get(names.resolve("memory_bytes")),
        shapes=shapes,
        shape_picture=shape_picture(shapes),
        parameters=_parameters(sweep_row, detail),
        artifacts=kept,
        transformers_architecture=transformers_export.offered(session, trial_id, kept),
        facts=_facts(detail.measurements),
        is_live=is_live,
        can_promote=not row.promoted and is_stopped(session, trial_id),
        not_measured=_not_measured(sweep_row, detail) if is_live else "Not measured.",
        neighbours=neighbours(session, sweep_row, row),
    )


def _parameters(sweep: Sweep, detail: lease_schemas.TrialDetail) -> list[VariedParameter]:
    open_names = set(sweep.space.get("open_parameters", []))
    return [
        VariedParameter(
            name=name,
            value=value,
            origin="swept" if name in open_names else "derived",
            meaning=DECLARED[name].meaning if name in DECLARED else "",
            source=DECLARED[name].source if name in DECLARED else "",
        )
        for name, value in detail.parameters.items()
    ]


def _constraints(detail: lease_schemas.TrialDetail) -> list[JudgedConstraint]:
    undecided = [] if detail.noise is None else detail.noise.undecided
    return [
        JudgedConstraint(
            text,
            {name: detail.metrics[name] for name in parse_constraint(text).metrics if name in detail.metrics},
            broken_by,
            text in undecided,
        )
        for text, broken_by in (detail.violations or {}).items()
    ]


def _not_measured(sweep: Sweep, detail: lease_schemas.TrialDetail) -> str:
    """Why a trial that goes on has no latency: it was not measured yet, or its figures come when it ends."""
    entered = [each.phase for each in detail.attempts[-1].phases] if detail.attempts else []
    order = phases_ahead(sweep, entered, is_predicted=detail.predicted is not None)
    if detail.phase is None or order.index(detail.phase) <= order.index("measure"):
        return "Not measured yet."
    when = "before" if order.index("measure") < order.index("train") else "after"
    return f"Measured {when} its training: the log below has the figures, and they stand here once the trial ends."


def _phases(attempt: lease_schemas.Attempt | None) -> list[tuple[charts.Segment, lease_schemas.PhaseTime]]:
    """The newest attempt's phases beside one another, in proportion to their time."""
    if attempt is None or not attempt.phases:
        return []
    keyed = {f"{index} {phase.phase}": phase for index, phase in enumerate(attempt.phases)}
    # A sliver is left for what took no time, so that it can be seen and pointed at.
    least = sum(phase.seconds for phase in attempt.phases) / 200 or 1.0
    pieces = charts.segments({key: max(phase.seconds, least) for key, phase in keyed.items()})
    return [(piece, keyed[piece.name]) for piece in pieces]


def _latency_samples(measurements: Mapping[str, JsonObject], shape: str | None) -> list[float]:
    """The raw samples behind the reported latencies: of the final engine, or of the first if there is no other."""
    at = "" if shape is None else f"{AT}{shape}"
    for name in ("latency_samples_ms", "latency_first"):
        samples = measurements.get(f"{name}{at}", {}).get("samples_ms")
        if isinstance(samples, list):
            return [float(each) for each in samples if isinstance(each, int | float)]
    return []


def _generated(measurements: Mapping[str, JsonObject], shape: str | None) -> list[GeneratedSteps]:
    """The steps of each bucket. What a worker says is not checked: what is not of this form is left out."""
    buckets: object = measurements.get("generation" if shape is None else f"generation{AT}{shape}", {}).get("decode")
    found: list[GeneratedSteps] = []
    for bucket in cast("list[object]", buckets) if isinstance(buckets, list) else []:
        match bucket:
            case {
                "capacity": int(capacity),
                "steps": int(steps),
                "latency_ms_p50": int(p50) | float(p50),
                "latency_ms_p99": int(p99) | float(p99),
            }:
                found.append(GeneratedSteps(capacity, steps, float(p50), float(p99)))
            case _:
                pass
    return found


def _facts(measurements: Mapping[str, JsonObject]) -> dict[str, dict[str, Fact]]:
    """What is kept beside the metrics, less what the page shows elsewhere."""
    facts: dict[str, dict[str, Fact]] = {}
    for name, data in measurements.items():
        base, shape = split_name(name)
        if base in ("memory", "generation"):
            continue
        if base in _LATENCY_MEASUREMENTS:
            # The environment is a measurement of its own; the final figures are the metrics.
            data = {key: value for key, value in data.items() if key != "environment"}
        words = _LATENCY_MEASUREMENTS.get(base, base.replace("_", " "))
        facts[words if shape is None else f"{words} at {shape}"] = flat(data)
    return facts
