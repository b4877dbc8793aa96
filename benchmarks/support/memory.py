"""How much memory the processes of a benchmark take at their peak, as the kernel counts it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SAMPLE_SECONDS = 0.2
PROGRAMS = ("serve", "worker")


class PeakMemory:
    """The peaks of all processes below one, by the name of its child that they descend from (`serve`, `worker`)."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._stop = threading.Event()
        self.largest_process_mb: dict[str, float] = defaultdict(float)
        """VmHWM of the largest process, mapped files included."""
        self.anonymous_together_mb: dict[str, float] = defaultdict(float)
        """RssAnon of all processes of a name at one time: what is theirs alone, and cannot be read again."""
        self.first_process_mb: dict[str, float] = defaultdict(float)
        """VmHWM of the child itself, without its children."""

    def _sample(self) -> None:
        parents, anonymous = _parents(), defaultdict[str, float](float)
        for pid in parents:
            child = self._ancestor(pid, parents)
            if child is None:
                continue
            name, status = _name(child), _status(pid)
            peak = status.get("VmHWM", 0.0)
            self.largest_process_mb[name] = max(self.largest_process_mb[name], peak)
            anonymous[name] += status.get("RssAnon", 0.0)
            if pid == child:
                self.first_process_mb[name] = max(self.first_process_mb[name], peak)
        for name, together in anonymous.items():
            self.anonymous_together_mb[name] = max(self.anonymous_together_mb[name], together)

    def _ancestor(self, pid: int, parents: Mapping[int, int]) -> int | None:
        """The child of the root that a process descends from, or is."""
        while (parent := parents.get(pid)) is not None:
            if parent == self._root:
                return pid
            pid = parent
        return None

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._sample()

    @contextmanager
    def watching(self) -> Iterator[PeakMemory]:
        """Look every `SAMPLE_SECONDS` until the context ends."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def figures(self) -> dict[str, dict[str, float]]:
        """By name: megabytes."""
        return {
            name: {
                "itself_mb": round(self.first_process_mb[name]),
                "largest_process_mb": round(peak),
                "anonymous_together_mb": round(self.anonymous_together_mb[name]),
            }
            for name, peak in sorted(self.largest_process_mb.items())
            if name in PROGRAMS
        }


def _parents() -> dict[int, int]:
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            status = _status(int(entry.name))
            if "PPid" in status:
                found[int(entry.name)] = int(status["PPid"])
    return found


def _status(pid: int) -> dict[str, float]:
    """Fields of /proc/PID/status: sizes in megabytes, numbers as they are; empty where the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    found: dict[str, float] = {}
    for line in lines:
        name, _, value = line.partition(":")
        words = value.split()
        if len(words) == 2 and words[1] == "kB":
            found[name] = float(words[0]) / 1000
        elif name == "PPid":
            found[name] = float(words[0])
    return found


def _name(pid: int) -> str:
    """What comes behind `-m layersweep` in the process's command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return "ended"
    return words[words.index("layersweep") + 1] if "layersweep" in words else "other"
