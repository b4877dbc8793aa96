"""Rows of sweeps for tests of what is shown of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from layers.completion import complete
from layers.dataset_facts import ModelFacts
from layers.declarations.inference.parameters import complete_inference
from layers.declarations.training import complete_training
from service.common.ids import new_id
from service.database.models import Attempt, Measurement, Report, Sweep, Trial, TrialMetric, Worker
from service.database.sessions import now
from service.results.pareto import Ranking

OBJECTIVES = [
    {"metric": "latency_ms_p50", "goal": "minimize"},
    {"metric": "validation_loss", "goal": "minimize"},
]

DOCUMENT: dict[str, Any] = {
    "task": "causal_lm",
    "model": {
        "num_layers": {"min": 1, "max": 8},
        "hidden_size": {"values": [64, 128, 256]},
        "attention": {"num_attention_heads": {"values": [2, 4]}, "attention_mask_type": "causal"},
        "mlp": {"kind": {"values": ["MLP", "GatedMLP"]}, "ffn_hidden_size": {"derived": "4 * hidden_size"}},
    },
    "training": {"steps": 200, "learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}},
    "inference": {"batch_size": 8, "sequence_length": 128},
    "constraints": ["latency_ms_p99 <= 4.0"],
}

TARGET = {
    "key": "onnxruntime|1.32.0|TestCPU",
    "runtime": "onnxruntime",
    "version": "1.32.0",
    "device_model": "TestCPU 3000",
    "opset": 23,
    "dtypes": ["float32"],
    "device_memory_bytes": 2**33,
}


def add_sweep(session: Session, *, objectives: list[dict[str, str]] | None = None, **changes: Any) -> Sweep:
    """A sweep without trials."""
    row = {
        "project": "default",
        "name": "a sweep",
        "task": "causal_lm",
        "document": DOCUMENT,
        "objectives": objectives or OBJECTIVES,
        "budget": {"trials": 20, "parallel": 2, "failures": 5, "wall_seconds": None},
        "sampler": "tpe",
        "sampler_reason": "the default",
        "space": {
            "points": None,
            "feasible_share": 0.75,
            "sampled": True,
            "open_parameters": ["num_layers", "hidden_size", "attention.num_attention_heads", "mlp.kind"],
        },
        "state": "active",
        "counts": {},
    }
    sweep = Sweep(id=new_id(), created_at=now(session), **(row | changes))
    session.add(sweep)
    session.flush()
    return sweep


def add_trial(
    session: Session,
    sweep: Sweep,
    number: int,
    metrics: dict[str, float] | None = None,
    *,
    parameters: dict[str, Any] | None = None,
    **changes: Any,
) -> Trial:
    """A trial; complete and feasible where it has metrics, else queued. It is not ranked: see `rank`."""
    ended = metrics is not None
    row = {
        "state": "complete" if ended else "queued",
        "parameters": parameters if parameters is not None else {"num_layers": number},
        "configuration": {
            "task": "causal_lm",
            "model": {"num_layers": number, "hidden_size": 64},
            "training": {"steps": 200},
            "inference": {"batch_size": 8, "sequence_length": 128},
        },
        "metrics": metrics or {},
        "feasible": True if ended else None,
        "target_key": TARGET["key"],
        "ended_at": now(session) if ended else None,
    } | changes
    trial = Trial(
        id=new_id(),
        project="default",
        sweep_id=sweep.id,
        number=number,
        point_hash=f"{number:064d}",
        reuse_key="",
        created_at=now(session),
        **row,
    )
    session.add(trial)
    session.flush()
    for name, value in (metrics or {}).items():
        session.add(TrialMetric(trial_id=trial.id, name=name, sweep_id=sweep.id, value=value))
    sweep.counts = sweep.counts | {trial.state: sweep.counts.get(trial.state, 0) + 1}
    session.flush()
    return trial


def rank(session: Session, sweep: Sweep, trials: list[Trial]) -> None:
    """Rank the complete feasible ones, as the scheduler does."""
    ranking = Ranking([each["goal"] for each in sweep.objectives])
    known = {trial.id: trial for trial in trials}
    for trial in trials:
        if trial.state == "complete" and trial.feasible:
            values = [trial.metrics[each["metric"]] for each in sweep.objectives]
            for trial_id, new_rank in ranking.add(trial.id, values).items():
                known[trial_id].pareto_rank = new_rank
    session.flush()


def add_worker(session: Session, name: str = "worker-1") -> Worker:
    worker = Worker(
        id=new_id(),
        name=name,
        device={"kind": "cpu", "uuid": "cpu-1", "model": "TestCPU 3000", "memory_bytes": 2**33},
        device_uuid="cpu-1",
        targets=[TARGET],
        versions={"layersweep": "0.1.0", "onnxruntime": "1.32.0"},
        registered_at=now(session),
        last_seen_at=now(session),
    )
    session.add(worker)
    session.flush()
    return worker


CURVE = {step: {"training_loss": 5 - step / 80, "validation_loss": 5.1 - step / 90} for step in range(0, 201, 20)}
"""Losses by step."""


def add_attempt(
    session: Session,
    trial: Trial,
    worker: Worker,
    *,
    curve: Mapping[int, dict[str, float]] = CURVE,
    **changes: Any,
) -> Attempt:
    """An attempt with phases, and a curve of losses."""
    started = now(session) - 60
    phases = [("check", 0.1), ("build", 4.0), ("measure", 3.0), ("train", 40.0), ("evaluate", 6.0)]
    listed: list[dict[str, Any]] = []
    time = started
    for phase, seconds in phases:
        listed.append({"phase": phase, "started_at": time, "seconds": seconds})
        time += seconds
    row = {"phases": listed, "log": "step 1\nstep 2", "outcome": "complete", "ended_at": time} | changes
    attempt = Attempt(trial_id=trial.id, attempt=1, worker_id=worker.id, started_at=started, **row)
    trial.attempt = 1
    session.add(attempt)
    session.flush()
    for step, values in curve.items():
        session.add(Report(trial_id=trial.id, attempt=1, step=step, values=values, created_at=started + step))
    session.flush()
    return attempt


def add_measurement(session: Session, trial: Trial, name: str, data: dict[str, Any]) -> None:
    session.add(Measurement(trial_id=trial.id, name=name, attempt=1, data=data))
    session.flush()


def complete_configuration(num_layers: int) -> dict[str, Any]:
    """What a worker executes, with every default filled in."""
    inference = complete_inference({"batch_size": 8, "sequence_length": 64})
    model = {"num_layers": num_layers, "hidden_size": 64, "attention.num_attention_heads": 4}
    facts: ModelFacts = {"vocabulary_size": 64, "sequence_length": 64}
    return {
        "task": "causal_lm",
        "model": complete("causal_lm", model, facts),
        "training": complete_training({"steps": 200}, inference),
        "inference": inference,
    }
