"""What NVML says of a GPU by its UUID: identity, clocks, throttling, temperature, power, other processes.

Through `nvidia-ml-py`. GPUs are named by UUID: an index is another GPU's after a restart, or in a container.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from .verbs import DeviceState

THROTTLE_REASONS = {
    0x0000000000000001: "idle",
    0x0000000000000002: "applications_clocks",
    0x0000000000000004: "software_power_cap",
    0x0000000000000008: "hardware_slowdown",
    0x0000000000000010: "sync_boost",
    0x0000000000000020: "software_thermal",
    0x0000000000000040: "hardware_thermal",
    0x0000000000000080: "hardware_power_brake",
    0x0000000000000100: "display_clocks",
}
"""Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h)."""


@dataclass(frozen=True)
class Gpu:
    """One GPU of this machine."""

    uuid: str
    model: str
    memory_bytes: int
    compute_capability: tuple[int, int]


def gpus() -> list[Gpu]:
    """The GPUs that this process may use, in NVML's order; none if there is no driver or no nvidia-ml-py."""
    found: list[Gpu] = []
    with suppress(ImportError), _nvml() as nvml, suppress(nvml.NVMLError):
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            capability = nvml.nvmlDeviceGetCudaComputeCapability(handle)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle).total
            name, identity = _text(nvml.nvmlDeviceGetName(handle)), _text(nvml.nvmlDeviceGetUUID(handle))
            found.append(Gpu(identity, name, int(memory), (int(capability[0]), int(capability[1]))))
    return _visible(found)


def link(uuids: Sequence[str]) -> str:
    """How GPUs are connected: NVLink if each two of them are, else PCIe, as far as NVML says."""
    with suppress(ImportError), _nvml() as nvml, suppress(nvml.NVMLError, AttributeError):
        handles = [nvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
        statuses = [
            nvml.nvmlDeviceGetP2PStatus(one, other, nvml.NVML_P2P_CAPS_INDEX_NVLINK)
            for one, other in combinations(handles, 2)
        ]
        if all(status == nvml.NVML_P2P_STATUS_OK for status in statuses):
            return "NVLink"
    return "PCIe"


def driver_version() -> str | None:
    """The NVIDIA driver's version; None if there is none."""
    with suppress(ImportError), _nvml() as nvml, suppress(nvml.NVMLError):
        return _text(nvml.nvmlSystemGetDriverVersion())
    return None


Utilization = Callable[[], float | None]
"""Answers how busy GPUs were since it was asked last; None if the driver has nothing to say of that time."""


@contextmanager
def utilization(uuids: Sequence[str]) -> Generator[Utilization | None]:
    """Yields what answers for the mean of these GPUs: the share of the time in which a kernel ran, whoever started it.

    One that says nothing is left out. None if NVML does not count it: no driver, a part of a GPU, a name that is no
    GPU's. The driver keeps the samples of the last 12 seconds (so an H200): who asks more often misses none.
    """
    with ExitStack() as library:
        try:
            nvml = library.enter_context(_nvml())
            handles = [nvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
            seen = [_newest(_samples(nvml, handle, 0)) for handle in handles]
        except Exception:  # noqa: BLE001 - of no consequence: the worker counts for itself
            handles, seen, nvml = [], [], None

        def ask() -> float | None:
            shares: list[float] = []
            for place, handle in enumerate(handles):
                try:
                    found = _samples(nvml, handle, seen[place])
                except Exception:  # noqa: BLE001 - as above
                    continue
                seen[place] = max(seen[place], _newest(found))
                if found:
                    shares.append(fmean(min(1.0, sample.sampleValue.uiVal / 100) for sample in found))
            return fmean(shares) if shares else None

        yield ask if handles else None


def _samples(nvml: Any, handle: Any, after: int) -> list[Any]:
    """Those of a GPU's utilization, in per cent, after a time in microseconds."""
    try:
        _, found = nvml.nvmlDeviceGetSamples(handle, nvml.NVML_GPU_UTILIZATION_SAMPLES, after)
    except nvml.NVMLError as problem:
        # If there is none after that time.
        if problem.value != nvml.NVML_ERROR_NOT_FOUND:
            raise
        return []
    return [sample for sample in found if sample.timeStamp > after]


def _newest(samples: Sequence[Any]) -> int:
    return max((int(sample.timeStamp) for sample in samples), default=0)


def read(uuid: str) -> DeviceState:
    """The GPU's state now; what it does not say is left out."""
    state: DeviceState = {}
    try:
        with _nvml() as nvml:
            handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
            for name, ask in _questions(nvml, handle):
                with suppress(nvml.NVMLError):
                    state[name] = ask()
    except ImportError as problem:
        return {"nvml": str(problem)}
    except Exception as problem:  # noqa: BLE001 - a GPU that NVML cannot name is still measured
        return {"nvml": f"{type(problem).__name__}: {problem}"}
    return state


def _questions(nvml: Any, handle: Any) -> Iterator[tuple[str, Any]]:
    """Name and question, each asked apart: a virtual GPU answers only some."""
    reasons = getattr(
        nvml, "nvmlDeviceGetCurrentClocksEventReasons", getattr(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", None)
    )
    yield "driver", lambda: _text(nvml.nvmlSystemGetDriverVersion())
    yield "sm_clock_mhz", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
    yield "sm_clock_mhz_max", lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)
    yield "memory_clock_mhz", lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)
    yield "temperature_c", lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
    yield "power_w", lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000
    if reasons is not None:
        yield "throttle_reasons", lambda: _reasons(int(reasons(handle)))
    yield "other_processes", lambda: _others(nvml, handle)
    yield "memory_used_bytes", lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used)


def _reasons(bits: int) -> list[str]:
    known = [name for bit, name in THROTTLE_REASONS.items() if bits & bit]
    unknown = bits & ~sum(THROTTLE_REASONS)
    return [*known, hex(unknown)] if unknown else known


def _others(nvml: Any, handle: Any) -> int:
    """Other processes that compute on the GPU. In a container NVML may see only those of the container."""
    return sum(process.pid != os.getpid() for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle))


def _visible(found: list[Gpu]) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves, in its order; indices are NVML's, which are CUDA's in PCI order."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return found
    by_name = {gpu.uuid: gpu for gpu in found} | {str(index): gpu for index, gpu in enumerate(found)}
    visible: list[Gpu] = []
    for name in (part.strip() for part in named.split(",")):
        if name not in by_name:
            break
        visible.append(by_name[name])
    return visible


@contextmanager
def _nvml() -> Generator[Any]:
    """The initialised library. Raises ImportError if it is missing, or there is no driver."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as problem:
        raise ImportError("nvidia-ml-py is not installed") from problem
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as problem:
        raise ImportError(f"NVML does not start: {problem}") from problem
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
