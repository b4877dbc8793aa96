"""What this machine is: the device that a worker registers, how many threads it may use, and the versions beside it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from workers.engine.nvml import Gpu, driver_version, gpus, link
from workers.settings import DeviceSelection

CPUINFO = Path("/proc/cpuinfo")
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"), Path("/proc/sys/kernel/random/boot_id"))
"""The last one until the machine starts anew: containers, which seldom have the others, have it in common."""

MOST_GPUS = 3
"""Of one worker: the service takes 128 characters, and three UUIDs have 122."""

PACKAGES = ("layersweep", "torch", "onnx", "onnxscript", "numpy")


class Device(TypedDict):
    """What a worker works on, as it registers it."""

    kind: str
    uuid: str
    model: str
    memory_bytes: int


def cpu(threads: int) -> Device:
    """This machine's processor as a device of the HTTP contract, used with `threads` threads.

    The number of threads is part of its model: latencies measured with another number are of another device.
    """
    return {
        "kind": "cpu",
        "uuid": f"cpu-{_machine_id()}",
        "model": f"{_cpu_model()[:180]}, {threads} thread{'s' if threads != 1 else ''}",
        "memory_bytes": memory_bytes(),
    }


def gpu(found: Gpu) -> Device:
    """A GPU as a device of the HTTP contract."""
    return {"kind": "gpu", "uuid": found.uuid, "model": found.model[:200], "memory_bytes": found.memory_bytes}


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """What a worker works on."""

    registered: Device
    gpus: tuple[Gpu, ...] = ()
    """In the order of their UUIDs; none: the CPU."""
    ranks: int = 1
    """Devices, or processes on the CPU, that can share an engine."""
    link: str | None = None
    """How they are connected."""

    @property
    def lock_names(self) -> tuple[str, ...]:
        """What its turns are taken by."""
        return tuple(gpu.uuid for gpu in self.gpus) or (self.registered["uuid"],)

    def rank_devices(self, own: Gpu | None) -> tuple[str, ...]:
        """Those that share an engine, a slot's own device first; none if there is one alone."""
        if self.ranks == 1:
            return ()
        others = [gpu.uuid for gpu in self.gpus if gpu is not own]
        return (own.uuid, *others) if own is not None else ("",) * self.ranks


def choose(selection: DeviceSelection, threads: int) -> DeviceChoice:
    """What a worker works on: one device, the GPUs of a group, or `ranks` processes on the CPU.

    Raises ValueError with what there is, or what else to say.
    """
    ranks = selection.ranks
    if selection.group_names:
        found = chosen_group(selection.group_names)
        if ranks not in (None, len(found)):
            raise ValueError(f"{len(found)} devices are named, and {ranks} are to share an engine: leave one out")
        if len(found) > 1:
            link_name = link([gpu.uuid for gpu in found])
            return DeviceChoice(group(found, link_name), tuple(found), len(found), link_name)
        return DeviceChoice(gpu(found[0]), tuple(found))
    one = chosen(selection.name)
    if one is None:
        if ranks is None or ranks == 1:
            return DeviceChoice(cpu(threads))
        return DeviceChoice(processes(threads, ranks), (), ranks, "memory of one machine")
    if ranks not in (None, 1):
        raise ValueError(f"which {ranks} GPUs are to share an engine? Name them by --devices, or give --all-devices")
    return DeviceChoice(gpu(one), (one,))


def processes(threads: int, count: int) -> Device:
    """This machine's processor as `count` devices that share an engine: a process each, with `threads` threads."""
    whole = cpu(threads)
    return {**whole, "model": f"{whole['model'][:180]}, {count} processes"}


def group(found: Sequence[Gpu], link: str) -> Device:
    """GPUs of one model as a device of the HTTP contract: they share engines. Raises ValueError if they differ."""
    if len(found) > MOST_GPUS:
        raise ValueError(f"{len(found)} GPUs are named: a worker has at most {MOST_GPUS}")
    models = sorted({gpu.model for gpu in found})
    if len(models) > 1:
        raise ValueError(f"devices that share engines are of one model; these are {' and '.join(models)}")
    return {
        "kind": "gpu",
        "uuid": "+".join(sorted(gpu.uuid for gpu in found)),
        "model": f"{len(found)} x {models[0][:160]}, {link}",
        "memory_bytes": min(gpu.memory_bytes for gpu in found),
    }


def chosen_group(names: Sequence[str]) -> list[Gpu]:
    """The GPUs of these names, in the order of their UUIDs. Raises ValueError with what there is."""
    found = {gpu.uuid: gpu for name in names if (gpu := chosen(name)) is not None}
    if len(found) != len(names):
        raise ValueError(f"{', '.join(names)} are not {len(names)} different GPUs")
    return [found[uuid] for uuid in sorted(found)]


def chosen(name: str | None) -> Gpu | None:
    """The GPU that `name` means: its UUID, the beginning of it, or its number; None: the CPU.

    Without a name the first GPU, or the CPU if there is none. Raises ValueError with what there is.
    """
    if name == "cpu":
        return None
    found = gpus()
    if name is None:
        return found[0] if found else None
    wanted = name if name.startswith("GPU-") else f"GPU-{name}"
    numbered = [gpu for number, gpu in enumerate(found) if str(number) == name]
    matching = numbered or [gpu for gpu in found if gpu.uuid.startswith(wanted)]
    if len(matching) != 1:
        there = "; ".join(f"{number}: {gpu.uuid} ({gpu.model})" for number, gpu in enumerate(found)) or "no GPU"
        raise ValueError(f"{name} names {len(matching)} devices; there is: cpu; {there}")
    return matching[0]


def default_threads() -> int:
    """What OMP_NUM_THREADS says, or else the processors that this process may use."""
    with contextlib.suppress(KeyError, ValueError):
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    return cores()


def cores() -> int:
    """The processors that this process may use: its affinity and its control group's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    return count


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or its control group's limit if that is less; 0 if unknown."""
    total = 0
    with contextlib.suppress(OSError, ValueError):
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        total = int(lines["MemTotal"].split()[0]) * 1024
    with contextlib.suppress(OSError, ValueError):
        limit = (CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            total = min(total or int(limit), int(limit))
    return total


def versions() -> dict[str, str]:
    """Versions of what a result depends on, without importing any of it."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    if driver := driver_version():
        found["driver"] = driver
    return found


def default_name() -> str:
    """The name of a worker that was given none."""
    return f"{socket.gethostname()}-{os.getpid()}"[:128]


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in CPUINFO.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "cpu model"):
                return " ".join(value.split())
    return platform.processor() or platform.machine()


def _machine_id() -> str:
    """A stable identity of this machine that does not tell the machine's own id."""
    for path in MACHINE_IDS:
        with contextlib.suppress(OSError):
            if identity := path.read_text().strip():
                return hashlib.sha256(f"layersweep {identity}".encode()).hexdigest()[:32]
    return hashlib.sha256(f"layersweep {socket.gethostname()}".encode()).hexdigest()[:32]
