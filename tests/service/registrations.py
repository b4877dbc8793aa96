"""How workers of these tests register: with one target, on a processor that there is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.database.sessions import Database
from service.leases import schemas as lease_schemas
from service.leases import workers

CAPABILITIES: dict[str, Any] = {
    "runtime": "onnxruntime",
    "version": "1.32.0",
    "device_model": "Test CPU",
    "opset": 23,
    "dtypes": ["float32"],
    "device_memory_bytes": 2**33,
}


def registration(
    name: str = "worker",
    versions: Mapping[str, str] | None = None,
    *,
    slots: int = 1,
    labels: Mapping[str, str] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """The body of a registration; `changes` are to the capabilities."""
    return {
        "name": name,
        "device": {"kind": "cpu", "uuid": "cpu-1", "model": "Test CPU", "memory_bytes": 2**33},
        "slots": slots,
        "labels": dict(labels or {}),
        "targets": [CAPABILITIES | changes],
        "versions": dict(versions or {}),
    }


def register(
    database: Database,
    name: str = "worker",
    versions: Mapping[str, str] | None = None,
    *,
    slots: int = 1,
    labels: Mapping[str, str] | None = None,
    **changes: Any,
) -> str:
    """Register such a worker without HTTP; return its id."""
    body = lease_schemas.WorkerRegistration.model_validate(
        registration(name, versions, slots=slots, labels=labels, **changes)
    )
    return database.write(lambda session: workers.register(session, body, alive_seconds=90)).id
