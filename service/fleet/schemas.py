"""What waits for which workers, and how busy those say that their devices are, as it crosses HTTP."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from service.common.schemas import Request, Schema
from service.sweeps.schemas import WaitingCause


class DeviceUse(Request):
    """How busy a worker's devices were until now, on average."""

    busy_share: float = Field(ge=0, le=1, examples=[0.71])
    over_seconds: float = Field(gt=0, le=3600, description="of how long", examples=[600])
    source: Literal["nvml", "attempts"] = Field(
        description="nvml: the driver's count of the time in which a kernel ran, whoever started it; attempts: the "
        "time in which an attempt of the worker was at work and did not wait"
    )


class WorkerReport(Request):
    """What a worker says of itself, whatever it executes."""

    device_use: DeviceUse


class QueueEntry(Schema):
    """Trials of active sweeps of one project and priority that need the same of a worker."""

    project: str
    priority: int = Field(description="trials of a higher one are given to workers first")
    target: str | None = Field(description="runtime, version and device model; null: no worker was found yet")
    runtime: str | None = Field(description="null: any")
    version: str | None
    device_model: str | None
    compute_capability: str | None
    devices: int | None = Field(description="devices that the target has")
    device_memory_bytes: int | None
    results_version: int = Field(description="the version of results that the sweeps began with")
    labels: dict[str, str] = Field(description="those that a worker must have")
    sweeps: int
    queued: int = Field(description="trials that wait")
    running: int
    oldest_seconds: float | None = Field(description="since the oldest that waits was asked for; null: none waits")
    workers: int = Field(description="living workers that may take them")
    slots: int = Field(description="of these workers")
    busy_slots: int = Field(description="of these slots, those that execute a trial of whatever sweep")
    wanted_slots: int = Field(
        description="slots that the sweeps could use at once, free or not: what runs and waits, as far as a number in "
        "`budget.parallel` allows; of a sweep that no worker was found for, that number, or 1 for auto"
    )
    cause: WaitingCause | None = Field(
        description="why nothing takes what waits: target: no living worker can serve the sweeps; worker: none has the "
        "target any more; results_version: those measure by another version; label: none has the labels; parallel: as "
        "many run as the sweeps allow; quota: as many run as the project may use; priority: all slots are busy, and "
        "trials of a higher priority wait for them; slot: all slots are busy. null: nothing waits, or it is being taken"
    )
    waits_for: str | None = Field(description="the same in words, with what is missing")


class Queue(Schema):
    """What waits, by what it needs: the longest wait first."""

    items: list[QueueEntry]
