"""Gates: does a trial, measured anew, keep its limits? For CI, by `layersweep sweep assert` or from a test.

from layersweep import Client
from layersweep.gates import Gate

sweep = Client().sweep("shakespeare")
judgement = Gate(["latency_ms_p50 <= 2.0", "memory_bytes <= 2e8"]).judge(sweep)
assert judgement["verdict"] != "broken", judgement["limits"]
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack, cast

from layersweep import files
from layersweep.errors import InvalidUsageError, LayersweepError, UnreachableError, WaitTimeoutError
from layersweep.records.assertions import Baseline, Judgement
from layersweep.records.sweeps import SweepDetailRecord
from layersweep.sweep import Sweep

MOST_BASELINE_BYTES = 2**20
BASELINE = "baseline"

FIRST_BUILDS = 5
"""To begin with, if so many can judge."""
USUAL_MOST_BUILDS = 40
MOST_BUILDS = 64
"""That the service judges."""
LOOK_SECONDS = 5.0
"""How often who follows a gate is called at least."""


class MeasurementFailedError(LayersweepError):
    """The trial could not be measured anew: its builds failed, or somebody ended the sweep that measures it."""


class Following(TypedDict, total=False):
    """How a gate is followed.

    `timeout_seconds`: how long it may take in all. `on_progress` is called with a sweep that measures and the builds
    that it is to have, at once, after every change and every few seconds; `on_judgement` after every judgement.
    """

    timeout_seconds: float | None
    on_progress: Callable[[Sweep, int], object]
    on_judgement: Callable[[Judgement], object]


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial to be measured: its sweep, and its number there (None: the recommended one)."""

    sweep: Sweep
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """Limits, and how they are judged.

    A trial is measured in `builds` builds first (None: as few as can call a limit broken at once, from 5 on). While a
    limit can be called neither kept nor broken, as many are added again, up to `most_builds`. `risk_of_alarm` is that
    of a limit which is kept to be called broken, in all judgements together; `risk_of_miss` that of one which is broken
    to be called kept, in each. Raises InvalidUsageError if `builds` are more than `most_builds`.

    A gate that does not come to its end, as it is interrupted or takes too long, cancels the sweeps that measure.
    """

    limits: Sequence[str]
    builds: int | None = None
    most_builds: int = USUAL_MOST_BUILDS
    risk_of_alarm: float = 0.02
    risk_of_miss: float = 0.05

    def __post_init__(self) -> None:
        if self.builds is not None and self.builds > self.most_builds:
            raise InvalidUsageError(
                f"{self.builds} builds to begin with (--builds) are more than the {self.most_builds} at most "
                "(--most-builds): raise the one or lower the other"
            )

    def judge(
        self,
        sweep: Sweep,
        number: int | None = None,
        *,
        baseline: Baseline | None = None,
        **following: Unpack[Following],
    ) -> Judgement:
        """Measure a trial and judge it, `baseline` in the limits being what was kept of an earlier judgement.

        Without one it is what is measured now, in `most_builds` builds at once: the judgement then says whether so many
        could tell that nothing has changed, and its `measured` is a baseline to keep. Raises InvalidUsageError if so
        few builds could never call a limit broken, ConflictError (`baseline-mismatch`) for a baseline of another
        device, runtime, version of results or shape, MeasurementFailedError if builds fail, WaitTimeoutError after
        `timeout_seconds`.
        """
        is_baseline = baseline is None and any(BASELINE in limit for limit in self.limits)
        gate = replace(self, builds=self.most_builds) if is_baseline else self
        builds = gate.counts(baseline)[0]
        with _cancelled_unless_ended() as measuring:
            measuring.append(sweep.remeasure(self.limits, number, builds=builds))
            return gate.judge_sweeps(measuring, builds=builds, baseline=baseline, **following)

    def judge_against(self, trial: Trial, other: Trial, **following: Unpack[Following]) -> Judgement:
        """Measure two trials in turns, a build of one and a build of the other, and judge the first.

        `baseline` in the limits is the other one: what slows the device meanwhile slows both. Raises as `judge` does.
        """
        self.counts()
        with _cancelled_unless_ended() as measuring:
            for each in (trial, other):
                measuring.append(each.sweep.remeasure(self.limits, each.number, builds=1))
            return self.judge_sweeps(measuring, builds=1, **following)

    def judge_sweeps(
        self,
        measuring: Sequence[Sweep],
        *,
        builds: int,
        baseline: Baseline | None = None,
        **following: Unpack[Following],
    ) -> Judgement:
        """Judge the first of the sweeps that `remeasure` made, against the baseline or else the last of them.

        Each has `builds` builds now. Several are given a build each, in turns.
        """
        against = measuring[-1].id if baseline is None else None
        counts = self.counts(baseline)
        deadline = _Deadline.of(following.get("timeout_seconds"))
        for count in counts:
            _measure(measuring, builds, count, deadline, following.get("on_progress"))
            builds = count
            judgement = measuring[0].judge(
                self.limits,
                baseline=baseline,
                against=against,
                risk_of_alarm=self.risk_of_alarm / len(counts),
                risk_of_miss=self.risk_of_miss,
            )
            if (on_judgement := following.get("on_judgement")) is not None:
                on_judgement(judgement)
            if judgement["verdict"] != "undecided" or count == counts[-1]:
                return judgement
        raise AssertionError("unreachable: the last judgement is returned")

    def counts(self, baseline: Baseline | None = None) -> list[int]:
        """After how many builds it is judged: twice as many each time. Seldom, as each judgement may be wrong.

        `baseline`: what is compared with; None: a trial that is measured in as many builds. Raises InvalidUsageError
        if even the last judgement could call no limit broken, or none kept.
        """
        before = None if baseline is None else _builds_of(baseline)
        found = self._counts(before)
        if not self._can_judge(found, -1, before):
            raise InvalidUsageError(self._too_few(found, before))
        return found

    def _counts(self, before: int | None) -> list[int]:
        if self.builds is not None:
            return _doubled(self.builds, self.most_builds)
        tried = (_doubled(first, self.most_builds) for first in range(FIRST_BUILDS, self.most_builds + 1))
        return next((found for found in tried if self._can_judge(found, 0, before)), [self.most_builds])

    def _can_judge(self, counts: Sequence[int], at: int, before: int | None) -> bool:
        risk = min(self.risk_of_alarm / len(counts), self.risk_of_miss)
        return self._by_chance(counts[at], before) <= risk

    def _by_chance(self, builds: int, before: int | None) -> float:
        """How often all builds lie on one side by chance alone, for the limit with which that is most frequent."""
        others = builds if before is None else before
        return max(
            1 / math.comb(builds + others, builds) if BASELINE in limit else 0.5**builds for limit in self.limits
        )

    def _too_few(self, counts: Sequence[int], before: int | None) -> str:
        builds = counts[-1]
        text = f"{builds} builds" if builds != 1 else "1 build"
        text += (
            f" can never call a limit broken: by chance alone all lie on one side of it in "
            f"{self._by_chance(builds, before):.1%} of gates, and {self.risk_of_alarm / len(counts):.1%} may be wrong"
        )
        for most in range(1, USUAL_MOST_BUILDS + 1):
            if replace(self, builds=most, most_builds=most)._can_judge([most], 0, before):
                return f"{text}. The fewest that can are {most}: --builds {most} --most-builds {most}"
        return f"{text}. Write the baseline again, with more builds"


def read_baseline(path: Path) -> Baseline:
    """A baseline that `write_baseline` wrote. Raises InvalidUsageError for what is none."""
    try:
        found = json.loads(files.read(path, MOST_BASELINE_BYTES))
    except ValueError as problem:
        raise InvalidUsageError(f"{path} is not a baseline: it is not JSON ({problem})") from None
    if not isinstance(found, dict) or not isinstance(found.get("metrics"), dict):
        raise InvalidUsageError(f"{path} is not a baseline: write one with `layersweep sweep assert --write-baseline`")
    return cast("Baseline", found)


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Keep what was measured, as JSON. Raises InvalidUsageError if the file cannot be written."""
    with files.written(path) as stream:
        stream.write(json.dumps(baseline, indent=2, ensure_ascii=False).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class _Deadline:
    seconds: float
    """That were given; infinite: it may take any time."""
    at: float
    """On the monotonic clock."""

    @classmethod
    def of(cls, seconds: float | None) -> _Deadline:
        given = math.inf if seconds is None else seconds
        return cls(given, time.monotonic() + given)

    @property
    def left_seconds(self) -> float:
        return max(0.0, self.at - time.monotonic())


def _doubled(first: int, most: int) -> list[int]:
    found = [first]
    while found[-1] < most:
        found.append(min(2 * found[-1], most))
    return found


def _builds_of(baseline: Baseline) -> int | None:
    """Of the metric with the fewest; None for what is no baseline, which the service refuses with its reason."""
    try:
        return min(len(metric["builds"]) for metric in baseline["metrics"].values()) or None
    except (TypeError, KeyError, ValueError, AttributeError):
        return None


def _measure(
    measuring: Sequence[Sweep],
    builds: int,
    count: int,
    deadline: _Deadline,
    on_progress: Callable[[Sweep, int], object] | None,
) -> None:
    """Let sweeps of so many builds come to `count`: one at once, several by a build each in turns."""
    while True:
        for each in measuring:
            _ended(each, count, deadline, on_progress)
        if builds >= count:
            return
        added = 1 if len(measuring) > 1 else count - builds
        for each in measuring:
            each.extend(trials=added)
        builds += added


def _ended(sweep: Sweep, count: int, deadline: _Deadline, on_progress: Callable[[Sweep, int], object] | None) -> None:
    show = None if on_progress is None else lambda _: on_progress(sweep, count)
    while not _ends_within(sweep, min(LOOK_SECONDS, deadline.left_seconds), show):
        if deadline.left_seconds <= 0:
            waiting = sweep.record.get("waiting")
            raise WaitTimeoutError(
                f"no judgement within {deadline.seconds:g} s: {sweep.record['progress']['complete']} of {count} builds "
                f"are complete" + ("" if waiting is None else f"; {waiting['reason']}")
            )
    if sweep.state != "completed" or not sweep.record["progress"]["complete"]:
        raise MeasurementFailedError(
            f"{sweep.name} ({sweep.id}) is {sweep.state}: {sweep.record['reason'] or 'no build is complete'}. "
            f"See its trials: layersweep leaderboard {sweep.id}"
        )


def _ends_within(sweep: Sweep, seconds: float, on_progress: Callable[[SweepDetailRecord], object] | None) -> bool:
    try:
        sweep.wait(seconds, on_progress=on_progress)
    except WaitTimeoutError:
        return False
    return True


@contextmanager
def _cancelled_unless_ended() -> Generator[list[Sweep]]:
    """Cancel the sweeps that still measure if nobody waits for them any longer; the error has a note of it."""
    measuring: list[Sweep] = []
    try:
        yield measuring
    except UnreachableError:
        raise
    except BaseException as problem:
        for sweep in measuring:
            if not sweep.ended:
                problem.add_note(_cancel(sweep))
        raise


def _cancel(sweep: Sweep) -> str:
    try:
        sweep.cancel()
    except LayersweepError as problem:
        return f"The sweep {sweep.id} goes on measuring, as it could not be cancelled: {problem}"
    return f"The sweep {sweep.id}, which measured anew, is cancelled."
