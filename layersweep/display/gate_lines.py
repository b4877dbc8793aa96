"""Following a gate: a line for each build, on the standard error."""

from __future__ import annotations

import time

from rich.console import Console
from rich.text import Text

from layersweep.display import progress, units
from layersweep.records.assertions import Judgement
from layersweep.sweep import Sweep


class GateLines:
    """Prints which sweep measures, how many of its builds are complete, and what they wait for."""

    def __init__(self, console: Console, most_builds: int) -> None:
        self._console = console
        self._most_builds = most_builds
        self._started = time.monotonic()
        self._shown: set[tuple[str, str]] = set()
        self._round = 0
        self._is_undecided = False

    def judged(self, judgement: Judgement) -> None:
        self._is_undecided = judgement["verdict"] == "undecided"

    def progress(self, sweep: Sweep, builds: int) -> None:
        """`[ 12 s] small/3 measured anew (01M3...): 3 of 8 builds; no worker is alive`."""
        if builds != self._round and self._is_undecided:
            self._print(f"a limit cannot be judged yet: up to {units.plural(builds, 'build')}")
        self._round = builds
        line = f"{sweep.name} ({sweep.id}): {sweep.record['progress']['complete']} of {builds} builds"
        if builds < self._most_builds:
            line += f", {self._most_builds} at most"
        if reason := None if sweep.ended else progress.reason_of(sweep.record):
            line += f"; {reason}"
        # Each heartbeat is a change.
        if (sweep.id, line) not in self._shown:
            self._shown = {shown for shown in self._shown if shown[0] != sweep.id} | {(sweep.id, line)}
            self._print(line)

    def _print(self, line: str) -> None:
        self._console.print(
            Text(f"[{units.duration(time.monotonic() - self._started):>10}] {line}", style="dim"), soft_wrap=True
        )
