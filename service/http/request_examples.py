"""An example of each request that has a body, by the name of its operation: `openapi.json` and the page show them.

`tests/service/http/test_request_examples.py` sends every one of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from layersweep.json_values import JsonObject

JSON: Mapping[str, JsonObject] = {
    "annotate_sweep": {"name": "baseline", "note": "lower learning rates diverge less", "tags": ["paper"]},
    "extend_sweep": {"trials": 20},
    "prioritize_sweep": {"priority": -1},
    "confirm_sweep": {"seeds": 3, "candidates": 3},
    "remeasure_trial": {"limits": ["latency_ms_p50 <= 1.02 * baseline", "memory_bytes <= 2e8"], "builds": 5},
    "judge_sweep": {"limits": ["memory_bytes <= 2e8"]},
    "create_webhook": {"url": "https://example.com/layersweep", "events": ["sweep.completed", "sweep.failed"]},
    "change_webhook": {"enabled": False},
    "create_token": {"name": "ci", "scopes": ["submit"], "project": "default", "expires_in_days": 90},
    "create_project": {"name": "vision"},
    "change_project": {"max_running_trials": 16, "max_priority": 0},
    "register_worker": {
        "name": "cpu-7",
        "device": {"kind": "cpu", "uuid": "cpu-4f1c", "model": "Intel Xeon", "memory_bytes": 8_589_934_592},
        "targets": [
            {
                "runtime": "onnxruntime",
                "version": "1.32.0",
                "device_model": "Intel Xeon",
                "opset": 23,
                "dtypes": ["float32"],
                "device_memory_bytes": 8_589_934_592,
            }
        ],
        "slots": 2,
        "labels": {"site": "a"},
    },
    "claim_lease": {"worker": "01M891VDZHPG894V15G3RXXVWP"},
    "report_on_worker": {"device_use": {"busy_share": 0.71, "over_seconds": 600, "source": "nvml"}},
    "send_report": {
        "phase": "train",
        "progress": {"step": 100, "steps": 500},
        "losses": [{"step": 100, "training_loss": 2.31}],
        "log": "step 100: training loss 2.31\n",
    },
    "finish_attempt": {
        "outcome": "complete",
        "metrics": {"latency_ms_p50": 0.41, "validation_loss": 2.27},
        "claim": True,
    },
    "release_attempt": {"reason": "the worker drains"},
    "offer_artifacts": {"metrics": {"latency_ms_p50": 0.41, "validation_loss": 2.27}},
}
"""Bodies of `application/json`. Of a sweep document the route has its own."""

FORMS: Mapping[str, Mapping[str, str]] = {
    "upload_dataset": {"name": "my-text", "tokenizer": "char", "file": "@my-text.txt"},
    "upload_checkpoint": {"config": "@config.json", "weights": "@model.safetensors", "name": "smollm2"},
}
"""Fields of `multipart/form-data`; a file is its path behind @, as for curl."""
