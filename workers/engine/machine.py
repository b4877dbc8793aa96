"""The machine that this process runs on, and what the process takes of it, read from where Linux says it."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from pathlib import Path

from .verbs import MachineFacts

_CPU = Path("/sys/devices/system/cpu")


def cpu_model() -> str:
    """The processor's name as the kernel gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cpus() -> int:
    """Logical processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_memory_bytes() -> int:
    """Memory that this process can have: the machine's, or its control group's if that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return total


def process_private_bytes() -> int:
    """Resident memory that belongs to this process alone (USS): pages of shared libraries are not in it."""
    try:
        rollup = Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        return _resident_bytes()
    kilobytes = {
        key: int(rest.split()[0])
        for key, _, rest in (line.partition(":") for line in rollup.splitlines()[1:])
        if key.startswith("Private_")
    }
    return 1024 * sum(kilobytes.values())


def facts() -> MachineFacts:
    """What does not change while a measurement runs; None if Linux does not say it."""
    clock = time.get_clock_info("perf_counter")
    return {
        "cpu_model": cpu_model(),
        "cpus_usable": usable_cpus(),
        "cpu_governor": _line(_CPU / "cpu0/cpufreq/scaling_governor"),
        "cpu_quota": _line(Path("/sys/fs/cgroup/cpu.max")),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "clock": clock.implementation,
        "clock_resolution_ns": round(clock.resolution * 1e9, 3),
        "clock_source": _line(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
    }


def load_average() -> list[float] | None:
    """Runnable processes, averaged over 1, 5 and 15 minutes."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except OSError:
        return None


def involuntary_switches() -> int:
    """How often this process was taken off a processor so far: interference shows here."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _resident_bytes() -> int:
    """If there is no smaps_rollup: resident memory, else its peak (which growth still shows in a fresh process)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _line(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
