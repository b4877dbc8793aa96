"""What a worker is told when it starts, by subject."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


def default_cache_folder() -> Path:
    """The user's cache folder for Layersweep."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "layersweep"


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """Who the worker is to the service."""

    name: str | None = None
    """What it is called in lists (default: host and process)."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    """What sweeps may ask for by `target.labels`."""


@dataclass(frozen=True, slots=True)
class DeviceSelection:
    """Which device the worker owns. By default the first GPU, or the CPU if there is none."""

    name: str | None = None
    """"cpu", or a GPU's UUID, its beginning, or its number."""
    group_names: tuple[str, ...] = ()
    """Several GPUs that can share an engine."""
    ranks: int | None = None
    """How many CPU processes can share an engine."""


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """The processes that execute trials."""

    threads: int | None = None
    """Of training and of CPU engines (default: OMP_NUM_THREADS, or all that the process may use)."""
    slot_count: int | None = None
    """How many attempts run at once (default: as many as the device has room for, 1 on a CPU)."""
    engine_python: str | None = None
    """Interpreter of the engine child (default: this one)."""
    build_seconds: float | None = None
    """How long an engine may be built before the builder counts as hung (default: ten minutes)."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What the worker keeps for later trials."""

    folder: Path = field(default_factory=default_cache_folder)
    """For datasets and engines (default: the user's cache)."""
    keeps_timings: bool = True
    """Whether builders keep kernel timings for later builds, if the runtime can."""


@dataclass(frozen=True, slots=True)
class StopConditions:
    """When the worker ends by itself."""

    max_trials: int | None = None
    """After this many trials; None: never."""
    idle_seconds: float | None = None
    """After this long without a trial; None: never."""
    if_device_is_taken: bool = True
    """While another worker has the GPU; False: wait until it is free."""
