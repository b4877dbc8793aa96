"""Rows of every table as released schemas had them: what a database in use held before an upgrade."""

from __future__ import annotations

from typing import Any

_TARGET = {"key": "onnxruntime|1.32.0|Old CPU, 2 threads", "runtime": "onnxruntime", "dtypes": ["float32"]}
_LONG = "größer als das Übliche – ≥ 5 " * 40

_0001: dict[str, list[dict[str, Any]]] = {
    "datasets": [
        {
            "id": "01DATASET00000000000000001",
            "project": "default",
            "name": "old-text",
            "task": "causal_lm",
            "tokenizer": "byte",
            "builtin": False,
            "sha256": "a" * 64,
            "size_bytes": 5_000_000_000,
            "facts": {"vocabulary_size": 256, "tokenizer": "byte"},
            "parts": {"training": {"tokens": 900, "sha256": "b" * 64}, "validation": {"tokens": 100}},
            "profile": {"baselines": {"bigram": 2.3200000000000003}, "note": _LONG},
            "created_at": 1_763_900_000.125,
        }
    ],
    "workers": [
        {
            "id": "01WORKER000000000000000001",
            "name": "old-worker",
            "device": {"kind": "cpu", "uuid": "cpu-1", "model": "Old CPU, 2 threads"},
            "device_uuid": "cpu-1",
            "targets": [_TARGET],
            "versions": {"torch": "2.11.0"},
            "registered_at": 1_763_900_001.0,
            "last_seen_at": 1_763_900_099.75,
        }
    ],
    "sweeps": [
        {
            "id": "01SWEEP0000000000000000001",
            "project": "default",
            "name": "an old sweep",
            "task": "causal_lm",
            "dataset_id": "01DATASET00000000000000001",
            "document": {"task": "causal_lm", "model": {"num_layers": {"min": 1, "max": 3}}, "dataset": "old-text"},
            "objectives": [{"metric": "validation_loss", "goal": "minimize"}],
            "budget": {"trials": 2, "parallel": 1, "failures": 1, "wall_seconds": None},
            "sampler": "tpe",
            "sampler_reason": "the default",
            "space": {"points": 3, "feasible_share": 1.0, "sampled": False},
            "target_runtime": None,
            "target": _TARGET,
            "target_key": _TARGET["key"],
            "state": "active",
            "reason": None,
            "running_count": 0,
            "rejected_count": 1,
            "counts": {"complete": 1, "queued": 1},
            "event_counter": 2,
            "scheduled_sequence": 2,
            "leader_id": "leader-1",
            "leader_epoch": 7,
            "leader_expires_at": 1_763_900_100.5,
            "created_at": 1_763_900_002.0,
            "started_at": 1_763_900_003.0,
            "ended_at": None,
        }
    ],
    "trials": [
        {
            "id": f"01TRIAL000000000000000000{number}",
            "sweep_id": "01SWEEP0000000000000000001",
            "project": "default",
            "number": number,
            "state": state,
            "parameters": {"num_layers": number + 1},
            "configuration": {"task": "causal_lm", "model": {"num_layers": number + 1}},
            "point_hash": f"{number}" * 64,
            "reuse_key": f"{number + 2}" * 64,
            "reused_from": None,
            "started_from": "preset:nanogpt-char-cpu" if number == 0 else None,
            "target_key": _TARGET["key"],
            "attempt": 1 - number,
            "charged_attempts": 1 - number,
            "max_attempts": 3,
            "worker_id": "01WORKER000000000000000001" if number == 0 else None,
            "lease_expires_at": None,
            "phase": "evaluate" if number == 0 else None,
            "progress": {"step": 100} if number == 0 else None,
            "feasible": True if number == 0 else None,
            "violations": {"latency_ms_p99 <= 2.0": -0.5} if number == 0 else None,
            "reason": None,
            "metrics": {"validation_loss": 1.7312345678901234} if number == 0 else {},
            "pareto_rank": 1 if number == 0 else None,
            "created_at": 1_763_900_004.0 + number,
            "started_at": 1_763_900_005.0 if number == 0 else None,
            "ended_at": 1_763_900_006.0 if number == 0 else None,
        }
        for number, state in enumerate(("complete", "queued"))
    ],
    "trial_metrics": [
        {
            "trial_id": "01TRIAL0000000000000000000",
            "name": "validation_loss",
            "sweep_id": "01SWEEP0000000000000000001",
            "value": 1.7312345678901234,
        }
    ],
    "attempts": [
        {
            "trial_id": "01TRIAL0000000000000000000",
            "attempt": 1,
            "worker_id": "01WORKER000000000000000001",
            "started_at": 1_763_900_005.0,
            "ended_at": 1_763_900_006.0,
            "outcome": "complete",
            "reason": None,
            "finish_hash": "c" * 64,
            "phases": [{"phase": "check", "started_at": 1_763_900_005.0, "seconds": 0.25}],
            "log": _LONG,
        }
    ],
    "reports": [
        {
            "trial_id": "01TRIAL0000000000000000000",
            "attempt": 1,
            "step": 100,
            "values": {"training_loss": 2.5, "validation_loss": 2.6},
            "created_at": 1_763_900_005.5,
        }
    ],
    "measurements": [
        {
            "trial_id": "01TRIAL0000000000000000000",
            "name": "latency_samples_ms",
            "attempt": 1,
            "data": {"samples_ms": [0.123, 0.124, 1e-9]},
        }
    ],
    "asks": [
        {
            "sweep_id": "01SWEEP0000000000000000001",
            "ask": number,
            "trial_id": trial_id,
            "state": state,
            "suggestions": {"num_layers": number},
            "distributions": {"num_layers": {"name": "IntDistribution", "attributes": {"low": 1, "high": 3}}},
            "system_attrs": {"tpe": {"seed": number}},
            "told": told,
            "told_order": told and number,
            "rejection": None,
        }
        for number, (trial_id, state, told) in enumerate(
            (
                (None, "told", {"state": "PRUNED", "values": None, "constraints": {"rule": 1.0}}),
                ("01TRIAL0000000000000000000", "told", {"state": "COMPLETE", "values": [1.73], "constraints": {}}),
                ("01TRIAL0000000000000000001", "asked", None),
            )
        )
    ],
    "study_attributes": [
        {"sweep_id": "01SWEEP0000000000000000001", "name": "qmc:sequence", "value": {"value": [1, 2, {"nested": None}]}}
    ],
    "events": [
        {
            "sweep_id": "01SWEEP0000000000000000001",
            "sequence": sequence,
            "kind": kind,
            "trial_id": trial_id,
            "data": {"number": 0},
            "created_at": 1_763_900_006.0 + sequence,
        }
        for sequence, kind, trial_id in ((1, "sweep.created", None), (2, "trial.ended", "01TRIAL0000000000000000000"))
    ],
    "idempotency_keys": [
        {
            "project": "default",
            "key": "key-1",
            "request_hash": "d" * 64,
            "status": 201,
            "body": {"id": "01SWEEP0000000000000000001"},
            "created_at": 1_763_900_002.0,
        }
    ],
}

_0003: dict[str, list[dict[str, Any]]] = {
    **_0001,
    "workers": [worker | {"project": "vision"} for worker in _0001["workers"]],
    "sweeps": [
        *_0001["sweeps"],
        _0001["sweeps"][0]
        | {
            "id": "01SWEEP0000000000000000002",
            "name": "confirmation of an old sweep",
            "sampler": "confirmation",
            "state": "completed",
            "reason": "confirmed",
            "ended_at": 1_763_900_200.0,
        },
    ],
    "projects": [{"name": "vision", "created_at": 1_763_899_000.5}],
    "tokens": [
        {
            "id": f"01TOKEN000000000000000000{number}",
            "project": project,
            "name": "größe",
            "scopes": scopes,
            "sha256": f"{number}" * 64,
            "made_by": "the command line",
            "created_at": 1_763_899_001.0,
            "expires_at": expires_at,
            "revoked_at": None if number else 1_763_899_900.0,
            "last_used_at": 1_763_899_800.0,
        }
        for number, (project, scopes, expires_at) in enumerate(
            ((None, ["admin", "work"], None), ("vision", ["read"], 1_795_000_000.0))
        )
    ],
    "audit_records": [
        {
            "id": "01AUDIT0000000000000000001",
            "created_at": 1_763_899_002.0,
            "actor": "ana",
            "token_id": "01TOKEN0000000000000000001",
            "project": "vision",
            "action": "sweep.pause",
            "subject": "01SWEEP0000000000000000001",
            "request_id": "from-a-proxy",
        }
    ],
    "webhooks": [
        {
            "id": "01WEBHK0000000000000000001",
            "project": "vision",
            "url": "https://example.com/hook",
            "secret": "e" * 64,
            "created_at": 1_763_899_003.0,
        }
    ],
    "webhook_deliveries": [
        {
            "id": f"01DELIV000000000000000000{number}",
            "webhook_id": "01WEBHK0000000000000000001",
            "body": {"type": "sweep.paused", "data": {"sequence": number}},
            "state": state,
            "tries": number + 1,
            "due_at": 1_763_899_004.25,
            "last_error": error,
            "created_at": 1_763_899_004.0,
            "ended_at": ended_at,
        }
        for number, (state, error, ended_at) in enumerate(
            (("pending", "it refused", None), ("delivered", None, 1_763_899_005.0))
        )
    ],
    "confirmations": [
        {
            "sweep_id": "01SWEEP0000000000000000002",
            "confirms": "01SWEEP0000000000000000001",
            "seeds": [1001, 1002],
            "candidates": ["01TRIAL0000000000000000000"],
        }
    ],
    "artifacts": [
        {
            "trial_id": "01TRIAL0000000000000000000",
            "name": "weights.safetensors",
            "attempt": 1,
            "size_bytes": 6_000_000_000,
            "sha256": "f" * 64,
            "created_at": 1_763_900_006.0,
        }
    ],
}
_0002: dict[str, list[dict[str, Any]]] = {
    name: values for name, values in _0003.items() if name not in ("confirmations", "artifacts")
}
_0004: dict[str, list[dict[str, Any]]] = {
    **_0003,
    "webhooks": [
        {
            "id": "01WEBHK0000000000000000001",
            "project": "vision",
            "url": "https://example.com/hook",
            "salt": "e" * 64,
            "events": ["sweep.failed"],
            "enabled": False,
            "made_by": "ana",
            "created_at": 1_763_899_003.0,
        }
    ],
    "webhook_deliveries": [
        delivery | {"status": status} for delivery, status in zip(_0003["webhook_deliveries"], (None, 204), strict=True)
    ],
}
_0005: dict[str, list[dict[str, Any]]] = {
    **_0004,
    "audit_records": [record | {"address": "2001:db8::1"} for record in _0004["audit_records"]],
}
_0006: dict[str, list[dict[str, Any]]] = {
    **_0005,
    "workers": [
        *(worker | {"signed_off_at": None} for worker in _0005["workers"]),
        _0005["workers"][0] | {"id": "01WORKER000000000000000002", "signed_off_at": 1_763_900_150.5},
    ],
}

RELEASED: dict[str, dict[str, list[dict[str, Any]]]] = {
    "0001": _0001,
    "0002": _0002,
    "0003": _0003,
    "0004": _0004,
    "0005": _0005,
    "0006": _0006,
}
"""Revision -> table -> rows, in an order that foreign keys allow."""

RENAMED: dict[tuple[str, str], str] = {("webhooks", "secret"): "salt"}
"""Columns that a later revision gave another name: table and name then -> name now."""
