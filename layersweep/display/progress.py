"""Watching a sweep: a live view in a terminal, a line for each change in a pipe."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from layersweep.display import units
from layersweep.errors import NotFoundError, WaitTimeoutError
from layersweep.records.sweeps import ENDED_TRIAL_STATES, Progress, SweepDetailRecord, SweepRecord, TrialRecord
from layersweep.sweep import Sweep
from layersweep.sweep.blocking import not_ended

BAR_WIDTH = 48
REDRAW_SECONDS = 0.3
CHECK_SECONDS = 5.0
NONE_FEASIBLE = "none_feasible"
"""The end code of a sweep that completed without a trial to recommend."""
ASKED_SECONDS = 10.0
"""If the output is no terminal: seconds without a line before it asks whether a trial waits for something."""
SAID_SECONDS = 60.0
"""The same, before it says in any case what runs; for the first time after ASKED_SECONDS."""
SETTLING_SECONDS = 3.0
"""A new sweep has its target by then, if a worker can serve it: before, what it waits for is no news."""
STYLES = {
    "complete": "green",
    "infeasible": "yellow",
    "pruned": "magenta",
    "failed": "red",
    "cancelled": "bright_black",
    "running": "cyan",
}


def watch(
    sweep: Sweep,
    console: Console,
    *,
    timeout_seconds: float | None = None,
    check: Callable[[], object] | None = None,
) -> Sweep:
    """Show `sweep` until it has ended; raises WaitTimeoutError after `timeout_seconds`.

    `check` is called every few seconds and may raise to give up.
    """
    if not console.is_terminal:
        lines = Lines(console, lambda: running_trials(sweep))
        return _wait(sweep, lines.show, timeout_seconds, check)

    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def show(record: SweepDetailRecord) -> None:
            live.update(view(record, running_trials(sweep), age_seconds(record)))
            # Reports come faster than anyone reads: let some gather before the sweep is asked for again.
            time.sleep(REDRAW_SECONDS)

        return _wait(sweep, show, timeout_seconds, check)


def _wait(
    sweep: Sweep,
    show: Callable[[SweepDetailRecord], object],
    timeout_seconds: float | None,
    check: Callable[[], object] | None,
) -> Sweep:
    waits_seconds = math.inf if timeout_seconds is None else timeout_seconds
    deadline = time.monotonic() + waits_seconds
    while True:
        if check is not None:
            check()
        try:
            return sweep.wait(min(CHECK_SECONDS, deadline - time.monotonic()), on_progress=show)
        except WaitTimeoutError:
            if time.monotonic() >= deadline:
                raise not_ended(sweep, waits_seconds) from None


def running_trials(sweep: Sweep) -> list[TrialRecord]:
    return [] if sweep.ended else list(sweep.trials(state="running"))


def view(record: SweepDetailRecord, running: Sequence[TrialRecord], elapsed_seconds: float) -> RenderableType:
    """The sweep's state as a few lines: a bar by state, what runs now, the best so far. `elapsed_seconds`: its age."""
    progress = record["progress"]
    title = Text.assemble(
        (record["name"], "bold"),
        f"  {record['state']}  {units.duration(elapsed_seconds)}",
        (f"  {record['id']}", "dim"),
    )
    lines: list[RenderableType] = [title]
    if reason := reason_of(record):
        lines.append(Text(reason, style="yellow"))
    lines += [_bar(progress), Text(tally(progress))]
    for trial in running:
        lines.append(Text.assemble(("  ▸ ", "cyan"), describe(trial)))
    if record["best"]:
        lines.append(Text("best so far: " + best(record)))
    return Group(*lines)


def age_seconds(record: SweepRecord) -> float:
    """How long ago the sweep was made, by this machine's clock (0 if that is behind the service's); of one that has
    ended, how long it took."""
    made = datetime.fromisoformat(record["created_at"])
    end = datetime.now(UTC) if record["ended_at"] is None else datetime.fromisoformat(record["ended_at"])
    return max(0.0, (end - made).total_seconds())


def show_broken_constraints(sweep: Sweep, console: Console) -> None:
    """While no trial is feasible: which constraints they broke, and what limits they would keep."""
    progress = sweep.record["progress"]
    if sweep.record["best"] or not progress["complete"] + progress["infeasible"]:
        return
    try:
        lines = sweep.constraints()["says"]
    except NotFoundError:
        # A service of before cannot say it.
        return
    for line in lines:
        console.print(Text(units.sentence(line), style="yellow"))


def reason_of(record: SweepDetailRecord) -> str | None:
    """Why the sweep is in its state; of one whose trials wait, what the living workers lack."""
    if record.get("end_code") == NONE_FEASIBLE:
        # Its reason is the part of the budget that was used up.
        return NONE_FEASIBLE
    waiting = record.get("waiting")
    if waiting is not None:
        return waiting["reason"]
    # By a clock that is behind the service's, the sweep has no age yet: nobody knows then whether it is new.
    is_new = 0 < age_seconds(record) < SETTLING_SECONDS
    return None if is_new and record["target"] is None and record["state"] == "active" else record["reason"]


def ended_count(progress: Progress) -> int:
    return sum(progress[state] for state in ENDED_TRIAL_STATES)


def tally(progress: Progress) -> str:
    """`7 of 12 trials ended: 6 complete, 1 infeasible; 1 running, 2 queued; 4 points rejected`."""
    parts = [f"{progress[state]} {state}" for state in ENDED_TRIAL_STATES if progress[state]]
    line = f"{ended_count(progress)} of {units.plural(progress['budget'], 'trial')} ended"
    if parts:
        line += ": " + ", ".join(parts)
    if progress["reused"]:
        line += f" ({progress['reused']} reused)"
    open_parts = [f"{progress[state]} {state}" for state in ("running", "queued") if progress[state]]
    if open_parts:
        line += "; " + ", ".join(open_parts)
    if progress["rejected"]:
        line += f"; {units.plural(progress['rejected'], 'point')} rejected"
    return line


def describe(trial: TrialRecord) -> str:
    """`trial 3: train, step 120 of 300, waiting for a measurement on this device`."""
    line = f"trial {trial['number']}: {trial['phase'] or 'starting'}"
    progress = trial["progress"] or {}
    if "step" in progress:
        steps = progress.get("steps")
        line += f", step {progress['step']}" + (f" of {steps}" if steps else "")
    if "waiting_for" in progress:
        line += f", waiting for {progress['waiting_for']}"
    if trial["attempt"] > 1:
        line += f" (attempt {trial['attempt']})"
    return line


def best(record: SweepDetailRecord) -> str:
    return ", ".join(
        f"{units.heading(name)} {units.metric(name, found['value'])} (trial {found['number']})"
        for name, found in record["best"].items()
    )


def _bar(progress: Progress) -> Text:
    whole = max(progress["budget"], progress["trials"], 1)
    bar = Text()
    drawn = 0
    passed = 0
    for state, style in STYLES.items():
        passed += int(progress.get(state, 0))
        length = round(BAR_WIDTH * passed / whole) - drawn
        bar.append("█" * length, style=style)
        drawn += length
    return bar.append("░" * (BAR_WIDTH - drawn), style="dim")


class Lines:
    """Prints a line when a trial has ended, or when the sweep's state or reason has changed.

    Between those it says what runs: soon after its begin, once a minute, and soon after a trial has begun to wait for
    something.
    """

    def __init__(
        self,
        console: Console,
        running: Callable[[], Sequence[TrialRecord]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`running`: asks for the trials that run."""
        self._console = console
        self._running = running
        self._clock = clock
        self._began = self._said_at = self._asked_at = clock()
        """The sweep, by this clock; before it was looked at, the lines."""
        self._has_said_running = False
        self._shown: tuple[object, ...] | None = None
        self._waits: set[tuple[int, str]] = set()
        """What trials wait for, as far as it was said: by their numbers."""

    def show(self, record: SweepDetailRecord) -> None:
        if self._shown is None:
            self._began = self._clock() - age_seconds(record)
        reason = reason_of(record)
        news = (ended_count(record["progress"]), record["state"], reason)
        if news == self._shown:
            self._show_running()
            return
        self._shown = news
        line = f"{record['state']}: {tally(record['progress'])}"
        if reason:
            line += f" ({reason})"
        if record["best"]:
            line += f". Best: {best(record)}"
        self._say(line)

    def _show_running(self) -> None:
        now = self._clock()
        if now - max(self._said_at, self._asked_at) < ASKED_SECONDS:
            return
        self._asked_at = now
        trials = self._running()
        waits = {(each["number"], waited) for each in trials if (waited := _waiting_for(each)) is not None}
        is_due = now - self._said_at >= SAID_SECONDS or not self._has_said_running
        if trials and (is_due or not waits <= self._waits):
            self._has_said_running = True
            self._say("; ".join(map(describe, trials)))
            self._waits = waits

    def _say(self, line: str) -> None:
        self._said_at = self._clock()
        since = units.duration(self._said_at - self._began)
        self._console.print(f"[{since:>10}] {line}", markup=False, highlight=False, soft_wrap=True)


def _waiting_for(trial: TrialRecord) -> str | None:
    return (trial["progress"] or {}).get("waiting_for")
