"""Following a gate: a line for each build, on the standard error."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from layersweep.display import progress, units
from layersweep.records.assertions import Judgement
from layersweep.sweep import Sweep

SAID_SECONDS = 30.0
"""Without a line, before the last one is said again."""


class GateLines:
    """Prints which sweep measures, how many of its builds are complete, how long the others will take, and what they
    wait for."""

    def __init__(self, console: Console, most_builds: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._most_builds = most_builds
        self._clock = clock
        self._started = self._said_at = clock()
        self.measuring: dict[str, Sweep] = {}
        """Every sweep that measures, by its id."""
        self._shown: set[tuple[str, str]] = set()
        self._round = 0
        self._is_undecided = False

    def judged(self, judgement: Judgement) -> None:
        self._is_undecided = judgement["verdict"] == "undecided"
        if not self._is_undecided:
            self._print(f"judged after {units.plural(self._round, 'build')}: {judgement['verdict']}")

    def progress(self, sweep: Sweep, builds: int) -> None:
        """`[ 12 s] small/3 measured anew (01M3...): 3 of 8 builds, 40 at most; about 20 s more`."""
        self.measuring[sweep.id] = sweep
        if builds != self._round and self._is_undecided:
            self._print(f"a limit cannot be judged yet: up to {units.plural(builds, 'build')}")
        self._round = builds
        line = f"{sweep.name} ({sweep.id}): {sweep.record['progress']['complete']} of {builds} builds"
        if builds < self._most_builds:
            line += f", {self._most_builds} at most"
        if reason := None if sweep.ended else progress.reason_of(sweep.record):
            line += f"; {reason}"
        # Each heartbeat is a change.
        is_due = not sweep.ended and self._clock() - self._said_at >= SAID_SECONDS
        if is_due or (sweep.id, line) not in self._shown:
            self._shown = {shown for shown in self._shown if shown[0] != sweep.id} | {(sweep.id, line)}
            self._print(line + self._left(builds))

    def _left(self, builds: int) -> str:
        """How long the builds of this round will still take, if each takes as long as those before; empty before one
        is complete."""
        complete = [sweep.record["progress"]["complete"] for sweep in self.measuring.values()]
        done, left = sum(complete), sum(builds - each for each in complete)
        if not done or left <= 0:
            return ""
        return f"; about {units.duration((self._clock() - self._started) * left / done)} more"

    def _print(self, line: str) -> None:
        self._said_at = self._clock()
        since = units.duration(self._said_at - self._started)
        self._console.print(Text(f"[{since:>10}] {line}", style="dim"), soft_wrap=True)
