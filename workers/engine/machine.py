"""The machine that a measurement was made on, read from where Linux says it; None where it does not."""

from __future__ import annotations

import os
import platform
import resource
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


def facts() -> MachineFacts:
    """What does not change while a measurement runs."""
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


def _line(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
