"""A sweep with as many ended trials as wanted, put through the ordinary tables: for looking at the page, not at models.

The parameters are drawn from a real space and the configurations are complete; the metrics come from formulas with
noise and were measured by nothing. Ranks are those of `service.results.pareto`.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from layers.expressions.constraints import parse_constraint
from layers.parameter import Scalar
from layers.space.space import Space
from service.common.ids import new_id
from service.database.models import Attempt, Event, Measurement, Report, Sweep, Trial, TrialMetric, Worker
from service.database.sessions import Database, now
from service.events import events
from service.results.pareto import Ranking
from service.sweeps import drafts, sweeps

DOCUMENT: dict[str, Any] = {
    "name": "generated",
    "task": "causal_lm",
    "dataset": "python-topics",
    "model": {
        "num_layers": {"min": 1, "max": 12},
        "hidden_size": {"values": [64, 96, 128, 192, 256, 384, 512]},
        "attention": {
            "num_attention_heads": {"values": [2, 4, 8]},
            "position_embedding_type": {"values": ["learned_absolute", "rope_gpt_neox"]},
            "rotary_embedding_base": {
                "values": [10000.0, 500000.0],
                "when": "attention.position_embedding_type == 'rope_gpt_neox'",
            },
        },
        "mlp": {
            "kind": {"values": ["MLP", "GatedMLP", "FusedGatedMLP"]},
            "ffn_hidden_size": {
                "derived": "4 * hidden_size if mlp.kind == 'MLP' else round_up(8 * hidden_size / 3, 64)"
            },
            "hidden_act": {"values": ["gelu", "silu"]},
        },
        "norm": {"kind": {"values": ["LayerNorm", "RmsNorm"]}, "eps": {"min": 1e-8, "max": 1e-4, "log": True}},
    },
    "training": {"steps": 500, "batch_size": 32, "learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}},
    "inference": {"batch_size": 8, "sequence_length": 128},
    "objectives": [
        {"metric": "latency_ms_p50", "goal": "minimize"},
        {"metric": "memory_bytes", "goal": "minimize"},
        {"metric": "validation_loss", "goal": "minimize"},
    ],
    "constraints": ["latency_ms_p99 <= 6.0", "parameter_count <= 3e7"],
    "budget": {"trials": 100, "parallel": 4},
}
TARGET: dict[str, Any] = {
    "key": "onnxruntime|0|generated",
    "runtime": "onnxruntime",
    "version": "0",
    "device_model": "no device: generated numbers",
    "opset": 20,
    "dtypes": ["float32"],
    "device_memory_bytes": 2**34,
}
AT_ONCE = 1000


def generate(database: Database, trials: int, *, seed: int = 0, running: int = 0) -> str:
    """Store a sweep with `trials` ended trials (and `running` more); return its id. The latest have a whole story."""
    document = DOCUMENT | {"budget": {"trials": trials + running, "parallel": 4}}
    prepared = drafts.prepare(database, document)
    space = prepared.document.space
    constraints = [parse_constraint(text) for text in prepared.document.normalized["constraints"]]
    source = random.Random(seed)
    sweep_id = database.write(lambda session: sweeps.insert(session, prepared).id)
    worker_id = database.write(_worker)
    began = database.read(now) - 0.5 * (trials + 1)
    ranking = Ranking([objective["goal"] for objective in prepared.document.objectives])
    rows: list[dict[str, Any]] = []
    for number, point in enumerate(islice(_points(space, source), trials)):
        row = _trial(sweep_id, number, space, point, source, began)
        if row["state"] == "complete":
            broken = {c.text: c.violation(row["metrics"] | {}) or 0.0 for c in constraints}
            row |= {"violations": broken, "feasible": all(by <= 0 for by in broken.values())}
            if row["feasible"]:
                ranking.add(row["id"], [row["metrics"][each["metric"]] for each in prepared.document.objectives])
        rows.append(row)
    ranks = ranking.ranks
    for row in rows:
        row["pareto_rank"] = ranks.get(row["id"])
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        database.write(lambda session, some=some, start=start: _store(session, some, start))
    counts = dict(Counter(str(row["state"]) for row in rows))
    database.write(lambda session: _finish(session, sweep_id, counts, began, running > 0))
    for row in rows[-20:]:
        database.write(lambda session, row=row: _tell_story(session, row, worker_id))
    for number, point in enumerate(islice(_points(space, source), running), start=trials):
        row = _trial(sweep_id, number, space, point, source, began) | {"state": "queued", "metrics": {}}
        row |= {"feasible": None, "violations": None, "pareto_rank": None, "ended_at": None}
        database.write(lambda session, row=row: _start(session, row, worker_id))
    return sweep_id


def end_one_more(database: Database, sweep_id: str) -> None:
    """One more trial ends and is ranked: a copy of the newest, a little better."""
    database.write(lambda session: _end_one_more(session, sweep_id))


def _end_one_more(session: Session, sweep_id: str) -> None:
    sweep = session.get_one(Sweep, sweep_id)
    newest = session.scalars(
        sa.select(Trial)
        .where(Trial.sweep_id == sweep_id, Trial.state == "complete")
        .order_by(Trial.number.desc())
        .limit(1)
    ).one()
    copied = {column.key: getattr(newest, column.key) for column in Trial.__table__.columns}
    number = session.scalars(sa.select(sa.func.max(Trial.number)).where(Trial.sweep_id == sweep_id)).one() + 1
    metrics = newest.metrics | {"validation_loss": newest.metrics["validation_loss"] * (1 - 1e-6)}
    trial = Trial(**copied | {"id": new_id(), "number": number, "metrics": metrics, "point_hash": f"{number:064d}"})
    session.add(trial)
    session.flush()
    session.add_all(
        TrialMetric(trial_id=trial.id, sweep_id=sweep_id, name=name, value=float(value))
        for name, value in metrics.items()
    )
    sweep.counts = sweep.counts | {"complete": sweep.counts["complete"] + 1}
    events.append(session, sweep_id, "trial.ended", trial_id=trial.id, data={"number": number, "state": "complete"})
    session.flush()
    session.refresh(sweep)
    sweep.scheduled_sequence = sweep.event_counter


def _points(space: Space, source: random.Random) -> Iterator[dict[str, Scalar]]:
    while True:
        values = space.resolve(space.sample(source))
        if space.judge(values) is None:
            yield values


def _trial(
    sweep_id: str, number: int, space: Space, values: dict[str, Scalar], source: random.Random, began: float
) -> dict[str, Any]:
    configuration = space.configuration(values)
    state = source.choices(["complete", "infeasible", "pruned", "failed"], [92, 4, 2, 2])[0]
    reason = {"failed": "the loss is not finite at step 40", "pruned": "training diverged at step 120"}.get(state)
    metrics = _metrics(space, values, source)
    if state in ("failed", "pruned"):
        metrics = {name: metrics[name] for name in ("parameter_count", "flops")}
    elif state == "infeasible":
        metrics = {name: value for name, value in metrics.items() if "loss" not in name and "gap" not in name}
        metrics["latency_ms_p99"] = 6.0 + source.random()
        reason = "latency_ms_p99 <= 6.0 is broken"
    return {
        "id": new_id(),
        "sweep_id": sweep_id,
        "project": "default",
        "number": number,
        "state": state,
        "parameters": space.shown(values),
        "configuration": configuration,
        "point_hash": f"{number:064d}",
        "reuse_key": "",
        "target_key": TARGET["key"],
        "attempt": 1,
        "charged_attempts": 1,
        "max_attempts": 3,
        "feasible": False if state == "infeasible" else None,
        "violations": {"latency_ms_p99 <= 6.0": metrics["latency_ms_p99"] - 6.0} if state == "infeasible" else None,
        "reason": reason,
        "metrics": metrics,
        "pareto_rank": None,
        "created_at": began + 0.5 * number,
        "started_at": began + 0.5 * number,
        "ended_at": began + 0.5 * (number + 1),
    }


def _metrics(space: Space, values: dict[str, Scalar], source: random.Random) -> dict[str, float]:
    static = space.static_metrics(values)
    parameters, layers, width = static["parameter_count"], float(values["num_layers"]), float(values["hidden_size"])
    latency = (0.08 + 0.02 * layers + 2.2e-7 * parameters) * source.lognormvariate(0, 0.04)
    rate = math.log10(float(values["training.learning_rate"]) / (2e-3 * (128 / width) ** 0.5))
    loss = 1.2 + 4.5 / math.log(parameters) ** 0.8 + 0.35 * rate**2 + 0.08 / layers
    loss += 0.05 * (values["mlp.kind"] == "MLP") + 0.03 * (values["norm.kind"] == "LayerNorm")
    loss += 0.12 * (values["attention.position_embedding_type"] == "learned_absolute") + source.gauss(0, 0.02)
    weights, activations = 4 * parameters, 8 * 128 * width * 16
    gap = 0.02 * math.log(parameters / 1e5 + 1) + source.gauss(0, 0.005)
    return static | {
        "latency_ms_p50": latency,
        "latency_ms_p90": latency * 1.05,
        "latency_ms_p99": latency * (1.12 + 0.1 * source.random()),
        "latency_cv": 0.01 + 0.02 * source.random(),
        "throughput_per_s": 8000 / latency,
        "weights_bytes": weights,
        "activation_bytes": activations,
        "io_bytes": 8 * 128 * 260 * 4.0,
        "memory_bytes": weights + activations + 8 * 128 * 260 * 4.0,
        "validation_loss": loss,
        "reference_loss": loss - 1e-6,
        "precision_gap": 1e-6,
        "training_loss": loss - gap,
        "generalization_gap": gap,
        "bits_per_byte": loss / math.log(2),
        "build_seconds": 1.0 + 0.1 * layers,
        "train_seconds": 20 + 1e-6 * parameters,
        "device_seconds": 25 + 1e-6 * parameters,
    }


def _store(session: Session, rows: list[dict[str, Any]], start: int) -> None:
    connection = session.connection()
    metrics = [
        {"trial_id": row["id"], "sweep_id": row["sweep_id"], "name": name, "value": float(value)}
        for row in rows
        for name, value in row["metrics"].items()
    ]
    events = [
        {
            "sweep_id": row["sweep_id"],
            # The first event is the sweep's creation.
            "sequence": 2 + start + position,
            "kind": "trial.ended",
            "trial_id": row["id"],
            "data": {"number": row["number"], "state": row["state"]},
            "created_at": row["ended_at"],
        }
        for position, row in enumerate(rows)
    ]
    connection.execute(sa.insert(cast("sa.Table", Trial.__table__)), rows)
    connection.execute(sa.insert(cast("sa.Table", TrialMetric.__table__)), metrics)
    connection.execute(sa.insert(cast("sa.Table", Event.__table__)), events)


def _finish(session: Session, sweep_id: str, counts: dict[str, int], began: float, going: bool) -> None:
    sweep = session.get_one(Sweep, sweep_id)
    sweep.counts, sweep.rejected_count = counts, sum(counts.values()) // 7
    sweep.event_counter = sweep.scheduled_sequence = 1 + sum(counts.values())
    sweep.target, sweep.target_key, sweep.started_at, sweep.created_at = TARGET, TARGET["key"], began, began
    sweep.state, sweep.reason = ("active", None) if going else ("completed", "budget_exhausted")
    sweep.ended_at = None if going else now(session)


def _worker(session: Session) -> str:
    worker = Worker(
        id=new_id(),
        name="generated",
        device={"kind": "cpu", "uuid": "cpu-generated", "model": TARGET["device_model"], "memory_bytes": 2**34},
        device_uuid="cpu-generated",
        targets=[TARGET],
        versions={"layersweep": "0"},
        registered_at=now(session),
        last_seen_at=now(session),
    )
    session.add(worker)
    session.flush()
    return worker.id


def _tell_story(session: Session, row: dict[str, Any], worker_id: str) -> None:
    """Attempt, phases, curve and measurements, as a finish leaves them."""
    phases = ("check", 0.1), ("build", 2.0), ("measure", 3.0), ("train", 18.0), ("rebuild", 1.5), ("evaluate", 0.9)
    time, listed = row["started_at"], []
    for phase, seconds in phases:
        listed.append({"phase": phase, "started_at": time, "seconds": seconds})
        time += seconds
    session.add(
        Attempt(
            trial_id=row["id"],
            attempt=1,
            worker_id=worker_id,
            started_at=row["started_at"],
            ended_at=time,
            outcome=row["state"],
            phases=listed,
            log="generated: nothing ran",
        )
    )
    session.flush()
    source = random.Random(row["number"])
    loss = row["metrics"].get("validation_loss", 3.0)
    for step in range(0, 501, 25):
        height = loss + (5.5 - loss) * math.exp(-step / 90)
        values = {"training_loss": height - 0.05 + source.gauss(0, 0.02), "validation_loss": height}
        session.add(Report(trial_id=row["id"], attempt=1, step=step, values=values, created_at=time))
    if "latency_ms_p50" in row["metrics"]:
        middle = row["metrics"]["latency_ms_p50"]
        samples = [middle * source.lognormvariate(0, 0.02) for _ in range(500)]
        session.add(Measurement(trial_id=row["id"], name="latency_samples_ms", attempt=1, data={"samples_ms": samples}))


def _start(session: Session, row: dict[str, Any], worker_id: str) -> None:
    """A trial in training."""
    running = row | {"state": "running", "phase": "train", "progress": {"step": 120, "steps": 500}}
    running |= {"worker_id": worker_id, "lease_expires_at": now(session) + 86_400, "started_at": now(session) - 9}
    session.add(Trial(**running))
    session.flush()
    phases = [
        {"phase": "build", "started_at": now(session) - 9, "seconds": 3.0},
        {"phase": "train", "started_at": now(session) - 6, "seconds": 0.0},
    ]
    attempt = Attempt(
        trial_id=row["id"], attempt=1, worker_id=worker_id, started_at=now(session) - 9, phases=phases, log=""
    )
    session.add(attempt)
    sweep = session.get_one(Sweep, row["sweep_id"])
    sweep.counts = sweep.counts | {"running": sweep.counts.get("running", 0) + 1}
    sweep.running_count += 1
