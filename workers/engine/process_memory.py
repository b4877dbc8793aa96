"""What this process takes of the machine's memory, and what it can have."""

from __future__ import annotations

import os
import sys
from pathlib import Path


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


def total_bytes() -> int:
    """Memory that this process can have: the machine's, or its control group's where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return total


def _resident_bytes() -> int:
    """Where there is no smaps_rollup: resident memory, else its peak (which growth still shows in a fresh process)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
